"""What every attack shares: the rows it is given, and momentum descent in the paper's units."""

from dataclasses import dataclass
from typing import Protocol

import torch

State = dict[str, torch.Tensor]


class Pull(Protocol):
    """Vector-Jacobian product of the model: ``(B, C) -> (B, 3, H, W)``, in [0, 1] pixels."""

    def __call__(self, v: torch.Tensor, *, keep: bool = False) -> torch.Tensor:
        """Pull `v` back to the image; `keep` the graph for another call."""
        ...


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
    most : int
        The largest k of the whole queue, so that shapes can stay constant.
    """

    labels: torch.Tensor
    specified: torch.Tensor
    k: torch.Tensor
    delta: torch.Tensor
    limit: torch.Tensor
    lr: torch.Tensor
    alpha: torch.Tensor
    momentum: torch.Tensor
    most: int


@dataclass(frozen=True)
class Point:
    """Where the attack stands in one iteration.

    Attributes
    ----------
    images : torch.Tensor
        Clean images ``(B, 3, H, W)`` in [0, 1].
    logits, clean_logits : torch.Tensor
        ``(B, C)``, of the adversarial images and of the clean ones.
    pull : Pull
        Vector-Jacobian product at the adversarial images.
    rows : Rows
        Labels and settings.
    """

    images: torch.Tensor
    logits: torch.Tensor
    clean_logits: torch.Tensor
    pull: Pull
    rows: Rows


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

    def norm(self, images: torch.Tensor, adversarial: torch.Tensor, state: State) -> torch.Tensor:
        """L2 norm the method reports, ``(B,)``, in the paper's [-1, 1] pixels."""
        ...

    def step(self, point: Point, state: State) -> State:
        """State after one iteration; `point` belongs to :meth:`image` of `state`."""
        ...


def column(value: torch.Tensor) -> torch.Tensor:
    """``(B,)`` as ``(B, 1, 1, 1)``, to scale images row by row."""
    return value.reshape(-1, 1, 1, 1)


def check_scores_option(scores: str) -> str:
    """Refuse anything but "logits" and "sigmoid"."""
    if scores not in ("logits", "sigmoid"):
        raise ValueError(f"scores: expected 'logits' or 'sigmoid', got {scores!r}")
    return scores


class PixelDescent:
    """Momentum descent on ``x + eps`` in the paper's coordinates, kept in the pixel box.

    The state is eps and its velocity in [-1, 1] pixel units, in which lr and alpha have the
    paper's meaning: ``alpha/2 ||eps||^2`` is part of the objective, and [0, 1] pixels are
    ``x + eps / 2``. Subclasses give :meth:`score_gradient`, or :meth:`loss_gradient` itself.

    Parameters
    ----------
    scores : {"logits", "sigmoid"}
        What f is: the model's logits, or their sigmoid as in the paper.
    """

    def __init__(self, *, scores: str = "logits") -> None:
        self.scores = check_scores_option(scores)

    def begin(self, images: torch.Tensor) -> State:
        """Start from eps = 0 at rest."""
        return {"eps": torch.zeros_like(images), "velocity": torch.zeros_like(images)}

    def image(self, images: torch.Tensor, state: State) -> torch.Tensor:
        """``x + eps``, in [0, 1]; the clean image itself, to the bit, at eps = 0."""
        return torch.add(images, state["eps"], alpha=0.5).clamp_(0, 1)

    def norm(self, images: torch.Tensor, adversarial: torch.Tensor, state: State) -> torch.Tensor:
        """Distance of the adversarial image from the clean one."""
        return 2 * (adversarial - images).flatten(1).norm(dim=1)

    def score_gradient(self, scores: torch.Tensor, rows: Rows, state: State) -> torch.Tensor:
        """Gradient of the attack's loss with respect to the scores, ``(B, C)``."""
        raise NotImplementedError

    def loss_gradient(self, point: Point, state: State) -> torch.Tensor:
        """Gradient of the attack's loss with respect to the [0, 1] pixels."""
        if self.scores == "logits":
            return point.pull(self.score_gradient(point.logits, point.rows, state))
        scores = point.logits.sigmoid()
        gradient = self.score_gradient(scores, point.rows, state)
        return point.pull(gradient * scores * (1 - scores))

    def step(self, point: Point, state: State) -> State:
        """One step of SGD with momentum and weight decay alpha, then back into the box."""
        gradient = self.loss_gradient(point, state)
        # [0, 1] pixels are x + eps / 2, hence the half
        eps, velocity = descend(state["eps"], state["velocity"], gradient, point.rows, scale=0.5)
        return {"eps": boxed(point.images, eps), "velocity": velocity}


def descend(
    variable: torch.Tensor,
    velocity: torch.Tensor,
    gradient: torch.Tensor,
    rows: Rows,
    *,
    scale: float = 1.0,
) -> tuple[torch.Tensor, torch.Tensor]:
    """SGD with momentum on `scale` times the gradient; alpha/2 of the squared norm belongs to it.

    The tensors returned are new; they are filled in place, since memory is what this costs.
    """
    velocity = (column(rows.momentum) * velocity).add_(gradient, alpha=scale)
    velocity.add_(column(rows.alpha) * variable)
    step = column(rows.lr) * velocity
    return torch.sub(variable, step, out=step), velocity


def boxed(images: torch.Tensor, eps: torch.Tensor) -> torch.Tensor:
    """Cut `eps`, in place, so that ``images + eps / 2`` stays in [0, 1]; and return it."""
    return torch.add(images, eps, alpha=0.5, out=eps).clamp_(0, 1).sub_(images).mul_(2)
