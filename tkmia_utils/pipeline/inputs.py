"""Hashes of what a notebook reads: the images of a data set, and files."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import nbformat

from tkmia_utils import data
from tkmia_utils.experiments.lab import data_arguments, located
from tkmia_utils.hashing import PACKAGE, file_hash
from tkmia_utils.workspace import write_text


def data_hashes(
    parameters: Mapping[str, Mapping[str, Any]], root: str | Path
) -> dict[str, dict[str, str]]:
    """The data sets that notebooks load, by the parameters that name them.

    Parameters
    ----------
    parameters : mapping
        Notebook to its parameters, from :func:`tkmia_utils.pipeline.profile.resolve`. A notebook
        reads a data set if it declares ``dataset``, and of it the halves whose CSV it declares.
    root : str or Path
        Folder that holds ``notebooks/``, from where paths start, and ``cache/``.

    Returns
    -------
    dict
        Notebook to half to hash; the message, for a half that cannot be read: its notebook will
        say so, those that need no data run.
    """
    found: dict[str, str] = {}

    def half(given: Mapping[str, Any], split: str) -> str:
        arguments = data_arguments(located(given, Path(root) / "notebooks"), split)
        key = json.dumps(arguments)
        if key not in found:
            try:
                found[key] = data.fingerprint(**arguments, cache=Path(root) / "cache")
            except (ValueError, TypeError, ImportError) as error:
                found[key] = str(error)
        return found[key]

    return {
        notebook: {
            split: half(given, split)
            for split in ("train", "val")
            if "dataset" in given and f"{split}_csv" in given
        }
        for notebook, given in parameters.items()
    }


def files_hashes(folders: Iterable[str], root: str | Path, *, name: str) -> dict[str, str]:
    """Files of some folders, with their hashes; under the root, else next to the package.

    Parameters
    ----------
    folders : iterable of str
        Relative to `root`.
    root : str or Path
        Where they are looked for first.
    name : str
        What they are called in a message.

    Raises
    ------
    ValueError
        There is no such folder, or no file in it.
    """
    found = {}
    for folder in folders:
        homes = [home for home in (Path(root), PACKAGE.parent) if (home / folder).is_dir()]
        if not homes:
            raise ValueError(f"{name}: there is no folder {Path(root) / folder}")
        files = sorted(path for path in (homes[0] / folder).rglob("*") if path.is_file())
        if not files:
            raise ValueError(f"{name}: there is no file in {homes[0] / folder}")
        found |= {path.relative_to(homes[0]).as_posix(): file_hash(path) for path in files}
    return found


def renew_prose(copy: str | Path, notebook: str | Path) -> None:
    """Give the executed copy of a notebook the notebook's text of today; its code stays.

    Nothing is changed where the two have other code cells than each other.
    """
    made, source = (nbformat.read(path, as_version=4) for path in (copy, notebook))
    ran = [cell for cell in made.cells if cell.cell_type == "code"]
    given = [c for c in ran if "injected-parameters" in c.metadata.get("tags", ())]
    by_id = {cell.id: cell for cell in ran if cell not in given}
    if [cell.id for cell in source.cells if cell.cell_type == "code"] != list(by_id):
        return
    cells = []
    for cell in source.cells:
        cells.append(by_id.get(cell.id, cell))
        if "parameters" in cell.metadata.get("tags", ()):
            cells += given
    if [cell.source for cell in cells] != [cell.source for cell in made.cells]:
        made.cells = cells
        write_text(copy, nbformat.writes(made))
