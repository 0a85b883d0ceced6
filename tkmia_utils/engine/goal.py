"""What the images in the slots are to reach, and the best that they have reached so far."""

import torch

from tkmia_utils.attacks import AttackSpec
from tkmia_utils.condition import Condition, DeepCondition, Stop, condition, holds
from tkmia_utils.condition.conditions import NO_PATTERN, NOTHING
from tkmia_utils.engine.outcome import excluded
from tkmia_utils.engine.rows import where_rows


class Goal:
    """The condition of success of every slot.

    Parameters
    ----------
    stop : Stop
        What has to hold beside the labels being hidden.
    rows : AttackSpec
        B rows, on the device; as the engine keeps them, so that they change under the goal.
    """

    def __init__(self, stop: Stop, rows: AttackSpec) -> None:
        self.stop, self.rows = stop, rows
        # at least one pattern that asks for nothing
        self.above = torch.full((len(rows.k), 1, rows.k_max), NOTHING, device=rows.k.device)
        self.gap = None  # in logits, by slot
        if stop.deep:
            self.gap = torch.zeros(len(rows.k), dtype=torch.float64, device=rows.k.device)

    @property
    def condition(self) -> Condition:
        """Of all slots."""
        rows = self.rows
        asks = (rows.labels, rows.specified, rows.k, rows.delta, self.above)
        if self.gap is None:
            return Condition(*asks)
        return DeepCondition(*asks, rows.k + self.stop.below, self.gap)

    def enter(self, slots: torch.Tensor, clean_logits: torch.Tensor) -> None:
        """Note what success asks of images that have just entered.

        Parameters
        ----------
        slots : torch.Tensor
            int64 ``(n,)``, on the CPU.
        clean_logits : torch.Tensor
            ``(B, C)``, of all slots.
        """
        if not self.stop.compares or not len(slots):
            return
        at = slots.to(self.above.device)
        logits, rows = clean_logits[at].cpu(), self.rows
        # an image without logits ends for that reason, whatever is asked of it
        logits = torch.where(logits.isnan(), 0.0, logits)
        sets = (rows.labels[at].cpu(), rows.specified[at].cpu(), rows.k[at].cpu())
        asks = condition(logits, *sets, delta=rows.delta[at].cpu(), stop=self.stop)
        if self.gap is not None and isinstance(asks, DeepCondition):
            self.gap[at] = asks.gap.to(at.device)
        new = asks.above
        most = max(new.shape[1], self.above.shape[1])
        wide = torch.full((len(self.above), most, rows.k_max), NO_PATTERN, device=at.device)
        wide[:, : self.above.shape[1]] = self.above
        wide[at] = NO_PATTERN
        wide[at, : new.shape[1], : new.shape[2]] = new.to(at.device)
        # a pattern's places beyond the rows' own k ask for nothing
        missing = (wide == NO_PATTERN).any(-1, keepdim=True) & (wide != NO_PATTERN).any(-1, True)
        self.above = torch.where(missing & (wide == NO_PATTERN), NOTHING, wide)

    def met(self, logits: torch.Tensor) -> torch.Tensor:
        """Which slots have succeeded, bool ``(B,)``: Eq. (2) c1 for delta of S, and the stop."""
        if self.gap is not None:  # infinity would make any gap
            return holds(logits, self.condition) & logits.isfinite().all(-1)
        if self.stop.measures:
            return holds(logits, self.condition)
        rows = self.rows
        out = excluded(logits, rows.specified, rows.k, rows.delta)
        return out & logits.isfinite().all(-1)

    def tensors(self) -> dict[str, torch.Tensor]:
        """What it knows of the clean images, by name, for a checkpoint."""
        return {"above": self.above} | ({} if self.gap is None else {"least gap": self.gap})

    def restore(self, saved: dict[str, torch.Tensor]) -> None:
        """Go on from what :meth:`tensors` gave."""
        self.above = saved["above"].to(self.above.device)
        if self.gap is not None:
            self.gap.copy_(saved["least gap"])


class Best:
    """The success of least norm of every slot, for attacks that go on after the first.

    Parameters
    ----------
    clean : torch.Tensor
        ``(B, 3, H, W)``, for its shape and layout.
    classes : int
        C.
    """

    def __init__(self, clean: torch.Tensor, classes: int) -> None:
        self.image = clean.clone()
        self.l2 = clean.new_full((len(clean),), torch.inf)
        self.logits = clean.new_zeros(len(clean), classes)

    @property
    def found(self) -> torch.Tensor:
        """Which slots have had a success, bool ``(B,)``."""
        return self.l2 < torch.inf

    def clear(self, at: torch.Tensor) -> None:
        """Forget slots, int64 ``(n,)``: new images enter."""
        self.l2[at] = torch.inf

    def take(
        self, met: torch.Tensor, x: torch.Tensor, clean: torch.Tensor, logits: torch.Tensor
    ) -> None:
        """Keep images `x` that meet the condition and are nearer than any before."""
        l2 = (x - clean).flatten(1).norm(dim=1)
        better = met & (l2 < self.l2)
        if x.device.type == "cpu" and not better.any():  # free to look at, and often so
            return
        self.l2 = torch.where(better, l2, self.l2)
        self.logits = where_rows(better, logits, self.logits)
        self.image = where_rows(better, x, self.image)

    def or_else(self, x: torch.Tensor, logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Image and logits of the best, where there is one, or those given."""
        return where_rows(self.found, self.image, x), where_rows(self.found, self.logits, logits)

    def tensors(self) -> dict[str, torch.Tensor]:
        """All of it, by name, for a checkpoint."""
        return {"best image": self.image, "best l2": self.l2, "best logits": self.logits}
