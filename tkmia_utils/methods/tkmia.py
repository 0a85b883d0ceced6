"""TkMIA: Sun et al., *When Measures are Unreliable*, ACM MM 2023, Eq. (6) and Algorithm 1."""

import torch

from tkmia_utils import losses
from tkmia_utils.methods.base import PixelDescent, Pull, Rows, State, check_scores_option, descend


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

    def score_gradient(
        self, scores: torch.Tensor, clean_scores: torch.Tensor, rows: Rows, state: State
    ) -> torch.Tensor:
        """See :func:`tkmia_utils.losses.tkmia_gradient`."""
        return losses.tkmia_gradient(scores, rows.labels, rows.specified, rows.k)


class PaperTkMIA(TkMIA):
    """TkMIA as Algorithm 1 prints it: sigmoid scores, and lambdas learned beside eps.

    Each step moves lam1 and lam2 against their gradients of Eq. (6) by the same lr, without
    momentum, and clamps them to [0, 1]. They start at 0, which the paper leaves open.

    Parameters
    ----------
    scores : {"logits", "sigmoid"}
        The paper's [0, 1] for the lambdas only suits sigmoid scores, the default here.
    """

    def __init__(self, *, scores: str = "sigmoid") -> None:
        super().__init__(scores=scores)

    def begin(self, images: torch.Tensor) -> State:
        """Both lambdas at 0."""
        zero = images.new_zeros(len(images))
        return {**super().begin(images), "lam1": zero, "lam2": zero.clone()}

    def score_gradient(
        self, scores: torch.Tensor, clean_scores: torch.Tensor, rows: Rows, state: State
    ) -> torch.Tensor:
        """See :func:`tkmia_utils.losses.tkmia_eq6_gradients`."""
        sets = (rows.labels, rows.specified, rows.k)
        return losses.tkmia_eq6_gradients(scores, *sets, state["lam1"], state["lam2"])[0]

    def step(
        self,
        images: torch.Tensor,
        logits: torch.Tensor,
        clean_logits: torch.Tensor,
        pull: Pull,
        rows: Rows,
        state: State,
    ) -> State:
        """Algorithm 1, lines 3 to 5: all three gradients first, then all three updates."""
        moved = super().step(images, logits, clean_logits, pull, rows, state)
        scores = logits.sigmoid() if self.scores == "sigmoid" else logits
        sets = (rows.labels, rows.specified, rows.k)
        _, slope1, slope2 = losses.tkmia_eq6_gradients(scores, *sets, state["lam1"], state["lam2"])
        lam1 = (state["lam1"] - rows.lr * slope1).clamp(0, 1)
        lam2 = (state["lam2"] - rows.lr * slope2).clamp(0, 1)
        return {**moved, "lam1": lam1, "lam2": lam2}


class ReleasedTkMIA(TkMIA):
    """TkMIA as its released code runs it: the image is ``tanh(x + m)``, and m is optimised.

    No arctanh is taken first, so that even at m = 0 the victim sees tanh(x), a paler image: the
    clean logits of this variant are those of the paler image, and the norm it reports is ||m||,
    before the tanh. Scores are logits and lambdas exact order statistics, as in the default.

    Parameters
    ----------
    scores : {"logits", "sigmoid"}
        What f is.
    """

    def begin(self, images: torch.Tensor) -> State:
        """M = 0 at rest."""
        return {"m": torch.zeros_like(images), "velocity": torch.zeros_like(images)}

    def image(self, images: torch.Tensor, state: State) -> torch.Tensor:
        """``tanh(x + m)`` of the paper's [-1, 1] pixels, as [0, 1] pixels."""
        return ((2 * images - 1 + state["m"]).tanh() + 1) / 2

    def norm(self, images: torch.Tensor, adversarial: torch.Tensor, state: State) -> torch.Tensor:
        """||m||, which the released code calls the perturbation."""
        return state["m"].flatten(1).norm(dim=1)

    def step(
        self,
        images: torch.Tensor,
        logits: torch.Tensor,
        clean_logits: torch.Tensor,
        pull: Pull,
        rows: Rows,
        state: State,
    ) -> State:
        """One step of SGD on m; the tanh keeps the image in its box."""
        slope = (1 - (2 * images - 1 + state["m"]).tanh().square()) / 2
        gradient = slope * self.loss_gradient(logits, clean_logits, pull, rows, state)
        m, velocity = descend(state["m"], state["velocity"], gradient, rows)
        return {"m": m, "velocity": velocity}


VARIANTS = {"default": TkMIA, "paper": PaperTkMIA, "released": ReleasedTkMIA}


def tkmia(*, variant: str = "default", scores: str | None = None) -> TkMIA:
    """Choose a variant of TkMIA.

    Parameters
    ----------
    variant : {"default", "paper", "released"}
        :class:`TkMIA`, :class:`PaperTkMIA` or :class:`ReleasedTkMIA`.
    scores : {"logits", "sigmoid"}, optional
        Default: the variant's own.

    Returns
    -------
    TkMIA

    Raises
    ------
    ValueError
        An unknown variant or scores.
    """
    if variant not in VARIANTS:
        raise ValueError(f"variant: expected one of {sorted(VARIANTS)}, got {variant!r}")
    if scores is None:
        return VARIANTS[variant]()
    return VARIANTS[variant](scores=check_scores_option(scores))
