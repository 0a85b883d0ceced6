"""PASCAL VOC: its twenty classes, the paper's types over them (Table 6), and its reader."""

from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import torch
from PIL import Image, ImageOps
from torchvision.datasets import VOCDetection

from tkmia_utils.data.base import MultiLabelDataset
from tkmia_utils.data.files import assemble, check_choice, one_hot, require
from tkmia_utils.data.image_files import decode

CLASSES: tuple[str, ...] = tuple(
    "aeroplane bicycle bird boat bottle bus car cat chair cow diningtable dog horse motorbike "
    "person pottedplant sheep sofa train tvmonitor".split()
)
"""Class names in VOC's own order and spelling."""

TYPES: dict[str, tuple[str, ...]] = {
    "Vehicles": ("aeroplane", "bicycle", "boat", "bus", "car", "motorbike", "train"),
    "Animals": ("bird", "cat", "cow", "dog", "horse", "sheep"),
    "Household": ("bottle", "chair", "diningtable", "pottedplant", "sofa", "tvmonitor"),
    "Person": ("person",),
}
"""Table 6, with its first two rows put right: as printed, Vehicles lists the animals and Animals
the vehicles (the paper's Tables 9 and 15 use them as here)."""

ALIASES: dict[str, str] = {
    "airplane": "aeroplane",
    "motorcycle": "motorbike",
    "couch": "sofa",
    "tv": "tvmonitor",
}
"""Names of the same classes elsewhere (COCO's), spaces removed, to VOC's."""

SOURCE = (
    "They come in the archive VOCtrainval of the PASCAL VOC home page; "
    "torchvision.datasets.VOCDetection(root, year, download=True) fetches and unpacks it. "
    "root is the folder that holds VOCdevkit"
)


def voc(
    root: str | Path,
    split: str = "train",
    *,
    year: str = "2012",
    size: int = 300,
    difficult: str = "drop",
    resize: str = "squash",
    on_error: str = "raise",
    preload: bool = False,
    download: bool = False,
    cache: str | Path | None = None,
) -> MultiLabelDataset:
    """Read PASCAL VOC in its official layout.

    Reads ``ImageSets/Main/{split}.txt``, ``Annotations/*.xml`` and ``JPEGImages/*.jpg`` under
    ``root/VOCdevkit/VOC{year}``.

    Parameters
    ----------
    root : str or Path
        The folder that holds ``VOCdevkit``.
    split : {"train", "val"}
        The paper trains on the one and attacks the other.
    year : str
        Of the challenge, e.g. ``"2012"``.
    size : int
        Pixels a side; the paper's are 300.
    difficult : {"drop", "keep"}
        Whether an object marked as difficult counts as shown. ``"drop"``, the released code's
        treatment, says no; an image with difficult objects only then has no label, and stays.
    resize : {"squash", "crop"}
        ``"squash"`` keeps the whole photo. ``"crop"`` keeps its central square, the labels still
        being those of the whole photo: the released code's treatment of ``val``.
    on_error : {"raise", "skip"}
        What to do about photos that are missing; ``"skip"`` names them in one warning.
    preload : bool
        Decode all photos now and keep them, ``3 * size**2`` bytes each; else at each use.
    download : bool
        Let torchvision fetch the files (2 GB) into `root` where they are missing.
    cache : str or Path, optional
        Folder that remembers the files' hashes.

    Returns
    -------
    MultiLabelDataset
        Its ids are VOC's, e.g. ``"2007_000027"``, in the order of the list.

    Raises
    ------
    ValueError
        Missing files, all in one message that says where they come from and belong; an annotation
        that cannot be read, names no object or a class that is not VOC's. Messages name the file.
    """
    check_choice(
        split=(split, ("train", "val")),
        year=(year, tuple(map(str, range(2007, 2013)))),
        difficult=(difficult, ("keep", "drop")),
        resize=(resize, ("squash", "crop")),
    )
    base = Path(root) / "VOCdevkit" / f"VOC{year}"
    listed = base / "ImageSets" / "Main" / f"{split}.txt"
    if download and not listed.is_file():
        VOCDetection(str(root), year=year, image_set=split, download=True)
    require([listed], source=SOURCE)
    ids = tuple(listed.read_text(encoding="utf-8").split())
    annotations = [base / "Annotations" / f"{i}.xml" for i in ids]
    require(annotations, source=SOURCE)
    kept = "" if difficult == "keep" else ", difficult ones left out"
    shape = "squashed whole" if resize == "squash" else "cut to its central square and scaled"
    return assemble(
        name="voc",
        split=split,
        classes=CLASSES,
        labels=one_hot([_objects(path, difficult) for path in annotations], CLASSES),
        ids=ids,
        paths=[base / "JPEGImages" / f"{i}.jpg" for i in ids],
        size=size,
        read=decode if resize == "squash" else _decode_centre,
        on_error=on_error,
        preload=preload,
        cache=cache,
        source=SOURCE,
        card=f"PASCAL VOC {year}, {split}: real photos, each {shape} to {size} x {size} pixels; "
        f"the labels are the classes of the objects annotated in the whole photo{kept}.",
    )


def _objects(path: Path, difficult: str) -> set[str]:
    """Names of the classes that one annotation shows."""
    try:
        objects = ElementTree.parse(path).getroot().findall("object")
    except (ElementTree.ParseError, LookupError, ValueError) as error:
        raise ValueError(f"{path}: cannot be read as XML ({error})") from error
    if not objects:
        raise ValueError(f"{path}: expected at least one object, got none")
    names = [(item.findtext("name") or "").strip() for item in objects]
    for name in names:
        if name not in CLASSES:
            raise ValueError(f"{path}: unknown class {name!r}, expected one of VOC's twenty")
    hard = [(item.findtext("difficult") or "0").strip() == "1" for item in objects]
    return {name for name, h in zip(names, hard, strict=True) if difficult == "keep" or not h}


def _decode_centre(path: Path, size: int) -> torch.Tensor:
    """One photo's central square, as `decode` gives the whole."""
    try:
        with Image.open(path) as file:
            image = ImageOps.exif_transpose(file).convert("RGB")
            image = ImageOps.fit(image, (size, size), Image.Resampling.BICUBIC)
    except Exception as error:  # Pillow's decoders raise a dozen types on broken files
        raise ValueError(f"{path}: cannot be read as an image ({error})") from error
    return torch.from_numpy(np.array(image).transpose(2, 0, 1).copy())
