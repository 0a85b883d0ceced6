"""Text of what :mod:`tkmia_utils.pipeline.compare` found: in full, in short and in one sentence."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tkmia_utils.pipeline.compare import CLOSE, Comparison, folders
from tkmia_utils.workspace import Workspace, write_text

REPORT = "compare.md"
FEW = 20  # lines of a table, or notes, on a terminal
SCALE = (
    "Intervals are 95 % intervals over images. For scale: of two independent samples of one size "
    "from one population, about 83 % of the numbers of one lie in the intervals of the other."
)


def sentence(found: Comparison) -> str:
    """The comparison in one sentence to quote; every number is counted from the tables."""
    verdicts, numbers = found.verdicts, found.numbers
    parts = ["there are no verdicts to compare"]
    if len(verdicts):
        changed = verdicts[verdicts["run"] != verdicts["record"]]
        fallen = changed.loc[changed["run"] == "behind", "row"].tolist()
        named = "; ".join(fallen[:3]) + (f"; and {len(fallen) - 3} more" if fallen[3:] else "")
        behind = f"changed to behind: {named}" if fallen else "none changed to behind"
        same = len(verdicts) - len(changed)
        parts = [f"{same} of {len(verdicts)} verdicts are as in the record ({behind})"]
    if len(numbers):
        inside, equal = (int(numbers[answer].sum()) for answer in ("inside", "equal"))
        share = f"{inside} of {len(numbers)} numbers ({_percent(inside, len(numbers))}) lie in the"
        parts.append(f"{share} record's intervals and {equal} are equal")
    else:
        parts.append("no number has an interval")
    if len(found.settings):
        parts.append(f"the two were run with other settings ({', '.join(found.settings['what'])})")
    if found.notes:
        parts.append("not all could be compared")
    sides = dict(zip(("this run", "record"), ("run", "record"), strict=True))
    made = [f"{name}: {_made_on(found.machines, side)}" for name, side in sides.items()]
    text = f"{', '.join(parts)}; {'; '.join(made)}."
    return text[0].upper() + text[1:]


def _percent(some: int, total: int) -> str:
    """A share that is 0 % or 100 % only where it is exactly so."""
    whole = round(100 * some / total)
    return f"{min(max(whole, 1 if some else 0), 100 if some == total else 99)} %"


def _made_on(machines: pd.DataFrame, side: str) -> str:
    facts = dict(zip(machines["what"], machines[side], strict=True))
    if facts.get("cpu", "not recorded") == "not recorded":
        return "machine not recorded"
    device = [facts["device"]] if facts.get("device", "cpu") != "cpu" else []
    words = [facts["cpu"], facts.get("capability", ""), *device, f"torch {facts.get('torch', '?')}"]
    return ", ".join(filter(None, words))


def _markdown(df: pd.DataFrame) -> str:
    def cell(value: Any) -> str:
        number = isinstance(value, float | np.floating)
        text = ("–" if np.isnan(value) else f"{value:.4g}") if number else str(value)
        return text.replace("|", r"\|").replace("\n", " ")

    # Mapped column by column as objects: rows would turn counts into floats.
    text = pd.DataFrame({cell(name): [cell(v) for v in df[name]] for name in df.columns})
    return text.to_markdown(index=False, disable_numparse=True)


def _largest(cells: pd.DataFrame) -> str:
    """The largest difference of some cells, and where it is."""
    if not (cells["difference"] > 0).any():
        return "–"
    top = cells.loc[cells["difference"].idxmax()]
    return f"{top['difference']:.4g} ({' · '.join(filter(None, (top['row'], top['quantity'])))})"


def by_table(found: Comparison) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Counts a table: of the numbers with an interval, and of the other cells."""
    numbers = found.numbers.assign(
        difference=(found.numbers["run"] - found.numbers["record"]).abs()
    )
    with_intervals = [
        {
            "table": name,
            "numbers": len(rows),
            "equal": int(rows["equal"].sum()),
            "inside": int(rows["inside"].sum()),
            "overlapping": int(rows["overlapping"].sum()),
            "largest difference": _largest(rows),
        }
        for name, rows in numbers.groupby("table", sort=False)
    ]
    without = [
        {
            "table": name,
            "cells": len(rows),
            **{s: int((rows["state"] == s).sum()) for s in ("equal", "close", "different")},
            "largest difference": _largest(rows),
        }
        for name, rows in found.cells.groupby("table", sort=False)
    ]
    return pd.DataFrame(with_intervals), pd.DataFrame(without)


def _changed(found: Comparison) -> pd.DataFrame:
    verdicts = found.verdicts
    changed = verdicts[verdicts["run"] != verdicts["record"]]
    return changed.rename(columns={"row": "verdict on"})


def _outside(found: Comparison) -> pd.DataFrame:
    rows = found.numbers[~found.numbers["inside"].astype(bool)]
    texts = [
        f"[{low:.4g}, {high:.4g}]" for low, high in zip(rows["low"], rows["high"], strict=True)
    ]
    lap = ["yes" if answer else "no" for answer in rows["overlapping"]]
    return rows[["table", "row", "quantity", "run", "record"]].assign(
        **{"record's interval": texts, "intervals overlap": lap}
    )


def report(found: Comparison, *, few: int | None = None) -> str:
    """The whole comparison as Markdown.

    Parameters
    ----------
    found : Comparison
        From :func:`tkmia_utils.pipeline.compare.compare`.
    few : int, optional
        At most so many lines of a list that may be long; default all.

    Returns
    -------
    str
    """
    inside, cells = by_table(found)
    parts: Mapping[str, tuple[str, pd.DataFrame, str]] = {
        "Settings that differ": ("", found.settings, "None."),
        "Numbers with an interval": (SCALE, inside, "None."),
        "Other cells": (
            f"Close: within {CLOSE:.0%} of the larger. Text is equal or different.", cells, "None.",
        ),
        "Verdicts that changed": ("", _changed(found), "None."),
        "Numbers outside the record's interval": ("", _outside(found), "None."),
    }  # fmt: skip
    text = ["# A run compared with the record", "## What made them", _markdown(found.machines)]
    for heading, (words, table, nothing) in parts.items():
        text += [f"## {heading}", *filter(None, [words])]
        shown = table if table is inside or table is cells else table[:few]
        text += [_markdown(shown)] if len(table) else [nothing]
        if len(table) > len(shown):
            text.append(f"... and {len(table) - few} more in {REPORT}.")
    text += ["## What could not be compared", "\n".join(f"- {note}" for note in found.notes[:few])]
    if not found.notes:
        text[-1] = "Nothing: all tables, rows and columns are in both."
    elif few is not None and len(found.notes) > few:
        text.append(f"... and {len(found.notes) - few} more in {REPORT}.")
    return "\n\n".join([*text, "## In one sentence", sentence(found)]) + "\n"


def short(found: Comparison, *, few: int = 10) -> str:
    """The verdicts that changed, how much could not be compared, and the sentence."""
    changed, parts = _changed(found), []
    if len(changed):
        parts.append(_markdown(changed[:few]))
    if len(changed) > few:
        parts.append(f"... and {len(changed) - few} more verdicts that changed.")
    if found.notes:
        parts.append(f"Not compared ({len(found.notes)}): {'; '.join(found.notes[:3])}")
    return "\n\n".join([*parts, sentence(found)])


def closing(lab: Workspace) -> str:
    """The last line of a run: :func:`short`, or why there is no comparison."""
    try:
        found, path = saved(lab)
    except ValueError as error:
        return f"Not compared with the record {lab.record}: {error}"
    return f"{short(found)}\nMore: {path}"


def saved(lab: Workspace, record: str | Path | None = None) -> tuple[Comparison, Path]:
    """Compare a profile's run with its record, or another, and write its ``compare.md``.

    Raises
    ------
    ValueError
        There is no run or no record.
    """
    folder = lab.root / "runs" / lab.profile
    if not (folder / "figures").is_dir():
        raise ValueError(f"folder: there is no run of {lab.profile} in {folder}; make it first")
    found = folders(folder / "figures", lab.record if record is None else record)
    return found, write_text(folder / REPORT, report(found))
