"""Where a queue's images come from: a tensor, or a data set that is read as slots fall free."""

from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Protocol, Self, runtime_checkable

import torch


@runtime_checkable
class ImageSource(Protocol):
    """Images by position, for instance a :class:`tkmia_utils.data.MultiLabelDataset`."""

    def __len__(self) -> int:
        """How many images there are."""
        ...

    def images(self, index: torch.Tensor) -> torch.Tensor:
        """Images at int64 positions ``(n,)``: float32 ``(n, 3, H, W)`` in [0, 1]."""
        ...


Images = torch.Tensor | ImageSource
NAMED = 8
"""How many positions a message names before it only counts."""


def positions(images: Images, index: torch.Tensor | None) -> torch.Tensor:
    """Position in `images` of every row of the queue, int64 ``(N,)``.

    Parameters
    ----------
    images, index
        As for :func:`tkmia_utils.attack`; a tensor's pixels are checked here, a source's as they
        are read.

    Raises
    ------
    ValueError
        The message begins with ``images`` or ``index``.
    """
    if isinstance(images, torch.Tensor):
        check_images(images)
    elif not isinstance(images, ImageSource):
        raise ValueError(
            "images: expected a float32 torch.Tensor in [0, 1], or an object with len() and "
            f".images(index), got {type(images).__name__}"
        )
    if not len(images):
        raise ValueError("images: expected at least one, got an empty source")
    if index is None:
        return torch.arange(len(images))
    if not isinstance(index, torch.Tensor) or index.dtype != torch.int64:
        kind = index.dtype if isinstance(index, torch.Tensor) else type(index).__name__
        raise ValueError(f"index: expected an int64 torch.Tensor, got {kind}")
    if index.ndim != 1 or not len(index):
        raise ValueError(f"index: expected shape (N,), N >= 1, got {tuple(index.shape)}")
    index = index.cpu()
    bad = (index < 0) | (index >= len(images))
    if bad.any():
        raise ValueError(
            f"index: expected positions in 0 .. {len(images) - 1}, got {int(index[bad][0])}"
        )
    return index


def check_images(images: object, *, where: str = "") -> None:
    """Refuse what are not floating images ``(n, 3, H, W)`` in [0, 1]; `where` ends the message."""
    if not isinstance(images, torch.Tensor) or not images.is_floating_point():
        kind = images.dtype if isinstance(images, torch.Tensor) else type(images).__name__
        raise ValueError(f"images: expected a float32 torch.Tensor in [0, 1], got {kind}{where}")
    if images.ndim != 4 or images.shape[1] != 3 or 0 in images.shape:
        raise ValueError(f"images: expected shape (N, 3, H, W), got {tuple(images.shape)}{where}")
    if not bool(((images >= 0) & (images <= 1)).all()):
        raise ValueError(f"images: expected values in [0, 1] without NaN{where}")


class Reader:
    """The rows of a queue as float32 images, one after the other.

    Of a source at most `ahead` images lie ready beside those handed out: while the engine works, a
    background thread reads the next ones. What is read does not depend on that.

    Parameters
    ----------
    images : torch.Tensor or ImageSource
        Checked by :func:`positions`.
    at : torch.Tensor
        int64 ``(N,)``, from :func:`positions`.
    ahead : int
        Most images to hold ready.
    order : torch.Tensor, optional
        int64 ``(N,)``: in which order rows are taken; default that of the queue.

    Attributes
    ----------
    first : torch.Tensor
        The first row, ``(1, 3, H, W)``; its shape is everybody's.
    next : int
        How many rows were taken.
    """

    def __init__(
        self, images: Images, at: torch.Tensor, *, ahead: int, order: torch.Tensor | None = None
    ) -> None:
        self.images, self.at, self.next = images, at, 0
        self.order = torch.arange(len(at)) if order is None else order
        self._chunk = max(1, ahead // 2)  # one chunk is ready, the next on its way
        self._ready: torch.Tensor | None = None
        self._coming: Future[torch.Tensor] | None = None
        self._asked = 0
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="images")
        self.shape: torch.Size | None = None
        self.first = self.read(at[:1])
        self.shape = self.first.shape[1:]
        # room for good: what lies ready for long leaves holes in the heap when it goes
        ready = 0 if isinstance(images, torch.Tensor) else self._chunk
        self._buffers = [torch.empty(ready, *self.shape) for _ in range(2)]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._thread.shutdown(cancel_futures=True)

    def __len__(self) -> int:
        """How many rows the queue has."""
        return len(self.at)

    def read(self, at: torch.Tensor) -> torch.Tensor:
        """Images at positions of the source, checked."""
        if isinstance(self.images, torch.Tensor):
            return self.images.detach()[at].float()
        images = self.images.images(at)
        more = f" and {len(at) - NAMED} more" if len(at) > NAMED else ""
        where = f" (at {', '.join(map(str, at[:NAMED].tolist()))}{more} of the source)"
        check_images(images, where=where)
        wanted = (len(at), *(self.shape or images.shape[1:]))
        if images.shape != wanted:
            raise ValueError(f"images: expected shape {wanted}, got {tuple(images.shape)}{where}")
        return images.detach().float()

    def take(self, n: int) -> torch.Tensor:
        """The next `n` rows, in that order."""
        start, self.next = self.next, self.next + n
        if isinstance(self.images, torch.Tensor):
            return self.read(self.at[self.order[start : self.next]])
        taken, done = torch.empty(n, *self.first.shape[1:]), 0
        while done < n:
            if self._ready is None or not len(self._ready):
                coming = self._coming or self._ask()
                assert coming is not None, "no more rows are taken than the queue has"
                self._ready = coming.result()
                self._coming = self._ask()
            some = self._ready[: n - done]
            taken[done : done + len(some)] = some
            self._ready = self._ready[len(some) :]
            done += len(some)
        return taken

    def go_to(self, row: int) -> None:
        """Go on after so many rows; nothing was taken yet."""
        self.next = self._asked = row

    def _ask(self) -> Future[torch.Tensor] | None:
        at = self.at[self.order[self._asked : self._asked + self._chunk]]
        self._asked += len(at)
        if not len(at):
            return None
        self._buffers.reverse()  # the other one was taken to its end
        return self._thread.submit(self._read_into, self._buffers[0][: len(at)], at)

    def _read_into(self, buffer: torch.Tensor, at: torch.Tensor) -> torch.Tensor:
        return buffer.copy_(self.read(at))
