"""The interface of every data set: images loaded by index, bool labels, stable ids."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import torch

from tkmia_utils.data.image_files import ImageFiles
from tkmia_utils.hashing import text_hash


@dataclass(frozen=True)
class MultiLabelDataset:
    """A multi-label data set, its pixels behind a function.

    Attributes
    ----------
    name : str
        Which data set, e.g. ``"emoji"`` or ``"folder"``.
    split : str
        ``"train"`` or ``"val"``.
    classes : tuple of str
        The C class names, unique.
    labels : torch.Tensor
        Bool ``(N, C)``: which classes are in which image.
    ids : tuple of str
        N unique image ids that stay the same from run to run.
    load : callable
        ``load(i)`` gives image i as uint8 ``(3, size, size)``.
    card : str
        One or two sentences: what this data is and is not. Shown with every number.
    size : int
        Height and width in pixels.
    digest : callable, optional
        ``digest(positions)`` gives for each a hash of what decides its pixels, without making
        them; default: the file's and how it is read where `load` is an :class:`ImageFiles`, else
        the pixels' own.

    Raises
    ------
    ValueError
        Labels not bool or not ``(N, C)``, repeated ids or classes, a size below 1.
    """

    name: str
    split: str
    classes: tuple[str, ...]
    labels: torch.Tensor
    ids: tuple[str, ...]
    load: Callable[[int], torch.Tensor] = field(repr=False)
    card: str
    size: int
    digest: Callable[[list[int]], list[str]] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if not isinstance(self.labels, torch.Tensor) or self.labels.dtype != torch.bool:
            kind = getattr(self.labels, "dtype", type(self.labels).__name__)
            raise ValueError(f"labels: expected a bool torch.Tensor, got {kind}")
        if self.labels.shape != (len(self.ids), len(self.classes)):
            raise ValueError(
                f"labels: expected shape ({len(self.ids)}, {len(self.classes)}), one row an id and "
                f"one column a class, got {tuple(self.labels.shape)}"
            )
        for what in ("ids", "classes"):
            names = getattr(self, what)
            if len(set(names)) != len(names):
                twice = next(name for name in names if names.count(name) > 1)
                raise ValueError(f"{what}: expected unique names, got {twice!r} more than once")
        if not isinstance(self.size, int) or self.size < 1:
            raise ValueError(f"size: expected an int >= 1, in pixels, got {self.size!r}")

    def __len__(self) -> int:
        """The number of images, N."""
        return len(self.ids)

    def images(self, index: Sequence[int] | torch.Tensor) -> torch.Tensor:
        """Pixels of some images, ready for a model.

        Parameters
        ----------
        index : sequence of int or int64 tensor
            Positions, each in ``0 .. N-1``.

        Returns
        -------
        torch.Tensor
            float32 ``(n, 3, size, size)`` in [0, 1].

        Raises
        ------
        ValueError
            A position out of range, or an image of another dtype or shape than promised.
        """
        positions = self._positions(index)
        out = torch.empty((len(positions), 3, self.size, self.size), dtype=torch.float32)
        for row, i in enumerate(positions):
            image = self.load(i)
            if image.dtype != torch.uint8 or image.shape != out.shape[1:]:
                raise ValueError(
                    f"load: expected uint8 {tuple(out.shape[1:])} for {self.ids[i]!r}, got "
                    f"{image.dtype} {tuple(image.shape)}"
                )
            out[row] = image
        return out.div_(255)

    def subset(self, index: Sequence[int] | torch.Tensor) -> "MultiLabelDataset":
        """The same data set, cut to some positions and in their order.

        Parameters
        ----------
        index : sequence of int or int64 tensor
            Positions, each in ``0 .. N-1`` and at most once.

        Raises
        ------
        ValueError
            A position out of range or given twice.
        """
        positions = self._positions(index)
        if len(set(positions)) != len(positions):
            raise ValueError("index: expected each position at most once")
        load, digest = self.load, self.digest
        return replace(
            self,
            labels=self.labels[torch.tensor(positions, dtype=torch.int64)],
            ids=tuple(self.ids[i] for i in positions),
            load=load.at(positions)
            if isinstance(load, ImageFiles)
            else lambda i: load(positions[i]),
            digest=digest and (lambda index: digest([positions[i] for i in index])),
        )

    def digests(self, index: Sequence[int] | torch.Tensor) -> list[str]:
        """A hash of each of some images, which changes when its pixels may have.

        Parameters
        ----------
        index : sequence of int or int64 tensor
            Positions, each in ``0 .. N-1``.

        Raises
        ------
        ValueError
            A position out of range.
        """
        positions = self._positions(index)
        if self.digest is not None:
            return self.digest(positions)
        if isinstance(self.load, ImageFiles):
            return self.load.digest(positions)
        return [self._pixels_hash(i) for i in positions]

    def fingerprint(self) -> str:
        """A hash of the whole set: its images, their ids and labels, the classes and the size."""
        labels = hashlib.sha256(self.labels.numpy().tobytes()).hexdigest()
        parts = [self.name, self.split, self.size, self.classes, self.ids, labels]
        return text_hash(*parts, self.digests(range(len(self))))

    def _pixels_hash(self, i: int) -> str:
        try:
            return hashlib.sha256(self.load(i).numpy().tobytes()).hexdigest()
        except Exception as error:  # raised again when the image is needed; all others can be used
            return f"{type(error).__name__}: {error}"

    def _positions(self, index: Sequence[int] | torch.Tensor) -> list[int]:
        if isinstance(index, torch.Tensor):
            if index.dtype != torch.int64 or index.ndim != 1:
                raise ValueError(
                    f"index: expected an int64 tensor of shape (n,), got {index.dtype} "
                    f"{tuple(index.shape)}"
                )
            index = index.tolist()
        positions = [int(i) for i in index]
        for i in positions:
            if not 0 <= i < len(self):
                raise ValueError(f"index: expected positions in 0 .. {len(self) - 1}, got {i}")
        return positions
