"""Exercises on notebooks 06 and 08: many images at once, and their tables."""

import numpy as np
import torch

from tkmia_utils import measures
from tkmia_utils.course.exercise import Case, Exercise, mutant
from tkmia_utils.experiments import selection


def _types(rng: np.random.Generator) -> list[Case]:
    """Label sets and a type of two or three classes; images with none, few and all of it."""
    cases: list[Case] = []
    for trial in range(16):
        classes, k = 6, int(rng.integers(1, 4))
        size = 2 + trial % 2
        members = sorted(int(c) for c in rng.choice(classes, size, replace=False))
        labels = rng.random((5 + trial // 4, classes)) < 0.5
        others = [c for c in range(classes) if c not in members]
        labels[:4] = False
        labels[1, others[: k + 1]] = True  # enough labels, but none of the type
        labels[2, [members[0], *others[:k]]] = True  # just enough
        labels[3, [*members, *others[: k - 1]]] = True  # too few others
        cases.append((torch.from_numpy(rng.permutation(labels)), members, k))
    return cases


def _expected_s1(
    labels: torch.Tensor, members: list[int], k: int
) -> tuple[torch.Tensor, torch.Tensor]:
    chosen = selection.global_selection(labels, members, k, rule="paper")
    return chosen.specified, chosen.eligible


def s1_sets(labels: torch.Tensor, members: list[int], k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """S of scheme S1 for every image, and which images can be attacked."""
    chosen = torch.zeros(labels.shape[1], dtype=torch.bool)
    chosen[members] = True
    specified = labels & chosen  # what of the type an image has
    size = specified.sum(1)
    return specified, (size > 0) & (labels.sum(1) >= k + size)


def _s1_loop(labels: torch.Tensor, members: list[int], k: int) -> list[list[object]]:
    masks: list[object] = []
    which: list[object] = []
    for row in labels.tolist():
        mask = [y and c in members for c, y in enumerate(row)]
        masks.append(mask)
        which.append(any(mask) and sum(row) - sum(mask) >= k)
    return [masks, which]


def _runs(rng: np.random.Generator) -> list[Case]:
    """Runs of 100 iterations with failures, some of which end early (a gradient of zero, say)."""
    cases: list[Case] = []
    for trial in range(14):
        images, limit = 5 + trial // 2, int(rng.integers(20, 80))
        iterations, success = rng.integers(1, 100, images), rng.random(images) < 0.7
        iterations[:4], success[:4] = (limit, limit + 1, limit - 1, limit - 2), True
        success[3] = False  # it gave up
        iterations[4], success[4] = 100, False
        order = rng.permutation(images)
        arrays = (success[order], iterations[order])
        cases.append((*map(torch.from_numpy, arrays), limit))
    return cases


def success_at(success: torch.Tensor, iterations: torch.Tensor, limit: int) -> float:
    """Share of images that would have succeeded within fewer iterations."""
    in_time = success & (iterations <= limit)
    return float(in_time.double().mean())


def _norms(rng: np.random.Generator) -> list[Case]:
    cases: list[Case] = []
    for trial in range(12):
        norms = np.round(rng.uniform(0.2, 3, 4 + trial // 2), 2)
        success = rng.random(len(norms)) < 0.6
        success[:2] = True, False
        cases.append((torch.from_numpy(norms), torch.from_numpy(rng.permutation(success))))
    return cases


def aper_both(l2: torch.Tensor, success: torch.Tensor) -> tuple[float, float]:
    """APer over all images, as Eq. (13) has it, and over the successes."""
    return float(l2.mean()), float(l2[success].mean())


EXERCISES = (
    Exercise(
        name="s1_sets",
        number="06.1",
        title="The sets of scheme S1",
        task="`s1_sets(labels, members, k)`: S of every image, a mask `(N, C)`, and which images"
        " can be attacked, a mask `(N,)`: S is not empty and |Y_p| >= k + |S|. `labels` is a bool"
        " tensor `(N, C)`, `members` a list of the type's class indices.",
        points=3,
        minutes=15,
        cases=_types,
        expected=_expected_s1,
        solution=s1_sets,
        others=(_s1_loop,),
        parts=("S", "which images"),
        mutants=(
            mutant(
                "S is what of the type an image has, Y_p ∩ type, and not the whole type.",
                lambda labels, members, k: (
                    torch.zeros_like(labels).index_fill(1, torch.tensor(members), True),
                    s1_sets(labels, members, k)[1],
                ),
            ),
            mutant(
                "An image without a label of the type has nothing to hide: S must not be empty.",
                lambda labels, members, k: (
                    s1_sets(labels, members, k)[0],
                    labels.sum(1) >= k + s1_sets(labels, members, k)[0].sum(1),
                ),
            ),
            mutant(
                "The labels that are hidden cannot fill the top k: ask for |Y_p| >= k + |S|.",
                lambda labels, members, k: (
                    s1_sets(labels, members, k)[0],
                    s1_sets(labels, members, k)[0].any(1) & (labels.sum(1) >= k),
                ),
            ),
            mutant(
                "|S| is the number of labels to hide in this image, not the size of the type.",
                lambda labels, members, k: (
                    s1_sets(labels, members, k)[0],
                    s1_sets(labels, members, k)[0].any(1) & (labels.sum(1) >= k + len(members)),
                ),
            ),
            mutant(
                "Every image with a label of the type is let in: |Y_p| >= k + |S| is missing.",
                lambda labels, members, k: (
                    s1_sets(labels, members, k)[0],
                    s1_sets(labels, members, k)[0].any(1),
                ),
            ),
        ),
        hints=(
            "Which labels of the type does an image have? That is its S.",
            "A row of C bools for the type, `&` the labels, gives all S at once.",
            "Eligible: `(size > 0) & (labels.sum(1) >= k + size)` with `size` the row sums of S.",
        ),
    ),
    Exercise(
        name="success_at",
        number="06.3",
        title="At 50, from the run of 100",
        task="`success_at(success, iterations, limit)`: the share of all images that succeed within"
        " `limit` iterations, from a longer run: `success` is bool `(N,)`, `iterations` int64"
        " `(N,)`, where each image ended. A failure may have ended early.",
        points=2,
        minutes=10,
        cases=_runs,
        expected=lambda success, iterations, limit: (
            sum(
                s and i <= limit for s, i in zip(success.tolist(), iterations.tolist(), strict=True)
            )
            / len(success)
        ),
        solution=success_at,
        others=(
            lambda success, iterations, limit: np.mean(
                success.numpy() * (iterations.numpy() < limit + 1)
            ),
        ),
        mutants=(
            mutant(
                "A success in the last iteration counts: <=, not <.",
                lambda success, iterations, limit: (success & (iterations < limit)).double().mean(),
            ),
            mutant(
                "Failures are dropped: divide by all images.",
                lambda success, iterations, limit: (iterations[success] <= limit).double().mean(),
            ),
            mutant(
                "Failures that ended early are counted as successes.",
                lambda success, iterations, limit: (iterations <= limit).double().mean(),
            ),
            mutant(
                "That is the success of the whole run: who needed more than `limit` is too late.",
                lambda success, iterations, limit: success.double().mean(),
            ),
        ),
        hints=(
            "No schedule depends on the limit: a shorter run is the beginning of a longer one.",
            "Who has succeeded by then? Two conditions.",
            "`success & (iterations <= limit)`, and its mean over all images.",
        ),
    ),
    Exercise(
        name="aper_both",
        number="08.3",
        title="Survivor bias",
        task="`aper_both(l2, success)`: APer over all images, as Eq. (13) has it, and over the"
        " successes, two numbers; `l2` `(N,)` are norms, `success` is bool `(N,)`.",
        points=3,
        minutes=10,
        cases=_norms,
        expected=lambda l2, success: (measures.aper(l2), measures.aper(l2, success)),
        solution=aper_both,
        others=(
            lambda l2, success: [
                np.average(l2.numpy()),
                np.average(l2.numpy(), weights=success.numpy().astype(float)),
            ],
        ),
        parts=("the one over all", "the one over the successes"),
        mutants=(
            mutant(
                "The two have changed places: all images first.",
                lambda l2, success: aper_both(l2, success)[::-1],
            ),
            mutant(
                "Failures are dropped from both; the first is over all n images.",
                lambda l2, success: [l2[success].mean()] * 2,
            ),
            mutant(
                "The sum over the successes must be divided by their number, not by n.",
                lambda l2, success: (l2.mean(), l2[success].sum() / len(l2)),
            ),
            mutant(
                "These are medians; APer is a mean.",
                lambda l2, success: (np.median(l2), np.median(l2[success])),
            ),
            mutant(
                "The second is over the failures: index with `success`, not with its opposite.",
                lambda l2, success: (l2.mean(), l2[~success].mean()),
            ),
        ),
        hints=(
            "Both are means; they differ in the images that count.",
            "A mask picks the successes: `l2[success]`.",
        ),
        imports=("import torch",),
    ),
)
