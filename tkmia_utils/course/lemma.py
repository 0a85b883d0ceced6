"""Exercises on notebook 02: the lemma under the attack."""

from typing import Any

import numpy as np
import torch
from torch.overrides import TorchFunctionMode

from tkmia_utils import topk
from tkmia_utils.course.exercise import Answer, Case, Exercise, mutant
from tkmia_utils.course.reading import Refused


def _scores(rng: np.random.Generator, classes: int) -> np.ndarray:
    """Different scores in (0, 1), with two decimals."""
    return rng.choice(np.arange(5, 96), classes, replace=False) / 100


def _sums(rng: np.random.Generator) -> list[Case]:
    """Scores in [0, 1] and every k from 0 to c, with ties in some rows."""
    cases: list[Case] = []
    for classes in (3, 4, 6):
        # a third decimal and more: no grid of λ has kinks like that
        scores = torch.from_numpy(_scores(rng, classes) + 0.01 * rng.uniform(0.2, 0.8, classes))
        cases += [(scores, k) for k in range(classes + 1)]
        tied = scores.clone()
        tied[:2] = tied[2]
        cases += [(tied, k) for k in range(classes + 1)]
    return cases


class _NoSort(TorchFunctionMode):
    """Refuse what sorts; it sees what torch computes here, not what a grader runs elsewhere."""

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Let everything else through."""
        if getattr(func, "__name__", "") in ("sort", "argsort", "msort", "topk", "kthvalue"):
            raise Refused(f"it calls {func.__name__}, and the point is to do without a sort")
        return func(*args, **(kwargs or {}))


def _without_sort(answer: Answer, *case: Any) -> Any:
    with _NoSort():
        return answer(*case)


def sum_top_k(f: torch.Tensor, k: int) -> torch.Tensor:
    """Sum of the k largest scores without a sort, by Lemma 4.1."""
    # g is made of straight pieces with kinks at the scores: its minimum is at one of them
    lam = f[:, None]
    g = k * f + (f - lam).clamp_min(0).sum(1)
    return g.min()


def _sum_loop(f: torch.Tensor, k: int) -> float:
    scores: list[float] = f.tolist()
    return min(k * lam + sum(max(0.0, s - lam) for s in scores) for lam in [0.0, *scores, 1.0])


def _on_grid(points: int) -> Answer:
    def answer(f: torch.Tensor, k: int) -> torch.Tensor:
        lam = torch.linspace(0, 1, points, dtype=f.dtype)
        return (k * lam + (f - lam[:, None]).clamp_min(0).sum(1)).min()

    return answer


def _sum_at(f: torch.Tensor, k: int, lam: Any) -> torch.Tensor:
    """The braces of Lemma 4.1."""
    price: torch.Tensor = k * lam + (f - lam).clamp_min(0).sum()
    return price


def _weights(rng: np.random.Generator) -> list[Case]:
    """Weights that are subgradients of the top-k sum, and such as break one condition clearly."""
    cases: list[Case] = []
    for _ in range(4):
        f = np.sort(_scores(rng, 6))[::-1].copy()
        k = int(rng.integers(2, 4))
        top = np.where(np.arange(6) < k, 1.0, 0.0)
        fewer, more, moved = top.copy(), top.copy(), top.copy()
        fewer[k - 1], more[k], moved[k - 1], moved[k] = 0, 1, 0.5, 0.5
        cases += [_shuffled(rng, p, f, k) for p in (top, fewer, more, moved)]
        above, share = k - 1, 1  # the tie has places k, k + 1 and k + 2, and weight 1 to give
        f[above : above + 3] = f[above]
        for tied in (
            *([1.0, 0, 0], [0.5, 0, 0.5], [1 / 3] * 3, _inexact(rng, above, share)),
            *([0, 0, 0], [1, 1, 1], [-0.5, 0.75, 0.75], [1.0, 0.5, 0]),
        ):
            cases.append(_shuffled(rng, _placed(above, tied), f, k))
        lifted, lowered = _placed(above, [0.5, 0.5, 0.5]), _placed(above, [0.5, 0, 0])
        lifted[0] -= 0.5  # a label above the tie gives half of its weight to the tie
        lowered[above + 3] = 0.5  # a label below it has the rest
        f2, k2 = f.copy(), k + 1  # the same tie with weight 2 to give
        heavy = _placed(above, [2.0, 0, 0])
        even = _placed(above, [2 / 3] * 3)
        cases += [_shuffled(rng, p, f, k) for p in (lifted, lowered)]
        cases += [_shuffled(rng, p, f2, k2) for p in (heavy, even)]
    return cases


def _placed(above: int, tied: Any) -> np.ndarray:
    weights = np.zeros(6)
    weights[:above] = 1
    weights[above : above + 3] = tied
    return weights


def _inexact(rng: np.random.Generator, above: int, share: int) -> list[float]:
    """Three weights whose sum is `share` but for the rounding."""
    while True:
        a, b = (float(v) for v in rng.uniform(0.1, 0.4, 2))
        c = float(np.nextafter(share - a - b, 1))
        weights = torch.from_numpy(_placed(above, [a, b, c]))
        if all(s != above + share for s in (float(weights.sum()), sum(weights.tolist()))):
            return [a, b, c]


def _shuffled(rng: np.random.Generator, p: np.ndarray, f: np.ndarray, k: int) -> Case:
    order = rng.permutation(len(f))
    return torch.from_numpy(p[order].copy()), torch.from_numpy(f[order].copy()), k


def _conditions(
    p: torch.Tensor,
    f: torch.Tensor,
    k: int,
    *,
    tolerance: float = 1e-9,
    most: bool = True,
    total: bool = True,
    places: bool = True,
    positive: bool = True,
) -> bool:
    """The conditions one by one; those that are left out are mistakes."""
    kth = f.sort(descending=True).values[k - 1]
    near = tolerance
    return bool(
        (not positive or (p >= -near).all())
        and (not most or (p <= 1 + near).all())
        and (not total or (p.sum() - k).abs() <= near)
        and (not places or ((p[f > kth] >= 1 - near).all() and (p[f < kth] <= near).all()))
    )


def is_subgradient(p: torch.Tensor, f: torch.Tensor, k: int) -> bool:
    """Is p a subgradient, at f, of the sum of the k largest scores?"""
    kth = f.sort(descending=True).values[k - 1]
    near = 1e-9  # sums of floats are rounded
    between = bool(((p >= -near) & (p <= 1 + near)).all())
    total = bool((p.sum() - k).abs() <= near)
    above = bool((p[f > kth] >= 1 - near).all())  # labels that are surely counted
    below = bool((p[f < kth] <= near).all())  # labels that are surely not
    return between and total and above and below


def _by_moves(p: torch.Tensor, f: torch.Tensor, k: int, *, up_only: bool = False) -> bool:
    """By the inequality itself: single labels up and down, and all at once."""
    moves = torch.cat([torch.eye(len(f)), torch.ones(1, len(f))]).to(f.dtype) / 1000
    if not up_only:
        moves = torch.cat([moves, -moves])
    rise = topk.sum_top_k(f + moves, k) - topk.sum_top_k(f, k)
    return bool((rise >= moves @ p - 1e-9).all())


EXERCISES = (
    Exercise(
        name="sum_top_k",
        number="02.2",
        title="The top-k sum without a sort",
        task="`sum_top_k(f, k)`: the sum of the k largest of the scores `f`, a tensor `(C,)` in"
        " [0, 1], with 0 <= k <= C, by Lemma 4.1 and without a sort.",
        points=3,
        minutes=15,
        cases=_sums,
        expected=topk.sum_top_k,
        solution=sum_top_k,
        others=(_sum_loop,),
        mutants=(
            mutant(
                "A grid of λ misses the kinks: the minimum is at one of the scores, so try those.",
                *(_on_grid(points) for points in (11, 21, 51, 100, 101, 201)),
                *(_on_grid(points) for points in (256, 500, 1000, 1001)),
            ),
            mutant(
                "λ is 0 or 1 only: the minimum may be at a score between them.",
                lambda f, k: min(f.sum(), k * torch.ones(1, dtype=f.dtype)),
            ),
            mutant(
                "For k = 0 there is no f_[k], and Python's f[-1] is the last one.",
                lambda f, k: _sum_at(f, k, sorted(f.tolist(), reverse=True)[k - 1]),
            ),
            mutant(
                "The hinge is missing: [f - λ]_+ is 0 where f is below λ.",
                lambda f, k: min(k * lam + (f - lam).sum() for lam in f),
            ),
            mutant(
                "The term kλ is missing.",
                lambda f, k: min((f - lam).clamp_min(0).sum() for lam in f),
            ),
            mutant(
                "You take the largest value over λ: the lemma has a minimum.",
                lambda f, k: max(_sum_at(f, k, lam) for lam in f),
            ),
            mutant(
                "That is the mean of the top k (Eq. 1); the lemma is about their sum.",
                lambda f, k: sum_top_k(f, k) / max(k, 1),
            ),
        ),
        hints=(
            "Lemma 4.1: it is the minimum over λ of kλ + Σ [f - λ]_+.",
            "That function of λ is made of straight pieces. Where can such a one be lowest?",
            "Try λ = every score, and take the least value.",
        ),
        call=_without_sort,
    ),
    Exercise(
        name="is_subgradient",
        number="02.3",
        title="Is it a subgradient?",
        task="`is_subgradient(p, f, k)`: is `p` a subgradient, at the scores `f`, of the sum of"
        " the k largest? Tensors `(C,)`, float64; True or False. `p` may be rounded in its last"
        " digits.",
        points=4,
        minutes=20,
        cases=_weights,
        expected=_conditions,
        solution=is_subgradient,
        others=(_by_moves,),
        mutants=(
            mutant(
                "You only raise scores: the inequality must hold when they fall as well.",
                lambda p, f, k: _by_moves(p, f, k, up_only=True),
            ),
            mutant(
                "Sums of floats are rounded: compare with k up to a tolerance.",
                lambda p, f, k: _conditions(p, f, k, tolerance=0),
            ),
            mutant(
                "The weights must add up to k.",
                lambda p, f, k: _conditions(p, f, k, total=False),
            ),
            mutant(
                "No label counts more than once: a weight above 1 is no subgradient.",
                lambda p, f, k: _conditions(p, f, k, most=False),
            ),
            mutant(
                "No weight may be negative.",
                lambda p, f, k: _conditions(p, f, k, positive=False),
            ),
            mutant(
                "You do not ask who has the weight: it is 1 above the k-th score and 0 below it.",
                lambda p, f, k: _conditions(p, f, k, places=False),
            ),
            mutant(
                "You accept the mask of a sorted top k alone: labels that tie may share a weight.",
                lambda p, f, k: _conditions(p, f, k) and bool(((p == 0) | (p == 1)).all()),
            ),
        ),
        hints=(
            "Without a tie across place k there is one subgradient. Which?",
            "With a tie, the tied labels may share what is left of k as they like.",
            "So: 0 <= p <= 1, sum k, 1 above the k-th score, 0 below it, with a small tolerance.",
        ),
    ),
)
