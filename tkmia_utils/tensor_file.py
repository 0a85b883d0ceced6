"""Tensors by name in one safetensors file that says what it is and proves that it is whole."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from tkmia_utils.files import write_atomically

Tensors = dict[str, torch.Tensor]


def digest(tensors: Mapping[str, torch.Tensor]) -> str:
    """SHA-256 over names, dtypes, shapes and bytes."""
    return _hashed(tensors).hexdigest()


def _hashed(tensors: Mapping[str, torch.Tensor]) -> "hashlib._Hash":
    sha = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        sha.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        sha.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return sha


def _seal(tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str]) -> str:
    """Digest of a whole file: its tensors and all that its header says beside the seal."""
    sha = _hashed(tensors)
    said = {name: text for name, text in metadata.items() if name != "sha256"}
    sha.update(json.dumps(said, sort_keys=True).encode())
    return sha.hexdigest()


def write_tensors(
    path: str | Path, tensors: Tensors, *, kind: str, metadata: Mapping[str, str]
) -> Path:
    """Write tensors atomically, with their digest.

    Parameters
    ----------
    path : str or Path
        The file.
    tensors : dict of str to torch.Tensor
        On any device, in any layout; they are written contiguous.
    kind : str
        What the file is, and in which version.
    metadata : mapping of str to str
        Written into the header.

    Returns
    -------
    Path
        `path`.
    """
    plain = torch.contiguous_format
    tensors = {name: t.detach().cpu().clone(memory_format=plain) for name, t in tensors.items()}
    metadata = {**metadata, "format": kind}
    metadata["sha256"] = _seal(tensors, metadata)
    return write_atomically(
        path, lambda temporary: save_file(tensors, temporary, metadata=metadata)
    )


def read_tensors(path: str | Path, *, kind: str) -> tuple[Tensors, dict[str, str]]:
    """Read what :func:`write_tensors` wrote: tensors and metadata.

    Raises
    ------
    ValueError
        Not such a file, or not whole; the message says why, and leaves out the file's name.
    """
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}
    except (OSError, SafetensorError) as error:
        raise ValueError(str(error)) from error
    if metadata.get("format") != kind:
        raise ValueError(f"its format is {metadata.get('format')!r}, not {kind!r}")
    if metadata.get("sha256") != _seal(tensors, metadata):
        raise ValueError("its bytes are not those that were written")
    return tensors, metadata
