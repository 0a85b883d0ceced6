"""Exercises on notebook 02: Eq. (6), and the closed form that follows from it."""

import numpy as np
import torch

from tkmia_utils import losses
from tkmia_utils.course.exercise import Case, Exercise, mutant


def _rows(rng: np.random.Generator) -> list[Case]:
    """One image with its sets, k and two lambdas, some of them negative."""
    cases: list[Case] = []
    for trial in range(16):
        classes = 5 + trial // 4
        f = torch.from_numpy(np.round(3 * rng.standard_normal(classes), 2))
        relevant, specified = sets(rng, f.numpy(), trial)
        k = int(rng.choice([k for k in range(1, classes) if 2 * k != classes]))
        lam1, lam2 = (float(v) for v in np.round(rng.uniform(-1, 1, 2), 2))
        if trial % 4 == 0:
            lam1, lam2 = -abs(lam1) - 0.1, -abs(lam2) - 0.1
        cases.append((f, relevant, specified, k, lam1, lam2))
    return cases


def sets(
    rng: np.random.Generator, scores: np.ndarray, trial: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Y_p of four labels and S of two of them.

    By turns: any; S at the low end of Y_p; and all four among the highest.
    """
    order = rng.permutation(len(scores))
    ranked = np.argsort(-scores)
    if trial % 3 == 1:
        order = np.concatenate([ranked[2:4], ranked[:2], ranked[4:]])
    elif trial % 3 == 2:
        order = ranked
    relevant, specified = np.zeros(len(scores), dtype=bool), np.zeros(len(scores), dtype=bool)
    relevant[order[:4]], specified[order[:2]] = True, True
    return torch.from_numpy(relevant), torch.from_numpy(specified)


def eq6(
    f: torch.Tensor,
    relevant: torch.Tensor,
    specified: torch.Tensor,
    k: int,
    lam1: float,
    lam2: float,
) -> torch.Tensor:
    """Eq. (6) for one image and given lambdas, without the norm."""
    c = len(f)
    s = f[specified].max()  # the best specified label goes down
    r = f[relevant & ~specified].min()  # the worst other relevant label comes up
    exclusion = lam1 + (s - f - lam1).clamp_min(0).sum() / (c - k)
    inclusion = lam2 + (f - r - lam2).clamp_min(0).sum() / k
    return exclusion + inclusion


def _eq6_loop(
    f: torch.Tensor,
    relevant: torch.Tensor,
    specified: torch.Tensor,
    k: int,
    lam1: float,
    lam2: float,
    *,
    inner: bool = False,
    swapped: bool = False,
    bare: bool = False,
    every: bool = False,
    all_relevant: bool = False,
    worst: bool = False,
) -> float:
    """The same over lists of numbers; the options are mistakes."""
    scores: list[float] = f.tolist()
    wanted = [v for v, s in zip(scores, specified.tolist(), strict=True) if s]
    others = [
        v
        for v, y, s in zip(scores, relevant.tolist(), specified.tolist(), strict=True)
        if y and (all_relevant or not s)
    ]
    best = min(wanted) if worst else max(wanted)
    first, second = [best - v for v in scores], [v - min(others) for v in scores]
    if inner:
        first, second = [max(0, d) for d in first], [max(0, d) for d in second]
    m, n = (k, len(scores) - k) if swapped else (len(scores) - k, k)
    m, n = (len(scores), len(scores)) if every else (m, n)
    outside = 0 if bare else lam1 + lam2
    return (
        outside
        + sum(max(0, d - lam1) for d in first) / m
        + sum(max(0, d - lam2) for d in second) / n
    )


def _expected_eq6(
    f: torch.Tensor,
    relevant: torch.Tensor,
    specified: torch.Tensor,
    k: int,
    lam1: float,
    lam2: float,
) -> torch.Tensor:
    return losses.tkmia_eq6(f[None], relevant[None], specified[None], k, lam1, lam2)[0]


def _sizes(rng: np.random.Generator) -> list[Case]:
    sizes = [(int(rng.integers(8, 40)), int(rng.integers(1, 6))) for _ in range(12)]
    return [(c + (c == 2 * k), k) for c, k in sizes]


def slope(c: int, k: int) -> float:
    """Slope of the closed form in the logit of a specified label that is below the top k."""
    # max_S f rises by 1; the label is one of the lowest c - k, so their mean rises as well
    return 1 - 1 / (c - k)


def _measured_slope(c: int, k: int) -> float:
    """The difference of the objective over 1 logit, far below all others."""
    scores = torch.arange(c, 0, -1, dtype=torch.float64).repeat(2, 1)
    scores[:, -1] = torch.tensor([-50.0, -51.0])
    labels, specified = torch.zeros(2, 2, c, dtype=torch.bool)
    labels[:, : k + 1], labels[:, -1], specified[:, -1] = True, True, True
    value = losses.tkmia(scores, labels, specified, k)
    return float(value[0] - value[1])


EXERCISES = (
    Exercise(
        name="eq6",
        number="02.4",
        title="Eq. (6) in full",
        task="`eq6(f, relevant, specified, k, lam1, lam2)`: both halves of Eq. (6) for one image,"
        " without the norm. `f` is `(C,)`, the masks Y_p and S as well; the lambdas are numbers"
        " and may be negative.",
        points=4,
        minutes=20,
        cases=_rows,
        expected=_expected_eq6,
        solution=eq6,
        others=(_eq6_loop,),
        mutants=(
            mutant(
                "k and c - k have changed places: the exclusion averages over c - k, the"
                " inclusion over k.",
                lambda *case: _eq6_loop(*case, swapped=True),
            ),
            mutant(
                "The inner hinge is kept: Lemma 4.2 has dropped it from Eq. (6).",
                lambda *case: _eq6_loop(*case, inner=True),
            ),
            mutant(
                "λ₁ and λ₂ must also be added outside of the sums.",
                lambda *case: _eq6_loop(*case, bare=True),
            ),
            mutant(
                "The lowest relevant label is sought in Y_p∖S: S is to go down, not up.",
                lambda *case: _eq6_loop(*case, all_relevant=True),
            ),
            mutant(
                "The highest specified label is the one to push down: max over S, not min.",
                lambda *case: _eq6_loop(*case, worst=True),
            ),
            mutant(
                "You average over all c labels: divide by c - k and by k.",
                lambda *case: _eq6_loop(*case, every=True),
            ),
        ),
        hints=(
            "Each half is λ + (1/m) Σ [d - λ]_+ for some differences d and some m.",
            "Exclusion: d = max_S f - f, m = c - k. Inclusion: d = f - min over Y_p∖S, m = k.",
            "`f[specified].max()`, `f[relevant & ~specified].min()`, `.clamp_min(0).sum()`.",
        ),
    ),
    Exercise(
        name="slope",
        number="02.5",
        title="No bottom",
        task="`slope(c, k)`: the slope of the closed form in the logit of the highest specified"
        " label, once that is below the top k. Or draw numbers with"
        ' `check.draw("slope")` and hand in yours.',
        points=2,
        minutes=10,
        cases=_sizes,
        expected=_measured_slope,
        solution=slope,
        others=(lambda c, k: (c - k - 1) / (c - k),),
        mutants=(
            mutant(
                "The label is one of the lowest c - k itself: it pulls their mean along.",
                lambda c, k: 1.0,
            ),
            mutant(
                "The sign: the objective falls with the logit, so its slope is positive.",
                lambda c, k: 1 / (c - k) - 1,
            ),
            mutant(
                "The mean is over the lowest c - k labels, not over k.",
                lambda c, k: 1 - 1 / k,
                lambda c, k: 1 / k,
            ),
            mutant(
                "That is the label's share of the mean; max_S f moves too, by 1.",
                lambda c, k: 1 / (c - k),
                lambda c, k: -1 / (c - k),
            ),
            mutant(
                "The mean of the lowest is subtracted: its share counts with a minus.",
                lambda c, k: 1 + 1 / (c - k),
            ),
            mutant(
                "There are c - k labels below the top k, not c.",
                lambda c, k: 1 - 1 / c,
            ),
        ),
        hints=(
            "The closed form is max_S f - mean(lowest c - k) + mean(top k) - min over Y_p∖S.",
            "In which of its four terms does the label occur?",
            "One term gives 1, the other its share of a mean.",
        ),
        imports=(),
        by_value=True,
    ),
)
