"""What every attack shares: the rows it is given, and momentum descent in the paper's units."""

from dataclasses import dataclass
from typing import Protocol

import torch

from tkmia_utils.condition import Condition
from tkmia_utils.exact import sigmoid

State = dict[str, torch.Tensor]

PIXEL_SCALE = (
    0.5  # the paper's [-1, 1] pixels are twice as wide as ours: one of its units is half of ours
)


class VJP(Protocol):
    """Vector-Jacobian product of the model: ``(B, C) -> (B, 3, H, W)``, in [0, 1] pixels."""

    def __call__(self, v: torch.Tensor, *, keep: bool = False) -> torch.Tensor:
        """Pull `v` back to the image; `keep` the graph for another call."""
        ...


@dataclass(frozen=True)
class AttackSpec:
    """What is asked of an attack, one row an image: in the engine, of the B images in its slots.

    Attributes
    ----------
    labels, specified : torch.Tensor
        Bool ``(B, C)``: Y_p and S.
    k, delta, max_iter : torch.Tensor
        int64 ``(B,)``: the k of the top k, how many of S must be excluded, most iterations.
    lr, alpha, momentum : torch.Tensor
        float32 ``(B,)``, in the paper's [-1, 1] pixel coordinates.
    k_max : int
        The largest k of the whole queue, so that shapes can stay constant.
    """

    labels: torch.Tensor
    specified: torch.Tensor
    k: torch.Tensor
    delta: torch.Tensor
    max_iter: torch.Tensor
    lr: torch.Tensor
    alpha: torch.Tensor
    momentum: torch.Tensor
    k_max: int


@dataclass(frozen=True)
class Iterate:
    """Where the attack stands in one iteration.

    Attributes
    ----------
    images : torch.Tensor
        Clean images ``(B, 3, H, W)`` in [0, 1].
    logits, clean_logits : torch.Tensor
        ``(B, C)``, of the adversarial images and of the clean ones.
    vjp : VJP
        Vector-Jacobian product at the adversarial images.
    rows : AttackSpec
        Labels and settings.
    condition : Condition
        What success asks of the logits.
    met : torch.Tensor
        Bool ``(B,)``: do these logits meet it?
    bits : int or None
        8: `logits` and `vjp` are those of the image rounded to whole grey levels n/255.
    """

    images: torch.Tensor
    logits: torch.Tensor
    clean_logits: torch.Tensor
    vjp: VJP
    rows: AttackSpec
    condition: Condition
    met: torch.Tensor
    bits: int | None = None


class Attack(Protocol):
    """One attack, as the engine sees it.

    The state is a dictionary of tensors with a leading slot axis. It holds everything the attack
    remembers of an image; the engine keeps the rows of finished images as they are.

    Three attributes may say more. ``watched``: where to look for NaN and infinity after each step;
    default all of the state. ``anytime``: if True, the attack goes on after a success until its
    limit, and the success of least norm counts. ``backward_passes``: how many an iteration, or a
    function of the queue's largest k that says so; default 1.
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

    def step(self, point: Iterate, state: State) -> State:
        """State after one iteration; `point` belongs to :meth:`image` of `state`.

        What :meth:`image` and :meth:`norm` read must be new tensors, because finished images keep
        the old ones; the rest of the state may be changed in place.
        """
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

    lr and alpha have the meaning they have in the paper's [-1, 1] pixels: ``alpha/2 ||eps||^2`` is
    part of the objective, and [0, 1] pixels are ``x + eps / 2``. The state is that adversarial
    image, room for the next one (to ask for it anew would cost more than the step itself) and the
    velocity of eps. Subclasses give :meth:`score_gradient`, or :meth:`loss_gradient` itself.

    Parameters
    ----------
    scores : {"logits", "sigmoid"}
        What f is: the model's logits, or their sigmoid as in the paper.
    """

    watched: tuple[str, ...] = ("velocity",)
    uses_lr: bool = True

    def __init__(self, *, scores: str = "logits") -> None:
        self.scores = check_scores_option(scores)

    def begin(self, images: torch.Tensor) -> State:
        """Start from eps = 0 at rest."""
        at_rest = torch.zeros_like(images)
        return {"adversarial": images.clone(), "spare": at_rest, "velocity": at_rest.clone()}

    def image(self, images: torch.Tensor, state: State) -> torch.Tensor:
        """``x + eps``, in [0, 1]; the clean image itself, to the bit, at eps = 0."""
        return state["adversarial"]

    def norm(self, images: torch.Tensor, adversarial: torch.Tensor, state: State) -> torch.Tensor:
        """Distance of the adversarial image from the clean one."""
        distance: torch.Tensor = (adversarial - images).flatten(1).norm(dim=1)
        return distance / PIXEL_SCALE

    def score_gradient(self, scores: torch.Tensor, rows: AttackSpec, state: State) -> torch.Tensor:
        """Gradient of the attack's loss with respect to the scores, ``(B, C)``."""
        raise NotImplementedError

    def loss_gradient(self, point: Iterate, state: State) -> torch.Tensor:
        """Gradient of the attack's loss with respect to the [0, 1] pixels."""
        if self.scores == "logits":
            return point.vjp(self.score_gradient(point.logits, point.rows, state))
        scores = sigmoid(point.logits)
        gradient = self.score_gradient(scores, point.rows, state)
        return point.vjp(gradient * scores * (1 - scores))

    def step(self, point: Iterate, state: State) -> State:
        """One step of SGD with momentum and weight decay alpha, then back into the box."""
        gradient, rows = self.loss_gradient(point, state), point.rows
        old, spare = state["adversarial"], state["spare"]
        away = torch.sub(old, point.images, out=spare)  # PIXEL_SCALE eps
        velocity = descend(state["velocity"], gradient, away, rows, unit=PIXEL_SCALE)
        # a step lr in eps is PIXEL_SCALE times that in pixels, where a gradient is PIXEL_SCALE
        # times as steep
        new = torch.addcmul(old, column(-(PIXEL_SCALE**2) * rows.lr), velocity, out=spare).clamp_(
            0, 1
        )
        return {"adversarial": new, "spare": old, "velocity": velocity}


def descend(
    velocity: torch.Tensor,
    gradient: torch.Tensor,
    variable: torch.Tensor,
    rows: AttackSpec,
    *,
    unit: float = 1.0,
) -> torch.Tensor:
    """Velocity after one step of SGD with momentum; alpha/2 of the squared norm belongs to it.

    The norm is that of ``variable / unit``; gradient and velocity are with respect to `variable`.
    The velocity is changed in place and in as few passes as possible, because reading and writing
    memory is what a step costs.
    """
    torch.addcmul(gradient, velocity, column(rows.momentum), out=velocity)
    return velocity.addcmul_(column(rows.alpha / unit**2), variable)
