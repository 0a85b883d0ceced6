"""Figure of what is left of an attack elsewhere."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from tkmia_utils.report.overview import LINES, SHAPES

PANELS = {"hidden": "the labels are hidden", "kept": "hidden, and no measure fell"}


def by_confidence(table: pd.DataFrame, norms: pd.Series) -> Figure:
    """Share of images on which an attack holds, by its confidence, one line a place.

    Parameters
    ----------
    table : pandas.DataFrame
        Columns ``confidence, place`` and, for each of "hidden" and "kept", q, ``q low`` and
        ``q high``: from :func:`tkmia_utils.experiments.intervals.summarise`.
    norms : pandas.Series
        Median norm by confidence; it is written under the axis.

    Returns
    -------
    matplotlib.figure.Figure
        With 95 % intervals.
    """
    places = list(table["place"].unique())
    steps = sorted(table["confidence"].unique())
    colours = plt.get_cmap("viridis")(np.linspace(0, 0.85, len(places)))
    fig, axes = plt.subplots(1, 2, figsize=(11, 4.2), sharex=True, sharey=True)
    for ax, (name, title) in zip(axes, PANELS.items(), strict=True):
        for i, (place, colour) in enumerate(zip(places, colours, strict=True)):
            part = table[table["place"] == place].sort_values("confidence")
            x = np.arange(len(steps)) + 0.05 * (i - (len(places) - 1) / 2)
            low, high = (abs(part[name] - part[f"{name} {end}"]) for end in ("low", "high"))
            ax.errorbar(
                x, part[name], yerr=[low, high], color=colour, marker=SHAPES[i % len(SHAPES)],
                linestyle=LINES[i % len(LINES)], linewidth=1.3, elinewidth=0.6, label=place,
            )  # fmt: skip
        ax.set(title=title, ylim=(-0.03, 1.03))
        ticks = [f"{step:g}\n‖ε‖ {norms[step]:.2f}" for step in steps]
        ax.set_xticks(range(len(steps)), ticks)
    axes[0].set_ylabel("share of images")
    fig.supxlabel("confidence that was asked for, in logits; under it the median norm", fontsize=11)
    axes[1].legend(*axes[0].get_legend_handles_labels(), loc="center left",
                   bbox_to_anchor=(1.02, 0.5), frameon=False)  # fmt: skip
    return fig
