"""TkMIA as its paper prints it and as its code runs it, beside the default of this repository."""

import torch

from tkmia_utils import losses
from tkmia_utils.attacks.base import (
    AttackSpec,
    Iterate,
    State,
    check_scores_option,
    column,
    descend,
)
from tkmia_utils.attacks.tkmia import TkMIA
from tkmia_utils.exact import row_by_row, sigmoid


class PaperTkMIA(TkMIA):
    """TkMIA as Algorithm 1 prints it: sigmoid scores, and lambdas learned beside eps.

    Each step moves lam1 and lam2 against their gradients of Eq. (6) by the same lr, without
    momentum, and clamps them to [0, 1]. They start at 0, which the paper leaves open.

    Parameters
    ----------
    scores : {"logits", "sigmoid"}
        The paper's [0, 1] for the lambdas only suits sigmoid scores, the default here.
    """

    watched = ("velocity", "lam1", "lam2")

    def __init__(self, *, scores: str = "sigmoid") -> None:
        super().__init__(scores=scores)

    def begin(self, images: torch.Tensor) -> State:
        """Both lambdas at 0."""
        zero = images.new_zeros(len(images))
        return {**super().begin(images), "lam1": zero, "lam2": zero.clone()}

    def score_gradient(self, scores: torch.Tensor, rows: AttackSpec, state: State) -> torch.Tensor:
        """See :func:`tkmia_utils.losses.tkmia_eq6_gradients`."""
        sets = (rows.labels, rows.specified, rows.k)
        return losses.tkmia_eq6_gradients(scores, *sets, state["lam1"], state["lam2"])[0]

    def step(self, point: Iterate, state: State) -> State:
        """Algorithm 1, lines 3 to 5: all three gradients first, then all three updates."""
        moved = super().step(point, state)
        rows, scores = point.rows, point.logits
        if self.scores == "sigmoid":
            scores = sigmoid(scores)
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
        return (row_by_row(torch.tanh, 2 * images - 1 + state["m"]) + 1) / 2

    def norm(self, images: torch.Tensor, adversarial: torch.Tensor, state: State) -> torch.Tensor:
        """||m||, which the released code calls the perturbation."""
        norm: torch.Tensor = state["m"].flatten(1).norm(dim=1)
        return norm

    def step(self, point: Iterate, state: State) -> State:
        """One step of SGD on m; the tanh keeps the image in its box."""
        paler = row_by_row(torch.tanh, 2 * point.images - 1 + state["m"])
        slope = (1 - paler.square()) / 2
        gradient = slope * self.loss_gradient(point, state)
        velocity = descend(state["velocity"], gradient, state["m"], point.rows)
        m = torch.addcmul(state["m"], column(-point.rows.lr), velocity)
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
