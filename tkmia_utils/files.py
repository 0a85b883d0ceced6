"""Files that are whole or not there, and the litter of writers that were killed.

A file is written under a temporary name beside its own, which says who writes it: host, process
and the moment that process began. What a killed process leaves is therefore known by its name, and
the next one that writes to the folder removes it. Names were preferred to locks, which do not work
on every network file system.
"""

import hashlib
import os
import re
import secrets
import socket
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

TEMPORARY = re.compile(r"\.tmp-(?P<host>[0-9a-f]{8})-(?P<pid>\d+)-(?P<begun>\d+)-[0-9a-f]{8}-.+")


def write_atomically(path: str | Path, writer: Callable[[Path], Any]) -> Path:
    """Write a file so that a reader sees the old one or the new one, never half of one.

    The first file that a process writes to a folder also removes what killed writers left there.

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
    _sweep_once(str(path.parent.absolute()), os.getpid())
    writer_name = f"{_host()}-{os.getpid()}-{_begun(os.getpid()) or 0}"
    temporary = path.with_name(f".tmp-{writer_name}-{secrets.token_hex(4)}-{path.name}")
    try:
        writer(temporary)
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


def sweep(folder: str | Path, *, deep: bool = False) -> list[Path]:
    """Remove temporary files of dead writers of this host; all others are left alone.

    Parameters
    ----------
    folder : str or Path
        Where to look; nothing happens where it is not there.
    deep : bool
        Look in the folders below it too.

    Returns
    -------
    list of Path
        What was removed.
    """
    removed = []
    for path in Path(folder).glob("**/.tmp-*" if deep else ".tmp-*"):
        named = TEMPORARY.fullmatch(path.name)
        if named and named["host"] == _host() and _is_dead(int(named["pid"]), int(named["begun"])):
            path.unlink(missing_ok=True)
            removed.append(path)
    return sorted(removed)


@lru_cache(maxsize=1024)
def _sweep_once(folder: str, pid: int) -> None:
    """`pid` is part of the key, so that a forked process looks for itself."""
    sweep(folder)


@lru_cache(maxsize=1)
def _host() -> str:
    return hashlib.sha256(socket.gethostname().encode()).hexdigest()[:8]


def _is_dead(pid: int, begun: int) -> bool:
    now = _begun(pid)
    return now is None or (begun > 0 and now > 0 and now != begun)


def _begun(pid: int) -> int | None:
    """When a process began, in ticks since the machine did; 0 if unknown, None if it is gone."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        # the command in the brackets may itself hold spaces and brackets
        state, *rest = stat.rpartition(")")[2].split()
        return None if state in "ZX" else int(rest[18])
    except (OSError, ValueError, IndexError):
        pass
    if os.name == "nt" or Path("/proc/self/stat").exists():
        return 0 if os.name == "nt" else None
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        pass
    return 0
