"""What a notebook works with, opened in one line: data, victim, clean logits and its folders.

::

    lab = open_lab("06_attack_many_images", globals())
    victim, val, clean_logits, types = lab.victim, lab.val, lab.clean_logits, lab.types

Nothing is read or computed before it is asked for, and then once. Figures and tables that the lab
saves are listed with the parameters of the notebook that opened it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from tkmia_utils import data, victims
from tkmia_utils.data import MultiLabelDataset
from tkmia_utils.victims import Victim
from tkmia_utils.workspace import Workspace, declared, load_results

EXECUTION = ("workspace", "device", "workers", "engine", "address")
"""Parameters that say where a notebook runs; they shape no result and are not recorded."""


@dataclass(frozen=True, repr=False)
class Lab(Workspace):
    """The folders of a notebook, and the data and victim that its parameters name.

    Parameters
    ----------
    root, profile, notebook, parameters
        As for :class:`tkmia_utils.workspace.Workspace`. The data needs ``dataset``, ``size``,
        ``seed``, ``data_root``, ``data_options`` and, of each half that is used, ``n_val`` and
        ``val_csv`` or ``n_train`` and ``train_csv``.
    device : str
        Where the victim is: "auto", "cpu" or "cuda".
    """

    device: str = "auto"

    @cached_property
    def victim(self) -> Victim:
        """The victim that notebook 04 saved for this profile."""
        return victims.load(self.runs / "victim.safetensors", device=self.device)

    @cached_property
    def train(self) -> MultiLabelDataset:
        """The training images."""
        return data.load(**data_arguments(self.parameters, "train"), cache=self.cache)

    @cached_property
    def val(self) -> MultiLabelDataset:
        """The held-out images, with the classes of the training set or else of the victim."""
        classes = (self.train if "train_csv" in self.parameters else self.victim).classes
        arguments = data_arguments(self.parameters, "val")
        return data.load(**arguments, cache=self.cache, classes=classes)

    def fresh(self, seed: int) -> MultiLabelDataset:
        """Held-out images of another seed, where images are made on the spot; else :attr:`val`."""
        if self.parameters["dataset"] != "emoji":
            return self.val
        arguments = data_arguments({**self.parameters, "seed": seed}, "val")
        return data.load(**arguments, cache=self.cache, classes=self.val.classes)

    @cached_property
    def clean_logits(self) -> torch.Tensor:
        """The victim's logits on the held-out images, float32 ``(N, C)``."""
        return victims.predict(self.victim.model, self.val)

    @cached_property
    def types(self) -> dict[str, tuple[str, ...]]:
        """Class names of every global set of scheme S1."""
        return data.types_of(self.val)

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the C classes."""
        return self.val.classes

    def results(self, methods: Sequence[str]) -> pd.DataFrame:
        """Saved results of some methods, one row an image and iteration limit."""
        if isinstance(methods, str) or not len(methods):
            raise ValueError(f"methods: expected at least one name in a list, got {methods!r}")
        makers = {"tkmia": "06_attack_many_images"}
        frames = [
            load_results(
                self.runs / f"attack-{name}.parquet", made_by=makers.get(name, "07_baselines")
            )
            for name in methods
        ]
        return pd.concat(frames, ignore_index=True)

    def __repr__(self) -> str:
        """What is loaded so far, for a reader of the notebook."""
        loaded = vars(self)
        lines = [f"{self.notebook}: works in runs/{self.profile}"]
        if "victim" in loaded:
            history = self.victim.history
            rated = f"{history[-1]['image_ap']:.3f}" if history else "unknown"
            lines.append(f"victim: mean per-image AP {rated} on held-out images")
        halves = [loaded[split] for split in ("train", "val") if split in loaded]
        lines += [
            f"{half.split}: {len(half)} images of {half.size} pixels, {len(half.classes)} classes"
            for half in halves
        ]
        return "\n".join([*lines, *(half.card for half in halves[-1:])])


def open_lab(notebook: str, variables: Mapping[str, Any], **more: Any) -> Lab:
    """Open what a notebook works with.

    Parameters
    ----------
    notebook : str
        Its name without the ending, e.g. ``"02_lemma"``.
    variables : mapping
        The notebook's variables, ``globals()``. Those that its cell tagged ``parameters`` declares
        are taken, all others are ignored.
    **more
        Further plain values to record, for instance the hash of a file that is read.

    Returns
    -------
    Lab

    Raises
    ------
    ValueError
        Neither the current folder nor the workspace has that notebook, or the variables lack a
        workspace or another declared parameter.
    """
    given = variables.get("workspace") if isinstance(variables, Mapping) else None
    if not isinstance(given, str | Path):
        raise ValueError(
            f"variables: expected globals() of a notebook whose parameters name its workspace "
            f"(a path), got {given!r}"
        )
    root = Path(given)
    places = [Path(), root / "notebooks"]
    files = [place / f"{notebook}.ipynb" for place in places]
    file = next((path for path in files if path.is_file()), None)
    if file is None:
        raise ValueError(f"notebook: there is no {' nor '.join(map(str, files))}")
    names = list(declared(file))
    missing = [name for name in names if name not in variables]
    if missing:
        raise ValueError(f"variables: run the cell of the parameters first; {missing} not set")
    recorded = {name: variables[name] for name in names if name not in EXECUTION}
    device = variables["device"] if "device" in names else "auto"
    return Lab(root, variables["profile"], notebook, recorded | more, device=device)


def data_arguments(parameters: Mapping[str, Any], split: str) -> dict[str, Any]:
    """Arguments of :func:`tkmia_utils.data.load` for one half, from a notebook's parameters."""
    given = {
        **{"dataset": parameters["dataset"], "split": split, "n": parameters.get(f"n_{split}")},
        **{"csv": parameters.get(f"{split}_csv"), "root": parameters.get("data_root")},
        **{name: parameters.get(name) for name in ("size", "seed")},
        **parameters.get("data_options", {}),
    }
    return {name: value for name, value in given.items() if value is not None}


def located(parameters: Mapping[str, Any], folder: str | Path) -> dict[str, Any]:
    """A notebook's parameters with absolute paths, for use outside `folder`, where it runs."""

    def absolute(given: Mapping[str, Any], names: Sequence[str]) -> dict[str, str]:
        paths = {name: given[name] for name in names if given.get(name) is not None}
        return {name: str((Path(folder) / path).resolve()) for name, path in paths.items()}

    found = {**parameters, **absolute(parameters, ("train_csv", "val_csv", "data_root"))}
    options = found.get("data_options", {})
    return found | {"data_options": {**options, **absolute(options, ("images",))}}
