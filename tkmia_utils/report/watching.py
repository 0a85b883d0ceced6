"""Figures of the owner's side: how soon each watch rings, and what an attacker pays for silence."""

from collections.abc import Sequence
from itertools import cycle

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from tkmia_utils.report.figures import look_of


def delays(table: pd.DataFrame, *, horizon: int) -> Figure:
    """Median delays of every watch, a panel a share of attacked images, a mark an attack.

    Parameters
    ----------
    table : pandas.DataFrame
        Of :func:`tkmia_utils.experiments.watching.detection_table`, one cell and run length.
    horizon : int
        Images that were looked at; a median beyond is drawn hollow at the right edge.

    Returns
    -------
    matplotlib.figure.Figure
    """
    shares, watches = table["share"].unique(), list(table["watch"].unique())
    runs = list(table["run"].unique())
    size = (3.1 * len(shares) + 2.6, 0.36 * len(watches) + 1.3)
    figure, axes = plt.subplots(
        1, len(shares), figsize=size, sharex=True, sharey=True, squeeze=False
    )
    for ax, share in zip(axes[0], shares, strict=True):
        part = table[table["share"] == share]
        for i, run in enumerate(runs):
            mine = part[part["run"] == run].set_index("watch").reindex(watches)
            style, off = look_of(run), 0.5 * (i / max(1, len(runs) - 1) - 0.5)
            found = np.isfinite(mine["delay"].to_numpy(float))
            at = np.arange(len(watches)) + off
            x = np.where(found, mine["delay"], 1.3 * horizon)
            for filled in (True, False):
                keep = (found == filled) & mine["power"].notna().to_numpy()
                ax.plot(x[keep], at[keep], style.marker, color=style.colour, markersize=5,
                        markerfacecolor=style.colour if filled else "none",
                        label=style.name if filled else None)  # fmt: skip
        ax.axvline(horizon, color="black", linewidth=0.8, linestyle=":")
        ax.set(xscale="log", xlabel="images until the alarm (median)")
        ax.set_title(f"{share:.0%} of the eligible images attacked", fontsize=10)
        ax.set_yticks(range(len(watches)), watches)
        ax.grid(axis="y", color="#E6E6E6", linewidth=0.6)
    axes[0, 0].invert_yaxis()
    handles: dict[str, Artist] = {}
    for ax in axes[0]:
        handles |= dict(zip(*reversed(ax.get_legend_handles_labels()), strict=True))
    axes[0, -1].legend(
        handles.values(), handles.keys(), frameon=False, loc="center left", bbox_to_anchor=(1, 0.5)
    )
    return figure


def frontier(table: pd.DataFrame, *, horizon: int, watches: Sequence[str]) -> Figure:
    """What an attacker pays in norm, and how long each watch is silent for it.

    Parameters
    ----------
    table : pandas.DataFrame
        A row an attacker: ``attacker, norm`` (relative), ``kept`` (share), and a column of median
        delays a watch; inf for none.
    horizon : int
        Images that were looked at.
    watches : sequence of str
        Columns, a panel each.

    Returns
    -------
    matplotlib.figure.Figure
    """
    size = (3.0 * len(watches) + 2.6, 3.3)
    figure, axes = plt.subplots(1, len(watches), figsize=size, sharey=True, squeeze=False)
    marks = "osD^vP*X<>hp"
    colours = plt.get_cmap("cividis")(np.linspace(0, 0.9, len(table)))
    for ax, name in zip(axes[0], watches, strict=True):
        for (_, row), mark, colour in zip(table.iterrows(), cycle(marks), colours, strict=False):
            silent = not np.isfinite(row[name])
            ax.plot(row["norm"], 1.3 * horizon if silent else row[name], mark, color=colour,
                    markersize=8, markerfacecolor="none" if silent else colour,
                    label=row["attacker"])  # fmt: skip
        ax.axhline(horizon, color="black", linewidth=0.8, linestyle=":")
        ax.set(yscale="log", xlabel="relative norm", title=name)
    axes[0, 0].set_ylabel("images until the alarm (median)")
    axes[0, -1].legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5), fontsize=9)
    return figure


def benign(table: pd.DataFrame, *, nominal: float, within: int) -> Figure:
    """Share of streams with an alarm, where no image was attacked: a row a watch.

    Parameters
    ----------
    table : pandas.DataFrame
        Of :func:`tkmia_utils.experiments.false_alarms.benign_changes`.
    nominal : float
        Run length of the monitors.
    within : int
        Images in which alarms were counted.

    Returns
    -------
    matplotlib.figure.Figure
    """
    cases = [name for name in table if name != "watch"]
    figure, ax = plt.subplots(figsize=(6.5, 0.36 * len(table) + 1.2))
    looks = [("#777777", "|"), ("#D55E00", "s"), ("#0072B2", "o"), ("#CC79A7", "D")]
    for case, (colour, mark) in zip(cases, looks, strict=False):
        ax.plot(table[case], range(len(table)), mark, color=colour, markersize=7, label=case)
    ax.axvline(within / nominal, color="black", linewidth=0.8, linestyle=":")
    ax.set_yticks(range(len(table)), table["watch"])
    ax.invert_yaxis()
    ax.grid(axis="y", color="#E6E6E6", linewidth=0.6)
    ax.xaxis.set_major_formatter(PercentFormatter(1))
    ax.set(xlabel=f"streams with an alarm within {within} images", xlim=(-0.02, 1.02))
    ax.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    return figure
