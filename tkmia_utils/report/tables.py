"""From one row an image to the paper's tables: means, bootstrap intervals, and which method leads.

Measures and Delta l are means over all n images of a cell, failures included. APer, in the paper's
[-1, 1] pixels and in [0, 1] pixels, and the iterations are means over the successes, as in the
released code (Eq. 13 divides by n, which is the same where everything succeeds). The last three are
shares of all n images: hidden and no measure fell; still hidden in the 8-bit file; both.
"""

import numpy as np
import pandas as pd

from tkmia_utils.engine.outcome import BOTH, SURVIVES, UNSEEN
from tkmia_utils.experiments.intervals import resampled
from tkmia_utils.measures import CHANGES

KEYS = ["scheme", "cell", "method"]
# column of the table -> column of the rows, and whether failures are left out
QUANTITIES = {
    "success": ("success", False),
    **{name.replace("AP@k", "mAP@k"): (name, False) for name in CHANGES},
    "Delta l": ("delta_l", False),
    "APer": ("l2_paper", True),
    "APer [0,1]": ("l2", True),
    "iterations": ("iterations", True),
    **{name: (name, False) for name in (UNSEEN, SURVIVES, BOTH)},
}


def _means(cell: pd.DataFrame, weights: np.ndarray) -> dict[str, np.ndarray]:
    """Every quantity under each row of weights ``(R, n)``; NaN where nothing is left."""
    won = cell["success"].to_numpy(dtype=float)
    means = {}
    with np.errstate(invalid="ignore"):
        for name, (column, successes) in QUANTITIES.items():
            if column not in cell:  # the files were not looked at
                continue
            value = cell[column].to_numpy(dtype=float)
            mass = (won if successes else 1.0) * ~np.isnan(value)
            means[name] = (weights @ (np.nan_to_num(value) * mass)) / (weights @ mass)
    return means


def summary(rows: pd.DataFrame, *, resamples: int = 2000, seed: int = 0) -> pd.DataFrame:
    """Average the images of every cell and method, with 95 % percentile bootstrap intervals.

    Parameters
    ----------
    rows : pandas.DataFrame
        From :func:`tkmia_utils.experiments.protocol.to_frame`, of any number of methods.
    resamples : int
        Bootstrap resamples of the images of a cell; rows of one image are drawn together.
    seed : int
        Of the resampling.

    Returns
    -------
    pandas.DataFrame
        Columns ``scheme, cell, method, n``, then every quantity q of the module's docstring that
        `rows` tell of, with ``q low`` and ``q high``.

    Raises
    ------
    ValueError
        `rows` is empty.
    """
    if rows.empty:
        raise ValueError("rows: no attacked image to average")
    lines = []
    for key, cell in rows.groupby(KEYS, sort=False):
        n = len(cell)
        mean = _means(cell, np.ones((1, n)))
        # an image that stands in several rows is drawn with all of them, or not at all
        images, owner = np.unique(cell["image"].to_numpy(dtype=str), return_inverse=True)
        spread = _means(cell, resampled(len(images), resamples, seed)[:, owner])
        line = dict(zip(KEYS, key, strict=True)) | {"n": n}
        for name in mean:
            drawn = spread[name][~np.isnan(spread[name])]
            low, high = np.percentile(drawn, [2.5, 97.5]) if len(drawn) else (np.nan, np.nan)
            line |= {name: mean[name][0], f"{name} low": low, f"{name} high": high}
        lines.append(line)
    # cell by cell, the methods of a cell together, both in the order in which they first appear
    places = {name: {v: i for i, v in enumerate(rows[name].unique())} for name in KEYS}
    lines.sort(key=lambda line: [places[name][line[name]] for name in KEYS])
    return pd.DataFrame(lines)


def format_summary(table: pd.DataFrame, *, intervals: bool = True) -> pd.DataFrame:
    """Write a :func:`summary` for reading: each quantity as "mean [low, high]" in one column.

    Parameters
    ----------
    table : pandas.DataFrame
        From :func:`summary`.
    intervals : bool
        Without, the mean alone.

    Returns
    -------
    pandas.DataFrame
        Columns ``cell, method, n`` and one a quantity, as text. Where a method never succeeds, its
        measure changes are "–": a measure that stays says nothing about an attack that failed.
    """

    def text(name: str) -> list[str]:
        digits = 1 if name == "iterations" else 3
        columns = (table[name], table[f"{name} low"], table[f"{name} high"])
        words = []
        for mean, low, high, success in zip(*columns, table["success"], strict=True):
            untold = name.startswith("Delta ") and name != "Delta l" and success == 0
            if np.isnan(mean) or untold:
                words.append("–")
            elif intervals:
                words.append(f"{mean:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]")
            else:
                words.append(f"{mean:.{digits}f}")
        return words

    return pd.DataFrame(
        {
            **{name: table[name] for name in ("cell", "method", "n")},
            **{name: text(name) for name in QUANTITIES if name != "APer [0,1]" and name in table},
        }
    )


def compare_with_best_rival(
    rows: pd.DataFrame,
    *,
    champion: str = "tkmia",
    rivals: list[str],
    resamples: int = 2000,
    seed: int = 0,
) -> pd.DataFrame:
    """Ask in every cell whether the champion is the best or tied with the best rival.

    The methods attacked the same images, so the interval is that of the *paired* difference:
    images are resampled together. "Tied" means that the 95 % interval of the difference from the
    best rival contains 0.

    Parameters
    ----------
    rows : pandas.DataFrame
        From :func:`tkmia_utils.experiments.protocol.to_frame`; every method on the same images in
        the same order.
    champion : str
        Method that is asked about.
    rivals : list of str
        Methods it is compared with.
    resamples : int
        Bootstrap resamples.
    seed : int
        Of the resampling.

    Returns
    -------
    pandas.DataFrame
        One row a cell and quantity (the four measure changes and APer; lower is better): ``scheme,
        cell, n, quantity, champion``, ``rival`` (the best one's name), ``best`` (its value),
        ``rival success`` (its rate), ``difference, low, high`` and ``verdict``: "first", "tied" or
        "behind".

    Raises
    ------
    ValueError
        The methods did not attack the same images.
    """
    quantities = [n for n in QUANTITIES if n.startswith("Delta ") and n != "Delta l"] + ["APer"]
    lines = []
    for (scheme, name), cell in rows.groupby(KEYS[:2], sort=False):
        parts = {m: cell[cell["method"] == m] for m in [champion, *rivals]}
        images = parts[champion]["image"].tolist()
        if any(part["image"].tolist() != images for part in parts.values()):
            raise ValueError(f"rows: the methods attacked different images in cell {name!r}")
        whole, drawn = np.ones((1, len(images))), resampled(len(images), resamples, seed)
        mean = {m: _means(part, whole) for m, part in parts.items()}
        spread = {m: _means(part, drawn) for m, part in parts.items()}
        for quantity in quantities:
            ours = mean[champion][quantity][0]
            values = {m: mean[m][quantity][0] for m in rivals}
            alive = {m: v for m, v in values.items() if not np.isnan(v)}
            best = min(alive, key=alive.get) if alive else rivals[0]
            gap = spread[champion][quantity] - spread[best][quantity]
            gap = gap[~np.isnan(gap)]
            low, high = np.percentile(gap, [2.5, 97.5]) if len(gap) else (np.nan, np.nan)
            if np.isnan(ours):
                verdict = "behind"
            elif not alive or high < 0:
                verdict = "first"
            else:
                verdict = "behind" if low > 0 else "tied"
            lines.append(
                {"scheme": scheme, "cell": name, "n": len(images), "quantity": quantity}
                | {"champion": ours, "rival": best, "best": values[best]}
                | {"rival success": mean[best]["success"][0]}
                | {"difference": ours - values[best], "low": low, "high": high}
                | {"verdict": verdict}
            )
    return pd.DataFrame(lines)
