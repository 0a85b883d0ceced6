"""Means, medians and shares over images, with 95 % bootstrap intervals."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pandas as pd

Statistic = Callable[[np.ndarray], float]


def resampled(n: int, resamples: int, seed: int) -> np.ndarray:
    """How often each of n images is drawn in each resample, int64 ``(resamples, n)``."""
    return np.random.default_rng([seed, n]).multinomial(n, np.full(n, 1 / n), size=resamples)


def interval(
    values: Sequence[float] | np.ndarray,
    images: Sequence[str] | np.ndarray,
    *,
    statistic: Statistic = np.mean,
    resamples: int = 2000,
    seed: int = 0,
) -> tuple[float, float, float]:
    """A statistic and its 95 % percentile interval; the rows of one image are drawn together.

    Parameters
    ----------
    values : sequence of float
        One a row; NaN is left out.
    images : sequence of str
        Whose row it is.
    statistic : callable
        From an array to a number.
    resamples, seed : int
        Of the bootstrap.

    Returns
    -------
    value, low, high : float
        NaN without any value.
    """
    value = np.asarray(values, dtype=float)
    kept = ~np.isnan(value)
    if not kept.any():
        return np.nan, np.nan, np.nan
    value = value[kept]
    names, owner = np.unique(np.asarray(images, dtype=str)[kept], return_inverse=True)
    drawn = resampled(len(names), resamples, seed)
    if statistic is np.mean:  # the same as below, in one product
        counts = drawn[:, owner]
        spread = counts @ value / counts.sum(1)
    else:
        spread = np.array([statistic(np.repeat(value, count[owner])) for count in drawn])
    low, high = np.percentile(spread, [2.5, 97.5])
    return float(statistic(value)), float(low), float(high)


def summarise(
    rows: pd.DataFrame,
    by: Sequence[str],
    quantities: Mapping[str, Statistic],
    *,
    resamples: int = 2000,
    seed: int = 0,
) -> pd.DataFrame:
    """Statistics of every group of rows, each with its interval.

    Parameters
    ----------
    rows : pandas.DataFrame
        One row an image (column ``image``) and run.
    by : sequence of str
        Columns that name the group.
    quantities : mapping of str to callable
        Column to its statistic, for instance ``{"success": np.mean, "l2_paper": np.median}``.
    resamples, seed : int
        As for :func:`interval`.

    Returns
    -------
    pandas.DataFrame
        The columns of `by`, ``n`` rows, and ``q``, ``q low``, ``q high`` for every quantity; the
        groups in the order in which they first appear. Without rows it has none either.
    """
    lines = []
    for key, part in rows.groupby(list(by), sort=False, observed=True):
        line = dict(zip(by, key, strict=True)) | {"n": len(part)}
        for name, statistic in quantities.items():
            drawn = {"statistic": statistic, "resamples": resamples, "seed": seed}
            ends = interval(part[name].to_numpy(dtype=float), part["image"], **drawn)
            line |= dict(zip((name, f"{name} low", f"{name} high"), ends, strict=True))
        lines.append(line)
    ends = [f"{name}{end}" for name in quantities for end in ("", " low", " high")]
    return pd.DataFrame(lines, columns=[*by, "n", *ends])


def written(table: pd.DataFrame, *, digits: int = 2, intervals: bool = True) -> pd.DataFrame:
    """Write a :func:`summarise` for reading: "0.78 [0.70, 0.85]" in one column, "–" for NaN."""
    ends = {f"{name}{end}" for name in table for end in (" low", " high")}

    def text(name: str) -> list[str]:
        words = []
        for value, low, high in table[[name, f"{name} low", f"{name} high"]].to_numpy(float):
            brackets = f" [{low:.{digits}f}, {high:.{digits}f}]" if intervals else ""
            words.append("–" if np.isnan(value) else f"{value:.{digits}f}{brackets}")
        return words

    columns = [name for name in table if name not in ends]
    return pd.DataFrame(
        {name: text(name) if f"{name} low" in table else table[name] for name in columns}
    )
