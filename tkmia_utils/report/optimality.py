"""Figure of how near attacks come to the best known norm."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from tkmia_utils.experiments.optimality import curve
from tkmia_utils.report.figures import look_of


def curves(known: pd.DataFrame, *, most: float = 2.0) -> Figure:
    """Share of images with strict success against the norm, relative to the image's best known.

    Parameters
    ----------
    known : pandas.DataFrame
        From :func:`tkmia_utils.experiments.optimality.relative_norms`. A run that is not named like
        its attack has the attack's colour and a dotted line.
    most : float
        Right end of the axis.

    Returns
    -------
    matplotlib.figure.Figure
        One row of panels a stop, one column a budget; a run is marked where it ends at the right.
    """
    stops, budgets = list(known["stop"].unique()), sorted(known["budget"].unique())
    of = dict(zip(known["run"], known["method"], strict=True))
    size = (3.6 * len(budgets) + 2, 3.0 * len(stops) + 0.4)
    fig, axes = plt.subplots(
        len(stops), len(budgets), figsize=size, sharex=True, sharey=True, squeeze=False
    )
    at = np.linspace(1, most, 201)
    for (i, j), ax in np.ndenumerate(axes):
        part = known[(known["stop"] == stops[i]) & (known["budget"] == budgets[j])]
        for run, rows in part.groupby("run", sort=False):
            ax.plot(at, curve(rows["relative"], at), markevery=(10, 40), **_look(run, of[run]))
        ax.set(xlim=(1, most), ylim=(-0.02, 1.04))
        ax.set_title(f"stop: {stops[i]}, {budgets[j]} backward passes", fontsize=10)
    axes[-1, len(budgets) // 2].set_xlabel("norm / least norm that any run found for the image")
    fig.supylabel("share of images: hidden, no measure fell", fontsize=11)
    handles = [Line2D([], [], label=look_of(run).name, **_look(run, of[run])) for run in of]
    fig.legend(handles=handles, loc="outside right center", frameon=False)
    return fig


def _look(run: str, method: str) -> dict[str, object]:
    look = look_of(method)
    dots = ":" if run != method else "-"
    return {"color": look.colour, "marker": look.marker, "markersize": 5, "linestyle": dots}
