"""A page of the browser, for the explorer."""

from collections.abc import Iterator
from typing import Any

import pytest


@pytest.fixture
def page(browser) -> Iterator[Any]:
    """A new page; an error in its scripts is a failure of the test."""
    found = browser.new_page(viewport={"width": 1100, "height": 900})
    errors: list[str] = []
    found.on("pageerror", lambda error: errors.append(str(error)))
    yield found
    found.close()
    assert errors == []
