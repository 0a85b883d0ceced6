"""Grade submissions: each exercise by the name of its function, whatever else a notebook holds."""

import difflib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from tkmia_utils.course.collect import Submission, collect, repeated
from tkmia_utils.course.sandbox import CannotStart, Limits, Sandbox, Student
from tkmia_utils.course.wire import Lost

STATUSES = ("not attempted", "wrong", "right")


class Result(Protocol):
    """What a check returns."""

    @property
    def status(self) -> str:
        """One of `STATUSES`."""

    @property
    def message(self) -> str:
        """For the student."""


@dataclass(frozen=True)
class Item:
    """One exercise.

    Attributes
    ----------
    name : str
        Of the student's function.
    points : float
        For a right answer; a wrong one has none.
    check : callable
        Called with the function; returns a :class:`Result`. It runs in the grader, and each call
        of the function is made in the student's process: arguments and values are numbers, text,
        containers, arrays, tensors (with gradients), random generators and functions of such. A
        check should compare shapes first, and compute what it expects before it calls.
    hidden : bool
        Is its result kept from the student?
    number : str
        Notebook and place in it, "01.2"; may be empty.
    """

    name: str
    points: float
    check: Callable[[Any], Result]
    hidden: bool = False
    number: str = ""


@dataclass(frozen=True)
class Mark:
    """The result of one exercise.

    Attributes
    ----------
    item : Item
        Which.
    status : str
        One of `STATUSES`.
    message : str
        Why, for the student.
    notes : tuple of str
        What the teacher may want to know.
    broken : bool
        Was it something else than a wrong value: a loop, a crash, a definition that fails?
    """

    item: Item
    status: str
    message: str
    notes: tuple[str, ...] = ()
    broken: bool = False

    @property
    def score(self) -> float:
        """All points or none."""
        return self.item.points if self.status == "right" else 0.0


@dataclass(frozen=True)
class Graded:
    """The results of one submission.

    Attributes
    ----------
    name : str
        The submission's.
    marks : tuple of Mark
        In the order of the exercises.
    problems : tuple of str
        What was wrong with the notebook, a line each.
    seconds : float
        Time it took.
    """

    name: str
    marks: tuple[Mark, ...]
    problems: tuple[str, ...]
    seconds: float

    @property
    def score(self) -> float:
        """Points reached, hidden ones as well."""
        return sum(m.score for m in self.marks)

    @property
    def max_score(self) -> float:
        """Points there are."""
        return sum(m.item.points for m in self.marks)


def grade(
    path: str | Path,
    items: Sequence[Item],
    *,
    limits: Limits | None = None,
    name: str | None = None,
) -> Graded:
    """Grade one submission; nothing that is in it raises.

    Parameters
    ----------
    path : str or Path
        The student's notebook.
    items : sequence of Item
        What it is asked for.
    limits : Limits, optional
        Time, memory and output it may take.
    name : str, optional
        What the report calls it; the file's name without it.

    Returns
    -------
    Graded
        A mark on each exercise.

    Raises
    ------
    ValueError
        No exercises, or two of one name.
    CannotStart
        The machine cannot run students' functions, which is not to cost them points.
    """
    names = [item.name for item in items]
    if not names or len(set(names)) < len(names):
        raise ValueError(f"items: expected one or more, each name once, got {names}")
    begin = time.monotonic()
    submission = collect(path, name=name)
    problems = list(submission.problems)
    for function, cells in repeated(submission, names).items():
        where = ", ".join(map(str, cells))
        problems.append(f"{function} is defined in code cells {where}: the last counts")
    with Sandbox(limits or Limits()) as sandbox:
        marks = tuple(_mark(e, submission, sandbox, names) for e in items)
    return Graded(submission.name, marks, tuple(problems), time.monotonic() - begin)


def grade_folder(
    folder: str | Path, items: Sequence[Item], *, limits: Limits | None = None
) -> Iterator[Graded]:
    """Grade each notebook below a folder, one after the other, in the order of their names.

    Parameters
    ----------
    folder : str or Path
        Submissions are called by their path in it.
    items, limits
        As in :func:`grade`.

    Yields
    ------
    Graded
        One a submission; a broken one has its problems told, and the next follows.

    Raises
    ------
    ValueError
        No notebooks there, or `items` that :func:`grade` refuses.
    """
    folder = Path(folder)
    paths = sorted(p for p in folder.rglob("*.ipynb") if ".ipynb_checkpoints" not in p.parts)
    if not paths:
        raise ValueError(f"folder: expected notebooks in {folder}, got none")
    for path in paths:
        name = path.relative_to(folder).as_posix()
        yield grade(path, items, limits=limits, name=name)


def _mark(item: Item, submission: Submission, sandbox: Sandbox, names: Sequence[str]) -> Mark:
    """Grade one exercise."""
    if not submission.cells_of(item.name):
        return Mark(item, "not attempted", _missing(item.name, submission, names))

    def use(student: Student) -> Mark:
        if student.missing and item.name not in submission.functions():  # a value by that name
            why = _missing(item.name, submission, names)
            return Mark(item, "not attempted", why, tuple(student.troubles))
        troubles = tuple(student.troubles)
        try:
            result = item.check(student.as_function())
            status, message = str(result.status), str(result.message)
            if status not in STATUSES:
                raise ValueError(f"check: expected a status of {STATUSES}, got {status!r}")
        except Exception as error:  # a check should not raise, and must not stop the grading
            status, message = "wrong", f"the check stopped with {type(error).__name__}: {error}"
        if student.lost:  # whatever the check made of it
            status, message = "wrong", student.lost
        elif status == "right" and not student.called:
            status, message = "wrong", "the check did not call the function"
        elif status != "right" and troubles:
            message += f" [{troubles[0]}]"
        broken = status == "wrong" and bool(student.lost or troubles)
        return Mark(item, status, message, (*troubles, *student.notes), broken)

    try:
        mark: Mark = sandbox.run(item.name, submission.needed(item.name), use)
    except Lost as error:
        return Mark(item, "wrong", str(error), broken=True)
    except CannotStart:
        raise
    except Exception as error:  # the student's process answers what none of ours would
        why = f"its process talks nonsense ({type(error).__name__})"
        return Mark(item, "wrong", why, broken=True)
    return mark


def _missing(name: str, submission: Submission, names: Sequence[str]) -> str:
    """No function of that name: which others there are, the likeliest first."""
    others = [other for other in submission.functions() if other not in names]
    near = difflib.get_close_matches(name, others, n=len(others) or 1, cutoff=0.0)
    found = ", ".join(near[:5]) + (", ..." if len(near) > 5 else "")
    return f"no function {name} in the notebook" + (f"; found: {found}" if found else "")
