"""A student's functions in a process of their own, with bounds on time, memory and output.

What holds. Expected answers and verdicts exist in the grader's process only; the student's gets the
arguments of each call and sends back values (plain.py), so searching its own memory or frames,
printing "right" or writing to the pipe can win nothing that returning a value could not. A loop, a
crash, ``os._exit``, too much memory, or a flood of output ends that process and no other.

What does not hold: this is no sandbox against malice. The process has the rights of whoever grades.
It can read the files that user can read (the text of the checks among them, which students have
anyway), find a network below Python's ``socket``, start processes that hide, kill the grader, or,
where the system lets processes of one user read each other's memory, read the grader's. For
strangers' code run the whole grader in a container without a network, as Gradescope does.
"""

import ctypes
import inspect
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import psutil

from tkmia_utils.course.wire import Lost, Peer, Remote

_KINDS = (
    inspect.Parameter.POSITIONAL_ONLY,
    inspect.Parameter.POSITIONAL_OR_KEYWORD,
    inspect.Parameter.VAR_POSITIONAL,
    inspect.Parameter.KEYWORD_ONLY,
    inspect.Parameter.VAR_KEYWORD,
)
_ROOT = Path(__file__).parents[2]
_KEPT = ("PATH", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "SYSTEMROOT")


class CannotStart(RuntimeError):
    """Nothing can be run here: the machine's fault and no student's."""


@dataclass(frozen=True)
class Limits:
    """What a submission may take.

    Attributes
    ----------
    exercise, total, start : float
        Seconds for one exercise, for all of them, and for the process to start (each time; not
        counted in the others).
    memory : int
        Bytes beyond what Python and torch take; not enforced on macOS.
    reply : int
        Bytes of one value that a function returns.
    printed : int
        Characters of output that are kept, a call.

    Raises
    ------
    ValueError
        One that is not positive.
    """

    exercise: float = 20.0
    total: float = 180.0
    start: float = 60.0
    memory: int = 2 << 30
    reply: int = 64 << 20
    printed: int = 300

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not value > 0:
                raise ValueError(f"{name}: expected more than 0, got {value}")


class Sandbox:
    """A context in which functions of one submission can be called; the process starts when needed.

    Parameters
    ----------
    limits : Limits
        See there.
    """

    def __init__(self, limits: Limits) -> None:
        if os.name != "posix":
            raise RuntimeError("grading needs Linux or macOS: Windows has no resource limits")
        self._limits = limits
        self._left = limits.total
        self._end = float("inf")
        self._process: subprocess.Popen[bytes] | None = None
        self._peer: Peer | None = None
        self._files: list[int] = []
        self._folder = ""

    def __enter__(self) -> "Sandbox":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def run(
        self, name: str, statements: Sequence[tuple[int, int, str]], use: "Callable[[Student], Any]"
    ) -> Any:
        """Call `use` with a student's function, under the time limit of one exercise.

        Parameters
        ----------
        name : str
            The function's.
        statements : sequence of (int, int, str)
            What it needs, in order: cell, first line, text.
        use : callable
            Called with the :class:`Student`; it runs in this process.

        Returns
        -------
        Any
            What `use` returned.

        Raises
        ------
        Lost
            The process ended before there was a function, or the total time is used up.
        CannotStart
            The process could not be started.
        """
        if self._left <= 0:
            raise Lost(f"the submission used up its {self._limits.total:g} s before this exercise")
        if self._peer is None:
            self._start()
        begin = time.monotonic()
        self._end = begin + min(self._limits.exercise, self._left)
        try:
            student = Student(self, name, statements)
            result = use(student)
            if student.lost:
                self.close()
            return result
        except BaseException:
            self.close()  # whatever it was, the next exercise begins anew
            raise
        finally:
            self._left -= time.monotonic() - begin

    def peer(self) -> Peer:
        """The connection.

        Raises
        ------
        Lost
            There is none any more.
        """
        if self._peer is None:
            raise Lost("the process ended")
        return self._peer

    def why(self, error: Lost) -> str:
        """A loss in words for the report."""
        if str(error) == "out of time":
            if self._left < self._limits.exercise:
                return f"out of time (all exercises together: {self._limits.total:g} s)"
            return f"out of time (limit {self._limits.exercise:g} s): an endless loop?"
        if str(error) == "the process ended" and self._process is not None:
            try:
                code = self._process.wait(1)
            except subprocess.TimeoutExpired:
                return "its process closed the connection"
            how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
            return f"its process ended ({how}): os._exit, a crash or out of memory"
        return str(error)

    def close(self) -> None:
        """End the process and what it started, and remove its folder."""
        if self._process is not None:
            try:
                os.killpg(self._process.pid, signal.SIGKILL)
            except (ProcessLookupError, PermissionError):
                pass
            self._process.wait()
            _end_strays(self._folder)
        for file in self._files:
            os.close(file)
        if self._folder:
            shutil.rmtree(self._folder, ignore_errors=True)
        self._process, self._peer, self._files, self._folder = None, None, [], ""

    def _start(self) -> None:
        self._folder = tempfile.mkdtemp(prefix="tkmia-grade-")
        theirs_in, ours_out = os.pipe()
        ours_in, theirs_out = os.pipe()
        self._files = [ours_in, ours_out]
        limits = self._limits
        options = {
            "printed": limits.printed,
            "memory": limits.memory,
            "seconds": 2 * (limits.total + limits.start),
        }
        command = [sys.executable, "-P", "-m", "tkmia_utils.course.worker"]
        own = {"HOME": self._folder, "TMPDIR": self._folder, "PYTHONPATH": str(_ROOT)}
        own |= {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
        own |= {"MPLBACKEND": "agg", "CUDA_VISIBLE_DEVICES": ""}
        errors = Path(self._folder) / "errors"
        file = os.open(errors, os.O_WRONLY | os.O_CREAT)
        try:
            self._process = subprocess.Popen(
                [*command, str(theirs_in), str(theirs_out), json.dumps(options)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=file,
                pass_fds=(theirs_in, theirs_out),
                cwd=self._folder,
                env={name: os.environ[name] for name in _KEPT if name in os.environ} | own,
                start_new_session=True,
            )
        finally:
            for theirs in (theirs_in, theirs_out, file):
                os.close(theirs)
        self._peer = Peer(ours_in, ours_out, deadline=lambda: self._end, largest=self._limits.reply)
        self._end = time.monotonic() + self._limits.start
        try:
            self._peer.call(0, ([], ""), {})  # answers once everything is imported
        except Lost as error:
            last = errors.read_text(errors="replace").strip().splitlines()[-1:]
            self.close()
            why = " ".join([str(error), *last])
            raise CannotStart(f"the process for students' functions: {why}") from error


class Student:
    """A student's function, as a check calls it.

    Attributes
    ----------
    lost : str
        Why its process is gone, empty while it lives. A check may take the exception for one of the
        student's; the grader looks here.
    troubles : list of str
        What failed among the statements it needs.
    called : int
        How many calls were begun.
    missing : bool
        Is there no function of that name, after all statements?
    """

    def __init__(
        self, sandbox: Sandbox, name: str, statements: Sequence[tuple[int, int, str]]
    ) -> None:
        self.__name__ = self.__qualname__ = name
        self.lost = ""
        self.troubles: list[str] = []
        self.called = 0
        self.missing = True
        self._sandbox = sandbox
        self._peer = sandbox.peer()
        self._peer.forget()
        self._peer.asides.clear()
        self._peer.changed = 0
        first = [tuple(statement) for statement in statements]
        made = self._ask(lambda: self._peer.call(0, (first, name), {}))
        self.troubles = [str(line)[:400] for line in made["troubles"]][:5]
        self._signature = None if made["parameters"] is None else _signature(made["parameters"])
        self._function = made["function"] if isinstance(made["function"], Remote) else None
        self.missing = self._function is None
        if self.missing and not self.troubles:
            self.troubles = [f"{name} is no function"]

    def as_function(self) -> Callable[..., Any]:
        """A plain function that calls it, with its name and its signature (defaults are ...)."""

        def function(*args: Any, **kwargs: Any) -> Any:
            return self(*args, **kwargs)

        function.__name__ = function.__qualname__ = self.__name__
        function.__doc__ = None
        if self._signature is not None:
            function.__signature__ = self._signature  # type: ignore[attr-defined]
        return function

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call it in its process."""
        self.called += 1
        if self._function is None:
            raise NameError(f"{self.__name__} could not be defined: {self.troubles[0]}")
        function = self._function
        return self._ask(lambda: function(*args, **kwargs))

    @property
    def notes(self) -> list[str]:
        """What a teacher may want to know: output, and arguments changed in place."""
        notes = [f"printed: {text}" for text in self._peer.asides[:1]]
        if self._peer.changed:
            notes.append("it changed an argument in place")
        return notes

    def _ask(self, call: Callable[[], Any]) -> Any:
        if self.lost:
            raise Lost(self.lost)
        try:
            return call()
        except Lost as error:
            self.lost = self._sandbox.why(error)
            raise Lost(self.lost) from None


def _signature(parameters: Sequence[tuple[str, int, bool]]) -> inspect.Signature:
    made = [
        inspect.Parameter(
            str(name),
            _KINDS[kind],
            default=... if optional else inspect.Parameter.empty,
        )
        for name, kind, optional in parameters
    ]
    return inspect.Signature(made)


def _end_strays(folder: str) -> None:
    """End processes that left the group; all that began in this sandbox have its folder as TMPDIR.

    What they have started in the meantime is found in the next round.
    """
    for _ in range(10):
        found = False
        for process in psutil.process_iter():
            try:
                if process.environ().get("TMPDIR") == folder and process.status() != "zombie":
                    process.kill()
                    found = True
            except (psutil.Error, OSError):  # another user's, or gone
                continue
        if not found:
            return
        time.sleep(0.02)  # the system takes a moment to end them


def guard(*, memory: int = 8 << 30) -> None:
    """Protect this process, the grader: for a command line, since it cannot be undone.

    No other process of this user may read its memory (Linux, and not against root). A comparison
    that a student's value makes enormous fails, at `memory` bytes of address space more than there
    are, and does not take the machine down.
    """
    if sys.platform != "linux":
        return
    import resource  # not on Windows

    ctypes.CDLL(None).prctl(4, 0, 0, 0, 0)  # PR_SET_DUMPABLE
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    _, most = resource.getrlimit(resource.RLIMIT_AS)
    bound = used + memory if most == resource.RLIM_INFINITY else min(used + memory, most)
    resource.setrlimit(resource.RLIMIT_AS, (bound, most))
