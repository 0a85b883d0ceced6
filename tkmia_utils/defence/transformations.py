"""A transformation of the input as a defence, and the way through it for the attacker.

What is put before a model hides its gradients if it rounds or draws at random. That is no
protection: the attacker puts the same transformation before his own copy, and takes the gradient
of something near it (BPDA) or a mean over draws (EOT); Athalye, Carlini and Wagner, *Obfuscated
Gradients Give a False Sense of Security*, ICML 2018. A defence that was not attacked adaptively
is none.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from torchvision.transforms.functional import gaussian_blur

from tkmia_utils.defence.jpeg import jpeg, near_jpeg
from tkmia_utils.exact import on_grid
from tkmia_utils.validation import check_one_of, is_int

Change = Callable[[torch.Tensor], torch.Tensor]

KEYS = ("seed", "content")
LEAST_SIDE = 0.9  # of the random resizing, as a share of the side; in the paper 299 of 331 pixels
GREY = 0.5  # what is around an image that was made smaller


def shifted(images: torch.Tensor) -> torch.Tensor:
    """One pixel to the right; the left edge is repeated."""
    return shift(on_grid(images))


def resized(images: torch.Tensor) -> torch.Tensor:
    """Down to three quarters of the side and up again, bilinear."""
    return resize(on_grid(images))


def blurred(images: torch.Tensor) -> torch.Tensor:
    """A Gaussian of half a pixel over 3 x 3 pixels."""
    return blur(on_grid(images))


def shift(images: torch.Tensor) -> torch.Tensor:
    """:func:`shifted`, of pixels that need not be whole grey levels: with a gradient."""
    return functional.pad(images, (1, 0, 0, 0), mode="replicate")[..., :-1]


def resize(images: torch.Tensor) -> torch.Tensor:
    """:func:`resized`, of pixels that need not be whole grey levels: with a gradient."""
    side = images.shape[-2:]
    few = [max(1, 3 * pixels // 4) for pixels in side]
    return _bilinear(_bilinear(images, few), list(side)).clamp(0, 1)


def _bilinear(images: torch.Tensor, size: list[int]) -> torch.Tensor:
    return functional.interpolate(
        images, size, mode="bilinear", antialias=True, align_corners=False
    )


def blur(images: torch.Tensor) -> torch.Tensor:
    """:func:`blurred`, of pixels that need not be whole grey levels: with a gradient."""
    out: torch.Tensor = gaussian_blur(images, [3, 3], [0.5, 0.5])
    return out


TREATMENTS: dict[str, Change] = {
    "PNG": on_grid,
    "JPEG 90": jpeg(90),
    "JPEG 75": jpeg(75),
    "one pixel of shift": shifted,
    "resized": resized,
    "blurred": blurred,
}
"""What happens to an image on its way, by name; each starts from the 8-bit image."""


def same(images: torch.Tensor) -> torch.Tensor:
    """The images themselves: what stands in for a rounding."""
    return images


def random_resize(images: torch.Tensor, numbers: torch.Tensor) -> torch.Tensor:
    """Make each image smaller and put it somewhere on grey: Xie et al., ICLR 2018.

    The shape stays, unlike in the paper, so that a batch may hold different sizes.

    Parameters
    ----------
    images : torch.Tensor
        ``(B, 3, H, W)`` in [0, 1].
    numbers : torch.Tensor
        ``(B, 3)`` in [0, 1): for the size, from nine tenths of the side to all of it, and the
        place across and down.

    Returns
    -------
    torch.Tensor
        ``(B, 3, H, W)`` in [0, 1], bilinear; with a gradient.
    """
    numbers = numbers.to(images)
    share = LEAST_SIDE + (1 - LEAST_SIDE) * numbers[:, 0]
    room = 1 - share
    middle = room[:, None] * (2 * numbers[:, 1:3] - 1)  # of the small image, in [-1, 1]
    zoom = 1 / share
    matrix = images.new_zeros(len(images), 2, 3)
    matrix[:, 0, 0] = matrix[:, 1, 1] = zoom
    matrix[:, :, 2] = -middle * zoom[:, None]
    grid = functional.affine_grid(matrix, list(images.shape), align_corners=False)
    return GREY + functional.grid_sample(images - GREY, grid, align_corners=False)


@dataclass(frozen=True)
class Transformation:
    """What is put before a model, and what an attacker differentiates instead.

    Attributes
    ----------
    name : str
        For tables.
    real : callable
        From images ``(B, 3, H, W)`` in [0, 1] to images of that shape; with `numbers` its second
        argument is ``(B, numbers)``, drawn uniformly from [0, 1). A row must depend on that row
        alone.
    stand_in : callable
        Likewise, near `real` and with a useful gradient (BPDA). Its values are never shown to the
        model.
    numbers : int
        How many random numbers an image takes; 0: it is the same every time.

    Raises
    ------
    ValueError
        `numbers` is not an int >= 0.
    """

    name: str
    real: Callable[..., torch.Tensor]
    stand_in: Callable[..., torch.Tensor] = same
    numbers: int = 0

    def __post_init__(self) -> None:
        if not is_int(self.numbers) or self.numbers < 0:
            raise ValueError(f"numbers: expected an int >= 0, got {self.numbers!r}")

    @property
    def random(self) -> bool:
        """Does it draw?"""
        return self.numbers > 0


def random_resized(images: torch.Tensor, numbers: torch.Tensor) -> torch.Tensor:
    """:func:`random_resize` of the 8-bit image."""
    return random_resize(on_grid(images), numbers).clamp(0, 1)


TRANSFORMATIONS: dict[str, Transformation] = {
    t.name: t
    for t in (
        Transformation("PNG", on_grid),
        Transformation("JPEG 75", TREATMENTS["JPEG 75"], near_jpeg(75)),
        Transformation("one pixel of shift", shifted, shift),
        Transformation("resized", resized, resize),
        Transformation("blurred", blurred, blur),
        Transformation("random resize", random_resized, random_resize, numbers=3),
    )
}
"""By name: of :data:`TREATMENTS` those that one could think a defence, and a random one."""


class Defended(nn.Module):
    """A model behind a transformation, with a gradient that leads through it.

    Forward, the model sees what the real transformation makes of the image. Backward, the gradient
    is that of the stand-in. A random transformation is drawn `draws` times, and the logits are the
    mean over the draws (EOT): the owner draws once, an attacker several times.

    The logits of a row depend on that row alone, as the engine asks: random numbers come from the
    seed, or from the seed and the image, never from the row's place in the batch.

    Parameters
    ----------
    model : torch.nn.Module
        Images ``(B, 3, H, W)`` in [0, 1] to logits ``(B, C)``; in evaluation mode.
    transformation : Transformation
        What comes before it.
    draws : int
        Of a random transformation.
    seed : int
        Of its numbers.
    keyed : {"seed", "content"}
        "seed": every image gets the same draws, which an attack then faces in every iteration.
        "content": each image gets its own, another as soon as one pixel changes, as from an owner
        who draws for every request; asked twice about one image it says the same.

    Raises
    ------
    ValueError
        A model in training mode, or a setting out of range.
    """

    def __init__(
        self,
        model: nn.Module,
        transformation: Transformation,
        *,
        draws: int = 1,
        seed: int = 0,
        keyed: str = "seed",
    ) -> None:
        super().__init__()
        if any(module.training for module in model.modules()):
            raise ValueError("model: expected evaluation mode; call model.eval()")
        if not is_int(draws) or draws < 1:
            raise ValueError(f"draws: expected an int >= 1, got {draws!r}")
        if not is_int(seed):
            raise ValueError(f"seed: expected an int, got {seed!r}")
        check_one_of(keyed, KEYS, name="keyed")
        self.model, self.transformation = model, transformation
        self.draws, self.seed, self.keyed = draws if transformation.random else 1, seed, keyed
        self.training = False

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits ``(B, C)``."""
        total: torch.Tensor = self.model(self.seen(x, 0))
        for draw in range(1, self.draws):  # one after the other: a sum in a fixed order
            total = total + self.model(self.seen(x, draw))
        return total / self.draws if self.draws > 1 else total

    def seen(self, x: torch.Tensor, draw: int = 0) -> torch.Tensor:
        """What the model sees of images `x` at a draw, to the bit; with the stand-in's gradient."""
        given = (x, self.numbers(x, draw)) if self.transformation.random else (x,)
        with torch.no_grad():
            real = self.transformation.real(*given)
        if not (x.requires_grad and torch.is_grad_enabled()):
            return real
        near = self.transformation.stand_in(*given)
        return real + (near - near.detach())  # the bracket is 0

    def numbers(self, x: torch.Tensor, draw: int) -> torch.Tensor:
        """Random numbers of a draw, float32 ``(B, numbers)`` on the CPU."""
        if self.keyed == "seed":
            return self._uniform(b"")[draw].expand(len(x), -1)
        rows = x.detach().cpu().contiguous().numpy()
        return torch.stack([self._uniform(row.tobytes())[draw] for row in rows])

    def _uniform(self, content: bytes) -> torch.Tensor:
        key = hashlib.blake2b(content, digest_size=8, key=str(self.seed).encode()).digest()
        source = np.random.Generator(np.random.Philox(key=int.from_bytes(key, "big")))
        shape = (self.draws, self.transformation.numbers)
        return torch.from_numpy(source.random(shape, dtype=np.float32))

    def extra_repr(self) -> str:
        """What decides the logits besides the model."""
        drawn = f", draws={self.draws}, seed={self.seed}, keyed={self.keyed}"
        return self.transformation.name + (drawn if self.transformation.random else "")
