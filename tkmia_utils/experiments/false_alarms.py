"""How often a watch rings where nothing, or nothing bad, has happened."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from tkmia_utils.experiments.watching import Scene, drawn_for, first_alarms
from tkmia_utils.monitor.baselines import (
    cusum_times,
    gaussian_threshold,
    oracle_increments,
    plug_in_increments,
    shewhart_times,
)
from tkmia_utils.monitor.conformal import Array
from tkmia_utils.monitor.simulation import CLEAN, Plan, Streams, doubled
from tkmia_utils.monitor.streams import run_length
from tkmia_utils.monitor.watches import WATCHES

ORACLE_STREAMS = 200  # clean streams on which the oracle's threshold is set


def run_lengths(
    scene: Scene, watches: Sequence[str], plan: Plan, *, arl: float, seed: int, charted: int = 200
) -> pd.DataFrame:
    """Measure run lengths on clean streams, of the monitor and of two charts in common use.

    Parameters
    ----------
    scene : Scene
        Its clean pool is used.
    watches : sequence of str
        Each as a monitor of its own.
    plan : Plan
        Of the streams. They are clean from the first image on and share nothing: its `share`,
        `clean` and `group` do not count.
    arl : float
        Nominal run length.
    seed : int
        Of the streams.
    charted : int
        Streams on which the charts are looked at.

    Returns
    -------
    pandas.DataFrame
        ``watch, chart, nominal`` and the columns of
        :func:`tkmia_utils.monitor.streams.run_length`. The charts are left out for watches that
        do not see every image, and for those of several classes.
    """
    # a group of its own for every stream: the intervals are over independent streams
    streams = drawn_for(scene, replace(plan, share=0.0, clean=0, group=1), seed=seed)
    few = slice(0, charted)
    calibration = np.concatenate([streams.apart, streams.before], axis=1)[few]
    lines = []

    def note(watch: str, chart: str, times: Array) -> None:
        about = {"watch": watch, "chart": chart, "nominal": arl}
        lines.append(about | run_length(times, plan.length))

    for name in watches:
        times = first_alarms(scene, [name], streams, [arl], seed=seed)[0]
        note(name, "e-detector", times)
        values = scene.clean.values(name, scene.cell.k, scene.members)
        if values.shape[1] > 1 or np.isnan(values).any():
            continue
        before, now = values[calibration, 0], values[streams.stream[few], 0]
        steps = plug_in_increments(now, before)
        note(name, "CUSUM, plug-in", cusum_times(steps, gaussian_threshold(arl)))
        note(name, "Shewhart, plug-in", shewhart_times(now, before, arl=arl))
    return pd.DataFrame(lines)


def oracle_delays(scene: Scene, streams: Streams, *, arl: float, seed: int) -> Array:
    """Delays of a CUSUM on recall that is told all: both rates, and the law of the clean images.

    Parameters
    ----------
    scene : Scene
        With one class in `members`.
    streams : Streams
        Drawn from its pools.
    arl : float
        Its threshold is the least one whose mean run length, simulated, is that.
    seed : int
        Of that simulation.

    Returns
    -------
    numpy.ndarray
        float64 ``(S,)``, from the change; inf where no alarm came.

    Raises
    ------
    ValueError
        Not one class, or none of the clean images has it.
    """
    if len(scene.members) != 1:
        raise ValueError(f"scene: expected one class in members, got {len(scene.members)}")
    clean, attacked = (
        s.values("recall", scene.cell.k, scene.members)[:, 0] for s in (scene.clean, scene.attacked)
    )
    now = np.where(streams.attack == CLEAN, clean[streams.stream], attacked[streams.attack])
    first = streams.plan.clean
    # a rate of exactly 0 or 1 would make one clean image proof
    known = np.count_nonzero(~np.isnan(clean))
    if not known:
        raise ValueError("scene: no clean image has the class")
    rate = float(np.clip(np.nanmean(clean), 0.5 / known, 1 - 0.5 / known))
    rates = {"clean": rate, "attacked": min(float(np.nanmean(now[:, first:])), rate)}
    rng = np.random.Generator(np.random.Philox(key=seed + 2**67))  # not that of the streams
    null = clean[rng.integers(len(clean), size=(ORACLE_STREAMS, int(4 * arl)))]
    # a weak change moves it little at a time: then a threshold below 1 can do
    grid = np.concatenate([np.geomspace(0.01, 1, 50), np.linspace(1, np.log(arl) + 2, 200)])
    lengths = _mean_runs(oracle_increments(null, **rates), grid)
    threshold = float(grid[int((lengths >= arl).argmax())])
    return cusum_times(oracle_increments(now, **rates), threshold, first=first) - first


def _mean_runs(increments: Array, thresholds: Array) -> Array:
    """Mean run length of a CUSUM at every threshold, from one look at the streams."""
    streams, length = increments.shape
    passed = np.full((streams, len(thresholds)), float(length))
    alarms = np.zeros((streams, len(thresholds)), dtype=bool)
    w, best = np.zeros(streams), np.zeros(streams)
    for t, step in enumerate(increments.T):
        w = np.maximum(0.0, w + step)
        new = np.flatnonzero(w > best)
        if len(new):
            best[new] = w[new]
            first = (w[new, None] >= thresholds) & ~alarms[new]
            passed[new] = np.where(first, t + 1, passed[new])
            alarms[new] |= first
    rang = alarms.sum(0)
    return np.where(rang > 0, passed.sum(0) / np.maximum(rang, 1), np.inf)


def benign_changes(
    scene: Scene,
    monitors: Mapping[str, Sequence[str]],
    plan: Plan,
    *,
    after: Array,
    arl: float,
    within: int,
    seed: int,
) -> pd.DataFrame:
    """Share of streams with an alarm where no image is attacked.

    Parameters
    ----------
    scene : Scene
        Its clean pool is used.
    monitors : mapping of str to sequence of str
        By name, the watches of each.
    plan : Plan
        Of the streams; its share does not count.
    after : numpy.ndarray
        float64 ``(N,)``: how often each image comes after the change, for drift.
    arl : float
        Nominal run length.
    within : int
        Images after the change in which alarms are counted.
    seed : int
        Of the streams.

    Returns
    -------
    pandas.DataFrame
        ``watch`` and a share a column: ``nothing`` changed; images came ``twice``, one right after
        the other; the second of two was ``dropped``; ``drift``.
    """
    clean = replace(plan, share=0.0)
    usual = drawn_for(scene, clean, seed=seed)
    shorter = replace(clean, length=plan.clean + -(-(plan.length - plan.clean) // 2))
    cases = {
        "nothing": (usual, within),
        "twice": (doubled(usual), within),
        "dropped": (drawn_for(scene, shorter, seed=seed), within // 2),
        "drift": (drawn_for(scene, clean, seed=seed, after=after), within),
    }
    lines = []
    for name, watches in monitors.items():
        line: dict[str, object] = {"watch": name}
        for case, (streams, images) in cases.items():
            times = first_alarms(scene, watches, streams, [arl], seed=seed)[0]
            line[case] = float((times <= images).mean())
        lines.append(line)
    return pd.DataFrame(lines)


def named(watches: Sequence[str]) -> dict[str, list[str]]:
    """A monitor for every watch alone."""
    unknown = [name for name in watches if name not in WATCHES]
    if unknown:
        raise ValueError(f"watches: expected some of {list(WATCHES)}, got {unknown[0]!r}")
    return {name: [name] for name in watches}
