"""What is noted of the images at work: every iteration of a record, some for snapshots."""

from typing import TYPE_CHECKING

import torch

from tkmia_utils.engine.ends import Trace
from tkmia_utils.engine.ledger import note_name
from tkmia_utils.engine.rows import where_rows

if TYPE_CHECKING:
    from tkmia_utils.engine.slots import Slots


def record(
    slots: "Slots", trace: Trace, x: torch.Tensor, seen: torch.Tensor, running: torch.Tensor
) -> None:
    """Write logits `seen` and norms of the images `x` at work into the trace."""
    there = (running.cpu() & (slots.queue_index >= 0)).nonzero().flatten()
    queue_index, at = slots.queue_index[there], there.to(slots.device)
    when = slots.iteration[at].cpu()
    trace.logits[queue_index, when] = seen[at].cpu()
    trace.l2[queue_index, when] = (x - slots.clean)[at].flatten(1).norm(dim=1).cpu()


def note(
    slots: "Slots", limit: int, x: torch.Tensor, seen: torch.Tensor, there: torch.Tensor
) -> None:
    """Note how the images `there`, bool ``(B,)``, stand at iteration `limit`.

    Of an attack that goes on it is the best so far that counts. Where claims are checked later,
    the victim itself is asked now.
    """
    found = None
    if slots.best is not None:
        x, seen = slots.best.or_else(x, seen)
        found = slots.best.found
    if slots.claims is not None:
        seen = slots.forward.eager(x)
        found = slots.goal.met(seen) if found is None else found & slots.goal.met(seen)
    values = {
        "logits": seen,
        "l2": (x - slots.clean).flatten(1).norm(dim=1),
        "l2_paper": slots.method.norm(slots.clean, x, slots.state),
        "success": slots.goal.met(seen) if found is None else found,
    }
    for name, new in values.items():
        name = note_name(name, limit)
        slots.notes[name] = where_rows(there, new, slots.notes[name])
