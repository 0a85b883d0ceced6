"""The victim's forward pass: in the arithmetic asked for, and in fp32 eager to check its claims."""

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from tkmia_utils.engine.folding import Layout

PRECISIONS = ("fp32", "tf32", "bf16")


class Forward:
    """A victim as the engine calls it.

    Parameters
    ----------
    model : torch.nn.Module or callable
        Maps images ``(B, 3, H, W)`` to logits ``(B, C)``; neither moved nor changed.
    classes : int
        C.
    device : torch.device
        Where it is.
    precision : {"fp32", "tf32", "bf16"}
        See :func:`tkmia_utils.attack`.
    compile : bool
        Run a compiled copy; :meth:`prepare` makes it.
    layout : Layout
        Run a copy with layers folded or channels last; :meth:`prepare` makes it.
    """

    def __init__(
        self,
        model: Callable[[torch.Tensor], torch.Tensor],
        classes: int,
        *,
        device: torch.device,
        precision: str = "fp32",
        compile: bool = False,
        layout: Layout = Layout(),  # noqa: B008  (frozen, and so shared without harm)
    ) -> None:
        self.model, self.fast = model, model
        self.classes, self.device, self.compile = classes, device, compile
        self.precision, self.layout = precision, layout

    @property
    def exact(self) -> bool:
        """Is it fp32 eager already, so that what it says needs no second look?"""
        return self.precision == "fp32" and not self.compile and self.layout.plain

    @property
    def close(self) -> bool:
        """Is it fp32 eager in another layout, which differs by rounding alone?"""
        return self.precision == "fp32" and not self.compile and not self.layout.plain

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Logits of `x`, with the graph that leads back to it."""
        bf16 = self.precision == "bf16"
        with torch.enable_grad(), torch.autocast(self.device.type, torch.bfloat16, enabled=bf16):
            logits: torch.Tensor = self._run(self.fast, x)
        self._check(logits, x)
        if not logits.requires_grad:
            why = ": leave torch.inference_mode()" if torch.is_inference_mode_enabled() else ""
            raise ValueError(f"model: its logits do not depend on the images (no gradient){why}")
        return logits

    def eager(self, x: torch.Tensor) -> torch.Tensor:
        """Logits of `x` in fp32 eager, without a graph."""
        with torch.no_grad(), arithmetic("fp32", self.device):
            logits: torch.Tensor = self._run(self.model, x.contiguous())
        self._check(logits, x)
        return logits.float()

    def _run(self, model: Callable[[torch.Tensor], Any], x: torch.Tensor) -> Any:
        """What the model returns; if it cannot take float32, that is said."""
        try:
            return model(x)
        except RuntimeError as error:
            weights = model.parameters() if isinstance(model, torch.nn.Module) else ()
            kinds = {p.dtype for p in weights if p.is_floating_point()} - {torch.float32}
            if not kinds:
                raise
            raise ValueError(
                f"model: expected one that takes float32 images, but its parameters are "
                f"{', '.join(sorted(map(str, kinds)))} and it fails on them ({error}); "
                "model.float() makes them float32"
            ) from error

    def prepare(self, x: torch.Tensor) -> None:
        """Make the copy that is run, if another than the model; it is shown images `x`.

        Raises
        ------
        ValueError
            The model cannot be copied, or it or its backward pass does not compile.
        """
        model = self.model
        if not self.layout.plain:
            self.eager(x)  # what is wrong with the model itself is said as it is
            assert isinstance(model, torch.nn.Module), "the trial refuses functions"
            try:
                self.fast = model = self.layout.of(model, x)
            except Exception as error:  # whatever a model's own copy raises
                raise ValueError(
                    f"fold, channels_last: this model cannot be copied ({error})"
                ) from error
        if not self.compile:
            return
        self.eager(x)
        try:
            if isinstance(model, torch.nn.Module):
                # a compiled backward pass makes all gradients it might be asked for: leave it one
                model = copy.deepcopy(model).requires_grad_(False)
            self.fast = torch.compile(model, dynamic=False)
            x = x.detach().clone().requires_grad_()
            logits = self(x)
            torch.autograd.grad(logits, x, torch.zeros_like(logits))
        except Exception as error:  # compilers fail in too many ways to name
            said = (str(error).strip().splitlines() or [""])[0]
            raise ValueError(
                f"compile: this model does not compile here ({type(error).__name__}: {said}); "
                "leave compile=False"
            ) from error

    def _check(self, logits: object, x: torch.Tensor) -> None:
        wanted = (len(x), self.classes)
        if not isinstance(logits, torch.Tensor) or tuple(logits.shape) != wanted:
            got = tuple(logits.shape) if isinstance(logits, torch.Tensor) else type(logits).__name__
            raise ValueError(f"model: expected logits of shape {wanted}, got {got}")


@contextmanager
def arithmetic(precision: str, device: torch.device) -> Iterator[None]:
    """Compute in fp32, or with TF32 where `precision` is "tf32", whatever the caller had set."""
    off = torch.autocast(device.type, torch.bfloat16, enabled=False)
    with off, tf32(precision == "tf32", device):
        yield


@contextmanager
def tf32(allowed: bool, device: torch.device) -> Iterator[None]:
    """Allow TF32 in matrix products and convolutions of a CUDA device, or forbid it, for a while.

    Parameters
    ----------
    allowed : bool
        Torch's own default is neither: convolutions may, matrix products may not.
    device : torch.device
        On any other device nothing happens.
    """
    if device.type != "cuda":
        yield
        return
    backends: Any = torch.backends  # its attributes are made at run time
    homes = (backends.cuda.matmul, backends.cudnn)
    kinds = (backends.cuda.matmul, backends.cudnn.conv, backends.cudnn.rnn)
    before, said = [_allowed(home) for home in homes], [kind.fp32_precision for kind in kinds]
    try:
        # torch has an old and a new way to say it, and complains unless both say the same
        for home in homes:
            home.allow_tf32 = allowed
        for kind in kinds:
            kind.fp32_precision = "tf32" if allowed else "ieee"
        yield
    finally:
        for home, value in zip(homes, before, strict=True):
            if value is not None:
                home.allow_tf32 = value
        for kind, value in zip(kinds, said, strict=True):
            kind.fp32_precision = value


def _allowed(home: Any) -> bool | None:
    """What the old way says; None where only the new one was used."""
    try:
        return bool(home.allow_tf32)
    except RuntimeError:
        return None
