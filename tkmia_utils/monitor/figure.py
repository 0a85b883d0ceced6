"""The figure of a monitor: what every detector has collected, against time."""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from tkmia_utils.monitor.conformal import Array

# lines differ in dash as well as in colour (Okabe and Ito), for grey print
LINES = [("#0072B2", "-"), ("#E69F00", "--"), ("#009E73", "-."), ("#000000", ":"),
         ("#56B4E9", "-"), ("#882255", "--")]  # fmt: skip


def plot_statistics(
    history: Array, names: Sequence[str], alarms: Sequence[int | None], *, ax: Axes | None = None
) -> Figure:
    """Statistics over their thresholds on a logarithmic axis; the line at 1 is the alarm.

    The detectors with the highest peaks are drawn by name, all others in thin grey.

    Parameters
    ----------
    history : numpy.ndarray
        float64 ``(T, D)``: statistic over threshold.
    names : sequence of str
        D names.
    alarms : sequence of int or None
        Where each rang, positions in the stream.
    ax : matplotlib.axes.Axes, optional
        Draw here.

    Returns
    -------
    matplotlib.figure.Figure
    """
    if ax is None:
        _, ax = plt.subplots(figsize=(7.5, 3.6))
    time = np.arange(1, len(history) + 1)
    peaks = history.max(0) if len(history) else np.zeros(len(names))
    order = np.argsort(-peaks, kind="stable")
    for i in order[len(LINES) :]:
        ax.plot(time, history[:, i], color="#C8C8C8", linewidth=0.6, zorder=1)
    for i, (colour, dash) in zip(order, LINES, strict=False):
        ax.plot(time, history[:, i], color=colour, linestyle=dash, label=names[i])
        rang = alarms[i]
        if rang is not None:
            ax.plot(rang + 1, history[rang, i], "v", color=colour, markersize=9, zorder=4)
    ax.axhline(1, color="black", linewidth=1.2)
    ax.set_yscale("log")
    low = float(history[history > 0].min()) if (history > 0).any() else 1e-4
    ax.set_ylim(max(low, 1e-8) / 2, max(3.0, min(float(peaks.max(initial=1)), 1e8) * 2))
    ax.text(1, 1.15, "alarm", va="bottom", fontsize=9)
    ax.set(xlabel="image of the stream", ylabel="statistic over its threshold")
    ax.set_xlim(0, max(1, len(history)))
    ax.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    ax.legend(frameon=False, fontsize=9, loc="upper left", bbox_to_anchor=(1, 1))
    figure = ax.figure
    assert isinstance(figure, Figure)
    return figure
