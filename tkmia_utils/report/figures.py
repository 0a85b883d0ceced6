"""The repository's figures: each function draws one and returns it, and computes nothing twice.

Three kinds of label are told apart by shape and by lightness as well as by colour, so that the
lists survive colour blindness and grey print.
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

from tkmia_utils import measures
from tkmia_utils.data import MultiLabelDataset
from tkmia_utils.topk import ranks


@dataclass(frozen=True)
class Look:
    """How one kind of label is drawn."""

    colour: str
    marker: str
    glyph: str
    weight: str


# a dark red, a blue and a light grey: three hues, and three lightnesses in grey print
LOOKS = {
    "specified": Look("#8C2D04", "X", "✕", "bold"),
    "relevant": Look("#0072B2", "o", "●", "bold"),
    "irrelevant": Look("#9A9A9A", "s", "□", "normal"),
}


def style() -> None:
    """Set the one look of every figure; called by a notebook's first cell."""
    sns.set_theme(style="whitegrid", context="notebook", palette="colorblind")
    plt.rcParams.update({"axes.titlesize": "medium", "figure.constrained_layout.use": True})


def kind(label: int, relevant: torch.Tensor, specified: torch.Tensor) -> str:
    """Which of :data:`LOOKS` a label has, given bool ``(C,)`` masks."""
    if specified[label]:
        return "specified"
    return "relevant" if relevant[label] else "irrelevant"


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


def magnified(
    clean: torch.Tensor, adversarial: torch.Tensor, *, factor: float = 100
) -> torch.Tensor:
    """Perturbation times `factor` around mid-grey, clipped to [0, 1], ``(3, H, W)``."""
    return (0.5 + factor * (adversarial - clean)).clamp(0, 1)


def show_list(
    ax: Axes,
    logits: torch.Tensor,
    relevant: torch.Tensor,
    specified: torch.Tensor,
    k: int,
    classes: Sequence[str],
    *,
    depth: int = 8,
    title: str = "",
) -> None:
    """Write the ranking list of one image ``(C,)``, the top k above a rule."""
    depth = min(depth, len(classes))
    ax.set_xlim(0, 1)
    ax.set_ylim(depth + 0.5, 0.4)
    ax.set_axis_off()
    ax.set_title(title)
    for place, label in enumerate(logits.argsort(descending=True)[:depth].tolist(), start=1):
        look = LOOKS[kind(label, relevant, specified)]
        text = f"{place}. {look.glyph} {classes[label]}"
        ax.text(0.03, place, text, color=look.colour, weight=look.weight, va="center", fontsize=10)
    ax.axhline(k + 0.5, color="black", linewidth=1.2)
    ax.text(0.98, k + 0.45, f"top {k}", ha="right", va="bottom", fontsize=9)


def comparison(
    clean: torch.Tensor,
    adversarial: torch.Tensor,
    clean_logits: torch.Tensor,
    adversarial_logits: torch.Tensor,
    relevant: torch.Tensor,
    specified: torch.Tensor,
    k: int,
    classes: Sequence[str],
    *,
    methods: Sequence[str] = ("TkMIA",),
    factor: float = 100,
) -> Figure:
    """The paper's qualitative figure: a clean image, and what each method made of it.

    Parameters
    ----------
    clean : torch.Tensor
        ``(3, H, W)`` in [0, 1].
    adversarial : torch.Tensor
        ``(M, 3, H, W)`` in [0, 1], one a method.
    clean_logits, adversarial_logits : torch.Tensor
        ``(C,)`` and ``(M, C)``.
    relevant, specified : torch.Tensor
        Bool ``(C,)``.
    k : int
        Of the top k.
    classes : sequence of str
        C names.
    methods : sequence of str
        M names.
    factor : float
        How much the perturbation is magnified.

    Returns
    -------
    matplotlib.figure.Figure
    """
    columns = 1 + len(methods)
    fig, axes = plt.subplots(3, columns, figsize=(2.6 * columns, 7.4), height_ratios=(1, 1, 1.1))
    lists = (relevant, specified, k, classes)
    show_image(axes[0, 0], clean, "clean image")
    axes[1, 0].set_axis_off()
    kinds_legend(axes[1, 0], loc="center")
    show_list(axes[2, 0], clean_logits, *lists, title=_changes(clean_logits, clean_logits, lists))
    for column, method, image, after in zip(
        axes.T[1:], methods, adversarial, adversarial_logits, strict=True
    ):
        show_image(column[0], image, method)
        norm = 2 * float((image - clean).norm())
        title = f"×{factor:g}, ‖ε‖ = {norm:.2f}"
        show_image(column[1], magnified(clean, image, factor=factor), title)
        show_list(column[2], after, *lists, title=_changes(clean_logits, after, lists))
    return fig


def example(
    kept: Mapping[str, Mapping[str, np.ndarray]], cell: str, data: MultiLabelDataset
) -> Figure:
    """Draw :func:`comparison` for the saved image of one cell.

    Parameters
    ----------
    kept : mapping of str to arrays
        Method to what :func:`tkmia_utils.experiments.protocol.load_examples` read; the first one's
        image is shown.
    cell : str
        Name of a cell.
    data : MultiLabelDataset
        Where the clean image is.

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
        torch.as_tensor(first["clean_logits"]),
        torch.stack([torch.as_tensor(row["adversarial_logits"]) for row in rows.values()]),
        torch.as_tensor(first["labels"]),
        torch.as_tensor(first["specified"]),
        int(first["k"]),
        data.classes,
        methods=list(rows),
    )


def _changes(clean: torch.Tensor, after: torch.Tensor, lists: tuple) -> str:
    """The measures of a list in two lines: values for the clean image, changes for another."""
    relevant, _, k, _ = lists
    same, sign = clean is after, "" if clean is after else "Δ"
    words = []
    for name, measure in measures.MEASURES.items():
        value = float(measure(clean[None], relevant[None], k)[0])
        if not same:
            value -= float(measure(after[None], relevant[None], k)[0])
        words.append(f"{sign}{name} {value:.2f}")
    return "  ".join(words[:2]) + "\n" + "  ".join(words[2:])


def rank_paths(
    logits: torch.Tensor,
    relevant: torch.Tensor,
    specified: torch.Tensor,
    k: int,
    classes: Sequence[str],
    *,
    ax: Axes | None = None,
) -> Figure:
    """Rank of every label by iteration; the specified ones sink below the rule at k.

    Parameters
    ----------
    logits : torch.Tensor
        ``(T, C)``, one row an iteration.
    relevant, specified : torch.Tensor
        Bool ``(C,)``.
    k : int
        Of the top k.
    classes : sequence of str
        C names, written at the right end.
    ax : matplotlib.axes.Axes, optional
        Draw here.

    Returns
    -------
    matplotlib.figure.Figure
    """
    if ax is None:
        _, ax = plt.subplots(figsize=(7.5, 0.26 * logits.shape[1] + 1.2))
    paths = ranks(logits).numpy()
    steps = np.arange(len(paths))
    for label in sorted(range(len(classes)), key=lambda c: bool(relevant[c])):
        name = kind(label, relevant, specified)
        look, main = LOOKS[name], name != "irrelevant"
        ax.plot(
            steps, paths[:, label], color=look.colour, marker=look.marker, markersize=5,
            linewidth=2 if main else 0.8, alpha=1 if main else 0.6,
            markevery=max(1, len(steps) // 12),
        )  # fmt: skip
        ax.text(
            len(steps) - 0.85 + 0.015 * len(steps), paths[-1, label], classes[label],
            color=look.colour, weight=look.weight, va="center", fontsize=9,
        )  # fmt: skip
    ax.axhline(k + 0.5, color="black", linewidth=1.2)
    ax.set(xlabel="iteration", ylabel="rank (the rule is at k)", ylim=(len(classes) + 0.6, 0.4))
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set_yticks([1, *range(5, len(classes) + 1, 5)])
    ax.set_xlim(-0.02 * len(steps), len(steps) * (1 + 1.3 / ax.get_window_extent().width * 100))
    ax.grid(visible=False, axis="y")
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


def measure_changes(rows: pd.DataFrame, scheme: str) -> Figure:
    """Mean change of the four measures in every cell of a scheme, one panel a measure.

    Parameters
    ----------
    rows : pandas.DataFrame
        From :func:`tkmia_utils.experiments.protocol.to_frame`, of one method or several.
    scheme : str
        "S1" or "S2".

    Returns
    -------
    matplotlib.figure.Figure
    """
    rows = rows[rows["scheme"] == scheme]
    names = [f"Delta {name}" for name in measures.MEASURES]
    cells = rows["cell"].unique()
    fig, axes = plt.subplots(
        1, len(names), figsize=(3.1 * len(names), 0.42 * len(cells) + 1.9), sharey=True, sharex=True
    )
    for i, (ax, name) in enumerate(zip(axes, names, strict=True)):
        sns.pointplot(
            rows, x=name, y="cell", hue="method", ax=ax, errorbar=("ci", 95), seed=0,
            linestyle="none", dodge=0.5 if rows["method"].nunique() > 1 else False,
            markers=["o", "s", "D", "^", "v"][: rows["method"].nunique()],
            err_kws={"linewidth": 1.5}, legend=i == 0,
        )  # fmt: skip
        ax.axvline(0, color="black", linewidth=1)
        ax.set(title=name.replace("Delta ", "Δ "), xlabel="mean change", ylabel="")
    handles, names = axes[0].get_legend_handles_labels()
    axes[0].get_legend().remove()
    fig.legend(handles, names, loc="outside lower center", ncol=len(names), frameon=False)
    return fig


def norms(rows: pd.DataFrame, scheme: str) -> Figure:
    """Norms of the successful perturbations in every cell of a scheme, one dot an image.

    Parameters
    ----------
    rows : pandas.DataFrame
        From :func:`tkmia_utils.experiments.protocol.to_frame`.
    scheme : str
        "S1" or "S2".

    Returns
    -------
    matplotlib.figure.Figure
    """
    rows = rows[(rows["scheme"] == scheme) & rows["success"]]
    methods = rows["method"].nunique()
    height = (0.2 + 0.14 * methods) * rows["cell"].nunique() + 1.3
    fig, ax = plt.subplots(figsize=(7.5, height))
    sns.boxplot(
        rows, x="l2_paper", y="cell", hue="method", ax=ax, fliersize=2, linewidth=1,
        legend=methods > 1,
    )  # fmt: skip
    ax.set(xlabel="‖ε‖ in the paper's [-1, 1] pixels (half of it in [0, 1] pixels)", ylabel="")
    # linear up to 1, logarithmic beyond: kFool's steps are of another size
    ax.set_xscale("symlog", linthresh=1)
    ax.set_xticks(
        [0, 0.5, 1, 2, 5, 10, 20, 50, 100], ["0", "0.5", "1", "2", "5", "10", "20", "50", "100"]
    )
    ax.set_xlim(0, max(1.0, rows["l2_paper"].max() * 1.1))
    if methods > 1:
        sns.move_legend(ax, "upper left", bbox_to_anchor=(1, 1), title=None, frameon=False)
    return fig
