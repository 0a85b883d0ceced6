"""Scores and labels for the tests of the monitor, and the conformal p-value by its definition."""

import numpy as np
import torch


def images(n: int, seed: int = 0, classes: int = 8) -> tuple[torch.Tensor, torch.Tensor]:
    """Scores and labels of clean images; class 0 is in about half of them."""
    g = torch.Generator().manual_seed(seed)
    labels = torch.rand(n, classes, generator=g) < 0.2
    labels[:, 0] |= torch.rand(n, generator=g) < 0.4
    return torch.randn(n, classes, generator=g) + 3 * labels, labels


def hidden(scores: torch.Tensor, k: int, c: int = 0) -> torch.Tensor:
    """The same with class c just below the top k."""
    others = scores.clone()
    others[:, c] = -torch.inf
    out = scores.clone()
    top = others.sort(descending=True).values
    out[:, c] = (top[:, k - 1] + top[:, k]) / 2
    return out


def p_value(x: float, seen: np.ndarray, u: float) -> float:
    """By the definition: the share of values below, and of equal ones a uniform share."""
    return ((seen < x).sum() + u * ((seen == x).sum() + 1)) / (len(seen) + 1)
