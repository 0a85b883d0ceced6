"""TkML-AP-U: the untargeted attack of Hu et al., *TkML-AP*, ICCV 2021."""

import torch

from tkmia_utils import losses
from tkmia_utils.attacks.base import AttackSpec, PixelDescent, State


class TkMLAPU(PixelDescent):
    """Push *every* relevant label out of the top k: the paper's main baseline.

    Descends ``max_{Y_p} f - mean(lowest c-k) + alpha/2 ||eps||^2``, the average top-k relaxation of
    "the best relevant label is below f_[k+1]" (section 3.2 of Sun et al.). The specified labels
    appear only in the rule that stops the attack.

    Parameters
    ----------
    scores : {"logits", "sigmoid"}
        What f is.
    """

    def score_gradient(self, scores: torch.Tensor, rows: AttackSpec, state: State) -> torch.Tensor:
        """See :func:`tkmia_utils.losses.tkml_ap_u_gradient`."""
        return losses.tkml_ap_u_gradient(scores, rows.labels, rows.k)
