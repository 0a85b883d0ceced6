"""The same classifier in fewer operations: batch normalisation folded, channels last in memory."""

import copy
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.fusion import fuse_conv_bn_weights

PLAIN_NORMS = (nn.BatchNorm2d, nn.SyncBatchNorm)


@dataclass(frozen=True)
class Layout:
    """How a copy of the victim differs from the victim as it was given.

    Attributes
    ----------
    fold : bool
        Batch normalisation is folded into the convolution before it.
    channels_last : bool
        Images and weights lie in memory with their channels last.
    """

    fold: bool = False
    channels_last: bool = False

    def __str__(self) -> str:
        """In words."""
        said = ["batch normalisation folded"] * self.fold + ["channels last"] * self.channels_last
        return " and ".join(said) or "as given"

    @property
    def plain(self) -> bool:
        """Is it the victim itself?"""
        return self == Layout()

    @property
    def memory_format(self) -> torch.memory_format:
        """Of images in the slots."""
        return torch.channels_last if self.channels_last else torch.contiguous_format

    def of(self, model: nn.Module, images: torch.Tensor) -> nn.Module:
        """A copy of `model` of this kind, without gradients of weights; the model stays as it is.

        Parameters
        ----------
        model : torch.nn.Module
            In evaluation mode.
        images : torch.Tensor
            ``(B, 3, H, W)`` to show it, to see which layer follows which.
        """
        fast = copy.deepcopy(model).requires_grad_(False)
        if self.fold:
            fold(fast, images)
        return fast.to(memory_format=torch.channels_last) if self.channels_last else fast


def fold(model: nn.Module, images: torch.Tensor) -> int:
    """Fold batch normalisations into the convolutions whose output they take, in place.

    In evaluation mode batch normalisation scales and shifts every channel by fixed numbers, which
    weights and bias of the convolution before it can do as well. Which convolution that is, is
    seen in one forward pass. That nothing else reads its output in between is not seen there:
    whoever uses the folded model compares it with the model (:mod:`tkmia_utils.engine.trial`).

    Parameters
    ----------
    model : torch.nn.Module
        In evaluation mode.
    images : torch.Tensor
        ``(B, 3, H, W)`` to show it.

    Returns
    -------
    int
        How many were folded.
    """
    done = 0
    for conv, norm in _followed(model, images):
        rest = _rest(norm)
        if rest is None or norm.running_mean is None or norm.running_var is None:
            continue
        conv.weight, conv.bias = fuse_conv_bn_weights(
            conv.weight, conv.bias,
            norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias,
        )  # fmt: skip
        for name, module in list(model.named_modules(remove_duplicate=False)):
            if module is norm:
                parent, _, last = name.rpartition(".")
                setattr(model.get_submodule(parent), last, rest)
        done += 1
    return done


def _followed(model: nn.Module, images: torch.Tensor) -> list[tuple[nn.Conv2d, _BatchNorm]]:
    """Convolutions with the batch normalisation that takes their output; each is called once."""
    calls: dict[nn.Module, int] = {}
    # outputs are kept until the end, or another could be taken for one by its address
    made: list[tuple[nn.Conv2d, torch.Tensor]] = []
    found: list[tuple[nn.Conv2d, _BatchNorm]] = []

    def after(module: nn.Module, given: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        calls[module] = calls.get(module, 0) + 1
        if isinstance(module, nn.Conv2d):
            made.append((module, output))
        else:
            assert isinstance(module, _BatchNorm)
            found.extend((conv, module) for conv, out in made if given and out is given[0])

    watched = [m for m in model.modules() if isinstance(m, nn.Conv2d | _BatchNorm)]
    hooks = [module.register_forward_hook(after) for module in watched]
    try:
        with torch.no_grad():
            model(images)
    finally:
        for hook in hooks:
            hook.remove()
    return [(c, n) for c, n in found if calls[c] == calls[n] == 1]


def _rest(norm: _BatchNorm) -> nn.Module | None:
    """What a batch normalisation does beside it: nothing, timm's have an activation; or unknown."""
    if type(norm) in PLAIN_NORMS:
        return nn.Identity()
    drop, act = getattr(norm, "drop", None), getattr(norm, "act", None)
    if type(norm).__module__.startswith("timm.") and drop is not None and act is not None:
        return nn.Sequential(drop, act)
    return None
