"""Exercises."""

from tkmia_utils.course.exercise import Exercise

EXERCISES: tuple[Exercise, ...] = ()
