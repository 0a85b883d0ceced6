"""The owner against the attacker: what each watch sees of each attack, and how soon it rings."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import torch
from torch import nn

from tkmia_utils.data import MultiLabelDataset
from tkmia_utils.experiments.intervals import resampled
from tkmia_utils.experiments.protocol import Cell, Queue
from tkmia_utils.monitor.conformal import Array, Mask
from tkmia_utils.monitor.evidence import thresholds
from tkmia_utils.monitor.simulation import (
    CLEAN,
    Plan,
    Streams,
    detection_times,
    draw_streams,
    with_labels,
)
from tkmia_utils.monitor.watches import WATCHES
from tkmia_utils.victims.prediction import logits_of


@dataclass(frozen=True)
class Sight:
    """What an owner has of N images.

    Attributes
    ----------
    scores, second : torch.Tensor
        float32 ``(N, C)``: the victim's logits, and those of the second look.
    labels : torch.Tensor
        Bool ``(N, C)``.
    """

    scores: torch.Tensor
    second: torch.Tensor
    labels: torch.Tensor

    def __len__(self) -> int:
        """How many images."""
        return len(self.scores)

    def rows(self, at: torch.Tensor) -> "Sight":
        """Some of the images."""
        return Sight(self.scores[at], self.second[at], self.labels[at])

    def joined(self, other: "Sight") -> "Sight":
        """These images, and then those."""
        pairs = ((value, getattr(other, name)) for name, value in vars(self).items())
        return Sight(*(torch.cat(pair) for pair in pairs))

    def values(self, name: str, k: int, members: Sequence[int]) -> Array:
        """Values of a watch, float64 ``(N, D)``, low is suspicious, NaN is not seen.

        D is 1, or the number of classes in `members` for a watch of single classes.
        """
        watch = WATCHES[name]
        beside = {"labels": self.labels, "second": self.second}.get(watch.needs)
        found = watch.oriented(self.scores, beside, k)
        return (found[:, list(members)] if watch.per_class else found[:, None]).numpy()


def look(model: nn.Module, second: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> Sight:
    """Look at images ``(N, 3, H, W)`` in [0, 1] as their owner does, and once more."""
    return Sight(logits_of(model, images), logits_of(second, images), labels)


def look_at_all(
    model: nn.Module, second: nn.Module, data: MultiLabelDataset, *, batch: int = 250
) -> Sight:
    """:func:`look` at every image of a data set, some at a time."""
    parts = torch.arange(len(data)).split(batch)
    seen = [look(model, second, data.images(at), data.labels[at]) for at in parts]
    scores, others = (torch.cat([getattr(s, n) for s in seen]) for n in ("scores", "second"))
    return Sight(scores, others, data.labels)


@dataclass(frozen=True)
class Scene:
    """One attack in one cell, as the owner sees it: the pools that streams are drawn from.

    Attributes
    ----------
    cell : Cell
        k, and what is hidden.
    members : tuple of int
        Classes that watches of single classes look at.
    clean, attacked : Sight
        Of all N images, and of the attacked ones that succeeded.
    attackable : numpy.ndarray
        Bool ``(N,)``: which clean images the attacker would take.
    """

    cell: Cell
    members: tuple[int, ...]
    clean: Sight
    attacked: Sight
    attackable: Mask


def scenes(
    queue: Queue,
    clean: Sight,
    attacked: Sight,
    success: torch.Tensor,
    eligible: Mapping[Cell, torch.Tensor],
    members: Mapping[Cell, Sequence[int]],
) -> dict[Cell, Scene]:
    """Cut an attack on a queue into cells; a cell without a success has no scene.

    Parameters
    ----------
    queue : Queue
        R rows.
    clean, attacked : Sight
        Of all N images, and of the R attacked ones.
    success : torch.Tensor
        Bool ``(R,)``. A failed attack is not sent.
    eligible : mapping of Cell to torch.Tensor
        Bool ``(N,)``.
    members : mapping of Cell to sequence of int
        See :class:`Scene`.

    Returns
    -------
    dict of Cell to Scene
    """
    found = {}
    for cell in dict.fromkeys(queue.cells):
        mine = torch.tensor([c == cell for c in queue.cells]) & success
        if mine.any():
            attackable = eligible[cell].numpy()
            found[cell] = Scene(cell, tuple(members[cell]), clean, attacked.rows(mine), attackable)
    return found


def drawn_for(scene: Scene, plan: Plan, *, seed: int, after: Array | None = None) -> Streams:
    """Streams from the pools of a scene; `after` as for :func:`.draw_streams`."""
    return draw_streams(
        plan, images=len(scene.clean), attacked=len(scene.attacked),
        attackable=scene.attackable, after=after, seed=seed,
    )  # fmt: skip


def first_alarms(
    scene: Scene,
    watches: Sequence[str],
    streams: Streams,
    arls: Sequence[float],
    *,
    seed: int,
    labelled: float = 1.0,
) -> Array:
    """When the first of some watches rings, at several nominal run lengths.

    Parameters
    ----------
    scene : Scene
        Pools.
    watches : sequence of str
        Keys of :data:`tkmia_utils.monitor.WATCHES`, in one monitor: they share its run length.
    streams : Streams
        Drawn from the scene's pools.
    arls : sequence of float
        Nominal run lengths.
    seed : int
        Of ties and labels.
    labelled : float
        Share of images of the stream with labels, the same images for all watches.

    Returns
    -------
    numpy.ndarray
        float64 ``(len(arls), S)``: images from the change to the alarm; inf where none came.
    """
    k, detectors = scene.cell.k, []
    for name in watches:
        pair = (s.values(name, k, scene.members) for s in (scene.clean, scene.attacked))
        clean, attacked = pair
        width = clean.shape[1]
        share = 1 / (len(watches) * width)
        detectors += [(name, share, clean[:, d], attacked[:, d]) for d in range(width)]
    shares = [share for _, share, _, _ in detectors]
    limits = np.stack([thresholds(arl, shares) for arl in arls])
    few = None if labelled >= 1 else with_labels(streams.plan, labelled, seed=seed)
    first = np.full((len(arls), streams.plan.streams), np.inf)
    for i, (name, _, clean, attacked) in enumerate(detectors):
        times = detection_times(
            clean, attacked, streams, limits[:, i].tolist(), seed=seed + i,
            levels=WATCHES[name].oriented_levels(k),
            labelled=few if WATCHES[name].needs == "labels" else None,
        )  # fmt: skip
        first = np.minimum(first, times)
    return first


def side_by_side(parts: Sequence[tuple[Scene, Streams]]) -> tuple[Scene, Streams]:
    """Streams of several attacks on the same clean images as one scene, to be simulated at once.

    The streams come in the order of the parts. Those of the first ring exactly when they would
    alone; the others get other numbers for their ties, so that only the distribution is the same.

    Raises
    ------
    ValueError
        Plans that differ in more than the share, or scenes of different cells.
    """
    scene, plan = parts[0][0], replace(parts[0][1].plan, share=0.0)
    for other, streams in parts:
        alike = replace(streams.plan, share=0.0) == plan, len(other.clean) == len(scene.clean)
        if not all(alike) or (other.cell, other.members) != (scene.cell, scene.members):
            raise ValueError("parts: expected one cell, and plans that differ in their share alone")
    # where the last group of a part is smaller, all are cut into equal ones
    group = math.gcd(plan.group, plan.streams)
    owner = np.arange(0, plan.streams, group) // plan.group
    attack, pool = [], 0
    for other, streams in parts:
        attack.append(np.where(streams.attack == CLEAN, CLEAN, streams.attack + pool))
        pool += len(other.attacked)
    every = [other.attacked for other, _ in parts]
    attacked = Sight(*(torch.cat([getattr(s, n) for s in every]) for n in vars(every[0])))
    joined = Streams(
        replace(parts[0][1].plan, streams=len(parts) * plan.streams, group=group),
        apart=np.concatenate([streams.apart[owner] for _, streams in parts]),
        before=np.concatenate([streams.before for _, streams in parts]),
        stream=np.concatenate([streams.stream for _, streams in parts]),
        attack=np.concatenate(attack),
    )
    return replace(scene, attacked=attacked), joined


def summary(
    times: Array, *, within: int, horizon: int, group: int, resamples: int = 1000, seed: int = 0
) -> dict[str, float]:
    """Power and delay of alarm times, with 95 % bootstrap intervals over groups of streams.

    Parameters
    ----------
    times : numpy.ndarray
        float64 ``(S,)`` from the change; inf where no alarm came.
    within : int
        Power is the share of streams with an alarm within so many images.
    horizon : int
        Images after the change that were looked at: a median beyond it is inf.
    group : int
        Streams of a group, which share a pool and stay together.
    resamples, seed : int
        Of the bootstrap.

    Returns
    -------
    dict of str to float
        ``power, power low, power high, delay, delay low, delay high``; delay is the median (the
        lower of the two middle ones), inf if fewer than half of the streams rang.
    """
    rang = times <= within
    groups = np.arange(len(times)) // group
    counts = resampled(int(groups[-1]) + 1, resamples, seed)[:, groups]
    spread = counts @ rang / counts.sum(1)
    ordered = np.sort(np.where(times <= horizon, times, np.inf))
    reached = np.cumsum(counts[:, np.argsort(times, kind="stable")], 1) * 2 >= counts.sum(
        1, keepdims=True
    )
    medians = np.sort(ordered[reached.argmax(1)])
    low, high = np.percentile(spread, [2.5, 97.5])
    ends = medians[[int(0.025 * resamples), int(0.975 * resamples)]]
    return {
        "power": float(rang.mean()), "power low": float(low), "power high": float(high),
        "delay": float(ordered[(len(times) - 1) // 2]),
        "delay low": float(ends[0]), "delay high": float(ends[1]),
    }  # fmt: skip


def detection_table(
    by_run: Mapping[str, Mapping[Cell, Scene]],
    monitors: Mapping[str, Sequence[str]],
    plan: Plan,
    *,
    shares: Sequence[float],
    arls: Sequence[float],
    within: int,
    seed: int,
) -> pd.DataFrame:
    """How soon every monitor rings, for every attack, cell and share of attacked images.

    Parameters
    ----------
    by_run : mapping of str to mapping of Cell to Scene
        By attack.
    monitors : mapping of str to sequence of str
        By name, the watches of each.
    plan : Plan
        Of the streams of one attack, cell and share.
    shares : sequence of float
        See :class:`tkmia_utils.monitor.simulation.Plan`.
    arls : sequence of float
        Nominal run lengths.
    within : int
        See :func:`summary`.
    seed : int
        Of the streams: all monitors see the same ones.

    Returns
    -------
    pandas.DataFrame
        ``cell, k, run, images`` (attacked ones in the pool), ``share, watch, arl`` and the columns
        of :func:`summary`.
    """
    lines = []
    horizon = plan.length - plan.clean
    for cell in dict.fromkeys(cell for found in by_run.values() for cell in found):
        about, parts = [], []
        for run, found in by_run.items():
            if cell not in found:
                continue
            for share in shares:
                part = replace(plan, share=share)
                parts.append((found[cell], drawn_for(found[cell], part, seed=seed)))
                about.append({"cell": cell.name, "k": cell.k, "run": run, "share": share,
                              "images": len(found[cell].attacked)})  # fmt: skip
        scene, streams = side_by_side(parts)
        for name, watches in monitors.items():
            times = first_alarms(scene, watches, streams, arls, seed=seed)
            for arl, row in zip(arls, times, strict=True):
                for line, own in zip(about, row.reshape(len(about), -1), strict=True):
                    told = summary(own, within=within, horizon=horizon, group=plan.group)
                    lines.append(line | {"watch": name, "arl": arl} | told)
    return pd.DataFrame(lines)


def delays_written(table: pd.DataFrame, *, horizon: int) -> list[str]:
    """Median delays with their intervals as text; "> horizon" where there is no median."""

    def text(value: float) -> str:
        return f"{value:.0f}" if np.isfinite(value) else f"> {horizon}"

    columns = table[["delay", "delay low", "delay high"]].to_numpy(float)
    return [f"{text(m)} [{text(low)}, {text(high)}]" for m, low, high in columns]
