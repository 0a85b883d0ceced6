"""Streams drawn from pools of images: how long until a watch rings, attacked or not.

A pool is a finite set of images, and a stream is longer. Images that come again break the
exchangeability with *other* images that calibrate. So calibration and stream are drawn alike, with
replacement from the same pool: then they are independent draws from one distribution (that of the
pool), exchangeable, and ties are what the smoothing is for. What such a simulation shows holds for
the pool. Each group of streams can draw its own pool from the images first (``resample``): the
spread over groups is then that over images as well.

All watches of a comparison are to look at the same :class:`Streams`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from tkmia_utils.monitor.conformal import Array, Counts, Mask, uniforms
from tkmia_utils.monitor.evidence import choose_bets, split
from tkmia_utils.monitor.streams import grouped_alarm_times, level_p_values

CLEAN = -1  # in `Streams.attack`: the image came as it is
AT_ONCE = 2**22  # p-values held at a time; of no influence on any result


@dataclass(frozen=True)
class Plan:
    """What is simulated.

    Attributes
    ----------
    calibration : int
        Images that calibrate, those for the bets included.
    clean : int
        Images of the stream before the change.
    length : int
        Images of the stream in all.
    share : float
        Share of attacked images, of those that can be attacked, after the change.
    ramp : int
        Images after the change over which the share grows from 0; 0: at once.
    streams : int
        How many streams.
    group : int
        Streams that share one choice of bets (and one pool): 1,000 streams have 40 of them. Their
        calibrations are their own.
    resample : bool
        Draw the pool of each group anew, with replacement.
    """

    calibration: int = 500
    clean: int = 1000
    length: int = 10_000
    share: float = 0.0
    ramp: int = 0
    streams: int = 1000
    group: int = 25
    resample: bool = False


@dataclass(frozen=True)
class Streams:
    """Which images calibrate and which come, as positions in the pools.

    Attributes
    ----------
    plan : Plan
        How they were drawn.
    apart : numpy.ndarray
        int64 ``(G, a)``: images that choose the bets of each group.
    before : numpy.ndarray
        int64 ``(S, n)``: images that are ranked against.
    stream : numpy.ndarray
        int64 ``(S, T)``: images of the stream.
    attack : numpy.ndarray
        int64 ``(S, T)``: position in the attacked pool of the image that comes instead, or -1.
    """

    plan: Plan
    apart: Counts
    before: Counts
    stream: Counts
    attack: Counts


def draw_streams(
    plan: Plan,
    *,
    images: int,
    attacked: int = 0,
    attackable: Mask | None = None,
    after: Array | None = None,
    seed: int = 0,
) -> Streams:
    """Draw streams.

    Parameters
    ----------
    plan : Plan
        Sizes.
    images, attacked : int
        Images in the clean and in the attacked pool.
    attackable : numpy.ndarray, optional
        Bool ``(images,)``: which can be attacked; default all.
    after : numpy.ndarray, optional
        float64 ``(images,)``: how often an image comes after the change, relative to the others:
        for drift. Default all alike.
    seed : int
        Of all that is drawn.

    Returns
    -------
    Streams

    Raises
    ------
    ValueError
        No images, or a share above 0 without attacked ones.
    """
    if images < 1 or (plan.share > 0 and attacked < 1):
        raise ValueError(f"images, attacked: expected some, got {images} and {attacked}")
    rng = np.random.Generator(np.random.Philox(key=seed))
    apart, ranked = split(plan.calibration, seed)
    groups = -(-plan.streams // plan.group)
    parts: dict[str, list[Counts]] = {"apart": [], "before": [], "stream": [], "attack": []}
    rise = np.clip((np.arange(plan.length) - plan.clean + 1) / max(plan.ramp, 1), 0, 1)
    for g in range(groups):
        many = min(plan.group, plan.streams - g * plan.group)
        pool = rng.integers(images, size=images) if plan.resample else np.arange(images)
        made = rng.integers(attacked, size=attacked) if plan.resample else np.arange(attacked)
        parts["apart"].append(rng.choice(pool, (1, len(apart))))
        parts["before"].append(rng.choice(pool, (many, len(ranked))))
        stream = rng.choice(pool, (many, plan.length))
        if after is not None:
            chance = after[pool] / after[pool].sum()
            stream[:, plan.clean :] = rng.choice(pool, (many, plan.length - plan.clean), p=chance)
        attack = np.full(stream.shape, CLEAN)
        if plan.share > 0:
            hit = rng.random(stream.shape) < plan.share * rise
            hit &= True if attackable is None else attackable[stream]
            attack[hit] = rng.choice(made, int(hit.sum()))
        parts["stream"].append(stream)
        parts["attack"].append(attack)
    return Streams(plan, **{name: np.concatenate(part) for name, part in parts.items()})


def doubled(streams: Streams) -> Streams:
    """The same streams in which every image comes twice, one right after the other."""
    half = -(-streams.stream.shape[1] // 2)

    def twice(values: Counts) -> Counts:
        return np.repeat(values[:, :half], 2, axis=1)[:, : values.shape[1]]

    return replace(streams, stream=twice(streams.stream), attack=twice(streams.attack))


def detection_times(
    clean: Array,
    attacked: Array | None,
    streams: Streams,
    limits: Sequence[float],
    *,
    seed: int,
    levels: tuple[float, ...] | None = None,
    labelled: Mask | None = None,
) -> Array:
    """When a detector on one value an image reaches each of some thresholds.

    Parameters
    ----------
    clean : numpy.ndarray
        float64 ``(images,)``, low is suspicious; NaN where the watch does not see the image.
    attacked : numpy.ndarray, optional
        The same of the attacked pool.
    streams : Streams
        Which images come.
    limits : sequence of float
        Thresholds of the e-detector.
    seed : int
        Of ties.
    levels : tuple of float, optional
        All values the watch can take, if they are few.
    labelled : numpy.ndarray, optional
        Bool ``(S, T)``: images of the streams that the watch may see, for instance those of
        :func:`with_labels`; default all.

    Returns
    -------
    numpy.ndarray
        float64 ``(len(limits), S)``: images until the alarm, counted from the change
        (``plan.clean``); inf where none came.
    """
    plan = streams.plan
    pool = clean if attacked is None else np.concatenate([clean, attacked])
    known = ~np.isnan(pool)
    found, level = np.unique(np.where(known, pool, np.inf), return_inverse=True)
    level = level.reshape(pool.shape)
    ranked = round(streams.before.shape[1] * float(known[: len(clean)].mean()))
    bets = [
        choose_bets(pool[apart][known[apart]], ranked=ranked, levels=levels)
        for apart in streams.apart
    ]
    times = np.empty((len(limits), plan.streams))
    # whole groups, as many as fit
    step = plan.group * max(1, AT_ONCE // (plan.group * (plan.length + len(found))))
    for start in range(0, plan.streams, step):
        rows = slice(start, min(start + step, plan.streams))
        before, now = streams.before[rows], streams.stream[rows]
        now = np.where(streams.attack[rows] == CLEAN, now, len(clean) + streams.attack[rows])
        seen = known[now] if labelled is None else known[now] & labelled[rows]
        # a stream's own numbers, whichever streams are looked at together
        u = uniforms(seed + 2**65, start, *now.shape)
        parts = (level[before], known[before], level[now], seen)
        p = level_p_values(*parts, u, levels=len(found))
        own = bets[start // plan.group : -(-rows.stop // plan.group)]
        for i, limit in enumerate(limits):
            times[i, rows] = grouped_alarm_times(
                p, own, limit, group=plan.group, first=plan.clean,
                seen=None if seen.all() else seen,
            )  # fmt: skip
    return times - plan.clean


def with_labels(plan: Plan, share: float, *, seed: int) -> Mask:
    """Which images have labels if a share of them is labelled by chance, bool ``(S, T)``."""
    return np.asarray(uniforms(seed + 2**66, 0, plan.streams, plan.length) < share)


def simulate(
    clean: Array,
    attacked: Array | None,
    threshold: float,
    plan: Plan,
    *,
    seed: int,
    levels: tuple[float, ...] | None = None,
) -> Array:
    """Alarm times of one watch on streams of its own.

    Parameters
    ----------
    clean, attacked, seed, levels
        As for :func:`detection_times`; any image can be attacked.
    threshold : float
        Of the e-detector.
    plan : Plan
        Sizes.

    Returns
    -------
    numpy.ndarray
        float64 ``(S,)``, counted from the change; inf where none came.
    """
    many = 0 if attacked is None else len(attacked)
    streams = draw_streams(plan, images=len(clean), attacked=many, seed=seed)
    times = detection_times(clean, attacked, streams, [threshold], seed=seed, levels=levels)
    return np.asarray(times[0])
