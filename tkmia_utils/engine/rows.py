"""Rows of tensors: an attack's settings by position, and one thing or another row by row."""

from collections.abc import Sequence
from dataclasses import fields

import torch

from tkmia_utils.attacks import Attack, AttackSpec


def values(rows: AttackSpec) -> dict[str, torch.Tensor]:
    """Every field of `rows` that has one entry a row, by name."""
    return {f.name: getattr(rows, f.name) for f in fields(rows) if f.name != "k_max"}


def take(rows: AttackSpec, index: torch.Tensor, device: torch.device) -> AttackSpec:
    """Some of the rows, on the device."""
    some = {name: value[index].to(device) for name, value in values(rows).items()}
    return AttackSpec(**some, k_max=rows.k_max)


def hardest_first(rows: AttackSpec, logits: torch.Tensor) -> torch.Tensor:
    """Order of the rows, int64 ``(N,)``, by how far a step of theirs is likely to leave S to go.

    A queue that ends with its longest attacks leaves most slots empty meanwhile. How long one will
    take is guessed from the logits `(N, C)` of the clean images: by the height of the highest of S
    above the place below the top k, over the step size. Only time depends on the guess.
    """
    place = logits.topk(rows.k_max + 1).values.gather(-1, rows.k[:, None]).squeeze(-1)
    height = logits.masked_fill(~rows.specified, -torch.inf).amax(-1) - place
    return (height / rows.lr).argsort(descending=True, stable=True)


def where_rows(rows: torch.Tensor, new: torch.Tensor, old: torch.Tensor) -> torch.Tensor:
    """Row by row `new` or `old`, whatever their other axes."""
    return torch.where(rows.reshape(-1, *[1] * (new.ndim - 1)), new, old)


def alone(tensors: Sequence[torch.Tensor]) -> bool:
    """Has each tensor, and each of its elements, memory of its own?"""
    homes = {tensor.untyped_storage().data_ptr() for tensor in tensors}
    return len(homes) == len(tensors) and not any(0 in tensor.stride() for tensor in tensors)


def held_back(
    moved: torch.Tensor,
    new: dict[str, torch.Tensor],
    old: dict[str, torch.Tensor],
    *,
    apart: torch.Tensor,
) -> dict[str, torch.Tensor]:
    """The tensors of `new` by the names of `old`, with the rows that have not `moved` as in `old`.

    Few rows are held back as a rule. On the CPU they alone are written, into `new` itself; where
    memory is shared, also with the tensor `apart`, and on a device that would have to be asked, all
    rows are made anew.
    """
    stepped = {name: new[name] for name in old}
    if moved.device.type != "cpu" or not alone([*stepped.values(), apart]):
        return {name: where_rows(moved, stepped[name], value) for name, value in old.items()}
    rows = (~moved).nonzero().flatten()
    # all are read before any is written: what is new in one name may be old in another
    kept = {name: value[rows] for name, value in old.items()}
    for name, value in stepped.items():
        value.index_copy_(0, rows, kept[name])
    return stepped


def norms(
    method: Attack,
    clean: torch.Tensor,
    adversarial: torch.Tensor,
    state: dict[str, torch.Tensor],
    slots: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Norms in [0, 1] and in the paper's pixels, ``(B,)`` each, of at least the `slots`.

    Their bits must not depend on how many are asked for: each alone, or all at once.
    """
    if clean.device.type != "cpu":
        l2 = (adversarial - clean).flatten(1).norm(dim=1)
        return l2, method.norm(clean, adversarial, state)
    l2, l2_paper = torch.zeros(2, len(clean))
    for i in slots.tolist():
        one = slice(i, i + 1)
        l2[i] = (adversarial[one] - clean[one]).flatten(1).norm(dim=1)
        own = {key: value[one] for key, value in state.items()}
        l2_paper[i] = method.norm(clean[one], adversarial[one], own)
    return l2, l2_paper


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
