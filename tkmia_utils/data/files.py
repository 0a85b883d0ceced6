"""Photos on disk: required to be there, and put together as a data set."""

import warnings
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import torch

from tkmia_utils.data.base import MultiLabelDataset
from tkmia_utils.data.image_files import ImageFiles, decode

NAMED = 5
"""How many files a message names before it only counts."""


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
    files = ImageFiles(tuple(paths[i] for i in kept), size, read, cache)
    return MultiLabelDataset(
        labels=labels[kept],
        ids=tuple(ids[i] for i in kept),
        load=files.preloaded() if preload else files,
        size=size,
        **rest,
    )


def _listed(files: Sequence[Path]) -> str:
    """Count missing files and name the first few."""
    named = ", ".join(map(str, files[:NAMED])) + (" ..." if len(files) > NAMED else "")
    return f"{len(files)} file{'s' if len(files) > 1 else ''} missing: {named}"
