"""A gallery of typical successes and typical failures, one image a method, chosen by a rule.

The rule: of all rows of a method at one iteration limit, the median success and the median failure
by norm (the lower of two medians). These rows are found in saved results, and only they are
attacked once more to get their images.
"""

from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from tkmia_utils.data import MultiLabelDataset
from tkmia_utils.report.figures import (
    LOOKS,
    look_of,
    show_image,
    show_list,
    text_colour,
    title_attack,
)
from tkmia_utils.report.ranking import saved_ranking


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
        From :func:`tkmia_utils.experiments.examples.median_rows` and
        :func:`tkmia_utils.experiments.examples.attack_again`.
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
    before = saved_ranking(arrays, data.classes)
    after = before.scored(torch.as_tensor(arrays["adversarial_logits"]))
    hidden, norm = bool(row["success"]), 2 * float((adversarial - clean).norm())
    show_image(line[0], clean)
    line[0].set_title(f"1 of {row['of']}, {row['cell']}\nclean image")
    show_image(line[1], adversarial)
    title_attack(line[1], str(row.name), hidden=hidden, detail=f"‖ε‖ = {norm:.2f}")
    for ax, ranking, title in ((line[2], before, "clean list"), (line[3], after, "attacked list")):
        faded = not hidden and ranking is after
        show_list(ax, ranking, depth=depth, faded=faded)
        ax.set_title(title, color=text_colour(hidden=not faded))
    for ax in line:
        ax.title.set_fontsize(10)
