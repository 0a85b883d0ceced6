"""Was the promise kept? Told from scores or saved files, by code that imports nothing attacked.

Plain Python, one image at a time: no line of it is shared with the package, so that an error there
cannot excuse itself here.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import references
import torch
from PIL import Image

MEASURES: dict[str, Callable[[list[float], list[bool], int], float]] = {
    "TkAcc": references.topk_accuracy,
    "P@k": references.precision,
    "AP@k": references.average_precision,
    "NDCG@k": references.ndcg,
}
ROUNDING = 1e-12  # two sums of the same float64 terms may differ by so much


@dataclass(frozen=True)
class Verdict:
    """What an attack did to one image.

    Attributes
    ----------
    excluded : bool
        At least delta of S are out of the top k.
    before, after : dict of str to float
        The measures on the clean scores and on the others.
    """

    excluded: bool
    before: dict[str, float]
    after: dict[str, float]

    def fell(self, tolerance: float = 0.0) -> list[str]:
        """Which measures are lower than before, by more than `tolerance`."""
        least = {name: value - tolerance - ROUNDING for name, value in self.before.items()}
        return [name for name, value in self.after.items() if value < least[name]]

    def kept(self, measures: Sequence[str] = tuple(MEASURES), tolerance: float = 0.0) -> bool:
        """Whether S is out and none of these measures fell."""
        return self.excluded and not set(self.fell(tolerance)) & set(measures)


def verdict(
    clean: Sequence[float],
    adversarial: Sequence[float],
    labels: Sequence[bool],
    specified: Sequence[bool],
    k: int,
    delta: int | None = None,
) -> Verdict:
    """Judge one image from its scores, each ``(C,)``; delta None: all of S."""
    clean, adversarial, labels, specified = (
        np.asarray(row).tolist() for row in (clean, adversarial, labels, specified)
    )
    inside = references.in_top_k(adversarial, k)
    out = sum(chosen and not seen for chosen, seen in zip(specified, inside, strict=True))
    wanted = sum(specified) if delta is None else delta
    before, after = (
        {name: measure(scores, labels, k) for name, measure in MEASURES.items()}
        for scores in (clean, adversarial)
    )
    return Verdict(out >= wanted, before, after)


def read_png(path: str | Path) -> np.ndarray:
    """Pixels of an 8-bit RGB PNG, float32 ``(3, H, W)``: n / 255."""
    with Image.open(path) as image:
        if image.format != "PNG" or image.mode != "RGB":
            raise ValueError(f"{path}: expected an RGB PNG, got {image.mode} {image.format}")
        pixels = np.asarray(image)
    return pixels.transpose(2, 0, 1).astype(np.float32) / np.float32(255)


def png_scores(
    model: Callable[[torch.Tensor], torch.Tensor], paths: Sequence[str | Path]
) -> np.ndarray:
    """Scores ``(N, C)`` of PNG files, each read and shown to the model alone."""
    rows = []
    with torch.no_grad():
        for path in paths:
            rows.append(model(torch.from_numpy(read_png(path)[None]))[0].float().cpu().numpy())
    return np.stack(rows)


def from_files(
    model: Callable[[torch.Tensor], torch.Tensor],
    paths: Sequence[str | Path],
    clean_scores: np.ndarray,
    labels: np.ndarray,
    specified: np.ndarray,
    k: int | Sequence[int],
    delta: Sequence[int] | None = None,
) -> list[Verdict]:
    """Judge saved files, one row an image; the clean scores ``(N, C)`` are the caller's."""
    n = len(paths)
    ks = np.broadcast_to(np.asarray(k), n).tolist()
    deltas = [None] * n if delta is None else np.broadcast_to(np.asarray(delta), n).tolist()
    rows = zip(clean_scores, png_scores(model, paths), labels, specified, ks, deltas, strict=True)
    return [verdict(*row) for row in rows]
