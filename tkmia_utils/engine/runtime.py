"""How an attack is run, apart from what it does: device, batch, arithmetic, files, progress."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path

import torch

from tkmia_utils.engine.forward import PRECISIONS
from tkmia_utils.validation import check_one_of


@dataclass(frozen=True, kw_only=True)
class Runtime:
    """Settings of the engine; an attack's science does not depend on them.

    Attributes
    ----------
    device : str or torch.device
        "auto" is where the model's parameters are.
    slots : int, optional
        Batch size B of the engine, default min(N, 16), on CUDA min(N, 64). At a fixed B results
        are equal to the bit whatever the order and the neighbours; a short queue is padded to B.
        The attacks keep that promise by construction (:mod:`tkmia_utils.exact`); of the model it
        asks that a row's logits and gradient do not depend on the row's place in the batch. On
        CPUs torch's convolutions, linear layers, ReLU and pooling were seen to do so; its sigmoid,
        SiLU, ELU, softplus and Mish do not on AVX2, where last bits then depend on the place.
        Another CPU, number of threads or version of torch rounds differently.
    check_every : int
        Ask the device for finished images only every so many iterations; changes no result.
    precision : {"fp32", "tf32", "bf16"}
        Of the victim's arithmetic. "tf32" changes nothing but matrix products and convolutions on
        CUDA, and "fp32" switches TF32 off there; "bf16" is torch's autocast. Not run on a GPU yet:
        on CUDA neither these nor `compile` were tried, only on the CPU.
    compile : bool
        Run the victim through ``torch.compile``. With it, and with a precision other than "fp32",
        an image that seems to succeed is checked in fp32 without compilation, and the attack on it
        ends only if that confirms the success. All logits returned are of that kind.
    fold, channels_last : bool, optional
        Run a copy of the victim with batch normalisation folded into its convolutions, and with
        channels last in memory. Both compute the same function in fp32, in another order. Default:
        what a short trial finds quickest, if the attack is long (:mod:`tkmia_utils.engine.trial`);
        the result says so (:attr:`AttackResult.trial`). Every image that leaves its slot is looked
        at again on the victim itself, and attacked again there if that sees no success. All logits
        returned are the victim's own.
    keep_images : bool
        False: do not return the adversarial images, so that memory does not grow with N.
    files : bool
        Show the victim every finished image once more, rounded as an 8-bit file gives it back, and
        keep these logits as ``png_logits``: in fp32, a batch of B at a time.
    checkpoint : str or Path, optional
        File in which the state is kept while the attack runs; files beside it hold the finished
        rows. After a kill, the same call goes on from there, ends with the same bits and removes
        the files. A call is the same if these are: labels, settings, method, slots, arithmetic,
        torch's version, the model's architecture and weights (of a plain function only its name is
        compared) and the images (of a source its length, its first image, those in the slots and,
        if it has ``digests``, the hashes of all are compared). Not with ``record=True``.
    checkpoint_every : int
        Iterations between two states; changes no result.
    progress : bool
        Show images done, success rate and image-iterations a second; never where the environment
        variable ``CI`` is set.

    Raises
    ------
    ValueError
        A setting of the wrong type or range; the message begins with its name.
    """

    device: str | torch.device = "auto"
    slots: int | None = None
    check_every: int = 1
    precision: str = "fp32"
    compile: bool = False
    fold: bool | None = None
    channels_last: bool | None = None
    keep_images: bool = True
    files: bool = False
    checkpoint: str | Path | None = None
    checkpoint_every: int = 200
    progress: bool = False

    def __post_init__(self) -> None:
        """Refuse what cannot be."""
        self.wanted_device()
        check_one_of(self.precision, PRECISIONS, name="precision")
        for name in ("slots", "check_every", "checkpoint_every"):
            value = getattr(self, name)
            whole = isinstance(value, int) and not isinstance(value, bool)
            if not (whole and value >= 1) and (name, value) != ("slots", None):
                raise ValueError(f"{name}: expected an int >= 1, got {value!r}")
        for name in ("fold", "channels_last"):
            value = getattr(self, name)
            if not (value is None or isinstance(value, bool)):
                raise ValueError(f"{name}: expected True, False or None, got {value!r}")
        for name in ("compile", "keep_images", "files", "progress"):
            if not isinstance(getattr(self, name), bool):
                raise ValueError(f"{name}: expected True or False, got {getattr(self, name)!r}")
        if self.checkpoint is not None and not isinstance(self.checkpoint, str | Path):
            raise ValueError(f"checkpoint: expected a path, got {self.checkpoint!r}")

    def wanted_device(self) -> torch.device | None:
        """The device asked for; None for "auto"."""
        try:
            return None if self.device == "auto" else torch.device(self.device)
        except (RuntimeError, TypeError) as error:
            raise ValueError(
                f"device: expected 'auto' or a torch device, got {self.device!r}"
            ) from error


def split_settings(settings: Mapping[str, object]) -> tuple[dict[str, object], dict[str, object]]:
    """Settings of an attack as those of :class:`Runtime`, and all others.

    Parameters
    ----------
    settings : mapping
        By name, both kinds mixed.

    Returns
    -------
    runtime, others : dict
        ``attack(..., runtime=Runtime(**runtime), **others)`` is the call.
    """
    names = {f.name for f in fields(Runtime)}
    runtime = {name: value for name, value in settings.items() if name in names}
    return runtime, {name: value for name, value in settings.items() if name not in names}
