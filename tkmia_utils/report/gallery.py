"""A gallery of failures beside what is typical: one image of each a method, chosen by a rule.

The rule: of all rows of a method at one iteration limit, the median success and the median failure
by norm (the lower median where there are two). Which rows those are is read from saved results; the
images are then made by attacking these few rows once more.
"""

from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure

from tkmia_utils.data import MultiLabelDataset
from tkmia_utils.report.figures import kinds_legend, show_image, show_list

KINDS = {True: "typical success", False: "typical failure"}


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
        From :func:`tkmia_utils.experiments.examples.median_rows` and
        :func:`tkmia_utils.experiments.examples.attack_again`.
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
