"""Argument validation: each failure is a ``ValueError`` that names the argument."""

from typing import TypeGuard

import torch

K = int | torch.Tensor


def is_int(value: object) -> TypeGuard[int]:
    """Is it an int, and no bool?"""
    return isinstance(value, int) and not isinstance(value, bool)


def is_number(value: object) -> TypeGuard[int | float]:
    """Is it an int or a float, and no bool?"""
    return isinstance(value, int | float) and not isinstance(value, bool)


def check_scores(scores: torch.Tensor, *, name: str = "scores", finite: bool = False) -> None:
    """Refuse `scores` that are not a floating tensor of rows.

    Parameters
    ----------
    scores : torch.Tensor
        Expected floating, shape ``(..., C)`` with C >= 1.
    name : str
        What the caller calls it; the message uses this name.
    finite : bool
        Also refuse NaN (infinities keep an order and are let through).

    Raises
    ------
    ValueError
        Not a tensor, not floating, no class axis, or NaN where `finite` is asked for.
    """
    if not isinstance(scores, torch.Tensor) or not scores.is_floating_point():
        kind = scores.dtype if isinstance(scores, torch.Tensor) else type(scores).__name__
        raise ValueError(f"{name}: expected a floating torch.Tensor, got {kind}")
    if scores.ndim < 1 or scores.shape[-1] < 1:
        raise ValueError(f"{name}: expected shape (..., C) with C >= 1, got {tuple(scores.shape)}")
    if finite and torch.isnan(scores).any():
        rows = torch.isnan(scores).reshape(-1, scores.shape[-1]).any(1).nonzero().flatten()
        raise ValueError(f"{name}: NaN in row {int(rows[0])} ({len(rows)} rows in all)")


def check_mask(mask: torch.Tensor, like: torch.Tensor, *, name: str) -> None:
    """Refuse a label mask that is not bool or not of the shape of `like`.

    Raises
    ------
    ValueError
        Wrong dtype or shape; the message names the argument.
    """
    if not isinstance(mask, torch.Tensor) or mask.dtype != torch.bool:
        kind = mask.dtype if isinstance(mask, torch.Tensor) else type(mask).__name__
        raise ValueError(f"{name}: expected a bool torch.Tensor, got {kind}")
    if mask.shape != like.shape:
        raise ValueError(f"{name}: expected shape {tuple(like.shape)}, got {tuple(mask.shape)}")


def check_k(k: K, *, low: int, high: int | None, rows: torch.Size | None = None) -> None:
    """Refuse a k outside [`low`, `high`].

    A tensor k (one a row) is checked for dtype and shape everywhere, and for its range only on
    the CPU: reading it back from an accelerator would stop the device.

    Raises
    ------
    ValueError
        Not an int or int64 tensor, of another shape than the rows, or out of range.
    """
    wanted = f"{low} <= k" + ("" if high is None else f" <= {high}")
    if isinstance(k, torch.Tensor):
        if k.dtype != torch.int64:
            raise ValueError(f"k: expected an int or an int64 tensor, got {k.dtype}")
        if rows is not None and k.ndim and k.shape != rows:
            raise ValueError(f"k: expected one k a row, shape {tuple(rows)}, got {tuple(k.shape)}")
        if k.device.type == "cpu" and k.numel():
            bad = (k < low) | (k > high) if high is not None else k < low
            if bad.any():
                raise ValueError(f"k: expected {wanted}, got {int(k[bad].flatten()[0])}")
    elif isinstance(k, bool) or not isinstance(k, int):
        raise ValueError(f"k: expected an int or an int64 tensor, got {repr(k)[:60]}")
    elif k < low or (high is not None and k > high):
        raise ValueError(f"k: expected {wanted}, got {k}")


def check_one_of(value: object, choices: tuple[object, ...], *, name: str) -> None:
    """Refuse a `value` that is none of `choices`.

    Raises
    ------
    ValueError
        The message names the argument and the choices.
    """
    if value not in choices:
        raise ValueError(f"{name}: expected one of {', '.join(map(str, choices))}, got {value!r}")
