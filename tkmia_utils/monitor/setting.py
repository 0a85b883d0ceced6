"""What a monitor was fitted with, and the checks that hold a stream to it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from tkmia_utils.monitor.conformal import Array
from tkmia_utils.monitor.evidence import LARGEST
from tkmia_utils.monitor.watches import Watch
from tkmia_utils.validation import (
    check_k,
    check_mask,
    check_one_of,
    check_scores,
    is_int,
    is_number,
)

Registry = Mapping[str, Watch]


@dataclass(frozen=True)
class Setting:
    """What a monitor was fitted with; nothing of it changes.

    Attributes
    ----------
    k : int
        Size of the top k.
    watch : tuple of str
        Names of what is watched.
    classes : tuple of str
        Names of all C classes.
    watched : tuple of int
        The classes that watches of single classes look at.
    arl : float
        Nominal run length, images between false alarms.
    seed : int
        Of the uniforms that break ties, and of the choice of images set apart.
    probabilities : bool
        All scores of the calibration were in [0, 1], and so must those of the stream be.
    """

    k: int
    watch: tuple[str, ...]
    classes: tuple[str, ...]
    watched: tuple[int, ...]
    arl: float
    seed: int
    probabilities: bool

    def detectors(self, watches: Registry) -> list[tuple[str, int | None]]:
        """Watch and class of every detector, in order."""
        return [
            (name, c)
            for name in self.watch
            for c in (self.watched if watches[name].per_class else (None,))
        ]

    def check(
        self, scores: torch.Tensor, labels: torch.Tensor | None, second: torch.Tensor | None
    ) -> None:
        """Refuse scores and labels ``(N, C)`` that are not of the kind that was fitted."""
        self._check_scores(scores, "scores")
        if scores.ndim != 2 or scores.shape[1] != len(self.classes):
            wanted = f"(N, {len(self.classes)})"
            raise ValueError(f"scores: expected shape {wanted}, got {tuple(scores.shape)}")
        if second is not None:
            self._check_scores(second, "second")
            if second.shape != scores.shape:
                wanted, got = tuple(scores.shape), tuple(second.shape)
                raise ValueError(f"second: expected shape {wanted}, got {got}")
        if labels is not None:
            check_mask(labels, scores, name="labels")

    def _check_scores(self, scores: torch.Tensor, name: str) -> None:
        check_scores(scores, name=name, finite=True)
        if not torch.isfinite(scores).all():
            raise ValueError(f"{name}: expected finite ones, got an infinity")
        if self.probabilities and bool(((scores < 0) | (scores > 1)).any()):
            raise ValueError(f"{name}: expected them in [0, 1] as in the calibration")

    def values(
        self,
        scores: torch.Tensor,
        labels: torch.Tensor | None,
        second: torch.Tensor | None,
        watches: Registry,
    ) -> Array:
        """Values of all detectors, float64 ``(N, D)``: low is suspicious, NaN is not seen."""
        columns: list[Array] = []
        for name in self.watch:
            watch = watches[name]
            width = len(self.watched) if watch.per_class else 1
            beside = {"labels": labels, "second": second}.get(watch.needs)
            if beside is None and watch.needs != "nothing":
                columns.append(np.full((len(scores), width), np.nan))
                continue
            found = watch.oriented(scores, beside, self.k)
            wanted = tuple(scores.shape if watch.per_class else scores.shape[:1])
            if found.shape != wanted or bool(found.isinf().any()):
                raise ValueError(f"watch: {name!r} must give finite values or NaN, shape {wanted}")
            part = found[:, list(self.watched)] if watch.per_class else found[:, None]
            columns.append(part.detach().cpu().numpy())
        return np.concatenate(columns, axis=1)


def checked_setting(
    scores: torch.Tensor,
    labels: torch.Tensor | None,
    *,
    second: torch.Tensor | None,
    k: int,
    watch: Sequence[str],
    arl: float,
    seed: int,
    classes: Sequence[str] | None,
    watched: Sequence[str] | None,
    watches: Registry,
) -> Setting:
    """The setting of a monitor, from what :func:`tkmia_utils.monitor.fit` is given.

    Raises
    ------
    ValueError
        As listed there.
    """
    check_scores(scores, finite=True)
    if scores.ndim != 2:
        raise ValueError(f"scores: expected shape (N, C), got {tuple(scores.shape)}")
    if not is_int(k):  # one k for every image, which is kept in the file
        raise ValueError(f"k: expected an int, got {k!r}")
    check_k(k, low=1, high=scores.shape[1] - 1)
    for what, found in {"watch": watch, "classes": classes, "watched": watched}.items():
        if found is None and what != "watch":
            continue
        texts = isinstance(found, Sequence) and all(isinstance(name, str) for name in found)
        if isinstance(found, str) or not texts:
            raise ValueError(f"{what}: expected a sequence of str, got {found!r}")
    names = tuple(map(str, range(scores.shape[1]))) if classes is None else tuple(classes)
    if len(names) != scores.shape[1] or len(set(names)) != len(names):
        raise ValueError(f"classes: expected {scores.shape[1]} different names, got {names}")
    chosen = names if watched is None else tuple(watched)
    for found, known, what in ((watch, tuple(watches), "watch"), (chosen, names, "watched")):
        for name in found:
            check_one_of(name, known, name=what)
        if not found or len(set(found)) != len(found):
            raise ValueError(f"{what}: expected one name or more, each once, got {found!r}")
    if not is_int(seed) or not 0 <= seed < 2**64:
        raise ValueError(f"seed: expected an int from 0 to 2**64 - 1, got {seed!r}")
    if not is_number(arl) or not 1 <= arl < LARGEST / 1e6:
        raise ValueError(f"arl: expected a number, 1 or more, got {arl!r}")
    for what, beside in (("labels", labels), ("second", second)):
        if beside is None and any(watches[name].needs == what for name in watch):
            raise ValueError(f"{what}: expected them, since a watch needs them")
    inside = bool(((scores >= 0) & (scores <= 1)).all())
    places = tuple(names.index(name) for name in chosen)
    setting = Setting(k, tuple(watch), names, places, float(arl), seed, inside)
    setting.check(scores, labels, second)
    return setting
