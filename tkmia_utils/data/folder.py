"""Your own photos: image files and a CSV that names the labels of each.

The CSV has a header with the columns ``image`` and ``labels``; the labels are names with a
separator between them. Names may be quoted and may have spaces around them::

    image,labels
    train/7.jpg,person;motorcycle
    train/18.jpg,"person; car; bus"
"""

import csv as csv_module
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from tkmia_utils.data.base import MultiLabelDataset
from tkmia_utils.data.files import NAMED
from tkmia_utils.data.image_files import ImageFiles, decode


@dataclass(frozen=True)
class _Row:
    """One line of the CSV: its number, the image as written, its labels."""

    line: int
    image: str
    labels: tuple[str, ...]


def folder(
    csv: str | Path,
    images: str | Path | None = None,
    *,
    size: int = 96,
    classes: Sequence[str] | None = None,
    separator: str = ";",
    split: str = "val",
    on_error: str = "raise",
    preload: bool = True,
    cache: str | Path | None = None,
) -> MultiLabelDataset:
    """Read a folder of photos with a CSV.

    The whole image is squashed to a square with antialiasing, turned as its EXIF data says,
    converted to RGB, and laid on white where it is transparent.

    Parameters
    ----------
    csv : str or Path
        The CSV, UTF-8, columns ``image`` and ``labels``; other columns are ignored.
    images : str or Path, optional
        The folder the image names start from; default: the CSV's own.
    size : int
        Pixels a side of the images given out.
    classes : sequence of str, optional
        Class names in their order; default: the names in the whole CSV, sorted. Give the training
        set's to the held-out set, or their columns do not agree.
    separator : str
        Between two label names.
    split : str
        What the set is called, e.g. ``"train"``.
    on_error : {"raise", "skip"}
        What to do about images that are missing or cannot be decoded. ``"skip"`` looks at every
        image up front, leaves such images out and names them in one warning.
    preload : bool
        Decode all images now and keep them, ``3 * size**2`` bytes each; else at each use.
    cache : str or Path, optional
        Folder that remembers the files' hashes.

    Returns
    -------
    MultiLabelDataset
        Its ids are the image names as written in the CSV.

    Raises
    ------
    ValueError
        No such CSV, a missing column, a malformed row, an image named twice, a label that is not
        in `classes`, no image left; with ``on_error="raise"`` also a missing image or, when it
        is decoded, a corrupt one. Messages name the file and the line.
    """
    csv = Path(csv)
    if on_error not in ("raise", "skip"):
        raise ValueError(f"on_error: expected 'raise' or 'skip', got {on_error!r}")
    if isinstance(size, bool) or not isinstance(size, int) or size < 1:
        raise ValueError(f"size: expected an int >= 1, in pixels, got {size!r}")
    rows = _read(csv, separator)
    names = _class_names(rows, classes, csv)
    root = csv.parent if images is None else Path(images)
    paths = [root / row.image for row in rows]
    problems = {
        i: f"{csv}, line {row.line}: no such image: {path}"
        for i, (row, path) in enumerate(zip(rows, paths, strict=True))
        if not path.is_file()
    }
    if problems and on_error == "raise":
        raise ValueError(_listed("images", problems))

    decoded: list[torch.Tensor] = []
    kept = [i for i in range(len(rows)) if i not in problems]
    if preload or on_error == "skip":
        for i in kept:
            try:
                image = decode(paths[i], size)
            except ValueError as error:
                problems[i] = f"{csv}, line {rows[i].line}: {error}"
                if on_error == "raise":
                    raise ValueError(problems[i]) from error
            else:
                decoded += [image] if preload else []
        kept = [i for i in kept if i not in problems]
    if not kept:
        raise ValueError(_listed("images: none is left", problems))
    if problems:
        warnings.warn(_listed("left out", problems), stacklevel=2)

    labels = torch.zeros((len(kept), len(names)), dtype=torch.bool)
    column = {name: c for c, name in enumerate(names)}
    for row, i in enumerate(kept):
        labels[row, [column[name] for name in rows[i].labels]] = True
    held = tuple(decoded) if preload else ()
    return MultiLabelDataset(
        name="folder",
        split=split,
        classes=names,
        labels=labels,
        ids=tuple(rows[i].image for i in kept),
        load=ImageFiles(tuple(paths[i] for i in kept), size, cache=cache, held=held),
        card=f"Photos listed in {csv.name}: {len(kept)} images, {len(names)} classes, each photo "
        f"squashed whole to {size} x {size} pixels; labels as given in the file, unchecked.",
        size=size,
    )


def _read(path: Path, separator: str) -> list[_Row]:
    """Rows of a CSV, checked one by one."""
    if not isinstance(separator, str) or not separator.strip():
        raise ValueError(f"separator: expected a character that is not a space, got {separator!r}")
    if not path.is_file():
        raise ValueError(f"csv: no such file: {path}")
    rows, first_seen = [], {}
    try:
        # utf-8-sig: spreadsheets put a byte order mark before the first column's name
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv_module.reader(file, skipinitialspace=True, strict=True)
            header = [name.strip() for name in next(reader, [])]
            for wanted in ("image", "labels"):
                if header.count(wanted) != 1:
                    raise ValueError(
                        f"{path}, line 1: expected one column {wanted!r}, got the columns {header}"
                    )
            for fields in reader:
                if not any(field.strip() for field in fields):
                    continue
                where = f"{path}, line {reader.line_num}"
                if len(fields) != len(header):
                    raise ValueError(
                        f"{where}: expected {len(header)} fields, got {len(fields)}; "
                        "quote names that hold a comma"
                    )
                image = fields[header.index("image")].strip()
                if not image:
                    raise ValueError(f"{where}: the image's name is empty")
                image = Path(image).as_posix()
                if image in first_seen:
                    raise ValueError(
                        f"{where}: image {image!r} was named before, in line {first_seen[image]}"
                    )
                first_seen[image] = reader.line_num
                named = (name.strip() for name in fields[header.index("labels")].split(separator))
                rows.append(_Row(reader.line_num, image, tuple(name for name in named if name)))
    except (csv_module.Error, UnicodeDecodeError) as error:
        raise ValueError(f"csv: {path} cannot be read as a CSV in UTF-8 ({error})") from error
    if not rows:
        raise ValueError(f"csv: {path} names no image")
    return rows


def _class_names(rows: list[_Row], classes: Sequence[str] | None, csv: Path) -> tuple[str, ...]:
    """The class list: as given and covering every row, or the sorted union."""
    if classes is None:
        names = tuple(sorted({name for row in rows for name in row.labels}))
        if not names:
            raise ValueError(f"csv: {csv} names no label; give classes")
        return names
    if isinstance(classes, str):
        raise ValueError(f"classes: expected a sequence of names, got the one str {classes!r}")
    names = tuple(classes)
    for row in rows:
        for name in row.labels:
            if name not in names:
                raise ValueError(
                    f"{csv}, line {row.line}: label {name!r} of {row.image!r} is not in classes "
                    f"({', '.join(map(str, names))})"
                )
    return names


def _listed(what: str, problems: dict[int, str]) -> str:
    """One message for all problems: the first few in full, the rest counted."""
    lines = list(problems.values())
    more = f"; and {len(lines) - NAMED} more" if len(lines) > NAMED else ""
    return f"{what}: " + "; ".join(lines[:NAMED]) + more
