"""Atomic file writes: a file is whole or not there, and nothing is left of killed writers."""

import hashlib
import os
import platform
import re
import secrets
import shutil
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

try:
    import fcntl
except ImportError:  # Windows: no locks; what is left there goes after a day
    fcntl = None

LOCK = "writer.lock"
DAY = 24 * 3600.0
_OURS = re.compile(r"\.tmp-tkmia-([0-9a-f]{8})-[0-9a-f]{8}")

# Whether a writer lives is told by a lock and not by a process number: a lock goes with its process
# whatever ends it, is never taken for another's, and is seen from a container as well. flock works
# on Linux, macOS and NFS. Some shared file systems know locks of their own machine only, or none:
# the name says the machine, and other machines' leftovers go only when untouched for a day. The
# lock lies in a folder beside what is written, because some writers put files of their own there.


def write_atomically(path: str | Path, writer: Callable[[Path], Any]) -> Path:
    """Write a file so that a reader sees the old one or the new one, never half of one.

    What killed writers left in the same folder is removed on the way.

    Parameters
    ----------
    path : str or Path
        The file to write; its folder is made when missing.
    writer : callable
        Called with a temporary path (same name, same file system) and writes it.

    Returns
    -------
    Path
        `path`.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    sweep(path.parent)
    home, lock = _locked_home(path.parent)
    try:
        temporary = home / path.name
        writer(temporary)
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        _clear(home)
        os.close(lock)
    return path


def sweep(folder: str | Path) -> None:
    """Remove what killed writers of ours left in `folder`; living ones and others' files stay."""
    try:
        found = [entry.path for entry in os.scandir(folder) if _OURS.fullmatch(entry.name)]
    except FileNotFoundError:
        return
    for home in map(Path, found):
        here = _OURS.fullmatch(home.name)[1] == _machine()
        try:
            lock = os.open(home / LOCK, os.O_RDWR)
        except FileNotFoundError:  # killed before it had a lock, and so empty; a living one begins
            if here:  # again. One that has its lock by now is not empty any more, and stays.
                with suppress(OSError):
                    home.rmdir()
            continue
        except OSError:  # another user's
            continue
        try:
            if _lock(lock, wait=False, unknown=False) if here else _untouched(home):
                _clear(home)
        finally:
            os.close(lock)


def sweep_all(folders: Iterable[str | Path]) -> None:
    """Do :func:`sweep` in folders and all folders below them."""
    for folder in folders:
        for here, below, _ in os.walk(folder):
            below[:] = [name for name in below if not name.startswith(".")]
            sweep(here)


def _machine() -> str:
    return hashlib.sha256(platform.node().encode()).hexdigest()[:8]


def _locked_home(folder: Path) -> tuple[Path, int]:
    """A new folder for what is being written, and the lock in it."""
    while True:
        home = folder / f".tmp-tkmia-{_machine()}-{secrets.token_hex(4)}"
        home.mkdir()
        try:
            lock = os.open(home / LOCK, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
        except FileNotFoundError:  # swept before it had a lock
            continue
        _lock(lock, wait=True, unknown=True)
        if os.fstat(lock).st_nlink:
            return home, lock
        os.close(lock)  # swept before it was locked


def _lock(file: int, *, wait: bool, unknown: bool) -> bool:
    """Lock an open file; False where another has it, `unknown` where there are no locks."""
    if fcntl is None:
        return unknown
    try:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    except OSError:
        return unknown
    return True


def _untouched(home: Path) -> bool:
    """Did nothing in it change for a day? A write takes minutes."""
    try:
        last = max(path.stat().st_mtime for path in (home, *home.iterdir()))
    except OSError:
        return False
    return time.time() - last > DAY


def _clear(home: Path) -> None:
    """Remove such a folder, its lock last: after a kill in between the next sweep finds it."""
    try:
        for path in home.iterdir():
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            elif path.name != LOCK:
                path.unlink(missing_ok=True)
        (home / LOCK).unlink(missing_ok=True)
        home.rmdir()
    except OSError:
        pass  # another sweeps as well, or it is not empty: the next sweep comes
