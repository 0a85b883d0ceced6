"""Exercises on notebook 03: label sets, what goes with what, and labels from a CSV."""

from collections.abc import Callable, Sequence

import numpy as np
import torch

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


_NAMES = ("bus", "car", "carriage", "cow", "dog", "person", "potted plant", "TV")


def _label_columns(rng: np.random.Generator) -> list[Case]:
    """Label columns of two CSV files; the first rows have what is easily read wrongly."""
    cases: list[Case] = []
    for trial in range(10):
        used = [n for n in _NAMES if n not in rng.choice(["bus", "cow", "person"], trial % 2)]

        def row(names: Sequence[str]) -> str:
            marks = [str(rng.choice([";", "; ", " ;"])) for _ in names]
            return "".join(a + b for a, b in zip(names, marks, strict=True)).rstrip("; ")

        def some(most: int, used: Sequence[str] = used) -> list[str]:
            return [str(n) for n in rng.permutation(used)[: int(rng.integers(1, most))]]

        train = [row([str(n) for n in part]) for part in np.array_split(rng.permutation(used), 4)]
        train[0] += ";"
        train += [row(some(4)) for _ in range(trial // 3)]
        # nothing; an empty name; a name within another; upper case; a space before a name
        val = ["", "dog;", "carriage", "TV;car", f"dog; {rng.choice(['car', 'potted plant'])}"]
        val += [row(some(4, [n for n in used if n != "person"])) for _ in range(trial // 2)]
        cases.append((train, [str(text) for text in rng.permutation(val)]))
    return cases


def label_matrix(train: list[str], val: list[str]) -> torch.Tensor:
    """Labels (N, C) of the held-out images; the columns are the classes of the training set."""

    def names(text: str) -> set[str]:
        """The names in one row; spaces around a name and empty names do not count."""
        return {name.strip() for name in text.split(";")} - {""}

    classes = sorted(set().union(*map(names, train)))  # of both sets, in this order
    return torch.tensor([[c in names(text) for c in classes] for text in val])


def _expected_matrix(train: list[str], val: list[str]) -> np.ndarray:
    """Row by row, and name by name."""
    parts = [[part.strip() for part in text.split(";")] for text in (*train, *val)]
    classes = np.unique([name for row in parts[: len(train)] for name in row if name])
    matrix = np.zeros((len(val), len(classes)), dtype=bool)
    for i, row in enumerate(parts[len(train) :]):
        for name in filter(None, row):
            matrix[i, np.searchsorted(classes, name)] = True
    return matrix


def _with_loops(train: list[str], val: list[str]) -> list[list[int]]:
    classes: list[str] = []
    for text in train:
        for name in text.replace("; ", ";").replace(" ;", ";").split(";"):
            if name != "" and name not in classes:
                classes.append(name)
    classes.sort()
    rows = [[0] * len(classes) for _ in val]
    for row, text in zip(rows, val, strict=True):
        for name in text.split(";"):
            if name.strip():
                row[classes.index(name.strip())] = 1
    return rows


def _matrix(
    train: list[str],
    val: list[str],
    *,
    separator: str = ";",
    clean: Callable[[str], str] = str.strip,
    empty: bool = False,
    order: Callable[..., list[str]] = sorted,
    columns: bool = False,
    parts: bool = False,
) -> np.ndarray:
    """The same, and the options are mistakes."""

    def names(text: str) -> list[str]:
        found = [clean(part) for part in text.split(separator)]
        return found if empty else [name for name in found if name]

    every = [name for text in (val if columns else train) for name in names(text)]
    classes = order(dict.fromkeys(every))
    return np.array([[c in (text if parts else names(text)) for c in classes] for text in val])


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
        name="label_matrix",
        number="03.3",
        title="From a CSV to labels",
        task="`label_matrix(train, val)`: labels of the held-out images, a mask `(N, C)`. `train`"
        " and `val` are the columns `labels` of two CSV files, lists of texts such as"
        ' `"person; car"`: names between `;`, with or without spaces around them; a row may be'
        " empty, and an empty name is none. The C columns are the names in `train`, each once, in"
        " the order of `sorted`. Names are taken as they are written.",
        points=3,
        minutes=20,
        cases=_label_columns,
        expected=_expected_matrix,
        solution=label_matrix,
        others=(_with_loops, _matrix),
        mutants=(
            mutant(
                "The columns are the classes of the training set, also for held-out images.",
                lambda train, val: _matrix(train, val, columns=True),
            ),
            mutant(
                "The columns are in the order of sorted, not in the order of the rows.",
                lambda train, val: _matrix(train, val, order=list),
            ),
            mutant(
                "Names are taken as they are written: 'TV' comes before 'bus', and is not 'tv'.",
                lambda train, val: _matrix(train, val, clean=lambda part: part.strip().lower()),
                lambda train, val: _matrix(train, val, order=lambda n: sorted(n, key=str.lower)),
            ),
            mutant(
                "Cut off the spaces around a name: ' car' is 'car'.",
                lambda train, val: _matrix(train, val, clean=str),
            ),
            mutant(
                "Names are separated by ;, not by commas.",
                lambda train, val: _matrix(train, val, separator=","),
            ),
            mutant(
                "An empty name is no class: a row may be empty or end with ;.",
                lambda train, val: _matrix(train, val, empty=True),
            ),
            mutant(
                "Compare whole names: a row that says 'carriage' has no 'car' in it.",
                lambda train, val: _matrix(train, val, parts=True),
            ),
            mutant(
                "These are the rows of the training set; those of the held-out set are asked for.",
                lambda train, val: _matrix(train, train),
            ),
        ),
        hints=(
            "First the names of a row: split it, cut off spaces, leave out what is empty.",
            "Then the classes: the union of the sets of names in `train`, sorted.",
            "Then a row of the mask: for each class, is it in the row's set of names?",
        ),
    ),
)
