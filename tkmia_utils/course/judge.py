"""Judge an answer: its values against the right ones, and against those of typical mistakes."""

import copy
import inspect
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from tkmia_utils.course.exercise import Answer, Case, Exercise
from tkmia_utils.course.reading import (
    Plain,
    Refused,
    difference,
    has_nan,
    plain,
    read,
    same,
    short,
)
from tkmia_utils.course.verdict import BLANK, RIGHT, WRONG, Verdict

SECONDS = 10.0
"""After so long no further case is tried; a call that never returns is for the reader to stop."""


@dataclass(frozen=True)
class Outcome:
    """What an answer made of one case.

    Attributes
    ----------
    value : Plain or None
        What it returned, where that could be read.
    trouble : str
        Why there is no value: what it raised, or what is wrong with what it returned.
    blank : bool
        Was nothing written yet?
    changed : str
        The input that it changed in place, if it did.
    """

    value: Plain | None = None
    trouble: str = ""
    blank: bool = False
    changed: str = ""


def judge_function(exercise: Exercise, answer: Answer, *, seed: int) -> Verdict:
    """Judge a function on random inputs; no answer makes this raise.

    Parameters
    ----------
    exercise : Exercise
        Which.
    answer : callable
        The student's function.
    seed : int
        Of the inputs.

    Returns
    -------
    Verdict
    """
    cases = exercise.cases(generator(exercise, seed))
    wanted = [plain(exercise.expected(*case)) for case in cases]
    trouble = _misfit(exercise, answer, cases[0])
    if trouble:
        return verdict(exercise, WRONG, trouble, seed=seed)
    begin = time.monotonic()
    outcomes: list[Outcome] = []
    for case, right in zip(cases, wanted, strict=True):
        outcome = _try(exercise, answer, case, right)
        if outcome.blank and not outcomes:
            return verdict(exercise, BLANK, outcome.trouble, seed=seed)
        outcomes.append(outcome)
        seconds = time.monotonic() - begin
        if seconds > SECONDS and len(outcomes) < len(cases):
            text = f"It is too slow: {seconds:.0f} s for {len(outcomes)} of {len(cases)} inputs."
            return verdict(exercise, WRONG, text, seed=seed)
    status, text = _compare(exercise, cases, wanted, outcomes, exercise.tolerance)
    return verdict(exercise, status, text, seed=seed)


def judge_value(exercise: Exercise, answer: Any, case: Case) -> Verdict:
    """Judge a value that the student has found for the inputs of one case."""
    if answer is None or answer is Ellipsis:
        return verdict(exercise, BLANK, "There is no answer yet.")
    right = plain(exercise.expected(*case))
    outcome = _read(answer, right)
    found = _compare(exercise, [case], [right], [outcome], exercise.value_tolerance)
    return verdict(exercise, *found)


def telling_case(exercise: Exercise, seed: int) -> Case:
    """Inputs on which as many typical mistakes as can be give a value that is not right."""
    best, most = exercise.cases(generator(exercise, seed))[0], -1
    for further in range(2):
        for case in exercise.cases(generator(exercise, seed + further)):
            right = plain(exercise.expected(*case))
            found = [_try(exercise, wrong, case, right) for _, wrong in _mistakes(exercise)]
            apart = sum(not _equal(Outcome(right), o, exercise.value_tolerance) for o in found)
            if apart == len(found):
                return case
            if apart > most:
                best, most = case, apart
    return best


def generator(exercise: Exercise, seed: int) -> np.random.Generator:
    """Random numbers that differ from exercise to exercise at one seed."""
    return np.random.default_rng([seed, *exercise.name.encode()])


def verdict(exercise: Exercise, status: str, text: str, *, seed: int | None = None) -> Verdict:
    """A verdict with the points that go with the status."""
    points = exercise.points if status == RIGHT else 0
    return Verdict(exercise.name, status, text, points, exercise.points, seed)


def inputs(exercise: Exercise, case: Case) -> str:
    """The inputs of a case by their names."""
    names = inspect.signature(exercise.solution).parameters
    return ", ".join(f"{name} = {short(v)}" for name, v in zip(names, case, strict=True))


def _misfit(exercise: Exercise, answer: Answer, case: Case) -> str:
    """What is wrong with the arguments that the function takes, or nothing."""
    try:
        signature = inspect.signature(answer)
    except Exception:  # some built-in functions do not tell
        return ""
    try:
        signature.bind(*case)
    except TypeError:
        wanted = ", ".join(inspect.signature(exercise.solution).parameters)
        return f"Your function takes {signature}, but it is called as {exercise.name}({wanted})."
    return ""


def _try(exercise: Exercise, answer: Answer, case: Case, right: Plain) -> Outcome:
    """Call an answer on a copy of the inputs."""
    given = copy.deepcopy(case)
    try:
        value = exercise.call(answer, *given)
    except NotImplementedError:
        return Outcome(blank=True, trouble="There is no answer yet.")
    except Refused as refusal:
        return Outcome(trouble=f"it gives no usable value: {refusal}")
    except (Exception, SystemExit) as error:
        return Outcome(trouble=f"it raises {_said(error)}")
    if value is None or value is Ellipsis:
        return Outcome(blank=True, trouble="It returns nothing: is there a return?")
    outcome = _read(value, right)
    names = inspect.signature(exercise.solution).parameters
    pairs = zip(names, case, given, strict=True)
    changed = [name for name, old, new in pairs if not _alike(old, new)]
    return replace(outcome, changed=changed[0] if changed else "")


def _read(value: Any, right: Plain) -> Outcome:
    try:
        return Outcome(value=read(value, right))
    except Refused as refusal:
        return Outcome(trouble=f"it gives no usable value: {refusal}")
    except Exception as error:  # an object that answers to nothing as it should
        return Outcome(trouble=f"it gives no usable value: {type(error).__name__} on reading it")


def _said(error: BaseException) -> str:
    """An exception in one line."""
    try:
        return " ".join(f"{type(error).__name__}: {error}".split())[:200]
    except Exception:  # one that cannot say what it is
        return type(error).__name__


def _compare(
    exercise: Exercise,
    cases: Sequence[Case],
    wanted: Sequence[Plain],
    outcomes: Sequence[Outcome],
    tolerance: float,
) -> tuple[str, str]:
    """Status and message."""
    rights = [Outcome(value=right) for right in wanted]
    bad = [i for i, o in enumerate(outcomes) if not _equal(rights[i], o, tolerance)]
    if not bad:
        for outcome in outcomes:
            if outcome.changed:
                text = f"The values are right, but it changes its input {outcome.changed} in place."
                return WRONG, f"{text} Work on a copy."
        return RIGHT, f"{exercise.title}: all values agree."
    for message, wrong in _mistakes(exercise):
        if _explains(exercise, wrong, cases, wanted, outcomes, bad, tolerance):
            return WRONG, message
    # what is raised or is no value is told first; else the smallest case that is wrong
    first = next((i for i in bad if outcomes[i].trouble), bad[0])
    return WRONG, _counterexample(exercise, cases[first], wanted[first], outcomes[first], tolerance)


def _explains(
    exercise: Exercise,
    wrong: Answer,
    cases: Sequence[Case],
    wanted: Sequence[Plain],
    outcomes: Sequence[Outcome],
    bad: Sequence[int],
    tolerance: float,
) -> bool:
    """Does a mistake give the student's values on every case? The wrong ones are asked first."""
    order = [*bad, *(i for i in range(len(cases)) if i not in set(bad))]
    return all(
        _equal(_try(exercise, wrong, cases[i], wanted[i]), outcomes[i], tolerance) for i in order
    )


def _counterexample(
    exercise: Exercise, case: Case, right: Plain, outcome: Outcome, tolerance: float
) -> str:
    where = f"For {inputs(exercise, case)}:"
    if outcome.trouble:
        return f"{where} {outcome.trouble.rstrip('.')}."
    value = outcome.value
    if has_nan(value) and not has_nan(right):
        return f"{where} it gives NaN, {short(value)}. Is something divided by 0?"
    fault = difference(value, right, tolerance, parts=exercise.parts)
    return f"{where} it gives {short(value)}, but {fault}."


def _mistakes(exercise: Exercise) -> Iterator[tuple[str, Answer]]:
    for mutant in exercise.mutants:
        for answer in mutant.answers:
            yield mutant.message, answer


def _equal(one: Outcome, other: Outcome, tolerance: float) -> bool:
    if one.value is None or other.value is None:
        return one.value is other.value and one.trouble == other.trouble
    return same(one.value, other.value, tolerance)


def _alike(old: Any, new: Any) -> bool:
    """Is an input what it was?"""
    if isinstance(old, torch.nn.Module):
        before, after = old.state_dict(), new.state_dict()
        return all(torch.equal(before[name], after[name]) for name in before)
    if isinstance(old, torch.Tensor):
        return old.shape == new.shape and torch.equal(old, new.detach())
    return bool(np.array_equal(old, new)) if isinstance(old, np.ndarray) else bool(old == new)
