"""TkMIA: Sun et al., *When Measures are Unreliable*, ACM MM 2023, Eq. (6) and Algorithm 1."""

import torch

from tkmia_utils import losses
from tkmia_utils.attacks.base import AttackSpec, PixelDescent, State


class TkMIA(PixelDescent):
    """The top-k measure-imperceptible attack.

    Descends ``max_S f - mean(lowest c-k) + mean(top k) - min_{Y_p∖S} f + alpha/2 ||eps||^2``:
    Eq. (6) with its lambdas at the exact order statistics that Lemma 4.1 names.

    Parameters
    ----------
    scores : {"logits", "sigmoid"}
        What f is. The paper puts a sigmoid on the logits; on a confident victim its gradient
        vanishes and the attack stalls, so logits are the default.
    """

    def score_gradient(self, scores: torch.Tensor, rows: AttackSpec, state: State) -> torch.Tensor:
        """See :func:`tkmia_utils.losses.tkmia_gradient`."""
        return losses.tkmia_gradient(scores, rows.labels, rows.specified, rows.k)
