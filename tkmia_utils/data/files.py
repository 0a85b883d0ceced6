"""Photos on disk: decoded, required to be there, put together as a data set."""

import warnings
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import PIL
import torch
from PIL import Image, ImageOps

from tkmia_utils.data.base import MultiLabelDataset
from tkmia_utils.hashing import file_hashes, text_hash

NAMED = 5
"""How many files a message names before it only counts."""


def digester(
    paths: Sequence[Path], read: Callable[[Path, int], torch.Tensor], size: int,
    cache: str | Path | None,
) -> Callable[[list[int]], list[str]]:  # fmt: skip
    """For :attr:`MultiLabelDataset.digest`: an image is its file's bytes and how they are read.

    Parameters
    ----------
    paths : sequence of Path
        The images' files.
    read : callable
        ``read(path, size)`` gives the pixels.
    size : int
        Pixels a side.
    cache : str or Path, optional
        Folder for ``file-hashes.json``, which saves reading unchanged files again.
    """
    known = None if cache is None else Path(cache) / "file-hashes.json"

    def digest(index: list[int]) -> list[str]:
        found = file_hashes([paths[i] for i in index], known=known)
        return [text_hash(sha, read.__name__, size, PIL.__version__) for sha in found]

    return digest


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


def check_choice(**options: tuple[str, Sequence[str]]) -> None:
    """Refuse an option that is none of its choices, given as ``name=(value, choices)``.

    Raises
    ------
    ValueError
        Names the option.
    """
    for name, (value, choices) in options.items():
        if value not in choices:
            wanted = " or ".join(map(repr, choices))
            raise ValueError(f"{name}: expected {wanted}, got {value!r}")


def require(files: Iterable[Path], *, source: str) -> None:
    """Refuse to go on without some files.

    Raises
    ------
    ValueError
        One message: how many are missing, the first few, and `source`, where they come from.
    """
    missing = [path for path in files if not path.is_file()]
    if missing:
        raise ValueError(f"root: {_listed(missing)}. {source}.")


def one_hot(rows: Sequence[Iterable[str]], classes: Sequence[str]) -> torch.Tensor:
    """Bool ``(N, C)`` from the class names of each of N images, by name."""
    column = {name: c for c, name in enumerate(classes)}
    labels = torch.zeros((len(rows), len(classes)), dtype=torch.bool)
    for i, names in enumerate(rows):
        labels[i, [column[name] for name in names]] = True
    return labels


def assemble(
    *,
    paths: Sequence[Path],
    labels: torch.Tensor,
    ids: tuple[str, ...],
    size: int,
    on_error: str,
    preload: bool,
    source: str,
    cache: str | Path | None = None,
    read: Callable[[Path, int], torch.Tensor] = decode,
    **rest: str | tuple[str, ...],
) -> MultiLabelDataset:
    """Put a benchmark's lists together, once it is known which photos are there.

    Parameters
    ----------
    paths, labels, ids
        Of the N images listed: their files, bool ``(N, C)``, and ids.
    size, on_error, preload, cache
        As in :func:`voc`.
    source : str
        Where missing files come from and belong; ends a message.
    read : callable
        ``read(path, size)`` gives uint8 ``(3, size, size)``.
    **rest
        The other fields of :class:`MultiLabelDataset`.

    Raises
    ------
    ValueError
        Photos missing (with ``on_error="skip"``: all of them), or none listed.
    """
    check_choice(on_error=(on_error, ("raise", "skip")))
    if isinstance(size, bool) or not isinstance(size, int) or size < 1:
        raise ValueError(f"size: expected an int >= 1, in pixels, got {size!r}")
    if not paths:
        raise ValueError("root: the files there list no image that could be used")
    kept = [i for i, path in enumerate(paths) if path.is_file()]
    if len(kept) < len(paths):
        if on_error == "raise" or not kept:
            require(paths, source=source)
        there = set(kept)
        gone = [path for i, path in enumerate(paths) if i not in there]
        warnings.warn(f"left out: {_listed(gone)}", stacklevel=3)
    files = [paths[i] for i in kept]
    now = torch.stack([read(path, size) for path in files]) if preload else None
    return MultiLabelDataset(
        labels=labels[kept],
        ids=tuple(ids[i] for i in kept),
        load=(lambda i: read(files[i], size)) if now is None else now.__getitem__,
        size=size,
        digest=digester(files, read, size, cache),
        **rest,
    )


def _listed(files: Sequence[Path]) -> str:
    """Count missing files and name the first few."""
    named = ", ".join(map(str, files[:NAMED])) + (" ..." if len(files) > NAMED else "")
    return f"{len(files)} file{'s' if len(files) > 1 else ''} missing: {named}"
