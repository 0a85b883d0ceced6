"""An attack's result as one file: written whole, and refused if it does not fit together."""

import json
from pathlib import Path
from typing import Any

import torch

from tkmia_utils.attacks import AttackSpec
from tkmia_utils.condition import Stop
from tkmia_utils.engine.ends import REASONS, Snapshot, Trace
from tkmia_utils.tensor_file import Tensors, read_tensors, write_tensors

FORMAT = "tkmia result 2"
COLUMNS = ("success", "iterations", "l2", "l2_paper", "clean_logits", "adversarial_logits")
OPTIONAL = ("adversarial", "png_logits")


def write_result(result: Any, path: str | Path) -> Path:
    """See :meth:`tkmia_utils.AttackResult.save`."""
    every = {name: getattr(result, name) for name in (*COLUMNS, *OPTIONAL)}
    tensors = {name: tensor for name, tensor in every.items() if tensor is not None}
    tensors["reasons"] = torch.tensor([REASONS.index(reason) for reason in result.reasons])
    parts: dict[str, AttackSpec | Trace | Snapshot | None]
    parts = {"spec": result.spec, "trace": result.trace}
    parts |= {f"snapshot {limit}": snapshot for limit, snapshot in result.snapshots.items()}
    for part, held in parts.items():
        if held is not None:
            tensors |= {
                f"{part} {name}": value
                for name, value in vars(held).items()
                if isinstance(value, torch.Tensor)
            }
    stop = result.stop
    header = {
        "method": result.method,
        # without the last two, as ever, where they ask for nothing: older programs read that
        "stop": [list(stop.measures), stop.tolerance, *([stop.gap, stop.below] * stop.deep)],
        "bits": result.bits,
        "passes": result.passes,
        "k_max": None if result.spec is None else result.spec.k_max,
        "trace": result.trace is not None,
        "snapshots": list(result.snapshots),
    }
    return write_tensors(path, tensors, kind=FORMAT, metadata={"header": json.dumps(header)})


def read_result(path: str | Path) -> dict[str, Any]:
    """Fields of a saved result, see :meth:`tkmia_utils.AttackResult.load`."""
    if not Path(path).is_file():
        raise ValueError(f"path: there is no file {path}")
    try:
        tensors, metadata = read_tensors(path, kind=FORMAT)
        header = json.loads(metadata["header"])

        def part(name: str) -> Tensors:
            start = f"{name} "
            return {n[len(start) :]: t for n, t in tensors.items() if n.startswith(start)}

        k_max, by_code = header["k_max"], dict(enumerate(REASONS))
        measures, tolerance, *deep = header["stop"]
        gap, below = deep or (0.0, 0)
        fields = {
            **{name: tensors[name] for name in COLUMNS},
            **{name: tensors.get(name) for name in OPTIONAL},
            "reasons": tuple(by_code[code] for code in tensors["reasons"].tolist()),
            "spec": None if k_max is None else AttackSpec(**part("spec"), k_max=k_max),
            "method": header["method"],
            "stop": Stop(measures=tuple(measures), tolerance=tolerance, gap=gap, below=below),
            "bits": header["bits"],
            "passes": header["passes"],
            "trace": Trace(**part("trace")) if header["trace"] else None,
            "snapshots": {i: Snapshot(**part(f"snapshot {i}")) for i in header["snapshots"]},
        }
        _check(fields)
        return fields
    except (KeyError, IndexError, TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"path: {path} is not a whole, saved AttackResult ({error})") from None


def _check(fields: dict[str, Any]) -> None:
    """Refuse fields that do not fit together: another program may have written them."""
    n, classes = fields["clean_logits"].shape
    many, one = (torch.float32, (n, classes)), (torch.float32, (n,))
    kinds: dict[str, tuple[torch.dtype, tuple[int, ...]]] = {
        **{"success": (torch.bool, (n,)), "iterations": (torch.int64, (n,))},
        **{"l2": one, "l2_paper": one, "clean_logits": many, "adversarial_logits": many},
    }
    rows = [(name, fields[name], *kind) for name, kind in kinds.items()]
    if fields["png_logits"] is not None:
        rows.append(("png_logits", fields["png_logits"], *many))
    if (spec := fields["spec"]) is not None:
        for name in ("labels", "specified"):
            rows.append((name, getattr(spec, name), torch.bool, (n, classes)))
        for name in ("k", "delta", "max_iter"):
            rows.append((name, getattr(spec, name), torch.int64, (n,)))
    for name, value, dtype, shape in rows:
        kind = torch.float32 if value.is_floating_point() else value.dtype
        if kind != dtype or value.shape != shape:
            raise ValueError(f"{name} is {value.dtype} of shape {tuple(value.shape)}")
    fits = isinstance(fields["method"], str) and fields["bits"] in (None, 8)
    if len(fields["reasons"]) != n or not fits or not isinstance(fields["passes"], int):
        raise ValueError("its header does not fit its tensors")
