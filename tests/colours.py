"""A data set for tests that is learnt in no time."""

import torch

from tkmia_utils.data import MultiLabelDataset

CLASSES = ("red", "green", "blue")


def colours(n: int = 96, seed: int = 0, split: str = "train") -> MultiLabelDataset:
    """Noise with a brighter channel for every label: learnt in no time."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.rand(n, 3, generator=generator) < 0.5
    noise = torch.randint(0, 120, (n, 3, 16, 16), generator=generator)
    pixels = (noise + 100 * labels[:, :, None, None]).to(torch.uint8)
    return MultiLabelDataset(
        name="colours", split=split, classes=CLASSES, labels=labels,
        ids=tuple(f"{split}-{i}" for i in range(n)), load=pixels.__getitem__, card="noise", size=16,
    )  # fmt: skip
