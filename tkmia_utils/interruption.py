"""Ctrl-C that ends a program in time, with all the processes it began."""

import os
import signal
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

import psutil


@contextmanager
def ending_in_time(seconds: float = 7.0) -> Iterator[None]:
    """Make sure that one Ctrl-C ends this program and all its descendants.

    Ctrl-C raises ``KeyboardInterrupt`` as ever. If somebody swallows it, or clearing up takes
    longer than `seconds`, the program ends all the same, with code 130. Processes that were begun
    before and are still there at the end (kernels, data loaders, Ray's) are killed.

    Parameters
    ----------
    seconds : float
        To clear up in.
    """
    family: list[psutil.Process] = []
    timers: list[threading.Timer] = []

    def give_up() -> None:
        _kill([*family, *_descendants()])
        print("\nstopped", file=sys.stderr, flush=True)
        os._exit(130)

    def interrupted(number: int, frame: FrameType | None) -> None:
        # now: children of a child that ends first are nobody's children later
        family.extend(_descendants())
        if not timers:
            timers.append(threading.Timer(seconds, give_up))
            timers[0].daemon = True
            timers[0].start()
        raise KeyboardInterrupt

    before = signal.getsignal(signal.SIGINT)
    in_main_thread = threading.current_thread() is threading.main_thread()
    if not in_main_thread or before in (signal.SIG_IGN, None):  # begun so as not to hear Ctrl-C
        yield
        return
    signal.signal(signal.SIGINT, interrupted)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        for timer in timers:
            timer.cancel()
        _kill(family)


def _descendants() -> list[psutil.Process]:
    with suppress(psutil.Error):
        return psutil.Process().children(recursive=True)
    return []


def _kill(family: Iterable[psutil.Process]) -> None:
    for process in set(family):
        with suppress(psutil.Error):  # gone, or another's by now
            if process.is_running():
                process.kill()
