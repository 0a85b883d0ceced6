"""MS COCO: its eighty classes, the paper's types over them (Table 7), and its reader."""

import json
from pathlib import Path
from typing import Any

from tkmia_utils.data.base import MultiLabelDataset
from tkmia_utils.data.files import assemble, check_choice, one_hot, require

CLASSES: tuple[str, ...] = (
    "person",
    "bicycle",
    "car",
    "motorcycle",
    "airplane",
    "bus",
    "train",
    "truck",
    "boat",
    "traffic light",
    "fire hydrant",
    "stop sign",
    "parking meter",
    "bench",
    "bird",
    "cat",
    "dog",
    "horse",
    "sheep",
    "cow",
    "elephant",
    "bear",
    "zebra",
    "giraffe",
    "backpack",
    "umbrella",
    "handbag",
    "tie",
    "suitcase",
    "frisbee",
    "skis",
    "snowboard",
    "sports ball",
    "kite",
    "baseball bat",
    "baseball glove",
    "skateboard",
    "surfboard",
    "tennis racket",
    "bottle",
    "wine glass",
    "cup",
    "fork",
    "knife",
    "spoon",
    "bowl",
    "banana",
    "apple",
    "sandwich",
    "orange",
    "broccoli",
    "carrot",
    "hot dog",
    "pizza",
    "donut",
    "cake",
    "chair",
    "couch",
    "potted plant",
    "bed",
    "dining table",
    "toilet",
    "tv",
    "laptop",
    "mouse",
    "remote",
    "keyboard",
    "cell phone",
    "microwave",
    "oven",
    "toaster",
    "sink",
    "refrigerator",
    "book",
    "clock",
    "vase",
    "scissors",
    "teddy bear",
    "hair drier",
    "toothbrush",
)
"""Class names in COCO's own order and spelling."""

TYPES: dict[str, tuple[str, ...]] = {
    "Person": ("person",),
    "Daily necessities": (
        "backpack",
        "umbrella",
        "handbag",
        "tie",
        "suitcase",
        "book",
        "clock",
        "vase",
        "scissors",
        "teddy bear",
        "toothbrush",
    ),
    "Furniture": ("chair", "couch", "potted plant", "bed", "dining table"),
    "Electrical equipment": (
        "tv",
        "laptop",
        "mouse",
        "remote",
        "keyboard",
        "cell phone",
        "microwave",
        "oven",
        "toaster",
        "refrigerator",
    ),
}
"""Table 7, by COCO's names."""

SOURCE = (
    "They come in the archives {split}{year} and annotations_trainval{year} of the COCO home page "
    "(cocodataset.org), unpacked side by side; root is the folder that holds annotations and "
    "{split}{year}"
)


def coco(
    root: str | Path,
    split: str = "train",
    *,
    year: str = "2014",
    size: int = 448,
    unlabelled: str = "drop",
    on_error: str = "raise",
    preload: bool = False,
    cache: str | Path | None = None,
) -> MultiLabelDataset:
    """Read MS COCO in its official layout.

    Reads ``annotations/instances_{split}{year}.json`` and, by the file names given there, the
    photos in ``{split}{year}``. A class is shown where it has any instance, crowds included.

    Parameters
    ----------
    root : str or Path
        The folder that holds ``annotations``.
    split : {"train", "val"}
        The paper trains on the one and attacks the other.
    year : {"2014", "2017"}
        Which release; the paper's is 2014.
    size : int
        Pixels a side; the paper's are 448. The whole photo is squashed.
    unlabelled : {"drop", "keep"}
        What to do about photos without any instance; the released code drops them.
    on_error : {"raise", "skip"}
        What to do about photos that are missing; ``"skip"`` names them in one warning.
    preload : bool
        Decode all photos now and keep them, ``3 * size**2`` bytes each; else at each use.
    cache : str or Path, optional
        Folder that remembers the files' hashes.

    Returns
    -------
    MultiLabelDataset
        Its ids are the photos' file names, in the order of the JSON's image list (the released
        code goes by first annotation instead).

    Raises
    ------
    ValueError
        Missing files, all in one message that says where they come from and belong; an instances
        file that cannot be read, or has a class, a category or an image that it does not explain.
    """
    check_choice(
        split=(split, ("train", "val")),
        year=(year, ("2014", "2017")),
        unlabelled=(unlabelled, ("drop", "keep")),
    )
    source = SOURCE.format(split=split, year=year)
    instances = Path(root) / "annotations" / f"instances_{split}{year}.json"
    require([instances], source=source)
    shown = _shown(instances)
    files = [name for name, classes in shown.items() if classes or unlabelled == "keep"]
    return assemble(
        name="coco",
        split=split,
        classes=CLASSES,
        labels=one_hot([shown[name] for name in files], CLASSES),
        ids=tuple(files),
        paths=[Path(root) / f"{split}{year}" / name for name in files],
        size=size,
        on_error=on_error,
        preload=preload,
        cache=cache,
        source=source,
        card=f"MS COCO {year}, {split}: real photos, each squashed whole to {size} x {size} "
        "pixels; the labels are the classes with an annotated instance, photos without any "
        f"{'left out' if unlabelled == 'drop' else 'kept'}.",
    )


def _shown(path: Path) -> dict[str, set[str]]:
    """File name of each image to the names of its classes."""
    try:
        # outlines are most of a file of half a gigabyte: dropped as soon as they are parsed
        content = json.loads(path.read_bytes(), object_hook=_without_outline)
        names = {item["id"]: item["name"] for item in content["categories"]}
        files = {item["id"]: item["file_name"] for item in content["images"]}
        pairs = [(item["image_id"], item["category_id"]) for item in content["annotations"]]
        count = len(content["images"])
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(
            f"{path}: cannot be read as COCO instances ({type(error).__name__}: {error})"
        ) from error
    for name in names.values():
        if name not in CLASSES:
            raise ValueError(f"{path}: unknown class {name!r}, expected one of COCO's eighty")
    shown: dict[str, set[str]] = {name: set() for name in files.values()}
    if len(shown) != count:
        raise ValueError(f"{path}: expected {count} images of different ids and file names")
    for image, category in pairs:
        if image not in files:
            raise ValueError(f"{path}: an annotation is of image {image!r}, which is not listed")
        if category not in names:
            raise ValueError(f"{path}: an annotation has category {category!r}, not listed")
        shown[files[image]].add(names[category])
    return shown


def _without_outline(item: dict[str, Any]) -> dict[str, Any]:
    item.pop("segmentation", None)
    return item
