"""What an exercise is made of."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

Answer = Callable[..., Any]
Case = tuple[Any, ...]


@dataclass(frozen=True)
class Mutant:
    """A typical mistake.

    Attributes
    ----------
    message : str
        What a student who made it is told.
    answers : tuple of callable
        The mistake as code; several where it may look different and is the same to a reader.
    """

    message: str
    answers: tuple[Answer, ...]


def mutant(message: str, *answers: Answer) -> Mutant:
    """Write a :class:`Mutant` on one line."""
    return Mutant(message, answers)


def directly(answer: Answer, *case: Any) -> Any:
    """Call an answer with the inputs of a case, and take what it returns."""
    return answer(*case)


@dataclass(frozen=True, kw_only=True)
class Exercise:
    """An exercise and all that is needed to check it.

    Attributes
    ----------
    name : str
        Of the student's function, and of the check.
    number : str
        Notebook and place in it, "01.2".
    title, task : str
        A line, and what is to be written: arguments and value.
    points : float
        For a right answer.
    minutes : int
        How long it should take.
    cases : callable
        Makes inputs from a random generator, smaller ones first: the first that fails is shown.
    expected : callable
        The right value of a case, computed in float64 where it is a number.
    solution : callable
        A right answer to learn from. With `imports` before it, its source stands alone.
    others : tuple of callable
        Right answers that are written differently.
    mutants : tuple of Mutant
        Typical mistakes. The first that gives the student's values on all cases is told.
    hints : tuple of str
        Each says more than the one before.
    parts : tuple of str
        What the numbers of an answer are called, if it is several.
    imports : tuple of str
        Lines that the source of the solution needs.
    call : callable
        Calls the answer, given before the inputs of a case; may ask for more than its value.
    by_value : bool
        May the answer also be the value for inputs that the student has drawn?
    value_tolerance : float
        Largest error of such a value, which may have been rounded.
    tolerance : float
        Largest error of a function's value, absolute and relative: that of float32.
    """

    name: str
    number: str
    title: str
    task: str
    points: float
    minutes: int
    cases: Callable[[np.random.Generator], list[Case]]
    expected: Answer
    solution: Answer
    others: tuple[Answer, ...]
    mutants: tuple[Mutant, ...]
    hints: tuple[str, ...]
    parts: tuple[str, ...] = ()
    imports: tuple[str, ...] = ("import torch",)
    call: Answer = directly
    by_value: bool = False
    value_tolerance: float = 2e-3
    tolerance: float = 1e-5
