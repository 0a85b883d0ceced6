"""Figures of the paper's tables: who leads, what k costs, what a change costs, and our results.

Methods look as in all other figures: see :data:`tkmia_utils.report.figures.METHODS`.
"""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from tkmia_utils.paper.tables import MEASURES, RIVALS, wide
from tkmia_utils.report import figures

LOOKS = {look.name: look for look in figures.METHODS.values() if look.name in (*RIVALS, "TkMIA")}
# colour and marker; none is a method's
VERDICTS = {"first": ("#8073AC", "P"), "tied": ("#A6A6A6", "p"), "behind": ("#8C2D04", "X")}
DATASETS = ("VOC", "COCO", "NUS")


def _plain_log(axis, *, base: float = 10) -> None:
    """Numbers instead of powers on a logarithmic axis."""
    axis.set_major_locator(LogLocator(base=base, subs=(1.0, 2.0, 5.0)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def _methods_legend(fig: Figure, extra: list[Line2D] | None = None) -> None:
    handles = [
        Line2D([], [], color=look.colour, marker=look.marker, linestyle="none", label=name)
        for name, look in LOOKS.items()
    ]
    handles += extra or []
    fig.legend(handles=handles, loc="outside lower center", ncol=len(handles), frameon=False)


def _labels(frame: pd.DataFrame) -> pd.Series:
    return frame["table"].astype(str) + " · " + frame["dataset"] + " " + frame["scheme"]


def leads(lead: pd.DataFrame) -> Figure:
    """How far TkMIA leads its best rival: a mark a setting, a line a table, a panel a measure.

    Parameters
    ----------
    lead : pandas.DataFrame
        From :func:`tkmia_utils.paper.tables.winners`.

    Returns
    -------
    matplotlib.figure.Figure
        Right of the line TkMIA is better. APer as a ratio, the others as differences.
    """
    lead = lead.assign(label=_labels(lead))
    order = list(dict.fromkeys(lead.sort_values("table")["label"]))
    fig, axes = plt.subplots(2, 3, figsize=(12, 0.5 * len(order) + 2.5), sharey=True)
    rng = np.random.default_rng(0)
    for ax, measure in zip(axes.flat, MEASURES, strict=True):
        part = lead[lead["measure"] == measure]
        norm = measure == "APer"
        value = part["best"] / part["TkMIA"] if norm else part["lead"]
        place = part["label"].map(order.index) + rng.uniform(-0.25, 0.25, len(part))
        for verdict, (colour, marker) in VERDICTS.items():
            at = part["verdict"] == verdict
            ax.scatter(
                value[at], place[at], marker=marker, color=colour, s=45,
                edgecolor="white", linewidth=0.4, zorder=3,
            )  # fmt: skip
        ax.axvline(1 if norm else 0, color="black", linewidth=1)
        ax.set_title("APer" if norm else "Δl" if measure == "delta_l" else f"Δ {measure}")
        ax.set_xlabel("best rival's over TkMIA's" if norm else "lead over the best rival")
        if norm:
            ax.set_xscale("log")
            _plain_log(ax.xaxis)
    axes[0, 0].set_yticks(range(len(order)), order)
    axes[0, 0].set_ylim(len(order) - 0.4, -0.6)
    for row in axes:
        row[0].set_ylabel("table of the paper")
    handles = [
        Line2D([], [], color=colour, marker=marker, linestyle="none", label=f"TkMIA {name}")
        for name, (colour, marker) in VERDICTS.items()
    ]
    fig.legend(handles=handles, loc="outside lower center", ncol=3, frameon=False)
    return fig


def norm_by_k(results: pd.DataFrame) -> Figure:
    """APer against k in S1, one line a type and method, one panel a data set."""
    rows = wide(results[results["scheme"] == "S1"])
    names = [name for name in DATASETS if (rows["dataset"] == name).any()]
    fig, axes = plt.subplots(
        1, len(names), figsize=(3.8 * len(names), 4.2), sharey=True, squeeze=False
    )
    for ax, dataset in zip(axes[0], names, strict=True):
        part = rows[rows["dataset"] == dataset]
        for (method, _), line in part.groupby(["method", "type"], sort=False):
            line = line.sort_values("k")
            ax.plot(
                line["k"].astype(int), line["APer"], color=LOOKS[method].colour,
                marker=LOOKS[method].marker, markersize=5, linewidth=1.2, alpha=0.85,
            )  # fmt: skip
        ax.set(title=dataset, xlabel="k", yscale="log")
        ax.set_xticks(sorted(part["k"].unique()))
    axes[0, 0].set_ylabel("APer, [-1, 1] pixels")
    _plain_log(axes[0, 0].yaxis)
    _methods_legend(fig)
    return fig


def change_by_norm(
    results: pd.DataFrame, unsound: pd.Series | None = None, *, measure: str = "NDCG@k"
) -> Figure:
    """A measure's change against APer, one mark a setting and method: the lower left is best.

    Parameters
    ----------
    results : pandas.DataFrame
        From :func:`tkmia_utils.paper.tables.load`.
    unsound : pandas.Series, optional
        bool, by row of `results`: values that the audit sets aside; their marks are ringed.
    measure : str
        One of the four.

    Returns
    -------
    matplotlib.figure.Figure
    """
    bad = results["value"].where(False if unsound is None else unsound, np.nan).notna()
    flagged = wide(results.assign(value=bad.astype(float)))
    rows = wide(results)
    ringed = flagged[[measure, "APer"]].max(axis=1).to_numpy() > 0
    shapes = {"S1": "full", "S2": "none"}
    fig, axes = plt.subplots(1, 3, figsize=(12, 4.4), sharey=True)
    for ax, dataset in zip(axes, DATASETS, strict=True):
        for method, look in LOOKS.items():
            for scheme, fill in shapes.items():
                at = (rows["dataset"] == dataset) & (rows["method"] == method)
                part = rows[at & (rows["scheme"] == scheme)]
                ax.plot(
                    part["APer"], part[measure], color=look.colour, marker=look.marker,
                    fillstyle=fill, linestyle="none", markersize=6,
                )  # fmt: skip
        part = rows[ringed & (rows["dataset"] == dataset)]
        ax.scatter(part["APer"], part[measure], s=170, facecolor="none", edgecolor="black")
        ax.axhline(0, color="black", linewidth=1)
        ax.set(title=dataset, xlabel="APer, [-1, 1] pixels", xscale="log")
        _plain_log(ax.xaxis)
        ax.xaxis.set_major_locator(LogLocator(subs=(1.0, 3.0)))
    axes[0].set_ylabel(f"Δ {measure}")
    extra = [
        Line2D([], [], color="black", marker="o", linestyle="none", label="S1, hidden type"),
        Line2D(
            [], [], color="black", marker="o", fillstyle="none", linestyle="none",
            label="S2, random labels",
        ),
    ]  # fmt: skip
    if ringed.any():
        extra.append(
            Line2D(
                [], [], color="black", marker="o", fillstyle="none", linestyle="none",
                markersize=13, label="set aside by the audit",
            )
        )  # fmt: skip
    _methods_legend(fig, extra)
    return fig


def _bars(ax: Axes, y: np.ndarray, part: pd.DataFrame, names: list[str], **look) -> None:
    middle, low, high = (part[name].to_numpy(dtype=float) for name in names)
    ends = np.clip([middle - low, high - middle], 0, None)
    ax.errorbar(middle, y, xerr=ends, linestyle="none", **look)


def beside(table: pd.DataFrame) -> Figure:
    """Ratios of TkMIA to each rival, the paper's and ours, one line a table of the paper.

    Parameters
    ----------
    table : pandas.DataFrame
        From :func:`tkmia_utils.paper.comparison.ratios`, of two quantities or more.

    Returns
    -------
    matplotlib.figure.Figure
    """
    table = table.assign(label=_labels(table))
    order = list(dict.fromkeys(table.sort_values(["scheme", "table"])["label"]))
    quantities = list(dict.fromkeys(table["quantity"]))
    rivals = [name for name in RIVALS if (table["rival"] == name).any()]
    size = (3.6 * len(rivals) + 1, (0.25 * len(order) + 1.1) * len(quantities) + 0.6)
    fig, axes = plt.subplots(len(quantities), len(rivals), figsize=size, sharey=True, squeeze=False)
    looks = {"theirs": ("#8A8A8A", "p", ("theirs", "least", "most"), -0.17)}
    looks["ours"] = ("#8C2D04", "*", ("ours", "low", "high"), 0.17)
    for line, quantity in zip(axes, quantities, strict=True):
        for ax, rival in zip(line, rivals, strict=True):
            part = table[(table["quantity"] == quantity) & (table["rival"] == rival)]
            y = part["label"].map(order.index).to_numpy(dtype=float)
            for colour, marker, names, shift in looks.values():
                _bars(
                    ax, y + shift, part, list(names), color=colour, marker=marker, markersize=5,
                    linewidth=1.4,
                )  # fmt: skip
            ax.axvline(1, color="black", linewidth=1)
            name = quantity if quantity == "APer" else f"Δ {quantity}"
            ax.set(
                title=f"{name}: TkMIA / {rival}", xscale="log" if quantity == "APer" else "linear"
            )
            if quantity == "APer":
                ax.xaxis.set_major_locator(LogLocator(subs=(1.0, 3.0)))
                ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
                ax.xaxis.set_minor_formatter(NullFormatter())
    axes[0, 0].set_yticks(range(len(order)), order)
    axes[0, 0].set_ylim(len(order) - 0.4, -0.6)
    words = {"theirs": "the paper: median, least and most of the table's settings"}
    words["ours"] = "ours, all cells of the scheme: ratio of means, 95 % interval"
    handles = [
        Line2D([], [], color=look[0], marker=look[1], label=words[name])
        for name, look in looks.items()
    ]
    fig.legend(handles=handles, loc="outside lower center", ncol=2, frameon=False)
    return fig
