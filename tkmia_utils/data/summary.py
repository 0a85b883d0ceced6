"""How often labels occur, alone and together."""

import pandas as pd
import torch

from tkmia_utils.data.base import MultiLabelDataset
from tkmia_utils.validation import check_mask


def describe(data: MultiLabelDataset) -> pd.DataFrame:
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
