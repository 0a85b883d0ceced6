"""A second look at an image: the victim's own scores on copies that were changed a little.

The monitor's watch "second look" compares the top k with them. It costs a forward pass a copy.
"""

from collections.abc import Sequence

import torch
from torch import nn

from tkmia_utils.defence.transformations import TRANSFORMATIONS, Defended, Transformation
from tkmia_utils.exact import on_grid


def mirror(images: torch.Tensor) -> torch.Tensor:
    """Left and right exchanged; with a gradient."""
    return images.flip(-1)


def mirrored(images: torch.Tensor) -> torch.Tensor:
    """:func:`mirror` of the 8-bit image."""
    return mirror(on_grid(images))


COPIES = (TRANSFORMATIONS["JPEG 75"], Transformation("mirrored", mirrored, mirror))
"""Of the copies that were tried, the two that hardly change a clean list and undo most attacks."""


class MeanScores(nn.Module):
    """Mean logits over copies of the image, with a gradient through all of them.

    Parameters
    ----------
    model : torch.nn.Module
        Images ``(B, 3, H, W)`` in [0, 1] to logits ``(B, C)``; in evaluation mode.
    copies : sequence of Transformation
        At least one, none of them random.
    itself : bool
        Also look at the image as it is: what an attacker minds who knows of the second look.

    Raises
    ------
    ValueError
        A model in training mode, or no such copies.
    """

    def __init__(
        self, model: nn.Module, copies: Sequence[Transformation] = COPIES, *, itself: bool = False
    ) -> None:
        super().__init__()
        if not copies or any(copy.random for copy in copies):
            raise ValueError("copies: expected one or more, none of them random")
        views: list[nn.Module] = [Defended(model, copy) for copy in copies]
        self.views = nn.ModuleList([model, *views] if itself else views)
        self.training = False
        self.views.training = False

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits ``(B, C)``."""
        total: torch.Tensor = self.views[0](x)
        for view in list(self.views)[1:]:  # one after the other: a sum in a fixed order
            total = total + view(x)
        return total / len(self.views)


@torch.no_grad()
def second_scores(
    model: nn.Module,
    images: torch.Tensor,
    *,
    copies: Sequence[Transformation] = COPIES,
    batch: int = 64,
) -> torch.Tensor:
    """Second scores of images, for ``monitor.fit(..., second=)`` and ``update(..., second=)``.

    Parameters
    ----------
    model : torch.nn.Module
        In evaluation mode.
    images : torch.Tensor
        float32 ``(N, 3, H, W)`` in [0, 1], on the model's device.
    copies : sequence of Transformation
        How the copies are changed.
    batch : int
        Images at a time.

    Returns
    -------
    torch.Tensor
        float32 ``(N, C)``, on the CPU: the mean of the logits.

    Raises
    ------
    ValueError
        No images; or as for :class:`MeanScores`.
    """
    if not len(images):
        raise ValueError("images: expected at least one")
    look = MeanScores(model, copies)
    return torch.cat([look(part).float().cpu() for part in images.split(batch)])
