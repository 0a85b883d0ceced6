"""Exercises on notebook 11: how good an attack is, measured against the least norm."""

import math
from typing import Any

import numpy as np
import torch

from tkmia_utils.course.exercise import Answer, Case, Exercise, mutant
from tkmia_utils.experiments import optimality

Norms = np.ndarray
Tensor = torch.Tensor


def _linear_models(rng: np.random.Generator) -> list[Case]:
    """Linear models, an image, and its first label; in half of them the nearest border is not
    that of the second label.
    """
    cases: list[Case] = []
    while len(cases) < 12:
        classes, pixels = int(rng.integers(3, 7)), int(rng.integers(2, 9))
        weight, bias = rng.normal(0, 1, (classes, pixels)), rng.normal(0, 1, classes)
        weight *= rng.uniform(0.3, 2, (classes, 1))
        x = rng.random(pixels)
        f = weight @ x + bias
        label = int(f.argmax())
        others = np.delete(np.arange(classes), label)
        apart = np.linalg.norm(weight[label] - weight[others], axis=1)
        second = f[others].argmax() == ((f[label] - f[others]) / apart).argmin()
        if second == bool(len(cases) % 2):
            tensors = (torch.tensor(a, dtype=torch.float32) for a in (weight, bias, x))
            cases.append((*tensors, label))
    return sorted(cases, key=lambda case: case[0].numel())


def nearest_border(weight: torch.Tensor, bias: torch.Tensor, x: torch.Tensor, label: int) -> float:
    """Least L2 norm that takes the leading label from its place, on f(x) = weight @ x + bias."""
    f = weight @ x + bias
    distances = [
        (f[label] - f[j]) / (weight[label] - weight[j]).norm() for j in range(len(f)) if j != label
    ]
    return float(min(distances))


def _border_distance(
    weight: Tensor,
    bias: Tensor,
    x: Tensor,
    label: int,
    *,
    power: float = 1,
    second: bool = False,
    farthest: bool = False,
    own: str = "pair",
) -> float:
    """The same in float64; the options are mistakes."""
    w, image = weight.double().numpy(), x.double().numpy()
    f = w @ image + bias.double().numpy()
    others = np.delete(np.arange(len(f)), label)
    sizes = {
        "pair": np.linalg.norm(w[label] - w[others], axis=1),
        "label": np.linalg.norm(w[label]) * np.ones(len(others)),
        "rival": np.linalg.norm(w[others], axis=1),
        "both": np.linalg.norm(w[label]) + np.linalg.norm(w[others], axis=1),
        "one": np.ones(len(others)),
    }
    distance = (f[label] - f[others]) / sizes[own] ** power
    if second:
        return float(distance[f[others].argmax()])
    return float(distance.max() if farthest else distance.min())


def _border_by_steps(weight: Tensor, bias: Tensor, x: Tensor, label: int) -> float:
    """Make the step to each border, and measure it."""
    w, f = weight.double(), weight.double() @ x.double() + bias.double()
    found = []
    for j in range(len(f)):
        if j != label:
            across = w[j] - w[label]
            step = (f[label] - f[j]) / across.square().sum() * across
            found.append(float(step.norm()))
    return min(found)


def _wrong_border(**mistake: Any) -> Answer:
    return lambda weight, bias, x, label: _border_distance(weight, bias, x, label, **mistake)


def _pairs_of_norms(rng: np.random.Generator) -> list[Case]:
    """Norms of two attacks on the same images, failures as inf; 3 images or more are common."""
    cases: list[Case] = []
    for size in (7, 8, 9, 12, 20, 31):
        theirs = np.exp(rng.normal(0, 1, size))
        ours = theirs * np.exp(rng.normal(-0.2, 0.6, size))
        order = rng.permutation(size)
        ours[order[0]], theirs[order[1]] = math.inf, math.inf
        ours[order[2]], theirs[order[2]] = math.inf, math.inf
        if size > 8:
            theirs[order[3]] = math.inf
        cases.append((ours, theirs))
    return cases


def norm_ratio(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Median over images of our norm over theirs, where both succeeded; failures are inf."""
    both = np.isfinite(ours) & np.isfinite(theirs)
    return float(np.median(ours[both] / theirs[both]))


def _ratio_sorted(ours: Norms, theirs: Norms) -> float:
    pairs = zip(ours.tolist(), theirs.tolist(), strict=True)
    found = sorted(a / b for a, b in pairs if a < math.inf and b < math.inf)
    middle = len(found) // 2
    return float(found[middle] if len(found) % 2 else (found[middle - 1] + found[middle]) / 2)


def _both(ours: Norms, theirs: Norms) -> tuple[Norms, Norms]:
    kept = np.isfinite(ours) & np.isfinite(theirs)
    return ours[kept], theirs[kept]


def _own_medians(ours: Norms, theirs: Norms) -> float:
    own = [np.median(norms[np.isfinite(norms)]) for norms in (ours, theirs)]
    return float(own[0] / own[1])


def _with_failures(ours: Norms, theirs: Norms) -> float:
    """A failure against a success counts as an infinite ratio, and the other way round as 0."""
    some = np.isfinite(ours) | np.isfinite(theirs)
    return float(np.median(ours[some] / theirs[some]))


def _tables_of_norms(rng: np.random.Generator) -> list[Case]:
    """Norms of some attacks on some images, failures as inf; one image is solved by none."""
    cases: list[Case] = []
    for attacks, images in ((2, 4), (3, 5), (3, 8), (4, 12), (5, 20)):
        norms = np.exp(rng.normal(0, 0.5, (attacks, images)))
        norms *= rng.uniform(1, 1.6, (attacks, 1))
        norms[0] *= 1.1
        norms[rng.random(norms.shape) < 0.2] = math.inf
        norms[0, 0], norms[1, 0] = 1.0, math.inf  # one fails where another succeeds
        norms[0, 2], norms[1, 2] = 1.0, 4.0  # one needs more than any `most`
        norms[:, 1] = math.inf
        cases.append((norms, float(rng.choice([1.5, 2.0, 3.0]))))
    return cases


def _module_optimality(norms: Norms, most: float) -> Norms:
    solved = norms[:, np.isfinite(norms).any(0)]
    relative = solved / solved.min(0)
    return np.array([optimality.optimality(row, most=most).mean() for row in relative])


def optimality_of(norms: np.ndarray, most: float) -> list[float]:
    """Optimality of each attack, from norms (attacks, images) with inf for a failure."""
    best = norms.min(axis=0)  # the best known norm of each image
    solved = np.isfinite(best)
    relative = norms[:, solved] / best[solved]
    missed = np.minimum(relative - 1, most - 1) / (most - 1)
    return [float(1 - row.mean()) for row in missed]


def _optimality_loop(norms: Norms, most: float) -> list[float]:
    found = []
    for row in norms:
        shares = []
        for norm, column in zip(row, norms.T, strict=True):
            best = min(column)
            if best < math.inf:
                shares.append(max(0.0, (most - norm / best) / (most - 1)))
        found.append(sum(shares) / len(shares))
    return found


def _optimality_with(
    *,
    unsolved: bool = False,
    dropped: bool = False,
    scale: bool = False,
    one_best: bool = False,
    area: bool = False,
    median: bool = False,
) -> Answer:
    """Optimality with a mistake."""

    def answer(norms: Norms, most: float) -> list[float]:
        best = np.full(norms.shape[1], norms.min()) if one_best else norms.min(0)
        keep = np.isfinite(norms.min(0)) | unsolved
        with np.errstate(invalid="ignore"):
            relative = np.where(np.isfinite(norms[:, keep]), norms[:, keep] / best[keep], math.inf)
        lost = np.minimum(relative - 1, most - 1) / (most if scale else most - 1)
        mean = np.median if median else np.mean
        rows = [
            row[np.isfinite(r)] if dropped else row for row, r in zip(lost, relative, strict=True)
        ]
        return [float(mean(row) if area else 1 - mean(row)) for row in rows]

    return answer


EXERCISES: tuple[Exercise, ...] = (
    Exercise(
        name="nearest_border",
        number="11.1",
        title="The nearest border of a linear victim",
        task="`nearest_border(weight, bias, x, label)`: the least L2 norm of a perturbation that"
        " takes `label` from the first place, on the linear model with scores"
        " `weight @ x + bias`. `weight` `(C, D)`, `bias` `(C,)` and `x` `(D,)` are tensors,"
        " `label` is the index of the label that leads. Pixels may leave [0, 1]. Return one"
        " number: the norm at which it is first caught up with.",
        points=3,
        minutes=20,
        cases=_linear_models,
        expected=_border_distance,
        solution=nearest_border,
        others=(_border_by_steps,),
        tolerance=1e-4,
        mutants=(
            mutant(
                "The label with the second score need not have the nearest border: try them all.",
                _wrong_border(second=True),
            ),
            mutant(
                "The gradient of f_label - f_j is the difference of two rows: divide by its norm,"
                " not by that of one row.",
                _wrong_border(own="label"),
                _wrong_border(own="rival"),
            ),
            mutant(
                "The norm of a difference is not the sum of the norms.",
                _wrong_border(own="both"),
            ),
            mutant(
                "Divided by the squared norm it is the factor of the step, not its length.",
                _wrong_border(power=2),
            ),
            mutant(
                "That is a difference of scores: divide by how fast it can change.",
                _wrong_border(own="one"),
            ),
            mutant(
                "One border is enough: take the nearest, not the farthest.",
                _wrong_border(farthest=True),
            ),
        ),
        hints=(
            "To catch up, one other label j is enough. How far is the border f_label = f_j?",
            "The distance of x to the plane g = 0 is |g(x)| over the norm of g's gradient.",
            "(f_label - f_j) / ||w_label - w_j||, and the least of these over j.",
        ),
    ),
    Exercise(
        name="norm_ratio",
        number="11.2",
        title="A fair ratio of norms",
        task="`norm_ratio(ours, theirs)`: the median of our norm over theirs on the same image,"
        " over the images on which both succeeded. `ours` and `theirs` are NumPy arrays of norms,"
        " an entry an image, `inf` where the attack failed. Return one number.",
        points=2,
        minutes=10,
        cases=_pairs_of_norms,
        expected=norm_ratio,
        solution=norm_ratio,
        others=(_ratio_sorted,),
        imports=("import numpy as np",),
        mutants=(
            mutant(
                "A ratio of two medians compares two different images: divide first.",
                lambda ours, theirs: float(
                    np.divide(*(np.median(norms) for norms in _both(ours, theirs)))
                ),
            ),
            mutant(
                "Each median is taken over other images: keep those on which both succeeded.",
                _own_medians,
            ),
            mutant(
                "The mean follows a few large ratios: take the median.",
                lambda ours, theirs: float(np.divide(*_both(ours, theirs)).mean()),
            ),
            mutant(
                "Images on which one failed have no ratio: leave them out.",
                _with_failures,
            ),
            mutant(
                "It is upside down: our norm is divided by theirs.",
                lambda ours, theirs: norm_ratio(theirs, ours),
            ),
        ),
        hints=(
            "Which images have both norms finite? `np.isfinite` tells.",
            "Divide image by image, then take `np.median`.",
        ),
    ),
    Exercise(
        name="optimality_of",
        number="11.3",
        title="Optimality",
        task="`optimality_of(norms, most)`: the optimality of section 2, one number for each"
        " attack, as a list. `norms` is a NumPy array (attacks, images), `inf` where the attack"
        " has no strict success; `most` is R > 1. The best known norm of an image is the least in"
        " its column. Images that no attack solved are left out.",
        points=4,
        minutes=20,
        cases=_tables_of_norms,
        expected=_module_optimality,
        solution=optimality_of,
        others=(_optimality_loop,),
        imports=("import numpy as np",),
        mutants=(
            mutant(
                "Images that no attack solved are counted as failures: leave them out.",
                _optimality_with(unsolved=True),
            ),
            mutant(
                "Failures are left out, so that failing costs nothing: they count 0.",
                _optimality_with(dropped=True),
            ),
            mutant(
                "The area is divided by R, but the axis from 1 to R is R - 1 long.",
                _optimality_with(scale=True),
            ),
            mutant(
                "Each image has its own best known norm: take the least of its column.",
                _optimality_with(one_best=True),
            ),
            mutant(
                "That is the area between the curves: optimality is 1 minus it.",
                _optimality_with(area=True),
            ),
            mutant("It is a mean over images, no median.", _optimality_with(median=True)),
        ),
        hints=(
            "First the least of each column, and which of these are finite.",
            "Then relative norms, and for each min(r - 1, R - 1) / (R - 1): inf gives 1.",
            "One minus the mean along the images.",
        ),
    ),
)
