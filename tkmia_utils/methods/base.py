"""What every attack shares: the rows it is given, and momentum descent in the paper's units."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch

State = dict[str, torch.Tensor]
Pull = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Rows:
    """The images in the engine's B slots, all tensors on the device.

    Attributes
    ----------
    labels, specified : torch.Tensor
        Bool ``(B, C)``: Y_p and S.
    k, delta, limit : torch.Tensor
        int64 ``(B,)``: the k of the top k, how many of S must be excluded, most iterations.
    lr, alpha, momentum : torch.Tensor
        float32 ``(B,)``, in the paper's [-1, 1] pixel coordinates.
    """

    labels: torch.Tensor
    specified: torch.Tensor
    k: torch.Tensor
    delta: torch.Tensor
    limit: torch.Tensor
    lr: torch.Tensor
    alpha: torch.Tensor
    momentum: torch.Tensor


class Method(Protocol):
    """One attack, as the engine sees it.

    The state is a dictionary of tensors with a leading slot axis. It holds everything the attack
    remembers of an image; the engine keeps the rows of finished images as they are.
    """

    def begin(self, images: torch.Tensor) -> State:
        """State of images ``(B, 3, H, W)`` in [0, 1] that have just entered their slots."""
        ...

    def image(self, images: torch.Tensor, state: State) -> torch.Tensor:
        """Adversarial images ``(B, 3, H, W)`` in [0, 1] that the state stands for."""
        ...

    def step(
        self,
        images: torch.Tensor,
        logits: torch.Tensor,
        clean_logits: torch.Tensor,
        pull: Pull,
        rows: Rows,
        state: State,
    ) -> State:
        """State after one iteration.

        `logits` ``(B, C)`` belong to :meth:`image` of `state`; ``pull(v)`` is the vector-Jacobian
        product of the model at that image, ``(B, C) -> (B, 3, H, W)``, in [0, 1] pixels.
        """
        ...


def column(value: torch.Tensor) -> torch.Tensor:
    """``(B,)`` as ``(B, 1, 1, 1)``, to scale images row by row."""
    return value.reshape(-1, 1, 1, 1)


class PixelDescent:
    """Momentum descent on ``x + eps`` in the paper's coordinates, kept in the pixel box.

    The state is eps and its velocity in [-1, 1] pixel units, in which lr and alpha have the
    paper's meaning: ``alpha/2 ||eps||^2`` is part of the objective, and [0, 1] pixels are
    ``x + eps / 2``. Subclasses give :meth:`score_gradient`.
    """

    def __init__(self, *, scores: str = "logits") -> None:
        if scores not in ("logits", "sigmoid"):
            raise ValueError(f"scores: expected 'logits' or 'sigmoid', got {scores!r}")
        self.scores = scores

    def begin(self, images: torch.Tensor) -> State:
        """Start from eps = 0 at rest."""
        return {"eps": torch.zeros_like(images), "velocity": torch.zeros_like(images)}

    def image(self, images: torch.Tensor, state: State) -> torch.Tensor:
        """``x + eps``, in [0, 1]; the clean image itself, to the bit, at eps = 0."""
        return (images + state["eps"] / 2).clamp(0, 1)

    def score_gradient(
        self, scores: torch.Tensor, clean_scores: torch.Tensor, rows: Rows
    ) -> torch.Tensor:
        """Gradient of the attack's loss with respect to the scores, ``(B, C)``."""
        raise NotImplementedError

    def loss_gradient(
        self, logits: torch.Tensor, clean_logits: torch.Tensor, pull: Pull, rows: Rows
    ) -> torch.Tensor:
        """Gradient of the attack's loss with respect to the [0, 1] pixels."""
        if self.scores == "logits":
            return pull(self.score_gradient(logits, clean_logits, rows))
        scores = logits.sigmoid()
        gradient = self.score_gradient(scores, clean_logits.sigmoid(), rows)
        return pull(gradient * scores * (1 - scores))

    def step(
        self,
        images: torch.Tensor,
        logits: torch.Tensor,
        clean_logits: torch.Tensor,
        pull: Pull,
        rows: Rows,
        state: State,
    ) -> State:
        """One step of SGD with momentum and weight decay alpha, then back into the box."""
        gradient = self.loss_gradient(logits, clean_logits, pull, rows) / 2
        eps, velocity = state["eps"], state["velocity"]
        velocity = column(rows.momentum) * velocity + gradient + column(rows.alpha) * eps
        eps = eps - column(rows.lr) * velocity
        return {"eps": 2 * ((images + eps / 2).clamp(0, 1) - images), "velocity": velocity}
