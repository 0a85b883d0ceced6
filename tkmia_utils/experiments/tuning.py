"""The search for an attack's lr and alpha."""

from collections.abc import Sequence

import pandas as pd
import torch

from tkmia_utils.data import MultiLabelDataset
from tkmia_utils.engine.loop import attack
from tkmia_utils.engine.runtime import Runtime
from tkmia_utils.experiments.protocol import Queue
from tkmia_utils.victims.store import Victim

# methods that have no learning rate and no alpha to search for
WITHOUT_RATES = ("kfool",)


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

    The rule, which the paper does not state: the highest success rate; among settings within one
    percentage point of it, the smallest APer. Give it other images than those reported.

    Parameters
    ----------
    victim, queue, data, method, slots
        As for :func:`run`; the queue holds the tuning images.
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
    near = grid[grid["success"] >= grid["success"].max() - 0.01]
    best = near.sort_values("APer", kind="stable").iloc[0]
    return {"lr": float(best["lr"]), "alpha": float(best["alpha"])}, grid
