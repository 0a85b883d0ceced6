"""Fast arithmetic and plain fp32: what enters is known before, and what leaves is looked at again.

An attack on a fast copy of the victim ends, for the time being, at what the copy says. Whether that
holds is seen when the image has left its slot, on the victim itself in plain fp32 and a full batch
at a time. Where the two disagree there are two ways. A copy with folded layers or channels last
differs by rounding alone: this is rare, and the image is attacked again on the victim itself. Of
bfloat16 or TF32 it is common: the image goes back into a slot, as it left it.
"""

from collections.abc import Callable

import torch

from tkmia_utils.attacks import AttackSpec
from tkmia_utils.condition import Stop
from tkmia_utils.engine.ends import BAD_GRADIENT, BAD_LOGITS, LIMIT, SUCCESS
from tkmia_utils.engine.files import Waiting
from tkmia_utils.engine.forward import Forward
from tkmia_utils.engine.goal import Goal
from tkmia_utils.engine.images import Reader
from tkmia_utils.engine.ledger import Ledger
from tkmia_utils.engine.rows import take
from tkmia_utils.tensor_file import Tensors


class ReadAhead:
    """A reader whose images are shown to the victim, in plain fp32, before they enter a slot.

    Parameters
    ----------
    reader : Reader
        The queue's images.
    forward : Forward
        The victim.
    begin : callable
        From clean images to those of an attack's iteration 0.
    known : torch.Tensor
        float32 ``(N, C)``, on the CPU: where the logits go.
    room : torch.Tensor
        ``(B, 3, H, W)``: images that fill a batch; its size stays B.
    """

    def __init__(
        self,
        reader: Reader,
        forward: Forward,
        begin: Callable[[torch.Tensor], torch.Tensor],
        known: torch.Tensor,
        room: torch.Tensor,
    ) -> None:
        self.reader, self.forward, self.begin, self.known = reader, forward, begin, known
        self.room, self.next, self.at, self.first = room.clone(), 0, reader.at, reader.first
        self.images, self.read, self._ready = reader.images, reader.read, room[:0].cpu()
        self.order = reader.order

    def __len__(self) -> int:
        """How many rows the queue has."""
        return len(self.reader)

    def take(self, n: int) -> torch.Tensor:
        """The next `n` rows of the queue, whose logits are then known."""
        while len(self._ready) < n:
            start = self.reader.next
            new = self.reader.take(min(len(self.room), len(self) - start))
            self.room[: len(new)] = new.to(self.room.device)
            logits = self.forward.eager(self.begin(self.room))[: len(new)]
            self.known[self.order[start : start + len(new)]] = logits.cpu()
            self._ready = torch.cat([self._ready, new])
        taken, self._ready = self._ready[:n], self._ready[n:]
        self.next += n
        return taken

    def go_to(self, row: int) -> None:
        """Go on from this row of the queue; nothing was taken yet."""
        self.next = row
        self.reader.go_to(row)


class ClaimCheck(Waiting):
    """Finished images, shown to the victim in plain fp32 before what was said of them counts.

    Parameters
    ----------
    forward, room
        As for :class:`~tkmia_utils.engine.files.Waiting`.
    queue : AttackSpec
        N rows, on the CPU.
    known : torch.Tensor
        float32 ``(N, C)``: logits of the clean images.
    stop : Stop
        What a success has to keep.
    ledger : Ledger
        What was said of them; it gets the logits.
    returning : bool
        Images whose success the victim denies are to go on, and not to be attacked again.

    Attributes
    ----------
    doubtful : list of int
        Rows to be attacked again: the victim says otherwise, or something was not finite.
    returned : list of dict
        What :meth:`keep` got of images that are to go on.
    """

    def __init__(
        self,
        forward: Forward,
        room: torch.Tensor,
        *,
        queue: AttackSpec,
        known: torch.Tensor,
        stop: Stop,
        ledger: Ledger,
        returning: bool,
    ) -> None:
        super().__init__(forward, room, self._judge)
        self.queue, self.known, self.stop, self.ledger = queue, known, stop, ledger
        self.returning, self.doubtful = returning, list[int]()
        self.returned, self._kept = list[Tensors](), dict[int, Tensors]()

    def keep(self, row: int, slot: Tensors) -> None:
        """Remember the slot that a row leaves, until its claim is judged."""
        self._kept[row] = slot

    def take_back(self, n: int) -> list[Tensors]:
        """At most `n` slots of images that are to go on."""
        back, self.returned = self.returned[:n], self.returned[n:]
        return back

    def tensors(self) -> Tensors:
        """What a checkpoint needs, once nothing waits any more."""
        found = {"doubtful": torch.tensor(self.doubtful, dtype=torch.int64)}
        for name in self.returned[0] if self.returned else ():
            found[f"returned {name}"] = torch.stack([slot[name] for slot in self.returned])
        return found

    def restore(self, saved: Tensors) -> None:
        """Go on from what :meth:`tensors` gave, and from the slots as they were saved with it."""
        self.doubtful, start = saved["doubtful"].tolist(), "returned "
        back = {n.removeprefix(start): t for n, t in saved.items() if n.startswith(start)}
        many = len(next(iter(back.values()))) if back else 0
        self.returned = [{name: rows[i] for name, rows in back.items()} for i in range(many)]
        for slot in (saved, *self.returned):  # what was known of the images that go on
            rows, logits = slot["queue_index"].reshape(-1), slot["clean_logits"]
            there = rows >= 0
            self.known[rows[there]] = logits.reshape(len(rows), -1)[there].cpu()

    def _judge(self, rows: torch.Tensor, logits: torch.Tensor) -> None:
        logits, columns = logits.cpu(), self.ledger.columns
        status = columns["status"][rows]
        columns["adversarial_logits"][rows] = logits
        goal = Goal(self.stop, take(self.queue, rows, torch.device("cpu")))
        goal.enter(torch.arange(len(rows)), self.known[rows])
        met = goal.met(logits) & goal.condition.feasible
        if not self.returning:
            bad = (status == BAD_LOGITS) | (status == BAD_GRADIENT)
            self.doubtful += rows[bad | (met != (status == SUCCESS))].tolist()
            return
        finite = logits.isfinite().all(-1)
        status = torch.where((status == LIMIT) & met, SUCCESS, status)
        status = torch.where((status == LIMIT) & ~finite, BAD_LOGITS, status)
        columns["status"][rows] = status
        back = ((status == SUCCESS) & ~met) | ((status == BAD_LOGITS) & finite)
        for row, again in zip(rows.tolist(), back.tolist(), strict=True):
            slot = self._kept.pop(row)
            if again:
                self.returned.append(slot)
        self.ledger.withdraw(rows[back])
