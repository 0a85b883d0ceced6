"""ML-CW-U: Carlini and Wagner's margin for label sets, as in appendix B.2 of Sun et al. (2023)."""

import torch

from tkmia_utils import losses
from tkmia_utils.attacks.base import AttackSpec, PixelDescent, State


class MLCWU(PixelDescent):
    """Bring every relevant label under every irrelevant one.

    Descends ``[max_{Y_p} f - min_{not Y_p} f]_+ + alpha/2 ||eps||^2``, the untargeted form.
    Appendix B.2 prints ``[max_{not Y_p} f - min_{Y_p} f]_+`` instead, the targeted form with the
    true labels for a target: it *raises* relevant labels, and where a specified label leaves the
    top k all the same, it was crowded out by accident. It is kept to show that.

    Parameters
    ----------
    scores : {"logits", "sigmoid"}
        What f is.
    form : {"untargeted", "printed"}
        Which of the two.
    """

    def __init__(self, *, scores: str = "logits", form: str = "untargeted") -> None:
        super().__init__(scores=scores)
        if form not in ("untargeted", "printed"):
            raise ValueError(f"form: expected 'untargeted' or 'printed', got {form!r}")
        self.form = form

    def score_gradient(self, scores: torch.Tensor, rows: AttackSpec, state: State) -> torch.Tensor:
        """See :func:`tkmia_utils.losses.ml_cw_u_gradient`."""
        return losses.ml_cw_u_gradient(scores, rows.labels, form=self.form)
