"""State of an attack on disk, so that a killed one goes on where it was.

One safetensors file holds the slots; beside it, each checkpoint that finished images has a part
file with the rows finished since the last. All are written atomically, the part first: a kill
between the two leaves a part that the resumed run writes again.
"""

import json
from collections.abc import Mapping
from pathlib import Path

import torch

from tkmia_utils.files import sweep
from tkmia_utils.tensor_file import Tensors, digest, read_tensors, write_tensors

FORMAT = "tkmia attack 2"


def described(thing: object) -> str:
    """Say what `thing` is, alike in every process: its type and what it holds, tensors by digest.

    Parameters
    ----------
    thing : object
        A module is told by its architecture and weights, a function by its name alone, any other
        object by its attributes.
    """
    kind = type(thing)
    if isinstance(thing, torch.nn.Module):
        weights = {k: v for k, v in thing.state_dict().items() if isinstance(v, torch.Tensor)}
        return f"{thing!r} {digest(weights)}"
    if isinstance(thing, torch.Tensor):
        return digest({"": thing})
    if hasattr(thing, "__qualname__"):
        return f"{thing.__module__}.{thing.__qualname__}"
    if not hasattr(thing, "__dict__"):
        return repr(thing)
    held = {name: described(value) for name, value in sorted(vars(thing).items())}
    return f"{kind.__module__}.{kind.__qualname__} {held}"


class Checkpoint:
    """The files of one attack.

    Parameters
    ----------
    path : str or Path
        The file of the slots; parts are called ``<name>.part1`` and so on.
    arguments : mapping of str to str
        Every argument that decides the result, or its digest.
    """

    def __init__(self, path: str | Path, arguments: Mapping[str, str]) -> None:
        self.path, self.arguments, self.parts = Path(path), dict(arguments), 0

    @staticmethod
    def begun_with(path: str | Path) -> dict[str, str]:
        """Arguments of the call that began the file `path`; nothing where it cannot be read."""
        try:
            arguments = json.loads(read_tensors(path, kind=FORMAT)[1]["arguments"])
            return {str(name): str(value) for name, value in arguments.items()}
        except (OSError, KeyError, ValueError, AttributeError):
            return {}  # whoever loads it says what is wrong

    def load(self) -> tuple[Tensors, list[Tensors]] | None:
        """State and finished rows as last saved; None if there is no file.

        Raises
        ------
        ValueError
            A file is broken or missing, or belongs to a call with other arguments.
        """
        if not self.path.exists():
            return None
        state, metadata = self._read(self.path)
        self.parts = int(metadata["parts"])
        return state, [self._read(self._part(i))[0] for i in range(1, self.parts + 1)]

    def save(self, state: Tensors, rows: Tensors) -> None:
        """Write `state`, and the `rows` finished since the last time if there are any."""
        if rows:
            self._write(self._part(self.parts + 1), rows)
            self.parts += 1
        self._write(self.path, state)

    def remove(self) -> None:
        """Leave nothing behind, nor what a kill in the midst of a write left."""
        self.path.unlink(missing_ok=True)
        last = 0
        while self._part(last + 1).exists():
            last += 1
        for i in range(last, 0, -1):  # from the end, so that none is ever out of reach
            self._part(i).unlink()
        sweep(self.path.parent)

    def _part(self, i: int) -> Path:
        return self.path.with_name(f"{self.path.name}.part{i}")

    def _write(self, path: Path, tensors: Tensors) -> None:
        metadata = {
            "arguments": json.dumps(self.arguments, sort_keys=True),
            "parts": str(self.parts),
        }
        write_tensors(path, tensors, kind=FORMAT, metadata=metadata)

    def _read(self, path: Path) -> tuple[Tensors, dict[str, str]]:
        try:
            tensors, metadata = read_tensors(path, kind=FORMAT)
            arguments = json.loads(metadata["arguments"])
        except (KeyError, ValueError) as error:
            raise self._broken(path, str(error)) from error
        if arguments != self.arguments:
            names = sorted({*arguments, *self.arguments})
            other = [name for name in names if arguments.get(name) != self.arguments.get(name)]
            raise ValueError(
                f"checkpoint: {path} belongs to a call with other arguments: {', '.join(other)}; "
                "call with the same, or remove the file to start afresh"
            )
        return tensors, metadata

    def _broken(self, path: Path, why: str) -> ValueError:
        return ValueError(
            f"checkpoint: {path} is broken ({why}); remove {self.path} to start afresh"
        )
