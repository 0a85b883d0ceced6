"""What a cluster's driver sends of a shard: its rows, and the paths or the pixels of their images.

Either way the data set that is sent holds only the shard's images, each once. `digests` are theirs
(:attr:`tkmia_utils.experiments.campaign.Shard.digests`).
"""

from collections.abc import Sequence
from dataclasses import replace

import torch

from tkmia_utils.data import MultiLabelDataset
from tkmia_utils.data.image_files import ImageFiles
from tkmia_utils.experiments.protocol import Queue


def lend(
    part: Queue, data: MultiLabelDataset, digests: Sequence[str]
) -> tuple[Queue, MultiLabelDataset]:
    """The rows with a data set of only their images: of their files, or as :func:`pack`."""
    if not _are_files(data):
        return pack(part, data, digests)
    part, own = _only(part, data)
    return part, replace(own, load=own.load.to_send())


def pack(
    part: Queue, data: MultiLabelDataset, digests: Sequence[str]
) -> tuple[Queue, MultiLabelDataset]:
    """The rows with a data set of only their images, each read once and held as uint8.

    Raises
    ------
    ValueError
        An image that cannot be read, or a file that is not the one that the shard was cut from.
    """
    part, own = _only(part, data)
    pixels = []
    for i, name in enumerate(own.ids):
        try:
            pixels.append(own.load(i))
        except Exception as error:
            raise ValueError(f"image {name!r}: {error}") from error
    for other in changed(digests, own):
        raise ValueError(f"image {other!r}: its file has changed since the run began")
    return part, replace(own, load=torch.stack(pixels).__getitem__, digest=None)


def _only(part: Queue, data: MultiLabelDataset) -> tuple[Queue, MultiLabelDataset]:
    """The rows, and the data set cut to their images."""
    index, rows = torch.unique(part.index, return_inverse=True)
    return replace(part, index=rows), data.subset(index)


def changed(digests: Sequence[str], data: MultiLabelDataset) -> list[str]:
    """Ids of images whose file is not, here and now, the one of that digest; none if no files."""
    if not _are_files(data):
        return []
    found = replace(data.load, cache=None).digest(range(len(data)))
    pairs = zip(data.ids, found, digests, strict=True)
    return [name for name, here, wanted in pairs if here != wanted]


def _are_files(data: MultiLabelDataset) -> bool:
    return isinstance(data.load, ImageFiles) and data.digest is None
