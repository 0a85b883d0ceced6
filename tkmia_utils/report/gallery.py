"""A gallery of failures beside what is typical: one image of each a method, chosen by a rule.

The rule: of all rows of a method at one iteration limit, the median success and the median failure
by norm (the lower median where there are two). Which rows those are is read from saved results; the
images are then made by attacking these few rows once more.
"""

import json
from collections.abc import Mapping
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure

from tkmia_utils.data import MultiLabelDataset
from tkmia_utils.experiments import campaign, protocol, tuning
from tkmia_utils.experiments.protocol import Queue
from tkmia_utils.report.figures import kinds_legend, show_image, show_list
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
    depth: int = 6,
) -> Figure:
    """Draw success and failure of every method: clean image, adversarial image, both lists.

    Parameters
    ----------
    chosen, kept : pandas.DataFrame, mapping
        From :func:`median_rows` and :func:`attack_again`.
    data : MultiLabelDataset
        Where the clean images are.
    total : mapping of str to int
        How many rows each method has.
    depth : int
        Places of a list that are written.

    Returns
    -------
    matplotlib.figure.Figure
    """
    methods = list(total)
    fig, axes = plt.subplots(
        len(methods), 8, figsize=(19, 2.6 * len(methods) + 0.6), squeeze=False,
        width_ratios=(1, 1, 1.35, 1.35) * 2,
    )  # fmt: skip
    for line, method in zip(axes, methods, strict=True):
        part = chosen[chosen["method"] == method].reset_index(drop=True)
        for kind, block in zip(KINDS, (line[:4], line[4:]), strict=True):
            at = part.index[part["success"] == kind]
            name = KINDS[kind].split()[1]
            if not len(at):
                for ax in block:
                    ax.set_axis_off()
                block[1].text(
                    1, 0.5, f"{method}: no {name}\namong {total[method]} attacks", ha="center",
                    va="center", transform=block[1].transAxes,
                )  # fmt: skip
                continue
            arrays = {key: value[at[0]] for key, value in kept[method].items()}
            _panel(block, part.loc[at[0]], arrays, data, depth, f"{method}: {name}")
    handles = fig.add_subplot(axes[-1, 0].get_gridspec()[-1, :], frameon=False)
    handles.set_axis_off()
    kinds_legend(handles, loc="upper center", ncol=3, bbox_to_anchor=(0.5, -0.02))
    return fig


def _panel(
    block: np.ndarray,
    row: pd.Series,
    arrays: Mapping[str, np.ndarray],
    data: MultiLabelDataset,
    depth: int,
    name: str,
) -> None:
    """Clean image, adversarial image and the two lists of one row."""
    clean = data.images([data.ids.index(str(arrays["image"]))])[0]
    adversarial = torch.as_tensor(arrays["adversarial"])
    before, after = (torch.as_tensor(arrays[f"{w}logits"]) for w in ("clean_", "adversarial_"))
    lists = (torch.as_tensor(arrays["labels"]), torch.as_tensor(arrays["specified"]))
    norm = 2 * float((adversarial - clean).norm())
    show_image(block[0], clean)
    block[0].set_title(f"{name} (1 of {row['of']})\n{row['cell']}", fontsize=9)
    show_image(block[1], adversarial)
    block[1].set_title(f"attacked\n‖ε‖ = {norm:.2f}", fontsize=9)
    for ax, logits, title in ((block[2], before, "clean"), (block[3], after, "attacked")):
        show_list(ax, logits, *lists, int(arrays["k"]), data.classes, depth=depth)
        ax.set_title(title, fontsize=9)
