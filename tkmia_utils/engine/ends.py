"""How an image's attack may end, and what may be noted on the way there."""

from dataclasses import dataclass

import torch

REASONS = (
    "running", "success", "limit", "logits not finite", "gradient not finite", "infeasible",
)  # fmt: skip
RUNNING, SUCCESS, LIMIT, BAD_LOGITS, BAD_GRADIENT, INFEASIBLE = range(6)


@dataclass(frozen=True)
class Trace:
    """What happened at every iteration; NaN after an image has finished.

    Attributes
    ----------
    logits : torch.Tensor
        float32 ``(N, T + 1, C)``; entry 0 is the clean image.
    l2 : torch.Tensor
        float32 ``(N, T + 1)``, norm of the perturbation in [0, 1] pixels.
    """

    logits: torch.Tensor
    l2: torch.Tensor


@dataclass(frozen=True)
class Snapshot:
    """Where the images stood at one iteration; NaN for those that had finished before.

    Attributes
    ----------
    logits : torch.Tensor
        float32 ``(N, C)``.
    l2, l2_paper : torch.Tensor
        float32 ``(N,)``: norms in [0, 1] and in the paper's pixels.
    success : torch.Tensor
        Bool ``(N,)``: do these logits succeed? An image goes on in spite of that only in an
        arithmetic other than plain fp32, whose own logits did not say so.
    """

    logits: torch.Tensor
    l2: torch.Tensor
    l2_paper: torch.Tensor
    success: torch.Tensor
