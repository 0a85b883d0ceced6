"""Attackers, some of whom know what the owner watches, and what the owner then sees."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch
from torch import nn

from tkmia_utils.data import MultiLabelDataset
from tkmia_utils.experiments import protocol
from tkmia_utils.experiments.protocol import Cell, Queue
from tkmia_utils.experiments.transfer import judge
from tkmia_utils.experiments.watching import Scene, Sight, look, look_at_all, scenes


@dataclass(frozen=True)
class Sent:
    """What an attacker has made.

    Attributes
    ----------
    images : torch.Tensor
        float32 ``(R, 3, H, W)`` in [0, 1], of all rows of the queue.
    hidden : torch.Tensor
        Bool ``(R,)``: those on which the victim does not show S any more. Only these are sent.
    """

    images: torch.Tensor
    hidden: torch.Tensor


def attack_all(
    model: nn.Module,
    queue: Queue,
    data: MultiLabelDataset,
    attackers: Mapping[str, Mapping[str, Any]],
    **settings: Any,
) -> tuple[pd.DataFrame, dict[str, Sent]]:
    """Let every attacker attack the same images.

    Parameters
    ----------
    model : torch.nn.Module
        The victim.
    queue, data
        As for :func:`tkmia_utils.experiments.protocol.run`.
    attackers : mapping of str to mapping
        By name, settings of :func:`tkmia_utils.attack`; with ``through``, a model that is attacked
        in place of the victim, as by one who also minds the second look.
    **settings
        Of every attacker.

    Returns
    -------
    rows : pandas.DataFrame
        ``cell, k, image, run, l2`` (in [0, 1] pixels), and, as the *victim* sees the image,
        ``hidden`` and ``kept`` (hidden, and no measure fell).
    sent : dict of str to Sent
        By attacker.

    Raises
    ------
    ValueError
        A runtime that keeps no images; or as :func:`tkmia_utils.attack`.
    """
    frames, sent = [], {}
    originals = data.images(queue.index)
    for name, own in attackers.items():
        asked = {**settings, **own}
        target = asked.pop("through", model)
        _, result = protocol.run(target, queue, data, **asked)
        images = result.adversarial
        if images is None:
            raise ValueError("runtime: expected one that keeps the images")
        found = judge(model, originals, images, queue, data)
        found = found.assign(run=name, k=queue.k.numpy(), l2=result.l2.numpy())
        frames.append(found[["cell", "k", "image", "run", "l2", "hidden", "kept"]])
        sent[name] = Sent(images, torch.tensor(found["hidden"].tolist()))
    return pd.concat(frames, ignore_index=True), sent


def watched(
    model: nn.Module,
    second: nn.Module,
    queue: Queue,
    data: MultiLabelDataset,
    sent: Mapping[str, Sent],
    types: Mapping[str, Sequence[str]],
    *,
    clean: Sight | None = None,
    seed: int = 0,
    rule: str = "released",
) -> dict[str, dict[Cell, Scene]]:
    """What the owner sees of every attacker.

    Parameters
    ----------
    model, second : torch.nn.Module
        The victim, and its second look.
    queue, data
        As for :func:`attack_all`.
    sent : mapping of str to Sent
        From there.
    clean : Sight, optional
        Of all images of `data`, if they have been looked at.
    types, seed, rule
        As for :func:`tkmia_utils.experiments.protocol.choose`: what decides which images of the
        stream an attacker could take. Watches of single classes look at the cell's type, in S2 at
        all classes.

    Returns
    -------
    dict of str to dict of Cell to Scene
        By attacker; a cell without a success is left out.
    """
    clean = look_at_all(model, second, data) if clean is None else clean
    cells = list(dict.fromkeys(queue.cells))
    eligible = {
        cell: protocol.choose(cell, data, clean.scores, types, seed=seed, rule=rule).eligible
        for cell in cells
    }
    members = {
        cell: [data.classes.index(n) for n in types[cell.type]] if cell.type
        else list(range(len(data.classes)))
        for cell in cells
    }  # fmt: skip
    return {
        name: scenes(
            queue, clean, look(model, second, one.images, queue.labels), one.hidden, eligible,
            members,
        )
        for name, one in sent.items()
    }  # fmt: skip
