"""The way from an image to its owner's measures, and where an attacker reaches in."""

from itertools import pairwise
from typing import Any

import matplotlib.pyplot as plt
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle, FancyArrowPatch, FancyBboxPatch, Rectangle

from tkmia_utils.report.figures import LOOKS
from tkmia_utils.report.ranking import Ranking

WIDTH = 17.0
MIDDLE = 2.1  # height of the line of arrows
SKIN = "#E8C9A8"


def pipeline_picture(ranking: Ranking, after: torch.Tensor) -> Figure:
    """Draw image, network, scores, top k, measure and owner, with a hand at the image.

    Parameters
    ----------
    ranking : Ranking
        Of a clean image, with few labels.
    after : torch.Tensor
        Scores of the same labels under attack, ``(C,)``.

    Returns
    -------
    matplotlib.figure.Figure
    """
    fig, ax = plt.subplots(figsize=(12, 4.1))
    ax.set(xlim=(0, WIDTH), ylim=(-0.3, 5.4), aspect="equal")
    ax.set_axis_off()
    _picture(ax, 0.3)
    _hand(ax, 1.3, 3.35)
    ax.text(2.35, 4.72, "attacker: changes pixels", color=LOOKS["specified"].colour, va="center")
    _network(ax, 3.1)
    _scores(ax, 5.9, ranking, after)
    _lists(ax, 9.0, ranking, after)
    _measures(ax, 12.1, ranking, after)
    _owner(ax, 15.9, same=ranking.measures == ranking.scored(after).measures)
    stages = {"image": 1.3, "network": 3.95, "scores": 7.1, f"top {ranking.k}": 10.15}
    stages |= {"measures": 13.2, "owner": 15.9}
    for name, x in stages.items():
        ax.text(x, 0.05, name, ha="center", va="center", weight="bold")
    for start, end in ((2.35, 3.1), (4.95, 5.7), (8.35, 9.0), (11.3, 12.0), (14.5, 15.3)):
        _arrow(ax, (start, MIDDLE), (end, MIDDLE))
    return fig


def _arrow(ax: Axes, start: tuple[float, float], end: tuple[float, float]) -> None:
    look: dict[str, Any] = dict(arrowstyle="-|>", mutation_scale=16, linewidth=1.6, color="0.25")
    ax.add_patch(FancyArrowPatch(start, end, shrinkA=2, shrinkB=2, **look))


def _picture(ax: Axes, x: float) -> None:
    """An image of a room: a person, a dog, a sofa, a chair, and a coarse grid of pixels."""
    side, floor = 2.0, 1.1
    ax.add_patch(Rectangle((x, floor), side, side, facecolor="#F3F3F3", edgecolor="0.25"))
    ax.add_patch(Rectangle((x, floor), side, 0.5, facecolor="#D9D9D9"))
    ax.add_patch(Circle((x + 0.55, floor + 1.45), 0.2, color="0.3"))
    ax.add_patch(Rectangle((x + 0.33, floor + 0.4), 0.44, 0.85, color="0.3"))
    soft: dict[str, Any] = dict(boxstyle="round,pad=0.03", facecolor="0.6", edgecolor="none")
    for low in (0.35, 0.6):  # seat and back of the sofa
        ax.add_patch(FancyBboxPatch((x + 0.85, floor + low), 0.55, 0.2, **soft))
    ax.add_patch(Rectangle((x + 1.58, floor + 0.55), 0.3, 0.07, color="0.4"))  # the chair
    for left, high in ((1.58, 0.22), (1.82, 0.75)):
        ax.add_patch(Rectangle((x + left, floor + 0.33), 0.06, high, color="0.4"))
    ax.add_patch(Rectangle((x + 0.95, floor + 0.14), 0.34, 0.14, color="0.2"))  # the dog
    ax.add_patch(Circle((x + 1.34, floor + 0.3), 0.09, color="0.2"))
    for left in (0.97, 1.22):
        ax.add_patch(Rectangle((x + left, floor + 0.04), 0.05, 0.12, color="0.2"))
    for i in range(1, 10):
        line: dict[str, Any] = dict(color="white", linewidth=0.5, zorder=1)
        ax.plot([x + side * i / 10] * 2, [floor, floor + side], **line)
        ax.plot([x, x + side], [floor + side * i / 10] * 2, **line)


def _hand(ax: Axes, x: float, y: float) -> None:
    """A hand from above with its forefinger on a point just under ``(x, y)``."""
    look: dict[str, Any] = dict(facecolor=SKIN, edgecolor="0.25", linewidth=1.2)
    round_box = "round,pad=0,rounding_size=0.11"
    ax.add_patch(FancyBboxPatch((x - 0.11, y - 0.75), 0.22, 1.2, boxstyle=round_box, **look))
    for i, length in enumerate((0.45, 0.4, 0.33)):  # the other fingers are bent
        left = x + 0.13 + 0.23 * i
        box = FancyBboxPatch((left, y + 0.35 - length), 0.21, length + 0.2, boxstyle=round_box)
        box.set(**look)
        ax.add_patch(box)
    ax.add_patch(FancyBboxPatch((x - 0.13, y + 0.3), 0.95, 0.65, boxstyle=round_box, **look))
    sleeve: dict[str, Any] = dict(facecolor=LOOKS["specified"].colour, edgecolor="0.25", hatch="xx")
    ax.add_patch(Rectangle((x - 0.18, y + 0.95), 1.05, 0.9, **sleeve))


def _network(ax: Axes, x: float) -> None:
    """Three layers of units, all joined."""
    layers = [(x + 0.15 + 0.75 * i, n) for i, n in enumerate((4, 5, 3))]
    places = [[(at, MIDDLE + 0.42 * (j - (n - 1) / 2)) for j in range(n)] for at, n in layers]
    for left, right in pairwise(places):
        for a in left:
            for b in right:
                ax.plot([a[0], b[0]], [a[1], b[1]], color="0.75", linewidth=0.6, zorder=1)
    for layer in places:
        for place in layer:
            ax.add_patch(Circle(place, 0.12, facecolor="white", edgecolor="0.25", zorder=2))


def _scores(ax: Axes, x: float, ranking: Ranking, after: torch.Tensor) -> None:
    """Bars of the scores: outlines on the clean image, filled under attack."""
    top, scale = 3.3, 1.5 / float(max(ranking.logits.max(), after.max()))
    step = 2.4 / len(ranking.classes)
    for place, label in enumerate(ranking.order):
        look = LOOKS[ranking.kind(label)]
        y = top - step * (place + 1)
        clean, attacked = (scale * float(scores[label]) for scores in (ranking.logits, after))
        bar: dict[str, Any] = dict(height=0.62 * step, facecolor=look.colour, alpha=0.85)
        ax.add_patch(Rectangle((x + 0.9, y), attacked, **bar))
        outline: dict[str, Any] = dict(fill=False, edgecolor="black", linestyle="--", linewidth=1.1)
        ax.add_patch(Rectangle((x + 0.9, y), clean, 0.62 * step, **outline))
        ax.text(
            x + 0.82, y + 0.31 * step, ranking.classes[label], ha="right", va="center",
            fontsize=10, color=look.colour, weight=look.weight,
        )  # fmt: skip
    ax.text(x + 1.2, 0.62, "dashed: clean", ha="center", va="center", fontsize=9)


def _lists(ax: Axes, x: float, ranking: Ranking, after: torch.Tensor) -> None:
    """The top k before and after, one over the other: what a user sees."""
    for title, one, y in (
        ("clean", ranking, MIDDLE + 0.25),
        ("attacked", ranking.scored(after), MIDDLE - 1.45),
    ):
        box = FancyBboxPatch((x + 0.1, y), 2.1, 1.25, boxstyle="round,pad=0.05")
        box.set(facecolor="white", edgecolor="0.25", linewidth=1.2)
        ax.add_patch(box)
        ax.text(x + 2.15, y + 1.2, title, ha="right", va="top", fontsize=8, style="italic")
        for place, (name, kind) in enumerate(one.named(one.order[: one.k])):
            look = LOOKS[kind]
            height = y + 1.25 * (1 - (place + 0.5) / one.k)
            ax.text(
                x + 0.2, height, f"{place + 1}. {look.glyph} {name}",
                va="center", fontsize=10, color=look.colour, weight=look.weight,
            )  # fmt: skip
    ax.text(x + 1.15, MIDDLE + 1.85, "what a user sees", ha="center", fontsize=10)


def _measures(ax: Axes, x: float, ranking: Ranking, after: torch.Tensor) -> None:
    """Each measure, clean and attacked."""
    before, attacked = ranking.measures, ranking.scored(after).measures
    for place, (name, value) in enumerate(before.items()):
        y = MIDDLE + 0.75 - 0.5 * place
        ax.text(x, y, name.replace("@k", f"@{ranking.k}"), va="center", fontsize=10)
        text = f"{value:.2f} → {attacked[name]:.2f}"
        ax.text(x + 2.25, y, text, va="center", ha="right", fontsize=10)


def _owner(ax: Axes, x: float, *, same: bool) -> None:
    """A person who looks at the measures only, and thinks what they say."""
    ax.add_patch(Circle((x, MIDDLE + 0.55), 0.28, color="0.3"))
    body = FancyBboxPatch((x - 0.4, MIDDLE - 0.75), 0.8, 0.85, boxstyle="round,pad=0.05")
    body.set(facecolor="0.3", edgecolor="none")
    ax.add_patch(body)
    ax.text(x, MIDDLE + 1.2, "“as always”" if same else "“what is this?”", ha="center", fontsize=10)
