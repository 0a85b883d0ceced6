"""Figures of what a promise costs: margins along an attack, grey levels, fronts."""

from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from tkmia_utils.experiments.tradeoff import ROW, pareto
from tkmia_utils.report.figures import FAILED, look_of
from tkmia_utils.report.overview import LINES, SHAPES

HALF = 0.5  # grey levels: rounding moves a pixel by at most so much
ROUNDING = 1 / np.sqrt(12)  # grey levels: root mean square of an error uniform in +-1/2


def margins(paths: Mapping[str, torch.Tensor]) -> Figure:
    """Margins of several stops along one attack; a mark where each first holds.

    Parameters
    ----------
    paths : mapping of str to torch.Tensor
        Stop to the margin at every iteration, ``(T,)``.

    Returns
    -------
    matplotlib.figure.Figure
    """
    fig, ax = plt.subplots(figsize=(7.5, 3.4))
    ax.axhline(0, color="black", linewidth=1)
    for i, (stop, path) in enumerate(paths.items()):
        values = path.double().numpy()
        held = np.flatnonzero(values > 0)
        where = f"first at iteration {held[0]}" if len(held) else "never"
        # the later ones, which may lie on the earlier, are thinner
        (line,) = ax.plot(
            values, linestyle=LINES[i % len(LINES)], linewidth=max(1.2, 4 - 1.2 * i),
            label=f"{stop}: {where}",
        )  # fmt: skip
        if len(held):
            ax.plot(
                held[0],
                values[held[0]],
                color=line.get_color(),
                marker=SHAPES[i % len(SHAPES)],
                ms=8,
            )
    ax.set(xlabel="iteration", ylabel="margin in logits (above 0: holds)")
    ax.legend(frameon=False)
    return fig


def grey_levels(rows: pd.DataFrame) -> Figure:
    """Size of every successful perturbation in grey levels, and whether it lived through the file.

    Parameters
    ----------
    rows : pandas.DataFrame
        From :func:`tkmia_utils.experiments.tradeoff.several`, with ``survives PNG``.

    Returns
    -------
    matplotlib.figure.Figure
        One line of marks a run: full where the labels are still hidden after rounding to 8 bits,
        hollow and grey where they are not.
    """
    won, runs = rows[rows["success"]], list(rows["run"].unique())
    fig, ax = plt.subplots(figsize=(8, 0.5 * len(runs) + 1.5))
    ax.axvline(HALF, color="black", linewidth=1)
    ax.axvline(ROUNDING, color="black", linewidth=1, linestyle=":")
    spread = np.random.default_rng(0)
    for i, run in enumerate(runs):
        part = won[won["run"] == run]
        place = i + spread.uniform(-0.25, 0.25, len(part))
        look, lives = look_of(run), part["survives PNG"].to_numpy(dtype=bool)
        ax.plot(part["levels"][~lives], place[~lives], color=FAILED, marker=look.marker, mfc="none",
                linestyle="none", markersize=5)  # fmt: skip
        ax.plot(part["levels"][lives], place[lives], color=look.colour, marker=look.marker,
                linestyle="none", markersize=5, alpha=0.7)  # fmt: skip
    ax.set_yticks(range(len(runs)), [look_of(run).name for run in runs])
    ax.set_ylim(len(runs) - 0.5, -0.5)
    ax.set_xscale("log")
    ax.set_xlabel("root mean square of the perturbation, in grey levels of 8 bits")
    marks = {"marker": "o", "linestyle": "none", "markersize": 5}
    handles = [
        Line2D([], [], color="black", label="hidden in the PNG", **marks),
        Line2D([], [], color=FAILED, mfc="none", label="not hidden in the PNG", **marks),
        Line2D([], [], color="black", linewidth=1, label="half a level"),
        Line2D([], [], color="black", linewidth=1, linestyle=":", label="RMS of rounding, 0.29"),
    ]
    fig.legend(handles=handles, loc="outside lower center", ncol=4, frameon=False)
    return fig


def fronts(rows: pd.DataFrame, aggregate: pd.DataFrame) -> Figure:
    """Norm against the largest fall of a measure: every image's front, and that of the means.

    Parameters
    ----------
    rows : pandas.DataFrame
        From :func:`tkmia_utils.experiments.tradeoff.several`.
    aggregate : pandas.DataFrame
        From :func:`tkmia_utils.experiments.tradeoff.aggregate_front`, of the same rows.

    Returns
    -------
    matplotlib.figure.Figure
        Left the images, norms over the image's least; right the means, as a line, and what each
        run gives when it is used for every image it succeeds on.
    """
    fig, (left, right) = plt.subplots(1, 2, figsize=(10.5, 4))
    kept = rows[pareto(rows)]
    least = kept.groupby(ROW)["l2_paper"].transform("min")
    shown = kept.assign(relative=kept["l2_paper"] / least.mask(least == 0))
    for _, image in shown.groupby(ROW, sort=False):
        image = image.sort_values("relative")
        left.plot(image["relative"], image["fall"], color="#0072B2", marker="o", alpha=0.35,
                  linewidth=0.8, markersize=4, drawstyle="steps-post")  # fmt: skip
    runs_of = kept.groupby(ROW).size()
    alone = int((runs_of == 1).sum())
    left.set_title(f"each image ({alone} of {len(runs_of)} have one best run)")
    left.set_xlabel("norm / least norm of the image")
    left.set_ylabel("largest fall of a measure")
    right.plot(aggregate["norm"], aggregate["fall"], color="black", marker=".", label="front")
    names = list(rows["run"].unique())
    colours = plt.get_cmap("viridis")(np.linspace(0, 0.85, len(names)))
    for i, (run, colour) in enumerate(zip(names, colours, strict=True)):
        won = rows[(rows["run"] == run) & rows["success"]]
        # rings of several sizes, because runs may fall on the same place
        right.plot(won["l2_paper"].mean(), won["fall"].mean(), color=colour, linestyle="none",
                   marker=SHAPES[i % len(SHAPES)], markersize=max(5, 15 - 3 * i), fillstyle="none",
                   markeredgewidth=2, label=run)  # fmt: skip
    right.set(title="means over images", xlabel="mean ‖ε‖ (paper's [-1, 1] pixels)")
    right.set_ylabel("mean of the largest fall")
    right.xaxis.set_major_locator(MaxNLocator(5))
    right.legend(loc="center left", bbox_to_anchor=(1.02, 0.5), frameon=False)
    return fig
