"""Figures over many attacked images: what happened to the measures, and how large a norm it took.

An attack that fails leaves the measures where they were, and so seems to hide well. Cells in which
an attack succeeds on fewer than half of the images are therefore drawn hollow, single failures
grey.
"""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from tkmia_utils.report.figures import FAILED, look_of
from tkmia_utils.report.tables import CHANGES

HALF = 0.5  # the success rate below which a mark is hollow
QUANTILES = [0.05, 0.25, 0.5, 0.75, 0.95]
LINES = ("-", "--", ":", "-.")
SHAPES = ("o", "X", "s", "D", "^")


def measure_changes(table: pd.DataFrame, scheme: str) -> Figure:
    """Mean change of the four measures in every cell of a scheme, one panel a measure.

    Parameters
    ----------
    table : pandas.DataFrame
        From :func:`tkmia_utils.report.tables.summary`, of one method or several.
    scheme : str
        "S1" or "S2".

    Returns
    -------
    matplotlib.figure.Figure
        With the table's 95 % intervals.
    """
    table = table[table["scheme"] == scheme]
    names = [name.replace("AP@k", "mAP@k") for name in CHANGES]
    methods = list(table["method"].unique())
    height = _height(table["cell"].nunique(), len(methods))
    fig, axes = plt.subplots(1, len(names), figsize=(12, height), sharey=True, sharex=True)
    for ax, name in zip(axes, names, strict=True):
        ax.axvline(0, color="black", linewidth=1)
        for method, place, part in _by_method(ax, table):
            ends = (part[name], part[f"{name} low"], part[f"{name} high"])
            _intervals(ax, place, *ends, method=method, success=part["success"])
        ax.set(title=name.replace("Delta ", "Δ "), xlabel="mean change")
    _legend(fig, methods, hollow=bool((table["success"] < HALF).any()))
    return fig


def norms(rows: pd.DataFrame, scheme: str) -> Figure:
    """Norms of the successful perturbations in every cell of a scheme.

    Parameters
    ----------
    rows : pandas.DataFrame
        From :func:`tkmia_utils.experiments.protocol.to_frame`.
    scheme : str
        "S1" or "S2".

    Returns
    -------
    matplotlib.figure.Figure
        A mark at the median, a thick line over the middle half of the images and a thin one from
        the 5th to the 95th percentile.
    """
    rows = rows[rows["scheme"] == scheme]
    keys, methods = ["cell", "method"], list(rows["method"].unique())
    success = rows.groupby(keys, sort=False)["success"].mean()
    won = rows[rows["success"]].groupby(keys, sort=False)["l2_paper"]
    table = won.quantile(QUANTILES).unstack().reindex(success.index)
    table = table.assign(success=success).reset_index()
    fig, ax = plt.subplots(figsize=(9, _height(table["cell"].nunique(), len(methods))))
    for method, place, part in _by_method(ax, table):
        least, low, middle, high, most = (part[q] for q in QUANTILES)
        look = {"method": method, "success": part["success"]}
        _intervals(ax, place, middle, least, most, linewidth=1, **look)
        _intervals(ax, place, middle, low, high, linewidth=3, **look)
    # linear up to 1, logarithmic beyond: kFool's steps are of another size
    ax.set_xscale("symlog", linthresh=1)
    ticks = [0, 0.5, 1, 2, 5, 10, 20, 50, 100]
    ax.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    ax.set_xlim(0, max(1.0, np.nanmax([1.0, table[QUANTILES[-1]].max()]) * 1.1))
    ax.set_xlabel("‖ε‖ in the paper's [-1, 1] pixels (half of it in [0, 1] pixels)")
    _legend(fig, methods, hollow=bool((success < HALF).any()))
    return fig


def progress(rows: pd.DataFrame) -> Figure:
    """Share of images that have succeeded after so many iterations; who never does stays below 1.

    Parameters
    ----------
    rows : pandas.DataFrame
        From :func:`tkmia_utils.experiments.protocol.to_frame`, of one method at one limit.

    Returns
    -------
    matplotlib.figure.Figure
        Three panels: S1 by type, S1 by k, S2 by cell.
    """
    panels = [("S1", "type", "S1, by type"), ("S1", "k", "S1, by k"), ("S2", "cell", "S2")]
    last = rows.loc[rows["success"], "iterations"].max() if rows["success"].any() else 1
    fig, axes = plt.subplots(1, 3, figsize=(12, 3.9), sharey=True)
    for ax, (scheme, column, title) in zip(axes, panels, strict=True):
        groups = rows[rows["scheme"] == scheme].groupby(column, sort=column == "k")
        for i, (name, part) in enumerate(groups):
            steps = np.sort(part.loc[part["success"], "iterations"])
            share = np.arange(len(steps) + 1) / len(part)
            ax.step(
                [0, *steps, last * 1.02], [*share, share[-1]], where="post",
                linestyle=LINES[i % len(LINES)], label=f"k = {name}" if column == "k" else name,
            )  # fmt: skip
        ax.set(title=title, xlim=(0, last * 1.02), ylim=(0, 1.02), xlabel="iterations")
        if len(groups):
            ax.legend(loc="lower right", frameon=False)
    axes[0].set_ylabel("share of images succeeded")
    return fig


def costs(rows: pd.DataFrame, *, change: str = "Delta NDCG@k", jitter: float = 0.02) -> Figure:
    """A measure's change against the norm, one mark an image, one panel a scheme.

    Parameters
    ----------
    rows : pandas.DataFrame
        From :func:`tkmia_utils.experiments.protocol.to_frame`, of one method.
    change : str
        Column of the change.
    jitter : float
        Most by which a mark is moved up or down, because many images share one value.

    Returns
    -------
    matplotlib.figure.Figure
        All panels share their axes, and colour and marker of each k. Failures are grey and hollow.
    """
    schemes, ks = list(rows["scheme"].unique()), sorted(rows["k"].unique())
    moved = np.random.default_rng(0).uniform(-jitter, jitter, len(rows))
    rows = rows.assign(shown=rows[change] + moved)
    size = (5.3 * len(schemes) + 1, 4)
    fig, axes = plt.subplots(1, len(schemes), figsize=size, sharex=True, sharey=True, squeeze=False)
    colours = plt.get_cmap("viridis")(np.linspace(0, 0.75, len(ks)))  # dark to light
    handles = []
    for i, k in enumerate(ks):
        look = {"marker": SHAPES[i % len(SHAPES)], "linestyle": "none", "markersize": 5.5}
        handles.append(Line2D([], [], color=colours[i], label=f"k = {k}", **look))
        for ax, scheme in zip(axes[0], schemes, strict=True):
            part = rows[(rows["scheme"] == scheme) & (rows["k"] == k)]
            for won, paint in ((True, {"color": colours[i]}), (False, {"color": FAILED})):
                at = part["success"] == won
                fill = {"alpha": 0.6, "markeredgewidth": 0} if won else {"fillstyle": "none"}
                ax.plot(part["l2_paper"][at], part["shown"][at], **look, **paint, **fill)
    for ax, scheme in zip(axes[0], schemes, strict=True):
        ax.axhline(0, color="black", linewidth=1, zorder=1)
        ax.set(title=scheme, xlabel="‖ε‖ (paper's [-1, 1] pixels)")
    axes[0, 0].set_ylabel(f"{change.replace('Delta', 'Δ')}, clean − adversarial")
    if not rows["success"].all():
        look = {"marker": "o", "fillstyle": "none", "linestyle": "none"}
        handles.append(Line2D([], [], color=FAILED, label="not hidden", **look))
    fig.legend(handles=handles, loc="outside right center", frameon=False)
    return fig


def _height(cells: int, methods: int) -> float:
    return (0.16 + 0.1 * methods) * cells + 1.5


def _by_method(ax: Axes, table: pd.DataFrame):
    """Each method with its lines of the table and their places, the cells one below the other."""
    cells, methods = list(table["cell"].unique()), list(table["method"].unique())
    ax.set_yticks(range(len(cells)), cells)
    ax.set_ylim(len(cells) - 0.5, -0.5)
    ax.grid(visible=False, axis="y")
    for i in range(0, len(cells), 2):
        ax.axhspan(i - 0.5, i + 0.5, color="black", alpha=0.04, linewidth=0)
    for i, method in enumerate(methods):
        part = table[table["method"] == method]
        shift = (i - (len(methods) - 1) / 2) * 0.8 / len(methods)
        yield method, part["cell"].map(cells.index).to_numpy() + shift, part


def _intervals(
    ax: Axes,
    place: np.ndarray,
    middle: pd.Series,
    low: pd.Series,
    high: pd.Series,
    *,
    method: str,
    success: pd.Series,
    linewidth: float = 1.5,
) -> None:
    """Marks with intervals; hollow where fewer than half of the attacks succeed."""
    look = look_of(method)
    for fill, at in (("full", success >= HALF), ("none", success < HALF)):
        at = at.to_numpy()
        ends = np.clip([(middle - low)[at], (high - middle)[at]], 0, None)
        marks = ax.errorbar(
            middle[at], place[at], xerr=ends, color=look.colour, marker=look.marker,
            markersize=6, markerfacecolor=look.colour if fill == "full" else "white",
            linestyle="none", linewidth=linewidth,
        )  # fmt: skip
        marks.lines[0].set_zorder(3)  # above all lines


def _legend(fig: Figure, methods: list[str], *, hollow: bool) -> None:
    looks = [look_of(method) for method in methods]
    handles = [
        Line2D([], [], color=look.colour, marker=look.marker, linestyle="none", label=look.name)
        for look in looks
    ]
    if hollow:
        label = "hollow: fewer than half hidden"
        empty = {"marker": "o", "fillstyle": "none", "linestyle": "none"}
        handles.append(Line2D([], [], color="black", label=label, **empty))
    fig.legend(handles=handles, loc="outside lower center", ncol=len(handles), frameon=False)
