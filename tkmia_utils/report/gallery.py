"""A gallery of typical successes and typical failures, one image a method, chosen by a rule.

The rule: of all rows of a method at one iteration limit, the median success and the median failure
by norm (the lower of two medians). These rows are found in saved results, and only they are
attacked once more to get their images.
"""

import json
from collections.abc import Mapping
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from tkmia_utils.data import MultiLabelDataset
from tkmia_utils.experiments import campaign, protocol, tuning
from tkmia_utils.experiments.protocol import Queue
from tkmia_utils.report.figures import (
    LOOKS,
    look_of,
    show_image,
    show_list,
    text_colour,
    title_attack,
)
from tkmia_utils.victims.store import Victim
from tkmia_utils.workspace import MANIFEST, Workspace

KINDS = {True: "typical success", False: "typical failure"}


def median_rows(rows: pd.DataFrame) -> pd.DataFrame:
    """The median success and the median failure of every method, by norm.

    Parameters
    ----------
    rows : pandas.DataFrame
        From :func:`tkmia_utils.experiments.protocol.to_frame`, at one iteration limit, methods one
        below the other.

    Returns
    -------
    pandas.DataFrame
        One row a method and kind that there is, the row's own columns and ``of`` (how many rows of
        that kind the method has) and ``position`` (of the row among the method's own).

    Raises
    ------
    ValueError
        More than one iteration limit.
    """
    if "max_iter" in rows and rows["max_iter"].nunique() > 1:
        raise ValueError(f"rows: expected one max_iter, got {sorted(rows['max_iter'].unique())}")
    chosen = []
    for _, part in rows.groupby("method", sort=False):
        part = part.reset_index(drop=True)
        for kind in KINDS:
            pool = part[part["success"] == kind].sort_values("l2_paper", kind="stable")
            if len(pool):
                row = pool.iloc[(len(pool) - 1) // 2]
                chosen.append(pd.concat([row, pd.Series({"of": len(pool), "position": row.name})]))
    return pd.DataFrame(chosen).reset_index(drop=True)


def made_with(lab: Workspace, file: str) -> dict:
    """The parameters with which a figure or table of the profile was made, from its manifest.

    Raises
    ------
    ValueError
        The manifest does not list `file`.
    """
    path = lab.figures / MANIFEST
    listed = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    if file not in listed:
        raise ValueError(f"file: {path} lists no {file}; run the notebook that makes it first")
    return listed[file]["parameters"]


def rates(parameters: Mapping[str, object], grid: pd.DataFrame | None, method: str) -> dict:
    """The lr and alpha a method was run with, from notebook 07's parameters and its saved search.

    Parameters
    ----------
    parameters : mapping
        With ``lrs`` and ``alphas``.
    grid : pandas.DataFrame or None
        The table of the search; None where there was one lr and one alpha.
    method : str
        Name of the method.

    Returns
    -------
    dict
        ``lr`` and ``alpha``; empty for a method that has neither.

    Raises
    ------
    ValueError
        Several rates and no line of the method in `grid`.
    """
    if method in tuning.WITHOUT_RATES:
        return {}
    lrs, alphas = parameters["lrs"], parameters["alphas"]
    if len(lrs) * len(alphas) == 1:
        return {"lr": float(lrs[0]), "alpha": float(alphas[0])}
    lines = None if grid is None else grid[grid["method"] == method]
    if lines is None or lines.empty:
        raise ValueError(f"grid: expected the search's lines of {method}; run 07_baselines")
    near = lines[lines["success"] >= lines["success"].max() - 0.01]
    best = near.sort_values("APer", kind="stable").iloc[0]
    return {"lr": float(best["lr"]), "alpha": float(best["alpha"])}


def attack_again(
    victim: Victim,
    queue: Queue,
    data: MultiLabelDataset,
    chosen: pd.DataFrame,
    folder: str | Path,
    *,
    settings: Mapping[str, Mapping[str, object]],
    max_iter: int,
) -> dict[str, dict[str, np.ndarray]]:
    """Make the images of :func:`median_rows`, a few rows a method.

    Parameters
    ----------
    victim : Victim
        Who was attacked.
    queue : Queue
        All rows, as they were attacked; their order is that of the saved results.
    data : MultiLabelDataset
        Where the images are.
    chosen : pandas.DataFrame
        From :func:`median_rows`.
    folder : str or Path
        For one npz a method.
    settings : mapping
        Method to its lr and alpha.
    max_iter : int
        The limit.

    Returns
    -------
    dict
        Method to what :func:`tkmia_utils.experiments.protocol.load_examples` reads, in the order of
        `chosen`.

    Raises
    ------
    ValueError
        The queue has another image in a chosen row's place.
    """
    kept = {}
    for method, part in chosen.groupby("method", sort=False):
        rows = queue.rows(part["position"].astype(int).tolist())
        if [data.ids[i] for i in rows.index.tolist()] != part["image"].tolist():
            raise ValueError("queue: other images than those of the saved results; run 06 and 07")
        path = Path(folder) / f"gallery-{method}.npz"
        campaign.examples(
            victim, rows, data, path, method=method, max_iter=max_iter, **settings[method]
        )
        kept[method] = protocol.load_examples(path)
    return kept


def gallery(
    chosen: pd.DataFrame,
    kept: Mapping[str, Mapping[str, np.ndarray]],
    data: MultiLabelDataset,
    *,
    total: Mapping[str, int],
    success: bool,
    depth: int = 5,
) -> Figure:
    """Draw one success, or one failure, a method: clean image, attacked image and both lists.

    Parameters
    ----------
    chosen, kept : pandas.DataFrame, mapping
        From :func:`median_rows` and :func:`attack_again`.
    data : MultiLabelDataset
        Where the clean images are.
    total : mapping of str to int
        How many rows each method has.
    success : bool
        Which of the two is drawn.
    depth : int
        Places of a list that are written.

    Returns
    -------
    matplotlib.figure.Figure
        A line a method; one without such an image has a sentence that says so.
    """
    rows = chosen[chosen["success"] == success].set_index("method")
    heights = [2.1 if method in rows.index else 0.3 for method in total]
    fig, axes = plt.subplots(
        len(total), 4, figsize=(9.5, sum(heights) + 0.5), squeeze=False,
        width_ratios=(1, 1, 1.25, 1.25), height_ratios=heights,
    )  # fmt: skip
    for line, (method, count) in zip(axes, total.items(), strict=True):
        if method in rows.index:
            # `kept` holds a method's rows in the order of `chosen`, its success first
            at = chosen[chosen["method"] == method]["success"].tolist().index(success)
            arrays = {key: value[at] for key, value in kept[method].items()}
            _panel(line, rows.loc[method], arrays, data, depth=depth)
            continue
        for ax in line:
            ax.set_axis_off()
        none = f"{look_of(method).name}: no {'success' if success else 'failure'}"
        text = f"{none} among {count} attacks"
        sentence = line[0].text(0, 0.5, text, va="center", transform=line[0].transAxes)
        sentence.set_in_layout(False)  # it may run on into the next column
    handles = [
        Line2D([], [], color=look.colour, marker=look.marker, linestyle="none", label=name)
        for name, look in LOOKS.items()
    ]
    fig.legend(handles=handles, loc="outside lower center", ncol=3, frameon=False)
    return fig


def _panel(
    line: np.ndarray,
    row: pd.Series,
    arrays: Mapping[str, np.ndarray],
    data: MultiLabelDataset,
    *,
    depth: int,
) -> None:
    """Clean image, adversarial image and the two lists of one row."""
    clean = data.images([data.ids.index(str(arrays["image"]))])[0]
    adversarial = torch.as_tensor(arrays["adversarial"])
    before, after = (torch.as_tensor(arrays[f"{w}logits"]) for w in ("clean_", "adversarial_"))
    lists = (torch.as_tensor(arrays["labels"]), torch.as_tensor(arrays["specified"]))
    hidden, norm = bool(row["success"]), 2 * float((adversarial - clean).norm())
    show_image(line[0], clean)
    line[0].set_title(f"1 of {row['of']}, {row['cell']}\nclean image")
    show_image(line[1], adversarial)
    title_attack(line[1], str(row.name), hidden=hidden, detail=f"‖ε‖ = {norm:.2f}")
    for ax, logits, title in ((line[2], before, "clean list"), (line[3], after, "attacked list")):
        faded = not hidden and logits is after
        show_list(ax, logits, *lists, int(arrays["k"]), data.classes, depth=depth, faded=faded)
        ax.set_title(title, color=text_colour(hidden=not faded))
    for ax in line:
        ax.title.set_fontsize(10)
