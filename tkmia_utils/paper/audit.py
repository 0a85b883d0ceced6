"""Checks that find a table's errors from its numbers alone; each returns the cells that fail.

A mean over n images of something counted is a whole number over n. Four measures of the same lists
hang together. A row at a larger iteration limit resembles the one at the smaller. No check knows
which cells are wrong, and none needs the data, the victim or the code of the paper.
"""

import itertools
from collections.abc import Callable

import numpy as np
import pandas as pd

from tkmia_utils.paper.polytope import CUT, ROUNDED, SLACK, violation
from tkmia_utils.paper.tables import CHANGES, MEASURES, METHODS, SETTING, cell, wide

COLUMNS = ["table", "cell", "printed", "why"]
GROUP = ["dataset", "scheme", "type", "k", "s"]  # the same images in every table


def _failures(lines: list[tuple[pd.Series, str, str]]) -> pd.DataFrame:
    """Rows (where, printed, why) as the table every check returns."""
    found = [(str(row["table"]), cell(row), printed, why) for row, printed, why in lines]
    return pd.DataFrame(found, columns=COLUMNS)


def fits(value: float | np.ndarray, whole: float | np.ndarray) -> np.ndarray:
    """Whether a printed value is some whole number over `whole`, rounded or cut at four digits.

    Parameters
    ----------
    value : float or array
        As printed; its sign does not matter.
    whole : float or array
        n, or n times k: what the counts were divided by.

    Returns
    -------
    numpy.ndarray
        bool.
    """
    value = np.abs(value)
    least = np.ceil((value - ROUNDED - SLACK) * whole)
    return least <= (value + CUT + SLACK) * whole


def power(whole: int) -> float:
    """Share of all four-digit values in [0, 1) that :func:`fits` lets pass; 1: it says nothing."""
    return float(fits(np.arange(10_000) / 10_000, whole).mean())


def _parts(measure: str, k: int) -> int:
    """A change of a measure times n times this is whole: k places in P@k."""
    return int(k) if measure == "P@k" else 1


def _countable(results: pd.DataFrame) -> pd.DataFrame:
    """Cells that are counts over n, once each: at k = 1 P@k is TkAcc again."""
    counted = results["measure"].isin(["TkAcc", "delta_l"]) | (
        (results["measure"] == "P@k") & (results["k"] > 1)
    )
    cells = results[counted & results["value"].notna()].copy()
    pairs = zip(cells["measure"], cells["k"], strict=True)
    return cells.assign(parts=[_parts(measure, k) for measure, k in pairs])


def sample_sizes(results: pd.DataFrame, samples: pd.DataFrame, *, around: int = 10) -> pd.DataFrame:
    """Settings whose printed n is not what their numbers were divided by.

    A size is contradicted when three or more of its cells do not fit it and another one within
    `around` leaves at most a third of them over; the nearest of the best is the likely one.

    Parameters
    ----------
    results, samples : pandas.DataFrame
        From :func:`tkmia_utils.paper.tables.load`.
    around : int
        How far to look.

    Returns
    -------
    pandas.DataFrame
        Columns ``table, cell, printed, why, likely``.
    """
    lines, likely = [], []
    cells = _countable(results)
    for _, row in samples.iterrows():
        same = (cells["dataset"] == row["dataset"]) & (cells["type"] == row["type"])
        same &= (cells["k"] == row["k"]) & ((row["scheme"] == "S1") | (cells["s"] == row["s"]))
        part = cells[same & (cells["scheme"] == row["scheme"])]
        near = sorted(range(-around, around + 1), key=abs)
        sizes = [row["n"] + step for step in near if row["n"] + step > 0]
        left = [int((~fits(part["value"].values, n * part["parts"].values)).sum()) for n in sizes]
        best = int(np.argmin(left))
        if left[0] >= 3 and 3 * left[best] <= left[0]:
            why = f"{left[0]} of {len(part)} counts over n do not fit {row['n']}, "
            why += f"{left[best]} do not fit {sizes[best]}"
            lines.append((row, f"n = {row['n']}", why))
            likely.append(sizes[best])
    return _failures(lines).assign(likely=likely)


def unmatched_settings(results: pd.DataFrame, samples: pd.DataFrame) -> pd.DataFrame:
    """Settings of S2 for which a table prints numbers but none prints n, and the other way round.

    Returns
    -------
    pandas.DataFrame
        Columns ``table, cell, printed, why, likely``: the size, of those printed for the data set,
        that most of the setting's counts fit (missing for a size without numbers).
    """
    keys = ["dataset", "k", "s"]
    second, sizes = results[results["scheme"] == "S2"], samples[samples["scheme"] == "S2"]
    have = set(second[keys].itertuples(index=False, name=None))
    printed_for = {(d, k, int(s)) for d, k, s in sizes[keys].itertuples(index=False, name=None)}
    lines, likely = [], []
    for _, row in sizes.iterrows():
        if (row["dataset"], row["k"], int(row["s"])) not in have:
            lines.append((row, f"n = {row['n']}", "no results table has this setting"))
            likely.append(pd.NA)
    for (_, *key), rows in second.groupby(["table", *keys], sort=False):
        if tuple(key) in printed_for:
            continue
        part = _countable(rows)
        shares = {
            int(n): float(fits(part["value"].values, int(n) * part["parts"].values).mean())
            for n in sizes.loc[sizes["dataset"] == key[0], "n"]
        }
        best = max(shares, key=shares.get)
        text = ", ".join(f"{n} fits {share:.0%}" for n, share in shares.items())
        lines.append((rows.iloc[0][[*SETTING]], "no n", f"of the sizes printed: {text}"))
        likely.append(best)
    return _failures(lines).assign(likely=pd.array(likely, dtype="Int64"))


def with_corrected_n(
    results: pd.DataFrame, samples: pd.DataFrame
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Put the likely sizes of :func:`sample_sizes` and :func:`unmatched_settings` in the place of
    n.

    Returns
    -------
    results, samples : pandas.DataFrame
    """
    fixed = sample_sizes(results, samples).set_index("cell")["likely"]
    names = samples.apply(cell, axis=1)
    samples = samples.assign(n=names.map(fixed).astype("Int64").fillna(samples["n"]))
    lost = (
        unmatched_settings(results, samples)
        .dropna(subset="likely")
        .set_index(["table", "cell"])["likely"]
    )
    rows = results[SETTING].apply(cell, axis=1)
    n = rows.map(fixed)
    for (table, name), size in lost.items():
        n = n.mask((results["table"].astype(str) == table) & (rows == name), size)
    return results.assign(n=n.astype("Int64").fillna(results["n"])), samples


def counts(results: pd.DataFrame) -> pd.DataFrame:
    """Cells that are no whole number over n (TkAcc, Delta l) or over k n (P@k).

    Parameters
    ----------
    results : pandas.DataFrame
        With the sizes that are to be believed; see :func:`with_corrected_n`.

    Returns
    -------
    pandas.DataFrame
        Columns ``table, cell, printed, why, power`` (of the check, :func:`power`) and ``fits``: the
        sizes within 3 of n that all counts of this method fit.
    """
    cells = _countable(results[results["n"].notna()])
    bad = ~fits(cells["value"].values, (cells["n"] * cells["parts"]).values.astype(float))
    lines, powers, others = [], [], []
    for _, row in cells[bad].iterrows():
        whole = int(row["n"] * row["parts"])
        product, low = abs(row["value"]) * whole, int(abs(row["value"]) * whole)
        name = f"{row['n']}" + (f" x {row['parts']}" if row["parts"] > 1 else "")
        near = ", ".join(f"{m}/{whole} = {m / whole:.5f}" for m in (low, low + 1))
        lines.append((row, f"{row['value']:.4f}", f"x {name} = {product:.2f}; {near}"))
        powers.append(power(whole))
        same = (cells[[*SETTING, "method"]].fillna(-1) == row[[*SETTING, "method"]].fillna(-1)).all(
            axis=1
        )
        row_cells = cells[same]
        sizes = [row["n"] + step for step in (-1, 1, -2, 2, -3, 3) if row["n"] + step > 0]
        fit = [
            n for n in sizes if fits(row_cells["value"].values, n * row_cells["parts"].values).all()
        ]
        others.append(", ".join(map(str, fit)))
    return _failures(lines).assign(power=powers, fits=others)


def rounding(results: pd.DataFrame) -> pd.DataFrame:
    """How each method's counts were printed, where their digits show it.

    Returns
    -------
    pandas.DataFrame
        A line a method: cells that are only the ``rounded`` value of a whole number over n, only
        the ``cut`` one, ``either``, or ``neither``.
    """
    cells = _countable(results[results["n"].notna()])
    whole = (cells["n"] * cells["parts"]).to_numpy(dtype=float)
    value = cells["value"].abs().to_numpy()
    units = np.floor((value + CUT - SLACK) * whole) / whole  # the largest that may have been cut
    cut = (units > value - SLACK) & (units < value + CUT - SLACK)
    near = np.round(value * whole) / whole
    rounded = np.abs(near - value) <= ROUNDED + SLACK
    names = np.select([rounded & cut, rounded, cut], ["either", "rounded", "cut"], "neither")
    count = pd.crosstab(cells["method"].to_numpy(), names, rownames=["method"], colnames=[None])
    return count.reindex(
        index=list(METHODS), columns=["rounded", "cut", "either", "neither"], fill_value=0
    )


def set_sizes(samples: pd.DataFrame) -> pd.DataFrame:
    """Mean |S| that is no whole number over n; `samples` as :func:`with_corrected_n` gives them."""
    bad = samples[~fits(samples["s"].values, samples["n"].values.astype(float))]
    return _failures(
        [
            (row, f"|S| = {row['s']:.4f}", f"x {row['n']} = {row['s'] * row['n']:.2f}")
            for _, row in bad.iterrows()
        ]
    )


def ranges(results: pd.DataFrame, samples: pd.DataFrame) -> pd.DataFrame:
    """Changes outside [-1, 1], Delta l outside [0, |S|], APer that is not positive."""
    first = samples[samples["scheme"] == "S1"].set_index(["dataset", "type", "k"])["s"]
    lines = []
    for _, row in results.dropna(subset="value").iterrows():
        size = first.get((row["dataset"], row["type"], row["k"]), row["s"])
        low, high = {"delta_l": (0, size), "APer": (1e-9, np.inf)}.get(row["measure"], (-1, 1))
        if not low <= row["value"] <= high + CUT + SLACK:
            name = {"delta_l": f"[0, |S|] = [0, {high:g}]", "APer": "above 0"}
            why = f"outside {name.get(row['measure'], '[-1, 1]')}"
            lines.append((row, f"{row['value']:.4f}", why))
    return _failures(lines)


def equal_at_one(results: pd.DataFrame) -> pd.DataFrame:
    """Rows at k = 1 whose four measures are not one number: there is one place to be right in."""
    rows = wide(results[results["k"] == 1])
    values = rows[list(CHANGES)]
    bad = rows[values.max(axis=1) - values.min(axis=1) > CUT + SLACK]
    return _failures([(row, _printed(row), "four different numbers") for _, row in bad.iterrows()])


def _printed(row: pd.Series) -> str:
    return ", ".join(f"{row[name]:.4f}" for name in CHANGES)


def lists(results: pd.DataFrame, *, precision: str = "P@i") -> pd.DataFrame:
    """Rows whose four changes no top-k lists can have, alone or with the setting's other rows.

    Rows that are impossible by themselves are taken out first. If the rest of a setting, all
    methods and limits, cannot share the clean images' lists, the row goes without which the rest
    comes nearest, and so on.

    Parameters
    ----------
    results : pandas.DataFrame
        From :func:`tkmia_utils.paper.tables.load`.
    precision : str
        See :func:`tkmia_utils.paper.polytope.patterns`.
    """
    lines = []
    rows = wide(results).dropna(subset=list(CHANGES), how="all")
    for (*_, k, _), part in rows.groupby(GROUP, sort=False, dropna=False):
        values = part[list(CHANGES)].to_numpy(dtype=float)
        alone = [violation(line[None], k, precision=precision) for line in values]
        for (_, row), error in zip(part.iterrows(), alone, strict=True):
            if error > 10 * SLACK:
                why = f"no lists have these four changes: one is off by at least {error:.4f}"
                lines.append((row, _printed(row), why))
        keep = [i for i, error in enumerate(alone) if error <= 10 * SLACK]
        error = violation(values[keep], k, precision=precision) if len(keep) > 1 else 0.0
        while error > 10 * SLACK:
            rest = [
                violation(values[[i for i in keep if i != j]], k, precision=precision) for j in keep
            ]
            row = part.iloc[keep[int(np.argmin(rest))]]
            why = f"no clean lists serve this row and the others: off by at least {error:.4f}"
            lines.append((row, _printed(row), why))
            keep.pop(int(np.argmin(rest)))
            error = min(rest)
    return _failures(lines)


def repeats(results: pd.DataFrame, *, least: int = 50) -> pd.DataFrame:
    """Two of a row's four changes that agree in every digit though k > 1, over `least` images."""
    rows = wide(results[results["k"] > 1])
    lines = []
    for _, row in rows[rows["n"].fillna(0) >= least].iterrows():
        for one, other in itertools.combinations(CHANGES, 2):
            if row[one] == row[other] and row[one] not in (0, 1):
                lines.append((row, f"{one} = {other} = {row[one]:.4f}", "a number stands twice"))
    return _failures(lines)


def swapped_rows(results: pd.DataFrame, *, close: float = 0.02, times: float = 4) -> pd.DataFrame:
    """Rows at a larger limit that resemble another setting's row at the smaller one, not their own.

    Distance is the largest difference of the four changes. Reported is a row within `close` of
    another setting and `times` nearer to it than to its own.

    Parameters
    ----------
    results : pandas.DataFrame
        From :func:`tkmia_utils.paper.tables.load`.
    close, times : float
        See above.
    """
    rows = wide(results[results["scheme"] == "S2"]).dropna(subset=list(CHANGES))
    lines = []
    for _, part in rows.groupby(["dataset", "delta", "method"], sort=False):
        for _, row in part.iterrows():
            early = part[part["max_iter"] < row["max_iter"]]
            far = (early[list(CHANGES)] - row[list(CHANGES)].astype(float)).abs().max(axis=1)
            own = (early["k"] == row["k"]) & (early["s"] == row["s"])
            if not own.any() or own.all():
                continue
            nearest = early.loc[far[~own].idxmin()]
            mine, other = float(far[own].min()), float(far[~own].min())
            if other <= close and mine >= times * other:
                why = f"own row at limit {nearest['max_iter']}: {mine:.4f} away; "
                why += (
                    f"Table {nearest['table']} (k={nearest['k']}, |S|={nearest['s']}): {other:.4f}"
                )
                lines.append((row, _printed(row), why))
    return _failures(lines)


def decreasing_with_limit(results: pd.DataFrame) -> pd.DataFrame:
    """Delta l or APer that is smaller at the larger limit, and rows that move though all was done.

    With one learning rate and one alpha an image that succeeded is never touched again, so the
    *number* of successes cannot fall. Delta l counts failures' last steps too, and may fall a
    little; APer falls only if late successes are the small ones; and rates may have been searched
    anew. So nothing here is impossible but the last: where Delta l = |S| = delta at the smaller
    limit, nothing was left to attack.
    """
    rows = wide(results[results["scheme"] == "S2"])
    lines = []
    for _, part in rows.groupby([*GROUP, "delta", "method"], sort=False):
        part = part.sort_values("max_iter")
        for (_, old), (_, new) in itertools.pairwise(part.iterrows()):
            for name in ("delta_l", "APer"):
                if old[name] - new[name] > CUT + SLACK:
                    at = pd.concat([new, pd.Series({"measure": name})])
                    why = f"{old[name]:.4f} at limit {old['max_iter']} (Table {old['table']})"
                    lines.append((at, f"{new[name]:.4f}", why))
            moved = [m for m in MEASURES if abs(old[m] - new[m]) > CUT + SLACK]
            if old["s"] == old["delta"] == old["delta_l"] and moved:
                why = f"Delta l = |S| at limit {old['max_iter']} (Table {old['table']}), yet "
                why += ", ".join(f"{m} {old[m]:.4f} became {new[m]:.4f}" for m in moved)
                lines.append((new, _printed(new), why))
    return _failures(lines)


CHECKS: dict[str, Callable[[pd.DataFrame, pd.DataFrame], pd.DataFrame]] = {
    "sample_sizes": sample_sizes,
    "orphans": unmatched_settings,
    "ranges": ranges,
    "equal_at_one": lambda results, samples: equal_at_one(results),
    "counts": lambda results, samples: counts(with_corrected_n(results, samples)[0]),
    "set_sizes": lambda results, samples: set_sizes(with_corrected_n(results, samples)[1]),
    "lists": lambda results, samples: lists(results),
    "repeats": lambda results, samples: repeats(results),
    "strangers": lambda results, samples: swapped_rows(results),
    "falling": lambda results, samples: decreasing_with_limit(results),
}
"""Every check by name, as a function of results and samples."""
DOUBTFUL = ("repeats", "strangers", "falling")
"""Checks whose failures are unlikely; a failure of any other check is impossible."""
UNSOUND = ("ranges", "lists", "repeats", "strangers")
"""Checks after which a value is not to be used; a count that is off by a digit hardly matters."""


def failures(results: pd.DataFrame, samples: pd.DataFrame) -> pd.DataFrame:
    """Run every check.

    Returns
    -------
    pandas.DataFrame
        Columns ``check, verdict`` ("impossible" or "doubtful"), ``table, cell, printed, why``.
    """
    frames = []
    for name, check in CHECKS.items():
        found = check(results, samples)[COLUMNS]
        verdict = "doubtful" if name in DOUBTFUL else "impossible"
        frames.append(found.assign(check=name, verdict=verdict))
    return pd.concat(frames, ignore_index=True)[["check", "verdict", *COLUMNS]]
