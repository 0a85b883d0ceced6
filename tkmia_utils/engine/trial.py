"""A short trial at the start of a long attack: which layout of the victim is quickest here?

The victim as it was given is timed against copies with batch normalisation folded into the
convolutions and with channels last (:class:`~tkmia_utils.engine.folding.Layout`). These compute
the same function in fp32, in another order of operations. A copy is taken only if it pays, and if
its logits and its gradient are the victim's up to rounding; its successes are checked on the victim
itself (:mod:`tkmia_utils.engine.claims`).
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from tkmia_utils.engine.folding import Layout

LONG, MANY = 200, 4
"""A trial is worth its time where an attack may take so many passes, and images so many batches."""
TINY = 2e-3
"""Seconds: what is quicker than that for a full batch is left as it is."""
ROUNDS = 2
"""Passes of each contestant that are timed."""
PAYS = 1.05
"""A copy must be so many times as fast."""
NEAR, ALIKE = 1e-4, 0.05
"""Largest difference of logits over their size, and of gradients in norm: those of rounding."""


@dataclass(frozen=True)
class Trial:
    """What a trial found.

    Attributes
    ----------
    layout : Layout
        The quickest.
    gain : float
        How many times as fast as the victim as it was given; 1 for that itself.
    seconds : float
        The trial took.
    """

    layout: Layout
    gain: float
    seconds: float

    def __str__(self) -> str:
        """In words."""
        if self.layout.plain:
            return f"as given; nothing was faster in a trial of {self.seconds:.1f} s"
        return f"{self.layout}: {self.gain:.2f} times as fast in a trial of {self.seconds:.1f} s"


# by model, so that many short calls on one victim try once; a model that is gone leaves no trace
_TRIALS: "WeakKeyDictionary[nn.Module, dict[tuple[object, ...], Trial]]" = WeakKeyDictionary()


def candidates(model: nn.Module, *, fold: bool | None, channels_last: bool | None) -> list[Layout]:
    """Layouts that are left open by the settings (None) and the model, most changes first."""
    if fold is None and not any(isinstance(module, _BatchNorm) for module in model.modules()):
        fold = False  # there is nothing to fold
    folds = (True, False) if fold is None else (fold,)
    lasts = (True, False) if channels_last is None else (channels_last,)
    return [Layout(f, last) for f in folds for last in lasts]


def choose(
    model: Callable[[torch.Tensor], torch.Tensor],
    images: torch.Tensor,
    *,
    fold: bool | None,
    channels_last: bool | None,
    rows: int,
    passes: float,
) -> tuple[Layout, Trial | None]:
    """The layout in which a victim is run, and the trial that says so.

    Parameters
    ----------
    model : torch.nn.Module or callable
        Maps images to logits. One that is no module is never changed.
    images : torch.Tensor
        ``(B, 3, H, W)`` in [0, 1], a full batch on the model's device.
    fold, channels_last : bool or None
        None: whichever is faster, if the attack is long; else neither.
    rows : int
        Images in the queue.
    passes : float
        Passes of a full batch that the attack takes at most.

    Returns
    -------
    layout : Layout
        As asked for, or the quickest.
    trial : Trial or None
        None where nothing was tried.

    Raises
    ------
    ValueError
        A layout is asked for and the model is no module, or cannot be copied.
    """
    asked = Layout(bool(fold), bool(channels_last))
    if not isinstance(model, nn.Module):
        if asked.plain:
            return asked, None
        raise ValueError("fold, channels_last: expected a torch.nn.Module, the model is a function")
    left = candidates(model, fold=fold, channels_last=channels_last)
    if len(left) == 1 or passes < LONG or rows < MANY * len(images):
        return asked, None
    key = (tuple(images.shape), images.device, torch.get_num_threads(), fold, channels_last)
    known = _TRIALS.setdefault(model, {})
    if key not in known:
        try:
            _pass(model, images)
            if min(_timed(((model, images),) * ROUNDS)) < TINY:
                return asked, None
            known[key] = compare(model, images, left, least=asked)
        except Exception:  # the attack itself says what is wrong with the model
            return asked, None
    return known[key].layout, known[key]


def compare(
    model: nn.Module, images: torch.Tensor, layouts: list[Layout], *, least: Layout
) -> Trial:
    """Time a victim in several layouts, in turns; the first that pays is taken.

    Parameters
    ----------
    model, images
        As for :func:`choose`.
    layouts : list of Layout
        In the order in which they are tried.
    least : Layout
        What the others are compared with, and what is taken if none pays.
    """
    begun = time.perf_counter()

    def took() -> float:
        return time.perf_counter() - begun

    base = model if least.plain else least.of(model, images)
    wanted = _pass(model, images.contiguous())
    for layout in layouts:
        if layout == least:
            continue
        try:
            fast = layout.of(model, images)
            found = _pass(fast, _laid(images, layout))
        except Exception:  # what cannot be copied or folded, for any reason, is run as it is
            continue
        if not alike(wanted, found):
            continue
        gain = _gain((base, _laid(images, least)), (fast, _laid(images, layout)))
        if gain >= PAYS:
            return Trial(layout, gain, took())
    return Trial(least, 1.0, took())


def alike(wanted: tuple[torch.Tensor, torch.Tensor], found: tuple[torch.Tensor, ...]) -> bool:
    """Are logits and gradients the same up to rounding? NaN is like nothing."""
    (logits, slope), (other, other_slope) = wanted, found
    off = (logits - other).abs().max() <= NEAR * (1 + logits.abs().max())
    turned = (slope - other_slope).norm() <= ALIKE * slope.norm()
    return bool(off & turned)


def _laid(images: torch.Tensor, layout: Layout) -> torch.Tensor:
    return images.contiguous(memory_format=layout.memory_format)


def _pass(model: nn.Module, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits, and the gradient at the images of every image's highest one less its lowest."""
    with torch.enable_grad():
        x = images.detach().requires_grad_()
        logits = model(x)
        (slope,) = torch.autograd.grad((logits.amax(1) - logits.amin(1)).sum(), x)
    return logits.detach(), slope


def _gain(*contestants: tuple[nn.Module, torch.Tensor]) -> float:
    """How many times as fast the second is as the first: the best of some rounds in turns."""
    best = [float("inf")] * len(contestants)
    for _ in range(ROUNDS):
        for i, seconds in enumerate(_timed(contestants)):
            best[i] = min(best[i], seconds)
    return best[0] / best[1]


def _timed(contestants: tuple[tuple[nn.Module, torch.Tensor], ...]) -> Iterator[float]:
    for model, images in contestants:
        begun = time.perf_counter()
        _pass(model, images)
        if images.device.type == "cuda":
            torch.cuda.synchronize(images.device)
        yield time.perf_counter() - begun
