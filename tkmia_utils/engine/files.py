"""Does an attack survive its own file? The victim sees each finished image as a PNG gives it."""

from collections.abc import Callable

import torch

from tkmia_utils.engine.forward import Forward
from tkmia_utils.exact import on_grid


class Waiting:
    """Finished images that wait to be shown to the victim in fp32, a full batch at a time.

    Parameters
    ----------
    forward : Forward
        The victim.
    room : torch.Tensor
        ``(B, 3, H, W)``: images that fill the batch at first; its size stays B, so that an image's
        logits do not depend on how many there are.
    tell : callable
        Called with rows of the queue, int64 ``(n,)`` on the CPU, and their logits ``(n, C)``.
    """

    def __init__(
        self,
        forward: Forward,
        room: torch.Tensor,
        tell: Callable[[torch.Tensor, torch.Tensor], None],
    ) -> None:
        self.forward, self.room, self.tell = forward, self.prepare(room).contiguous(), tell
        self.waiting: list[int] = []

    def prepare(self, images: torch.Tensor) -> torch.Tensor:
        """What the victim is shown."""
        return images.clone()

    def add(self, queue_index: torch.Tensor, images: torch.Tensor) -> None:
        """Put finished images in, ``(n, 3, H, W)`` with n <= B."""
        rows = queue_index.tolist()
        while rows:
            start = len(self.waiting)
            some, rows = rows[: len(self.room) - start], rows[len(self.room) - start :]
            self.room[start : start + len(some)] = self.prepare(images[: len(some)])
            images = images[len(some) :]
            self.waiting += some
            if len(self.waiting) == len(self.room):
                self.flush()

    def flush(self) -> None:
        """Show the victim what is there."""
        if self.waiting:
            logits = self.forward.eager(self.room)[: len(self.waiting)]
            self.tell(torch.tensor(self.waiting), logits)
            self.waiting = []


class FileCheck(Waiting):
    """Finished images as 8-bit files give them back."""

    def prepare(self, images: torch.Tensor) -> torch.Tensor:
        """Rounded to whole grey levels."""
        return on_grid(images)
