"""Exercises on notebook 01: what a measure sees."""

import math
from collections.abc import Callable

import numpy as np
import torch

from tkmia_utils import measures
from tkmia_utils.course.exercise import Answer, Case, Exercise, mutant

Number = float | int
Hits = list[int]


def _patterns(rng: np.random.Generator) -> list[Case]:
    """Hit patterns of 3 to 8 places, with relevant labels beyond the list and hits beyond k."""
    cases: list[Case] = []
    for _ in range(60):
        size = int(rng.integers(3, 9))
        hit = [int(y) for y in rng.random(size) < 0.5]
        relevant = max(1, sum(hit) + int(rng.integers(0, 3)))
        cases.append((hit, relevant, int(rng.integers(1, size + 1))))
    return sorted(cases, key=lambda case: len(case[0]))


def _four(hit: Hits, relevant: int, k: int) -> tuple[float, float, float, float]:
    """The module's measures of any list with that pattern."""
    size = len(hit) + relevant - sum(hit)  # relevant labels that the list does not reach
    scores = torch.arange(size, 0, -1, dtype=torch.float64)[None]
    labels = torch.tensor([[*map(bool, hit), *[True] * (size - len(hit))]])
    found = [float(measure(scores, labels, k)[0]) for measure in measures.MEASURES.values()]
    return (found[0], found[1], found[2], found[3])


def four_measures(hit: list[int], relevant: int, k: int) -> tuple[float, float, float, float]:
    """TkAcc, P@k, AP@k and NDCG@k of a list, from its hit pattern."""
    found = hit[:k]
    attainable = min(k, relevant)  # no list of k places holds more hits
    precision = sum(found) / k
    precision_at = [sum(found[:i]) / i for i in range(1, k + 1)]
    average = sum(y * p for y, p in zip(found, precision_at, strict=True)) / attainable
    gain = sum(y / math.log2(i + 1) for i, y in enumerate(found, start=1))
    ideal = sum(1 / math.log2(i + 1) for i in range(1, attainable + 1))
    return float(sum(found) == attainable), precision, average, gain / ideal


def _four_loop(hit: Hits, relevant: int, k: int) -> dict[str, Number]:
    """The same, in one pass over the places."""
    n, hits, average, gain, ideal = min(k, relevant), 0, 0.0, 0.0, 0.0
    for i in range(k):
        hits += hit[i]
        average += hit[i] * hits / (i + 1) / n
        gain += hit[i] / np.log2(i + 2)
        ideal += (i < n) / np.log2(i + 2)
    return {"TkAcc": hits == n, "P": hits / k, "AP": average, "NDCG": gain / ideal}


def _replaced(place: int, wrong: Callable[[Hits, int, int], Number]) -> Answer:
    """The four measures with one of them wrong."""

    def answer(hit: Hits, relevant: int, k: int) -> list[Number]:
        right: list[Number] = list(four_measures(hit, relevant, k))
        right[place] = wrong(hit[:k], relevant, k)
        return right

    return answer


def _precisions(hit: Hits) -> float:
    return sum(y * sum(hit[:i]) / i for i, y in enumerate(hit, start=1))


def ndcg(hit: list[int], relevant: int, k: int) -> float:
    """NDCG@k of a list (Eq. 11), from its hit pattern and the number of relevant labels."""
    gain = sum(y / math.log2(i + 1) for i, y in enumerate(hit[:k], start=1))
    # the best list begins with its relevant labels: min(k, relevant) of them fit
    ideal = sum(1 / math.log2(i + 1) for i in range(1, min(k, relevant) + 1))
    return gain / ideal


def _ndcg_numpy(hit: Hits, relevant: int, k: int) -> float:
    discount = 1 / np.log2(np.arange(k) + 2)
    return float(np.asarray(hit[:k]) @ discount / discount[:relevant].sum())


def _ndcg_torch(hit: Hits, relevant: int, k: int) -> torch.Tensor:
    discount = 1 / (torch.arange(k, dtype=torch.float32) + 2).log()  # any base: it cancels
    return (torch.tensor(hit[:k]) * discount).sum() / discount[: min(k, relevant)].sum()


def _gain(hits: Hits, shift: int = 1) -> float:
    """Discounted sum of hits; with shift 0 the first two places count in full."""
    return sum(y / max(1.0, math.log2(i + shift)) for i, y in enumerate(hits, start=1))


def _one_level_cases(rng: np.random.Generator) -> list[Case]:
    return [(int(rng.integers(1, 9)), 16 * int(rng.integers(2, 29))) for _ in range(12)]


def one_level(levels: int, side: int) -> float:
    """L2 norm, in [-1, 1] pixels, of a change of every channel by that many levels of 255."""
    change = 2 * levels / 255  # [-1, 1] is twice as wide as [0, 1]
    values = 3 * side * side  # three channels of every pixel
    return math.sqrt(values * change**2)


_PATTERN = (
    "`hit` is a list of 0 and 1, best place first, `relevant` the number of relevant labels"
    " (1 or more), `k` at most the length of the list."
)
EXERCISES = (
    Exercise(
        name="four_measures",
        number="01.1",
        title="Four measures by hand",
        task=f"`four_measures(hit, relevant, k)`: TkAcc, P@k, AP@k, NDCG@k. {_PATTERN} Or draw one"
        ' with `check.draw("four_measures")` and hand in the four numbers.',
        points=4,
        minutes=15,
        cases=_patterns,
        expected=_four,
        solution=four_measures,
        others=(_four_loop,),
        parts=("TkAcc", "P@k", "AP@k", "NDCG@k"),
        mutants=(
            mutant(
                "AP@k is divided by k, but the list can hold only min(k, |Y_p|) hits.",
                _replaced(2, lambda hit, relevant, k: _precisions(hit) / k),
            ),
            mutant(
                "AP@k is divided by the hits found, so that a missed label costs nothing: divide"
                " by min(k, |Y_p|).",
                _replaced(2, lambda hit, relevant, k: _precisions(hit) / max(1, sum(hit))),
            ),
            mutant(
                "The discount of NDCG@k at place i is 1/log2(i + 1), not 1/log2(i).",
                _replaced(
                    3,
                    lambda hit, relevant, k: _gain(hit, 0) / _gain([1] * min(k, relevant), 0),
                ),
            ),
            mutant(
                "TkAcc is all or nothing: 1 if the top k holds min(k, |Y_p|) hits, else 0. You"
                " give P@k.",
                _replaced(0, lambda hit, relevant, k: sum(hit) / k),
            ),
            mutant(
                "TkAcc asks for k hits, which no list has when |Y_p| < k: ask for min(k, |Y_p|).",
                _replaced(0, lambda hit, relevant, k: sum(hit) == k),
            ),
            mutant(
                "TkAcc asks for all of Y_p, as Eq. (7) prints it; the tables ask for"
                " min(k, |Y_p|) hits.",
                _replaced(0, lambda hit, relevant, k: sum(hit) == relevant),
            ),
        ),
        hints=(
            "Write down N = min(k, |Y_p|) first: three of the four measures need it.",
            "AP@k adds up P@i at every hit i and divides by N. TkAcc is 1 if there are N hits.",
            "NDCG@k divides the sum of y_i / log2(i + 1) by the same sum over places 1 to N.",
        ),
        imports=("import math",),
        by_value=True,
    ),
    Exercise(
        name="ndcg",
        number="01.2",
        title="NDCG@k",
        task=f"`ndcg(hit, relevant, k)`: NDCG@k, Eq. (11), a number. {_PATTERN}",
        points=3,
        minutes=15,
        cases=_patterns,
        expected=lambda hit, relevant, k: _four(hit, relevant, k)[3],
        solution=ndcg,
        others=(_ndcg_numpy, _ndcg_torch),
        mutants=(
            mutant(
                "The ideal list has k hits in it, but there are only |Y_p| relevant labels: cut"
                " it at min(k, |Y_p|).",
                lambda hit, relevant, k: _gain(hit[:k]) / _gain([1] * k),
            ),
            mutant(
                "The ideal list is not cut at k: its length is min(k, |Y_p|), not |Y_p|.",
                lambda hit, relevant, k: _gain(hit[:k]) / _gain([1] * relevant),
            ),
            mutant(
                "The ideal list is made of the hits found; it should be made of all relevant"
                " labels, min(k, |Y_p|) of them.",
                lambda hit, relevant, k: _gain(hit[:k]) / max(1e-9, _gain([1] * sum(hit[:k]))),
            ),
            mutant(
                "The discount of place i is 1/log2(i + 1), not 1/log2(i).",
                lambda hit, relevant, k: _gain(hit[:k], 0) / _gain([1] * min(k, relevant), 0),
            ),
            mutant(
                "Hits below place k are counted: cut the list at k.",
                lambda hit, relevant, k: _gain(hit) / _gain([1] * min(k, relevant)),
            ),
            mutant(
                "This is DCG@k: divide it by that of the ideal list.",
                lambda hit, relevant, k: _gain(hit[:k]),
            ),
        ),
        hints=(
            "It is a quotient: what the list earns by what the best possible list earns.",
            "A hit on place i earns 1/log2(i + 1), with i from 1.",
            "The best list has its hits on places 1 to min(k, relevant).",
        ),
        imports=("import math",),
    ),
    Exercise(
        name="one_level",
        number="01.5",
        title="What one grey level is worth",
        task="`one_level(levels, side)`: the L2 norm, in the paper's [-1, 1] pixels, of a change of"
        " every channel of every pixel by `levels` of 255, on a colour image of `side` × `side`."
        ' Or draw numbers with `check.draw("one_level")` and hand in yours.',
        points=3,
        minutes=10,
        cases=_one_level_cases,
        expected=lambda levels, side: 2 * levels / 255 * math.sqrt(3) * side,
        solution=one_level,
        others=(
            lambda levels, side: float(
                torch.full((3, side, side), 2 * levels / 255, dtype=torch.float64).norm()
            ),
        ),
        mutants=(
            mutant(
                "That is the norm in [0, 1] pixels; [-1, 1] is twice as wide.",
                lambda levels, side: one_level(levels, side) / 2,
            ),
            mutant(
                "A colour image has three channels, and each of them changes.",
                lambda levels, side: one_level(levels, side) / math.sqrt(3),
            ),
            mutant(
                "That is the square of the norm: take the root.",
                lambda levels, side: one_level(levels, side) ** 2,
            ),
            mutant(
                "That is the root of the mean square; the norm is the root of the sum.",
                lambda levels, side: 2 * levels / 255,
            ),
            mutant(
                "An image has 256 levels, but the step between two of them is 1/255.",
                lambda levels, side: one_level(levels, side) * 255 / 256,
            ),
        ),
        hints=(
            "How large is the change of one channel in [0, 1], and how large in [-1, 1]?",
            "How many numbers has the image?",
            "The norm of n equal numbers a is the root of n, times a.",
        ),
        imports=("import math",),
        by_value=True,
    ),
)
