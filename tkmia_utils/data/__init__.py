"""Data sets, one file each, behind one interface: :class:`MultiLabelSet`."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import torch

from tkmia_utils.checks import check_mask
from tkmia_utils.data import voc
from tkmia_utils.data.base import MultiLabelSet
from tkmia_utils.data.emoji import scenes
from tkmia_utils.data.folder import folder

__all__ = [
    "MultiLabelSet",
    "co_occurrence",
    "describe",
    "folder",
    "load",
    "scenes",
    "size_histogram",
    "types_of",
]


def load(
    dataset: str,
    split: str,
    *,
    n: int = 1000,
    size: int = 96,
    seed: int = 0,
    cache: str | Path = "cache",
    csv: str | Path | None = None,
    images: str | Path | None = None,
    separator: str = ";",
    on_error: str = "raise",
    classes: Sequence[str] | None = None,
    progress: bool = False,
) -> MultiLabelSet:
    """Load a data set by name: the one call that every notebook makes.

    Parameters
    ----------
    dataset : {"emoji", "folder"}
        The embedded default, or images with a CSV.
    split : {"train", "val"}
        Which half.
    n, seed, cache, progress
        Of the emoji scenes; see :func:`tkmia_utils.data.emoji.scenes`.
    csv, images, separator, on_error
        Of a folder; see :func:`tkmia_utils.data.folder.folder`.
    size : int
        Pixels a side.
    classes : sequence of str, optional
        The classes of the training set or of the victim, which a held-out set must share.

    Returns
    -------
    MultiLabelSet

    Raises
    ------
    ValueError
        An unknown data set, a folder without a CSV, a CSV where none is read, or classes that are
        not the data set's.
    """
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
        )
    if dataset != "emoji":
        raise ValueError(f"dataset: expected 'emoji' or 'folder', got {dataset!r}")
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


def types_of(data: MultiLabelSet) -> dict[str, tuple[str, ...]]:
    """Global sets of scheme S1: the paper's types of VOC, cut to the classes the data has.

    Parameters
    ----------
    data : MultiLabelSet
        Classes are matched by name, spaces and case aside ("dining table" is "diningtable").

    Returns
    -------
    dict of str to tuple of str
        Type to the data's own class names; a type without any is left out.
    """
    own = {name.replace(" ", "").lower(): name for name in data.classes}
    own |= {voc.ALIASES[name]: own[name] for name in voc.ALIASES if name in own}
    found = {t: tuple(own[c] for c in names if c in own) for t, names in voc.TYPES.items()}
    return {name: members for name, members in found.items() if members}


def describe(data: MultiLabelSet) -> pd.DataFrame:
    """Count the labels.

    Returns
    -------
    pandas.DataFrame
        One row a class, in the set's order: ``images`` (how many show it), ``share`` (of all
        images, in [0, 1]) and ``others`` (mean number of other labels beside it; NaN if unseen).
    """
    count = data.labels.sum(0)
    beside = data.labels * (data.labels.sum(1, keepdim=True) - 1)
    columns = {
        "images": count.numpy(),
        "share": (count.double() / len(data)).numpy(),
        "others": (beside.sum(0).double() / count).numpy(),
    }
    return pd.DataFrame(columns, index=pd.Index(data.classes, name="class"))


def co_occurrence(labels: torch.Tensor) -> torch.Tensor:
    """Count the images that show both of two classes.

    Parameters
    ----------
    labels : torch.Tensor
        Bool ``(N, C)``.

    Returns
    -------
    torch.Tensor
        int64 ``(C, C)``, symmetric; the diagonal counts each class.

    Raises
    ------
    ValueError
        Labels not bool or not ``(N, C)``.
    """
    _check_labels(labels)
    counts = labels.double()
    return (counts.T @ counts).long()


def size_histogram(labels: torch.Tensor) -> pd.Series:
    """Count the images by |Y|, their number of labels.

    Parameters
    ----------
    labels : torch.Tensor
        Bool ``(N, C)``.

    Returns
    -------
    pandas.Series
        Images for every |Y| from 0 to the largest.

    Raises
    ------
    ValueError
        Labels not bool or not ``(N, C)``.
    """
    _check_labels(labels)
    counts = torch.bincount(labels.sum(1)).numpy()
    return pd.Series(counts, index=pd.RangeIndex(len(counts), name="|Y|"), name="images")


def _check_labels(labels: torch.Tensor) -> None:
    check_mask(labels, labels, name="labels")
    if labels.ndim != 2:
        raise ValueError(f"labels: expected shape (N, C), got {tuple(labels.shape)}")
