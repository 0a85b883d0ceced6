"""Data sets, one file each, behind one interface: :class:`MultiLabelDataset`."""

import inspect
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from tkmia_utils.data import coco, emoji, nus, voc
from tkmia_utils.data.base import MultiLabelDataset
from tkmia_utils.data.emoji import scenes
from tkmia_utils.data.folder import folder
from tkmia_utils.data.summary import co_occurrence, describe, size_histogram
from tkmia_utils.hashing import text_hash

__all__ = [
    "MultiLabelDataset",
    "co_occurrence",
    "describe",
    "fingerprint",
    "folder",
    "load",
    "scenes",
    "size_histogram",
    "types_of",
]

BENCHMARKS: dict[str, Callable[..., MultiLabelDataset]] = {
    "voc": voc.voc,
    "coco": coco.coco,
    "nus": nus.nus,
}
"""The paper's data sets, read in their official layouts."""


def load(
    dataset: str,
    split: str,
    *,
    n: int = 1000,
    size: int | None = None,
    seed: int = 0,
    cache: str | Path = "cache",
    csv: str | Path | None = None,
    images: str | Path | None = None,
    separator: str = ";",
    on_error: str = "raise",
    classes: Sequence[str] | None = None,
    progress: bool = False,
    root: str | Path | None = None,
    preload: bool | None = None,
    **options: Any,
) -> MultiLabelDataset:
    """Load a data set by name: the one call that every notebook makes.

    Parameters
    ----------
    dataset : {"emoji", "folder", "voc", "coco", "nus"}
        The embedded default, images with a CSV, or a benchmark in its official layout.
    split : {"train", "val"}
        Which half.
    n, seed, cache, progress
        Of the emoji scenes; see :func:`tkmia_utils.data.emoji.scenes`. `seed` also divides
        NUS-WIDE at random, where that is asked for; `cache` also remembers hashes of images.
    csv, images, separator, on_error
        Of a folder; see :func:`tkmia_utils.data.folder.folder`.
    size : int, optional
        Pixels a side; default: 96, and the paper's 300, 448 and 224 for VOC, COCO and NUS-WIDE.
    classes : sequence of str, optional
        The classes of the training set or of the victim, which a held-out set must share.
    root : str or Path, optional
        Of a benchmark: the folder that holds its files.
    preload : bool, optional
        Decode all photos now and keep them; default: those of a folder alone.
    **options
        Of a benchmark: what else :func:`tkmia_utils.data.voc.voc`,
        :func:`tkmia_utils.data.coco.coco` or :func:`tkmia_utils.data.nus.nus` takes.

    Returns
    -------
    MultiLabelDataset

    Raises
    ------
    ValueError
        An unknown data set, a folder without a CSV, a CSV where none is read, a benchmark without
        its root, an option it does not take, or classes that are not the data set's.
    """
    known = ("emoji", "folder", *BENCHMARKS)
    if dataset not in known:
        raise ValueError(f"dataset: expected one of {', '.join(known)}, got {dataset!r}")
    if dataset in BENCHMARKS:
        options |= {"on_error": on_error, "cache": cache}
        options |= {} if preload is None else {"preload": preload}
        options |= {"seed": seed} if dataset == "nus" else {}
        options |= {} if size is None else {"size": size}
        options |= {} if images is None else {"images": images}
        return _benchmark(dataset, split, root, csv, classes, options)
    # the other two take none of a benchmark's options
    _check_options(dataset, options if root is None else {"root": root, **options}, ())
    size = 96 if size is None else size
    if dataset == "folder":
        if csv is None:
            raise ValueError(f"csv: the data set 'folder' needs the path of its {split} CSV")
        return folder(
            csv,
            images,
            size=size,
            classes=classes,
            separator=separator,
            split=split,
            on_error=on_error,
            preload=preload is not False,
            cache=cache,
        )
    for name, path in (("csv", csv), ("images", images)):
        if path is not None:
            raise ValueError(
                f"{name}: the data set 'emoji' reads no files, got {str(path)!r}; "
                "did you mean dataset='folder'?"
            )
    data = scenes(split, n, seed=seed, size=size, cache=cache, progress=progress)
    if classes is not None and tuple(classes) != data.classes:
        raise ValueError("classes: they are not those of the emoji scenes")
    return data


def fingerprint(dataset: str, split: str, **arguments: Any) -> str:
    """Hash of a data set by name: its images, labels and classes. No image is decoded or composed.

    Parameters
    ----------
    dataset, split, **arguments
        As for :func:`load`.

    Raises
    ------
    ValueError
        As for :func:`load`.
    """
    if dataset == "emoji":
        known = {name: arguments[name] for name in ("seed", "size") if name in arguments}
        return text_hash(emoji.fingerprint(split, **known), arguments.get("n"))
    return load(dataset, split, **{**arguments, "preload": False}).fingerprint()


def types_of(data: MultiLabelDataset) -> dict[str, tuple[str, ...]]:
    """Global sets of scheme S1: the paper's types, cut to the classes the data has.

    Parameters
    ----------
    data : MultiLabelDataset
        COCO has the types of Table 7, NUS-WIDE those of Table 8, all else VOC's of Table 6.
        Classes are matched by name, spaces and case aside ("dining table" is "diningtable").

    Returns
    -------
    dict of str to tuple of str
        Type to the data's own class names; a type without any is left out.
    """
    types = {"coco": coco.TYPES, "nus": nus.TYPES}.get(data.name, voc.TYPES)
    own = {_plain(name): name for name in data.classes}
    own |= {voc.ALIASES[name]: own[name] for name in voc.ALIASES if name in own}
    found = {
        name: tuple(own[_plain(c)] for c in members if _plain(c) in own)
        for name, members in types.items()
    }
    return {name: members for name, members in found.items() if members}


def _benchmark(
    dataset: str,
    split: str,
    root: str | Path | None,
    csv: str | Path | None,
    classes: Sequence[str] | None,
    options: dict[str, Any],
) -> MultiLabelDataset:
    if csv is not None:
        raise ValueError(f"csv: the data set {dataset!r} reads no CSV, got {str(csv)!r}")
    if root is None:
        raise ValueError(f"root: the data set {dataset!r} needs the folder that holds its files")
    _check_options(dataset, options, inspect.signature(BENCHMARKS[dataset]).parameters)
    data = BENCHMARKS[dataset](root, split, **options)
    if classes is not None and tuple(classes) != data.classes:
        raise ValueError(f"classes: they are not those of the data set {dataset!r}")
    return data


def _plain(name: str) -> str:
    return name.replace(" ", "").lower()


def _check_options(dataset: str, options: dict[str, Any], known: Iterable[str]) -> None:
    for name in options:
        if name not in known:
            raise ValueError(f"{name}: the data set {dataset!r} takes no such option")
