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
    if not are_files(data):
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
        An image that cannot be read, or whose file is not the one that was hashed.
    """
    part, own = _only(part, data)
    pixels = []
    for i, name in enumerate(own.ids):
        try:
            pixels.append(own.load(i))
        except Exception as error:
            raise ValueError(f"image {name!r}: {error}") from error
    for other in changed(digests, own):
        raise ValueError(f"image {other!r}: its file is not, or no longer, the one that was hashed")
    return part, replace(own, load=torch.stack(pixels).__getitem__, digest=None)


def _only(part: Queue, data: MultiLabelDataset) -> tuple[Queue, MultiLabelDataset]:
    """The rows, and the data set cut to their images."""
    index, rows = torch.unique(part.index, return_inverse=True)
    return replace(part, index=rows), data.subset(index)


def changed(digests: Sequence[str], data: MultiLabelDataset) -> list[str]:
    """Ids of images whose file is not, here and now, the one of that digest; of files alone."""
    if not are_files(data):
        return []
    try:
        found = replace(data.load, cache=None).digest(range(len(data)))
    except OSError:  # there, and not to be read here
        return list(data.ids)
    pairs = zip(data.ids, found, digests, strict=True)
    return [name for name, here, wanted in pairs if here != wanted]


def are_files(data: MultiLabelDataset) -> bool:
    """Are the images files that are read when they are needed, and known by their bytes?"""
    return isinstance(data.load, ImageFiles) and not data.load.held and data.digest is None
