"""The cells of an exercise in a notebook: blank for a reader, filled in for a teacher.

The solution in this package is the only source of both. A cell that asks for a function holds its
first lines and ``...``; filled in, it holds the solution between the marks that
:func:`tkmia_utils.course.strip.strip` cuts, so that stripping gives the blank again.
"""

import ast
import copy
import inspect
import re
import textwrap
from collections.abc import Mapping

from nbformat import NotebookNode

from tkmia_utils.course.exercise import Exercise
from tkmia_utils.hashing import EXERCISE

_CHECKED = re.compile(r"^check\.(?P<name>\w+)\((?P=name)\)$", re.M)


def blank(exercise: Exercise) -> str:
    """The code cell of an exercise as a reader finds it: a function without a body, and its check.

    Parameters
    ----------
    exercise : Exercise
        Which.
    """
    head, _ = _head_and_body(exercise)
    return f"{head}\n    ...\n\n\ncheck.{exercise.name}({exercise.name})"


def answered(exercise: Exercise) -> str:
    """The same cell with the solution, between marks that cut it.

    Parameters
    ----------
    exercise : Exercise
        Which.
    """
    head, body = _head_and_body(exercise)
    marked = f"    # begin solution: ...\n{body}\n    # end solution"
    return f"{head}\n{marked}\n\n\ncheck.{exercise.name}({exercise.name})"


def asked(cell: NotebookNode) -> str | None:
    """Name of the exercise that a cell asks for, or None.

    Parameters
    ----------
    cell : NotebookNode
        A cell; a code cell with the tag ``exercise`` asks by its last line,
        ``check.ndcg(ndcg)``.
    """
    if cell.cell_type != "code" or EXERCISE not in cell.metadata.get("tags", ()):
        return None
    found = _CHECKED.search(cell.source)
    return found["name"] if found else None


def fill(notebook: NotebookNode, exercises: Mapping[str, Exercise]) -> NotebookNode:
    """The teacher's copy of a notebook: each exercise that can be checked has its solution.

    Parameters
    ----------
    notebook : NotebookNode
        With blanks; it is not changed.
    exercises : mapping of str to Exercise
        By name.

    Raises
    ------
    ValueError
        A cell asks for an exercise that is not there.
    """
    teacher = copy.deepcopy(notebook)
    for cell in teacher.cells:
        name = asked(cell)
        if name is None:
            continue
        if name not in exercises:
            raise ValueError(f"notebook: cell {cell.get('id')} asks for {name!r}: no such exercise")
        cell.source = answered(exercises[name])
    return teacher


def _head_and_body(exercise: Exercise) -> tuple[str, str]:
    """Source of a solution up to the end of its docstring, and what follows."""
    lines = textwrap.dedent(inspect.getsource(exercise.solution)).rstrip().split("\n")
    (function,) = ast.parse("\n".join(lines)).body
    assert isinstance(function, ast.FunctionDef)
    end = function.body[0].end_lineno
    assert end is not None
    return "\n".join(lines[:end]), "\n".join(lines[end:])
