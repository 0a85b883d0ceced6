"""Charts to compare with. None has a guarantee here; their thresholds are for known distributions.

:func:`oracle_increments` gives CUSUM what nobody has: the rates of a binary watch before and after
the change. The others are what a practitioner does: mean and deviation of the calibration stand in
for the true ones, and textbook formulas for Gaussian values set the threshold. (ADWIN is left out:
its parameter is the error of a single comparison and no run length, and the one implementation in
use would be a dependency for a single line of a table.)
"""

import numpy as np
from scipy.optimize import brentq
from scipy.stats import norm

from tkmia_utils.monitor.conformal import Array


def oracle_increments(values: Array, *, clean: float, attacked: float) -> Array:
    """Log likelihood ratios of a binary watch: rate of ones `attacked` against rate `clean`.

    Parameters
    ----------
    values : numpy.ndarray
        0 or 1, or NaN where the watch does not see the image; any shape.
    clean, attacked : float
        Rates of ones in (0, 1) before, in [0, 1] after the change.

    Returns
    -------
    numpy.ndarray
        float64, the shape of `values`; -inf where the change is impossible.

    Raises
    ------
    ValueError
        A rate is out of range.
    """
    if not 0 < clean < 1 or not 0 <= attacked <= 1:
        raise ValueError(f"rates: expected 0 < clean < 1, 0 <= attacked <= 1: {clean}, {attacked}")
    with np.errstate(divide="ignore"):
        one, zero = np.log(attacked / clean), np.log((1 - attacked) / (1 - clean))
    return np.asarray(np.where(np.isnan(values), 0.0, np.where(values > 0.5, one, zero)))


def plug_in_increments(values: Array, calibration: Array, *, shift: float = 0.5) -> Array:
    """Increments of the Gaussian CUSUM for a fall of `shift` standard deviations.

    Parameters
    ----------
    values : numpy.ndarray
        ``(S, T)``, low is suspicious, no NaN.
    calibration : numpy.ndarray
        ``(S, n)``: mean and deviation are taken from here.
    shift : float
        The fall that is looked for.

    Returns
    -------
    numpy.ndarray
        float64 ``(S, T)``, in standard deviations.
    """
    mean, deviation = calibration.mean(1, keepdims=True), calibration.std(1, ddof=1, keepdims=True)
    return np.asarray((mean - values) / np.maximum(deviation, 1e-12) - shift / 2)


def gaussian_threshold(arl: float, *, shift: float = 0.5) -> float:
    """Threshold of the Gaussian CUSUM for a nominal run length, by Siegmund's approximation.

    ``arl = (exp(2 k b) - 2 k b - 1) / (2 k^2)`` with ``k = shift / 2`` and ``b = h + 1.166``.
    """
    k = shift / 2

    def excess(b: float) -> float:
        return float((np.exp(2 * k * b) - 2 * k * b - 1) / (2 * k**2) - arl)

    return float(brentq(excess, 1e-6, 50 / k)) - 1.166


def cusum_times(increments: Array, threshold: float, *, first: int = 0) -> Array:
    """When ``W_t = max(0, W_{t-1} + increment)`` reaches the threshold.

    Parameters
    ----------
    increments : numpy.ndarray
        float64 ``(S, T)``.
    threshold : float
        h.
    first : int
        An alarm among the first images does not count; that stream begins anew.

    Returns
    -------
    numpy.ndarray
        float64 ``(S,)``: images until the alarm; inf where none came.
    """
    times, w = np.full(len(increments), np.inf), np.zeros(len(increments))
    for t, step in enumerate(increments.T):
        w = np.maximum(0.0, w + step)
        rung = w >= threshold
        if t < first:
            w[rung] = 0
        else:
            times[rung & np.isinf(times)] = t + 1
    return times


def shewhart_times(
    values: Array, calibration: Array, *, arl: float, window: int = 50, first: int = 0
) -> Array:
    """When the mean of a window of images falls below the plug-in limit.

    Windows do not overlap; the limit is ``mean - z deviation / sqrt(window)`` with z such that
    Gaussian means fall below it once in `arl` images.

    Parameters
    ----------
    values, calibration : numpy.ndarray
        ``(S, T)`` and ``(S, n)``, low is suspicious, no NaN.
    arl : float
        Nominal run length in images.
    window : int
        Images a window.
    first : int
        An alarm among the first images does not count.

    Returns
    -------
    numpy.ndarray
        float64 ``(S,)``: images until the alarm; inf where none came.
    """
    windows = values.shape[1] // window
    means = values[:, : windows * window].reshape(len(values), windows, window).mean(2)
    z = norm.isf(min(window / arl, 0.5))
    low = calibration.mean(1) - z * calibration.std(1, ddof=1) / np.sqrt(window)
    ends = window * np.arange(1, windows + 1)
    rung = (means < low[:, None]) & (ends > first)
    return np.asarray(np.where(rung.any(1), ends[rung.argmax(1)], np.inf))
