"""The search for lr and alpha of an attack, and the rule that chooses among them."""

from collections.abc import Mapping, Sequence

import pandas as pd
import torch

from tkmia_utils.data import MultiLabelDataset
from tkmia_utils.engine.loop import attack
from tkmia_utils.engine.runtime import Runtime
from tkmia_utils.experiments.protocol import Queue
from tkmia_utils.victims.store import Victim

# methods that have no learning rate and no alpha to search for
WITHOUT_RATES = ("kfool", "tkmia_min", "fgsm", "pgd")


def search(
    victim: Victim,
    queue: Queue,
    data: MultiLabelDataset,
    *,
    method: str,
    lrs: Sequence[float],
    alphas: Sequence[float],
    max_iter: int,
    slots: int = 16,
) -> tuple[dict[str, float], pd.DataFrame]:
    """Search a method's lr and alpha; all settings share one queue of the engine.

    The choice is that of :func:`best_rates`. Give it other images than those reported.

    Parameters
    ----------
    victim, queue, data, method, slots
        As for :class:`tkmia_utils.experiments.campaign.Campaign`; the queue holds the tuning
        images.
    lrs, alphas : sequence of float
        The grid, in the paper's pixels.
    max_iter : int
        Most iterations.

    Returns
    -------
    best : dict
        ``lr`` and ``alpha``; empty for a method that has neither.
    grid : pandas.DataFrame
        Columns ``method, lr, alpha, n, success, APer``, a line a setting; empty where there was
        nothing to choose.

    Raises
    ------
    ValueError
        An empty grid.
    """
    columns = ["method", "lr", "alpha", "n", "success", "APer"]
    settings = [(lr, alpha) for lr in lrs for alpha in alphas]
    if not settings:
        raise ValueError("lrs, alphas: expected at least one value each")
    if method in WITHOUT_RATES:
        return {}, pd.DataFrame(columns=columns)
    if len(settings) == 1:  # nothing to choose
        return dict(zip(("lr", "alpha"), settings[0], strict=True)), pd.DataFrame(columns=columns)
    n = len(queue.k)
    many = queue.rows(torch.arange(n).repeat(len(settings)))
    rates = torch.tensor(settings).repeat_interleave(n, dim=0)
    result = attack(
        victim.model, data, many.labels, many.specified, many.k,
        index=many.index, delta=many.delta, method=method,
        lr=rates[:, 0], alpha=rates[:, 1],
        max_iter=max_iter, runtime=Runtime(slots=slots, keep_images=False),
    )  # fmt: skip
    won, norms = result.success.reshape(-1, n), result.l2_paper.reshape(-1, n)
    grid = pd.DataFrame(settings, columns=["lr", "alpha"]).assign(
        method=method,
        n=n,
        success=won.double().mean(1).numpy(),
        APer=[float(l2[ok].double().mean()) for l2, ok in zip(norms, won, strict=True)],
    )[columns]
    return best_rates(grid), grid


def best_rates(grid: pd.DataFrame) -> dict[str, float]:
    """Choose lr and alpha from a method's lines of a search.

    The rule, which the paper does not state: the highest success rate; among settings within one
    percentage point of it, the smallest APer, and of several the first.

    Parameters
    ----------
    grid : pandas.DataFrame
        Columns ``lr, alpha, success, APer``, one method's lines of :func:`search`.

    Returns
    -------
    dict
        ``lr`` and ``alpha``.
    """
    near = grid[grid["success"] >= grid["success"].max() - 0.01]
    best = near.sort_values("APer", kind="stable").iloc[0]
    return {"lr": float(best["lr"]), "alpha": float(best["alpha"])}


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
    if method in WITHOUT_RATES:
        return {}
    lrs, alphas = parameters["lrs"], parameters["alphas"]
    if len(lrs) * len(alphas) == 1:
        return {"lr": float(lrs[0]), "alpha": float(alphas[0])}
    lines = None if grid is None else grid[grid["method"] == method]
    if lines is None or lines.empty:
        raise ValueError(f"grid: expected the search's lines of {method}; run 07_baselines")
    return best_rates(lines)
