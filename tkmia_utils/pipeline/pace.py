"""How slow this machine is now, so that time limits stop notebooks that hang, not slow ones."""

import time
from collections.abc import Callable

import torch

REFERENCE = 0.14
"""Seconds of :func:`measure` on the two quiet cores on which the profiles' limits were set."""


def measure() -> float:
    """Seconds of a fixed piece of the work done here: a small convolution, forward and backward."""
    generator = torch.Generator().manual_seed(0)
    layer = torch.nn.Conv2d(32, 32, 3, padding=1)
    x = torch.rand(16, 32, 48, 48, generator=generator, requires_grad=True)
    seconds = []
    for _ in range(12):
        begun = time.perf_counter()
        torch.autograd.grad(layer(x).square().sum(), x)
        seconds.append(time.perf_counter() - begun)
    return sum(sorted(seconds)[2:10])  # neither the first, which warms up, nor a hiccup


def slowness() -> float:
    """How many times slower than the reference this machine is, at least 1."""
    with torch.random.fork_rng(devices=[]):  # a layer is born from the global generator
        return max(1.0, measure() / REFERENCE)


def scaled(seconds: float, *, report: Callable[[str], object]) -> float:
    """A time limit for this machine as it is now: `seconds` times :func:`slowness`.

    Parameters
    ----------
    seconds : float
        The limit on the reference machine.
    report : callable
        Called with a line of text where this machine is much slower.
    """
    slow = slowness()
    if slow > 1.5:
        report(f"this machine is {slow:.1f} times slower now than the one time limits were set for")
    return seconds * slow
