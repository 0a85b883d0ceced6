"""Recordings on paper: a figure of two of them, and a table of all."""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import pandas as pd
import torch
from matplotlib.figure import Figure

from tkmia_utils.explorer.recording import Recording, picture
from tkmia_utils.measures import MEASURES
from tkmia_utils.report import figures
from tkmia_utils.report.ranking import Ranking

WIDTHS = (1, 1, 0.95, 1.9)
MASKS = ("relevant", "specified")


def ranking(one: Recording, step: int) -> Ranking:
    """The ranking list of a step."""
    relevant, specified = (_mask(one[name], len(one["classes"])) for name in MASKS)
    # ranks, since logits are rounded in a recording and might tie
    scores = -torch.tensor(one["ranks"][step]).float()
    return Ranking(scores, relevant, specified, one["k"], one["classes"])


def _mask(labels: Sequence[int], classes: int) -> torch.Tensor:
    mask = torch.zeros(classes, dtype=torch.bool)
    mask[list(labels)] = True
    return mask


def still(recordings: Sequence[Recording]) -> Figure:
    """Draw where recordings ended, for a reader without a kernel.

    Parameters
    ----------
    recordings : sequence of dict
        At least one; a row each: perturbation, image, ranking list and ranks by step.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ValueError
        No recording.
    """
    if not recordings:
        raise ValueError("recordings: expected at least one, got none")
    many = len(recordings)
    fig, axes = plt.subplots(many, 4, figsize=(11, 3.6 * many), width_ratios=WIDTHS, squeeze=False)
    for row, one in zip(axes, recordings, strict=True):
        step = one["result"]
        image, perturbation = picture(one, step)
        list_there = ranking(one, step)
        figures.show_image(row[0], perturbation, f"perturbation ×{one['factor']:g}")
        name = figures.look_of(one["method"]).name
        title = f"{name}, step {step}\n‖ε‖ = {one['l2_paper'][step]:.2f}"
        figures.show_image(row[1], image, title)
        figures.show_list(row[2], list_there, faded=not one["success"])
        measures = {name: values[step] for name, values in one["measures"].items()}
        row[2].set_title(figures.two_lines(measures), fontsize=10)
        ranks = -torch.tensor(one["ranks"]).float()
        figures.rank_paths(list_there, ranks, ax=row[3])
        row[3].axvline(step, color="black", linestyle=":")
    return fig


def table(recordings: Sequence[Recording]) -> pd.DataFrame:
    """A row a recording: what was asked, how it ended, and the measures before and after."""
    columns = ["image", "hidden", "k", "method", "stop", "bits", "end", "steps", "result", "norm"]
    lines = []
    for one in recordings:
        at = one["result"]
        values = (
            one["image"],
            ", ".join(one["classes"][c] for c in one["specified"]),
            one["k"],
            one["method"],
            one["stop"],
            "floats" if one["bits"] is None else str(one["bits"]),
            one["reason"],
            len(one["l2"]) - 1,
            at,
            one["l2_paper"][at],
        )
        line = dict(zip(columns, values, strict=True))
        for name, by_step in one["measures"].items():
            line[name] = f"{by_step[0]:.2f} → {by_step[at]:.2f}"
        lines.append(line)
    return pd.DataFrame(lines, columns=[*columns, *MEASURES])
