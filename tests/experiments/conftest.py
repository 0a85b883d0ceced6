"""A toy world for the tests of experiments."""

import pytest
import torch
from torch import nn

from tkmia_utils.data import MultiLabelDataset


@pytest.fixture(scope="module")
def world():
    """A linear victim, and images labelled by its own five highest classes."""
    generator = torch.Generator().manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(48, 8)).eval()
    for parameter in model.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator)
    pixels = torch.randint(0, 256, (40, 3, 4, 4), generator=generator, dtype=torch.uint8)
    logits = model(pixels / 255).detach()
    labels = torch.zeros_like(logits, dtype=torch.bool).scatter_(1, logits.topk(5).indices, True)
    data = MultiLabelDataset(
        name="toy", split="val", classes=tuple("abcdefgh"), labels=labels,
        ids=tuple(f"i{n}" for n in range(40)), load=pixels.__getitem__, card="toy", size=4,
    )  # fmt: skip
    return model, data, logits
