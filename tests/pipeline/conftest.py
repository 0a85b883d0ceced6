"""One folder in which the notebooks are run in their smallest size, for all who look at it."""

import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def workshop(tmp_path_factory) -> Path:
    """A folder with the notebooks and nothing else."""
    root = tmp_path_factory.mktemp("workshop")
    shutil.copytree(ROOT / "notebooks", root / "notebooks", ignore=shutil.ignore_patterns(".*"))
    return root
