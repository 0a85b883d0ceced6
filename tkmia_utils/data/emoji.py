"""The embedded default: multi-label scenes of VOC's twenty classes, composed from emoji.

Nothing is downloaded and nothing is shipped. A scene is one to eight objects on a jittered 3x3
grid over a faded photo crop; which labels meet follows a table of everyday contexts, so that a
victim learns company as it does from real photos.
"""

import importlib.resources
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cache as remember
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageEnhance, ImageFilter
from tqdm.auto import tqdm

from tkmia_utils.data.base import MultiLabelDataset
from tkmia_utils.data.sprites import SIDE, Sprite, catalogue, versions
from tkmia_utils.data.voc import CLASSES
from tkmia_utils.files import write_atomically
from tkmia_utils.hashing import code_hash, file_hash, text_hash
from tkmia_utils.workspace import write_text

CARD = (
    "Embedded default: scenes composed from emoji artwork over faded photo crops, with VOC's "
    "twenty class names. New compositions of the same sprites in training and held-out scenes; "
    "no photos of objects. Numbers on it show orderings, not what real photos would give."
)
SPLITS = {"train": 0, "val": 1}
# astronaut and chelsea are left out: they show a person and a cat that no label would own up to
PHOTOS = (
    *("coffee.png", "rocket.jpg", "grass.png", "gravel.png", "brick.png"),
    "hubble_deep_field.jpg",
)
# a context: how often it is drawn, and how often each class appears in it
CONTEXTS: tuple[tuple[float, dict[str, float]], ...] = (
    (3.0, {"person": 0.7, "car": 0.8, "bus": 0.45, "motorbike": 0.3, "bicycle": 0.35, "dog": 0.15}),
    (2.5, {"sofa": 0.8, "tvmonitor": 0.65, "chair": 0.5, "person": 0.5, "cat": 0.35,
           "pottedplant": 0.5, "bottle": 0.2}),
    (2.5, {"diningtable": 0.9, "chair": 0.8, "bottle": 0.7, "person": 0.65, "pottedplant": 0.3,
           "tvmonitor": 0.15}),
    (2.5, {"cow": 0.65, "sheep": 0.65, "horse": 0.5, "person": 0.5, "dog": 0.4, "bird": 0.25}),
    (1.8, {"boat": 0.9, "bird": 0.6, "person": 0.6, "aeroplane": 0.2}),
    (1.5, {"aeroplane": 0.9, "person": 0.4, "car": 0.35, "bus": 0.3, "bird": 0.2}),
    (1.2, {"horse": 0.85, "person": 0.85, "dog": 0.35}),
    (1.8, {"train": 0.9, "person": 0.55, "bus": 0.25, "car": 0.3, "bicycle": 0.3}),
    (1.8, {"cat": 0.65, "dog": 0.6, "person": 0.5, "sofa": 0.45, "chair": 0.3, "bird": 0.2}),
    (1.2, {"bicycle": 0.75, "motorbike": 0.75, "person": 0.85, "car": 0.35}),
)  # fmt: skip


@dataclass(frozen=True)
class SceneStyle:
    """How hard the scenes are; pairs are the ends of uniform ranges.

    Attributes
    ----------
    scale : (float, float)
        Side of an object as a share of the image's.
    rotation : float
        Degrees to either side.
    alpha : (float, float)
        Opacity of an object.
    occlusion : float
        Largest share of an object's width or height that is cut off.
    grey : float
        How often an object loses its colours.
    blur : (float, float)
        Standard deviation of the whole image's blur, in pixels at 96 pixels a side.
    fade : (float, float)
        How much of the background photo is replaced by one colour.
    noise : float
        Standard deviation of the pixel noise, in [0, 1] pixels.
    mixed : float
        How often a scene joins two contexts.
    stray : float
        How often a class that fits no context joins.
    """

    scale: tuple[float, float] = (0.28, 0.44)
    rotation: float = 20.0
    alpha: tuple[float, float] = (0.75, 1.0)
    occlusion: float = 0.3
    grey: float = 0.1
    blur: tuple[float, float] = (0.2, 0.8)
    fade: tuple[float, float] = (0.5, 0.8)
    noise: float = 0.02
    mixed: float = 0.45
    stray: float = 0.25


def scenes(
    split: str,
    n: int,
    *,
    seed: int = 0,
    size: int = 96,
    cache: str | Path = "cache",
    style: SceneStyle | None = None,
    progress: bool = False,
) -> MultiLabelDataset:
    """Compose scenes, or read them from the cache.

    Scene i depends on nothing but (seed, split, i) and the style; the two splits never share one.

    Parameters
    ----------
    split : {"train", "val"}
        Which stream of scenes.
    n : int
        How many.
    seed : int
        Any integer from 0.
    size : int
        Pixels a side, at least 32.
    cache : str or Path
        Folder for ``emoji-<hash>.npz`` and its checksum.
    style : SceneStyle, optional
        How hard the scenes are.
    progress : bool
        Show a progress bar.

    Returns
    -------
    MultiLabelDataset

    Raises
    ------
    ValueError
        An unknown split, n < 1, size < 32 or seed < 0.
    ImportError
        A package of sprites is missing; the message says how to get it.
    """
    style = style or SceneStyle()
    if split not in SPLITS:
        raise ValueError(f"split: expected one of {sorted(SPLITS)}, got {split!r}")
    for name, value, least in (("n", n, 1), ("size", size, 32), ("seed", seed, 0)):
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise ValueError(f"{name}: expected an int >= {least}, got {value!r}")
    made_by = fingerprint(split, seed=seed, size=size, style=style)
    path = Path(cache) / f"emoji-{text_hash(made_by, n)[:16]}.npz"

    def make() -> dict[str, np.ndarray]:
        steps = tqdm(range(n), disable=not progress, desc=f"composing {split}", leave=False)
        made = [compose(split, i, seed=seed, size=size, style=style) for i in steps]
        return {
            "images": np.stack([image for image, _ in made]),
            "labels": np.stack([labels for _, labels in made]),
        }

    arrays = _cached(path, make)
    images = torch.from_numpy(arrays["images"])
    return MultiLabelDataset(
        name="emoji", split=split, classes=CLASSES, labels=torch.from_numpy(arrays["labels"]),
        ids=tuple(f"emoji-{split}-{seed}-{i:06d}" for i in range(n)),
        load=images.__getitem__, card=CARD, size=size,
        digest=lambda index: [text_hash(made_by, i) for i in index],
    )  # fmt: skip


def fingerprint(
    split: str, *, seed: int = 0, size: int = 96, style: SceneStyle | None = None
) -> str:
    """Hash of all that decides a scene except its number; composes nothing.

    Parameters
    ----------
    split, seed, size, style
        As for :func:`scenes`.

    Raises
    ------
    ImportError
        As for :func:`scenes`.
    """
    hash_inputs = [split, seed, size, asdict(style or SceneStyle()), versions(), CLASSES]
    # after a change of the contexts or the sprites, cached scenes are out of date
    modules = [f"{__package__}.{name}" for name in ("emoji", "sprites")]
    return text_hash(hash_inputs, code_hash([], alone=modules))


def _cached(path: Path, make: Callable[[], dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Arrays of `path` if it agrees with its checksum file; else made and saved."""
    checksum = path.with_suffix(".sha256")
    if path.is_file() and checksum.is_file() and checksum.read_text().strip() == file_hash(path):
        with np.load(path, allow_pickle=False) as file:
            return dict(file)
    arrays = make()

    def write(temporary: Path) -> None:
        with open(temporary, "wb") as file:
            np.savez(file, **arrays)

    write_atomically(path, write)
    write_text(checksum, file_hash(path) + "\n")
    return arrays


def draw_labels(rng: np.random.Generator, style: SceneStyle) -> list[str]:
    """Draw one to eight class names that keep each other company."""
    weights = np.array([weight for weight, _ in CONTEXTS])
    how_many = 1 + int(rng.random() < style.mixed)
    chosen = rng.choice(len(CONTEXTS), how_many, replace=False, p=weights / weights.sum())
    names = {c for i in chosen for c, often in CONTEXTS[i][1].items() if rng.random() < often}
    if rng.random() < style.stray or not names:
        names.add(str(rng.choice(CLASSES)))
    names = [name for name in CLASSES if name in names]
    return [names[i] for i in rng.permutation(len(names))[:8]]


def compose(
    split: str, index: int, *, seed: int, size: int, style: SceneStyle
) -> tuple[np.ndarray, np.ndarray]:
    """Compose one scene.

    Parameters
    ----------
    split, seed, size, style
        As for :func:`scenes`.
    index : int
        Which scene of the stream.

    Returns
    -------
    image : numpy.ndarray
        uint8 ``(3, size, size)``.
    labels : numpy.ndarray
        bool ``(20,)``.
    """
    rng = np.random.default_rng([seed, SPLITS[split], index])
    names = draw_labels(rng, style)
    labels = np.isin(CLASSES, names)
    canvas = _background(rng, size, style)
    places = rng.permutation(9)
    for name, place in zip(names, places, strict=False):
        sprite = _object(rng, _choices(name, names), size, style)
        centre = (np.array([place % 3, place // 3]) + 0.5 + rng.uniform(-0.3, 0.3, 2)) * size / 3
        left, top = (centre - np.array(sprite.size) / 2).round().astype(int)
        # every object stays whole inside the frame, whatever its jitter
        left = int(np.clip(left, 0, size - sprite.width))
        top = int(np.clip(top, 0, size - sprite.height))
        canvas.paste(sprite, (left, top), sprite)
    canvas = canvas.filter(ImageFilter.GaussianBlur(rng.uniform(*style.blur) * size / 96))
    pixels = np.asarray(canvas, dtype=np.float64) + rng.normal(
        0, 255 * style.noise, (size, size, 3)
    )
    image = pixels.round().clip(0, 255).astype(np.uint8)
    return np.ascontiguousarray(image.transpose(2, 0, 1)), labels


@remember
def _photos() -> list[Image.Image]:
    """Backgrounds, from the files that lie in scikit-image's wheel."""
    folder = importlib.resources.files("skimage") / "data"
    photos = []
    for name in PHOTOS:
        if not (folder / name).is_file():
            raise ImportError(f"scikit-image: data/{name} is not in the installed package")
        with (folder / name).open("rb") as file:
            photos.append(Image.open(file).convert("RGB"))
    return photos


def _choices(name: str, names: list[str]) -> list[Sprite]:
    """Sprites that show a class and no other class that is not in the scene."""
    return [s for s in catalogue() if name in s.classes and set(s.classes) <= set(names)]


def _background(rng: np.random.Generator, size: int, style: SceneStyle) -> Image.Image:
    """Crop a photo at random and fade it towards a random colour."""
    photo = _photos()[rng.integers(len(PHOTOS))]
    side = int(rng.uniform(0.25, 0.6) * min(photo.size))
    left, top = (int(rng.integers(0, extent - side + 1)) for extent in photo.size)
    crop = photo.resize(
        (size, size), Image.Resampling.BILINEAR, (left, top, left + side, top + side)
    )
    colour = tuple(int(v) for v in rng.integers(90, 256, 3))
    return Image.blend(crop, Image.new("RGB", crop.size, colour), rng.uniform(*style.fade))


def _object(
    rng: np.random.Generator, choices: list[Sprite], size: int, style: SceneStyle
) -> Image.Image:
    """Scale, mirror, turn, recolour, cut and fade one sprite of a class."""
    image = choices[rng.integers(len(choices))].image
    sprite = Image.new("RGBA", (SIDE, SIDE))
    sprite.paste(image, ((SIDE - image.width) // 2, (SIDE - image.height) // 2))
    side = max(8, round(rng.uniform(*style.scale) * size))
    if rng.random() < 0.5:
        sprite = sprite.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    angle = rng.uniform(-style.rotation, style.rotation)
    sprite = sprite.rotate(angle, Image.Resampling.BILINEAR)
    sprite = sprite.resize((side, side), Image.Resampling.BOX)
    colours, opacity = sprite.convert("RGB"), np.array(sprite.getchannel("A"), dtype=np.float64)
    colours = ImageEnhance.Color(colours).enhance(
        0.0 if rng.random() < style.grey else rng.uniform(0.4, 1.3)
    )
    colours = ImageEnhance.Brightness(colours).enhance(rng.uniform(0.6, 1.3))
    cut = int(rng.uniform(0, style.occlusion) * side)
    edge = rng.integers(4)
    rows = [slice(0, cut), slice(side - cut, side), slice(None), slice(None)][edge]
    columns = [slice(None), slice(None), slice(0, cut), slice(side - cut, side)][edge]
    opacity[rows, columns] = 0
    opacity *= rng.uniform(*style.alpha)
    colours.putalpha(Image.fromarray(opacity.astype(np.uint8)))
    return colours
