"""Ground floor: files that are whole or not there."""

import os
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any


def write_atomically(path: str | Path, writer: Callable[[Path], Any]) -> Path:
    """Write a file so that a reader sees the old one or the new one, never half of one.

    Parameters
    ----------
    path : str or Path
        The file to write; its folder is made when missing.
    writer : callable
        Called with a temporary path (same folder, same suffix) and writes it.

    Returns
    -------
    Path
        `path`.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".tmp-{secrets.token_hex(4)}-{path.name}")
    try:
        writer(temporary)
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return path
