"""What is kept of a run: its figures, tables and manifest, and the machine that made them.

A run writes to ``runs/<profile>/figures``, which git ignores. The committed record
``figures/<profile>`` changes only when :func:`replace` puts a run in its place.
"""

import os
import platform
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from tkmia_utils.files import write_atomically
from tkmia_utils.hashing import file_hash
from tkmia_utils.pipeline.profile import Profile
from tkmia_utils.workspace import MANIFEST, first_made, read_manifest, write_json

ABOUT = "record.json"  # next to the manifest: which machine, which versions, how good a victim
QUALITY = "04_quality.csv"
PATHS = ("train_csv", "val_csv", "data_root")
"""Parameters that are paths on somebody's machine."""


def cores() -> int:
    """CPU cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def machine() -> dict[str, Any]:
    """What of this machine decides bits and minutes; neither its name nor the time."""
    cuda = torch.cuda.is_available()
    return {
        "cpu": _cpu(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "cores": cores(),
        "threads": torch.get_num_threads(),
        "os": _os(),
        "device": torch.cuda.get_device_name(0) if cuda else "cpu",
    }


def _cpu() -> str:
    """The processor's model, in its maker's words; its architecture where it tells no more."""
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(errors="replace").splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                return value.strip()
    if platform.system() == "Darwin":
        command = ("sysctl", "-n", "machdep.cpu.brand_string")
        answer = subprocess.run(command, capture_output=True, text=True, check=False)
        if answer.stdout.strip():
            return answer.stdout.strip()
    return platform.processor() or platform.machine()


def _os() -> str:
    kinds = {"Linux": " ".join(platform.libc_ver()), "Darwin": platform.mac_ver()[0]}
    words = (platform.system(), platform.machine(), kinds.get(platform.system(), ""))
    return " ".join(filter(None, words))


def describe(folder: Path, *, profile: Profile, versions: Mapping[str, str]) -> Path:
    """Write ``record.json`` into a folder of figures and tables; returns its path."""
    quality = folder / QUALITY
    victim = pd.read_csv(quality).iloc[0].to_dict() if quality.is_file() else {}
    about = {
        "profile": profile.name,
        "note": profile.note,
        "machine": machine(),
        "versions": dict(versions),
        "victim": victim,
    }
    return write_json(folder / ABOUT, about)


def forget(folder: Path, notebook: str, *, made: Iterable[str]) -> list[str]:
    """Remove what a notebook once made and makes no more, from a run's folder and its manifest.

    Parameters
    ----------
    folder : Path
        Of figures and tables.
    notebook : str
        Entries of others are kept.
    made : iterable of str
        Names of the files that it made just now.

    Returns
    -------
    list of str
        Names of what was removed.
    """
    kept, listed = set(made), read_manifest(folder)
    gone = [f for f, entry in listed.items() if entry["notebook"] == notebook and f not in kept]
    for file in gone:
        (folder / file).unlink(missing_ok=True)
        del listed[file]
    if gone:
        write_json(folder / MANIFEST, listed)
    return gone


def replace(folder: Path, record: Path, *, made: Iterable[str]) -> int:
    """Put a run's figures, tables and manifest in the place of the record.

    Each file is whole at any time, and the manifest is written last: of an update that was killed
    the old manifest tells which files it does not list, and the next update completes it.

    Parameters
    ----------
    folder, record : Path
        The run's folder and the record's.
    made : iterable of str
        Names of the figures and tables that the run made; what else lies in `folder` is not taken.

    Returns
    -------
    int
        How many files of the record were written or removed.

    Raises
    ------
    ValueError
        A file is not in `folder` or not in its manifest, or there is none; nothing is written then.
    """
    files, listed, old = sorted(set(made)), read_manifest(folder), read_manifest(record)
    missing = [file for file in files if file not in listed or not (folder / file).is_file()]
    if missing or not files or not (folder / ABOUT).is_file():
        raise ValueError(f"folder: {folder} lacks {', '.join(missing) or 'figures'}")
    changed = [file for file in (*files, ABOUT) if not _same(folder / file, record / file)]
    for file in changed:
        content = (folder / file).read_bytes()
        write_atomically(record / file, lambda path, content=content: path.write_bytes(content))
    gone = [p for p in record.iterdir() if p.is_file() and p.name not in (*files, ABOUT, MANIFEST)]
    for path in gone:
        path.unlink()
    manifest = {file: first_made(_public(listed[file]), old.get(file, {})) for file in files}
    if manifest != old:
        write_json(record / MANIFEST, manifest)
    return len(changed) + len(gone)


def _public(entry: Mapping[str, Any]) -> dict[str, Any]:
    """An entry of a manifest without the folders in which somebody keeps photos."""
    shown = {
        name: Path(value).name if name in PATHS and value is not None else value
        for name, value in entry.get("parameters", {}).items()
    }
    return {**entry, "parameters": shown}


def _same(one: Path, other: Path) -> bool:
    return other.is_file() and file_hash(one) == file_hash(other)
