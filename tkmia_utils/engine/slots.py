"""The working slots: a constant batch through which the images of a queue pass.

Shapes never change, so the result of an image does not depend on the others in the batch.
"""

from collections.abc import Sequence

import torch

from tkmia_utils.attacks import Attack, AttackSpec, Iterate
from tkmia_utils.condition import Stop
from tkmia_utils.engine.claims import ClaimCheck, ReadAhead
from tkmia_utils.engine.ends import (
    BAD_GRADIENT,
    BAD_LOGITS,
    INFEASIBLE,
    LIMIT,
    RUNNING,
    SUCCESS,
)
from tkmia_utils.engine.files import FileCheck
from tkmia_utils.engine.forward import Forward
from tkmia_utils.engine.goal import Best, Goal
from tkmia_utils.engine.images import Reader
from tkmia_utils.engine.ledger import Ledger, blank_notes
from tkmia_utils.engine.notes import note, record
from tkmia_utils.engine.rows import (
    alone,
    finite_rows,
    held_back,
    norms,
    take,
    values,
    where_rows,
)  # fmt: skip
from tkmia_utils.exact import on_grid


class Slots:
    """B slots at work on one queue.

    Parameters
    ----------
    forward : Forward
        The victim.
    method : Attack
        The attack.
    queue : AttackSpec
        N rows, on the CPU.
    reader : Reader
        Their images.
    ledger : Ledger
        Where results go.
    size : int
        B.
    device : torch.device
        Where the slots are.
    snapshots : sequence of int
        Iterations to note.
    clean_logits : torch.Tensor, optional
        float32 ``(N, C)``; otherwise the victim is asked.
    stop : Stop
        What has to hold beside the labels being hidden.
    bits : int, optional
        8: the victim sees rounded images only.
    files : bool
        Look at every finished image as an 8-bit file.

    Attributes
    ----------
    occupied, finished, successes, work : int
        Slots at work, images done, successes among them, and image-iterations so far.
    """

    def __init__(
        self,
        forward: Forward,
        method: Attack,
        queue: AttackSpec,
        reader: Reader,
        ledger: Ledger,
        *,
        size: int,
        device: torch.device,
        snapshots: Sequence[int] = (),
        clean_logits: torch.Tensor | None = None,
        stop: Stop = Stop(),  # noqa: B008  (frozen, and so shared without harm)
        bits: int | None = None,
        files: bool = False,
    ) -> None:
        self.forward, self.method, self.queue = forward, method, queue
        self.reader: Reader | ReadAhead = reader
        self.ledger, self.device = ledger, device
        self.snapshots, self.given, self.bits = tuple(snapshots), clean_logits, bits
        self.occupied = self.finished = self.successes = self.work = 0
        classes = queue.labels.shape[1]
        # every slot starts with the first image, dead, until the queue fills it
        self.queue_index = torch.full((size,), -1, dtype=torch.int64)
        self.age = torch.zeros(size, dtype=torch.int64)  # iterations since then, on the host
        first = reader.first.to(device).expand(size, -1, -1, -1)
        self.clean = first.clone(memory_format=forward.layout.memory_format)
        self.rows = take(queue, torch.zeros(size, dtype=torch.int64), device)
        self.goal = Goal(stop, self.rows)
        anytime = getattr(method, "anytime", False)
        self.best = Best(self.clean, classes) if anytime else None
        self.file_check = FileCheck(forward, self.clean, ledger.tell_png) if files else None
        self.state = method.begin(self.clean)
        self.status = torch.full((size,), LIMIT, device=device)
        self.iteration = torch.zeros(size, dtype=torch.int64, device=device)
        # has the victim itself denied what is said of this very iteration?
        self.denied = torch.zeros(size, dtype=torch.bool, device=device)
        self.logits = torch.zeros(size, classes, device=device)
        self.clean_logits = torch.zeros(size, classes, device=device)
        self.notes = {
            name: blank.to(device) for name, blank in blank_notes(size, classes, snapshots).items()
        }
        self.needs_exchange = True  # may a slot have something to hand in?
        self.claims: ClaimCheck | None = None
        # an attack that goes on needs the truth at once, and so does a record of every iteration
        late = self.best is None and ledger.trace is None
        if forward.close or (late and not forward.exact):
            self._check_claims(reader, stop, known=clean_logits)

    def _check_claims(self, reader: Reader, stop: Stop, *, known: torch.Tensor | None) -> None:
        """Show what enters and what leaves to the victim itself."""
        queue, classes = self.queue, self.logits.shape[1]
        if known is None:
            known = torch.full((len(queue.k), classes), torch.nan)
            self.reader = ReadAhead(reader, self.forward, self._first, known, self.clean)
        self.given = known
        self.claims = ClaimCheck(
            self.forward, self.clean, queue=queue, known=known, stop=stop, ledger=self.ledger,
            returning=not self.forward.close,
        )  # fmt: skip

    def iterate(self) -> None:
        """One forward pass, one verdict, one backward pass and one step, for all slots."""
        x = self._image().detach().requires_grad_()
        logits = self.forward(x)
        scores = logits.detach().float()
        met = self._judge(x.detach(), scores)

        def vjp(v: torch.Tensor, *, keep: bool = False) -> torch.Tensor:
            return torch.autograd.grad(logits, x, v.to(logits.dtype), retain_graph=keep)[0]

        point = Iterate(
            self.clean,
            scores,
            self.clean_logits,
            vjp,
            self.rows,
            self.goal.condition,
            met,
            self.bits,
        )
        self._move(self.method.step(point, self.state))
        self.age += 1
        self.work += self.occupied

    @property
    def believed(self) -> bool:
        """Does an attack end at what the forward pass says, without a second look at once?"""
        return self.forward.exact or self.claims is not None

    def _image(self) -> torch.Tensor:
        """The images that the victim sees."""
        image = self.method.image(self.clean, self.state)
        return image if self.bits is None else on_grid(image)

    def _first(self, images: torch.Tensor) -> torch.Tensor:
        """What the victim sees of clean images at iteration 0."""
        image = self.method.image(images, self.method.begin(images))
        return image if self.bits is None else on_grid(image)

    def _judge(self, x: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Note which images have succeeded or ended; all others go on. Who meets the condition?"""
        running = self.status == RUNNING
        begun = bool((self.age == 0).any())  # the host knows without asking the device
        noted = [limit for limit in self.snapshots if bool((self.age == limit).any())]
        if begun and self.given is None and self.goal.stop.compares:
            entered = ((self.age == 0) & (self.queue_index >= 0)).nonzero().flatten()
            self.goal.enter(entered, scores if self.forward.exact else self.forward.eager(x))
        met, seen = self.goal.met(scores), scores
        verdict = self._verdict(met, scores)
        if not self.believed:
            verdict, seen, met = self._look_again(x, scores, verdict, met, running, begun, noted)
        if self.best is not None:
            self.best.take(running & met, x, self.clean, seen)
            verdict = torch.where((verdict == LIMIT) & self.best.found, SUCCESS, verdict)
        if begun and self.given is None:
            fresh = running & (self.iteration == 0)
            self.clean_logits = where_rows(fresh, seen, self.clean_logits)
        self.logits = where_rows(running, seen, self.logits)
        self.status = torch.where(running, verdict, self.status)
        if self.ledger.trace is not None:
            record(self, self.ledger.trace, x, seen, running)
        for limit in noted:
            note(self, limit, x, seen, running & (self.iteration == limit))
        return met

    def _verdict(self, met: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Success, the limit, or an end for another reason; the best of an anytime attack waits."""
        verdict = torch.where(self.iteration >= self.rows.max_iter, LIMIT, RUNNING)
        verdict = torch.where(self.goal.condition.feasible, verdict, INFEASIBLE)
        over = met if self.best is None else met & (self.iteration == 0)  # nothing is nearer than 0
        verdict = torch.where(over & ~self.denied, SUCCESS, verdict)
        return torch.where(scores.isfinite().all(-1) | self.denied, verdict, BAD_LOGITS)

    def _look_again(
        self,
        x: torch.Tensor,
        scores: torch.Tensor,
        verdict: torch.Tensor,
        met: torch.Tensor,
        running: torch.Tensor,
        begun: bool,
        noted: Sequence[int],
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Verdict, logits and success in fp32 eager, of slots that seem to have got somewhere.

        So are images that have just entered, and those at a snapshot, which must not end there.
        """
        asked = running & ((verdict != RUNNING) | met)
        if begun and self.given is None:
            asked |= running & (self.iteration == 0)
        looked = asked
        for limit in noted:
            looked = looked | (running & (self.iteration == limit))
        looks, stopped = torch.stack([looked, self.status != RUNNING]).cpu()  # the one transfer
        self.needs_exchange |= bool(looks.any()) or bool((stopped & (self.queue_index >= 0)).any())
        if not looks.any():
            return verdict, scores, met
        seen = where_rows(looked, self.forward.eager(x), scores)
        met = asked & self.goal.met(seen)
        return torch.where(asked, self._verdict(met, seen), RUNNING), seen, met

    def _move(self, stepped: dict[str, torch.Tensor]) -> None:
        """Let running images take the step; where it is not finite, they end."""
        running, self.denied = self.status == RUNNING, torch.zeros_like(self.denied)
        watched = getattr(self.method, "watched", stepped)
        finite = finite_rows([stepped[key] for key in watched])
        moved = running & finite
        self.iteration += moved
        # on the CPU it costs nothing to see that there is nobody to hold back
        if self.device.type == "cpu" and moved.all():
            self.state = {key: stepped[key] for key in self.state}
            return
        self.status = torch.where(running & ~finite, BAD_GRADIENT, self.status)
        self.state = held_back(moved, stepped, self.state, apart=self.clean)

    def exchange(self) -> int:
        """Move finished images out and waiting ones in; return how many left."""
        if not self.needs_exchange:
            return 0
        status = self.status.cpu()
        self.needs_exchange = self.believed  # else the next look tells
        slots = ((status != RUNNING) & (self.queue_index >= 0)).nonzero().flatten()
        if not len(slots):
            return 0
        adversarial, logits = self._image(), self.logits
        if not self.believed and bool((status[slots] == BAD_GRADIENT).any()):
            bad = self.status == BAD_GRADIENT
            logits = where_rows(bad, self.forward.eager(adversarial), logits)
        ended = self.status
        if self.best is not None:
            adversarial, logits = self.best.or_else(adversarial, logits)
            ended = torch.where(self.best.found, SUCCESS, ended)  # even if a later step failed
        l2, l2_paper = norms(self.method, self.clean, adversarial, self.state, slots)
        results = {
            "adversarial": adversarial,
            "status": ended,
            "iterations": self.iteration,
            "l2": l2,
            "l2_paper": l2_paper,
            "clean_logits": self.clean_logits,
            "adversarial_logits": logits,
            "png_logits": torch.full_like(logits, torch.nan),  # until the file was looked at
            **self.notes,
        }
        at = slots.to(self.device)
        columns = self.ledger.columns
        self.ledger.enter(self.queue_index[slots], {name: results[name][at] for name in columns})
        if self.claims is not None and self.claims.returning:
            for i, row in zip(slots.tolist(), self.queue_index[slots].tolist(), strict=True):
                self.claims.keep(row, {n: part[i].clone() for n, part in self._of_slots().items()})
        for check in (self.claims, self.file_check):
            if check is not None:
                check.add(self.queue_index[slots], adversarial[at])
        self.finished += len(slots)
        self.successes += int((ended[at] == SUCCESS).sum())
        self.occupied -= len(slots)
        self.queue_index[slots] = -1
        self.fill(slots)
        return len(slots)

    def look_at_finished(self) -> None:
        """Look again at all images that have finished, and at their files, where that is due."""
        for check in (self.claims, self.file_check):
            if check is not None:
                check.flush()

    @property
    def doubtful(self) -> list[int]:
        """Rows of the queue whose end the victim itself does not confirm."""
        return [] if self.claims is None else sorted(self.claims.doubtful)

    def fill(self, slots: torch.Tensor | None = None) -> None:
        """Put images that are to go on, then the queue's next, into empty slots; default all."""
        slots = torch.arange(len(self.age)) if slots is None else slots
        back = [] if self.claims is None else self.claims.take_back(len(slots))
        for i, slot in zip(slots.tolist(), back, strict=False):
            self._put_back(i, slot)
        slots, start = slots[len(back) :], self.reader.next
        slots = slots[: len(self.reader) - start]
        if not len(slots):
            return
        queue_index = self.reader.order[start : start + len(slots)]
        self.queue_index[slots] = queue_index
        self.age[slots] = 0
        at = slots.to(self.device)
        self.clean[at] = self.reader.take(len(slots)).to(self.device)
        entering = values(take(self.queue, queue_index, self.device))
        for name, column in values(self.rows).items():
            column[at] = entering[name]
        begun = self.method.begin(self.clean[at])
        if not alone([*self.state.values(), self.clean]):
            self.state = {key: old.clone() for key, old in self.state.items()}
        for key, old in self.state.items():
            old.index_copy_(0, at, begun[key])
        if self.best is not None:
            self.best.clear(at)
        if self.given is not None:
            self.clean_logits[at] = self.given[queue_index].to(self.device)
            self.goal.enter(slots, self.clean_logits)
        for column in self.notes.values():
            column[at] = torch.nan if column.is_floating_point() else False
        self.status[at] = RUNNING
        self.iteration[at] = 0
        self.occupied += len(slots)
        self.needs_exchange = True

    def _put_back(self, i: int, slot: dict[str, torch.Tensor]) -> None:
        """Let an image that had left go on in slot `i`, which is empty."""
        self.successes -= int(slot["status"] == SUCCESS)
        self.finished -= 1
        if not alone([*self.state.values(), self.clean]):
            self.state = {key: old.clone() for key, old in self.state.items()}
        for name, part in self._of_slots().items():
            part[i] = slot[name]
        self.status[i], self.denied[i] = RUNNING, True
        self.goal.enter(torch.tensor([i]), self.clean_logits)
        self.occupied += 1
        self.needs_exchange = True

    def _of_slots(self) -> dict[str, torch.Tensor]:
        """All that belongs to single slots, by name."""
        return {**{f"state {name}": value for name, value in self.state.items()}, **self._parts()}

    def tensors(self) -> dict[str, torch.Tensor]:
        """All that the next iteration depends on, by name; :meth:`restore` takes it."""
        counts = (self.reader.next, self.occupied, self.finished, self.successes, self.work)
        counted = {"counts": torch.tensor(counts), **self.goal.tensors()}
        counted |= {} if self.claims is None else self.claims.tensors()
        return {**counted, **self._of_slots()}

    def restore(self, saved: dict[str, torch.Tensor]) -> None:
        """Go on from what :meth:`tensors` gave, in slots made by the same arguments.

        Raises
        ------
        ValueError
            The source holds other images than it did.
        """
        at_work = saved["queue_index"] >= 0
        images = self.reader.read(self.reader.at[saved["queue_index"][at_work]])
        if not torch.equal(images, saved["clean"][at_work]):
            raise ValueError("checkpoint: the images of the source have changed since")
        for name, part in self._parts().items():
            part.copy_(saved[name])
        self.goal.restore(saved)
        if self.claims is not None:
            self.claims.restore(saved)
        self.state = {
            key: torch.empty_like(old).copy_(saved[f"state {key}"])
            for key, old in self.state.items()
        }
        start, self.occupied, self.finished, self.successes, self.work = saved["counts"].tolist()
        self.reader.go_to(start)
        self.needs_exchange = True

    def _parts(self) -> dict[str, torch.Tensor]:
        names = ("queue_index", "age", "clean", "status", "iteration", "denied", "logits")
        return {
            **{name: getattr(self, name) for name in (*names, "clean_logits")},
            **{f"rows {name}": value for name, value in values(self.rows).items()},
            **({} if self.best is None else self.best.tensors()),
            **self.notes,
        }
