"""Exercises on notebook 09: what a printed table gives away."""

import math
from fractions import Fraction

import numpy as np

from tkmia_utils.course.exercise import Case, Exercise, mutant
from tkmia_utils.paper import audit

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
    gain = 1 / np.log2(3)
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


def _counts_of_images(rng: np.random.Generator) -> list[Case]:
    """Sizes from a dozen to thousands, without a common divisor with 10: no fifth digit is just
    5, and no value but 0 is printed as it is.
    """
    among = ([11, 13, 17, 19], range(41, 90), range(201, 600), range(2001, 4000), range(6001, 9000))
    sizes = [[n for n in some if n % 2 and n % 5] for some in among]
    return [(int(rng.choice(some)),) for some in sizes for _ in range(2)]


def passes_by_chance(n: int) -> float:
    """Share of the values 0.0000 to 0.9999 that are a whole number over n, rounded or cut."""
    passing = set()
    for j in range(n):
        exact = 10_000 * j / n
        passing |= {int(exact), round(exact)}  # cut, rounded: one value or two
    return len(passing - {10_000}) / 10_000


def _power_by_value(n: int) -> float:
    """By asking every value: some j with j / n from half a unit below it to a unit above."""
    digits = np.arange(10_000)
    low = np.ceil((digits - 0.5) * n / 10_000 + 1e-9)
    high = np.ceil((digits + 1) * n / 10_000 - 1e-9) - 1
    return float((low <= high).mean())


def _rows(rng: np.random.Generator) -> list[Case]:
    """Rows of six that were turned, some of which more than one turn would put right."""
    cases: list[Case] = []
    for trial in range(20):
        size, kind = int(rng.integers(2, 4)), trial % 4
        changes = np.round(rng.uniform(0.05, 0.95, 4), 4).tolist()
        moved, norm = round(rng.uniform(1.2, size), 4), round(rng.uniform(size + 0.3, 9), 4)
        left = int(rng.integers(1, 6))  # how far it has to be turned to the left
        if kind == 0:
            left = trial // 4
        elif kind == 1:  # the norm would pass for Delta l but for |S|
            moved, left = round(rng.uniform(0.3, 0.9), 4), 5
        elif kind == 2:  # the norm may be Delta l as well: the shorter turn counts
            moved, left = round(rng.uniform(0.3, 0.9), 4), 3
            norm = round(rng.uniform(1.2, size - 0.1), 4)
        else:  # a change below 0 would be a norm
            changes[0], left = -changes[0], 5
            moved, norm = round(rng.uniform(0.3, 0.9), 4), round(rng.uniform(1.2, size - 0.1), 4)
        row = [*changes, moved, norm]
        cases.append((row[6 - left :] + row[: 6 - left], size))
    return cases


def put_right(row: list[float], size: int) -> list[float]:
    """TkAcc, P@k, mAP@k, NDCG@k, Delta l, APer, turned to the left until they can be true."""
    for columns in range(6):
        turned = row[columns:] + row[:columns]
        *changes, moved, norm = turned
        if all(-1 <= change <= 1 for change in changes) and 0 <= moved <= size and norm > 0:
            return turned
    return row


def _turned(
    row: list[float],
    size: int,
    *,
    way: int = 1,
    at: tuple[int, int] = (4, 5),
    bounded: bool = True,
    positive: bool = True,
) -> np.ndarray:
    """The same with numpy; the options are mistakes."""
    for columns in range(6):
        turned = np.roll(row, -way * columns)
        moved, norm = turned[list(at)]
        fine = bool((np.abs(np.delete(turned, at)) <= 1).all())
        fine &= not bounded or bool(moved <= size)
        if fine and (not positive or (moved >= 0 and norm > 0)):
            return turned
    return np.asarray(row)


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
        name="passes_by_chance",
        number="09.2",
        title="The power of the check",
        task="`passes_by_chance(n)`: of the 10 000 values 0.0000, 0.0001, ..., 0.9999, the share"
        " that is a whole number over `n`, rounded or cut after the fourth digit. `n` and 10 have"
        " no divisor in common. A number.",
        points=3,
        minutes=15,
        cases=_counts_of_images,
        expected=lambda n: np.mean(
            [
                any(10_000 * j // n == v or (20_000 * j + n) // (2 * n) == v for j in near)
                for v in range(10_000)
                for near in [range(v * n // 10_000 - 1, v * n // 10_000 + 3)]
            ]
        ),
        solution=passes_by_chance,
        others=(_power_by_value,),
        mutants=(
            mutant(
                "Rounding and cutting give two values for many counts; you have one for each.",
                lambda n: n / 10_000,
                lambda n: len({round(10_000 * j / n) for j in range(n)}) / 10_000,
            ),
            mutant(
                "Some values are counted twice, since two ways lead to them: count values.",
                lambda n: (2 * n) / 10_000,
                lambda n: (2 * n - 1) / 10_000,
                lambda n: (
                    sum(len({int(e), round(e)}) for e in (10_000 * j / n for j in range(n)))
                    / 10_000
                ),
            ),
            mutant(
                "The share is of 10 000 values, not of the n counts.",
                lambda n: 10_000 * passes_by_chance(n) / n,
            ),
            mutant(
                "`audit.fits` also lets pass what is just beside: count with your own `fits`.",
                audit.power,
            ),
        ),
        hints=(
            "Which values can be printed at all? Two for each count j, or one.",
            "Put `int(10_000 * j / n)` and `round(10_000 * j / n)` into a set, for all j.",
            "j runs from 0 to n - 1; 1.0000 is none of the 10 000 values.",
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
        imports=("import numpy as np",),
    ),
    Exercise(
        name="put_right",
        number="09.4",
        title="Turn the row back",
        task="`put_right(row, size)`: `row` is a list of six numbers that should be the changes of"
        " TkAcc, P@k, mAP@k and NDCG@k, then Delta l and APer, for `size` specified labels, but it"
        " may have been turned. Give it back turned to the left, by as few columns as it takes"
        " (perhaps none), so that it can be true: changes within [-1, 1], Delta l within"
        " [0, `size`], APer above 0.",
        points=3,
        minutes=15,
        cases=_rows,
        expected=_turned,
        solution=put_right,
        others=(
            lambda row, size: next(
                turned
                for turned in ((row * 2)[i : i + 6] for i in range(6))
                if max(map(abs, turned[:4])) <= 1 and 0 <= turned[4] <= size and turned[5] > 0
            ),
        ),
        mutants=(
            mutant(
                "The number of columns differs from row to row: try all six turns.",
                lambda row, size: row[1:] + row[:1],
                lambda row, size: row[2:] + row[:2],
                lambda row, size: row[-2:] + row[:-2],
            ),
            mutant(
                "Mind the order: Delta l comes before APer.",
                lambda row, size: _turned(row, size, at=(5, 4)),
            ),
            mutant(
                "Delta l counts specified labels, so it is at most |S|.",
                lambda row, size: _turned(row, size, bounded=False),
            ),
            mutant(
                "Delta l and APer are not below 0.",
                lambda row, size: _turned(row, size, positive=False),
            ),
            mutant(
                "You turn to the right: to the left the first column goes to the end.",
                lambda row, size: _turned(row, size, way=-1),
            ),
        ),
        hints=(
            "Turn the row by 0, 1, ..., 5 columns and take the first that can be true.",
            "Turned by i columns to the left it is `row[i:] + row[:i]`.",
            "Three conditions: on the first four, on the fifth, on the sixth.",
        ),
        imports=(),
    ),
)
