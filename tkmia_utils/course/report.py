"""Results of grading for a person, for Gradescope and for a table of the whole course."""

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tkmia_utils.course.grade import Graded
from tkmia_utils.files import write_atomically

VISIBILITIES = ("hidden", "after_due_date", "after_published", "visible")
_LONGEST = 400  # characters of one text of a submission's


def as_markdown(graded: Graded, *, hidden: bool = True) -> str:
    """A table of one submission, to be read as it is or as markdown.

    Parameters
    ----------
    graded : Graded
        From :func:`tkmia_utils.course.grade.grade`.
    hidden : bool
        With hidden exercises and the teacher's notes; False for what a student may see.

    Returns
    -------
    str
        Ends with a newline.
    """
    shown = [m for m in graded.marks if hidden or not m.item.hidden]
    score = sum(m.score for m in shown)
    most = sum(m.item.points for m in shown)
    rows = [("exercise", "points", "status", "message")]
    for m in shown:
        name = m.item.name + (" (hidden)" if m.item.hidden else "")
        rows.append((name, f"{m.score:g} / {m.item.points:g}", m.status, _clean(m.message)))
    widths = [max(len(row[i].replace("|", r"\|")) for row in rows) for i in range(3)]
    lines = [f"# {_clean(graded.name)}: {score:g} of {most:g} points", ""]
    for number, row in enumerate(rows):
        cells = [cell.replace("|", r"\|") for cell in row]
        padded = [c.ljust(w) for c, w in zip(cells, widths, strict=False)]
        lines.append("| " + " | ".join([*padded, cells[3]]) + " |")
        if number == 0:
            lines.append("|" + "|".join("-" * (w + 2) for w in [*widths, len(cells[3])]) + "|")
    remarks = [f"- {_clean(problem)}" for problem in graded.problems]
    if hidden:
        remarks += [f"- {m.item.name}: {_clean(note)}" for m in shown for note in m.notes]
    return "\n".join([*lines, *([""] if remarks else []), *remarks]) + "\n"


def as_gradescope(graded: Graded, *, visibility: str = "after_published") -> dict[str, Any]:
    """What Gradescope reads from ``results.json``.

    Parameters
    ----------
    graded : Graded
        From :func:`tkmia_utils.course.grade.grade`.
    visibility : str
        Of hidden exercises, one of `VISIBILITIES`; the others are "visible".

    Returns
    -------
    dict
        To be written as JSON. ``score`` is the sum over all exercises; Gradescope itself keeps a
        total from the student while a test in it is hidden from them.

    Raises
    ------
    ValueError
        Another visibility.
    """
    if visibility not in VISIBILITIES:
        raise ValueError(f"visibility: expected one of {VISIBILITIES}, got {visibility!r}")
    tests = [
        {
            "name": m.item.name,
            "score": m.score,
            "max_score": m.item.points,
            "status": "passed" if m.status == "right" else "failed",
            "output": f"{m.status}: {_clean(m.message)}",
            "visibility": visibility if m.item.hidden else "visible",
        }
        for m in graded.marks
    ]
    return {
        "score": graded.score,
        "output": "\n".join(map(_clean, graded.problems)),
        "execution_time": round(graded.seconds, 2),
        "stdout_visibility": "hidden",
        "tests": tests,
    }


def as_csv(graded: Sequence[Graded]) -> str:
    """One row a submission: score, each exercise's points and status, problems."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    names = [m.item.name for m in graded[0].marks] if graded else []
    columns = [column for name in names for column in (name, f"{name}: status")]
    writer.writerow(["submission", "score", "max_score", "seconds", "problems", *columns])
    for one in graded:
        cells = [cell for m in one.marks for cell in (f"{m.score:g}", m.status)]
        lost = [f"{m.item.name}: {m.message}" for m in one.marks if m.broken]
        problems = _cell("; ".join(map(_clean, [*one.problems, *lost])))
        score = [f"{one.score:g}", f"{one.max_score:g}", f"{one.seconds:.1f}"]
        writer.writerow([_cell(_clean(one.name)), *score, problems, *cells])
    return file.getvalue()


def write(graded: Graded, folder: str | Path, *, visibility: str = "after_published") -> None:
    """Write the reports on one submission into a folder.

    They are ``results.json``, ``report.md`` for the teacher, and ``student.md`` without what is
    hidden.
    """
    folder = Path(folder)
    results = json.dumps(as_gradescope(graded, visibility=visibility), indent=1)
    write_text(results + "\n", folder / "results.json")
    write_text(as_markdown(graded), folder / "report.md")
    write_text(as_markdown(graded, hidden=False), folder / "student.md")


def write_text(text: str, path: str | Path) -> None:
    """Write a text file; it is whole or not there."""
    write_atomically(path, lambda p: p.write_text(text, encoding="utf-8", newline=""))


def _clean(text: str) -> str:
    """One line of a student's words that a terminal, a table and a file can take."""
    line = " ".join(text.encode("utf-8", "replace").decode().split())
    line = "".join(c if c.isprintable() else "?" for c in line)
    return line if len(line) <= _LONGEST else line[:_LONGEST] + " ..."


def _cell(text: str) -> str:
    """A cell that no spreadsheet takes for a formula."""
    return "'" + text if text.startswith(("=", "+", "-", "@")) else text
