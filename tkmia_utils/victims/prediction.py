"""Predictions of a classifier: images read in batches, their logits, and its quality."""

from collections.abc import Iterator

import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

from tkmia_utils.data import MultiLabelDataset
from tkmia_utils.measures import average_precision_at_k, class_average_precision
from tkmia_utils.victims.backbones import head


def unit(pixels: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Turn uint8 pixels into float32 in [0, 1] on a device.

    Parameters
    ----------
    pixels : torch.Tensor
        uint8, any shape.
    device : torch.device
        Where to.
    """
    return pixels.to(device, non_blocking=True).float().div_(255)


class _Pixels(Dataset):
    """A data set's images as uint8, for workers."""

    def __init__(self, data: MultiLabelDataset) -> None:
        self.data = data

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, i: int) -> torch.Tensor:
        return self.data.load(i)


def batches(
    data: MultiLabelDataset, indices: list[list[int]], *, workers: int = 0
) -> Iterator[torch.Tensor]:
    """Read batches of images, ahead of time where there are workers.

    Parameters
    ----------
    data : MultiLabelDataset
        The images.
    indices : list of list of int
        Positions, batch by batch.
    workers : int
        Processes that decode; 0 is this one.

    Yields
    ------
    torch.Tensor
        uint8 ``(n, 3, size, size)``.
    """
    yield from DataLoader(
        _Pixels(data),
        batch_sampler=indices,
        num_workers=workers,
        pin_memory=torch.cuda.is_available(),
        # a data set is a closure, which only a forked process inherits
        multiprocessing_context="fork" if workers else None,
        generator=torch.Generator(),  # or it would draw from the global one
    )


def pick_device(device: str) -> torch.device:
    """``"auto"`` is CUDA where there is one, else the CPU; anything else is taken by its name."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(device)


@torch.no_grad()
def predict(
    model: nn.Module, data: MultiLabelDataset, *, batch: int = 64, workers: int = 0
) -> torch.Tensor:
    """Logits of every image of a data set, the clean pass.

    Parameters
    ----------
    model : torch.nn.Module
        A victim, in evaluation mode.
    data : MultiLabelDataset
        N images.
    batch : int
        Images at once.
    workers : int
        Processes that decode images; 0 is this one.

    Returns
    -------
    torch.Tensor
        float32 ``(N, C)``, on the CPU.
    """
    device = next(model.parameters()).device
    parts = [list(range(i, min(i + batch, len(data)))) for i in range(0, len(data), batch)]
    read = batches(data, parts, workers=workers)
    return torch.cat([model(unit(x, device)).float().cpu() for x in read])


@torch.no_grad()
def logits_of(model: nn.Module, images: torch.Tensor, *, batch: int = 64) -> torch.Tensor:
    """Logits of images that are tensors already.

    Parameters
    ----------
    model : torch.nn.Module
        In evaluation mode.
    images : torch.Tensor
        float32 ``(N, 3, H, W)`` in [0, 1], on any device.
    batch : int
        Images at a time.

    Returns
    -------
    torch.Tensor
        float32 ``(N, C)``, on the CPU.
    """
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    return torch.cat([model(x.to(device)).float().cpu() for x in images.split(batch)])


def features(
    model: nn.Module, data: MultiLabelDataset, *, batch: int = 64, workers: int = 0
) -> torch.Tensor:
    """The input of a classifier's last linear layer, for every image.

    Parameters
    ----------
    model, data, batch, workers
        As for :func:`predict`.

    Returns
    -------
    torch.Tensor
        float32 ``(N, D)``, on the CPU.

    Raises
    ------
    ValueError
        The model has no linear layer.
    """
    seen: list[torch.Tensor] = []
    hook = head(model).register_forward_pre_hook(lambda module, given: seen.append(given[0].cpu()))
    try:
        predict(model, data, batch=batch, workers=workers)
    finally:
        hook.remove()
    return torch.cat(seen).flatten(1)


def evaluate(logits: torch.Tensor, labels: torch.Tensor) -> dict[str, float]:
    """Two figures that are both called mAP.

    Parameters
    ----------
    logits : torch.Tensor
        ``(N, C)``.
    labels : torch.Tensor
        Bool ``(N, C)``.

    Returns
    -------
    dict
        ``class_map``, the mean average precision over classes, and ``image_ap``, the mean over
        images with labels, which Table 5 of the paper prints.
    """
    some = labels.any(-1)
    per_image = average_precision_at_k(logits[some], labels[some], labels.shape[-1])
    per_class = class_average_precision(logits, labels)
    return {
        "class_map": float(per_class[~per_class.isnan()].mean()),
        "image_ap": float(per_image.mean()),
    }
