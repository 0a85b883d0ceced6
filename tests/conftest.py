"""Ctrl-C ends the tests in time, with whatever they have begun, Ray's processes included."""

from contextlib import ExitStack

import pytest

from tkmia_utils.interruption import ending_in_time

STACK = pytest.StashKey[ExitStack]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[STACK] = ExitStack()
    config.stash[STACK].enter_context(ending_in_time())


def pytest_unconfigure(config: pytest.Config) -> None:
    config.stash[STACK].close()
