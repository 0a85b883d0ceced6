"""New attacks from a widget: one at a time, in a thread of its own, and one can be cancelled."""

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from tkmia_utils.condition import STOPS
from tkmia_utils.explorer.recording import Recording, record
from tkmia_utils.report.figures import look_of
from tkmia_utils.validation import check_mask, check_one_of, is_int

METHODS = ("tkmia", "tkml_ap_u", "ml_cw_u", "kfool", "gmla", "tkmia_min")
MOST_STEPS = 500


class Cancelled(Exception):
    """Somebody asked for the end of an attack."""


@dataclass(frozen=True)
class Session:
    """A victim and the images on which it may be attacked.

    Attributes
    ----------
    model : torch.nn.Module or callable
        The victim, as for :func:`tkmia_utils.attack`.
    images : torch.Tensor
        float32 ``(N, 3, H, W)`` in [0, 1].
    labels : torch.Tensor
        Bool ``(N, C)``: relevant labels.
    names, classes : sequence of str
        N names of images and C of classes.
    lr, alpha : float
        Of the attacks that take them, in the paper's [-1, 1] pixels.

    Raises
    ------
    ValueError
        Labels that are not one row an image, or not as many names as there should be.
    """

    model: Callable[[torch.Tensor], torch.Tensor]
    images: torch.Tensor
    labels: torch.Tensor
    names: Sequence[str]
    classes: Sequence[str]
    lr: float = 1e-3
    alpha: float = 1e-4

    def __post_init__(self) -> None:
        """Check that the parts belong together."""
        check_mask(self.labels, self.labels, name="labels")
        if self.labels.ndim != 2 or len(self.labels) != len(self.images):
            raise ValueError(
                f"labels: expected ({len(self.images)}, C), got {tuple(self.labels.shape)}"
            )
        if len(self.names) != len(self.images) or len(set(self.names)) != len(self.names):
            raise ValueError(
                f"names: expected {len(self.images)} different ones, got {list(self.names)}"
            )
        if len(self.classes) != self.labels.shape[1]:
            raise ValueError(
                f"classes: expected {self.labels.shape[1]} names, got {len(self.classes)}"
            )

    def offer(self) -> dict[str, Any]:
        """What can be asked for, as plain values."""
        rows = zip(self.names, self.labels, strict=True)
        return {
            "images": [
                {"name": name, "labels": [self.classes[c] for c in row.nonzero().flatten()]}
                for name, row in rows
            ],
            "methods": [[name, look_of(name).name] for name in METHODS],
            "stops": list(STOPS),
            "most_k": len(self.classes) - 1,
            "most_steps": MOST_STEPS,
        }

    def run(self, wish: Mapping[str, Any], on_step: Callable[[int], None]) -> Recording:
        """Attack as asked and record it.

        Parameters
        ----------
        wish : mapping
            ``image`` and ``hide`` (names), ``k``, ``method``, ``stop``, ``bits`` (8 or None) and
            ``max_iter``.
        on_step : callable
            Is told the number of every step; what it raises ends the attack.

        Returns
        -------
        dict
            A recording.

        Raises
        ------
        ValueError
            A wish that cannot be granted; the message begins with its name.
        """
        check_one_of(wish.get("image"), tuple(self.names), name="image")
        at = list(self.names).index(str(wish["image"]))
        hide = wish.get("hide")
        if not isinstance(hide, list | tuple) or not hide:
            raise ValueError("hide: expected at least one label to hide, got none")
        for name in hide:
            check_one_of(name, tuple(self.classes), name="hide")
        check_one_of(wish.get("method"), METHODS, name="method")
        check_one_of(wish.get("stop"), tuple(STOPS), name="stop")
        check_one_of(wish.get("bits"), (None, 8), name="bits")
        steps, k = wish.get("max_iter"), wish.get("k")
        if not is_int(steps) or not 1 <= steps <= MOST_STEPS:
            raise ValueError(f"steps: expected a whole number 1 to {MOST_STEPS}, got {steps!r}")
        if not is_int(k):
            raise ValueError(f"k: expected a whole number, got {k!r}")
        specified = torch.tensor([name in hide for name in self.classes])
        return record(
            self.model, self.images[at], self.labels[at], specified, k,
            image_name=self.names[at], classes=self.classes, method=str(wish["method"]),
            stop=str(wish["stop"]), bits=wish["bits"], max_iter=steps, lr=self.lr,
            alpha=self.alpha, on_step=on_step,
        )  # fmt: skip


class Job:
    """One attack in a thread.

    Parameters
    ----------
    run : callable
        Does it; is given a function that it tells every step, which raises :class:`Cancelled` when
        somebody asked for the end.
    step : callable
        Is told the number of every step, in the thread.
    done : callable
        Is given, in the thread, a recording; or what went wrong, which is :class:`Cancelled` after
        :meth:`cancel`.
    """

    def __init__(
        self,
        run: Callable[[Callable[[int], None]], Recording],
        *,
        step: Callable[[int], None],
        done: Callable[[Recording | Exception], None],
    ) -> None:
        self._run, self._step, self._done = run, step, done
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._work, name="explorer", daemon=True)
        self._thread.start()

    def cancel(self) -> None:
        """Ask for the end; it comes before the next step."""
        self._ended.set()

    def wait(self, seconds: float | None = None) -> bool:
        """Wait for the end; False if it has not come after so many seconds."""
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def _watch(self, step: int) -> None:
        if self._ended.is_set():
            raise Cancelled
        self._step(step)

    def _work(self) -> None:
        try:
            end: Recording | Exception = self._run(self._watch)
        except Exception as error:  # told, since nobody sees what a thread raises
            end = error
        self._done(end)
