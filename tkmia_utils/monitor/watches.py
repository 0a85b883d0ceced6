"""What a monitor watches: pure functions of scores that give one number an image.

Each takes ``(scores, beside, k)`` for a batch ``(N, C)`` and returns float64: ``(N,)``, or
``(N, C)`` for a watch of every class; NaN where it does not see the image. *beside* is what it
needs beside the scores: labels, second scores, or nothing (None). Row i depends on image i alone,
to the bit: how a stream is cut into batches must not matter. A new one is an entry in a mapping
like :data:`WATCHES`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch

from tkmia_utils import measures
from tkmia_utils.topk import in_top_k, kth_largest, ranks
from tkmia_utils.validation import check_one_of

Scores = torch.Tensor
Labels = torch.Tensor | None
NEEDS = ("nothing", "labels", "second")
REACH = 3
"""How many ranks below the top k still count as a near miss."""


def _measure(function: Callable[..., torch.Tensor]) -> Callable[[Scores, Labels, int], Scores]:
    """A measure of :mod:`tkmia_utils.measures` as a watch."""

    def watch(scores: Scores, labels: Labels, k: int) -> Scores:
        return function(scores, _needed(labels, "labels"), k)

    return watch


def _needed(beside: Labels, name: str) -> torch.Tensor:
    if beside is None:
        raise ValueError(f"{name}: this watch needs them")
    return beside


def recall(scores: Scores, labels: Labels, k: int) -> Scores:
    """Is each class that the image has in its top k? NaN for the classes it does not have.

    Parameters
    ----------
    scores : torch.Tensor
        Floating ``(N, C)``.
    labels : torch.Tensor
        Bool ``(N, C)``.
    k : int
        1 <= k <= C.

    Returns
    -------
    torch.Tensor
        float64 ``(N, C)``: 0, 1 or NaN.
    """
    return torch.where(_needed(labels, "labels"), in_top_k(scores, k).double(), torch.nan)


def rate(scores: Scores, labels: Labels, k: int) -> Scores:
    """Is each class in the top k? float64 ``(N, C)``, 0 or 1; its mean is the rate of a class."""
    return in_top_k(scores, k).double()


def gap(scores: Scores, labels: Labels, k: int) -> Scores:
    """Gap between ranks k and k + 1, ``f_[k] - f_[k+1]``; float64 ``(N,)``, in units of scores."""
    return kth_largest(scores.double(), k) - kth_largest(scores.double(), k + 1)


def near_miss(scores: Scores, labels: Labels, k: int) -> Scores:
    """How closely each class misses the top k: 1 at rank k + 1, 1/2 at k + 2, 1/3 at k + 3, else 0.

    An attack that stops as soon as it succeeds leaves the labels it hides just below the top k:
    one at rank k + 1, and of several some a little lower. Rank k + 1 alone would be the sharpest
    sign for one label and miss the others; the three ranks together ring more often on clean
    images. Graded, one watch serves both: its bets have a depth at every grade.

    Returns
    -------
    torch.Tensor
        float64 ``(N, C)``.
    """
    below = ranks(scores) - k
    return torch.where((below >= 1) & (below <= REACH), 1.0 / below.clamp_min(1).double(), 0.0)


def second_look(scores: Scores, second: Labels, k: int) -> Scores:
    """How far a label that is *not* in the top k stands above its border in the second scores.

    The second scores are the classifier's own on copies of the image that were changed a little
    (compressed, mirrored). A perturbation of small norm is fragile: on such a copy the hidden label
    is often back, well within the top k. On a clean image the two lists agree but near the border.

    Parameters
    ----------
    scores, second : torch.Tensor
        Floating ``(N, C)``.
    k : int
        1 <= k <= C - 1.

    Returns
    -------
    torch.Tensor
        float64 ``(N,)``: the highest second score of a label outside the top k, minus the k-th
        highest second score; in units of scores.
    """
    beside = _needed(second, "second").double()
    left_out = beside.masked_fill(in_top_k(scores, k), -torch.inf).amax(-1)
    return left_out - kth_largest(beside, k)


@dataclass(frozen=True)
class Watch:
    """One thing to watch.

    Attributes
    ----------
    value : callable
        ``(scores, beside, k)`` to float64 ``(N,)`` or ``(N, C)``.
    needs : {"nothing", "labels", "second"}
        What it is given beside the scores. Without that it waits.
    per_class : bool
        Its values are ``(N, C)``, and every class is a detector of its own.
    suspicious : {"low", "high"}
        The side on which an attack shows.
    levels : callable, optional
        k to all values it can take, if they are few. Bets then know where to look.
    """

    value: Callable[[Scores, Labels, int], Scores]
    needs: Literal["nothing", "labels", "second"]
    per_class: bool
    suspicious: Literal["low", "high"]
    levels: Callable[[int], tuple[float, ...]] | None = None

    def __post_init__(self) -> None:
        """Refuse a side that is none, and needs that nobody can meet."""
        check_one_of(self.needs, NEEDS, name="needs")
        check_one_of(self.suspicious, ("low", "high"), name="suspicious")

    def oriented(self, scores: Scores, beside: Labels, k: int) -> Scores:
        """Its values, with the other sign where high ones are suspicious: low always is."""
        found = self.value(scores, beside, k).double()
        return -found if self.suspicious == "high" else found

    def oriented_levels(self, k: int) -> tuple[float, ...] | None:
        """All values that :meth:`oriented` can take, ascending; None if they are many."""
        if self.levels is None:
            return None
        sign = -1.0 if self.suspicious == "high" else 1.0
        return tuple(sorted(sign * value for value in self.levels(k)))


def _binary(k: int) -> tuple[float, ...]:
    return (0.0, 1.0)


def _parts(k: int) -> tuple[float, ...]:
    return tuple(hits / k for hits in range(k + 1))


def _grades(k: int) -> tuple[float, ...]:
    return (0.0, *(1.0 / place for place in range(REACH, 0, -1)))


WATCHES = {
    "P@k": Watch(_measure(measures.precision_at_k), "labels", False, "low", _parts),
    "AP@k": Watch(_measure(measures.average_precision_at_k), "labels", False, "low"),
    "NDCG@k": Watch(_measure(measures.ndcg_at_k), "labels", False, "low"),
    "TkAcc": Watch(_measure(measures.topk_accuracy), "labels", False, "low", _binary),
    "recall": Watch(recall, "labels", True, "low", _binary),
    "rate": Watch(rate, "nothing", True, "low", _binary),
    "gap": Watch(gap, "nothing", False, "low"),
    "near miss": Watch(near_miss, "nothing", True, "high", _grades),
    "second look": Watch(second_look, "second", False, "high"),
}
"""By name, all watches of the house."""
