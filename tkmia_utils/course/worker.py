"""The process that runs a student's functions; sandbox.py starts it.

It knows no expected answer: checks and comparisons stay in the grader. What is shut here keeps
accidents and simple tricks out (see sandbox.py for what it does not).
"""

import ctypes
import inspect
import io
import json
import math
import os
import random
import signal
import socket
import sys
import types
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from tkmia_utils.course.wire import Peer, where

CLOSED = "tkmia_utils.course"


class _NoSocket(socket.socket):
    """What ``socket.socket`` is in here."""

    def __init__(self, *_: Any, **__: Any) -> None:
        raise PermissionError("no network while grading")


class _Closed:
    """A finder that refuses the checks, which know the answers."""

    def find_spec(self, name: str, *_: Any) -> None:
        """Refuse a closed name and leave any other to the next finder."""
        if name == CLOSED or name.startswith(CLOSED + "."):
            raise ModuleNotFoundError(f"{name} is closed while grading", name=name)


class _Clipped(io.TextIOBase):
    """Keeps the first characters that are printed and counts the rest."""

    def __init__(self, most: int) -> None:
        self.most, self.count, self.kept = most, 0, ""

    def writable(self) -> bool:
        """It is."""
        return True

    def write(self, text: str) -> int:
        """Keep what there is room for."""
        self.kept += text[: max(self.most - len(self.kept), 0)]
        self.count += len(text)
        return len(text)

    def take(self) -> str:
        """What was printed since the last time."""
        kept, more = self.kept, self.count - len(self.kept)
        self.kept, self.count = "", 0
        return kept + (f" ... and {more} characters more" if more else "")


def _prepare(statements: Sequence[tuple[int, int, str]], name: str) -> dict[str, Any]:
    """The function of that name, from statements (cell, line, text), and what failed."""
    module = types.ModuleType("__main__")  # by this name dataclasses and the like look it up
    sys.modules["__main__"] = module
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002 (students may use the global generator)
    torch.manual_seed(0)
    troubles = []
    for cell, line, text in statements:
        try:
            code = compile("\n" * (line - 1) + text, f"<cell {cell}>", "exec", dont_inherit=True)
            exec(code, module.__dict__)
        except BaseException as error:  # SystemExit as well: one statement, not the end
            what = f"{type(error).__name__}: {error}"[:300]
            troubles.append(f"cell {cell}: {what}{where(error)}")
    function = module.__dict__.get(name)
    if not callable(function):
        return {"function": None, "troubles": troubles, "parameters": None}
    return {"function": function, "troubles": troubles, "parameters": _parameters(function)}


def _parameters(function: Any) -> list[tuple[str, int, bool]] | None:
    """Name, kind and "has a default" of each parameter, where Python can tell."""
    try:
        found = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return None
    return [(p.name, int(p.kind), p.default is not p.empty) for p in found]


def _limit(memory: int, seconds: float) -> None:
    """Bound what this process can take; what it has already is not counted."""
    import resource  # not on Windows, where sandbox.py refuses to start

    with (
        open("/proc/self/statm") if os.path.exists("/proc/self/statm") else io.StringIO("0") as file
    ):
        used = int(file.read().split()[0]) * resource.getpagesize()
    bounds = {
        resource.RLIMIT_AS: used + memory,
        resource.RLIMIT_FSIZE: 1 << 26,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_CPU: math.ceil(seconds),  # for what escaped the clock of the grader
    }
    for kind, bound in bounds.items():
        try:
            resource.setrlimit(kind, (bound, bound))
        except (ValueError, OSError):  # a lower one is in force
            pass
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # then a write raises OSError


def main() -> None:
    """Shut what must be shut, then answer calls until the grader is gone."""
    read, write, options = int(sys.argv[1]), int(sys.argv[2]), json.loads(sys.argv[3])
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: no orphan that loops
    torch.set_num_threads(1)
    loaded = {name for name in sys.modules if name.startswith(CLOSED)}
    if loaded - {CLOSED, f"{CLOSED}.plain", f"{CLOSED}.wire"}:
        raise RuntimeError(f"the student's process would hold {sorted(loaded)}")
    for name in loaded:
        del sys.modules[name]
    shut = os.open(os.devnull, os.O_WRONLY)
    os.dup2(shut, 2)  # it was a file, for errors of the start
    os.remove("errors")
    printed = _Clipped(options["printed"])
    sys.stdout = sys.stderr = printed
    sys.argv = [""]
    socket.socket = socket.SocketType = _NoSocket  # type: ignore[misc]
    sys.meta_path.insert(0, _Closed())
    peer = Peer(read, write, aside=printed.take, catch=BaseException)

    def prepare(statements: Sequence[tuple[int, int, str]], name: str) -> dict[str, Any]:
        peer.forget(keep=1)
        return _prepare(statements, name)

    peer.export(prepare)
    _limit(options["memory"], options["seconds"])
    try:
        peer.serve()
    finally:
        os._exit(0)  # threads of the student's do not hold us


if __name__ == "__main__":
    main()
