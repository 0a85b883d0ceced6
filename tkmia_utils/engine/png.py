"""Adversarial images as PNG files, read back before they count as written."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from tkmia_utils.files import write_atomically


def save_png(images: torch.Tensor, paths: Sequence[str | Path]) -> list[Path]:
    """Write images as 8-bit PNG files, and read every one of them back.

    Parameters
    ----------
    images : torch.Tensor
        float32 ``(N, 3, H, W)`` in [0, 1]; pixels are rounded to the nearest n/255.
    paths : sequence of str or Path
        N files; their folders are made, and each is written whole or not at all.

    Returns
    -------
    list of Path

    Raises
    ------
    ValueError
        Not one path an image, images not in [0, 1] or with NaN.
    OSError
        A file does not give back what was written.
    """
    if images.ndim != 4 or images.shape[1] != 3 or len(images) != len(paths):
        raise ValueError(
            f"paths: expected one for each of the images (N, 3, H, W), got {len(paths)} for "
            f"{tuple(images.shape)}"
        )
    if not bool(((images >= 0) & (images <= 1)).all()):
        raise ValueError("images: expected values in [0, 1] without NaN")
    levels = (images.cpu() * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
    written = []
    for pixels, path in zip(levels, paths, strict=True):
        picture = Image.fromarray(np.ascontiguousarray(pixels))
        written.append(write_atomically(path, partial(picture.save, format="PNG")))
        with Image.open(path) as file:
            if not np.array_equal(np.asarray(file.convert("RGB")), pixels):
                raise OSError(f"{path}: does not give back the pixels that were written")
    return written


def read_png(paths: Sequence[str | Path]) -> torch.Tensor:
    """Read image files of one size: float32 ``(N, 3, H, W)``, n/255.

    Raises
    ------
    ValueError
        No file, a file that is not there or no image, or images of several sizes.
    """
    if isinstance(paths, str | Path) or not len(paths):
        raise ValueError(f"paths: expected at least one file in a list, got {paths!r}")
    images = []
    for path in paths:
        try:
            with Image.open(path) as file:
                pixels = np.array(file.convert("RGB"))
        except OSError as error:
            raise ValueError(f"paths: {path} cannot be read as an image ({error})") from None
        images.append(torch.from_numpy(pixels).permute(2, 0, 1))
    sizes = {tuple(image.shape) for image in images}
    if len(sizes) > 1:
        raise ValueError(f"paths: expected images of one size, got {sorted(sizes)}")
    return torch.stack(images).float() / 255
