"""Functions whose value at a number depends on that number alone, to the last bit.

Torch computes a transcendental function with vector instructions in the body of a tensor and one
number at a time in its tail, and on AVX2 the two differ in last bits: the same number then has
another sigmoid in another row of the batch. :func:`sigmoid` is put together from operations that
IEEE 754 rounds correctly (sum, product, quotient, rounding to whole numbers, an exponent), each
in a torch call of its own so that nothing is fused. It gives the same bits wherever a number
stands, whatever its neighbours, the number of threads, the CPU or the device.
"""

from collections.abc import Callable

import torch

LEVELS = 255.0  # the highest grey level of an 8-bit file
LN2_HIGH = 0.693147180369123816490  # 32 bits of ln 2, so that its whole multiples are exact
LN2_LOW = 1.90821492927058770002e-10  # the rest
SMALLEST = -708.0  # of its exponential is still a normal number
TERMS = 13  # of the series at |r| <= ln 2 / 2: what is left out is below 1e-17


def exp_of_negative(x: torch.Tensor) -> torch.Tensor:
    """``exp(x)`` for x <= 0, as float64; below -708, where it is under 1e-307, that of -708.

    Parameters
    ----------
    x : torch.Tensor
        Floating, of any shape; NaN gives NaN.

    Returns
    -------
    torch.Tensor
        float64, within two units in the last place.
    """
    x = x.double().clamp(min=SMALLEST)
    power = (x * (1 / (LN2_HIGH + LN2_LOW))).round()
    rest = x - power * LN2_HIGH - power * LN2_LOW
    series = torch.ones_like(rest)
    for n in range(TERMS, 0, -1):  # Horner: 1 + r/1 (1 + r/2 (1 + r/3 (...)))
        series.mul_(rest).div_(float(n)).add_(1.0)
    exponent = (power.nan_to_num().to(torch.int64) + 1023) << 52
    return series * exponent.view(torch.float64)


def sigmoid(x: torch.Tensor) -> torch.Tensor:
    """``1 / (1 + exp(-x))``, with the same bits wherever x stands; without a graph.

    Parameters
    ----------
    x : torch.Tensor
        Floating, of any shape.

    Returns
    -------
    torch.Tensor
        Of the shape and dtype of `x`, computed in float64 and rounded once.
    """
    x = x.detach()
    small = exp_of_negative(-x.abs())
    return (torch.where(x < 0, small, 1.0) / (small + 1.0)).to(x.dtype)


def row_by_row(function: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    """Apply an elementwise function to each row alone, in memory of its own.

    For tensors too large for a :func:`sigmoid` in many passes: the same call on the same shape at
    the same alignment, so that a row's result cannot depend on its place or on its neighbours. It
    may still differ from one CPU to another.

    Parameters
    ----------
    function : callable
        Elementwise, for instance ``torch.tanh``.
    x : torch.Tensor
        ``(B, ...)``, at least one row.

    Returns
    -------
    torch.Tensor
        ``(B, ...)``.
    """
    return torch.stack([function(row.clone()) for row in x])


def on_grid(images: torch.Tensor) -> torch.Tensor:
    """Images as an 8-bit file gives them back.

    Parameters
    ----------
    images : torch.Tensor
        Floating, of any shape, in [0, 1].

    Returns
    -------
    torch.Tensor
        Whole grey levels n/255, of the shape and dtype of `images`.
    """
    levels = (images * LEVELS).round_()
    # by a tensor, not a number: some devices divide by a number through its reciprocal
    return levels.div_(torch.full((), LEVELS, dtype=levels.dtype, device=levels.device))
