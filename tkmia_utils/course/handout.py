"""A course as two folders: one for students, one for the teacher; ``make course OUT=dir``.

The students' folder installs by itself (``make setup`` or ``pip install .``): the package, the
notebooks without answers, and the trained victim of the embedded default, so that a class attacks
one and the same. The teacher's folder has the same notebooks with all answers, a marking guide, a
syllabus, and three sheets: a laboratory of 90 minutes, homework, an exam.
"""

import shutil
from collections.abc import Sequence
from functools import partial
from importlib import import_module
from pathlib import Path

import nbformat

from tkmia_utils.course.cells import fill
from tkmia_utils.course.lessons import Lesson, Task, read_lesson
from tkmia_utils.course.strip import strip
from tkmia_utils.files import write_atomically

# What a student needs beside the notebooks; no tests, no record.
PACKED = (
    *("tkmia_utils", "data", "pyproject.toml", "constraints.txt", "environment.yml", "LICENSE"),
    *(
        "CITATION.cff",
        "docs/glossary.md",
        "docs/course.md",
        "docs/your_own_model.md",
        "docs/api.md",
    ),
)
LAB = ("05.1", "05.2", "05.3", "05.4")
HOMEWORK = ("01.3", "02.2", "06.4", "07.1", "07.4", "08.2", "08.4")
EXAM = ("00.1", "01.1", "02.1", "02.4", "02.5", "04.3", "08.3")
SHEETS = {
    "lab": ("A laboratory of 90 minutes", LAB, "With notebook 05 and a running kernel."),
    "homework": ("Homework", HOMEWORK, "One or two weeks; hand in the notebooks."),
    "exam": ("Exam", EXAM, "On paper, without a computer; the notebooks are closed."),
}
README = """\
# TkMIA Lab, students' copy

```sh
make setup   # .venv with what the notebooks need: minutes, once; Python 3.11 or newer
make lab     # the notebooks in JupyterLab; begin with 00_start_here
```

Without `make`: `python -m venv .venv`, `.venv/bin/python -m pip install -c constraints.txt -e .`,
and `.venv/bin/python -m jupyter lab --notebook-dir=notebooks`.

Exercises stand at the end of each notebook. Write in place of `...`; the cell says whether it is
right. [How that works](docs/course.md); [words and symbols](docs/glossary.md). Hand in notebooks.

{victim}
"""
MAKEFILE = """\
PYTHON ?= python3
RUN := .venv/bin/python

.PHONY: setup lab

setup: .venv/.ready

.venv/.ready: pyproject.toml constraints.txt
\ttest -x $(RUN) || $(PYTHON) -m venv .venv
\t$(RUN) -m pip install --quiet --constraint constraints.txt --editable .
\ttouch $@

lab: setup
\t$(RUN) -m jupyter lab -y --notebook-dir=notebooks $(LAB_FLAGS)
"""


def make_course(root: str | Path, out: str | Path) -> Path:
    """Write the students' and the teacher's folder.

    Parameters
    ----------
    root : str or Path
        The repository.
    out : str or Path
        A new or an empty folder, outside of what is copied.

    Returns
    -------
    Path
        `out`, with ``students/`` and ``teacher/``.

    Raises
    ------
    ValueError
        `out` holds something, or a notebook does not tell what :mod:`lessons` reads. Nothing is
        written then.
    """
    root, out = Path(root).resolve(), Path(out).resolve()
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"out: expected a new or an empty folder, got {out}")
    if any(out.is_relative_to(root / part) for part in ("tkmia_utils", "data", "notebooks")):
        raise ValueError(f"out: expected a folder that is not copied itself, got {out}")
    paths = sorted((root / "notebooks").glob("*.ipynb"))
    lessons = [read_lesson(path) for path in paths]
    exercises = import_module("tkmia_utils.course.check").EXERCISES
    sources = [nbformat.read(path, as_version=4) for path in paths]
    for path, source in zip(paths, sources, strict=True):
        for home, notebook in (
            ("students", strip(source, name=path.name)),
            ("teacher", fill(source, exercises)),
        ):
            target = out / home / "notebooks" / path.name
            write_atomically(target, partial(nbformat.write, notebook))
    students, teacher = out / "students", out / "teacher"
    _pack(root, students)
    _write(students / "README.md", README.format(victim=_victims(root, students)))
    _write(students / "Makefile", MAKEFILE)
    _write(teacher / "syllabus.md", syllabus(lessons))
    _write(teacher / "marking_guide.md", marking_guide(lessons))
    for name, (title, numbers, note) in SHEETS.items():
        text = sheet(lessons, title=title, numbers=numbers, note=note)
        for home in (teacher,) if name == "exam" else (teacher, students):
            _write(home / f"{name}.md", text)
    return out


def syllabus(lessons: Sequence[Lesson]) -> str:
    """What is learned in which order, with minutes and prerequisites, as Markdown.

    Parameters
    ----------
    lessons : sequence of Lesson
        In the order of the course.
    """
    lines = [
        "# Syllabus",
        "",
        "Minutes of reading are an estimate by rule (130 words or 12 lines of code each);",
        "those of exercises are what their authors allow. What a machine computes is extra.",
        "",
        "| lesson | reading | exercises | points | machine |",
        "|---|---|---|---|---|",
    ]
    for lesson in lessons:
        points = sum(task.points for task in lesson.tasks)
        lines.append(
            f"| {lesson.title} | {lesson.reading} min | {lesson.exercises} min | {points:g} |"
            f" {lesson.machine} |"
        )
    reading = sum(lesson.reading for lesson in lessons)
    exercises = sum(lesson.exercises for lesson in lessons)
    points = sum(task.points for lesson in lessons for task in lesson.tasks)
    hours = f"{reading / 60:.0f} h | {exercises / 60:.0f} h"
    lines.append(f"| **all** | {hours} | {points:g} | |")
    for lesson in lessons:
        lines += ["", f"## {lesson.title}", ""]
        if lesson.before:
            lines += [f"Before this: {lesson.before}", ""]
        lines += ["After this one can", "", *(f"- {goal}" for goal in lesson.goals)]
        if lesson.tasks:
            lines += ["", "Exercises: " + "; ".join(_short(task) for task in lesson.tasks) + "."]
    return "\n".join(lines) + "\n"


def marking_guide(lessons: Sequence[Lesson]) -> str:
    """How each exercise is marked: the check's mistakes, or the answer for a person, as Markdown.

    Parameters
    ----------
    lessons : sequence of Lesson
        In the order of the course.
    """
    exercises = import_module("tkmia_utils.course.check").EXERCISES
    lines = [
        "# Marking guide",
        "",
        "What is *checked* is graded by `python -m tkmia_utils.course grade`, all points or none;",
        "the messages below are what a student with a typical mistake is told. What is *marked by",
        "hand* has its answer here.",
    ]
    for lesson in lessons:
        if lesson.tasks:
            lines += ["", f"## {lesson.title}"]
        for task in lesson.tasks:
            lines += ["", f"### {_short(task)}", ""]
            if task.name is None:
                lines += [task.text, "", task.marking]
                continue
            lines += [f"Checked: `{task.name}`.", ""]
            lines += [f"- {mutant.message}" for mutant in exercises[task.name].mutants]
    return "\n".join(lines) + "\n"


def sheet(lessons: Sequence[Lesson], *, title: str, numbers: Sequence[str], note: str) -> str:
    """A sheet of exercises, without answers, as Markdown.

    Parameters
    ----------
    lessons : sequence of Lesson
        That set them.
    title, note : str
        Headline, and a sentence under it.
    numbers : sequence of str
        Which exercises, in order.

    Raises
    ------
    ValueError
        No lesson sets one of them.
    """
    known = {task.number: task for lesson in lessons for task in lesson.tasks}
    missing = [number for number in numbers if number not in known]
    if missing:
        raise ValueError(f"numbers: no lesson sets {', '.join(missing)}")
    chosen = [known[number] for number in numbers]
    points, minutes = sum(t.points for t in chosen), sum(t.minutes for t in chosen)
    lines = [f"# {title}", "", f"{note} {points:g} points, {minutes} minutes."]
    for task in chosen:
        lines += ["", f"## {_short(task)}", "", task.text]
    return "\n".join(lines) + "\n"


def _short(task: Task) -> str:
    by = "" if task.name else ", by hand"
    return f"{task.number} {task.title} ({task.points:g} points, {task.minutes} min{by})"


def _pack(root: Path, into: Path) -> None:
    ignored = shutil.ignore_patterns("__pycache__", ".*", "voc", "coco", "nus")
    for part in PACKED:
        source, target = root / part, into / part
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, ignore=ignored)
        else:
            shutil.copy(source, target)


def _victims(root: Path, students: Path) -> str:
    """Copy the trained victim of the embedded default; say in a sentence what was done."""
    from tkmia_utils.victims import store

    trained = root / "runs" / "quick" / "victim.safetensors"
    if not trained.is_file():
        return "No trained victim is enclosed: notebook 04 trains one, in 3 to 5 minutes."
    key = store.load(trained, device="cpu").key
    target = students / "cache" / f"victim-{key}.safetensors"
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(trained, target)
    return (
        f"The trained victim is enclosed (`cache/{target.name}`): notebook 04 takes it instead of "
        "training one, so all of you attack the same."
    )


def _write(path: Path, text: str) -> None:
    write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))
