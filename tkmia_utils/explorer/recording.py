"""One attack on one image, step by step, as plain numbers and small pictures.

A recording is a dictionary that JSON can hold, so that the same one serves the widget, a page
without a kernel and the figure of a reader on paper.
"""

import base64
import json
import math
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tkmia_utils.condition import STOPS, Stop
from tkmia_utils.engine import AttackResult, Runtime, attack
from tkmia_utils.engine.advice import advice
from tkmia_utils.measures import MEASURES
from tkmia_utils.report.figures import look_of, magnification, magnified
from tkmia_utils.topk import ranks
from tkmia_utils.validation import is_int
from tkmia_utils.workspace import write_text

Recording = dict[str, Any]
MOST_PICTURES = 12
NEEDED = (
    *("id", "image", "classes", "relevant", "specified", "k", "method", "name", "stop", "bits"),
    *("settings", "reason", "result", "success", "logits", "ranks", "measures", "l2", "l2_paper"),
    *("factor", "size", "clean", "pictures", "advice"),
)


class Watched(torch.nn.Module):
    """A model that shows every batch to somebody before it looks at it itself.

    Parameters
    ----------
    model : torch.nn.Module or callable
        Images to logits; it stays in the mode in which it is.
    seen : callable
        Is given the images; what it raises ends the attack.
    """

    def __init__(
        self,
        model: Callable[[torch.Tensor], torch.Tensor],
        seen: Callable[[torch.Tensor], None],
    ) -> None:
        super().__init__()
        self.training = False  # this one alone: eval() would change the model
        self.model, self.seen = model, seen

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits of `x`."""
        self.seen(x.detach())
        return self.model(x)


def record(
    model: Callable[[torch.Tensor], torch.Tensor],
    image: torch.Tensor,
    labels: torch.Tensor,
    specified: torch.Tensor,
    k: int,
    *,
    image_name: str,
    classes: Sequence[str],
    method: str = "tkmia",
    stop: str | Stop = "excluded",
    bits: int | None = 8,
    max_iter: int = 100,
    lr: float = 1e-3,
    alpha: float = 1e-4,
    most: int = MOST_PICTURES,
    on_step: Callable[[int], None] | None = None,
) -> Recording:
    """Attack one image and keep what happened at every step.

    Parameters
    ----------
    model : torch.nn.Module or callable
        The victim, as for :func:`tkmia_utils.attack`.
    image : torch.Tensor
        float32 ``(3, H, W)`` in [0, 1].
    labels, specified : torch.Tensor
        Bool ``(C,)``: Y_p and S.
    k : int
        Of the top k.
    image_name : str
        What the image is called.
    classes : sequence of str
        C names.
    method, stop, bits, max_iter, lr, alpha
        As for :func:`tkmia_utils.attack`.
    most : int
        Of how many steps pictures are kept, at least 3; numbers are kept of all.
    on_step : callable, optional
        Is told the number of every step before it is taken. What it raises ends the attack.

    Returns
    -------
    dict
        The recording, see :func:`recording`.

    Raises
    ------
    ValueError
        As for :func:`tkmia_utils.attack`.
    """
    frames: list[torch.Tensor] = []

    def seen(x: torch.Tensor) -> None:
        if on_step is not None:
            on_step(len(frames))
        # whole grey levels need a byte each
        frame = x[0].cpu()
        frames.append(frame.clone() if bits is None else levels(frame))

    result = attack(
        Watched(model, seen), image[None], labels[None], specified[None], k, method=method,
        stop=stop, bits=bits, max_iter=max_iter, lr=lr, alpha=alpha, record=True,
        runtime=Runtime(slots=1),
    )  # fmt: skip
    return recording(result, frames, image, image_name=image_name, classes=classes, most=most)


def recording(
    result: AttackResult,
    frames: Sequence[torch.Tensor],
    clean: torch.Tensor,
    *,
    image_name: str,
    classes: Sequence[str],
    most: int = MOST_PICTURES,
) -> Recording:
    """Turn a recorded attack on one image into plain numbers and small pictures.

    Parameters
    ----------
    result : AttackResult
        Of one image, with its spec and ``record=True``.
    frames : sequence of torch.Tensor
        The images of its steps ``(3, H, W)``, step 0 first: float32 in [0, 1], or uint8.
    clean : torch.Tensor
        float32 ``(3, H, W)``: the image that was attacked, before any rounding.
    image_name : str
        What the image is called.
    classes : sequence of str
        C names.
    most : int
        Of how many steps pictures are kept, at least 3.

    Returns
    -------
    dict
        ``id`` (one a combination of settings), ``image``, ``classes``, ``relevant``, ``specified``
        (positions of labels), ``k``, ``method``, ``name``, ``stop``, ``bits``, ``settings``;
        ``reason`` and ``success`` of the end, ``result`` (the step whose image is given back);
        ``logits`` and ``ranks`` ``(T, C)``, ``measures`` (by name, T each), ``l2`` and ``l2_paper``
        (T norms, in [0, 1] and in [-1, 1] pixels); ``size`` (height, width), ``clean`` (the image)
        and ``pictures`` of some steps, which :func:`picture` reads: the ``image``, as its
        difference from the clean one, and the ``perturbation`` times ``factor`` around mid-grey;
        ``advice``: warnings.

    Raises
    ------
    ValueError
        A result of more images, or without trace or spec; fewer frames than steps; logits that are
        not finite on the clean image; or not C names.
    """
    if len(result) != 1 or result.trace is None or result.spec is None:
        raise ValueError("result: expected a recorded attack (record=True) on one image")
    if not is_int(most) or most < 3:
        raise ValueError(f"most: expected an int >= 3, got {most!r}")
    spec, logits = result.spec, result.trace.logits[0]
    if len(classes) != logits.shape[1]:
        raise ValueError(f"classes: expected {logits.shape[1]} names, got {len(classes)}")
    finite = logits.isfinite().all(-1).long().cumprod(0)  # up to the first that is not
    steps = min(int(finite.sum()), int(result.iterations) + 1)
    if not steps:
        raise ValueError("result: the logits of the clean image are not finite")
    if len(frames) < steps:
        raise ValueError(f"frames: expected {steps}, one a step, got {len(frames)}")
    logits, k = logits[:steps], int(spec.k)
    labels = spec.labels.expand(steps, -1)
    l2 = result.trace.l2[0, :steps]
    # an attack that goes on after a success gives back an earlier step
    apart = (logits - result.adversarial_logits).abs().amax(-1) + (l2 - result.l2).abs()
    apart = apart.nan_to_num(nan=math.inf)  # one that broke off gives back no step that is shown
    at = int((apart == apart.min()).nonzero()[-1])
    kept = chosen(steps, at, most=most)
    images = {step: unit(frames[step]) for step in kept}
    start = clean if result.bits is None else unit(levels(clean))
    # of an image of whole grey levels most values may be as they were: the others have to be seen
    moved = images[at] != start
    factor = magnification(start[moved], images[at][moved]) if moved.any() else 1
    stop = stop_name(result.stop)
    hidden = [classes[c] for c in spec.specified[0].nonzero().flatten().tolist()]
    bits = "float" if result.bits is None else f"{result.bits} bits"
    return {
        "id": " / ".join([image_name, "+".join(hidden), f"k={k}", result.method, stop, bits]),
        "image": image_name,
        "classes": list(classes),
        "relevant": spec.labels[0].nonzero().flatten().tolist(),
        "specified": spec.specified[0].nonzero().flatten().tolist(),
        "k": k,
        "method": result.method,
        "name": look_of(result.method).name,
        "stop": stop,
        "bits": result.bits,
        "settings": {
            name: short(float(getattr(spec, name))) for name in ("max_iter", "lr", "alpha")
        },
        "reason": result.reasons[0],
        "success": bool(result.success),
        "result": at,
        "logits": [[short(value) for value in row] for row in logits.tolist()],
        "ranks": ranks(logits).tolist(),
        "measures": {
            name: [short(value) for value in f(logits, labels, k).tolist()]
            for name, f in MEASURES.items()
        },
        "l2": [short(value) for value in l2.tolist()],
        "l2_paper": [short(2 * value) for value in l2.tolist()],
        "factor": factor,
        "size": list(clean.shape[1:]),
        "clean": packed(levels(clean)),
        "pictures": [
            {
                "step": step,
                "image": packed(levels(image) - levels(clean)),  # of bytes: modulo 256
                "perturbation": packed(levels(magnified(start, image, factor=factor))),
            }
            for step, image in images.items()
        ],
        "advice": list(advice(result)),
    }


def chosen(steps: int, result: int, *, most: int) -> list[int]:
    """Steps of which pictures are kept: first, last, the one given back, and some between."""
    even = np.linspace(0, steps - 1, num=min(steps, most - 1)).round().astype(int)
    return sorted({*even.tolist(), result})


def stop_name(stop: Stop) -> str:
    """The name of a stop, or what it asks for."""
    return next((name for name, known in STOPS.items() if known == stop), str(stop))


def levels(image: torch.Tensor) -> torch.Tensor:
    """Grey levels 0 to 255 of an image in [0, 1]."""
    return (image * 255).round().clamp(0, 255).to(torch.uint8)


def unit(image: torch.Tensor) -> torch.Tensor:
    """An image in [0, 1], of grey levels or as it is."""
    return image.float() / 255 if image.dtype == torch.uint8 else image


def packed(image: torch.Tensor) -> str:
    """Bytes of an image ``(3, H, W)``, pixel by pixel, compressed, in base64."""
    pixels = np.ascontiguousarray(image.permute(1, 2, 0).numpy())
    return base64.b64encode(zlib.compress(pixels.tobytes(), 9)).decode()


def unpacked(text: str, size: Sequence[int]) -> torch.Tensor:
    """What :func:`packed` wrote: uint8 ``(3, H, W)``."""
    pixels = np.frombuffer(zlib.decompress(base64.b64decode(text)), np.uint8)
    return torch.from_numpy(pixels.reshape(*size, 3).copy()).permute(2, 0, 1)


def picture(one: Recording, step: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Image and magnified perturbation of a step: float32 ``(3, H, W)``, n/255.

    Raises
    ------
    ValueError
        No pictures were kept of that step.
    """
    kept = next((shown for shown in one["pictures"] if shown["step"] == step), None)
    if kept is None:
        there = [shown["step"] for shown in one["pictures"]]
        raise ValueError(f"step: expected one of {there}, got {step}")
    clean, difference, perturbation = (
        unpacked(text, one["size"]) for text in (one["clean"], kept["image"], kept["perturbation"])
    )
    return unit(clean + difference), unit(perturbation)


def short(value: float) -> float | int:
    """A number with six digits, because a page is to stay small."""
    rounded = float(f"{value:.6g}")
    return int(rounded) if rounded.is_integer() and math.isfinite(rounded) else rounded


def save(recordings: Sequence[Recording], path: str | Path) -> Path:
    """Write recordings as one JSON file; :func:`load` reads it."""
    text = json.dumps(checked(recordings), ensure_ascii=False, separators=(",", ":"))
    return write_text(path, text + "\n")


def load(path: str | Path) -> list[Recording]:
    """Read what :func:`save` wrote.

    Raises
    ------
    ValueError
        There is no such file, or it holds something else.
    """
    try:
        found = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"path: {path} cannot be read as recordings ({error})") from None
    return checked(found)


def checked(recordings: object) -> list[Recording]:
    """Recordings as a list, one an ``id``: of two with the same settings the later one counts.

    Raises
    ------
    ValueError
        Something else than a list of recordings.
    """
    if not isinstance(recordings, Sequence) or isinstance(recordings, str):
        raise ValueError(f"recordings: expected a list, got {type(recordings).__name__}")
    found: dict[str, Recording] = {}
    for one in recordings:
        missing = [n for n in NEEDED if n not in one] if isinstance(one, Mapping) else ["mapping"]
        if missing:
            raise ValueError(f"recordings: expected what record() returns; no {missing[0]!r}")
        found[str(one["id"])] = dict(one)
    return list(found.values())
