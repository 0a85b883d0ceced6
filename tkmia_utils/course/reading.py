"""Answers as plain values: arrays, sets of pairs, and tuples of those, so that they compare."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

Plain = Any  # a float64 or bool array, a frozenset of pairs of int, or a tuple of such


class Refused(Exception):
    """An answer that is none, in words for the student."""


def plain(value: Any) -> Plain:
    """What is expected, as a plain value.

    Parameters
    ----------
    value : object
        A number, bool, array, tensor, frozenset of pairs, or a tuple of such.

    Returns
    -------
    Plain
    """
    if isinstance(value, frozenset):
        return value
    if isinstance(value, tuple):
        return tuple(plain(part) for part in value)
    array = _array(value)
    return array if array.dtype == bool else array.astype(np.float64)


def read(value: Any, like: Plain) -> Plain:
    """Read a student's answer as the kind of value that is expected.

    Parameters
    ----------
    value : object
        Numbers, lists, arrays and tensors of any kind; masks may be of 0 and 1, pairs in any
        order, and axes of length 1 do not count.
    like : Plain
        What is expected: its kind and shape are asked for, its values are not.

    Returns
    -------
    Plain

    Raises
    ------
    Refused
        It is of another kind or shape.
    """
    if isinstance(like, tuple):
        return _parts(value, like)
    if isinstance(like, frozenset):
        return _pairs(value)
    try:
        array = _array(value)
    except (TypeError, ValueError, RuntimeError):
        raise Refused(f"expected {kind(like)}, got {_named(value)}") from None
    if array.dtype.kind not in "biuf":
        raise Refused(f"expected {kind(like)}, got {_named(value)}")
    if array.shape != like.shape:
        thin = tuple(n for n in like.shape if n != 1)
        if tuple(n for n in array.shape if n != 1) != thin:
            raise Refused(f"expected {kind(like)}, got shape {array.shape}")
        array = array.reshape(like.shape)
    if like.dtype != bool:
        return array.astype(np.float64)
    if array.dtype != bool and not np.isin(array, (0, 1)).all():
        raise Refused(f"expected {kind(like)}, got other numbers: {short(array)}")
    return array.astype(bool)


def same(one: Plain, other: Plain, tolerance: float) -> bool:
    """Are two plain values of one kind equal up to the tolerance? NaN equals NaN."""
    if isinstance(one, tuple):
        return all(same(a, b, tolerance) for a, b in zip(one, other, strict=True))
    if isinstance(one, frozenset) or one.dtype == bool:
        return bool(np.all(one == other))
    return bool(np.allclose(one, other, rtol=tolerance, atol=tolerance, equal_nan=True))


def difference(
    value: Plain, right: Plain, tolerance: float, *, parts: Sequence[str] = (), name: str = ""
) -> str:
    """Say where a wrong value is wrong, and not what is right.

    Parameters
    ----------
    value, right : Plain
        Of one kind, and not the same.
    tolerance : float
        As for :func:`same`.
    parts : sequence of str
        Names of the parts of a tuple.
    name : str
        Of the value; default "that".

    Returns
    -------
    str
    """
    if isinstance(right, tuple):
        names = parts or [f"value {i} of {len(right)}" for i in range(1, len(right) + 1)]
        pairs = zip(names, value, right, strict=True)
        part, one, other = next(p for p in pairs if not same(*p[1:], tolerance))
        return difference(one, other, tolerance, name=part)
    if isinstance(right, frozenset):
        much = sorted(value - right)
        return f"{much[0]} does not belong to it" if much else "there is more"
    off, way = value != right, "wrong"
    if right.dtype != bool:
        off = ~np.isclose(value, right, rtol=tolerance, atol=tolerance, equal_nan=True)
    at = tuple(np.argwhere(off)[0].tolist())
    if right.dtype != bool and not np.isnan(value[at]):
        way = "too large" if value[at] > right[at] else "too small"
    if not right.ndim:
        return f"{name or 'that'} is {way}"
    return f"entry {short(list(at))}{' of ' + name if name else ''} is {way}"


def has_nan(value: Plain) -> bool:
    """Is one of its numbers NaN?"""
    if isinstance(value, tuple):
        return any(map(has_nan, value))
    return isinstance(value, np.ndarray) and bool(np.isnan(value).any())


def kind(like: Plain) -> str:
    """What kind of value it is, in words, without its value."""
    if isinstance(like, tuple):
        return "(" + ", ".join(map(kind, like)) + ")"
    if isinstance(like, frozenset):
        return "a set of pairs of labels"
    what = "True or False" if like.dtype == bool else "numbers"
    if like.ndim:
        return f"{what} of shape {like.shape}"
    return what if like.dtype == bool else "a number"


def short(value: Any) -> str:
    """A value in few words, for a message."""
    if isinstance(value, torch.nn.Module):
        return "a small model"
    if isinstance(value, torch.Tensor | np.ndarray | np.generic):
        array = _array(value)
        if array.size > (48 if array.ndim < 3 else 12):
            return f"({' × '.join(map(str, array.shape))} numbers)"
        if array.dtype == bool and array.ndim:
            array = array.astype(int)
        return short(array.tolist())
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list | tuple):
        marks = "[]" if isinstance(value, list) else "()"
        return marks[0] + ", ".join(map(short, value)) + marks[1]
    if isinstance(value, set | frozenset):
        return "{" + ", ".join(short(v) for v in sorted(value)) + "}"
    text = " ".join(repr(value).split())
    return text if len(text) <= 200 else text[:197] + "..."


def _array(value: Any) -> np.ndarray:
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu()
        value = (value.double() if value.is_floating_point() else value).numpy()
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list | tuple):
        return np.stack([_array(part) for part in value]) if len(value) else np.zeros(0)
    return np.asarray(value)


def _parts(value: Any, like: tuple[Plain, ...]) -> tuple[Plain, ...]:
    if isinstance(value, Mapping):
        value = list(value.values())
    ordered = isinstance(value, list | tuple) or getattr(value, "ndim", 0) > 0
    if not ordered or len(value) != len(like):
        raise Refused(f"expected {len(like)} values, {kind(like)}, got {_named(value)}")
    return tuple(read(part, wanted) for part, wanted in zip(value, like, strict=True))


def _pairs(value: Any) -> frozenset[tuple[int, ...]]:
    try:
        found = [tuple(sorted(int(label) for label in pair)) for pair in value]
    except (TypeError, ValueError, RuntimeError):
        raise Refused(f"expected a set of pairs of labels, got {_named(value)}") from None
    if any(len(pair) != 2 for pair in found):
        raise Refused("expected a set of pairs of labels, got something that is no pair")
    return frozenset(found)


def _named(value: Any) -> str:
    if isinstance(value, list | tuple):
        return f"a {type(value).__name__} of {len(value)}"
    return f"a value of type {type(value).__name__}"
