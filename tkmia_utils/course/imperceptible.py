"""Exercises on notebook 10: no measure lower, and still so in the file."""

import numpy as np
import torch

from tkmia_utils import condition, measures
from tkmia_utils.course.exercise import Answer, Case, Exercise, mutant

Hits = list[int]
Image = torch.Tensor

# pairs of lists that tell typical mistakes apart, whatever else is drawn
_TELLING: tuple[tuple[Hits, Hits, int], ...] = (
    ([1, 0, 1], [1, 0, 1], 3),  # nothing happened
    ([0, 1], [1, 0], 2),  # a hit moves up
    ([1, 0], [0, 1], 2),  # and down: P@k does not see it
    ([0, 0, 1, 1], [1, 0, 0, 0], 4),  # a hit less, and yet AP and NDCG are higher
    ([0, 1, 1, 0], [1, 0, 0, 1], 4),  # one moves up, one down, and no measure is lower
    ([1, 0, 0, 1], [0, 1, 1, 0], 4),  # the way back
    ([1, 0, 1, 0], [1, 0, 0, 1], 3),  # the hit on place 4 does not count
    ([1, 0, 1], [1, 0, 0], 2),  # nor does the one that is lost on place 3
    ([0, 0, 1, 1, 1], [1, 0, 0, 0, 1], 5),  # AP@k and NDCG@k disagree
    ([0, 1, 0, 0, 1], [1, 0, 0, 0, 0], 5),  # here too
    ([1, 0, 0, 0, 0], [0, 0, 0, 1, 1], 5),  # a hit more, so far down that AP@k and NDCG@k fall
    ([1, 0, 1, 1, 0, 0], [0, 1, 1, 1, 1, 0], 6),  # and one more
)


def _before_and_after(rng: np.random.Generator) -> list[Case]:
    """Pairs of hit patterns of one length, many of them near each other."""
    cases: list[Case] = list(_TELLING)
    for trial in range(60):
        size = int(rng.integers(2, 8))
        before = [int(y) for y in rng.random(size) < 0.5]
        after = list(before)
        if trial % 2:
            i, j = rng.integers(0, size, 2)
            after[i], after[j] = after[j], after[i]
        else:
            after = [int(y) for y in rng.random(size) < 0.6]
        cases.append((before, after, int(rng.integers(1, size + 1))))
    return sorted(cases, key=lambda case: len(case[0]))


def _values(hit: Hits, k: int) -> list[float]:
    """The module's measures of any list with that pattern, as many labels relevant as it shows.

    Before and after they are divided by the same numbers, so that more relevant labels elsewhere
    change no comparison.
    """
    size = len(hit)
    scores = torch.arange(2 * size, 0, -1, dtype=torch.float64)[None]
    labels = torch.tensor([[*map(bool, hit), *[True] * (size - sum(hit)), *[False] * sum(hit)]])
    return [float(measure(scores, labels, k)[0]) for measure in measures.MEASURES.values()]


def _none_lower(before: Hits, after: Hits, k: int) -> float:
    pairs = zip(_values(before, k), _values(after, k), strict=True)
    return float(all(new >= old - 1e-9 for old, new in pairs))


def none_lower(before: list[int], after: list[int], k: int) -> bool:
    """Is none of P@k, AP@k and NDCG@k (and so TkAcc) lower than before? From hit patterns."""

    def numerators(hit: list[int]) -> tuple[float, float, float]:
        found = hit[:k]
        average = sum(y * sum(found[:i]) / i for i, y in enumerate(found, start=1))
        gain = sum(y / np.log2(i + 1) for i, y in enumerate(found, start=1))
        return sum(found), average, gain

    # what they are divided by is the same before and after; TkAcc only falls if P@k does
    pairs = zip(numerators(before), numerators(after), strict=True)
    return all(new >= old - 1e-9 for old, new in pairs)


def _by_measures(*which: int, strictly: bool = False, mean: bool = False) -> Answer:
    """Compare only some of the measures; strictly, or by their mean."""

    def answer(before: Hits, after: Hits, k: int) -> bool:
        old, new = (np.array(_values(hit, k))[list(which)] for hit in (before, after))
        if mean:
            return bool(new.mean() >= old.mean() - 1e-9)
        return bool((new > old + 1e-9).all() if strictly else (new >= old - 1e-9).all())

    return answer


def _place_by_place(before: Hits, after: Hits, k: int) -> bool:
    """No prefix of the list has fewer hits: enough, but more than is asked."""
    old, new = np.cumsum(before[:k]), np.cumsum(after[:k])
    return bool((new >= old).all())


def _images(rng: np.random.Generator) -> list[Case]:
    """Images that leave [0, 1] here and there, as a step makes them; no pixel is half-way."""
    cases: list[Case] = []
    for side in (1, 2, 3, 4):
        levels = rng.integers(-20, 276, (3, side, side)) + rng.uniform(-0.45, 0.45)
        levels[0, 0, 0], levels[1, 0, 0], levels[2, 0, 0] = -7.3, 262.4, 100.7
        cases.append((torch.tensor(levels / 255, dtype=torch.float32),))
    return cases


def on_the_lattice(image: torch.Tensor) -> torch.Tensor:
    """The image that an 8-bit file gives back: clipped to [0, 1], then to the nearest k/255."""
    return (image.clamp(0, 1) * 255).round() / 255


def _through_bytes(image: Image) -> np.ndarray:
    whole = np.clip(np.rint(image.numpy() * 255), 0, 255).astype(np.uint8)
    return np.asarray(whole.astype(np.float64) / 255)


def _full_lists(rng: np.random.Generator) -> list[Case]:
    """Scores during an attack on an image whose clean top k were all relevant."""
    cases: list[Case] = []
    for trial in range(40):
        k, m = int(rng.integers(1, 4)), int(rng.integers(1, 3))
        relevant = k + m + int(rng.integers(0, 2))
        classes = relevant + k + int(rng.integers(0, 3))
        f = rng.normal(0, 2, classes)
        f[:m] += (-2.0, 0.0, 1.5)[trial % 3]  # S: hidden by turns
        order = rng.permutation(classes)
        mask = np.arange(classes)
        cases.append((
            torch.tensor(f[order], dtype=torch.float32),
            torch.tensor((mask < relevant)[order]),
            torch.tensor((mask < m)[order]),
            k,
        ))  # fmt: skip
    return sorted(cases, key=lambda case: len(case[0]))


def _module_margin(f: Image, relevant: Image, specified: Image, k: int) -> float:
    clean = relevant.double()[None]  # any scores with all relevant labels on top
    asked = condition.condition(clean, relevant[None], specified[None], k)
    return float(condition.margin(f.double()[None], asked)[0])


def promise_margin(
    f: torch.Tensor, relevant: torch.Tensor, specified: torch.Tensor, k: int
) -> torch.Tensor:
    """How far the promise is from failing, for an image whose clean top k were all relevant."""
    outside = f[~specified].sort(descending=True).values
    others = f[relevant & ~specified].sort(descending=True).values
    hidden = outside[k - 1] - f[specified].max()  # all of S below k other labels
    refilled = others[k - 1] - f[~relevant].max()  # k relevant labels above every irrelevant one
    return torch.minimum(hidden, refilled)


def _margin_numpy(f: Image, relevant: Image, specified: Image, k: int) -> float:
    score, y, s = f.double().numpy(), relevant.numpy(), specified.numpy()
    outside, fill = np.sort(score[~s])[-k], np.sort(score[y & ~s])[-k]
    return float(min(outside - score[s].max(), fill - score[~y].max()))


def _margin_with(
    *,
    worst: bool = True,
    all_labels: bool = False,
    lowest: bool = False,
    first: bool = False,
    with_s: bool = False,
    halves: tuple[int, ...] = (0, 1),
) -> Answer:
    """The margin with a mistake."""

    def answer(f: Image, relevant: Image, specified: Image, k: int) -> float:
        score, y, s = f.double().numpy(), relevant.numpy(), specified.numpy()
        outside = np.sort(score if all_labels else score[~s])[-k]
        fill = np.sort(score[y if with_s else y & ~s])[-1 if first else -k]
        hidden = outside - (score[s].min() if lowest else score[s].max())
        both = [hidden, fill - score[~y].max()]
        return float((min if worst else max)(both[half] for half in halves))

    return answer


EXERCISES: tuple[Exercise, ...] = (
    Exercise(
        name="none_lower",
        number="10.1",
        title="Is no measure lower?",
        task="`none_lower(before, after, k)`: True if none of the four measures at `k` is lower"
        " after the attack, else False. `before` and `after` are hit patterns of one length, lists"
        " of 0 and 1, best place first, at least `k` long. The image has the same relevant labels"
        " before and after, so you need not know how many. Equal is not lower.",
        points=3,
        minutes=15,
        cases=_before_and_after,
        expected=_none_lower,
        solution=none_lower,
        others=(_by_measures(0, 1, 2, 3), _by_measures(1, 2, 3)),
        mutants=(
            mutant(
                "You compare numbers of hits: a hit that moves down lowers AP@k and NDCG@k.",
                lambda before, after, k: sum(after[:k]) >= sum(before[:k]),
            ),
            mutant(
                "NDCG@k alone does not tell: a list with fewer hits can have a higher one.",
                _by_measures(3),
            ),
            mutant(
                "AP@k alone does not tell: a list with fewer hits can have a higher one.",
                _by_measures(2),
            ),
            mutant(
                "The mean of the measures hides a fall of one behind a rise of another.",
                _by_measures(0, 1, 2, 3, mean=True),
            ),
            mutant(
                "A measure that stays as it was is not lower.",
                _by_measures(1, 2, 3, strictly=True),
            ),
            mutant(
                "Before and after are exchanged.",
                lambda before, after, k: bool(_none_lower(after, before, k)),
            ),
            mutant(
                "That each place has as many hits above it as before is enough, but not needed.",
                _place_by_place,
            ),
            mutant(
                "Hits below place k are counted: cut both lists at k.",
                lambda before, after, k: bool(_none_lower(before, after, len(before))),
            ),
        ),
        hints=(
            "What the measures are divided by is the same before and after. Compare numerators.",
            "Three sums: of the hits, of P@i at every hit i, of 1/log2(i + 1) at every hit i.",
            "TkAcc is 1 if the number of hits is the largest possible: it falls only if P@k does.",
        ),
        imports=("import numpy as np",),
    ),
    Exercise(
        name="on_the_lattice",
        number="10.2",
        title="What the file gives back",
        task="`on_the_lattice(image)`: the image as a PNG file gives it back, a tensor like"
        " `image`, every pixel a multiple of 1/255 between 0 and 1. `image` is a float tensor"
        " that a step may have led out of [0, 1] here and there; such pixels go to the nearer end.",
        points=2,
        minutes=10,
        cases=_images,
        expected=_through_bytes,
        solution=on_the_lattice,
        others=(_through_bytes, lambda image: ((image * 255).round() / 255).clamp(0, 1)),
        mutants=(
            mutant(
                "Pixels are cut to the level below; a file is written with the nearest one.",
                lambda image: (image.clamp(0, 1) * 255).floor() / 255,
            ),
            mutant(
                "There are 256 levels, but from 0 to 1 they are 255 steps.",
                lambda image: (image.clamp(0, 1) * 256).round() / 256,
                lambda image: (image.clamp(0, 1) * 256).floor().clamp(max=255) / 256,
                lambda image: (image.clamp(0, 1) * 255).round() / 256,
            ),
            mutant(
                "Pixels below 0 or above 1 stay outside: a file cannot hold them.",
                lambda image: (image * 255).round() / 255,
            ),
            mutant(
                "A byte begins anew after 255, so that white becomes black: clip first.",
                lambda image: (image * 255).round().to(torch.int64).remainder(256) / 255,
            ),
            mutant(
                "These are whole levels from 0 to 255: divide by 255.",
                lambda image: (image.clamp(0, 1) * 255).round(),
            ),
        ),
        hints=(
            "In units of a level the pixel is 255 times its value. Where is the nearest one?",
            "Three steps: clamp to [0, 1], round 255 times the image, divide by 255.",
        ),
    ),
    Exercise(
        name="promise_margin",
        number="10.3",
        title="The margin of a full list",
        task="`promise_margin(f, relevant, specified, k)`: m(f) of section 2 for an image whose"
        " clean list was full, that is, held `k` hits. All of S are to be hidden. `f` `(C,)` are"
        " scores, `relevant` and `specified` `(C,)` the masks of Y_p and S; at least `k` relevant"
        " labels are not in S. Return one number. There are no ties.",
        points=4,
        minutes=25,
        cases=_full_lists,
        expected=_module_margin,
        solution=promise_margin,
        others=(_margin_numpy,),
        mutants=(
            mutant(
                "Both conditions have to hold: take the smaller difference, not the larger.",
                _margin_with(worst=False),
            ),
            mutant(
                "The k-th highest score is to be taken outside S, or S is compared with itself.",
                _margin_with(all_labels=True),
            ),
            mutant(
                "All of S are to be hidden: the highest of S counts, not the lowest.",
                _margin_with(lowest=True),
            ),
            mutant(
                "A full list needs k relevant labels above the irrelevant ones, not just one.",
                _margin_with(first=True),
            ),
            mutant(
                "Labels of S cannot fill the list any more: take them out of the relevant ones.",
                _margin_with(with_s=True),
            ),
            mutant("That S is hidden is half of the promise.", _margin_with(halves=(0,))),
            mutant("That the list is full is half of the promise.", _margin_with(halves=(1,))),
        ),
        hints=(
            "If the clean list has k hits, the only least pattern is k hits: p_j = j.",
            "Then p_j - j + 1 = 1 for every j: all of r_1 to r_k are compared with n_1, the highest"
            " irrelevant score. The smallest of these differences is that of r_k.",
            "The smaller of two: k-th highest outside S less the highest of S, and r_k - n_1.",
        ),
    ),
)
