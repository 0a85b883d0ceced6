"""Check answers to the exercises: ``from tkmia_utils.course import check``.

For every exercise there is a function of its name, which takes the student's function (or, where
the exercise says so, a value) and answers with a :class:`Verdict`::

    check.task("ndcg")        # what is to be written
    check.ndcg(my_function)   # not attempted, wrong (and what is wrong), or right
    check.hint("ndcg")        # the next hint, each says more
    check.solution("ndcg")    # a right answer, as source
    check.draw("slope")       # inputs for which a value may be handed in
    check.progress()          # what was checked since the kernel was started

Inputs are random, anew at each call. What was tried is kept in memory, in one object that is made
at the first check, and is gone with the kernel.
"""

import inspect
import secrets
from collections.abc import Callable, Mapping
from functools import partial
from itertools import chain
from types import MappingProxyType
from typing import Any

import pandas as pd

from tkmia_utils.course import (
    alarm,
    attack,
    audit,
    classifier,
    closed_form,
    convexity,
    data,
    defending,
    imperceptible,
    least_norm,
    lemma,
    many,
    measures,
    places,
    primer,
    refill,
    rivals,
    steps,
    tables,
    toy,
    watching,
)
from tkmia_utils.course.exercise import Exercise
from tkmia_utils.course.judge import judge_function, judge_value, telling_case, verdict
from tkmia_utils.course.session import session
from tkmia_utils.course.verdict import BLANK, RIGHT, WRONG, Text, Verdict

_TOPICS = (
    *(toy, measures, places, alarm, lemma, closed_form, convexity, data, classifier, primer),
    *(attack, steps, refill, many, rivals, tables, audit, imperceptible, least_norm, watching),
    *(defending,),
)
EXERCISES: Mapping[str, Exercise] = MappingProxyType(
    {
        exercise.name: exercise
        for exercise in sorted(
            chain.from_iterable(topic.EXERCISES for topic in _TOPICS),
            key=lambda exercise: exercise.number,
        )
    }
)
"""All exercises by name, in the order of the notebooks."""


def __getattr__(name: str) -> Callable[..., Verdict]:
    """Give the check of an exercise, as ``check.ndcg``."""
    if name not in EXERCISES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    check = partial(run, name)
    check.__doc__ = str(task(name))
    return check


def __dir__() -> list[str]:
    """List the exercises as well, for completion with the Tab key."""
    return sorted([*globals(), *EXERCISES])


def run(name: str, answer: Any, *, seed: int | None = None) -> Verdict:
    """Check an answer; ``check.ndcg(answer)`` is ``check.run("ndcg", answer)``.

    Parameters
    ----------
    name : str
        Of the exercise.
    answer : callable or value
        The student's function; or a value, where the exercise has inputs to draw.
    seed : int, optional
        Of the random inputs; default another one at each call. A verdict tells its own.

    Returns
    -------
    Verdict
        Whatever the answer does, short of never returning.

    Raises
    ------
    ValueError
        No such exercise.
    """
    exercise = _exercise(name)
    found = _judged(exercise, answer, secrets.randbits(32) if seed is None else seed)
    session().verdicts.setdefault(name, []).append(found)
    return found


def _judged(exercise: Exercise, answer: Any, seed: int) -> Verdict:
    if callable(answer):
        return judge_function(exercise, answer, seed=seed)
    if answer is None or answer is Ellipsis:
        return verdict(exercise, BLANK, "There is no answer yet.")
    if not exercise.by_value:
        text = f"Hand in your function {exercise.name} itself, without calling it."
        return verdict(exercise, WRONG, text)
    if exercise.name not in session().drawn:
        text = f'Draw inputs first: check.draw("{exercise.name}"). Or hand in a function.'
        return verdict(exercise, BLANK, text)
    return judge_value(exercise, answer, session().drawn[exercise.name])


def draw(name: str, *, seed: int | None = None) -> dict[str, Any]:
    """Draw the inputs of an exercise whose answer may be a value.

    Parameters
    ----------
    name : str
        Of the exercise.
    seed : int, optional
        Of the draw; default another one at each call.

    Returns
    -------
    dict
        The inputs by name. The next value is checked against the last draw.

    Raises
    ------
    ValueError
        No such exercise, or one whose answer is a function.
    """
    exercise = _exercise(name)
    if not exercise.by_value:
        raise ValueError(f"name: {name} wants a function, and no inputs are drawn for it")
    case = telling_case(exercise, secrets.randbits(32) if seed is None else seed)
    session().drawn[name] = case
    return dict(zip(inspect.signature(exercise.solution).parameters, case, strict=True))


def task(name: str) -> Text:
    """Say what is to be written.

    Raises
    ------
    ValueError
        No such exercise.
    """
    e = _exercise(name)
    return Text(f"{e.number} {e.title} ({e.points:g} points, {e.minutes} minutes). {e.task}")


def hint(name: str) -> Text:
    """Give the next hint of an exercise; after the last one, the last one again.

    Raises
    ------
    ValueError
        No such exercise.
    """
    hints, given = _exercise(name).hints, session().hinted.get(name, 0)
    at = min(given, len(hints) - 1)
    session().hinted[name] = given + 1
    more = f' Next: check.solution("{name}").' if at == len(hints) - 1 else ""
    return Text(f"Hint {at + 1} of {len(hints)}: {hints[at]}{more}")


def solution(name: str) -> Text:
    """Show the source of a right answer, with the imports that it needs.

    Raises
    ------
    ValueError
        No such exercise.
    """
    exercise = _exercise(name)
    head = "".join(f"{line}\n" for line in exercise.imports)
    return Text(f"{head}\n\n{inspect.getsource(exercise.solution)}".lstrip())


def progress() -> pd.DataFrame:
    """List what was checked since the kernel was started.

    Returns
    -------
    pandas.DataFrame
        One row an exercise in the order of the notebooks, with its best result, and their sum. A
        point that was reached stays, whatever is tried afterwards.
    """
    rows: list[tuple[Any, ...]] = []
    for exercise in EXERCISES.values():
        tries = session().verdicts.get(exercise.name, [])
        if tries:
            best = next((v for v in tries if v.status == RIGHT), tries[-1])
            hints = min(session().hinted.get(exercise.name, 0), len(exercise.hints))
            head = (exercise.number, exercise.name, exercise.title)
            rows.append((*head, best.status, len(tries), hints, best.points, best.of))
    right = sum(row[3] == RIGHT for row in rows)
    sums = [sum(row[column] for row in rows) for column in (4, 5, 6, 7)]
    rows.append(("", "all of these", "", f"{right} right", *sums))
    columns = ["", "exercise", "title", "status", "tries", "hints", "points", "of"]
    return pd.DataFrame(rows, columns=columns).set_index("")


def _exercise(name: str) -> Exercise:
    if name not in EXERCISES:
        raise ValueError(f"name: expected one of {', '.join(EXERCISES)}, got {name!r}")
    return EXERCISES[name]
