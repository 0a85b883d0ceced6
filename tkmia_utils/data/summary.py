"""How often labels occur together."""

import torch

from tkmia_utils.validation import check_mask


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
    check_mask(labels, labels, name="labels")
    if labels.ndim != 2:
        raise ValueError(f"labels: expected shape (N, C), got {tuple(labels.shape)}")
    counts = labels.double()
    return (counts.T @ counts).long()
