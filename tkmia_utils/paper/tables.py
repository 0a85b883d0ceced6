"""The paper's tables as data: read, checked against a schema, and laid out one method a row.

The numbers are those of Sun et al., "When Measures are Unreliable", ACM MM 2023 (CC BY 4.0), as
printed, in ``data/paper/``; its README says how they were transcribed.
"""

import hashlib
from pathlib import Path

import numpy as np
import pandas as pd

from tkmia_utils.hashing import PACKAGE

METHODS = ("ML-CW-U", "kFool", "TkML-AP-U", "TkMIA")
RIVALS = METHODS[:3]
CHANGES = ("TkAcc", "P@k", "mAP@k", "NDCG@k")  # the tables' Delta: clean minus adversarial
MEASURES = (*CHANGES, "delta_l", "APer")
HIGHER = ("delta_l",)  # the one measure of which an attacker wants more
NAMES = {  # the paper's names for the methods of this package
    "tkmia": "TkMIA",
    "tkml_ap_u": "TkML-AP-U",
    "ml_cw_u": "ML-CW-U",
    "kfool": "kFool",
}
SETTING = ["table", "dataset", "scheme", "type", "k", "s", "delta", "max_iter"]

WORDS, COUNT, NUMBER = "words", "count", "number"
SCHEMAS = {
    "results": {
        **{"table": COUNT, "dataset": WORDS, "scheme": WORDS, "type": WORDS, "k": COUNT},
        **{"s": COUNT, "delta": COUNT, "max_iter": COUNT, "method": WORDS, "measure": WORDS},
        **{"value": NUMBER, "n": COUNT, "note": WORDS},
    },
    "samples": {
        **{"table": COUNT, "dataset": WORDS, "scheme": WORDS, "type": WORDS, "k": COUNT},
        **{"s": NUMBER, "n": COUNT, "note": WORDS},
    },
    "victims": {
        **{"table": COUNT, "dataset": WORDS, "backbone": WORDS, "input_size": COUNT},
        **{"optimizer": WORDS, "batch_size": COUNT, "learning_rate": NUMBER},
        **{"weight_decay": NUMBER, "map": NUMBER, "note": WORDS},
    },
    "types": {
        **{"table": COUNT, "dataset": WORDS, "type": WORDS, "category": WORDS, "note": WORDS},
    },
    "errata": {
        **{"table": WORDS, "cell": WORDS, "printed": WORDS, "why": WORDS, "likely": WORDS},
        **{"how_checked": WORDS, "known": WORDS},
    },
}
"""Columns of every CSV and what they hold: words, counts (whole, perhaps missing) or numbers."""

ALLOWED = {
    "dataset": ("VOC", "COCO", "NUS"),
    "scheme": ("S1", "S2"),
    "method": METHODS,
    "measure": MEASURES,
    "known": ("before", "found"),
}
# what every row must have; the other counts and numbers may be missing
FILLED = {
    "results": ("table", "k", "max_iter"),
    "samples": ("table", "k", "s", "n"),
    "victims": tuple(c for c, kind in SCHEMAS["victims"].items() if kind != WORDS),
    "types": ("table",),
    "errata": (),
}
UNIQUE = {
    "results": [*SETTING, "method", "measure"],
    "samples": ["dataset", "scheme", "type", "k", "s"],
    "victims": ["dataset"],
    "types": ["dataset", "type", "category"],
    "errata": ["table", "cell"],
}


def folder(root: str | Path | None = None) -> Path:
    """Find ``data/paper``: under `root` if it is there, else next to the installed package.

    Parameters
    ----------
    root : str or Path, optional
        The repository, or any folder that may hold ``data/paper``.

    Raises
    ------
    ValueError
        Neither exists.
    """
    places = [Path(p) / "data" / "paper" for p in (root, PACKAGE.parent) if p is not None]
    for place in places:
        if place.is_dir():
            return place
    raise ValueError(f"root: the paper's tables are in none of {[str(p) for p in places]}")


def load(name: str, root: str | Path | None = None) -> pd.DataFrame:
    """Read one CSV of the paper's tables and check it.

    Parameters
    ----------
    name : {"results", "samples", "victims", "types", "errata"}
        Which.
    root : str or Path, optional
        See :func:`folder`.

    Returns
    -------
    pandas.DataFrame
        Columns as in :data:`SCHEMAS`: words are str ("" if empty), counts Int64 (``<NA>``), numbers
        float64 (NaN).

    Raises
    ------
    ValueError
        An unknown name, or a file that breaks the schema; the message names file, row and column.
    """
    if name not in SCHEMAS:
        raise ValueError(f"name: expected one of {sorted(SCHEMAS)}, got {name!r}")
    path = folder(root) / f"{name}.csv"
    if not path.is_file():
        raise ValueError(f"name: there is no {path}")
    return check(pd.read_csv(path, dtype=str, keep_default_na=False), name, where=str(path))


def check(text: pd.DataFrame, name: str, *, where: str = "text") -> pd.DataFrame:
    """Convert the columns of a CSV, read as str, to their types, or report what is wrong.

    Parameters
    ----------
    text : pandas.DataFrame
        All columns str, empty cells "".
    name : str
        Key of :data:`SCHEMAS`.
    where : str
        How messages name the source.

    Returns
    -------
    pandas.DataFrame
        As of :func:`load`.

    Raises
    ------
    ValueError
        See :func:`load`.
    """
    schema = SCHEMAS[name]
    if list(text.columns) != list(schema):
        raise ValueError(f"{where}: expected columns {list(schema)}, got {list(text.columns)}")

    def refuse(bad: pd.Series, column: str, wanted: str) -> None:
        if bad.any():
            row = int(np.flatnonzero(bad)[0])
            got = text[column].iloc[row]
            raise ValueError(f"{where}: line {row + 2}, {column}: expected {wanted}, got {got!r}")

    table = text.copy()
    for column, kind in schema.items():
        if column in ALLOWED:
            refuse(~text[column].isin(ALLOWED[column]), column, f"one of {ALLOWED[column]}")
        if kind == WORDS:
            continue
        empty = text[column] == ""
        numbers = pd.to_numeric(text[column].mask(empty), errors="coerce").astype(float)
        refuse((numbers.isna() | np.isinf(numbers)) & ~empty, column, "a number")
        if kind == COUNT:
            refuse((numbers % 1 != 0) & ~empty | (numbers < 1), column, "a whole number >= 1")
            numbers = numbers.astype("Int64")
        if column in FILLED[name]:
            refuse(empty, column, "a number")
        table[column] = numbers
    refuse(text.duplicated(UNIQUE[name]), UNIQUE[name][-1], "no second row for the same cell")
    if name == "results":
        lost = text["note"].str.startswith("ocr")
        refuse((text["value"] == "") & ~lost, "value", "a number, or a note that begins with ocr")
        refuse((text["value"] != "") & lost, "value", "nothing, since the note begins with ocr")
        refuse((text["n"] == "") & ~text["note"].str.contains("no n printed"), "n", "a number")
        refuse((text["type"] == "") != (text["scheme"] == "S2"), "type", "a type in S1 alone")
    return table


def fingerprint(root: str | Path | None = None) -> str:
    """SHA-256 over the names and bytes of the CSVs, to be recorded with what is made of them."""
    digest = hashlib.sha256()
    for name in sorted(SCHEMAS):
        path = folder(root) / f"{name}.csv"
        digest.update(f"{name}\0".encode() + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def cell(row: pd.Series) -> str:
    """Name a cell of a table: its setting within the table, method and measure, where it has them.

    "Animals, k=1, kFool, TkAcc"; the caption's delta and limit are left out.
    """
    if row["scheme"] == "S1":
        name = f"{row['type']}, k={row['k']}"
    else:
        name = f"k={row['k']}, |S|={row['s']:g}"
    return ", ".join([name, *(row[c] for c in ("method", "measure") if c in row.index)])


def wide(results: pd.DataFrame) -> pd.DataFrame:
    """One row a method of a setting, its six measures as columns.

    Parameters
    ----------
    results : pandas.DataFrame
        From ``load("results")``.

    Returns
    -------
    pandas.DataFrame
        Columns :data:`SETTING`, ``method``, ``n`` and :data:`MEASURES`, in the tables' order.
    """
    keys = [*SETTING, "method"]
    # <NA> does not group: counts become floats on the way and come back afterwards
    plain = results.astype({c: "float64" for c in ("s", "delta", "n")})
    order = plain.drop_duplicates(keys)[[*keys, "n"]].reset_index(drop=True)
    values = plain.pivot(index=keys, columns="measure", values="value")
    values = values.reindex(columns=list(MEASURES))
    table = order.merge(values.reset_index(), on=keys, how="left", validate="one_to_one")
    return table.astype({c: "Int64" for c in ("s", "delta", "n")}).rename_axis(columns=None)


def without(results: pd.DataFrame, errata: pd.DataFrame) -> pd.DataFrame:
    """Empty every value that an erratum covers: a cell by its name, a row by the front of it.

    Parameters
    ----------
    results, errata : pandas.DataFrame
        From :func:`load`.

    Returns
    -------
    pandas.DataFrame
        `results` with NaN there.
    """
    names, tables = results.apply(cell, axis=1), results["table"].astype(str)
    covered = pd.Series(False, index=results.index)
    for _, row in errata.iterrows():
        same = (names == row["cell"]) | names.str.startswith(f"{row['cell']}, ")
        covered |= same & (tables == row["table"])
    return results.assign(value=results["value"].mask(covered))


def winners(results: pd.DataFrame) -> pd.DataFrame:
    """Who is best in every setting and measure, and by how much TkMIA leads its best rival.

    Parameters
    ----------
    results : pandas.DataFrame
        From ``load("results")``, or :func:`without` its errata. A comparison in which TkMIA or a
        rival lacks its value is left out.

    Returns
    -------
    pandas.DataFrame
        Columns :data:`SETTING`, ``n``, ``measure``, ``TkMIA``, ``rival`` (the best one's name; the
        first in the tables' order when several tie), ``best`` (its value), ``lead`` (how much
        better TkMIA is, in the measure's unit; negative: worse) and ``verdict``: "first", "tied"
        (within one unit of the last digit: some columns are rounded, others cut) or "behind".
    """
    lines = []
    keys = [*SETTING, "n"]
    for key, rows in wide(results).groupby(keys, sort=False, dropna=False):
        values = rows.set_index("method")[list(MEASURES)].to_dict()
        for measure in MEASURES:
            column = {name: float(values[measure].get(name, np.nan)) for name in METHODS}
            if any(np.isnan(value) for value in column.values()):
                continue
            sign = 1 if measure in HIGHER else -1
            rival = max(RIVALS, key=lambda name, c=column, s=sign: s * c[name])
            lead = round(sign * (column["TkMIA"] - column[rival]), 4)
            verdict = "tied" if abs(lead) <= 1e-4 else "first" if lead > 0 else "behind"
            lines.append(
                dict(zip(keys, key, strict=True))
                | {"measure": measure, "TkMIA": column["TkMIA"], "rival": rival}
                | {"best": column[rival], "lead": lead, "verdict": verdict}
            )
    return pd.DataFrame(lines)
