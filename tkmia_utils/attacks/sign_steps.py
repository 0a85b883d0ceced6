"""FGSM and PGD, the attacks that every reader expects to see beside the others."""

import torch

from tkmia_utils.attacks.base import Iterate, PixelDescent, State, column
from tkmia_utils.exact import sigmoid
from tkmia_utils.validation import is_number

GREY_LEVEL = 1 / 255  # of an 8-bit image, in [0, 1] pixels


class _SignDescent(PixelDescent):
    """Steps along the sign of a gradient, all pixels by the same amount.

    The loss is the binary cross-entropy of S with the target "absent",
    ``sum_{s in S} log(1 + exp(f_s))``; its gradient with respect to the logits is
    ``sigmoid(f_s)`` on S and 0 elsewhere. A pixel whose gradient is 0 stays where it is.

    Parameters
    ----------
    step : float
        How far a step moves a pixel, in [0, 1] pixels.
    """

    watched = ("adversarial",)
    uses_lr = False

    def __init__(self, *, step: float) -> None:
        super().__init__()
        self.step_size = _length(step, name="step")

    def begin(self, images: torch.Tensor) -> State:
        """Start from the clean image."""
        return {"adversarial": images.clone()}

    def downhill(self, point: Iterate) -> torch.Tensor:
        """Minus the sign of the loss's gradient, ``(B, 3, H, W)``; NaN where it is not finite."""
        gradient = point.vjp(sigmoid(point.logits) * point.rows.specified)
        # the sign of NaN is 0, that of infinity 1: the engine would not see that they are there
        return -(gradient.sign() + 0 * gradient)


class FGSM(_SignDescent):
    """The fast gradient sign method: Goodfellow et al., *Explaining and Harnessing*, ICLR 2015.

    Iteration t gives ``clip(x - t step sign(grad L(x)))``, with the gradient at the *clean* image
    throughout, so that it stops at the least L-infinity radius (a multiple of `step`) that
    succeeds; ``max_iter * step`` is the largest one tried. It has no learning rate, no momentum
    and no alpha.

    Parameters
    ----------
    step : float
        By how much the radius grows in an iteration, in [0, 1] pixels, 0 < step <= 1.

    Raises
    ------
    ValueError
        `step` is no such number.
    """

    def __init__(self, *, step: float = GREY_LEVEL) -> None:
        super().__init__(step=step)

    def begin(self, images: torch.Tensor) -> State:
        """Start from the clean image, with no step taken and no direction known."""
        taken = torch.zeros(len(images), dtype=images.dtype, device=images.device)
        return {**super().begin(images), "direction": torch.zeros_like(images), "taken": taken}

    def step(self, point: Iterate, state: State) -> State:
        """Go one step further in the first direction."""
        # asked for in every iteration, although only the first needs it: a slot that is new may
        # stand beside old ones, and to ask the device whether one is new would stop it
        direction = torch.where(
            column(state["taken"]) == 0, self.downhill(point), state["direction"]
        )
        taken = state["taken"] + 1
        moved = torch.addcmul(point.images, column(taken * self.step_size), direction)
        return {"adversarial": moved.clamp_(0, 1), "direction": direction, "taken": taken}


class PGD(_SignDescent):
    """Projected gradient descent: Madry et al., *Towards Deep Learning Models ...*, ICLR 2018.

    An iteration takes a sign step from the *current* image and projects it onto the pixels that
    are within `radius` of the clean ones, and onto [0, 1]. It starts from the clean image, not
    from a random point of the ball. It has no learning rate, no momentum and no alpha.

    Parameters
    ----------
    step : float
        How far a step moves a pixel, in [0, 1] pixels, 0 < step <= 1.
    radius : float
        Of the L-infinity ball, in [0, 1] pixels, 0 < radius <= 1.

    Raises
    ------
    ValueError
        `step` or `radius` is no such number.
    """

    def __init__(self, *, step: float = GREY_LEVEL, radius: float = 8 * GREY_LEVEL) -> None:
        super().__init__(step=step)
        self.radius = _length(radius, name="radius")

    def step(self, point: Iterate, state: State) -> State:
        """One sign step, and back into the ball and the box."""
        low, high = point.images - self.radius, point.images + self.radius
        moved = torch.add(state["adversarial"], self.downhill(point), alpha=self.step_size)
        return {"adversarial": moved.clamp_(low, high).clamp_(0, 1)}


def _length(value: float, *, name: str) -> float:
    """Refuse what is no way across the pixels."""
    if not is_number(value) or not 0 < value <= 1:
        raise ValueError(f"{name}: expected a number with 0 < {name} <= 1, got {value!r}")
    return float(value)
