"""Many streams at once: p-values, alarm times and run lengths by vectorised simulation."""

from collections.abc import Sequence

import numpy as np
from scipy.stats import chi2, norm

from tkmia_utils.monitor.conformal import Array, Counts, Mask, Places
from tkmia_utils.monitor.evidence import Bets


def alarm_times(p: Array, bets: Bets, threshold: float, *, seen: Mask | None = None) -> Array:
    """When the e-detector reaches its threshold, stream by stream.

    Parameters
    ----------
    p : numpy.ndarray
        float64 ``(S, T)``.
    bets : Bets
        As chosen for the watch.
    threshold : float
        See :func:`tkmia_utils.monitor.evidence.thresholds`.
    seen : numpy.ndarray, optional
        Bool ``(S, T)``: False where the watch does not see the image, e = 1.

    Returns
    -------
    numpy.ndarray
        float64 ``(S,)``: number of images until the alarm; inf where none came in T images.
    """
    return grouped_alarm_times(p, [bets], threshold, group=len(p), seen=seen, first=0)


def grouped_alarm_times(
    p: Array,
    bets: Sequence[Bets],
    threshold: float,
    *,
    group: int,
    seen: Mask | None = None,
    first: int = 0,
) -> Array:
    """Alarm times where each `group` of streams has bets of its own, of equal weights.

    Parameters
    ----------
    p, threshold, seen
        As for :func:`alarm_times`.
    bets : sequence of Bets
        One a group.
    group : int
        Streams that share their bets.
    first : int
        An alarm among the first images does not count, and the stream begins anew after it
        (R = 0): for delays after a change at `first`.

    Returns
    -------
    numpy.ndarray
        float64 ``(S,)``, counted from the first image; inf where none came.
    """
    width = max(b.heights.shape[1] for b in bets)
    payoff = np.ones((len(bets), width, len(bets[0].weights)))
    cells = np.empty(p.shape[::-1], dtype=np.int64)
    for i, b in enumerate(bets):
        payoff[i, : b.heights.shape[1]] = b.heights.T
        mine = slice(i * group, (i + 1) * group)
        cells[:, mine] = b.cells(p[mine]).T + i * width
    payoff = payoff.reshape(-1, payoff.shape[2])
    times, alive = np.full(len(p), np.inf), np.arange(len(p))
    statistic = np.zeros((len(p), payoff.shape[1]))
    for t, row in enumerate(cells):
        statistic += 1
        e = payoff[row[alive]]
        if seen is not None:
            e[~seen[alive, t]] = 1
        statistic *= e
        rung = statistic @ bets[0].weights >= threshold
        if rung.any():
            if t < first:
                statistic[rung] = 0
            else:
                times[alive[rung]] = t + 1
                alive, statistic = alive[~rung], statistic[~rung]
                if not len(alive):
                    break
    return times


def null_times(
    bets: Bets, threshold: float, *, streams: int, length: int, rng: np.random.Generator
) -> Array:
    """Alarm times on exchangeable streams, by drawing what their p-values are: uniform.

    Exact for any watch, any calibration and any distribution of its values, by the theorem in
    :mod:`tkmia_utils.monitor.conformal`. Memory is that of 2,000 images at a time.

    Returns
    -------
    numpy.ndarray
        float64 ``(streams,)``, inf where no alarm came within `length` images.
    """
    times, alive = np.full(streams, np.inf), np.arange(streams)
    statistic = np.zeros((streams, len(bets.weights)))
    payoff = bets.heights.T.copy()
    for start in range(0, length, 2000):
        part = min(2000, length - start)
        cells = bets.cells(rng.random((part, len(alive))))
        local = np.arange(len(alive))
        for t in range(part):
            statistic += 1
            statistic *= payoff[cells[t, local]]
            rung = statistic @ bets.weights >= threshold
            if rung.any():
                times[alive[local[rung]]] = start + t + 1
                local, statistic = local[~rung], statistic[~rung]
        alive = alive[local]
        if not len(alive):
            break
    return times


def stream_p_values(calibration: Array, stream: Array, rng: np.random.Generator) -> Array:
    """P-values of every stream against its own calibration and its own past.

    Parameters
    ----------
    calibration : numpy.ndarray
        float64 ``(S, n)``, low is suspicious; NaN where the watch does not see the image.
    stream : numpy.ndarray
        float64 ``(S, T)``, the same.
    rng : numpy.random.Generator
        For the ties.

    Returns
    -------
    numpy.ndarray
        float64 ``(S, T)``; without meaning where `stream` is NaN.
    """
    both = np.concatenate([calibration, stream], axis=1)
    counts, level, n = ~np.isnan(both), _levels(both), calibration.shape[1]
    parts = (level[:, :n], counts[:, :n], level[:, n:], counts[:, n:])
    u = rng.random((stream.shape[1], len(stream))).T
    return level_p_values(*parts, u, levels=int(level.max(initial=0)) + 1)


def level_p_values(
    calibration: Counts,
    calibration_seen: Mask,
    stream: Counts,
    seen: Mask,
    u: Array,
    *,
    levels: int,
) -> Array:
    """:func:`stream_p_values` of values that are numbered already.

    Parameters
    ----------
    calibration, stream : numpy.ndarray
        int64 ``(S, n)`` and ``(S, T)``: place of each value among all that occur, from 0 up.
    calibration_seen, seen : numpy.ndarray
        Bool, the same shapes: False where the watch does not see the image.
    u : numpy.ndarray
        float64 ``(S, T)`` in [0, 1), for the ties.
    levels : int
        How many places there are.

    Returns
    -------
    numpy.ndarray
        float64 ``(S, T)``; without meaning where the image is not seen.
    """
    places = Places(calibration, calibration_seen, levels=levels)
    found = np.empty(u.T.shape)
    for t, step in enumerate(zip(stream.T, seen.T, u.T, strict=True)):
        found[t] = places.p_values(*step)
    return found.T


def _levels(values: Array) -> Counts:
    """Number the different values of each row from 0, ascending; NaN come last."""
    order = np.argsort(values, axis=1)
    ordered = np.take_along_axis(values, order, axis=1)
    new = np.zeros(values.shape, dtype=np.int64)
    new[:, 1:] = ordered[:, 1:] > ordered[:, :-1]
    level = np.empty_like(new)
    np.put_along_axis(level, order, new.cumsum(1), axis=1)
    return level


def run_length(times: Array, length: int, *, confidence: float = 0.95) -> dict[str, float]:
    """Mean run length of streams that were watched for `length` images.

    Two estimates, since a stream without an alarm says only that its run was longer:

    - *bounded*, valid always: the mean of min(run, length), which is at most the mean run length;
      its interval is the normal one over streams. It can never exceed `length`;
    - *rate*: all images watched over the number of alarms, valid if alarms come at a constant rate
      (R forgets its beginning within a small part of the run), with the exact Poisson interval.
      In the first images R is still small: a horizon much below the run length flatters it.

    Parameters
    ----------
    times : numpy.ndarray
        float64 ``(S,)``, inf where no alarm came.
    length : int
        Horizon, the same for all streams.
    confidence : float
        Of the two-sided intervals.

    Returns
    -------
    dict of str to float
        ``streams, alarms, bounded, bounded low, bounded high, rate, rate low, rate high``.
    """
    watched, tail = np.minimum(times, length), (1 - confidence) / 2
    alarms, total, mean = int(np.isfinite(times).sum()), float(watched.sum()), float(watched.mean())
    error = float(norm.ppf(1 - tail) * watched.std(ddof=1) / np.sqrt(len(times)))
    most = float(chi2.ppf(1 - tail, 2 * (alarms + 1)) / 2)
    least = float(chi2.ppf(tail, 2 * alarms) / 2) if alarms else 0.0
    return {
        "streams": len(times),
        "alarms": alarms,
        "bounded": mean,
        "bounded low": mean - error,
        "bounded high": mean + error,
        "rate": total / alarms if alarms else np.inf,
        "rate low": total / most,
        "rate high": total / least if alarms else np.inf,
    }
