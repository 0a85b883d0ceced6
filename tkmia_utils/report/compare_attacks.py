"""Several attacks on the same images of one's own: a table and a figure in one call."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tkmia_utils.attacks import ATTACKS, build
from tkmia_utils.engine.images import Images
from tkmia_utils.engine.loop import attack
from tkmia_utils.engine.result import AttackResult
from tkmia_utils.experiments.selection import Selection
from tkmia_utils.measures import MEASURES
from tkmia_utils.report.tables import QUANTITIES, summary
from tkmia_utils.validation import check_k

MARKERS = "osD^vPX*"


class Comparison(NamedTuple):
    """What :func:`compare` returns; it can be unpacked.

    Attributes
    ----------
    table : pandas.DataFrame
        One row a method.
    figure : matplotlib.figure.Figure
        The same with intervals, and the norm of every image.
    results : dict of str to AttackResult
        By method, with one row an image that was attacked.
    index : torch.Tensor
        int64: positions of those images among the ones given.
    """

    table: pd.DataFrame
    figure: Figure
    results: dict[str, AttackResult]
    index: torch.Tensor


def compare(
    model: Callable[[torch.Tensor], torch.Tensor],
    images: Images,
    labels: torch.Tensor | None = None,
    *,
    k: int | torch.Tensor,
    specified: torch.Tensor | Selection,
    methods: Sequence[str] | Mapping[str, Mapping[str, object]] = tuple(ATTACKS),
    **settings: object,
) -> Comparison:
    """Attack the same images with several methods and set the outcomes side by side.

    Parameters
    ----------
    model, images, k
        As for :func:`tkmia_utils.attack`.
    labels : torch.Tensor, optional
        Bool ``(N, C)``; default ``images.labels``, which every data set of this package has.
    specified : torch.Tensor or Selection
        Bool ``(N, C)``, all images are then attacked; or what
        :func:`tkmia_utils.choose_specified` returns, of which the eligible images are.
    methods : sequence of str, or mapping of str to mapping
        Names of attacks; or, by name, settings of that attack alone, such as
        ``{"tkmia": {}, "gmla": {"lr": 0.1}}``. An entry ``"method"`` lets one attack stand in the
        table twice: ``{"as printed": {"method": "tkmia", "variant": "paper"}}``.
    **settings
        Of every attack: ``max_iter``, ``lr``, ``runtime`` and so on. A tensor with one row an image
        given is cut to the images that are attacked, as `k` is.

    Returns
    -------
    Comparison
        ``table`` has the methods as its index and the columns ``n``, ``success`` (a rate),
        ``unchanged`` (how many succeeded without an attack), ``Delta TkAcc``, ``Delta P@k``,
        ``Delta mAP@k``, ``Delta NDCG@k`` (clean minus adversarial), ``Delta l``, ``APer`` (L2 in
        [-1, 1] pixels), ``APer [0,1]``, ``iterations``, ``no measure fell`` and, with
        ``Runtime(files=True)``, ``survives PNG`` and ``PNG and no measure fell``. Success, measures
        and these shares are means over all images, failures included; norms and iterations are
        means over the successes.

    Raises
    ------
    ValueError
        No method, no labels, no eligible image, or what :func:`tkmia_utils.attack` refuses.
        Names of methods are looked at before any image is attacked.
    """
    each = _by_name(methods)
    for name, own in each.items():
        method = {"method": name, **settings, **own}["method"]
        if not isinstance(method, str) or method not in ATTACKS:
            build(method)  # says what is wrong with it
    labels = getattr(images, "labels", None) if labels is None else labels
    if not isinstance(labels, torch.Tensor) or labels.ndim != 2:
        raise ValueError(
            "labels: expected a bool torch.Tensor (N, C), or images that bring their labels"
        )
    if "index" not in settings and hasattr(images, "__len__") and len(images) != len(labels):
        raise ValueError(f"labels: expected {len(images)} rows, one an image, got {len(labels)}")
    mask, index = specified, torch.arange(len(labels))
    if isinstance(specified, Selection):
        mask, index = specified.specified, specified.eligible.nonzero().flatten().cpu()
        if not len(index):
            raise ValueError("specified: expected at least one eligible image, got none")
    if not isinstance(mask, torch.Tensor) or mask.shape != labels.shape:
        raise ValueError(f"specified: expected shape {tuple(labels.shape)} or a Selection")
    check_k(k, low=1, high=labels.shape[1] - 1, rows=labels.shape[:1])

    def rows_of(value: Any) -> Any:
        """Of what is given for each of the images, the rows of those that are attacked."""
        whole = isinstance(value, torch.Tensor) and value.ndim and len(value) == len(labels)
        return value[index] if whole else value

    results = {
        name: attack(
            model, images, labels[index], mask[index], rows_of(k),
            **{
                "index": index, "method": name,
                **{name: rows_of(value) for name, value in {**settings, **own}.items()},
            },
        )
        for name, own in each.items()
    }  # fmt: skip
    rows = pd.concat(
        [
            result.to_frame(ids=[str(i) for i in index.tolist()]).assign(method=name)
            for name, result in results.items()
        ],
        ignore_index=True,
    )
    means = summary(rows.assign(scheme="", cell="all"))
    means.insert(4, "unchanged", [int(result.untouched.sum()) for result in results.values()])
    means = means.set_index("method")
    table = means[["n", "unchanged", *(name for name in QUANTITIES if name in means)]]
    table.insert(1, "success", table.pop("success"))
    return Comparison(table, _draw(means, rows), results, index)


def _by_name(methods: object) -> dict[str, dict[str, object]]:
    """Settings of each method, by the name that it has in the table."""
    if isinstance(methods, str) or not isinstance(methods, Iterable) or not methods:
        raise ValueError(f"methods: expected at least one name in a list, got {methods!r}")
    names = list(methods)
    for name in names:
        if not isinstance(name, str):
            raise ValueError(
                f"methods: expected names, got {name!r}; an attack of your own is given as "
                '{"its name": {"method": it}}'
            )
        if names.count(name) > 1:
            raise ValueError(f"methods: {name!r} is named twice")
    if not isinstance(methods, Mapping):
        return {name: {} for name in names}
    for name, own in methods.items():
        if not isinstance(own, Mapping):
            raise ValueError(f"methods: expected a dict of settings for {name!r}, got {own!r}")
    return {name: dict(own) for name, own in methods.items()}


def _draw(means: pd.DataFrame, rows: pd.DataFrame) -> Figure:
    """Success, falls of the measures with their intervals, and the norm of every image."""
    fig, axes = plt.subplots(
        1, 3, figsize=(11, 1.6 + 0.5 * len(means)), width_ratios=(1, 2, 1.6), sharey=True,
        layout="constrained",
    )  # fmt: skip
    height = np.arange(len(means), dtype=float)
    _points(axes[0], means, "success", height, color="black", marker="o")
    axes[0].set(title="success", xlim=(-0.05, 1.05))
    names = [f"Delta {name}".replace("AP@k", "mAP@k") for name in MEASURES]
    colours = plt.get_cmap("cividis")(np.linspace(0, 0.9, len(names)))
    for i, (name, colour) in enumerate(zip(names, colours, strict=True)):
        at = height + 0.16 * (i - (len(names) - 1) / 2)
        _points(axes[1], means, name, at, color=colour, marker=MARKERS[i], label=name)
    axes[1].axvline(0, color="0.7", zorder=0)
    axes[1].set_title("fall of the measures, all images")
    axes[1].legend(fontsize="small")
    for y, name in enumerate(means.index):
        part = rows[rows["method"] == name]
        for won, look in ((True, dict(color="black", marker="|")), (False, FAILURE)):
            norms = part.loc[part["success"] == won, "l2"]
            axes[2].scatter(norms, np.full(len(norms), float(y)), alpha=0.6, **look)
    axes[2].scatter([], [], color="black", marker="|", label="success")
    axes[2].scatter([], [], label="failure", **FAILURE)
    axes[2].set_title("L2 norm in [0, 1] pixels, each image")
    axes[2].legend(fontsize="small")
    axes[0].set_yticks(height, means.index)
    axes[0].set_ylim(len(means) - 0.4, -0.6)
    return fig


FAILURE = {"color": "0.6", "marker": "x"}


def _points(ax: Axes, means: pd.DataFrame, name: str, height: np.ndarray, **look: object) -> None:
    """Means with their 95 % intervals, one a method."""
    middle, low, high = (means[f"{name}{end}"].to_numpy(float) for end in ("", " low", " high"))
    # never negative, which a last bit between a mean and its resamples could make it
    bars = np.maximum([middle - low, high - middle], 0)
    ax.errorbar(middle, height, xerr=bars, linestyle="none", **look)
