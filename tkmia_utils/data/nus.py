"""NUS-WIDE: its 81 concepts, the paper's types over them (Table 8), and its reader."""

from hashlib import blake2b
from itertools import chain
from pathlib import Path

import numpy as np
import torch

from tkmia_utils.data.base import MultiLabelDataset
from tkmia_utils.data.files import assemble, check_choice, require

CLASSES: tuple[str, ...] = tuple(
    "airport animal beach bear birds boats book bridge buildings cars castle cat cityscape clouds "
    "computer coral cow dancing dog earthquake elk fire fish flags flowers food fox frost garden "
    "glacier grass harbor horses house lake leaf map military moon mountain nighttime ocean "
    "person plane plants police protest railroad rainbow reflection road rocks running sand sign "
    "sky snow soccer sports statue street sun sunset surf swimmers tattoo temple tiger tower town "
    "toy train tree valley vehicle water waterfall wedding whales window zebra".split()
)
"""The concepts in alphabetical order, which is that of ``Concepts81.txt``."""

TYPES: dict[str, tuple[str, ...]] = {
    "Animals": tuple(
        "elk bear cat zebra fish whales dog cow horses fox birds tiger animal".split()
    ),
    "Buildings": ("bridge", "statue", "tower", "temple", "buildings", "house", "castle"),
    "Landscape": tuple(
        "waterfall rainbow lake sunset moon ocean beach town glacier sun clouds valley cityscape "
        "frost sky harbor garden earthquake surf mountain nighttime".split()
    ),
    "Traffic": tuple("plane airport train boats cars road vehicle street railroad".split()),
}
"""Table 8, by the concepts' own names: the table's "horse" is the concept ``horses``."""

PAPER_SPLIT = (103_990, 69_706)
"""Images for training and for testing in the paper's random division (Appendix B.1)."""

SOURCE = (
    "Lists and labels come in the archives ImageList, Groundtruth and ConceptsList of NUS-WIDE's "
    "page at the National University of Singapore, photos in the archive Flickr on request there. "
    "root is the folder that holds ImageList, Groundtruth (with TrainTestLabels), Concepts81.txt "
    "(or ConceptsList) and Flickr; photos elsewhere: give images"
)


def nus(
    root: str | Path,
    split: str = "train",
    *,
    partition: str = "official",
    seed: int = 0,
    size: int = 224,
    images: str | Path | None = None,
    on_error: str = "raise",
    preload: bool = False,
    cache: str | Path | None = None,
) -> MultiLabelDataset:
    """Read NUS-WIDE in its official layout; images without any label are left out.

    Reads ``ImageList/{Train,Test}Imagelist.txt``, ``Concepts81.txt`` and
    ``Groundtruth/TrainTestLabels/Labels_{concept}_{Train,Test}.txt``.

    Parameters
    ----------
    root : str or Path
        The folder that holds all of these.
    split : {"train", "val"}
        ``"val"`` is what NUS-WIDE calls test.
    partition : {"official", "paper"}
        ``"paper"`` divides all labelled images at random, in the proportion of `PAPER_SPLIT`. The
        paper's own division was not published. Each image's side depends on `seed` and its id
        alone, so it stays where it is when other images are missing.
    seed : int
        Of the random division.
    size : int
        Pixels a side; the paper's are 224. The whole photo is squashed.
    images : str or Path, optional
        The folder the names in the image lists start from; default: ``root/Flickr``.
    on_error : {"raise", "skip"}
        What to do about photos that are missing, as many are that Flickr no longer has;
        ``"skip"`` names the first few in one warning.
    preload : bool
        Decode all photos now and keep them, ``3 * size**2`` bytes each; else at each use.
    cache : str or Path, optional
        Folder that remembers the files' hashes.

    Returns
    -------
    MultiLabelDataset
        Its ids are the names in the image lists, with forward slashes.

    Raises
    ------
    ValueError
        Missing files, all in one message that says where they come from and belong; concepts that
        are not the 81; a label file that does not hold one 0 or 1 an image. Names the file.
    """
    check_choice(
        split=(split, ("train", "val")),
        partition=(partition, ("official", "paper")),
    )
    if isinstance(seed, bool) or not isinstance(seed, int):
        raise ValueError(f"seed: expected an int, got {seed!r}")
    root = Path(root)
    own = "Train" if split == "train" else "Test"
    halves = (own,) if partition == "official" else ("Train", "Test")
    concepts = root / "Concepts81.txt"
    if not concepts.is_file() and (root / "ConceptsList").is_dir():
        concepts = root / "ConceptsList" / "Concepts81.txt"
    lists = {half: root / "ImageList" / f"{half}Imagelist.txt" for half in halves}
    truth = {half: [_label_file(root, name, half) for name in CLASSES] for half in halves}
    require([concepts, *lists.values(), *chain(*truth.values())], source=SOURCE)
    named = concepts.read_text(encoding="utf-8").split()
    if sorted(named) != list(CLASSES):
        odd = sorted(set(named) ^ set(CLASSES)) or "repeated names"
        raise ValueError(f"{concepts}: expected NUS-WIDE's 81 concepts, each once; differs: {odd}")

    names = {half: _names(lists[half]) for half in halves}
    ids = list(chain(*names.values()))
    labels = torch.cat([_labels(truth[half], len(names[half])) for half in halves])
    wanted = labels.any(1)
    if partition == "paper":
        wanted &= torch.tensor([_in_training(name, seed) == (split == "train") for name in ids])
    kept = wanted.nonzero().flatten().tolist()
    folder = root / "Flickr" if images is None else Path(images)
    how = "official split" if partition == "official" else f"random division {seed}"
    return assemble(
        name="nus",
        split=split,
        classes=CLASSES,
        labels=labels[kept],
        ids=tuple(ids[i] for i in kept),
        paths=[folder / ids[i] for i in kept],
        size=size,
        on_error=on_error,
        preload=preload,
        cache=cache,
        source=SOURCE,
        card=f"NUS-WIDE, {split} of the {how}: real photos, each squashed whole to {size} x {size} "
        "pixels; the labels are its 81 concepts, images without any left out.",
    )


def _label_file(root: Path, concept: str, half: str) -> Path:
    return root / "Groundtruth" / "TrainTestLabels" / f"Labels_{concept}_{half}.txt"


def _names(path: Path) -> list[str]:
    """Image names of one list, which is written with backslashes."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return [line.strip().replace("\\", "/") for line in lines if line.strip()]


def _labels(files: list[Path], count: int) -> torch.Tensor:
    """Bool ``(count, 81)`` from one file a concept."""
    labels = np.empty((count, len(files)), dtype=bool)
    for column, path in enumerate(files):
        bits = np.frombuffer(path.read_bytes().translate(None, b" \t\r\n"), dtype=np.uint8)
        if len(bits) != count or not np.isin(bits, (ord("0"), ord("1"))).all():
            raise ValueError(f"{path}: expected {count} lines of 0 or 1, one an image of the list")
        labels[:, column] = bits == ord("1")
    return torch.from_numpy(labels)


def _in_training(name: str, seed: int) -> bool:
    """The side of one image in the random division, whatever the other images are."""
    draw = int.from_bytes(blake2b(f"{seed}:{name}".encode(), digest_size=8).digest(), "big")
    return draw * sum(PAPER_SPLIT) < PAPER_SPLIT[0] << 64
