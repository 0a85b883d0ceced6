"""Values as plain data: a tree (JSON) and arrays (bytes with a type and a shape), never a pickle.

What is put together again is made of Python's own types, arrays and tensors. So no object of a
student's (one that is equal to everything, say) reaches a comparison.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

LONGEST = 1_000_000  # numbers of a range
_PLAIN = (type(None), bool, int, float, str)
_SEQUENCES: dict[str, Any] = {"list": list, "tuple": tuple, "set": set, "frozenset": frozenset}
_DTYPES = {
    str(dtype).removeprefix("torch."): dtype
    for dtype in (
        *(torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.complex64),
        *(torch.complex128, torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32),
        torch.int64,
    )
}


@dataclass
class Packed:
    """A value on its way: its tree, the arrays of it, and whose they were."""

    tree: Any = None
    arrays: list[np.ndarray] = field(default_factory=list)
    sources: list[Any] = field(default_factory=list)


def pack(value: Any, export: Callable[[Any], int]) -> Packed:
    """Split a value; `export` gives a number to a function.

    Raises
    ------
    TypeError
        Something in it has no plain form.
    """
    packed = Packed()

    def add(array: np.ndarray, source: Any) -> int:
        if array.dtype.kind not in "biufc":
            raise TypeError(f"an array of {array.dtype} cannot be sent")
        packed.arrays.append(array)
        packed.sources.append(source)
        return len(packed.arrays) - 1

    def tree(v: Any) -> Any:
        if type(v) in _PLAIN:
            return v
        for name, sequence in _SEQUENCES.items():
            if isinstance(v, sequence):
                return {name: [tree(item) for item in v]}
        if isinstance(v, dict):
            return {"dict": [[tree(key), tree(item)] for key, item in v.items()]}
        if isinstance(v, torch.Tensor):
            dtype = str(v.dtype).removeprefix("torch.")
            if dtype not in _DTYPES or v.layout != torch.strided:
                raise TypeError(f"a tensor of {v.dtype} and layout {v.layout} cannot be sent")
            return {"tensor": add(_bytes_of(v), v), "dtype": dtype, "grad": bool(v.requires_grad)}
        if isinstance(v, np.ndarray):
            return {"array": add(v, v), "frozen": not v.flags.writeable}
        if isinstance(v, np.generic):
            return {"scalar": add(np.asarray(v), None)}
        if isinstance(v, torch.Generator):
            return {"torch_rng": add(state_of(v), v)}
        if isinstance(v, np.random.Generator):
            return {"numpy_rng": add(state_of(v), v), "name": type(v.bit_generator).__name__}
        if isinstance(v, torch.dtype):
            return {"dtype": str(v).removeprefix("torch.")}
        if isinstance(v, torch.device):
            return {"device": str(v)}
        if isinstance(v, range):
            return {"range": [v.start, v.stop, v.step]}
        if isinstance(v, complex):
            return {"complex": [v.real, v.imag]}
        if v is Ellipsis:
            return {"ellipsis": True}
        if isinstance(v, torch.nn.Module):
            return {"call": export(v), "module": True}
        if callable(v) and not isinstance(v, type):
            return {"call": export(v)}
        for plain in _PLAIN[1:]:  # a class made from one of them: an enumeration, say
            if isinstance(v, plain):
                return plain(v)
        raise TypeError(f"a value of type {type(v).__name__} cannot be sent")

    try:
        packed.tree = tree(value)
    except RecursionError:
        raise TypeError("a value that holds itself cannot be sent") from None
    return packed


def unpack(packed: Packed, remote: Callable[[int, bool], Any]) -> Any:
    """Put a value together; `sources` then names the new arrays, one each.

    Raises
    ------
    ValueError, KeyError, TypeError, IndexError
        It was not made by :func:`pack`.
    """
    packed.sources = [None] * len(packed.arrays)

    def value(node: Any) -> Any:
        if isinstance(node, _PLAIN):
            return node
        kind, content = next(iter(node.items()))
        if kind in _SEQUENCES:
            return _SEQUENCES[kind]([value(item) for item in content])
        if kind == "dict":
            return {value(key): value(item) for key, item in content}
        if kind == "scalar":
            return packed.arrays[content].reshape(())[()]
        if kind in ("tensor", "array", "torch_rng", "numpy_rng"):
            packed.sources[content] = made = _array(kind, packed.arrays[content], node)
            return made
        if kind == "call":
            return remote(int(content), bool(node.get("module")))
        if kind == "dtype":
            return _DTYPES[content]
        if kind == "range":
            numbers = range(*map(int, content))
            if len(numbers) > LONGEST:  # a few bytes that a loop over them would not end with
                raise ValueError(f"expected a range of at most {LONGEST}, got {len(numbers)}")
            return numbers
        if kind == "device":
            return torch.device(content)
        if kind == "complex":
            return complex(*content)
        if kind == "ellipsis":
            return Ellipsis
        raise ValueError(f"no value {kind}")

    return value(packed.tree)


def _bytes_of(tensor: torch.Tensor) -> np.ndarray:
    tensor = tensor.detach().as_subclass(torch.Tensor).cpu().resolve_conj().resolve_neg()
    return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()


def _array(kind: str, array: np.ndarray, node: dict[str, Any]) -> Any:
    if kind == "tensor":
        tensor = torch.from_numpy(array).to(_DTYPES[node["dtype"]])
        return tensor.requires_grad_(bool(node["grad"]))
    if kind == "torch_rng":
        return torch.Generator().set_state(torch.from_numpy(array))
    if kind == "numpy_rng":
        if node["name"] not in ("PCG64", "PCG64DXSM", "Philox", "SFC64", "MT19937"):
            raise ValueError(f"no generator {node['name']}")
        generator = np.random.Generator(getattr(np.random, node["name"])())
        write_back(generator, array)
        return generator
    array.flags.writeable = not node["frozen"]
    return array


def state_of(source: Any) -> np.ndarray:
    """What of an array, a tensor or a generator can change in place."""
    if isinstance(source, torch.Tensor):
        return _bytes_of(source)
    if isinstance(source, np.random.Generator):
        text = json.dumps(source.bit_generator.state, default=lambda array: array.tolist())
        return np.frombuffer(text.encode(), np.uint8)
    return source.get_state().numpy() if isinstance(source, torch.Generator) else source


def differs(source: Any, before: np.ndarray) -> bool:
    """Has it changed in place? NaN equals NaN."""
    now = state_of(source)
    return not np.array_equal(now, before, equal_nan=before.dtype.kind in "fc")


def write_back(source: Any, new: np.ndarray) -> None:
    """Let a change in place happen here too; one of shape or type cannot, and does not."""
    if isinstance(source, np.random.Generator):
        source.bit_generator.state = json.loads(new.tobytes())
    elif source is None or np.shape(state_of(source)) != new.shape:
        return
    elif isinstance(source, torch.Generator):
        source.set_state(torch.from_numpy(new))
    elif isinstance(source, torch.Tensor):
        with torch.no_grad():
            source.copy_(torch.from_numpy(new))
    else:
        source[...] = new


def replaced(value: Any, new: dict[int, Any]) -> Any:
    """The same nest of containers with other tensors."""
    if isinstance(value, list | tuple | set | frozenset):
        return type(value)(replaced(item, new) for item in value)
    if isinstance(value, dict):
        return {key: replaced(item, new) for key, item in value.items()}
    return new.get(id(value), value)
