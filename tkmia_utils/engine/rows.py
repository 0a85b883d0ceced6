"""Rows of tensors: an attack's settings by position, and one thing or another row by row."""

from collections.abc import Sequence
from dataclasses import fields

import torch

from tkmia_utils.attacks import AttackSpec


def values(rows: AttackSpec) -> dict[str, torch.Tensor]:
    """Every field of `rows` that has one entry a row, by name."""
    return {f.name: getattr(rows, f.name) for f in fields(rows) if f.name != "k_max"}


def take(rows: AttackSpec, index: torch.Tensor, device: torch.device) -> AttackSpec:
    """Some of the rows, on the device."""
    some = {name: value[index].to(device) for name, value in values(rows).items()}
    return AttackSpec(**some, k_max=rows.k_max)


def where_rows(rows: torch.Tensor, new: torch.Tensor, old: torch.Tensor) -> torch.Tensor:
    """Row by row `new` or `old`, whatever their other axes."""
    return torch.where(rows.reshape(-1, *[1] * (new.ndim - 1)), new, old)


def alone(tensors: Sequence[torch.Tensor]) -> bool:
    """Has each tensor, and each of its elements, memory of its own?"""
    homes = {tensor.untyped_storage().data_ptr() for tensor in tensors}
    return len(homes) == len(tensors) and not any(0 in tensor.stride() for tensor in tensors)


def finite_rows(tensors: Sequence[torch.Tensor]) -> torch.Tensor:
    """Which rows hold neither NaN nor infinity in any tensor, without masks of their size."""

    def axes(value: torch.Tensor) -> tuple[int, ...]:
        return tuple(range(1, value.ndim))

    if tensors[0].device.type == "cpu":  # a sum is the quickest proof, and free to look at
        sums = (value.sum(axes(value)) if value.ndim > 1 else value for value in tensors)
        total = sum(sums, start=torch.zeros(()))
        finite = total.isfinite()
        if finite.all():
            return finite
    finite = torch.ones(len(tensors[0]), dtype=torch.bool, device=tensors[0].device)
    for value in tensors:
        if value.ndim > 1:
            finite &= value.amin(axes(value)).isfinite()
            value = value.amax(axes(value))
        finite &= value.isfinite()
    return finite
