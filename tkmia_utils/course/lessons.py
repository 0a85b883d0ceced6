"""What the notebooks say of themselves: goals, minutes, what comes before, and their exercises.

A notebook begins with one Markdown cell: title, minutes in italics, what comes before it, goals.
An exercise begins with a Markdown cell ``### 01.2 · NDCG@k`` and a line of points and minutes; if
it is marked by hand, answer and marking follow, folded.
"""

import re
from dataclasses import dataclass
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from tkmia_utils.course.cells import asked

WORDS = 130  # read in a minute, of prose with formulas
LINES = 12  # of code, read in a minute
FIGURE = 0.75  # minutes for a figure or a table
ROUND = 5  # minutes
_NUMBER = re.compile(r"^### (?P<number>\d\d[a-z]?\.\d+) · (?P<title>.+)$", re.M)
_SCORE = re.compile(
    r"^\*(?P<points>[\d.]+) points? · (?P<minutes>\d+) minutes · (?P<by>checked|marked by hand)\*$",
    re.M,
)
_MINUTES = re.compile(
    r"^\*Reading (?P<reading>\w+) min · exercises (?P<exercises>\w+) min · machine (?P<machine>.+?)"
    r" on two CPU cores",
    re.M,
)
_BEFORE = re.compile(r"^Before this: (?P<before>.+?)$", re.M | re.S)
_FOLD = re.compile(r"<details[^>]*>\s*<summary>.*?</summary>(?P<text>.*?)</details>", re.S)
_SHOWS = re.compile(r"save_figure|save_table|plt\.show|\.slider\(")


@dataclass(frozen=True)
class Task:
    """An exercise as a notebook sets it.

    Attributes
    ----------
    number, title : str
        "01.2", "NDCG@k".
    points : float
        For a right answer.
    minutes : int
        How long it should take.
    text : str
        What is asked for, Markdown, without an answer.
    name : str or None
        Of the check; None where a person marks it.
    marking : str
        Answer and marking of one that a person marks; empty otherwise.
    """

    number: str
    title: str
    points: float
    minutes: int
    text: str
    name: str | None = None
    marking: str = ""


@dataclass(frozen=True)
class Lesson:
    """A notebook as a syllabus lists it.

    Attributes
    ----------
    name, title : str
        File without its ending, and headline.
    goals : tuple of str
        What one can do after it.
    before : str
        What it rests on, Markdown; empty if nothing.
    reading, exercises : int
        Minutes to read it, and for its exercises, as its header says.
    machine : str
        Its time on two cores, in words.
    tasks : tuple of Task
        Its exercises in order.
    """

    name: str
    title: str
    goals: tuple[str, ...]
    before: str
    reading: int
    exercises: int
    machine: str
    tasks: tuple[Task, ...]


def read_lesson(path: str | Path) -> Lesson:
    """Read what a notebook says of itself.

    Parameters
    ----------
    path : str or Path
        The notebook.

    Raises
    ------
    ValueError
        Its first cell does not tell title and minutes, or an exercise tells no points.
    """
    path = Path(path)
    notebook = nbformat.read(path, as_version=4)
    head = notebook.cells[0].source
    minutes = _MINUTES.search(head)
    if not head.startswith("# ") or minutes is None:
        raise ValueError(
            f"{path.name}: its first cell has no line '*Reading ... min · exercises ... min · "
            "machine ... on two CPU cores ...*'"
        )
    before = _BEFORE.search(head)
    goals = re.findall(r"^- (.+(?:\n  .+)*)", head, re.M)
    numbers = [minutes[part] for part in ("reading", "exercises")]
    if not all(number.isdigit() for number in numbers):
        raise ValueError(f"{path.name}: expected minutes as numbers, got {' and '.join(numbers)}")
    return Lesson(
        name=path.stem,
        title=head.split("\n")[0].removeprefix("# "),
        goals=tuple(" ".join(goal.split()).rstrip(";.") for goal in goals),
        before=" ".join(before["before"].split()) if before else "",
        reading=int(numbers[0]),
        exercises=int(numbers[1]),
        machine=minutes["machine"],
        tasks=tuple(tasks(notebook, name=path.name)),
    )


def tasks(notebook: NotebookNode, *, name: str = "notebook") -> list[Task]:
    """The exercises of a notebook in their order.

    Parameters
    ----------
    notebook : NotebookNode
        With or without answers.
    name : str
        What messages call it.

    Raises
    ------
    ValueError
        An exercise without a line of points and minutes.
    """
    found = []
    for cell, following in zip(notebook.cells, [*notebook.cells[1:], None], strict=True):
        title = _NUMBER.search(cell.source) if cell.cell_type == "markdown" else None
        if title is None:
            continue
        score = _SCORE.search(cell.source)
        if score is None:
            raise ValueError(
                f"{name}: exercise {title['number']}: expected a line '*3 points · 15 minutes · "
                "checked*' or '... · marked by hand*'"
            )
        checked = score["by"] == "checked"
        folds = [fold["text"].strip() for fold in _FOLD.finditer(cell.source)]
        task = Task(
            number=title["number"],
            title=title["title"].strip(),
            points=float(score["points"]),
            minutes=int(score["minutes"]),
            text=_FOLD.sub("", cell.source[score.end() :]).strip(),
            name=asked(following) if checked and following is not None else None,
            marking="" if checked else "\n\n".join(folds),
        )
        if (checked and task.name is None) or (not checked and not task.marking):
            missing = "the cell that checks it" if checked else "its answer and marking"
            raise ValueError(f"{name}: exercise {task.number}: {missing} is missing")
        found.append(task)
    return found


def reading_minutes(notebook: NotebookNode) -> int:
    """Minutes to read a notebook: its prose, its code, its figures; without its exercises.

    An estimate by rule (130 words of prose, 12 lines of code, three quarters of a minute for a
    figure or a table), in steps of five minutes. Formulas count as words.

    Parameters
    ----------
    notebook : NotebookNode
        Folded answers are left out.
    """
    total = 0.0
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            text = cell.source
            if text.startswith("## Exercises") or _NUMBER.search(text):
                continue
            total += len(_FOLD.sub("", text).split()) / WORDS
        elif "exercise" not in cell.metadata.get("tags", ()):
            lines = [line for line in cell.source.split("\n") if line.strip()]
            total += len(lines) / LINES + FIGURE * len(_SHOWS.findall(cell.source))
    return max(ROUND, round(total / ROUND) * ROUND)
