"""A victim of one linear layer and three images of noise: attacked in no time, or slowly."""

import time
from collections.abc import Sequence

import torch

from tkmia_utils.explorer.recording import Recording, record
from tkmia_utils.explorer.session import Session

CLASSES = ("person", "dog", "car", "tree", "boat", "cup")
NAMES = ("first", "second", "third")


class Toy(torch.nn.Module):
    """Six logits of 8 pixels a side; each look takes so many seconds."""

    def __init__(self, seconds: float = 0.0) -> None:
        super().__init__()
        self.seconds = seconds
        generator = torch.Generator().manual_seed(1)
        self.weights = torch.nn.Parameter(torch.randn(6, 192, generator=generator) / 4)
        self.eval()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        time.sleep(self.seconds)
        return (x - 0.5).flatten(1) @ self.weights.T


def images() -> torch.Tensor:
    return torch.rand(3, 3, 8, 8, generator=torch.Generator().manual_seed(2))


def labels() -> torch.Tensor:
    """The four highest labels of each image and no other."""
    with torch.no_grad():
        logits = Toy()(images())
    return logits >= logits.sort(-1, descending=True).values[:, 3:4]


def specified(image: int) -> torch.Tensor:
    """The highest label."""
    with torch.no_grad():
        logits = Toy()(images())[image]
    return logits == logits.max()


def toy_recording(image: int = 0, method: str = "tkmia", k: int = 2, **settings) -> Recording:
    settings = {"max_iter": 40, "lr": 0.01} | settings
    return record(
        Toy(), images()[image], labels()[image], specified(image), k, image_name=NAMES[image],
        classes=CLASSES, method=method, **settings,
    )  # fmt: skip


def toy_recordings() -> list[Recording]:
    """Two images, two ks of the first one, three methods."""
    scenes: Sequence[tuple[int, int]] = ((0, 2), (0, 3), (1, 2))
    runs = (("tkmia", "excluded"), ("ml_cw_u", "excluded"), ("tkmia_min", "imperceptible"))
    return [toy_recording(i, method, k, stop=stop) for i, k in scenes for method, stop in runs]


def toy_session(seconds: float = 0.0) -> Session:
    return Session(Toy(seconds), images(), labels(), NAMES, CLASSES, lr=0.01)
