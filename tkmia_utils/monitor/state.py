"""Arrays by name in one npz file that says what it is and proves that it is whole."""

import hashlib
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tkmia_utils.files import write_atomically

Arrays = dict[str, npt.NDArray[Any]]
FORMAT = "tkmia-monitor-1"


def _seal(arrays: Mapping[str, npt.NDArray[Any]], text: str) -> str:
    """SHA-256 over names, dtypes, shapes and bytes, and over what the header says."""
    sha = hashlib.sha256(text.encode())
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        sha.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        sha.update(array.tobytes())
    return sha.hexdigest()


def write_state(path: str | Path, arrays: Arrays, about: Mapping[str, object]) -> Path:
    """Write arrays and what JSON can say about them, atomically."""
    text = json.dumps({**about, "format": FORMAT}, sort_keys=True)
    header = np.array([text, _seal(arrays, text)])

    def write(temporary: Path) -> None:
        with open(temporary, "wb") as file:  # np.savez would add an ending to a mere name
            np.savez(file, allow_pickle=False, **arrays, header=header)

    return write_atomically(path, write)


def read_state(path: str | Path) -> tuple[Arrays, dict[str, Any]]:
    """Read what :func:`write_state` wrote.

    Raises
    ------
    ValueError
        There is no such file, it is not one of a monitor, or it is not whole.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        text, seal = arrays.pop("header").tolist()
        about: dict[str, Any] = json.loads(text)
    except (OSError, ValueError, TypeError, KeyError, EOFError, AttributeError) as error:
        raise ValueError(f"{path}: not a whole file of a monitor ({error})") from error
    except (zipfile.BadZipFile, NotImplementedError) as error:
        raise ValueError(f"{path}: not a whole file of a monitor ({error})") from error
    if about.get("format") != FORMAT:
        raise ValueError(f"{path}: its format is {about.get('format')!r}, not {FORMAT!r}")
    if seal != _seal(arrays, text):
        raise ValueError(f"{path}: its bytes are not those that were written")
    return arrays, about
