"""Exercise on notebook 01: an alarm per class, with a threshold from clean images."""

from collections.abc import Callable

import numpy as np
import torch

from tkmia_utils.course.exercise import Answer, Case, Exercise, mutant

CLASSES, CLEAN, NOW, DRAWS = 4, 160, 40, 80
NEAR = 5e-3  # a recall this near to its threshold is drawn again: no answer hangs on rounding

Pair = tuple[torch.Tensor, torch.Tensor]


def _images(rng: np.random.Generator, n: int, hidden: int | None) -> tuple[np.ndarray, np.ndarray]:
    """Which labels are shown and which are relevant; a hidden class is hardly ever shown."""
    common = np.array([0.75, 0.6, 0.45, 0.35])
    labels = rng.random((n, CLASSES)) < common
    shown = rng.random((n, CLASSES)) < np.where(labels, [0.9, 0.75, 0.7, 0.6], 0.15)
    if hidden is not None:
        shown[:, hidden] &= rng.random(n) < 0.3
    return shown, labels


def _weeks(rng: np.random.Generator) -> list[Case]:
    """Clean images, bootstrap draws of their rows, and images of now, attacked in most cases."""
    cases: list[Case] = []
    while len(cases) < 8:
        hidden = None if len(cases) == 3 else int(rng.integers(0, CLASSES))
        clean, now = _images(rng, CLEAN, None), _images(rng, NOW, hidden)
        draws = rng.integers(0, CLEAN, (DRAWS, NOW))
        level = 0.1 if len(cases) % 2 else 0.2
        case: Case = (*map(torch.from_numpy, (*clean, draws, *now)), level)
        threshold, _ = class_alarm(*case)
        shown, labels = map(torch.from_numpy, now)
        recall = (shown & labels).sum(0) / labels.sum(0)
        all_there = clean[1][draws].any(1).all() and now[1].any(0).all()
        if all_there and bool(((recall - threshold).abs() > NEAR).all()):
            cases.append(case)
    return cases


def class_alarm(
    shown: torch.Tensor,
    labels: torch.Tensor,
    draws: torch.Tensor,
    shown_now: torch.Tensor,
    labels_now: torch.Tensor,
    level: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    """A threshold for the recall of every class, and which classes are below theirs now."""
    hits = (shown & labels)[draws].double().sum(dim=1)  # (B, C): by draw and class
    recalls = hits / labels[draws].sum(dim=1)
    # every class gets its share of the level, so that all together rarely ring for nothing
    r = round(level * len(draws) / labels.shape[1])
    threshold = recalls.sort(dim=0).values[r - 1]
    now = (shown_now & labels_now).double().sum(dim=0) / labels_now.sum(dim=0)
    return threshold, now < threshold


def _by_class(
    shown: torch.Tensor,
    labels: torch.Tensor,
    draws: torch.Tensor,
    shown_now: torch.Tensor,
    labels_now: torch.Tensor,
    level: float,
) -> list[np.ndarray]:
    """The same, class by class, in numpy."""
    thresholds, alarms = [], []
    for c in range(labels.shape[1]):
        recalls = []
        for rows in draws.numpy():
            s, y = shown[rows, c].numpy(), labels[rows, c].numpy()
            recalls.append(s[y].mean())
        rank = round(level / labels.shape[1] * len(draws))
        thresholds.append(np.partition(recalls, rank - 1)[rank - 1])
        alarms.append(shown_now[labels_now[:, c], c].numpy().mean() < thresholds[-1])
    return [np.array(thresholds), np.array(alarms)]


def _rated(
    rate: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    *,
    rank: Callable[[int, int, float], int] = lambda n, classes, level: round(level * n / classes),
    from_now: bool = False,
) -> Answer:
    """An alarm on another number than the recall, another place in its order, or other images."""

    def answer(
        shown: torch.Tensor,
        labels: torch.Tensor,
        draws: torch.Tensor,
        shown_now: torch.Tensor,
        labels_now: torch.Tensor,
        level: float,
    ) -> Pair:
        source = (shown_now, labels_now) if from_now else (shown, labels)
        rows = draws % len(source[0])
        rates = rate(source[0][rows], source[1][rows])
        place = rank(len(draws), labels.shape[1], level)
        threshold = rates.sort(dim=0).values[place - 1]
        return threshold, rate(shown_now, labels_now) < threshold

    return answer


def _recall(shown: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return (shown & labels).double().sum(-2) / labels.sum(-2)


EXERCISES = (
    Exercise(
        name="class_alarm",
        number="01.6",
        title="A monitor",
        task="`class_alarm(shown, labels, draws, shown_now, labels_now, level)`: the threshold of"
        " every class, `(C,)`, and which classes raise the alarm, a mask `(C,)`. `shown` and"
        " `labels` are masks `(N, C)` of clean images: what the top k shows, and what is relevant;"
        " `shown_now` and `labels_now` are `(M, C)`, of the images of today. `draws` is `(B, M)`:"
        " each row has the row numbers of M clean images, drawn with replacement (one bootstrap"
        " sample). The recall of a class is the share of the images with that class that show it."
        " Each bootstrap sample has a recall per class. The threshold of a class is the r-th"
        " smallest of its B recalls, with r = level · B / C, a whole number in all cases. The alarm"
        " is raised where the recall of today is below the threshold.",
        points=4,
        minutes=30,
        cases=_weeks,
        expected=class_alarm,
        solution=class_alarm,
        others=(_by_class, _rated(_recall)),
        parts=("threshold", "alarm"),
        mutants=(
            mutant(
                "You take the mean over the classes; a class that vanishes is lost in it.",
                _rated(
                    lambda s, y: (
                        _recall(s, y).mean(-1, keepdim=True).expand(*y.shape[:-2], y.shape[-1])
                    )
                ),
            ),
            mutant(
                "Your threshold comes from the images of today, which may be attacked; take clean"
                " ones.",
                _rated(_recall, from_now=True),
            ),
            mutant(
                "You divide by all images, so that a rare class seems to be hidden: divide by"
                " those that have it.",
                _rated(lambda s, y: (s & y).double().mean(-2)),
            ),
            mutant(
                "You count who is shown, right or wrong; recall counts the images that have the"
                " class.",
                _rated(lambda s, y: s.double().mean(-2)),
            ),
            mutant(
                "That is precision: you divide by the images that show the class, not by those"
                " that have it.",
                _rated(lambda s, y: (s & y).double().sum(-2) / s.sum(-2)),
            ),
            mutant(
                "Each class uses the whole level, so that C classes ring C times as often: use"
                " level / C.",
                _rated(_recall, rank=lambda n, classes, level: round(level * n)),
            ),
            mutant(
                "You take the r-th largest recall; a class that vanishes has a low one.",
                _rated(
                    _recall,
                    rank=lambda n, classes, level: n - round(level * n / classes) + 1,
                ),
            ),
        ),
        hints=(
            "Write a function for the recall of every class first; today and each draw need it.",
            "`labels[draws]` has shape (B, M, C): sum over dimension 1.",
            "Sort the B recalls of each class: the threshold is `values[r - 1]`.",
        ),
    ),
)
