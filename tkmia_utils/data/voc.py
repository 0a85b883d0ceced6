"""The twenty classes of PASCAL VOC and the paper's types over them (Table 6)."""

CLASSES: tuple[str, ...] = (
    "aeroplane",
    "bicycle",
    "bird",
    "boat",
    "bottle",
    "bus",
    "car",
    "cat",
    "chair",
    "cow",
    "diningtable",
    "dog",
    "horse",
    "motorbike",
    "person",
    "pottedplant",
    "sheep",
    "sofa",
    "train",
    "tvmonitor",
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
