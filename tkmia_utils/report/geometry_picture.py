"""Scores of three labels as points of a plane, and the borders where the top-k set changes."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from tkmia_utils.report.figures import LOOKS
from tkmia_utils.report.ranking import Kind

AXES = np.array([[math.cos(a), math.sin(a)] for a in np.deg2rad([90.0, 210.0, 330.0])])
"""Direction in which a point moves if one of the three scores grows, ``(3, 2)``."""
PATHS = (("black", "o", "-"), ("#D55E00", "s", "--"), ("#009E73", "^", ":"))
OUT = "#DCEBF5"


def in_plane(scores: torch.Tensor) -> np.ndarray:
    """Place of three scores in the plane.

    What is added to all three leaves the place, as it leaves the ranking.

    Parameters
    ----------
    scores : torch.Tensor
        ``(..., 3)``.

    Returns
    -------
    numpy.ndarray
        ``(..., 2)``.
    """
    places: np.ndarray = scores.detach().cpu().double().numpy() @ AXES
    return places


def geometry_picture(
    paths: Mapping[int, Mapping[str, torch.Tensor]],
    names: Sequence[str],
    kinds: Sequence[Kind],
    *,
    reach: float = 2.4,
) -> Figure:
    """Draw paths through the scores of three labels, one panel for each k.

    Parameters
    ----------
    paths : mapping of int to mapping of str to torch.Tensor
        For k = 1 or 2, paths by name: scores after each step, ``(T, 3)``; all begin at the first
        path's first point.
    names : sequence of str
        The three labels.
    kinds : sequence of str
        What each is: specified, relevant or irrelevant.
    reach : float
        Of the plane, from its middle.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ValueError
        A k that is neither 1 nor 2, or not three labels.
    """
    if not set(paths) <= {1, 2}:
        raise ValueError(f"paths: with three labels k is 1 or 2, got {sorted(paths)}")
    if not len(names) == len(kinds) == 3:
        raise ValueError(f"names, kinds: expected three, got {len(names)} and {len(kinds)}")
    fig, axes = plt.subplots(1, len(paths), figsize=(6.2 * len(paths), 5.6), squeeze=False)
    for ax, (k, named) in zip(axes.flat, paths.items(), strict=True):
        _plane(ax, k, names, kinds, reach)
        for (name, path), (colour, marker, line) in zip(named.items(), PATHS, strict=False):
            _path(ax, in_plane(path), name, colour, marker, line)
        start = in_plane(next(iter(named.values()))[0])
        ax.plot(*start, "*", color="black", markersize=17, linestyle="none", label="clean scores")
        ax.add_patch(Rectangle((0, 0), 0, 0, color=OUT, label="specified label is out"))
        ax.set_title(f"k = {k}: a region, and the label" + ("" if k == 1 else "s") + " it shows")
        ax.legend(frameon=True, loc="upper center", bbox_to_anchor=(0.5, -0.01), ncols=2)
    return fig


def _plane(ax: Axes, k: int, names: Sequence[str], kinds: Sequence[Kind], reach: float) -> None:
    """Regions that show different labels, the borders between them, and where order changes."""
    ax.set(xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal")
    ax.set_axis_off()
    fine = np.linspace(-reach, reach, 601)
    points = np.stack(np.meshgrid(fine, fine), axis=-1) @ AXES.T
    shows = np.argsort(-points, axis=-1)[..., :k]
    hidden = [i for i, kind in enumerate(kinds) if kind == "specified"]
    out = ~np.isin(shows, hidden).any(axis=-1)
    ax.contourf(fine, fine, out, levels=[-0.5, 0.5, 1.5], colors=["white", OUT], zorder=0)
    sign = 1 if k == 1 else -1  # for k = 2 a region belongs to the label that is not shown
    for i, direction in enumerate(AXES):
        border = -3 * sign * reach * direction
        ax.plot([0, border[0]], [0, border[1]], color="0.15", linewidth=2.5, zorder=2)
        ax.plot([0, -border[0]], [0, -border[1]], color="0.7", linewidth=1, ls="--", zorder=1)
        shown = [i] if k == 1 else [j for j in range(3) if j != i]
        x, y = (0.8 * reach * sign * direction).tolist()
        words = [f"{LOOKS[kinds[j]].glyph} {names[j]}" for j in shown]
        look: dict[str, Any] = dict(ha="center", va="center", weight="bold", fontsize=11, zorder=4)
        ax.text(x, y, "\n".join(words), **look, bbox=dict(color="white", alpha=0.7, pad=2))


def _path(ax: Axes, places: np.ndarray, name: str, colour: str, marker: str, line: str) -> None:
    """Steps as dots on a line, the last one larger."""
    look: dict[str, Any] = dict(color=colour, linewidth=1.8, zorder=5)
    ax.plot(*places.T, line, marker=marker, markersize=4, label=name, **look)
    ax.plot(*places[-1], marker, color=colour, markersize=11, fillstyle="none", mew=2, zorder=6)
