"""Through a JPEG file, and what an attacker differentiates instead of it."""

import math
from collections.abc import Callable
from io import BytesIO

import numpy as np
import torch
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile
from torch.nn import functional

BLOCK = 8  # pixels a side of what JPEG transforms at once
# from red, green and blue to JPEG's brightness and two differences of colour
COLOURS = ((0.299, 0.587, 0.114), (-0.168736, -0.331264, 0.5), (0.5, -0.418688, -0.081312))


def jpeg(quality: int) -> Callable[[torch.Tensor], torch.Tensor]:
    """Through a JPEG file of that quality."""

    def through(images: torch.Tensor) -> torch.Tensor:
        levels = (images.detach().cpu() * 255).round().to(torch.uint8)
        read = []
        for picture in levels.permute(0, 2, 3, 1).numpy():
            file = BytesIO()
            Image.fromarray(picture).save(file, format="JPEG", quality=quality)
            read.append(np.array(Image.open(file)))
        pixels = torch.from_numpy(np.stack(read)).permute(0, 3, 1, 2).float() / 255
        return pixels.contiguous().to(images.device)

    return through


def near_jpeg(quality: int) -> Callable[[torch.Tensor], torch.Tensor]:
    """Near a JPEG file of that quality, and differentiable.

    All of JPEG but its rounding is linear: colours, the halved resolution of the two differences of
    colour, the cosine transform of blocks. Instead of rounding a coefficient c, take
    ``round(c) + (c - round(c))^3`` (Shin and Song, *JPEG-resistant Adversarial Images*, 2017):
    a coefficient near a whole number, above all one that JPEG drops, has hardly any gradient.

    Parameters
    ----------
    quality : int
        1 to 100.

    Returns
    -------
    callable
        From images ``(B, 3, H, W)`` in [0, 1] to images of that shape, a little outside [0, 1] at
        times.
    """
    steps = _quantisation(quality)
    wave = torch.arange(BLOCK).float()
    cosine = torch.cos((2 * wave + 1) * wave[:, None] * math.pi / (2 * BLOCK)) / 2
    cosine[0] /= math.sqrt(2)
    # a filter for each pair of frequencies: convolutions keep a row's bits apart from its place
    basis = torch.einsum("uy,vx->uvyx", cosine, cosine).reshape(-1, 1, BLOCK, BLOCK)
    colours = torch.tensor(COLOURS)[:, :, None, None]
    back = torch.linalg.inv(torch.tensor(COLOURS))[:, :, None, None]

    def rounded(planes: torch.Tensor, step: torch.Tensor) -> torch.Tensor:
        height, width = planes.shape[-2:]
        alone = planes.reshape(-1, 1, height, width)
        alone = functional.pad(alone, (0, -width % BLOCK, 0, -height % BLOCK), mode="replicate")
        step = step.to(planes).reshape(1, -1, 1, 1)
        filters = basis.to(planes)
        share = functional.conv2d(alone, filters, stride=BLOCK) / step
        whole = share.detach().round()
        kept = (whole + (share - whole) ** 3) * step
        made = functional.conv_transpose2d(kept, filters, stride=BLOCK)
        return made[..., :height, :width].reshape(planes.shape)

    def through(images: torch.Tensor) -> torch.Tensor:
        height, width = images.shape[-2:]
        planes = functional.conv2d(255 * images - 128, colours.to(images))
        bright, colour = planes[:, :1], planes[:, 1:]
        colour = functional.pad(colour, (0, width % 2, 0, height % 2), mode="replicate")
        colour = rounded(functional.avg_pool2d(colour, 2), steps[1])
        colour = functional.interpolate(
            colour, scale_factor=2, mode="bilinear", align_corners=False
        )[..., :height, :width]
        planes = torch.cat([rounded(bright, steps[0]), colour], 1)
        return (functional.conv2d(planes, back.to(images)) + 128) / 255

    return through


def _quantisation(quality: int) -> torch.Tensor:
    """The steps of brightness and of colour as Pillow writes them, float32 ``(2, 64)``."""
    file = BytesIO()
    Image.new("RGB", (2 * BLOCK, 2 * BLOCK)).save(file, format="JPEG", quality=quality)
    read = Image.open(file)
    assert isinstance(read, JpegImageFile)
    tables = read.quantization  # by row and column, not zigzag
    return torch.tensor([tables[0], tables[1]], dtype=torch.float32)
