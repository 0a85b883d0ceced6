"""Our results compared with the paper's: each of its tables and the saved rows that match it.

On other data than the paper's only orderings and ratios are compared: TkMIA and a rival under
equal conditions. Absolute values are compared only where the data set is the same.
"""

import numpy as np
import pandas as pd

from tkmia_utils.experiments.intervals import resampled
from tkmia_utils.paper.tables import CHANGES, NAMES, RIVALS, SETTING, wide
from tkmia_utils.report import tables

# quantity of the paper -> column of the rows, and whether failures are left out
COLUMNS = {
    **{name: (f"Delta {name.removeprefix('m')}", False) for name in CHANGES},
    "delta_l": ("delta_l", False),
    "APer": ("l2_paper", True),
}
RATIOS = (*CHANGES, "APer")
BENCHMARKS = {"voc": "VOC", "coco": "COCO", "nus": "NUS"}


def nearest(limits: pd.Series, limit: int) -> int:
    """Of the iteration limits that were run, the nearest to the paper's (the larger of two)."""
    return min(limits.unique().tolist(), key=lambda have: (abs(have - limit), -have))


def with_paper_names(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows of :func:`tkmia_utils.experiments.protocol.to_frame` under the paper's names of methods,
    no others.

    Raises
    ------
    ValueError
        No row of TkMIA, or rows without an iteration limit.
    """
    if "max_iter" not in rows or not (rows["method"] == "tkmia").any():
        raise ValueError("rows: expected saved results with a column max_iter and rows of tkmia")
    rows = rows[rows["method"].isin(NAMES)]
    return rows.assign(method=rows["method"].map(NAMES))


def _spread(rows: pd.DataFrame, quantity: str, draws: np.ndarray) -> np.ndarray:
    """A quantity's mean for every resample, from how often each image is drawn ``(R, I)``."""
    column, successes = COLUMNS[quantity]
    value = rows[column].to_numpy(dtype=float)
    mass = (rows["success"].to_numpy(dtype=float) if successes else 1.0) * ~np.isnan(value)
    at = rows["at"].to_numpy()
    total = np.bincount(at, np.nan_to_num(value) * mass, draws.shape[1])
    weight = np.bincount(at, mass, draws.shape[1])
    with np.errstate(invalid="ignore", divide="ignore"):
        return (draws @ total) / (draws @ weight)


def ratio(
    rows: pd.DataFrame, quantity: str, rival: str, *, resamples: int = 2000, seed: int = 0
) -> dict[str, float]:
    """TkMIA's mean over a rival's, with a 95 % bootstrap interval over images, drawn whole.

    Parameters
    ----------
    rows : pandas.DataFrame
        From :func:`with_paper_names`, at one limit; both methods on the same images.
    quantity : str
        Key of :data:`COLUMNS`.
    rival : str
        The paper's name.
    resamples, seed : int
        Of the bootstrap.

    Returns
    -------
    dict
        ``ratio, low, high`` (NaN where the rival's mean is 0) and ``n``, rows of TkMIA.
    """
    images, at = np.unique(rows["image"].to_numpy(dtype=str), return_inverse=True)
    rows = rows.assign(at=at)
    count = len(images)
    # the first line is the sample itself
    draws = np.vstack([np.ones(count), resampled(count, resamples, seed)])
    parts = [rows[rows["method"] == name] for name in ("TkMIA", rival)]
    with np.errstate(invalid="ignore", divide="ignore"):
        top, bottom = (_spread(part, quantity, draws) for part in parts)
        quotient = np.where(bottom == 0, np.nan, top / bottom)
    drawn = quotient[1:][np.isfinite(quotient[1:])]
    low, high = np.percentile(drawn, [2.5, 97.5]) if len(drawn) else (np.nan, np.nan)
    return {"ratio": float(quotient[0]), "low": low, "high": high, "n": len(parts[0])}


def _order(theirs: float, low: float, high: float) -> str:
    """Whether the same of two methods is smaller in both, if our interval tells."""
    if np.isnan([theirs, low, high]).any():
        return "unknown"
    if low <= 1 <= high:
        return "open"
    return "same" if (theirs < 1) == (high < 1) else "other"


def _quotients(part: pd.DataFrame, quantity: str, rival: str) -> pd.Series:
    """Theirs, TkMIA over a rival, one a setting of :func:`paper.wide`, without lost cells."""
    values = part.set_index([*SETTING, "method"])[quantity].astype(float)
    top, bottom = (values.xs(name, level="method") for name in ("TkMIA", rival))
    return (top / bottom.where(bottom > 0)).dropna()


def ratios(
    results: pd.DataFrame,
    rows: pd.DataFrame,
    *,
    differs: str = "",
    resamples: int = 2000,
    seed: int = 0,
) -> pd.DataFrame:
    """Each table of the paper as ratios of TkMIA to each rival, with ours of the same scheme.

    Theirs is the median over the table's settings, with the smallest and the largest; ours is the
    ratio of the means over all cells of the scheme, at the nearest iteration limit.

    Parameters
    ----------
    results : pandas.DataFrame
        From :func:`tkmia_utils.paper.tables.load`, preferably without unsound values.
    rows : pandas.DataFrame
        Saved results of all methods.
    differs : str
        What else differs, for the last column: our data, victim and size.
    resamples, seed : int
        Of the bootstrap.

    Returns
    -------
    pandas.DataFrame
        Columns ``table, dataset, scheme, quantity, rival, settings, theirs, least, most, ours, low,
        high, n, order, differs``. ``order`` is "same" or "other" (which method is smaller), "open"
        (our interval holds 1) or "unknown".
    """
    mine, theirs = with_paper_names(rows), wide(results)
    lines, known = [], {}
    for (table, dataset, scheme, limit), part in theirs.groupby(
        ["table", "dataset", "scheme", "max_iter"], sort=False
    ):
        own = mine[mine["scheme"] == scheme]
        if own.empty:
            continue
        at = nearest(own["max_iter"], int(limit))
        own = own[own["max_iter"] == at]
        for quantity in RATIOS:
            for rival in [name for name in RIVALS if (own["method"] == name).any()]:
                have = _quotients(part, quantity, rival)
                key = (scheme, at, quantity, rival)
                if key not in known:
                    known[key] = ratio(own, quantity, rival, resamples=resamples, seed=seed)
                got = known[key]
                lines.append(
                    {"table": table, "dataset": dataset, "scheme": scheme, "quantity": quantity}
                    | {"rival": rival, "settings": len(have), "theirs": have.median()}
                    | {"least": have.min(), "most": have.max(), "ours": got["ratio"]}
                    | {"low": got["low"], "high": got["high"], "n": got["n"]}
                    | {"order": _order(have.median(), got["low"], got["high"])}
                    | {"differs": _difference(differs, int(limit), at)}
                )
    return pd.DataFrame(lines)


def _difference(differs: str, limit: int, at: int) -> str:
    limits = f"limit {at}, theirs {limit}" if at != limit else f"limit {limit} in both"
    return "; ".join(part for part in (differs, limits) if part)


def _settings(results: pd.DataFrame, rows: pd.DataFrame):
    """Pairs of a setting of the paper and our rows of the same type and k, or k, |S| and delta."""
    mine, theirs = with_paper_names(rows), wide(results)
    named = set(theirs["type"]) & set(mine["type"]) - {""}
    benchmark = BENCHMARKS.get(str(mine["dataset"].iloc[0]), "VOC")
    for key, part in theirs.groupby(SETTING, sort=False, dropna=False):
        row = part.iloc[0]
        if row["scheme"] == "S1":
            if row["type"] not in named or row["dataset"] != benchmark:
                continue
            own = mine[(mine["type"] == row["type"]) & (mine["k"] == row["k"])]
        else:
            own = mine[(mine["k"] == row["k"]) & (mine["s"] == row["s"])]
            own = own[own["delta"] == row["delta"]]
        own = own[own["scheme"] == row["scheme"]]
        if len(own):
            at = nearest(own["max_iter"], int(row["max_iter"]))
            yield dict(zip(SETTING, key, strict=True)), part, own[own["max_iter"] == at], at


def matched(
    results: pd.DataFrame,
    rows: pd.DataFrame,
    *,
    quantity: str = "APer",
    rival: str = "TkML-AP-U",
    resamples: int = 2000,
    seed: int = 0,
) -> pd.DataFrame:
    """Settings that both have, by type and k or by k, |S| and delta: one ratio of each.

    Parameters
    ----------
    results, rows, resamples, seed
        As for :func:`ratios`.
    quantity, rival : str
        Which ratio, TkMIA over the rival.

    Returns
    -------
    pandas.DataFrame
        Columns of the setting, ``theirs, n theirs, ours, low, high, n ours, limit ours, order``.
    """
    lines = []
    for setting, part, own, at in _settings(results, rows):
        have = _quotients(part, quantity, rival)
        if have.empty or not (own["method"] == rival).any():
            continue
        got = ratio(own, quantity, rival, resamples=resamples, seed=seed)
        lines.append(
            setting
            | {"theirs": have.iloc[0], "n theirs": part["n"].iloc[0], "ours": got["ratio"]}
            | {"low": got["low"], "high": got["high"], "n ours": got["n"], "limit ours": at}
            | {"order": _order(have.iloc[0], got["low"], got["high"])}
        )
    return pd.DataFrame(lines)


def absolute(
    results: pd.DataFrame,
    rows: pd.DataFrame,
    *,
    differs: str = "",
    resamples: int = 2000,
    seed: int = 0,
) -> pd.DataFrame:
    """Every value of the paper with ours; only for the benchmarks of the paper.

    Parameters
    ----------
    results, rows, differs, resamples, seed
        As for :func:`ratios`.

    Returns
    -------
    pandas.DataFrame
        Columns of the setting, ``method, measure, theirs, n theirs, ours, low, high, n ours,
        differs``; a 95 % bootstrap interval. Without rows where the two share no setting.

    Raises
    ------
    ValueError
        The rows are of other data than the paper's, so that values cannot be compared.
    """
    found = set(rows["dataset"].unique())
    if not found <= set(BENCHMARKS):
        wanted = sorted(BENCHMARKS)
        raise ValueError(f"rows: absolute values are compared on {wanted} alone, got {found}")
    lines = []
    for setting, part, own, at in _settings(results, rows):
        if setting["dataset"] != BENCHMARKS[next(iter(found))]:
            continue
        table = tables.summary(own, resamples=resamples, seed=seed).set_index("method")
        for _, row in part.iterrows():
            if row["method"] not in table.index:
                continue
            for measure in COLUMNS:
                name = {"APer": "APer", "delta_l": "Delta l"}.get(measure, f"Delta {measure}")
                line = table.loc[row["method"]]
                lines.append(
                    setting
                    | {"method": row["method"], "measure": measure, "theirs": row[measure]}
                    | {"n theirs": row["n"], "ours": line[name], "low": line[f"{name} low"]}
                    | {"high": line[f"{name} high"], "n ours": line["n"]}
                    | {"differs": _difference(differs, int(setting["max_iter"]), at)}
                )
    return pd.DataFrame(lines)
