"""What a promise costs: the same images, several runs, their norms and the measures' falls."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch

from tkmia_utils.data import MultiLabelDataset
from tkmia_utils.engine.result import AttackResult
from tkmia_utils.experiments import protocol
from tkmia_utils.experiments.protocol import Queue
from tkmia_utils.measures import CHANGES

ROW = ["cell", "image"]  # what names a row of the queue


def several(
    model: torch.nn.Module,
    queue: Queue,
    data: MultiLabelDataset,
    runs: Mapping[str, Mapping[str, Any]],
    **settings: Any,
) -> tuple[pd.DataFrame, dict[str, AttackResult]]:
    """Attack the same images in several ways.

    Parameters
    ----------
    model, queue, data
        As for :func:`tkmia_utils.experiments.protocol.run`.
    runs : mapping of str to mapping
        By name, the settings of that run alone, such as ``{"strict": {"stop": "imperceptible"}}``.
    **settings
        Of every run.

    Returns
    -------
    rows : pandas.DataFrame
        :func:`tkmia_utils.experiments.protocol.to_frame` of each, with the columns ``run``,
        ``fall`` (the largest fall of any measure, at least 0; NaN for a failure), ``backward``
        (backward passes used) and ``levels`` (root mean square of the perturbation in grey levels).
    results : dict of str to AttackResult
        By name.
    """
    frames, results = [], {}
    for name, own in runs.items():
        frame, result = protocol.run(model, queue, data, **{**settings, **own})
        fall = frame[list(CHANGES)].max(axis=1).clip(lower=0).where(frame["success"])
        frames.append(
            frame.assign(
                run=name, fall=fall, backward=result.backward.numpy(),
                levels=rms_levels(frame["l2"].to_numpy(), data.size),
            )
        )  # fmt: skip
        results[name] = result
    return pd.concat(frames, ignore_index=True), results


def rms_levels(l2: np.ndarray, size: int) -> np.ndarray:
    """Root mean square of a perturbation in grey levels: ``255 l2 / sqrt(3 size^2)``.

    Parameters
    ----------
    l2 : numpy.ndarray
        Norms in [0, 1] pixels.
    size : int
        Pixels a side, of images with 3 channels.
    """
    return 255 * np.asarray(l2, dtype=float) / np.sqrt(3 * size**2)


def ratios(rows: pd.DataFrame, pairs: Mapping[str, tuple[str, str]]) -> pd.DataFrame:
    """Norm of one run over that of another, image by image, where both succeeded.

    Parameters
    ----------
    rows : pandas.DataFrame
        From :func:`several`.
    pairs : mapping of str to (str, str)
        Name of the ratio to the runs above and below the line.

    Returns
    -------
    pandas.DataFrame
        Columns ``cell, k, s, image, ratio`` (the name) and ``value``; a row whose divisor is 0 has
        none.

    Raises
    ------
    ValueError
        A run that `rows` does not have.
    """
    missing = {run for pair in pairs.values() for run in pair} - set(rows["run"])
    if missing:
        raise ValueError(f"pairs: expected runs of {sorted(set(rows['run']))}, got {min(missing)}")
    won = rows[rows["success"]]
    frames = []
    for name, (above, below) in pairs.items():
        parts = [won[won["run"] == run] for run in (above, below)]
        both = parts[0].merge(parts[1][[*ROW, "l2_paper"]], on=ROW, suffixes=("", " below"))
        both = both[both["l2_paper below"] > 0]
        value = both["l2_paper"] / both["l2_paper below"]
        frames.append(both[["cell", "k", "s", "image"]].assign(ratio=name, value=value))
    return pd.concat(frames, ignore_index=True)


def pareto(rows: pd.DataFrame) -> pd.Series:
    """Which rows no other row of the same image beats: neither in the norm nor in the fall.

    Parameters
    ----------
    rows : pandas.DataFrame
        From :func:`several`; a failure is never on the front.

    Returns
    -------
    pandas.Series
        Bool, by the index of `rows`. Of rows that are equal in both the first is kept.
    """
    tried = rows[rows["success"] & rows[["l2_paper", "fall"]].notna().all(axis=1)]
    ordered = tried.sort_values(["l2_paper", "fall"], kind="stable")
    # the least fall among the rows of that image with a smaller norm
    least = ordered.groupby(ROW, sort=False)["fall"].transform(lambda part: part.cummin().shift())
    kept = ordered.index[least.isna() | (ordered["fall"] < least)]
    return pd.Series(rows.index.isin(kept), index=rows.index)


def aggregate_front(rows: pd.DataFrame, weights: Sequence[float]) -> pd.DataFrame:
    """The front of the means: for each image the run with the least ``norm + weight * fall``.

    By Lagrange's rule no choice of one run an image has both a lower mean norm and a lower mean
    fall than a line of the answer.

    Parameters
    ----------
    rows : pandas.DataFrame
        From :func:`several`; images without any success are left out.
    weights : sequence of float
        How much norm a fall by 1 is worth, >= 0.

    Returns
    -------
    pandas.DataFrame
        One row a weight: ``weight, norm, fall`` (means over images) and ``n``.
    """
    tried = rows[rows["success"] & rows[["l2_paper", "fall"]].notna().all(axis=1)]
    lines = []
    for weight in weights:
        cost = tried["l2_paper"] + weight * tried["fall"]
        chosen = tried.loc[cost.groupby([tried[name] for name in ROW], sort=False).idxmin()]
        lines.append(
            {"weight": weight, "norm": chosen["l2_paper"].mean(), "fall": chosen["fall"].mean()}
            | {"n": len(chosen)}
        )
    return pd.DataFrame(lines)
