"""A run compared with the record, number by number: ``python -m tkmia_utils.pipeline --compare``.

Another processor rounds otherwise and so trains another victim: the same code gives other digits
there. What should hold is that a number lies in the interval that the record gives it, and that
the verdicts are the same. Both are counted here; rows are matched by what names them, not by order.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tkmia_utils.pipeline.record import ABOUT
from tkmia_utils.workspace import read_manifest

VERDICTS = "08_verdicts"
COPIES = "08_table_"  # the numbers of 08_numbers_ again, rounded for reading
CLOSE = 0.01  # two numbers are close when they differ by at most this share of the larger
NOISE = 1e-9  # or by no more than this
RATES = ("lr", "alpha", "share", "p", "radius", "limit")  # fractions that name a row
INTERVAL = re.compile(r"(-?[\d.]+) \[(-?[\d.]+), (-?[\d.]+)\]")
NOTHING = "–"  # how a table for reading shows a missing number


@dataclass(frozen=True)
class Folder:
    """What was read of a folder of figures and tables.

    Attributes
    ----------
    tables : mapping of str to pandas.DataFrame
        By name, without the ending.
    about : mapping
        Of ``record.json``; empty where there is none.
    made : mapping
        Notebook -> parameters, from the manifest.
    unreadable : tuple of str
        Tables that are no CSV.
    """

    tables: Mapping[str, pd.DataFrame]
    about: Mapping[str, Any]
    made: Mapping[str, Mapping[str, Any]]
    unreadable: tuple[str, ...] = ()


@dataclass(frozen=True)
class Comparison:
    """A run compared with a record.

    Attributes
    ----------
    numbers : pandas.DataFrame
        A row for every number with an interval: ``table, row, quantity, run, record, low, high``
        and the answers ``equal``, ``inside`` and ``overlapping``.
    cells : pandas.DataFrame
        A row for every other cell: ``table, row, quantity, run, record``, ``state`` (equal, close
        or different) and ``difference`` (NaN where it is no number).
    verdicts : pandas.DataFrame
        ``row, run, record``, a row a verdict.
    machines, settings : pandas.DataFrame
        What made both, and the parameters that differ; ``what, run, record``.
    notes : tuple of str
        What could not be compared.
    """

    numbers: pd.DataFrame
    cells: pd.DataFrame
    verdicts: pd.DataFrame
    machines: pd.DataFrame
    settings: pd.DataFrame
    notes: tuple[str, ...]


def read(folder: str | Path) -> Folder:
    """Read the tables of a run or a record, and what is known about it.

    Raises
    ------
    ValueError
        There is no table in `folder`.
    """
    folder = Path(folder)
    paths = sorted(folder.glob("*.csv"))
    if not paths:
        raise ValueError(f"folder: there is no table in {folder}")
    tables, bad = {}, []
    for path in paths:
        try:
            tables[path.stem] = pd.read_csv(path)
        except (ValueError, OSError):  # pandas' own errors are ValueErrors
            bad.append(path.stem)
    about = folder / ABOUT
    try:
        facts = json.loads(about.read_text(encoding="utf-8")) if about.is_file() else {}
        made = {e["notebook"]: e["parameters"] for e in read_manifest(folder).values()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"folder: {folder} has no readable manifest ({error})") from None
    return Folder(tables, facts, made, tuple(bad))


def compare(run: Folder, record: Folder) -> Comparison:
    """Compare a run with a record.

    Raises
    ------
    ValueError
        They have no table in common.
    """
    shared = [name for name in record.tables if name in run.tables]
    if not shared:
        raise ValueError("run: it has no table in common with the record")
    notes = _one_sided("table", run.tables, record.tables)
    notes += [f"unreadable in the run: {name}" for name in run.unreadable]
    notes += [f"unreadable in the record: {name}" for name in record.unreadable]
    numbers, cells, verdicts = [], [], []
    for name in shared:
        if name.startswith(COPIES) and name.replace(COPIES, "08_numbers_") in shared:
            continue
        pair, keys, found = _matched(run.tables[name], record.tables[name])
        notes += [f"{name}: {note}" for note in found]
        some, others = _cells(*pair, keys)
        numbers += [{"table": name, **row} for row in some]
        if name == VERDICTS and "verdict" in others["quantity"].to_list():
            verdicts = others[others["quantity"] == "verdict"][["row", "run", "record"]]
            others = others[others["quantity"] != "verdict"]
        cells.append(others.assign(table=name))
    if not len(verdicts):
        notes.append(f"no verdicts to compare: {VERDICTS} is not in both")
        verdicts = pd.DataFrame(columns=["row", "run", "record"])
    columns = ["table", "row", "quantity", "run", "record", "low", "high"]
    return Comparison(
        pd.DataFrame(numbers, columns=[*columns, "equal", "inside", "overlapping"]),
        pd.concat(cells, ignore_index=True),
        verdicts.reset_index(drop=True),
        _machines(run, record),
        _settings(run, record),
        tuple(notes),
    )


def _one_sided(kind: str, run: Any, record: Any) -> list[str]:
    ours, theirs = (list(map(str, names)) for names in (run, record))
    notes = []
    for side, mine, others in (("run", ours, theirs), ("record", theirs, ours)):
        alone = [name for name in mine if name not in others]
        named = "; ".join(alone[:3]) + (f"; and {len(alone) - 3} more" if alone[3:] else "")
        notes += [f"{kind} only in the {side}: {named}"] if alone else []
    return notes


def _spread(df: pd.DataFrame) -> pd.DataFrame:
    """Split columns of "mean [low, high]" into three."""
    parts = {}
    for name in df.columns:
        text = df[name].dropna().astype(str)
        text = text[text != NOTHING]
        if len(text) and text.map(lambda cell: bool(INTERVAL.fullmatch(cell))).all():
            found = df[name].astype(str).str.extract(INTERVAL.pattern).astype(float)
            parts |= {f"{name}{end}": found[i] for i, end in enumerate(("", " low", " high"))}
        else:
            parts[name] = df[name]
    return pd.DataFrame(parts, index=df.index)


def _triples(columns: list[str]) -> list[tuple[str, str, str]]:
    """(number, low, high): "q low" and "q high" belong to q, bare ones to the column before."""
    found = [(c, f"{c} low", f"{c} high") for c in columns]
    found = [triple for triple in found if set(triple) <= set(columns)]
    if {"low", "high"} <= set(columns) and columns.index("low"):
        found.append((columns[columns.index("low") - 1], "low", "high"))
    return found


def _text(value: Any) -> str:
    if isinstance(value, float | int | np.number) and not isinstance(value, bool):
        return "" if np.isnan(value) else f"{value:.6g}"
    return "" if value is None else str(value)


def _names(df: pd.DataFrame, keys: list[str]) -> pd.Index:
    """What names each row, as one text."""
    rows = [[_text(df[key].iloc[i]) for key in keys] for i in range(len(df))]
    return pd.Index([" · ".join(filter(None, row)) for row in rows], dtype=object)


def _keys(frames: tuple[pd.DataFrame, pd.DataFrame], columns: list[str]) -> list[str] | None:
    """The fewest leading columns that name every row of both; None if there are none.

    Sizes (`n`) and fractions are results, never names; but for :data:`RATES`.
    """
    if all(len(df) == 1 for df in frames):
        return []
    keys: list[str] = []
    for column in columns:
        numeric = all(pd.api.types.is_numeric_dtype(df[column]) for df in frames)
        if (
            column not in RATES
            and numeric
            and any((df[column].dropna().astype(float) % 1 != 0).any() for df in frames)
        ):
            return None
        if column != "n":
            keys.append(column)
        if keys and all(_names(df, keys).is_unique for df in frames):
            return keys
    return None


def _matched(
    run: pd.DataFrame, record: pd.DataFrame
) -> tuple[tuple[pd.DataFrame, pd.DataFrame], list[str], list[str]]:
    """Both tables with the rows and columns they share, in the record's order; keys; notes."""
    run, record = _spread(run), _spread(record)
    notes = _one_sided("column", run.columns, record.columns)
    shared = [name for name in record.columns if name in run.columns]
    keys = _keys((run, record), shared)
    if keys is None:
        notes.append("no column names its rows: matched by their order")
        names = tuple(pd.Index([str(i + 1) for i in range(len(df))]) for df in (run, record))
    else:
        names = (_names(run, keys), _names(record, keys))
    notes += _one_sided("row", *names)
    both = [name for name in names[1] if name in names[0]]
    pair = tuple(
        df[shared].set_axis(index).loc[both] for df, index in zip((run, record), names, strict=True)
    )
    return pair, keys or [], notes


def _cells(
    run: pd.DataFrame, record: pd.DataFrame, keys: list[str]
) -> tuple[list[dict[str, Any]], pd.DataFrame]:
    """Numbers with intervals, and the other cells, of two tables with the same rows and columns."""
    numeric = [
        name
        for name in record.columns
        if all(pd.api.types.is_numeric_dtype(df[name]) for df in (run, record))
        and not any(pd.api.types.is_bool_dtype(df[name]) for df in (run, record))
    ]
    triples = [triple for triple in _triples(list(record.columns)) if set(triple) <= set(numeric)]
    numbers = []
    for name, low, high in triples:
        for row in record.index:
            ours, a, b = (run.at[row, c] for c in (name, low, high))
            theirs, least, most = (record.at[row, c] for c in (name, low, high))
            if np.isnan(ours) and np.isnan(theirs):  # there is no number to compare
                continue
            equal = bool(ours == theirs)
            line = {"row": row, "quantity": name, "run": ours, "record": theirs}
            line |= {"low": least, "high": most, "equal": equal}
            # an equal number counts as inside even where its own interval, rounded, leaves it out
            line["inside"] = equal or bool(least <= ours <= most)
            numbers.append({**line, "overlapping": equal or bool(a <= most and least <= b)})
    taken = {name for triple in triples for name in triple} | set(keys)
    others = []
    for name in (c for c in record.columns if c not in taken):
        for row in record.index:
            ours, theirs = run.at[row, name], record.at[row, name]
            line = {"table": "", "row": row, "quantity": name, "run": ours, "record": theirs}
            others.append({**line, **_state(ours, theirs, number=name in numeric)})
    columns = ["table", "row", "quantity", "run", "record", "state", "difference"]
    return numbers, pd.DataFrame(others, columns=columns).astype({"difference": float})


def _state(ours: Any, theirs: Any, *, number: bool) -> dict[str, Any]:
    if pd.isna(ours) or pd.isna(theirs) or not number:
        same = (pd.isna(ours) and pd.isna(theirs)) or str(ours) == str(theirs)
        return {"state": "equal" if same else "different", "difference": np.nan}
    gap = 0.0 if ours == theirs else abs(float(ours) - float(theirs))
    close = gap <= max(CLOSE * max(abs(ours), abs(theirs)), NOISE)
    return {"state": "equal" if not gap else "close" if close else "different", "difference": gap}


def _side_by_side(run: Mapping[str, Any], record: Mapping[str, Any], missing: str) -> pd.DataFrame:
    lines = [
        (what, *(_text(side[what])[:60] if what in side else missing for side in (run, record)))
        for what in dict.fromkeys((*record, *run))
    ]
    return pd.DataFrame(lines, columns=["what", "run", "record"])


def _machines(run: Folder, record: Folder) -> pd.DataFrame:
    def facts(folder: Folder) -> dict[str, Any]:
        about = folder.about
        victim = {f"victim: {k}": v for k, v in about.get("victim", {}).items()}
        return {**about.get("machine", {}), **victim, **about.get("versions", {})}

    return _side_by_side(facts(run), facts(record), "not recorded")


def _settings(run: Folder, record: Folder) -> pd.DataFrame:
    def flat(folder: Folder) -> dict[str, str]:
        values: dict[str, list[str]] = {}
        for notebook in sorted(shared):
            for name, value in folder.made[notebook].items():
                values.setdefault(name, []).append(json.dumps(value))
        # one value where all notebooks have the same
        return {name: ", ".join(dict.fromkeys(found)) for name, found in values.items()}

    shared = set(run.made) & set(record.made)
    both = _side_by_side(flat(run), flat(record), "not said")
    return both[both["run"] != both["record"]].reset_index(drop=True)


def folders(run: str | Path, record: str | Path) -> Comparison:
    """Read two folders and compare them; see :func:`read` and :func:`compare`."""
    return compare(read(run), read(record))
