"""For all tests: Ctrl-C ends them in time, Ray's processes included; and there is one browser."""

import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from tkmia_utils.interruption import ending_in_time

STACK = pytest.StashKey[ExitStack]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[STACK] = ExitStack()
    config.stash[STACK].enter_context(ending_in_time())


def pytest_unconfigure(config: pytest.Config) -> None:
    config.stash[STACK].close()


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """A browser without a screen, where there is one."""
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("there is no program chromium")
    with api.sync_playwright() as playwright:
        arguments = ["--no-sandbox", "--disable-gpu"]
        found = playwright.chromium.launch(executable_path=chromium, args=arguments)
        yield found
        found.close()
