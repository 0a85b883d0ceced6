"""The monitor: fitted on clean images, fed with a stream, rings when the stream has changed."""

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from tkmia_utils.monitor.conformal import Array, Reference, uniforms
from tkmia_utils.monitor.evidence import LARGEST, Bets, choose_bets, split, thresholds
from tkmia_utils.monitor.setting import Registry, Setting, checked_setting
from tkmia_utils.monitor.watches import WATCHES
from tkmia_utils.tensor_file import read_tensors, write_tensors
from tkmia_utils.validation import check_mask, check_one_of, is_int

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


FORMAT = "tkmia monitor 2"


class Monitor:
    """Detectors on everything that is watched; made by :func:`fit` or :meth:`load`.

    The guarantee: on a stream that is exchangeable with the calibration images, the mean number of
    images until the first alarm is at least ``arl``, for any number of calibration images; likewise
    from a plain :meth:`reset` to the next alarm, but not after ``reset(forget=True)``. Its
    conditions are in :mod:`tkmia_utils.monitor.evidence`. The one that breaks first in practice: a
    clean image must not arrive twice (keep only the first of equal images).

    Attributes
    ----------
    setting : Setting
        What it was fitted with.
    """

    def __init__(
        self, setting: Setting, values: Array, bets: Sequence[Bets], watches: Registry
    ) -> None:
        self.setting = setting
        self._history: list[Array] = []
        self._watches = watches
        self._detectors = setting.detectors(watches)
        self._values = values  # of the calibration images that are ranked against, (n, D)
        self._bets = list(bets)
        widths = Counter(name for name, _ in self._detectors)
        shares = [1 / (len(widths) * widths[name]) for name, _ in self._detectors]
        self._limits = thresholds(setting.arl, shares)
        most = max(len(b.weights) for b in self._bets)
        self._weights = np.zeros((len(self._bets), most))  # a bet of weight 0 fills up the table
        for i, b in enumerate(self._bets):
            self._weights[i, : len(b.weights)] = b.weights
        self._recall_calibration()
        self._begin()

    @property
    def position(self) -> int:
        """Images of the stream so far."""
        return len(self._history)

    def _recall_calibration(self) -> None:
        self._references = [Reference(v[~np.isnan(v)]) for v in self._values.T]

    def _begin(self) -> None:
        shape = self._weights.shape
        self._statistic, self._best = np.zeros(shape), np.zeros(shape)
        self._since = np.full(shape, self.position)
        self._rang = np.full(shape[0], -1)

    def update(
        self,
        scores: torch.Tensor,
        labels: torch.Tensor | None = None,
        *,
        second: torch.Tensor | None = None,
        labelled: torch.Tensor | None = None,
        k: int | None = None,
        classes: Sequence[str] | None = None,
    ) -> bool:
        """Take the next images of the stream; a batch does to the bit what its images do in turn.

        Parameters
        ----------
        scores : torch.Tensor
            Floating ``(C,)`` or ``(N, C)``, finite.
        labels : torch.Tensor, optional
            Bool, same shape. Without, the watches that need labels wait (e = 1, their references
            stay as they are).
        second : torch.Tensor, optional
            Floating, same shape, finite: second scores, made as those of the calibration. Without,
            the watches that need them wait.
        labelled : torch.Tensor, optional
            Bool ``(N,)``: which images have labels; default all of them, if `labels` is given.
            Which ones must not depend on what is seen in them, see :mod:`.evidence`.
        k : int, optional
            Given, it must be the k that was fitted.
        classes : sequence of str, optional
            Given, they must be those that were fitted, in order.

        Returns
        -------
        bool
            :attr:`alarm`.

        Raises
        ------
        ValueError
            NaN, infinite, or out of the range of the calibration; another number of classes,
            other classes, another k; labels of another dtype or shape. The monitor is unchanged.
        """
        if k is not None and (not isinstance(k, int) or k != self.setting.k):
            raise ValueError(f"k: the monitor was fitted with {self.setting.k}, got {k}")
        given = classes if isinstance(classes, Sequence) else ()
        if classes is not None and tuple(given) != self.setting.classes:
            raise ValueError("classes: expected those the monitor was fitted with, in their order")
        if isinstance(scores, torch.Tensor) and scores.ndim == 1:
            if isinstance(labels, torch.Tensor):
                if labels.shape != scores.shape:
                    check_mask(labels, scores, name="labels")
                labels = labels[None]
            if isinstance(second, torch.Tensor) and second.ndim == 1:
                second = second[None]
            scores = scores[None]
        self.setting.check(scores, labels, second)
        values = self.setting.values(scores, labels, second, self._watches)
        if labelled is not None:
            if labels is None:
                raise ValueError("labelled: expected labels with it")
            check_mask(labelled, scores[:, 0], name="labelled")
            asking = [self._watches[name].needs == "labels" for name, _ in self._detectors]
            values[np.ix_(~labelled.cpu().numpy(), np.array(asking))] = np.nan
        self._take(values)
        return self.alarm

    def _take(self, values: Array) -> None:
        n, detectors = values.shape
        u = uniforms(self.setting.seed, self.position, n, detectors)
        e = np.ones((n, *self._weights.shape))
        for i, (reference, bets) in enumerate(zip(self._references, self._bets, strict=True)):
            seen = ~np.isnan(values[:, i])
            p = reference.p_values(values[seen, i], u[seen, i])
            e[seen, i, : len(bets.weights)] = bets.e_values(p)
        for paid in e:
            self._statistic = np.minimum((1 + self._statistic) * paid, LARGEST)
            at = self.position
            self._since = np.where(self._best < 1, at, self._since)
            self._best = np.minimum(np.maximum(self._best, 1) * paid, LARGEST)
            now = self._collected()
            self._rang = np.where((now >= self._limits) & (self._rang < 0), at, self._rang)
            self._history.append(now)

    def _collected(self) -> Array:
        """The statistic of every detector: its bets' mean, float64 ``(D,)``."""
        return (self._statistic * self._weights).sum(1)

    def __repr__(self) -> str:
        """Summarise it in a line or two."""
        text = (
            f"Monitor: {len(self._detectors)} detectors ({', '.join(self.setting.watch)}), "
            f"top {self.setting.k} of {len(self.setting.classes)} classes, run length "
            f"{self.setting.arl:g}; {self.position} images"
        )
        if not self.alarm:
            return f"{text}, no alarm"
        first = int(np.where(self._rang < 0, self.position, self._rang).argmin())
        return f"{text}\n  ALARM at image {self._rang[first]}: {self._names()[first]}"

    @property
    def alarm(self) -> bool:
        """Has any detector reached its threshold since the last :meth:`reset`?"""
        return bool((self._rang >= 0).any())

    @property
    def evidence(self) -> "pd.DataFrame":
        """What every detector has collected, the most suspicious first.

        Columns ``watch``, ``class`` (missing for a watch of the whole list), ``statistic``,
        ``threshold``, ``since`` (where the change most likely was: the first image after it, by
        the bet that has won most), ``alarm`` (position of the image at which it rang, or NA) and
        ``images`` (how many it is ranked against). Positions count from 0.
        """
        import pandas as pd

        now = self._collected()
        best = (self._best * self._weights).argmax(1)
        table = pd.DataFrame({
            "watch": [name for name, _ in self._detectors],
            "class": [None if c is None else self.setting.classes[c] for _, c in self._detectors],
            "statistic": now,
            "threshold": self._limits,
            "since": self._since[np.arange(len(best)), best],
            "alarm": pd.array([int(t) if t >= 0 else pd.NA for t in self._rang], dtype="Int64"),
            "images": [len(reference) for reference in self._references],
        })  # fmt: skip
        order = np.argsort(-now / self._limits, kind="stable")
        return table.iloc[order].reset_index(drop=True)

    def reset(self, *, forget: bool = False) -> None:
        """Lower the alarm and begin to collect anew.

        Parameters
        ----------
        forget : bool
            Rank against the calibration images alone again. Use it after a real attack, whose
            images would make the next one look usual. The guarantee does not cover what follows:
            these calibration images had a part in the alarm, so that after an unlucky one the next
            false alarm comes sooner too. To have the guarantee again, fit on new clean images. By
            default the past of the stream counts on, which after a false alarm keeps the p-values
            independent and the guarantee valid.
        """
        if forget:
            self._recall_calibration()
        self._begin()

    def plot(self, *, ax: "Axes | None" = None) -> "Figure":
        """Draw the statistics over their thresholds against time, on a logarithmic axis."""
        from tkmia_utils.monitor.figure import plot_statistics

        history = np.array(self._history).reshape(-1, len(self._limits)) / self._limits
        rang = [int(t) if t >= 0 else None for t in self._rang]
        return plot_statistics(history, self._names(), rang, ax=ax)

    def _names(self) -> list[str]:
        classes = self.setting.classes
        return [name if c is None else f"{name}, {classes[c]}" for name, c in self._detectors]

    def null_check(self, *, streams: int = 1000, length: int = 2000) -> "pd.DataFrame":
        """Measure how often this monitor rings where nothing has changed.

        What this can and cannot show is said in :mod:`tkmia_utils.monitor.null_check`: it tests
        the monitor, not whether the stream resembles the calibration.

        Parameters
        ----------
        streams : int
            How many streams are simulated.
        length : int
            Images a stream. For a run length by ``rate`` take several times the nominal one.

        Returns
        -------
        pandas.DataFrame
            See :func:`tkmia_utils.monitor.null_check.null_check`.

        Raises
        ------
        ValueError
            Fewer than two streams, or less than one image.
        """
        from tkmia_utils.monitor.null_check import null_check

        whole = is_int(streams) and is_int(length)
        if not whole or streams < 2 or length < 1:
            raise ValueError(
                f"streams, length: expected ints, 2 and 1 or more, got {streams!r}, {length!r}"
            )
        return null_check(
            self._values, self._bets, self._limits, self._names(), arl=self.setting.arl,
            streams=streams, length=length, seed=self.setting.seed,
        )  # fmt: skip

    def save(self, path: str | Path) -> Path:
        """Write the monitor, with all it has seen, into one safetensors file, atomically."""
        arrays: dict[str, Any] = {
            "values": self._values, "statistic": self._statistic, "best": self._best,
            "since": self._since, "rang": self._rang,
            "history": np.array(self._history).reshape(-1, len(self._limits)),
        }  # fmt: skip
        for i, (bets, reference) in enumerate(zip(self._bets, self._references, strict=True)):
            arrays |= {f"bets {i} {name}": array for name, array in vars(bets).items()}
            arrays[f"reference {i}"] = reference.values
        tensors = {name: torch.from_numpy(np.ascontiguousarray(a)) for name, a in arrays.items()}
        about = json.dumps(vars(self.setting))
        return write_tensors(path, tensors, kind=FORMAT, metadata={"about": about})

    @classmethod
    def load(cls, path: str | Path, *, watches: Registry = WATCHES) -> "Monitor":
        """Read what :meth:`save` wrote: a monitor that goes on to the same bits.

        Parameters
        ----------
        path : str or Path
            The file.
        watches : mapping of str to Watch
            Where the names of its watches are looked up.

        Raises
        ------
        ValueError
            There is no such file, it is broken, or a watch of it is not known.
        """
        try:
            tensors, metadata = read_tensors(path, kind=FORMAT)
            about = json.loads(metadata["about"])
        except (KeyError, ValueError) as error:
            raise ValueError(f"{path}: not a whole file of a monitor ({error})") from error
        arrays = {name: tensor.numpy() for name, tensor in tensors.items()}
        for name in about["watch"]:
            check_one_of(name, tuple(watches), name="watch")
        names = ("watch", "classes", "watched")
        known: dict[str, Any] = {name: about[name] for name in Setting.__dataclass_fields__}
        setting = Setting(**known | {name: tuple(known[name]) for name in names})
        fields = tuple(Bets.__dataclass_fields__)
        if arrays["values"].shape[1] != len(setting.detectors(watches)):
            raise ValueError("watches: not those that the monitor was fitted with")
        bets = [
            Bets(**{name: arrays[f"bets {i} {name}"] for name in fields})
            for i in range(len(setting.detectors(watches)))
        ]
        monitor = cls(setting, arrays["values"], bets, watches)
        for name in ("statistic", "best", "since", "rang"):
            setattr(monitor, f"_{name}", arrays[name])
        monitor._history = list(arrays["history"])
        monitor._references = [Reference(arrays[f"reference {i}"]) for i in range(len(bets))]
        return monitor


def fit(
    scores: torch.Tensor,
    labels: torch.Tensor | None = None,
    *,
    second: torch.Tensor | None = None,
    k: int,
    watch: Sequence[str],
    arl: float = 10_000,
    seed: int = 0,
    classes: Sequence[str] | None = None,
    watched: Sequence[str] | None = None,
    watches: Registry = WATCHES,
) -> Monitor:
    """Fit a monitor on clean images.

    Parameters
    ----------
    scores : torch.Tensor
        Floating ``(N, C)``, finite: logits or probabilities of clean images, no image twice.
    labels : torch.Tensor, optional
        Bool ``(N, C)``; needed if a watch needs them.
    second : torch.Tensor, optional
        Floating ``(N, C)``, finite: scores of changed copies of the images, for the watch "second
        look"; for instance :func:`tkmia_utils.defence.second_scores`.
    k : int
        1 <= k < C.
    watch : sequence of str
        Names in `watches`. False alarms are shared out evenly among the watches, and those of a
        watch among its classes. So the fewer there are, the sooner each can ring.
    arl : float
        At least this many images to the first false alarm, in the mean.
    seed : int
        Not negative.
    classes : sequence of str, optional
        Names of the C classes; default their numbers.
    watched : sequence of str, optional
        Classes that watches of single classes look at; default all.
    watches : mapping of str to Watch
        Default :data:`tkmia_utils.monitor.WATCHES`.

    Returns
    -------
    Monitor

    Raises
    ------
    ValueError
        Bad scores or labels, labels missing, k or `arl` or `seed` out of range, a name not known
        or given twice.
    """
    setting = checked_setting(
        scores, labels, second=second, k=k, watch=watch, arl=arl, seed=seed, classes=classes,
        watched=watched, watches=watches,
    )  # fmt: skip
    values = setting.values(scores, labels, second, watches)
    apart, ranked = split(len(scores), seed)
    bets = []
    for i, (name, _) in enumerate(setting.detectors(watches)):
        levels = watches[name].oriented_levels(k)
        known, rest = values[apart, i], values[ranked, i]
        count = int(np.count_nonzero(~np.isnan(rest)))
        bets.append(choose_bets(known[~np.isnan(known)], ranked=count, levels=levels))
    return Monitor(setting, values[ranked], bets, watches)
