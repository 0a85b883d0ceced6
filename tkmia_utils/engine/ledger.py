"""Results of an attack while it runs: a table to which each finished image adds its row."""

from collections.abc import Sequence
from dataclasses import fields

import torch

from tkmia_utils.attacks import AttackSpec
from tkmia_utils.condition import Stop
from tkmia_utils.engine.ends import REASONS, SUCCESS, Snapshot, Trace
from tkmia_utils.engine.result import AttackResult
from tkmia_utils.engine.trial import Trial


def note_name(name: str, limit: int) -> str:
    """What a ledger calls a field of the snapshot at `max_iter`."""
    return f"{name} at {limit}"


def blank_notes(n: int, classes: int, limits: Sequence[int]) -> dict[str, torch.Tensor]:
    """The fields of :class:`Snapshot` at every one of `limits`, with nothing noted yet."""
    notes = {}
    for limit in limits:
        notes[note_name("logits", limit)] = torch.full((n, classes), torch.nan)
        notes[note_name("l2", limit)] = torch.full((n,), torch.nan)
        notes[note_name("l2_paper", limit)] = torch.full((n,), torch.nan)
        notes[note_name("success", limit)] = torch.zeros(n, dtype=torch.bool)
    return notes


class Ledger:
    """Results so far: one row an image of the queue, written when the image leaves its slot.

    Parameters
    ----------
    n, classes : int
        N and C.
    image : torch.Size or None
        ``(3, H, W)`` to keep the adversarial images, None not to.
    snapshots : sequence of int
        Iterations with a snapshot.
    steps : int or None
        The largest limit, to keep a trace.
    files : bool
        Keep the logits of the finished images as files, see :meth:`tell_png`.

    Attributes
    ----------
    columns : dict of str to torch.Tensor
        By name, each with N rows, on the CPU.
    trace : Trace or None
        Written by the engine as it goes.
    """

    def __init__(
        self,
        n: int,
        classes: int,
        *,
        image: torch.Size | None,
        snapshots: Sequence[int] = (),
        steps: int | None = None,
        files: bool = False,
    ) -> None:
        self.columns = {
            "status": torch.zeros(n, dtype=torch.int64),
            "iterations": torch.zeros(n, dtype=torch.int64),
            "l2": torch.zeros(n),
            "l2_paper": torch.zeros(n),
            "clean_logits": torch.full((n, classes), torch.nan),
            "adversarial_logits": torch.full((n, classes), torch.nan),
            **blank_notes(n, classes, snapshots),
        }
        if image is not None:
            self.columns["adversarial"] = torch.empty(n, *image)
        if files:
            self.columns["png_logits"] = torch.full((n, classes), torch.nan)
        self.limits, self.trace = tuple(snapshots), None
        if steps is not None:
            many, one = (n, steps + 1, classes), (n, steps + 1)
            self.trace = Trace(torch.full(many, torch.nan), torch.full(one, torch.nan))
        self._entered: list[torch.Tensor] = []

    def enter(self, queue_index: torch.Tensor, rows: dict[str, torch.Tensor]) -> None:
        """Write rows `queue_index`, int64 ``(n,)``; the values may be on any device."""
        for name, column in self.columns.items():
            column[queue_index] = rows[name].to(column.device, column.dtype)
        self._entered.append(queue_index)

    def withdraw(self, queue_index: torch.Tensor) -> None:
        """Take rows for not yet entered: their images go on, and enter again."""
        gone = set(queue_index.tolist())
        if gone:
            self._entered = [
                rows[torch.tensor([row not in gone for row in rows.tolist()], dtype=torch.bool)]
                for rows in self._entered
            ]

    def tell_png(self, queue_index: torch.Tensor, logits: torch.Tensor) -> None:
        """Write the logits of rows that have entered, as the victim sees their files."""
        self.columns["png_logits"][queue_index] = logits.cpu()

    def drain(self) -> dict[str, torch.Tensor]:
        """Rows entered since this was last asked, with their numbers as ``queue_index``; or
        nothing.
        """
        if not self._entered:
            return {}
        queue_index, self._entered = torch.cat(self._entered), []
        if not len(queue_index):
            return {}
        return {
            "queue_index": queue_index,
            **{name: column[queue_index] for name, column in self.columns.items()},
        }

    def result(
        self,
        spec: AttackSpec,
        *,
        method: str,
        stop: Stop = Stop(),  # noqa: B008  (frozen, and so shared without harm)
        bits: int | None = None,
        passes: int = 1,
        trial: Trial | None = None,
    ) -> AttackResult:
        """Everything, in the order of the queue, with what was asked for."""
        columns, status = self.columns, self.columns["status"]
        return AttackResult(
            adversarial=columns.get("adversarial"),
            success=status == SUCCESS,
            iterations=columns["iterations"],
            l2=columns["l2"],
            l2_paper=columns["l2_paper"],
            clean_logits=columns["clean_logits"],
            adversarial_logits=columns["adversarial_logits"],
            reasons=tuple(REASONS[code] for code in status.tolist()),
            spec=spec,
            method=method,
            stop=stop,
            bits=bits,
            passes=passes,
            png_logits=columns.get("png_logits"),
            trace=self.trace,
            trial=trial,
            snapshots={
                limit: Snapshot(*(columns[note_name(f.name, limit)] for f in fields(Snapshot)))
                for limit in self.limits
            },
        )
