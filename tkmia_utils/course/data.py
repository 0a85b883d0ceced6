"""Exercises on notebooks 03 and 04: labels, and the two figures that are called mAP."""

import numpy as np
import torch

from tkmia_utils import measures
from tkmia_utils.course.exercise import Case, Exercise, mutant
from tkmia_utils.data import summary


def _label_sets(rng: np.random.Generator) -> list[Case]:
    """Label sets of all sizes with k and m, a few of them empty."""
    cases: list[Case] = []
    for trial in range(16):
        images, k, m = 4 + trial // 2, int(rng.integers(1, 4)), int(rng.integers(1, 4))
        k, m = ((1, 3), (3, 1))[trial] if trial < 2 else (k, m)
        sizes = rng.integers(0, 8, images)
        # just too few, just enough, none, and enough for the smaller of the two
        sizes[:4] = k + m - 1, k + m, 0, min(k, m)
        labels = rng.random((images, 7)).argsort(1) < sizes[:, None]
        cases.append((torch.from_numpy(rng.permutation(labels)), k, m))
    return cases


def eligible(labels: torch.Tensor, k: int, m: int) -> torch.Tensor:
    """Which images have enough labels to hide m of them and still fill the top k."""
    return labels.sum(1) >= k + m


def _companions(rng: np.random.Generator) -> list[Case]:
    """Label sets in which both labels occur, together and apart."""
    cases: list[Case] = []
    for trial in range(14):
        images = 6 + trial // 2
        labels = rng.random((images, 5)) < 0.5
        given, other = (int(c) for c in rng.choice(5, 2, replace=False))
        labels[:4, given] = True, True, True, False
        labels[:4, other] = True, False, False, True
        cases.append((torch.from_numpy(rng.permutation(labels)), given, other))
    return cases


def _expected_share(labels: torch.Tensor, given: int, other: int) -> torch.Tensor:
    together = summary.co_occurrence(labels).double()
    return together[given, other] / together[given, given]


def share_given(labels: torch.Tensor, given: int, other: int) -> float:
    """Share of the images with label `given` that also show label `other`."""
    shown = labels[labels[:, given]]  # the images that count
    return float(shown[:, other].double().mean())


def _scored(rng: np.random.Generator) -> list[Case]:
    """Scores without ties; every class has an image, and every image a label."""
    cases: list[Case] = []
    for trial in range(10):
        images, classes = 4 + trial // 2, 3 + trial // 3
        scores = np.round(2 * rng.permutation(images * classes) / (images * classes) - 1, 2)
        scores = scores + np.arange(scores.size) * 1e-4  # what rounding made equal
        labels = rng.random((images, classes)) < 0.4
        labels[np.arange(images), rng.integers(0, classes, images)] = True
        labels[rng.integers(0, images, classes), np.arange(classes)] = True
        grid = scores.reshape(images, classes)
        cases.append((torch.from_numpy(grid), torch.from_numpy(labels)))
    return cases


def _both(scores: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    by_class = measures.class_average_precision(scores, labels)
    by_image = measures.average_precision_at_k(scores, labels, scores.shape[1])
    return by_class.mean(), by_image.mean()


def two_maps(scores: torch.Tensor, labels: torch.Tensor) -> tuple[float, float]:
    """Class mAP and mean per-image AP."""

    def mean_ap(scores: torch.Tensor, labels: torch.Tensor) -> float:
        """Mean over rows of the average precision of a row's ranking."""
        hits = labels.gather(1, scores.argsort(dim=1, descending=True)).double()
        precision = hits.cumsum(1) / torch.arange(1, hits.shape[1] + 1)
        return float(((hits * precision).sum(1) / hits.sum(1)).mean())

    return mean_ap(scores.T, labels.T), mean_ap(scores, labels)


def _average(scores: np.ndarray, labels: np.ndarray) -> float:
    """Average precision of one ranking, place by place."""
    found, total = 0, 0.0
    for place, at in enumerate(np.argsort(-scores), start=1):
        if labels[at]:
            found += 1
            total += found / place
    return total / found


def _two_loops(scores: torch.Tensor, labels: torch.Tensor) -> list[float]:
    f, y = scores.numpy(), labels.numpy()
    rows = zip(f, y, strict=True)
    columns = zip(f.T, y.T, strict=True)
    return [float(np.mean([_average(*pair) for pair in pairs])) for pairs in (columns, rows)]


def _thresholded(scores: torch.Tensor, labels: torch.Tensor) -> tuple[float, float]:
    """Rankings of what is above 0.5, which are no rankings."""
    hard = (scores > 0.5).double()
    by_class = measures.class_average_precision(hard, labels).mean()
    return float(by_class), float(measures.class_average_precision(hard.T, labels.T).mean())


def _precisions(scores: torch.Tensor, labels: torch.Tensor) -> tuple[float, float]:
    """Precision at the number of relevant labels instead of the average precision."""

    def mean(scores: torch.Tensor, labels: torch.Tensor) -> float:
        return float(measures.precision_at_k(scores, labels, labels.sum(1)).mean())

    return mean(scores.T, labels.T), mean(scores, labels)


def _pooled(scores: torch.Tensor, labels: torch.Tensor) -> tuple[float, float]:
    """One ranking of all images and classes."""
    every = _average(scores.flatten().numpy(), labels.flatten().numpy())
    return every, two_maps(scores, labels)[1]


EXERCISES = (
    Exercise(
        name="eligible",
        number="03.1",
        title="Eligible images",
        task="`eligible(labels, k, m)`: which images can be attacked at k with |S| = m, a mask"
        " `(N,)`; `labels` is a bool tensor `(N, C)`. Enough other relevant labels must be left to"
        " fill the top k.",
        points=2,
        minutes=10,
        cases=_label_sets,
        expected=lambda labels, k, m: torch.tensor([sum(row) - m >= k for row in labels.tolist()]),
        solution=eligible,
        others=(
            lambda labels, k, m: [sum(row) - m >= k for row in labels.tolist()],
            lambda labels, k, m: (labels.numpy().sum(axis=1) > k + m - 1).astype(int),
        ),
        mutants=(
            mutant(
                "Just enough labels is enough: >=, not >.",
                lambda labels, k, m: labels.sum(1) > k + m,
            ),
            mutant(
                "The m labels that are hidden cannot fill the top k: ask for k + m labels.",
                lambda labels, k, m: labels.sum(1) >= k,
                lambda labels, k, m: labels.sum(1) > k,
            ),
            mutant(
                "There must be labels left to fill the top k, not only m to hide.",
                lambda labels, k, m: labels.sum(1) >= m,
                lambda labels, k, m: labels.sum(1) > m,
            ),
            mutant(
                "k and m are needed one after the other: ask for their sum, not the larger.",
                lambda labels, k, m: labels.sum(1) >= max(k, m),
            ),
            mutant(
                "Images without any label are let in.",
                lambda labels, k, m: (labels.sum(1) >= k + m) | ~labels.any(1),
            ),
        ),
        hints=(
            "How many relevant labels are left when m of them are hidden?",
            "k of them are needed: |Y_p| >= k + m.",
            "The sizes of the label sets are `labels.sum(1)`.",
        ),
    ),
    Exercise(
        name="share_given",
        number="03.2",
        title="What goes with what",
        task="`share_given(labels, given, other)`: of the images with label `given` the share that"
        " also shows label `other`, a number; `labels` is a bool tensor `(N, C)`, the two others"
        " are columns of it, and some image has each of them.",
        points=2,
        minutes=10,
        cases=_companions,
        expected=_expected_share,
        solution=share_given,
        others=(
            lambda labels, given, other: (
                sum(row[given] and row[other] for row in labels.tolist())
                / sum(row[given] for row in labels.tolist())
            ),
        ),
        mutants=(
            mutant(
                "The other way round: divide by the images with `given`, not with `other`.",
                lambda labels, given, other: share_given(labels, other, given),
            ),
            mutant(
                "That is the share of all images that show both; divide by those with `given`.",
                lambda labels, given, other: (labels[:, given] & labels[:, other]).double().mean(),
            ),
            mutant(
                "That is how often `other` is shown at all; only images with `given` count.",
                lambda labels, given, other: labels[:, other].double().mean(),
            ),
            mutant(
                "That is their number; divide by the number of images with `given`.",
                lambda labels, given, other: (labels[:, given] & labels[:, other]).sum(),
            ),
            mutant(
                "Divided by the images that show either label, it is the same both ways round;"
                " divide by those with `given`.",
                lambda labels, given, other: (
                    (labels[:, given] & labels[:, other]).sum()
                    / (labels[:, given] | labels[:, other]).sum()
                ),
            ),
        ),
        hints=(
            "Which images count at all? Keep those first.",
            "A mask of rows picks them: `labels[labels[:, given]]`.",
            "The mean of a column of zeros and ones is the share.",
        ),
    ),
    Exercise(
        name="two_maps",
        number="04.1",
        title="Two figures called mAP",
        task="`two_maps(scores, labels)`: class mAP and mean per-image AP, two numbers, from scores"
        " and bool labels `(N, C)`. No two scores tie; every class has an image, every image a"
        " label.",
        points=4,
        minutes=20,
        cases=_scored,
        expected=_both,
        solution=two_maps,
        others=(_two_loops,),
        parts=("class mAP", "the mean per-image AP"),
        mutants=(
            mutant(
                "The two have changed places: class mAP ranks the images of a class, and comes"
                " first.",
                lambda scores, labels: two_maps(scores, labels)[::-1],
            ),
            mutant(
                "There is no threshold in it: the average precision looks at the whole ranking.",
                _thresholded,
                lambda scores, labels: _thresholded(scores + 0.5, labels),
            ),
            mutant(
                "The first is one ranking of all images and classes: rank the images of each class"
                " and take the mean over classes.",
                _pooled,
            ),
            mutant(
                "That is one precision; the average precision is the mean of P@i over the hits i.",
                _precisions,
            ),
            mutant(
                "Both are the mean over images: for class mAP rank the images of each class.",
                lambda scores, labels: [two_maps(scores, labels)[1]] * 2,
            ),
            mutant(
                "Both are the mean over classes: for the second rank the classes of each image.",
                lambda scores, labels: [two_maps(scores, labels)[0]] * 2,
            ),
        ),
        hints=(
            "Both are means of average precisions. What is ranked in the one, what in the other?",
            "Write the mean AP over the rows of a table, then use it on `scores.T` as well.",
            "AP of a ranking: the mean, over its hits i, of the precision at i.",
        ),
    ),
)
