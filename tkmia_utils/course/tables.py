"""Exercises on notebook 08: how sure a mean is, and a difference of two means.

The resampled images are given as an input, so that an interval can be compared: row r of `draws`
holds the numbers of the images that the r-th resample drew. The numbers of resamples are such that
2.5 % of the resampled means lie below one of them, and no way to interpolate matters.
"""

import numpy as np
import torch

from tkmia_utils.course.exercise import Case, Exercise, mutant

_RESAMPLES = (41, 81, 121, 201)
_ENDS = (2.5, 97.5)


def _draws(rng: np.random.Generator, resamples: int, images: int) -> torch.Tensor:
    return torch.from_numpy(rng.integers(0, images, (resamples, images)))


def _cell(rng: np.random.Generator) -> list[Case]:
    """Changes of a measure over the images of one cell, skewed as such changes are."""
    cases: list[Case] = []
    for trial in range(12):
        images = 7 + 2 * trial
        change = np.round(rng.exponential(0.3, images) - 0.1, 3)
        draws = _draws(rng, _RESAMPLES[trial // 3], images)
        cases.append((torch.from_numpy(change), draws))
    return cases


def _two(rng: np.random.Generator) -> list[Case]:
    """Two methods on the same images, where hard images are hard for both; two sets of draws."""
    cases: list[Case] = []
    for trial in range(12):
        images, resamples = 7 + 2 * trial, _RESAMPLES[trial // 3]
        hard = rng.exponential(0.5, images)
        ours = np.round(hard + 0.1 * rng.standard_normal(images), 3)
        theirs = np.round(hard + 0.2 + 0.1 * rng.standard_normal(images), 3)
        draws = (_draws(rng, resamples, images) for _ in range(2))
        cases.append((torch.from_numpy(ours), torch.from_numpy(theirs), *draws))
    return cases


def bootstrap_interval(change: torch.Tensor, draws: torch.Tensor) -> torch.Tensor:
    """Both ends of the 95 % interval of the mean change."""
    means = change[draws].mean(1)  # one for each resample
    ends = torch.tensor([0.025, 0.975], dtype=means.dtype)
    return torch.quantile(means, ends)


def _means(change: torch.Tensor, draws: torch.Tensor) -> np.ndarray:
    """One mean a resample, by how often an image was drawn."""
    values = change.numpy()
    return np.array([np.bincount(row, minlength=len(values)) @ values for row in draws.numpy()]) / (
        len(values)
    )


def _interval(change: torch.Tensor, draws: torch.Tensor) -> tuple[float, float]:
    """Both ends by counting in the sorted means."""
    means = sorted(_means(change, draws).tolist())
    below = round(0.025 * (len(means) - 1))
    return means[below], means[-1 - below]


def difference_intervals(
    ours: torch.Tensor, theirs: torch.Tensor, draws: torch.Tensor, others: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """The 95 % interval of mean(ours) - mean(theirs): paired, and as if images were different."""
    ends = torch.tensor([0.025, 0.975], dtype=ours.dtype)
    paired = ours[draws].mean(1) - theirs[draws].mean(1)  # the same images for both
    unpaired = ours[draws].mean(1) - theirs[others].mean(1)
    return torch.quantile(paired, ends), torch.quantile(unpaired, ends)


def _both(
    ours: torch.Tensor, theirs: torch.Tensor, draws: torch.Tensor, others: torch.Tensor
) -> tuple[np.ndarray, np.ndarray]:
    """The same from the difference of each image, in numpy."""
    gap = ours - theirs
    apart = _means(ours, draws) - _means(theirs, others)
    return np.percentile(_means(gap, draws), _ENDS), np.percentile(apart, _ENDS)


def _of_ends(one: torch.Tensor, other: torch.Tensor) -> np.ndarray:
    return np.subtract(one, other)


EXERCISES = (
    Exercise(
        name="bootstrap_interval",
        number="08.1",
        title="Bootstrap by hand",
        task="`bootstrap_interval(change, draws)`: both ends of the 95 % bootstrap interval of the"
        " mean of `change`, two numbers, the lower one first. `change` `(n,)` is the change of a"
        " measure on each image of a cell; `draws` `(R, n)`, int64, holds in each row the n images"
        " that one resample drew.",
        points=4,
        minutes=20,
        cases=_cell,
        expected=lambda change, draws: np.percentile(_means(change, draws), _ENDS),
        solution=bootstrap_interval,
        others=(_interval,),
        mutants=(
            mutant(
                "This is the spread of the images. Take the mean of each resample first.",
                lambda change, draws: np.percentile(change.numpy(), _ENDS),
                lambda change, draws: np.percentile(change[draws].numpy(), _ENDS),
            ),
            mutant(
                "This assumes a normal distribution: take percentiles of the resampled means.",
                lambda change, draws: [
                    change.mean() + z * change.std() / len(change) ** 0.5 for z in (-1.96, 1.96)
                ],
                lambda change, draws: [
                    change.mean() + z * change[draws].mean(1).std() for z in (-1.96, 1.96)
                ],
            ),
            mutant(
                "That leaves out 10 %: of 95 % each side leaves out 2.5 %.",
                lambda change, draws: np.percentile(_means(change, draws), (5, 95)),
            ),
            mutant(
                "That leaves out 5 % on each side in one end only: 2.5 % and 97.5 % are the ends.",
                lambda change, draws: np.percentile(_means(change, draws), (5, 97.5)),
                lambda change, draws: np.percentile(_means(change, draws), (2.5, 95)),
            ),
            mutant(
                "Mean over the wrong axis: a row of `draws` is a resample, a column is none.",
                lambda change, draws: np.percentile(change[draws].mean(0).numpy(), _ENDS),
            ),
            mutant(
                "Smallest and largest mean depend on how often one draws; take percentiles.",
                lambda change, draws: [f(_means(change, draws)) for f in (np.min, np.max)],
            ),
        ),
        hints=(
            "`change[draws]` has one row for each resample. What is the mean of each?",
            "Sort the R means: 95 % of them lie between the two ends.",
            "`torch.quantile(means, ...)` at 0.025 and 0.975.",
        ),
    ),
    Exercise(
        name="difference_intervals",
        number="08.2",
        title="Paired or not",
        task="`difference_intervals(ours, theirs, draws, others)`: two 95 % intervals of"
        " mean(ours) - mean(theirs), each two numbers. First the paired one: a resample draws"
        " images, the same for both methods, by `draws`. Then the one without pairs: `draws` for"
        " ours, `others` for theirs. `ours` and `theirs` are `(n,)`, one value an image; `draws`"
        " and `others` are int64 `(R, n)`.",
        points=3,
        minutes=20,
        cases=_two,
        expected=_both,
        solution=difference_intervals,
        others=(
            lambda ours, theirs, draws, others: (
                _interval(ours - theirs, draws),
                np.percentile(_means(ours, draws) - _means(theirs, others), _ENDS),
            ),
        ),
        parts=("the paired interval", "the interval without pairs"),
        mutants=(
            mutant(
                "Subtract the means in each resample, not the ends of two intervals.",
                lambda ours, theirs, draws, others: (
                    _of_ends(_interval(ours, draws), _interval(theirs, draws)),
                    _of_ends(_interval(ours, draws), _interval(theirs, others)),
                ),
                lambda ours, theirs, draws, others: (
                    _of_ends(_interval(ours, draws), _interval(theirs, draws)[::-1]),
                    _of_ends(_interval(ours, draws), _interval(theirs, others)[::-1]),
                ),
            ),
            mutant(
                "The sign: it is ours minus theirs.",
                lambda ours, theirs, draws, others: (
                    np.percentile(_means(theirs - ours, draws), _ENDS),
                    np.percentile(_means(theirs, others) - _means(ours, draws), _ENDS),
                ),
            ),
            mutant(
                "The two have changed places: the paired interval comes first.",
                lambda *case: _both(*case)[::-1],
            ),
            mutant(
                "The first is not paired: both methods need the images of the same `draws`.",
                lambda *case: (_both(*case)[1],) * 2,
            ),
            mutant(
                "The second is still paired: without pairs, theirs are drawn by `others`.",
                lambda *case: (_both(*case)[0],) * 2,
            ),
        ),
        hints=(
            "One difference of means for each resample, and the percentiles of the R differences.",
            "Paired: `ours[draws].mean(1) - theirs[draws].mean(1)`.",
            "Without pairs the second part is `theirs[others].mean(1)`.",
        ),
    ),
)
