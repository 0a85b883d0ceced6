"""The explorer as a widget of JupyterLab: recorded attacks, and new ones in the kernel."""

import threading
import time
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import anywidget
import traitlets

from tkmia_utils.explorer.recording import Recording, checked
from tkmia_utils.explorer.session import Cancelled, Job, Session

FOLDER = Path(__file__).parent
MODULE = "\n".join((FOLDER / f"{n}.js").read_text("utf-8") for n in ("drawing", "explorer"))
STYLE = (FOLDER / "explorer.css").read_text("utf-8")
PAUSE = 0.1  # seconds between two words on the progress


class Explorer(anywidget.AnyWidget):
    """Recorded attacks to walk through, step by step and two at a time.

    Parameters
    ----------
    recordings : sequence of dict
        What :func:`tkmia_utils.explorer.recording.record` returned.
    session : Session, optional
        With it new attacks can be run.

    Attributes
    ----------
    recordings : list of dict
        Grows by every new attack.
    step : int
        Where the slider stands.
    shown : list of str
        The ``id`` of the recording on the left and of that on the right; "" for none.
    offer : dict
        What new attacks may be asked for; empty without a session.
    state : str
        "idle", "running" or "cancelling".
    progress : list of int
        Steps taken by the attack that runs, and the most that it may take.
    message : str
        How the last one ended.
    """

    _esm = MODULE
    _css = STYLE

    recordings = traitlets.List(traitlets.Dict()).tag(sync=True)
    step = traitlets.Int(0, min=0).tag(sync=True)
    shown = traitlets.List(traitlets.Unicode()).tag(sync=True)
    offer = traitlets.Dict().tag(sync=True)
    state = traitlets.Enum(["idle", "running", "cancelling"], "idle").tag(sync=True)
    progress = traitlets.List(traitlets.Int(), default_value=[0, 1]).tag(sync=True)
    message = traitlets.Unicode("").tag(sync=True)

    def __init__(self, recordings: Sequence[Recording] = (), session: Session | None = None):
        kept = checked(list(recordings))
        super().__init__(
            recordings=kept,
            shown=first_pair(kept),
            offer={} if session is None else session.offer(),
        )
        self.session = session
        self.job: Job | None = None
        self._lock = threading.RLock()  # the thread that attacks changes the state too
        self.on_msg(self._asked)

    def attack(self, wish: Mapping[str, Any]) -> None:
        """Begin a new attack, unless one is running.

        Parameters
        ----------
        wish : mapping
            As for :meth:`tkmia_utils.explorer.session.Session.run`.
        """
        session, most = self.session, wish.get("max_iter")
        with self._lock:
            if session is None or self.state != "idle":
                return
            self.message = ""
            self.progress = [0, most if isinstance(most, int) and most > 0 else 1]
            self.state = "running"
            self.job = Job(
                lambda watch: session.run(wish, watch), step=self._stepped, done=self._ended
            )

    def cancel(self) -> None:
        """Ask the attack that runs to end."""
        with self._lock:
            if self.job is not None and self.state == "running":
                self.state = "cancelling"
                self.job.cancel()

    def _asked(self, _: object, content: Mapping[str, Any], __: object) -> None:
        if content.get("do") == "attack":
            self.attack(content.get("wish", {}))
        elif content.get("do") == "cancel":
            self.cancel()

    _told = 0.0

    def _stepped(self, step: int) -> None:
        now = time.monotonic()
        if now - self._told >= PAUSE:
            self._told = now
            self.progress = [step, self.progress[1]]

    def _ended(self, end: Recording | Exception) -> None:
        """Show what the thread has come to; in every case the next attack may begin."""
        if isinstance(end, Exception):
            self.message = (
                "Cancelled: nothing was recorded."
                if isinstance(end, Cancelled)
                else f"Not possible: {end}"
            )
        else:
            # into the list itself: to set it anew would send all recordings once more
            self.recordings[:] = checked([*self.recordings, end])
            self.send({"new": end})
            steps = len(end["l2"]) - 1
            self.message = f"{end['name']} ended after {steps} steps: {end['reason']}."
        with self._lock:
            self.state = "idle"


def first_pair(recordings: Sequence[Recording]) -> list[str]:
    """Two recordings of the same image, labels and k to begin with, by ``id``.

    The first two of which one lost more in a measure, or else the first two; "" stands for none.
    """
    pairs = [
        (one, other) for one, other in combinations(recordings, 2) if _scene(one) == _scene(other)
    ]
    differ = [pair for pair in pairs if _falls(pair[0]) != _falls(pair[1])]
    for one, other in [*differ, *pairs][:1]:
        return [one["id"], other["id"]]
    return [recordings[0]["id"] if recordings else "", ""]


def _scene(one: Recording) -> tuple[object, ...]:
    return one["image"], tuple(one["specified"]), one["k"]


def _falls(one: Recording) -> list[float]:
    return [values[0] - values[one["result"]] for values in one["measures"].values()]
