"""Data sets, one file each, behind one interface: :class:`MultiLabelDataset`."""

import inspect
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tkmia_utils.data import coco, emoji, nus, voc
from tkmia_utils.data.base import MultiLabelDataset
from tkmia_utils.data.classes import types_of
from tkmia_utils.data.emoji import scenes
from tkmia_utils.data.folder import folder
from tkmia_utils.data.summary import co_occurrence
from tkmia_utils.hashing import text_hash

__all__ = [
    "MultiLabelDataset",
    "co_occurrence",
    "fingerprint",
    "folder",
    "load",
    "scenes",
    "types_of",
]

LOADERS: dict[str, Callable[..., MultiLabelDataset]] = {
    "emoji": scenes,
    "folder": folder,
    "voc": voc.voc,
    "coco": coco.coco,
    "nus": nus.nus,
}
"""Every data set by name; it is called with those arguments of :func:`load` that it has."""

BENCHMARKS = ("voc", "coco", "nus")
"""The paper's data sets, read in their official layouts."""

NEEDS = {"csv": "the path of its {split} CSV", "root": "the folder that holds its files"}
"""Arguments that some data sets cannot do without."""


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
    """Load a data set by name.

    Parameters
    ----------
    dataset : {"emoji", "folder", "voc", "coco", "nus"}
        The embedded default, images with a CSV, or a benchmark in its official layout.
    split : {"train", "val"}
        The training or the held-out images.
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
        Decode all photos now and keep them; default: only those of a folder.
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
    if dataset not in LOADERS:
        raise ValueError(f"dataset: expected one of {', '.join(LOADERS)}, got {dataset!r}")
    loader = LOADERS[dataset]
    takes = inspect.signature(loader).parameters
    # what each data set understands in its own way, or does without
    shared = {"n": n, "size": size, "seed": seed, "cache": cache, "separator": separator}
    shared |= {"on_error": on_error, "classes": classes, "progress": progress, "preload": preload}
    # what would be a mistake for a data set that does not take it
    own = {"csv": csv, "images": images, "root": root, **options}
    for name, value in own.items():
        if value is not None and name not in takes:
            raise ValueError(f"{name}: the data set {dataset!r} takes no such option ({value!r})")
    for name, what in NEEDS.items():
        if name in takes and own[name] is None:
            raise ValueError(f"{name}: the data set {dataset!r} needs {what.format(split=split)}")
    given = {k: v for k, v in (shared | own).items() if k in takes and v is not None}
    data = loader(split=split, **given)
    if classes is not None and tuple(classes) != data.classes:
        raise ValueError(f"classes: they are not those of the data set {dataset!r}")
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
        known = {name: arguments[name] for name in ("seed", "size", "style") if name in arguments}
        return text_hash(emoji.fingerprint(split, **known), arguments.get("n"))
    return load(dataset, split, **{**arguments, "preload": False}).fingerprint()
