"""How attacks and labels look in every figure, and the figures of a single image.

Colours are never alone: attacks differ in their markers, and kinds of label in glyph and lightness
too, so that the figures can be read by colour-blind people and in grey print. Figures over many
images are in :mod:`tkmia_utils.report.overview`.
"""

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from tkmia_utils.data import MultiLabelDataset
from tkmia_utils.report.ranking import Kind, Ranking, saved_ranking
from tkmia_utils.topk import ranks


@dataclass(frozen=True)
class Look:
    """How one kind of label is drawn."""

    colour: str
    marker: str
    glyph: str
    weight: str


@dataclass(frozen=True)
class MethodLook:
    """How an attack is named in figures and tables for readers, and how it is drawn."""

    name: str
    colour: str
    marker: str


# a dark red, a blue and a light grey: three hues, and three lightnesses in grey print
LOOKS: dict[Kind, Look] = {
    "specified": Look("#8C2D04", "X", "✕", "bold"),
    "relevant": Look("#0072B2", "o", "●", "bold"),
    "irrelevant": Look("#9A9A9A", "s", "□", "normal"),
}
# five colours of Okabe and Ito and three more, which also differ for red-green blind people
METHODS = {
    "tkmia": MethodLook("TkMIA", "#0072B2", "o"),
    "tkml_ap_u": MethodLook("TkML-AP-U", "#E69F00", "s"),
    "ml_cw_u": MethodLook("ML-CW-U", "#009E73", "D"),
    "kfool": MethodLook("kFool", "#000000", "^"),
    "gmla": MethodLook("GMLA", "#56B4E9", "v"),
    "tkmia_min": MethodLook("TkMIA-min", "#882255", "P"),
    "fgsm": MethodLook("FGSM", "#8DD3C7", "X"),
    "pgd": MethodLook("PGD", "#8C510A", "*"),
}
NAMES = {method: look.name for method, look in METHODS.items()}
FAILED = "#8A8A8A"  # what stands for an attack that did not hide its labels
FACTORS = (0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)  # by which a perturbation is magnified


def style() -> None:
    """Set what all figures have in common; a notebook's first cell calls it."""
    sns.set_theme(style="whitegrid", context="notebook", palette="colorblind")
    plt.rcParams.update({"axes.titlesize": "medium", "figure.constrained_layout.use": True})


def look_of(method: str) -> MethodLook:
    """Look of an attack; one that is not in :data:`METHODS` is drawn as a grey plus."""
    return METHODS.get(method, MethodLook(method, "#6E6E6E", "P"))


def named(frame: pd.DataFrame) -> pd.DataFrame:
    """Copy of a table for readers: attacks by name, in its cells, its index and its columns."""
    return frame.replace(NAMES).rename(index=NAMES, columns=NAMES)


def kinds_legend(ax: Axes, **where: object) -> None:
    """Explain the three kinds of label."""
    handles = [
        Line2D([], [], color=look.colour, marker=look.marker, linestyle="none", label=name)
        for name, look in LOOKS.items()
    ]
    ax.legend(handles=handles, frameon=False, **where)


def show_image(ax: Axes, image: torch.Tensor, title: str = "") -> None:
    """Draw an image ``(3, H, W)`` in [0, 1] without axes."""
    ax.imshow(image.permute(1, 2, 0).clamp(0, 1).numpy(), interpolation="nearest")
    ax.set_title(title)
    ax.set_axis_off()


def magnification(clean: torch.Tensor, adversarial: torch.Tensor) -> float:
    """Largest of :data:`FACTORS` at which 95 % of a perturbation's values are not clipped."""
    most = float(np.quantile((adversarial - clean).abs().numpy(), 0.95))
    return max((factor for factor in FACTORS if factor * most <= 0.5), default=FACTORS[0])


def magnified(
    clean: torch.Tensor, adversarial: torch.Tensor, *, factor: float = 100
) -> torch.Tensor:
    """Perturbation times `factor` around mid-grey, clipped to [0, 1], ``(3, H, W)``."""
    return (0.5 + factor * (adversarial - clean)).clamp(0, 1)


def text_colour(*, hidden: bool) -> str:
    """Colour of what is written about an attack: grey where it did not hide its labels."""
    return plt.rcParams["text.color"] if hidden else FAILED


def title_attack(ax: Axes, method: str, *, hidden: bool, detail: str = "") -> None:
    """Title the panel of an attack; one that failed is said to have failed, in grey."""
    name = look_of(method).name
    title = name if hidden else f"{name}: not hidden"
    ax.set_title(f"{title}\n{detail}".strip(), color=text_colour(hidden=hidden))


def show_list(
    ax: Axes, ranking: Ranking, *, depth: int = 8, title: str = "", faded: bool = False
) -> None:
    """Write the ranking list of one image, the top k above a line.

    `faded` marks the list of an attack that failed.
    """
    depth = min(depth, len(ranking.classes))
    ax.set_xlim(0, 1)
    ax.set_ylim(depth + 0.5, 0.4)
    ax.set_axis_off()
    ax.set_title(title)
    for place, (name, kind) in enumerate(ranking.named(ranking.order[:depth]), start=1):
        look = LOOKS[kind]
        text = f"{place}. {look.glyph} {name}"
        ax.text(
            0.03, place, text, color=look.colour, weight=look.weight, va="center", fontsize=10,
            alpha=0.45 if faded else 1,
        )  # fmt: skip
    ax.axhline(ranking.k + 0.5, color="black", linewidth=1.2)
    ax.text(0.98, ranking.k + 0.45, f"top {ranking.k}", ha="right", va="bottom", fontsize=9)


def comparison(
    clean: torch.Tensor,
    adversarial: torch.Tensor,
    ranking: Ranking,
    adversarial_logits: torch.Tensor,
    *,
    methods: Sequence[str] = ("tkmia",),
    delta: int | None = None,
) -> Figure:
    """The paper's qualitative figure: a clean image, and what each method made of it.

    Every perturbation is magnified so that it fills the range of grey, by the factor above it. The
    column of an attack that failed is grey: its measures are not credited to it.

    Parameters
    ----------
    clean : torch.Tensor
        ``(3, H, W)`` in [0, 1].
    adversarial : torch.Tensor
        ``(M, 3, H, W)`` in [0, 1], one a method.
    ranking : Ranking
        Of the clean image.
    adversarial_logits : torch.Tensor
        ``(M, C)``, one row a method.
    methods : sequence of str
        M identifiers.
    delta : int, optional
        How many labels of S have to be out of the top k for a success; default all.

    Returns
    -------
    matplotlib.figure.Figure
    """
    columns = 1 + len(methods)
    fig, axes = plt.subplots(3, columns, figsize=(2.05 * columns, 6.8), height_ratios=(1, 1, 1.3))
    needed = int(ranking.specified.sum()) if delta is None else delta
    show_image(axes[0, 0], clean, "clean image")
    axes[1, 0].set_axis_off()
    kinds_legend(axes[1, 0], loc="center")
    show_list(axes[2, 0], ranking)
    axes[2, 0].set_title(two_lines(ranking.measures), fontsize=9)
    for column, method, image, logits in zip(
        axes.T[1:], methods, adversarial, adversarial_logits, strict=True
    ):
        after = ranking.scored(logits)
        hidden = int((ranking.specified & ~after.shown).sum()) >= needed
        show_image(column[0], image)
        title_attack(column[0], method, hidden=hidden)
        factor, norm = magnification(clean, image), 2 * float((image - clean).norm())
        show_image(column[1], magnified(clean, image, factor=factor))
        column[1].set_title(f"×{factor:g}, ‖ε‖ = {norm:.2f}", fontsize=10)
        show_list(column[2], after, faded=not hidden)
        text = _changes(ranking, after) if hidden else "S is not hidden\n"
        column[2].set_title(text, fontsize=9, color=text_colour(hidden=hidden))
    return fig


def example(
    kept: Mapping[str, Mapping[str, np.ndarray]],
    cell: str,
    data: MultiLabelDataset,
    *,
    delta: int | None = None,
) -> Figure:
    """Draw :func:`comparison` for the saved image of one cell.

    Parameters
    ----------
    kept : mapping of str to arrays
        Method to what :func:`tkmia_utils.experiments.examples.load_examples` read; the first one's
        image is shown.
    cell : str
        Name of a cell.
    data : MultiLabelDataset
        Where the clean image is.
    delta : int, optional
        As for :func:`comparison`.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ValueError
        No example of that cell was saved.
    """
    at = {method: np.flatnonzero(arrays["cell"] == cell) for method, arrays in kept.items()}
    missing = [method for method, found in at.items() if not len(found)]
    if missing:
        raise ValueError(f"cell: no example of {cell!r} was saved by {missing}")
    rows = {method: {k: v[at[method][0]] for k, v in kept[method].items()} for method in kept}
    first = next(iter(rows.values()))
    position = data.ids.index(str(first["image"]))
    return comparison(
        data.images([position])[0],
        torch.stack([torch.as_tensor(row["adversarial"]) for row in rows.values()]),
        saved_ranking(first, data.classes),
        torch.stack([torch.as_tensor(row["adversarial_logits"]) for row in rows.values()]),
        methods=list(rows),
        delta=delta,
    )


def two_lines(values: Mapping[str, float]) -> str:
    """Four measures by name, two a line."""
    words = [f"{name} {value:.2f}" for name, value in values.items()]
    return "  ".join(words[:2]) + "\n" + "  ".join(words[2:])


def _changes(clean: Ranking, after: Ranking) -> str:
    """By how much an attack moved the measures, clean minus attacked as in the tables."""
    moved = after.measures
    return two_lines({f"Δ{name}": value - moved[name] for name, value in clean.measures.items()})


def rank_paths(ranking: Ranking, logits: torch.Tensor, *, ax: Axes | None = None) -> Figure:
    """Rank of every label by iteration; the specified ones sink below the line under rank k.

    Parameters
    ----------
    ranking : Ranking
        Of the clean image; its names are written at the right end.
    logits : torch.Tensor
        ``(T, C)``, one row an iteration.
    ax : matplotlib.axes.Axes, optional
        Draw here.

    Returns
    -------
    matplotlib.figure.Figure
    """
    if ax is None:
        _, ax = plt.subplots(figsize=(7.5, 0.26 * logits.shape[1] + 1.2))
    paths, k, classes = ranks(logits).numpy(), ranking.k, ranking.classes
    steps = np.arange(len(paths))
    for label in sorted(range(len(classes)), key=lambda c: bool(ranking.relevant[c])):
        kind = ranking.kind(label)
        look, main = LOOKS[kind], kind != "irrelevant"
        ax.plot(
            steps, paths[:, label], color=look.colour, marker=look.marker if main else None,
            markersize=5, linewidth=2 if main else 0.8, markevery=max(1, len(steps) // 10),
            clip_on=False,
        )  # fmt: skip
    ax.axhline(k + 0.5, color="black", linewidth=1.2)
    ax.set(xlabel="iteration", ylabel=f"rank (the line ends the top {k})")
    ax.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    ax.set_yticks([1, *range(5, len(classes) + 1, 5)])
    ax.set(xlim=(0, max(1, len(steps) - 1)), ylim=(len(classes) + 0.6, 0.4))
    ax.grid(visible=False)
    # the names are ticks of the right side, so that the layout leaves them just the room they need
    right = ax.secondary_yaxis("right")
    right.set_yticks(paths[-1], labels=classes, fontsize=9)
    right.tick_params(length=0, pad=6)
    for label, text in enumerate(right.get_yticklabels()):
        look = LOOKS[ranking.kind(label)]
        text.set(color=look.colour, weight=look.weight)
    return ax.figure


def image_grid(images: torch.Tensor, titles: Sequence[str], *, columns: int = 6) -> Figure:
    """Draw images ``(N, 3, H, W)`` in [0, 1] in a grid with small titles."""
    lines = -(-len(images) // columns)
    fig, axes = plt.subplots(lines, columns, figsize=(1.9 * columns, 2.15 * lines), squeeze=False)
    for ax in axes.flat:
        ax.set_axis_off()
    for ax, image, title in zip(axes.flat, images, titles, strict=False):
        show_image(ax, image)
        ax.set_title(textwrap.fill(title, 30), fontsize=8)
    return fig
