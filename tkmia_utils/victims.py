"""The classifiers under attack: built, trained, saved and loaded by the hash of what made them.

A victim maps images in [0, 1] to logits; normalisation is its first layer and is saved with it. A
saved victim is one safetensors file whose header carries its configuration and training history.
"""

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from tqdm.auto import tqdm

from tkmia_utils.data import MultiLabelSet
from tkmia_utils.measures import average_precision_at_k, class_average_precision
from tkmia_utils.results import write_atomically


@dataclass(frozen=True)
class Recipe:
    """How a victim is made.

    Attributes
    ----------
    widths : tuple of int
        Channels of the 3x3 convolutions; every one but the fourth halves the resolution.
    epochs, batch : int
        Passes over the training set, and images a step.
    lr, weight_decay : float
        AdamW; the rate follows one cycle and peaks at lr.
    seed : int
        Of the weights, the order of the images and the augmentation.
    """

    widths: tuple[int, ...] = (24, 48, 96, 96, 192)
    epochs: int = 14
    batch: int = 64
    lr: float = 4e-3
    weight_decay: float = 1e-2
    seed: int = 0


@dataclass(frozen=True)
class Victim:
    """A trained classifier, in evaluation mode.

    Attributes
    ----------
    model : torch.nn.Module
        float32 images ``(N, 3, H, W)`` in [0, 1] to logits ``(N, C)``.
    history : list of dict
        One entry an epoch: ``epoch, loss, class_map, image_ap``, the last two on the held-out set.
    key : str
        Hash of the recipe and the data it was trained on.
    classes : tuple of str
        Names of its C logits.
    """

    model: nn.Module
    history: list[dict[str, float]]
    key: str
    classes: tuple[str, ...]


class Normalise(nn.Module):
    """Shift and scale [0, 1] pixels, so that a victim is never met off its own normalisation."""

    def __init__(self, mean: float = 0.5, std: float = 0.25) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean))
        self.register_buffer("std", torch.tensor(std))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``(x - mean) / std``."""
        return (x - self.mean) / self.std


def small_net(classes: int, widths: tuple[int, ...], *, normed: bool) -> nn.Sequential:
    """Build a small convolutional net: 3x3 convolutions, global max pooling, one linear layer.

    Parameters
    ----------
    classes : int
        C.
    widths : tuple of int
        Channels of the convolutions.
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


def pick_device(device: str) -> torch.device:
    """``"auto"`` is CUDA where there is one, else the CPU; anything else is taken by its name."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(device)


@torch.no_grad()
def predict(model: nn.Module, data: MultiLabelSet, *, batch: int = 64) -> torch.Tensor:
    """Logits of every image of a data set, the clean pass.

    Parameters
    ----------
    model : torch.nn.Module
        A victim, in evaluation mode.
    data : MultiLabelSet
        N images.
    batch : int
        Images at once.

    Returns
    -------
    torch.Tensor
        float32 ``(N, C)``, on the CPU.
    """
    device = next(model.parameters()).device
    parts = [
        model(data.images(range(i, min(i + batch, len(data)))).to(device)).float().cpu()
        for i in range(0, len(data), batch)
    ]
    return torch.cat(parts)


def evaluate(logits: torch.Tensor, labels: torch.Tensor) -> dict[str, float]:
    """Two figures that both go by the name of mAP.

    Parameters
    ----------
    logits : torch.Tensor
        ``(N, C)``.
    labels : torch.Tensor
        Bool ``(N, C)``.

    Returns
    -------
    dict
        ``class_map``, the mean average precision over classes, and ``image_ap``, the mean over
        images with labels, which Table 5 of the paper prints.
    """
    some = labels.any(-1)
    per_image = average_precision_at_k(logits[some], labels[some], labels.shape[-1])
    per_class = class_average_precision(logits, labels)
    return {
        "class_map": float(per_class[~per_class.isnan()].mean()),
        "image_ap": float(per_image.mean()),
    }


def _augment(x: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Mirror half of the images and shift all by up to 4 pixels."""
    mirrored = torch.rand(len(x), generator=generator) < 0.5
    x = torch.where(mirrored.reshape(-1, 1, 1, 1), x.flip(-1), x)
    down, right = torch.randint(-4, 5, (2,), generator=generator).tolist()
    return x.roll((down, right), dims=(-2, -1))


def train(
    recipe: Recipe,
    data: MultiLabelSet,
    held_out: MultiLabelSet,
    *,
    device: str = "auto",
    report: Callable[[dict[str, float]], None] | None = None,
    progress: bool = False,
) -> Victim:
    """Train a small net from scratch with a binary cross-entropy for every label.

    Parameters
    ----------
    recipe : Recipe
        Widths, epochs, rates, seed.
    data, held_out : MultiLabelSet
        The training set, and the images the epochs are judged on.
    device : str
        See :func:`pick_device`.
    report : callable, optional
        Told of every epoch's entry of the history.
    progress : bool
        Show a progress bar over the steps.

    Returns
    -------
    Victim

    Raises
    ------
    ValueError
        Different classes in the two sets, or fewer images than a batch.
    """
    if data.classes != held_out.classes:
        raise ValueError("held_out: its classes are not those of the training set")
    if len(data) < recipe.batch:
        raise ValueError(f"data: expected at least one batch of {recipe.batch}, got {len(data)}")
    place = pick_device(device)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        model = small_net(len(data.classes), recipe.widths, normed=True).to(place)
    generator = torch.Generator().manual_seed(recipe.seed)
    optimiser = torch.optim.AdamW(model.parameters(), recipe.lr, weight_decay=recipe.weight_decay)
    steps = len(data) // recipe.batch
    rate = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, recipe.lr, total_steps=recipe.epochs * steps
    )
    history, bar = [], tqdm(total=recipe.epochs * steps, disable=not progress, leave=False)
    for epoch in range(recipe.epochs):
        order, total = torch.randperm(len(data), generator=generator), 0.0
        model.train()
        for index in order[: steps * recipe.batch].split(recipe.batch):
            x = _augment(data.images(index), generator).to(place)
            y = data.labels[index].to(place, torch.float32)
            loss = nn.functional.binary_cross_entropy_with_logits(model(x), y)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            rate.step()
            bar.update()
            total += loss.detach()
        model.eval()
        scores = evaluate(predict(model, held_out), held_out.labels)
        history.append({"epoch": epoch + 1, "loss": float(total) / steps, **scores})
        if report:
            report(history[-1])
    bar.close()
    return Victim(fused(model), history, fingerprint(recipe, data), data.classes)


def fingerprint(recipe: Recipe, data: MultiLabelSet) -> str:
    """Hash of all that decides a victim: the recipe, the labels, and a sample of the images."""
    digest = hashlib.sha256(json.dumps(asdict(recipe), sort_keys=True).encode())
    digest.update(json.dumps([data.name, data.split, data.size, data.classes, data.ids]).encode())
    digest.update(data.labels.numpy().tobytes())
    for i in range(0, len(data), max(1, len(data) // 64)):
        digest.update(data.load(i).numpy().tobytes())
    return digest.hexdigest()[:16]


def load_or_train(
    recipe: Recipe,
    data: MultiLabelSet,
    held_out: MultiLabelSet,
    *,
    cache: str | Path,
    device: str = "auto",
    report: Callable[[dict[str, float]], None] | None = None,
    progress: bool = False,
) -> Victim:
    """Load the victim of this recipe and data from `cache`, or train it and save it there.

    Parameters
    ----------
    recipe, data, held_out, device, report, progress
        As for :func:`train`.
    cache : str or Path
        Folder; the file is ``victim-<key>.safetensors``.

    Returns
    -------
    Victim

    Raises
    ------
    ValueError
        As for :func:`train`.
    """
    key = fingerprint(recipe, data)
    path = Path(cache) / f"victim-{key}.safetensors"
    if path.exists():
        return load(path, device=device)
    victim = train(recipe, data, held_out, device=device, report=report, progress=progress)
    save(victim, recipe, path)
    return victim


def save(victim: Victim, recipe: Recipe, path: Path) -> None:
    """Write a victim's weights, recipe and history to one safetensors file, atomically."""
    header = {
        "recipe": json.dumps(asdict(recipe)),
        "history": json.dumps(victim.history),
        "key": victim.key,
        "classes": json.dumps(victim.classes),
    }
    weights = {name: value.cpu() for name, value in victim.model.state_dict().items()}
    write_atomically(path, lambda temporary: save_file(weights, temporary, metadata=header))


def load(path: str | Path, *, device: str = "auto") -> Victim:
    """Read a victim that :func:`save` wrote.

    Parameters
    ----------
    path : str or Path
        The safetensors file.
    device : str
        See :func:`pick_device`.

    Returns
    -------
    Victim

    Raises
    ------
    ValueError
        The file is missing, broken, or not a victim of ours.
    """
    path = Path(path)
    if not path.exists():
        raise ValueError(f"path: no victim at {path}; run notebook 04_victim first")
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            weights = {name: file.get_tensor(name) for name in file.keys()}
        widths = tuple(json.loads(header["recipe"])["widths"])
        classes = tuple(json.loads(header["classes"]))
        model = small_net(len(classes), widths, normed=False)
        model.load_state_dict(weights)
    except Exception as error:  # safetensors, JSON and torch each raise their own
        raise ValueError(f"path: {path} is not a whole victim file ({error}); delete it") from error
    history = json.loads(header["history"])
    return Victim(model.eval().to(pick_device(device)), history, header["key"], classes)
