"""Exercises on notebook 12: rank, bet, add up."""

import math

import numpy as np

from tkmia_utils.course.exercise import Answer, Case, Exercise, mutant
from tkmia_utils.monitor.conformal import smoothed

Values = np.ndarray


def _new_values(rng: np.random.Generator) -> list[Case]:
    """Values seen, a new one, and a uniform number; measures of few levels, so with ties."""
    cases: list[Case] = []
    for size in (1, 3, 4, 5, 8, 12, 20, 40):
        for tied in (False, True, True):
            seen = rng.integers(0, 5, size) / 4
            x = float(rng.choice(seen)) if tied else float(rng.integers(-1, 5) / 4 + 0.1)
            cases.append((seen, x, float(rng.uniform(0.05, 0.95))))
    return cases


def _module_p(seen: Values, x: float, u: float) -> float:
    less, equal = np.array([(seen < x).sum()]), np.array([(seen == x).sum()])
    return float(smoothed(less, equal, len(seen), np.array([u]))[0])


def conformal_p(seen: np.ndarray, x: float, u: float) -> float:
    """P-value of a new value x among those seen (n,), ties broken by the uniform number u."""
    less = (seen < x).sum()
    equal = (seen == x).sum() + 1  # x itself is one of n + 1
    return float((less + u * equal) / (len(seen) + 1))


def _p_sorted(seen: Values, x: float, u: float) -> float:
    """The place of x is drawn between the first and the last that it may have."""
    order = np.sort(seen)
    first, last = np.searchsorted(order, x, "left"), np.searchsorted(order, x, "right")
    return float(((1 - u) * first + u * (last + 1)) / (len(order) + 1))


def _p_with(
    *,
    above: bool = False,
    itself: bool = True,
    ties: float | None = None,
    whole: bool = False,
    denominator: int = 1,
) -> Answer:
    """The p-value with a mistake."""

    def answer(seen: Values, x: float, u: float) -> float:
        less = (seen > x).sum() if above else (seen < x).sum()
        equal = (seen == x).sum()
        part = u if ties is None else ties
        placed = part * (equal + itself) if not whole else part + equal
        return float((less + placed) / (len(seen) + denominator))

    return answer


def _bets(rng: np.random.Generator) -> list[Case]:
    """A p-value below or above the depth, a share, and a depth."""
    cases: list[Case] = []
    for trial in range(16):
        depth, share = float(rng.uniform(0.01, 0.3)), float(rng.uniform(0.05, 0.6))
        p = rng.uniform(0, depth) if trial % 2 else rng.uniform(depth, 1)
        cases.append((float(p), share, depth))
    return cases


def bet(p: float, share: float, depth: float) -> float:
    """What a bet pays at p: a share of images lies among the lowest, up to `depth`."""
    usual = 1 - share
    return usual + share / depth if p < depth else usual


def _evidence(rng: np.random.Generator) -> list[Case]:
    """What bets paid, image by image, and a threshold; in some streams there is no alarm."""
    cases: list[Case] = [([1.0, 1.0, 1.0, 1.0], 3.0), ([0.5, 0.5, 0.5], 2.0), ([6.0, 1.0], 5.0)]
    cases += [([0.5, 0.5, 0.5, 4.0, 4.0], 10.5), ([2.0, 2.0, 2.0, 2.0], 5.0), ([3.0, 1.0], 5.0)]
    for trial in range(24):
        size = int(rng.integers(4, 30))
        win = float(rng.uniform(1.5, 9))
        won = rng.random(size) < (0.05, 0.3, 0.6)[trial % 3]
        paid = np.where(won, win, 0.8)
        cases.append(([round(float(e), 3) for e in paid], float(rng.integers(2, 60)) + 0.5))
    return sorted(cases, key=lambda case: len(case[0]))


def shiryaev_roberts(e: list[float], threshold: float) -> int:
    """How many images have come when R reaches the threshold; 0 if it never does."""
    r = 0.0
    for images, paid in enumerate(e, start=1):
        r = (1 + r) * paid
        if r >= threshold:
            return images
    return 0


def _sum_of_products(e: list[float], threshold: float) -> int:
    """R_t is the sum, over all beginnings, of what was won since then."""
    for t in range(1, len(e) + 1):
        won = [math.prod(e[begin:t]) for begin in range(t)]
        if math.fsum(won) >= threshold * (1 - 1e-12):
            return t
    return 0


def _alarm(
    *,
    start: float = 0.0,
    step: str = "sum",
    strictly: bool = False,
    index: int = 0,
    never_at_end: bool = False,
    last: bool = False,
) -> Answer:
    """The time of alarm with a mistake."""

    def answer(e: list[float], threshold: float) -> int:
        steps = {
            "sum": lambda r, paid: (1 + r) * paid,
            "late": lambda r, paid: 1 + r * paid,
            "product": lambda r, paid: r * paid,
            "best": lambda r, paid: max(1.0, r) * paid,
            "plain": lambda r, paid: r + paid,
        }
        r, found = start, 0
        for images, paid in enumerate(e, start=1):
            r = steps[step](r, paid)
            if r > threshold or (r >= threshold and not strictly):
                if not last:
                    return images + index
                found = images
        return found or (len(e) if never_at_end else 0)

    return answer


EXERCISES: tuple[Exercise, ...] = (
    Exercise(
        name="conformal_p",
        number="12.1",
        title="The rank of a new value",
        task="`conformal_p(seen, x, u)`: the p-value of a new value `x` among the n values `seen`"
        " so far, a NumPy array. Low values are suspicious, so p is small where x is low. `u` in"
        " [0, 1) breaks ties by chance: x itself and the values equal to it stand in a row in"
        " random order, and `u` says where in that row x stands. If all n + 1 values come in any"
        " order, p is to be exactly uniform. Return one number.",
        points=3,
        minutes=15,
        cases=_new_values,
        expected=_module_p,
        solution=conformal_p,
        others=(_p_sorted,),
        imports=("import numpy as np",),
        mutants=(
            mutant(
                "Low is suspicious here: count the values below x, not those above it.",
                _p_with(above=True),
            ),
            mutant(
                "With x there are n + 1 values: divide by n + 1.",
                _p_with(denominator=0),
                _p_with(denominator=0, itself=False),
            ),
            mutant(
                "x belongs to its own ties: there are one more than the seen values equal to it.",
                _p_with(itself=False),
            ),
            mutant(
                "Ties count in full, so that p is too large: u takes a part of them.",
                _p_with(ties=1.0),
            ),
            mutant(
                "Ties are left out: u times the number of equal values, x among them, is added.",
                _p_with(ties=0.0),
            ),
            mutant(
                "u spreads over the whole row of ties, not over one place of it.",
                _p_with(whole=True),
                lambda seen, x, u: float(((seen < x).sum() + u) / (len(seen) + 1)),
            ),
        ),
        hints=(
            "Three numbers: how many are below x, how many are equal to it, how many there are.",
            "x stands in a row of (equal + 1) values. With u = 0 it is the first of them.",
            "p = (below + u (equal + 1)) / (n + 1).",
        ),
    ),
    Exercise(
        name="bet",
        number="12.2",
        title="A fair bet",
        task="`bet(p, share, depth)`: what a bet pays at the p-value `p`. It supposes that a share"
        " `share` of the images is attacked and that their p-values are uniform on [0, depth),"
        " while all others are uniform on [0, 1]. It pays the density of such a mixture: if"
        " nothing has changed, its mean is 1. Return one number.",
        points=2,
        minutes=10,
        cases=_bets,
        expected=lambda p, share, depth: 1 - share + share * (p < depth) / depth,
        solution=bet,
        others=(lambda p, share, depth: (1 - share) + (p < depth) * share / depth,),
        imports=(),
        mutants=(
            mutant(
                "The mean is above 1: what is paid below the depth is to be taken off elsewhere,"
                " so 1 - share.",
                lambda p, share, depth: 1 + share * (p < depth) / depth,
            ),
            mutant(
                "Images that are not attacked have small p-values too: add 1 - share there.",
                lambda p, share, depth: share / depth if p < depth else 1 - share,
            ),
            mutant(
                "A density on [0, depth) is 1/depth: divide the share by it.",
                lambda p, share, depth: 1 - share + share * (p < depth),
            ),
            mutant(
                "It pays where p is large; suspicious is a small p.",
                lambda p, share, depth: 1 - share + share * (p >= depth) / depth,
                lambda p, share, depth: 1 - share + share * (p > depth) / (1 - depth),
            ),
            mutant(
                "Share and depth are exchanged.",
                lambda p, share, depth: 1 - depth + depth * (p < share) / share,
            ),
        ),
        hints=(
            "The density of a mixture is the mixture of the densities.",
            "One density is 1 everywhere, the other 1/depth below the depth and 0 above it.",
            "The example of section 1 has share 0.15 and depth 0.02.",
        ),
    ),
    Exercise(
        name="shiryaev_roberts",
        number="12.3",
        title="When does it ring?",
        task="`shiryaev_roberts(e, threshold)`: how many images have come when R of section 1"
        " reaches the threshold for the first time (1 for an alarm at the first image), or 0 if it"
        " never does. `e` is a list: what the bet paid for each image. Return a whole number.",
        points=3,
        minutes=15,
        cases=_evidence,
        expected=_sum_of_products,
        solution=shiryaev_roberts,
        others=(_sum_of_products,),
        imports=(),
        mutants=(
            mutant(
                "Only the bet that began at the first image is followed: add 1 before each"
                " multiplication.",
                _alarm(start=1.0, step="product"),
            ),
            mutant(
                "The newest bet is added too late: it already has a part in this image.",
                _alarm(step="late"),
                _alarm(start=1.0, step="late"),
            ),
            mutant(
                "That is CUSUM: it keeps the best beginning only, R adds up all of them.",
                _alarm(step="best"),
            ),
            mutant(
                "Winnings are staked again: they multiply, they do not add up.",
                _alarm(step="plain"),
            ),
            mutant("R begins at 0, not at 1.", _alarm(start=1.0)),
            mutant("It already rings where R is equal to the threshold.", _alarm(strictly=True)),
            mutant("Count the images from 1.", _alarm(index=-1)),
            mutant("If it never rings, the answer is 0.", _alarm(never_at_end=True)),
            mutant("The first alarm is asked for, not the last.", _alarm(last=True)),
        ),
        hints=(
            "R is 0 at first. Each image turns it into (1 + R) times what the bet paid.",
            "A loop with `enumerate(e, start=1)`, and a return as soon as R >= threshold.",
        ),
    ),
)
