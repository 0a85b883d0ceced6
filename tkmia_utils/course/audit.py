"""Exercises on notebook 09: what a printed table gives away."""

import math
from fractions import Fraction

import numpy as np

from tkmia_utils.course.exercise import Case, Exercise, mutant

_SIZES = [n for n in range(31, 400) if n % 2 and n % 5]  # no fifth digit is just 5


def _printed(rng: np.random.Generator) -> list[Case]:
    """Values of four digits: counts over n, rounded and cut by turns, and such as are no count."""
    cases: list[Case] = []
    for trial in range(48):
        n = int(rng.choice(_SIZES))
        while True:
            exact = Fraction(10_000 * int(rng.integers(1, n)), n)
            if (exact % 1 > Fraction(1, 2)) or trial % 4 != 0:  # where both ways differ
                break
        cut = math.floor(exact)
        digits = (cut, round(exact), cut + 2, int(rng.integers(1, 10_000)))[trial % 4]
        cases.append((digits / 10_000, n))
    return cases


def _fits_exactly(value: float, n: int) -> bool:
    """Every whole number is tried, in fractions."""
    digits = round(10_000 * value)
    counts = (Fraction(10_000 * j, n) for j in range(n + 1))
    return any(digits in (math.floor(exact), round(exact)) for exact in counts)


def fits(value: float, n: int) -> bool:
    """Is a printed value some whole number over n, rounded or cut at four digits?"""
    digits = round(10_000 * value)  # the four digits as a whole number
    low = int(value * n)
    for whole in (low, low + 1):
        exact = 10_000 * whole / n
        if digits in (int(exact), round(exact)):
            return True
    return False


def _table(value: float, n: int, *, cut: bool = True, rounded: bool = True) -> bool:
    """By a list of all values that n allows."""
    both = []
    if cut:
        both += [math.floor(10_000 * j / n) for j in range(n + 1)]
    if rounded:
        both += [round(10_000 * j / n) for j in range(n + 1)]
    return round(10_000 * value) in both


def _lists(rng: np.random.Generator) -> list[Case]:
    """Mean changes of TkAcc, P@2 and NDCG@2 over random pairs of lists, |Y_p| > 2."""
    cases: list[Case] = []
    for _ in range(12):
        change, _, _ = _changes(rng)
        cases.append(tuple(float(v) for v in change))
    return cases


def _changes(rng: np.random.Generator) -> tuple[np.ndarray, float, float]:
    """Changes of TkAcc, P@2 and NDCG@2; of being right at place 1, and at place 2."""
    clean, after = rng.random((2, 40, 2)) < np.array([0.8, 0.4])[:, None, None]
    both = clean.all(1).mean() - after.all(1).mean()
    a, b = clean.mean(0) - after.mean(0)
    discount = 1 / math.log2(3)
    return np.array([both, (a + b) / 2, (a + discount * b) / (1 + discount)]), float(a), float(b)


def _expected_ap(tkacc: float, p: float, ndcg: float) -> float:
    """The three unknowns by a linear system."""
    discount = 1 / math.log2(3)
    rows = [[0, 0, 1], [0.5, 0.5, 0], [1 / (1 + discount), discount / (1 + discount), 0]]
    a, b, c = np.linalg.solve(np.array(rows), np.array([tkacc, p, ndcg]))
    return float(a / 2 + b / 4 + c / 4)


def ap_from_others(tkacc: float, p: float, ndcg: float) -> float:
    """Change of AP@2 from those of TkAcc, P@2 and NDCG@2, for images with |Y_p| > 2."""
    gain = 1 / math.log2(3)
    total = 2 * p  # a + b
    a = (ndcg * (1 + gain) - gain * total) / (1 - gain)  # right at place 1
    b = total - a  # right at place 2
    return a / 2 + b / 4 + tkacc / 4


def _solved(
    tkacc: float,
    p: float,
    ndcg: float,
    *,
    gain: float = 1 / math.log2(3),
    swapped: bool = False,
    sign: int = 1,
    total: int = 2,
) -> float:
    """The same, b first; the options are mistakes."""
    b = (total * p - ndcg * (1 + gain)) / (1 - gain)
    a = total * p - b
    if swapped:
        a, b = b, a
    return a / 2 + b / 4 + sign * tkacc / 4


EXERCISES = (
    Exercise(
        name="fits",
        number="09.1",
        title="Whole numbers",
        task="`fits(value, n)`: is `value`, printed with four digits in [0, 1), some whole number"
        " over `n`, rounded *or* cut after the fourth digit? True or False.",
        points=4,
        minutes=15,
        cases=_printed,
        expected=_fits_exactly,
        solution=fits,
        others=(_table,),
        mutants=(
            mutant(
                "You only let rounded values pass; some tables are cut after the fourth digit.",
                lambda value, n: _table(value, n, cut=False),
                lambda value, n: round(round(value * n) / n, 4) == value,
            ),
            mutant(
                "You only let cut values pass; most tables are rounded.",
                lambda value, n: _table(value, n, rounded=False),
            ),
            mutant(
                "value * n is hardly ever whole, since value is rounded: allow for the last digit.",
                lambda value, n: value * n == round(value * n),
                lambda value, n: float(value * n).is_integer(),
                lambda value, n: abs(value * n - round(value * n)) < 1e-9,
            ),
            mutant(
                "You let too much pass: value may be off by one unit of its last digit, no more.",
                lambda value, n: abs(value * n - round(value * n)) < 0.1,
                lambda value, n: abs(value - round(value * n) / n) < 5e-4,
                lambda value, n: True,
            ),
        ),
        hints=(
            "Which whole numbers j come into question? Those next to value * n.",
            "For each: does j / n, rounded or cut at four digits, give value?",
            "Compare whole numbers, not floats: 10000 * value against 10000 * j / n.",
        ),
        imports=(),
    ),
    Exercise(
        name="ap_from_others",
        number="09.3",
        title="Three measures give the fourth",
        task="`ap_from_others(tkacc, p, ndcg)`: at k = 2 and |Y_p| > 2, the change of AP@2 from"
        " those of TkAcc, P@2 and NDCG@2. A number.",
        points=4,
        minutes=20,
        cases=_lists,
        expected=_expected_ap,
        solution=ap_from_others,
        others=(_solved,),
        mutants=(
            mutant(
                "Places 1 and 2 have changed roles: a/2 + b/4, with a for place 1.",
                lambda *case: _solved(*case, swapped=True),
            ),
            mutant(
                "The discount of place 2 is 1/log2(3).",
                lambda *case: _solved(*case, gain=0.5),
                lambda *case: _solved(*case, gain=1 / math.log(3)),
                lambda *case: _solved(*case, gain=math.log(2)),
            ),
            mutant(
                "The sign of the last term: both places right adds c/4.",
                lambda *case: _solved(*case, sign=-1),
            ),
            mutant(
                "The last term is missing: with both places right, P@2 is 1 and not 1/2.",
                lambda *case: _solved(*case, sign=0),
            ),
            mutant(
                "P@2 is (a + b)/2, so a + b is twice it.",
                lambda *case: _solved(*case, total=1),
            ),
        ),
        hints=(
            "Let a and b be the changes at places 1 and 2, c that of both at once.",
            "P and NDCG are two equations for a and b; TkAcc is c.",
            "Then AP is a/2 + b/4 + c/4.",
        ),
        imports=("import math",),
    ),
)
