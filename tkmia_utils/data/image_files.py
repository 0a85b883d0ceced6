"""Photos on disk: one decoded, and many that are read by whoever sees their paths."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import PIL
import torch
from PIL import Image, ImageOps

from tkmia_utils.hashing import file_hashes, text_hash


def decode(path: str | Path, size: int) -> torch.Tensor:
    """Read one image file as a square.

    Parameters
    ----------
    path : str or Path
        Any format that Pillow reads, eight bits a channel.
    size : int
        Pixels a side.

    Returns
    -------
    torch.Tensor
        uint8 ``(3, size, size)``.

    Raises
    ------
    ValueError
        The file cannot be decoded, or holds more than eight bits a channel; names the file.
    """
    try:
        with Image.open(path) as file:
            image = ImageOps.exif_transpose(file)
            if image.mode.startswith(("I", "F")):
                raise ValueError(f"expected eight bits a channel, got mode {image.mode}")
            if image.has_transparency_data:
                image = image.convert("RGBA")
                white = Image.new("RGBA", image.size, "white")
                image = Image.alpha_composite(white, image)
            image = image.convert("RGB").resize((size, size), Image.Resampling.BICUBIC)
    except Exception as error:  # Pillow's decoders raise a dozen types on broken files
        raise ValueError(f"{path}: cannot be read as an image ({error})") from error
    return torch.from_numpy(np.array(image).transpose(2, 0, 1).copy())


@dataclass(frozen=True, eq=False)
class ImageFiles:
    """The `load` of a data set of image files: reads one when it is needed, or has all in memory.

    It can be sent to another process, and serves there if that sees the same paths.

    Attributes
    ----------
    paths : tuple of Path
        The files.
    size : int
        Pixels a side of what is given out.
    read : callable
        ``read(path, size)`` gives uint8 ``(3, size, size)``.
    cache : str or Path, optional
        Folder for ``file-hashes.json``, which saves reading unchanged files again for their hash.
    held : tuple of torch.Tensor
        What was read already: all of the images, or none.
    """

    paths: tuple[Path, ...] = field(repr=False)
    size: int
    read: Callable[[Path, int], torch.Tensor] = decode
    cache: str | Path | None = None
    held: tuple[torch.Tensor, ...] = field(default=(), repr=False)

    def __call__(self, i: int) -> torch.Tensor:
        """Image i: uint8 ``(3, size, size)``; what `read` raises says which file it cannot read."""
        return self.held[i] if self.held else self.read(self.paths[i], self.size)

    def digest(self, index: Sequence[int]) -> list[str]:
        """A hash of each of some images: of the file's bytes, and how it is read."""
        known = None if self.cache is None else Path(self.cache) / "file-hashes.json"
        found = file_hashes([self.paths[i] for i in index], known=known)
        return [text_hash(sha, self.read.__name__, self.size, PIL.__version__) for sha in found]

    def at(self, positions: Sequence[int]) -> "ImageFiles":
        """Some of the files, in that order."""
        held = tuple(self.held[i] for i in positions) if self.held else ()
        return replace(self, paths=tuple(self.paths[i] for i in positions), held=held)

    def preloaded(self) -> "ImageFiles":
        """The same files, all in memory."""
        return replace(self, held=tuple(self.read(path, self.size) for path in self.paths))

    def to_send(self) -> "ImageFiles":
        """The same for a process in another folder: without pixels and remembered hashes."""
        paths = tuple(Path(path).absolute() for path in self.paths)
        return replace(self, paths=paths, cache=None, held=())
