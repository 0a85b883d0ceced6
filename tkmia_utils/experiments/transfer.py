"""Does an attack still hold elsewhere? Other victims, other file formats, other sizes."""

from collections.abc import Mapping

import pandas as pd
import torch
from torch import nn

from tkmia_utils import measures
from tkmia_utils.data import MultiLabelDataset
from tkmia_utils.defence.transformations import TREATMENTS, Change
from tkmia_utils.engine.outcome import excluded, fell
from tkmia_utils.exact import on_grid
from tkmia_utils.experiments.protocol import Queue
from tkmia_utils.victims.prediction import logits_of


def viewers(model: nn.Module, others: Mapping[str, nn.Module]) -> dict[str, tuple]:
    """Where an image may arrive: at the attacked victim by every way, at other victims as PNG.

    Returns
    -------
    dict of str to (torch.nn.Module, callable)
        Who looks, and what happened to the image before.
    """
    return {name: (model, change) for name, change in TREATMENTS.items()} | {
        name: (other, on_grid) for name, other in others.items()
    }


def judge(
    model: nn.Module,
    clean: torch.Tensor,
    adversarial: torch.Tensor,
    queue: Queue,
    data: MultiLabelDataset,
) -> pd.DataFrame:
    """Ask a victim about adversarial images that another may have been attacked with.

    The measures are compared with those of the clean images *as this victim sees them, after the
    same change*: whoever looks at a compressed photo would have seen the compressed original.

    Parameters
    ----------
    model : torch.nn.Module
        Who looks.
    clean, adversarial : torch.Tensor
        float32 ``(R, 3, H, W)`` in [0, 1], after the change.
    queue : Queue
        R rows.
    data : MultiLabelDataset
        For the image ids.

    Returns
    -------
    pandas.DataFrame
        ``cell, image``, ``shown`` (with the clean image, fewer than delta of S are out of the
        top k), ``hidden`` (with the adversarial one at least delta are) and ``kept`` (hidden, and
        no measure fell).
    """
    before, after = (logits_of(model, x) for x in (clean, adversarial))
    hidden, lost = (
        excluded(logits, queue.specified, queue.k, queue.delta) for logits in (after, before)
    )
    changes = measures.measure_changes(before, after, queue.labels, queue.specified, queue.k)
    return pd.DataFrame(
        {
            "cell": [cell.name for cell in queue.cells],
            "image": [data.ids[i] for i in queue.index.tolist()],
            "shown": ~lost.numpy(),
            "hidden": hidden.numpy(),
            "kept": (hidden & ~fell(changes)).numpy(),
        }
    )


def judge_everywhere(
    places: Mapping[str, tuple[nn.Module, Change]],
    clean: torch.Tensor,
    attacked: Mapping[str, torch.Tensor],
    queue: Queue,
    data: MultiLabelDataset,
) -> pd.DataFrame:
    """Send the images of every run everywhere, and the clean ones along with them.

    Parameters
    ----------
    places : mapping of str to (torch.nn.Module, callable)
        From :func:`viewers`.
    clean : torch.Tensor
        float32 ``(R, 3, H, W)`` in [0, 1].
    attacked : mapping of str to torch.Tensor
        By run, images like `clean`.
    queue, data
        As for :func:`judge`.

    Returns
    -------
    pandas.DataFrame
        :func:`judge` of each, with the columns ``run`` and ``place``.
    """
    frames = []
    for place, (model, change) in places.items():
        original = change(clean)
        for run, images in attacked.items():
            rows = judge(model, original, change(images), queue, data)
            frames.append(rows.assign(run=run, place=place))
    return pd.concat(frames, ignore_index=True)
