"""The queue: what is asked of an attack, checked once and laid out as one row an image."""

from collections.abc import Sequence

import torch

from tkmia_utils.attacks import AttackSpec
from tkmia_utils.validation import K, check_k, check_mask, check_scores


def enqueue(
    n: int,
    labels: torch.Tensor,
    specified: torch.Tensor,
    k: K,
    **settings: float | torch.Tensor | None,
) -> AttackSpec:
    """Lay the arguments of an attack out as rows on the CPU, one setting an image.

    Parameters
    ----------
    n : int
        How many rows.
    labels, specified, k, **settings
        As for :func:`tkmia_utils.engine.loop.attack`: ``max_iter``, ``delta``, ``lr``, ``alpha``
        and ``momentum``.

    Returns
    -------
    AttackSpec

    Raises
    ------
    ValueError
        Anything of the wrong type, shape, dtype or range; the message begins with its name.
    """
    if not isinstance(labels, torch.Tensor) or labels.ndim != 2 or len(labels) != n:
        got = tuple(labels.shape) if isinstance(labels, torch.Tensor) else type(labels).__name__
        raise ValueError(f"labels: expected shape ({n}, C), got {got}")
    check_mask(labels, labels, name="labels")
    check_mask(specified, labels, name="specified")
    # the result keeps them: what the caller does to his own afterwards must not change it
    labels, specified = labels.cpu().clone(), specified.cpu().clone()
    classes = labels.shape[1]
    for bad, name, text in (
        (~labels.any(-1), "labels", "no relevant label"),
        (~specified.any(-1), "specified", "no specified label"),
        ((specified & ~labels).any(-1), "specified", "S reaches outside Y_p"),
        (
            ~(labels & ~specified).any(-1),
            "specified",
            "no other relevant label (Y_p∖S is empty)",
        ),
    ):
        if bad.any():
            raise ValueError(f"{name}: image {int(bad.nonzero()[0])}: {text}")
    k = k.cpu() if isinstance(k, torch.Tensor) else k
    check_k(k, low=1, high=classes - 1, rows=labels.shape[:1])
    size = specified.sum(-1)
    if settings["delta"] is None:
        settings["delta"] = size
    whole = {name: _setting(name, settings[name], n, torch.int64) for name in ("max_iter", "delta")}
    if (whole["max_iter"] < 0).any():
        raise ValueError("max_iter: expected an int >= 0")
    if ((whole["delta"] < 1) | (whole["delta"] > size)).any():
        raise ValueError("delta: expected 1 <= delta <= |S| for every image")
    real = {
        name: _setting(name, settings[name], n, torch.float32)
        for name in ("lr", "alpha", "momentum")
    }
    for name, low, high in (("lr", 0, None), ("alpha", 0, None), ("momentum", 0, 1)):
        value = real[name]
        inside = value.isfinite() & (value >= low)
        if name == "lr":
            inside &= value > 0
        if high is not None:
            inside &= value < high
        if not inside.all():
            wanted = {"lr": "> 0", "alpha": ">= 0", "momentum": "in [0, 1)"}[name]
            raise ValueError(f"{name}: expected a number {wanted}, got {float(value[~inside][0])}")
    k = torch.as_tensor(k).expand(n).clone()
    return AttackSpec(
        labels, specified, k, whole["delta"], whole["max_iter"],
        real["lr"], real["alpha"], real["momentum"], k_max=int(k.max()),
    )  # fmt: skip


def _setting(name: str, value: object, n: int, dtype: torch.dtype) -> torch.Tensor:
    """One value an image, from one for all or one each."""
    kinds = (int,) if dtype == torch.int64 else (int, float)
    if isinstance(value, torch.Tensor):
        wrong = value.dtype == torch.bool or value.is_complex()
        wrong |= dtype == torch.int64 and value.is_floating_point()
        if wrong or value.shape not in ((), (n,)):
            raise ValueError(f"{name}: expected one value an image, shape ({n},), of type {dtype}")
        return value.detach().cpu().to(dtype).expand(n).clone()
    if isinstance(value, bool) or not isinstance(value, kinds):
        raise ValueError(
            f"{name}: expected {' or '.join(t.__name__ for t in kinds)}, got {value!r}"
        )
    try:
        return torch.full((n,), value, dtype=dtype)
    except (OverflowError, RuntimeError) as error:
        raise ValueError(f"{name}: {value!r} does not fit into {dtype}") from error


def known_logits(clean_logits: torch.Tensor | None, queue: AttackSpec) -> torch.Tensor | None:
    """Clean logits that were given, float32 on the CPU.

    Raises
    ------
    ValueError
        Not floating, or not of the shape of the labels.
    """
    if clean_logits is None:
        return None
    check_scores(clean_logits, name="clean_logits")
    if clean_logits.shape != queue.labels.shape:
        wanted, got = tuple(queue.labels.shape), tuple(clean_logits.shape)
        raise ValueError(f"clean_logits: expected shape {wanted}, got {got}")
    return clean_logits.detach().cpu().float()


def check_trace(record: object, snapshots: object, *, checkpoint: object) -> None:
    """Refuse a `record` or `snapshots` that cannot be.

    Parameters
    ----------
    record, snapshots
        As for :func:`tkmia_utils.engine.loop.attack`.
    checkpoint : object
        Of the runtime; a trace is not kept in one.

    Raises
    ------
    ValueError
        The message begins with the option's name.
    """
    if not isinstance(record, bool):
        raise ValueError(f"record: expected True or False, got {record!r}")
    if not isinstance(snapshots, Sequence) or any(
        isinstance(s, bool) or not isinstance(s, int) or s < 0 for s in snapshots
    ):
        raise ValueError(f"snapshots: expected a sequence of ints >= 0, got {snapshots!r}")
    if checkpoint is not None and record:
        raise ValueError("checkpoint: not with record=True, whose trace is not kept")
