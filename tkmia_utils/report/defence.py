"""Figures of what a defence is worth: who gets through it, what is proved beside what breaks."""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from tkmia_utils.experiments.defence import ADAPTIVE, IDENTITY, UNAWARE
from tkmia_utils.report.overview import LINES, SHAPES

# by colour, marker and fill: three that differ in grey print too
ATTACKERS = {
    UNAWARE: ("#6E6E6E", "o", "none"),
    IDENTITY: ("#E69F00", "s", "full"),
    ADAPTIVE: ("#882255", "P", "full"),
}
VICTIMS = ("#0072B2", "#D55E00", "#009E73", "#000000")
PROVED, OPEN, BROKEN = "#0072B2", "#E8E8E8", "#F2A47C"
NOT_HIDDEN = "∞"


def transformations(table: pd.DataFrame) -> Figure:
    """Share of images on which each attacker succeeds, and the norm it takes, a line a defence.

    Parameters
    ----------
    table : pandas.DataFrame
        Columns ``defence, attacker``, and ``kept`` and ``norm`` with their `` low`` and `` high``:
        from :func:`tkmia_utils.experiments.defence.summary`. An infinite median stands at the
        right edge.

    Returns
    -------
    matplotlib.figure.Figure
        With 95 % intervals.
    """
    names = list(dict.fromkeys(table["defence"]))
    attackers = [name for name in ATTACKERS if name in set(table["attacker"])]
    fig, axes = plt.subplots(1, 2, figsize=(11, 0.62 * len(names) + 1.6), sharey=True)
    ends = table[["norm", "norm low", "norm high"]].to_numpy(dtype=float)
    most = 1.15 * float(ends[np.isfinite(ends)].max(initial=0.0)) or 1.0
    for ax, column, limit in zip(axes, ("kept", "norm"), (1.0, most), strict=True):
        _bands(ax, names)
        for i, attacker in enumerate(attackers):
            part = table[table["attacker"] == attacker]
            y = part["defence"].map(names.index) + 0.24 * (i - (len(attackers) - 1) / 2)
            values = [part[f"{column}{end}"].clip(upper=limit) for end in ("", " low", " high")]
            middle, low, high = (value.to_numpy(dtype=float) for value in values)
            colour, marker, fill = ATTACKERS[attacker]
            ax.errorbar(
                middle, y, xerr=np.clip([middle - low, high - middle], 0, None), color=colour,
                marker=marker, markersize=7, fillstyle=fill, linestyle="none", linewidth=1.3,
                label=attacker, clip_on=False,
            )  # fmt: skip
    axes[0].set(xlim=(-0.02, 1.02), title="hidden, and no measure fell")
    axes[0].set_xlabel("share of images whose labels are shown there")
    axes[1].set(xlim=(0, most), title="median norm, failures included")
    axes[1].set_xlabel("‖ε‖ in [0, 1] pixels")
    if np.isinf(table["norm"]).any():
        ticks = [tick for tick in axes[1].get_xticks() if tick < 0.93 * most]
        axes[1].set_xticks([*ticks, most], [*(f"{tick:g}" for tick in ticks), NOT_HIDDEN])
    handles = axes[0].get_legend_handles_labels()
    fig.legend(*handles, loc="outside lower center", ncol=len(attackers), frameon=False)
    return fig


def success_by_norm(rows: pd.DataFrame, *, most: float | None = None) -> Figure:
    """Share of images that an attack has solved within a norm, one line a model.

    Parameters
    ----------
    rows : pandas.DataFrame
        Columns ``model`` and ``norm`` (inf for a failure), one row an image.
    most : float, optional
        Right end of the axis; default the largest finite norm.

    Returns
    -------
    matplotlib.figure.Figure
        A mark at each median.
    """
    fig, ax = plt.subplots(figsize=(7, 4))
    finite = rows.loc[np.isfinite(rows["norm"]), "norm"]
    most = most or 1.03 * float(finite.max() if len(finite) else 0.0) or 1.0
    for i, (name, part) in enumerate(rows.groupby("model", sort=False)):
        norms = np.sort(part["norm"])
        share = np.arange(len(norms) + 1) / len(norms)
        colour, line = VICTIMS[i % len(VICTIMS)], LINES[i % len(LINES)]
        within = np.searchsorted(norms, most, side="right")
        x, y = [0, *norms[:within], most], [*share[: within + 1], share[within]]
        ax.step(x, y, where="post", color=colour, linestyle=line)
        middle = float(np.median(norms))
        label = f"{name}: median {middle:.2f}" if np.isfinite(middle) else f"{name}: under half"
        shape = SHAPES[i % len(SHAPES)]
        ax.plot([], [], label=label, color=colour, linestyle=line, marker=shape)
        if middle <= most:
            ax.plot(middle, 0.5, color=colour, marker=shape, markersize=8)
    ax.set(xlim=(0, most), ylim=(0, 1.02), xlabel="‖ε‖ in [0, 1] pixels")
    ax.set_ylabel("share of images: hidden, no measure fell")
    ax.legend(loc="lower right")
    return fig


def gap(rows: pd.DataFrame, *, most: float | None = None) -> Figure:
    """What is proved and what is broken on the same images, one panel a model.

    Parameters
    ----------
    rows : pandas.DataFrame
        Columns ``model, proved, broken``, one row an image: the L2 norm up to which the label
        certainly stays, and the norm at which an attack has put it out (inf if none has).
    most : float, optional
        Right end of the axis; default the largest finite norm.

    Returns
    -------
    matplotlib.figure.Figure
        Over each norm, from below: the share of images whose label is proved to stay, of those
        nobody knows about, and of those an attack has broken.
    """
    names = list(dict.fromkeys(rows["model"]))
    finite = rows.loc[np.isfinite(rows["broken"]), "broken"]
    most = most or 1.05 * float(max(finite.max() if len(finite) else 0.0, rows["proved"].max()))
    at = np.linspace(0, most or 1.0, 801)
    size = (3.7 * len(names) + 0.6, 3.9)
    fig, axes = plt.subplots(1, len(names), figsize=size, sharey=True, squeeze=False)
    for ax, name in zip(axes[0], names, strict=True):
        part = rows[rows["model"] == name]
        proved, broken = (part[column].to_numpy(dtype=float) for column in ("proved", "broken"))
        safe = (np.maximum(proved, 0) > at[:, None]).mean(1)
        standing = (broken > at[:, None]).mean(1)
        ax.fill_between(at, 0, safe, color=PROVED, linewidth=0)
        ax.fill_between(at, safe, standing, facecolor=OPEN, edgecolor="#9A9A9A", hatch="//",
                        linewidth=0)  # fmt: skip
        ax.fill_between(at, np.maximum(safe, standing), 1, color=BROKEN, linewidth=0)
        ax.plot(at, standing, color="black", linewidth=1.3)
        ax.plot(at, safe, color="black", linewidth=1.3)
        ax.set(title=f"{name}\n{_medians(proved, broken)}", xlim=(0, at[-1]), ylim=(0, 1))
        ax.grid(visible=False)
        ax.xaxis.set_major_locator(MaxNLocator(4))
    axes[0, 0].set_ylabel("share of images")
    axes[0, len(names) // 2].set_xlabel("L2 norm of the perturbation, in [0, 1] pixels")
    handles = [
        Patch(facecolor=PROVED, label="proved: the label stays"),
        Patch(facecolor=OPEN, edgecolor="#9A9A9A", hatch="//", label="neither"),
        Patch(facecolor=BROKEN, label="broken: an attack hides it"),
    ]
    fig.legend(handles=handles, loc="outside lower center", ncol=3, frameon=False)
    return fig


def _medians(proved: np.ndarray, broken: np.ndarray) -> str:
    texts = [
        f"{np.median(values):.2f}" if np.isfinite(np.median(values)) else NOT_HIDDEN
        for values in (proved, broken)
    ]
    return f"medians: proved {texts[0]}, broken {texts[1]}"


def _bands(ax: Axes, names: Sequence[str]) -> None:
    ax.set_yticks(range(len(names)), names)
    ax.set_ylim(len(names) - 0.5, -0.5)
    ax.grid(visible=False, axis="y")
    for i in range(0, len(names), 2):
        ax.axhspan(i - 0.5, i + 0.5, color="black", alpha=0.04, linewidth=0)
