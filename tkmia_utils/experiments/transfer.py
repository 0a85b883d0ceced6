"""Does an attack still hold elsewhere? Other victims, other file formats, other sizes."""

from collections.abc import Callable, Mapping
from io import BytesIO

import numpy as np
import pandas as pd
import torch
from PIL import Image
from torch import nn
from torch.nn import functional
from torchvision.transforms.functional import gaussian_blur

from tkmia_utils import measures
from tkmia_utils.data import MultiLabelDataset
from tkmia_utils.engine.outcome import excluded, fell
from tkmia_utils.exact import on_grid
from tkmia_utils.experiments.protocol import Queue
from tkmia_utils.victims.prediction import logits_of

Change = Callable[[torch.Tensor], torch.Tensor]


def jpeg(quality: int) -> Change:
    """Through a JPEG file of that quality."""

    def through(images: torch.Tensor) -> torch.Tensor:
        pixels = (images.cpu() * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
        read = []
        for picture in pixels:
            file = BytesIO()
            Image.fromarray(picture).save(file, format="JPEG", quality=quality)
            read.append(np.array(Image.open(file)))
        return torch.from_numpy(np.stack(read)).permute(0, 3, 1, 2).float() / 255

    return through


def shifted(images: torch.Tensor) -> torch.Tensor:
    """One pixel to the right; the left edge is repeated."""
    return functional.pad(on_grid(images), (1, 0, 0, 0), mode="replicate")[..., :-1]


def resized(images: torch.Tensor) -> torch.Tensor:
    """Down to three quarters of the side and up again, bilinear."""
    side = images.shape[-2:]
    few = [max(1, 3 * pixels // 4) for pixels in side]
    bilinear = {"mode": "bilinear", "antialias": True, "align_corners": False}
    small = functional.interpolate(on_grid(images), few, **bilinear)
    return functional.interpolate(small, side, **bilinear).clamp(0, 1)


def blurred(images: torch.Tensor) -> torch.Tensor:
    """A Gaussian of half a pixel over 3 x 3 pixels."""
    return gaussian_blur(on_grid(images), [3, 3], [0.5, 0.5])


TREATMENTS: dict[str, Change] = {
    "PNG": on_grid,
    "JPEG 90": jpeg(90),
    "JPEG 75": jpeg(75),
    "one pixel of shift": shifted,
    "resized": resized,
    "blurred": blurred,
}
"""What happens to an image on its way, by name; each starts from the 8-bit image."""


def viewers(model: nn.Module, others: Mapping[str, nn.Module]) -> dict[str, tuple]:
    """Where an image may arrive: at the attacked victim by every way, at other victims as PNG.

    Returns
    -------
    dict of str to (torch.nn.Module, callable)
        Who looks, and what happened to the image before.
    """
    return {name: (model, change) for name, change in TREATMENTS.items()} | {
        name: (other, on_grid) for name, other in others.items()
    }


def judge(
    model: nn.Module,
    clean: torch.Tensor,
    adversarial: torch.Tensor,
    queue: Queue,
    data: MultiLabelDataset,
) -> pd.DataFrame:
    """Ask a victim about adversarial images that another may have been attacked with.

    The measures are compared with those of the clean images *as this victim sees them, after the
    same change*: whoever looks at a compressed photo would have seen the compressed original.

    Parameters
    ----------
    model : torch.nn.Module
        Who looks.
    clean, adversarial : torch.Tensor
        float32 ``(R, 3, H, W)`` in [0, 1], after the change.
    queue : Queue
        R rows.
    data : MultiLabelDataset
        For the image ids.

    Returns
    -------
    pandas.DataFrame
        ``cell, image``, ``shown`` (with the clean image, fewer than delta of S are out of the
        top k), ``hidden`` (with the adversarial one at least delta are) and ``kept`` (hidden, and
        no measure fell).
    """
    before, after = (logits_of(model, x) for x in (clean, adversarial))
    hidden, lost = (
        excluded(logits, queue.specified, queue.k, queue.delta) for logits in (after, before)
    )
    changes = measures.measure_changes(before, after, queue.labels, queue.specified, queue.k)
    return pd.DataFrame(
        {
            "cell": [cell.name for cell in queue.cells],
            "image": [data.ids[i] for i in queue.index.tolist()],
            "shown": ~lost.numpy(),
            "hidden": hidden.numpy(),
            "kept": (hidden & ~fell(changes)).numpy(),
        }
    )


def judge_everywhere(
    places: Mapping[str, tuple[nn.Module, Change]],
    clean: torch.Tensor,
    attacked: Mapping[str, torch.Tensor],
    queue: Queue,
    data: MultiLabelDataset,
) -> pd.DataFrame:
    """Send the images of every run everywhere, and the clean ones along with them.

    Parameters
    ----------
    places : mapping of str to (torch.nn.Module, callable)
        From :func:`viewers`.
    clean : torch.Tensor
        float32 ``(R, 3, H, W)`` in [0, 1].
    attacked : mapping of str to torch.Tensor
        By run, images like `clean`.
    queue, data
        As for :func:`judge`.

    Returns
    -------
    pandas.DataFrame
        :func:`judge` of each, with the columns ``run`` and ``place``.
    """
    frames = []
    for place, (model, change) in places.items():
        original = change(clean)
        for run, images in attacked.items():
            rows = judge(model, original, change(images), queue, data)
            frames.append(rows.assign(run=run, place=place))
    return pd.concat(frames, ignore_index=True)
