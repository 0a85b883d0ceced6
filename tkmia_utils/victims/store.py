"""The classifiers under attack: built, trained, saved and loaded by the hash of what made them.

A victim maps images in [0, 1] to logits; normalisation is its first layer and is saved with it. A
saved victim is one safetensors file whose header carries its configuration and training history.
"""

import hashlib
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from tkmia_utils.data import MultiLabelDataset
from tkmia_utils.files import sweep, write_atomically
from tkmia_utils.hashing import file_hash, text_hash
from tkmia_utils.victims.backbones import build, fused, small_net
from tkmia_utils.victims.prediction import evaluate, pick_device, predict
from tkmia_utils.victims.recipes import RECIPES, Recipe, recipe
from tkmia_utils.victims.training import fit

__all__ = [
    "RECIPES",
    "Recipe",
    "Victim",
    "evaluate",
    "fingerprint",
    "load",
    "load_or_train",
    "predict",
    "recipe",
    "save",
    "train",
]


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


def train(
    recipe: Recipe, data: MultiLabelDataset, held_out: MultiLabelDataset, **options: Any
) -> Victim:
    """Train a victim.

    Parameters
    ----------
    recipe, data, held_out, **options
        As for :func:`tkmia_utils.victims.training.fit`.

    Returns
    -------
    Victim

    Raises
    ------
    ValueError
        As for :func:`tkmia_utils.victims.training.fit`.
    """
    model, history = fit(recipe, data, held_out, **options)
    if recipe.arch == "small":
        model = fused(model)
    return Victim(model.eval(), history, fingerprint(recipe, data), data.classes)


def fingerprint(recipe: Recipe, data: MultiLabelDataset) -> str:
    """Hash of all that decides a victim: the recipe, the labels, and the images."""
    settings = asdict(recipe)
    if recipe.weights == "download":  # the same weights, once they are on this machine
        settings["weights"] = "imagenet"
    elif Path(recipe.weights).is_file():  # the same weights in any folder
        settings["weights"] = file_hash(Path(recipe.weights))
    # some pixels as well as the files' hashes: the same file may be decoded differently one day
    some = range(0, len(data), max(1, len(data) // 64))
    pixels = [hashlib.sha256(data.load(i).numpy().tobytes()).hexdigest() for i in some]
    return text_hash(settings, data.fingerprint(), pixels)[:16]


def load_or_train(
    recipe: Recipe,
    data: MultiLabelDataset,
    held_out: MultiLabelDataset,
    *,
    cache: str | Path,
    device: str = "auto",
    **options: Any,
) -> Victim:
    """Load the victim of this recipe and data from `cache`, or train it and save it there.

    A training that was killed goes on from its last checkpoint.

    Parameters
    ----------
    recipe, data, held_out, device, **options
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
    state = path.with_suffix(".checkpoint.pt")
    sweep(cache)
    if path.exists():
        state.unlink(missing_ok=True)  # of one killed between saving the victim and removing this
        return load(path, device=device)
    victim = train(
        recipe, data, held_out, device=device, checkpoint=state, keep_checkpoint=True, **options
    )  # fmt: skip
    if int(os.environ.get("RANK", 0)) == 0:  # of several processes one writes
        save(victim, recipe, path)
        state.unlink(missing_ok=True)  # only now: a kill in between must not cost the training
    return victim


def save(victim: Victim, recipe: Recipe, path: Path) -> None:
    """Write a victim's weights, recipe and history to one safetensors file, atomically."""
    header = {
        "recipe": json.dumps(asdict(recipe)),
        "history": json.dumps(victim.history),
        "key": victim.key,
        "classes": json.dumps(victim.classes),
    }
    weights = {n: v.cpu().contiguous() for n, v in victim.model.state_dict().items()}
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
        made = json.loads(header["recipe"])
        classes = tuple(json.loads(header["classes"]))
        if made["arch"] == "small":
            model = small_net(len(classes), tuple(made["widths"]), normed=False)
        else:
            with torch.random.fork_rng(devices=[]):
                model = build(made["arch"], len(classes))
        model.load_state_dict(weights)
        if made["channels_last"]:
            model = model.to(memory_format=torch.channels_last)
    except Exception as error:  # safetensors, JSON and torch each raise their own
        raise ValueError(f"path: {path} is not a whole victim file ({error}); delete it") from error
    history = json.loads(header["history"])
    return Victim(model.eval().to(pick_device(device)), history, header["key"], classes)
