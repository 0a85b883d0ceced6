"""What an attack returns."""

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace

import torch

REASONS = ("running", "success", "limit", "logits not finite", "gradient not finite")
RUNNING, SUCCESS, LIMIT, BAD_LOGITS, BAD_GRADIENT = range(5)


@dataclass(frozen=True)
class Trace:
    """What happened at every iteration; NaN after an image has finished.

    Attributes
    ----------
    logits : torch.Tensor
        float32 ``(N, T + 1, C)``; entry 0 is the clean image.
    l2 : torch.Tensor
        float32 ``(N, T + 1)``, norm of the perturbation in [0, 1] pixels.
    """

    logits: torch.Tensor
    l2: torch.Tensor


@dataclass(frozen=True)
class Snapshot:
    """Where the images stood at one iteration; NaN for those that had finished before.

    Attributes
    ----------
    logits : torch.Tensor
        float32 ``(N, C)``.
    l2, l2_paper : torch.Tensor
        float32 ``(N,)``: norms in [0, 1] and in the paper's pixels.
    success : torch.Tensor
        Bool ``(N,)``: do these logits succeed? An image goes on in spite of that only in an
        arithmetic other than plain fp32, whose own logits did not say so.
    """

    logits: torch.Tensor
    l2: torch.Tensor
    l2_paper: torch.Tensor
    success: torch.Tensor


@dataclass(frozen=True)
class AttackResult:
    """What an attack returns, all tensors on the CPU and in the order of the images given.

    Attributes
    ----------
    adversarial : torch.Tensor or None
        float32 ``(N, 3, H, W)`` in [0, 1]: the first image that succeeded, or the last one tried.
        None with ``keep_images=False``.
    success : torch.Tensor
        Bool ``(N,)``: at least delta specified labels are outside the top k of the logits of the
        very image that is returned.
    iterations : torch.Tensor
        int64 ``(N,)``: steps taken; 0 where the clean image already met the condition.
    l2 : torch.Tensor
        float32 ``(N,)``: norm of the perturbation over pixels in [0, 1].
    l2_paper : torch.Tensor
        float32 ``(N,)``: the same in the paper's [-1, 1] pixels, twice as large. (The released
        variant of TkMIA reports its norm before a tanh instead.)
    clean_logits, adversarial_logits : torch.Tensor
        float32 ``(N, C)``.
    reasons : tuple of str
        Why each image stopped: "success", "limit", "logits not finite", "gradient not finite".
    trace : Trace or None
        With ``record=True``.
    snapshots : dict of int to Snapshot
        By iteration, as asked for; see :meth:`at`.
    """

    adversarial: torch.Tensor | None
    success: torch.Tensor
    iterations: torch.Tensor
    l2: torch.Tensor
    l2_paper: torch.Tensor
    clean_logits: torch.Tensor
    adversarial_logits: torch.Tensor
    reasons: tuple[str, ...]
    trace: Trace | None = None
    snapshots: dict[int, Snapshot] = field(default_factory=dict)

    def at(self, limit: int) -> "AttackResult":
        """Answer what a run with ``max_iter=limit`` would have returned.

        No schedule depends on the limit, so a longer run passes through the shorter one's states.
        Of images that were still at work then, logits and norms are those of that iteration; their
        pixels were not kept and are NaN.

        Parameters
        ----------
        limit : int
            One of the iterations given as `snapshots`.

        Returns
        -------
        AttackResult

        Raises
        ------
        ValueError
            No snapshot was taken there.
        """
        if limit not in self.snapshots:
            raise ValueError(f"limit: expected one of {sorted(self.snapshots)}, got {limit}")
        late, then = self.iterations > limit, self.snapshots[limit]
        success, adversarial = torch.where(late, then.success, self.success), self.adversarial
        if adversarial is not None:
            adversarial = torch.where(late.reshape(-1, 1, 1, 1), torch.nan, adversarial)
        return replace(
            self,
            adversarial=adversarial,
            success=success,
            iterations=self.iterations.clamp_max(limit),
            l2=torch.where(late, then.l2, self.l2),
            l2_paper=torch.where(late, then.l2_paper, self.l2_paper),
            adversarial_logits=torch.where(late[:, None], then.logits, self.adversarial_logits),
            reasons=tuple(
                REASONS[SUCCESS if won else LIMIT] if was_late else reason
                for was_late, won, reason in zip(
                    late.tolist(), success.tolist(), self.reasons, strict=True
                )
            ),
            trace=None,
            snapshots={},
        )


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
    """Results in the making: one row an image of the queue, entered when it leaves its slot.

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

    def drain(self) -> dict[str, torch.Tensor]:
        """Rows entered since this was last asked, with their numbers as ``queue_index``; or
        nothing.
        """
        if not self._entered:
            return {}
        queue_index, self._entered = torch.cat(self._entered), []
        return {
            "queue_index": queue_index,
            **{name: column[queue_index] for name, column in self.columns.items()},
        }

    def result(self) -> AttackResult:
        """Everything, in the order of the queue."""
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
            trace=self.trace,
            snapshots={
                limit: Snapshot(*(columns[note_name(f.name, limit)] for f in fields(Snapshot)))
                for limit in self.limits
            },
        )
