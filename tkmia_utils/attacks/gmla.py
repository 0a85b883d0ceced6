"""GMLA: Mahmood and Elhamifar, *Semantic-Aware Multi-Label Adversarial Attacks*, CVPR 2024."""

import torch

from tkmia_utils.attacks.base import Iterate, PixelDescent, State, column
from tkmia_utils.exact import sigmoid


class GMLA(PixelDescent):
    """Turn the specified labels off along a direction that leaves the other labels alone.

    The gradient of the specified labels' cross-entropy (target: absent) is projected orthogonal to
    the gradient of all other labels' cross-entropy (target: what the clean image was given). The
    projection is what sets the published attack apart; norm, descent and stop are the ones every
    method here shares, so that only the direction differs.

    Two backward passes an iteration. The losses are cross-entropies of logits.
    """

    backward_passes = 2

    def __init__(self) -> None:
        super().__init__()

    def loss_gradient(self, point: Iterate, state: State) -> torch.Tensor:
        """Target gradient minus its part along the other labels' gradient."""
        specified, probability = point.rows.specified, sigmoid(point.logits)
        kept = (point.clean_logits > 0).to(probability.dtype)
        target = point.vjp(torch.where(specified, probability, 0.0), keep=True)
        others = point.vjp(torch.where(specified, 0.0, probability - kept))
        overlap = (target * others).flatten(1).sum(1)
        size = others.flatten(1).square().sum(1).clamp_min(torch.finfo(others.dtype).tiny)
        return target - column(overlap / size) * others
