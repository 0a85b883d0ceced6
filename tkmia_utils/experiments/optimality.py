"""How good is an attack? Its norms against the least that any attack found for the same image.

The measure is in the spirit of AttackBench (Cina et al., *AttackBench: Evaluating Gradient-based
Attacks*, AAAI 2025): the area between an attack's curve and that of the best known attack, at a
budget that is counted in passes through the model. Here the curve is the share of images on which
the labels are hidden and no measure fell, against the norm relative to the image's best known one.

On a linear victim the best is not only known but true: the condition is a union of systems of
linear inequalities, and the least norm of each is a least-distance problem.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations, permutations, product
from typing import Any

import numpy as np
import pandas as pd
import torch
from scipy.optimize import nnls
from torch import nn

from tkmia_utils.attacks import backward_passes, build
from tkmia_utils.condition import Condition, DeepCondition, condition
from tkmia_utils.data import MultiLabelDataset
from tkmia_utils.engine.result import AttackResult
from tkmia_utils.experiments.protocol import Queue
from tkmia_utils.experiments.tradeoff import ROW, several

STRICT = "no measure fell"  # the column that says: hidden, and no measure fell


def contest(
    model: nn.Module,
    queue: Queue,
    data: MultiLabelDataset,
    runs: Mapping[str, Mapping[str, Any]],
    *,
    stops: Sequence[str],
    budgets: Sequence[int],
    keep: tuple[str, int] | None = None,
    **settings: Any,
) -> tuple[pd.DataFrame, dict[str, AttackResult]]:
    """Run every attack with every stop at every budget of backward passes.

    Parameters
    ----------
    model, queue, data
        As for :func:`tkmia_utils.experiments.protocol.run`.
    runs : mapping of str to mapping
        By name, settings of that attack alone, ``method`` among them.
    stops : sequence of str
        As for :func:`tkmia_utils.attack`.
    budgets : sequence of int
        Most backward passes an image.
    keep : (str, int), optional
        The stop and the budget whose results are wanted; all of them would hold many images.
    **settings
        Of every run.

    Returns
    -------
    rows : pandas.DataFrame
        As :func:`tkmia_utils.experiments.tradeoff.several`, with ``stop`` and ``budget``.
    results : dict of str to AttackResult
        By name, of `keep` alone.

    Raises
    ------
    ValueError
        A budget below one iteration of an attack.
    """
    k_max = int(queue.k.max())
    cost = {name: backward_passes(build(own["method"]), k_max) for name, own in runs.items()}
    if min(budgets) < max(cost.values()):
        raise ValueError(f"budgets: expected an iteration of every attack, {max(cost.values())}")
    frames, kept = [], {}
    for stop, budget in product(stops, budgets):
        limited = {name: {**own, "max_iter": budget // cost[name]} for name, own in runs.items()}
        rows, results = several(model, queue, data, limited, stop=stop, **settings)
        frames.append(rows.assign(stop=stop, budget=budget))
        kept = results if (stop, budget) == keep else kept
    return pd.concat(frames, ignore_index=True), kept


def relative_norms(rows: pd.DataFrame) -> pd.DataFrame:
    """Set every norm in relation to the least that any row found for that image.

    Parameters
    ----------
    rows : pandas.DataFrame
        From :func:`contest`: any number of runs, stops and budgets.

    Returns
    -------
    pandas.DataFrame
        The rows with ``best`` (the image's least norm among the strict successes, NaN if it has
        none) and ``relative`` (``l2_paper / best``; inf for a row that is no strict success). Rows
        of images that nobody solved are left out.
    """
    norm = rows["l2_paper"].where(rows[STRICT].astype(bool))
    best = norm.groupby([rows[name] for name in ROW]).transform("min")
    relative = (norm / best).mask((norm == 0) & (best == 0), 1.0).fillna(np.inf)
    known = rows.assign(best=best, relative=relative)
    return known[best.notna()].reset_index(drop=True)


def optimality(relative: np.ndarray | pd.Series, *, most: float = 2.0) -> np.ndarray:
    """One image's share in the area under the curve of successes against the relative norm.

    The curve of an attack is ``rho(r)``, the share of images with a relative norm of at most r;
    that of the best known attack is 1 from r = 1 on. The area between them, from r = 1 to R and
    divided by R - 1, is the mean over images of ``min(relative - 1, R - 1) / (R - 1)``. This is 1
    minus that, image by image: 1 at the best known norm, 0 from R times it on and for failures.

    Parameters
    ----------
    relative : array of float
        From :func:`relative_norms`; inf for a failure.
    most : float
        R > 1.

    Raises
    ------
    ValueError
        `most` is not above 1.
    """
    if not most > 1:
        raise ValueError(f"most: expected a number above 1, got {most!r}")
    return 1 - np.clip((np.asarray(relative, dtype=float) - 1) / (most - 1), 0, 1)


def curve(relative: np.ndarray | pd.Series, at: np.ndarray) -> np.ndarray:
    """Share of images with a relative norm of at most each of `at`."""
    return (np.asarray(relative, dtype=float) <= np.asarray(at)[:, None]).mean(1)


def linear_problem(
    n: int, *, relevant: int = 4, seed: int = 0
) -> tuple[nn.Module, torch.Tensor, torch.Tensor, torch.Tensor]:
    """A linear victim with images whose highest classes are relevant, and the first is specified.

    Pixels are near mid-grey and the weights such that the borders are near, so that the least
    perturbation stays inside [0, 1].

    Returns
    -------
    model : torch.nn.Module
        ``(N, 3, 4, 4)`` to ``(N, 6)``.
    images : torch.Tensor
        float32 ``(N, 3, 4, 4)`` in [0.4, 0.6].
    labels, specified : torch.Tensor
        Bool ``(N, 6)``.
    """
    classes, side, generator = 6, 4, torch.Generator().manual_seed(seed)
    layer = nn.Linear(3 * side**2, classes)
    with torch.no_grad():
        layer.weight.copy_(torch.randn(layer.weight.shape, generator=generator))
        layer.bias.copy_(-0.5 * layer.weight.sum(1))  # mid-grey has logits of 0
    images = 0.4 + 0.2 * torch.rand((n, 3, side, side), generator=generator)
    model = nn.Sequential(nn.Flatten(), layer).eval().requires_grad_(False)
    order = model(images).argsort(dim=1, descending=True)
    empty = torch.zeros((n, classes), dtype=torch.bool)
    labels = empty.scatter(1, order[:, :relevant], True)
    return model, images, labels, empty.scatter(1, order[:, :1], True)


def linear_optima(
    model: nn.Sequential,
    images: torch.Tensor,
    labels: torch.Tensor,
    specified: torch.Tensor,
    k: int,
) -> np.ndarray:
    """The least perturbation of each image on a linear victim, under the strict stop.

    Parameters
    ----------
    model, images, labels, specified
        As from :func:`linear_problem`.
    k : int
        One for all.

    Returns
    -------
    numpy.ndarray
        float64 ``(N, D)``: :func:`linear_optimum` of each.
    """
    clean = model(images)
    asked = [
        condition(clean[[i]], labels[[i]], specified[[i]], k, stop="imperceptible")
        for i in range(len(images))
    ]
    return np.array([linear_optimum(model[1], x, a) for x, a in zip(images, asked, strict=True)])


def linear_optimum(layer: nn.Linear, image: torch.Tensor, asked: Condition) -> np.ndarray:
    """The least perturbation of one image on a linear victim, by enumeration: for few classes.

    Each way to meet the condition is a system ``f_u - f_d >= 0`` of pairs (u, d). With
    ``f = W x + b`` that is ``G p >= h``, and its least ``||p||`` the least-distance problem of
    Lawson and Hanson (1974, ch. 23), solved by one non-negative least squares. The pixel box is
    not looked at.

    Parameters
    ----------
    layer : torch.nn.Linear
        The victim, ``(D,)`` to ``(C,)``.
    image : torch.Tensor
        ``(3, H, W)`` or ``(D,)``.
    asked : Condition
        Of this one image.

    Returns
    -------
    numpy.ndarray
        float64 ``(D,)``, in [0, 1] pixels; NaN where nothing meets the condition.

    Raises
    ------
    ValueError
        A condition that asks for a gap or for more depth than k: it is not enumerated.
    """
    if isinstance(asked, DeepCondition):
        raise ValueError("asked: expected a condition without gap and below, got one with them")
    weight = layer.weight.detach().double().numpy()
    x = image.double().flatten().numpy()
    scores = weight @ x + layer.bias.detach().double().numpy()
    best = np.full(len(x), np.nan)
    for pairs in set(systems(asked)):
        up, down = np.array(sorted(pairs)).T
        found = least_distance(weight[up] - weight[down], scores[down] - scores[up])
        if found is not None and not np.linalg.norm(found) >= np.linalg.norm(best):
            best = found
    return best


def systems(asked: Condition) -> Iterator[frozenset[tuple[int, int]]]:
    """All systems of pairs (up, down) whose union is the condition of its only row."""
    labels, specified = (set(m[0].nonzero().flatten().tolist())
                         for m in (asked.labels, asked.specified))  # fmt: skip
    everything, k = set(range(asked.labels.shape[1])), int(asked.k)
    patterns = [[q for q in row if q] for row in asked.above[0].tolist() if min(row) >= 0]
    for hidden, ranks in product(combinations(specified, int(asked.delta)), patterns):
        outside, irrelevant = everything - set(hidden), everything - labels
        ahead_at_most = min(max(ranks, default=1) - 1, len(irrelevant))
        for top in combinations(outside, k):
            hides = set(product(top, hidden))
            for hits in permutations(labels - set(hidden), len(ranks)):
                for ahead in permutations(irrelevant, ahead_at_most):
                    yield frozenset(hides).union(
                        *(product(hits[: j + 1], irrelevant - set(ahead[: rank - 1]))
                          for j, rank in enumerate(ranks))
                    )  # fmt: skip


def least_distance(g: np.ndarray, h: np.ndarray) -> np.ndarray | None:
    """Least-norm x with ``G x >= h``; None if there is none.

    Parameters
    ----------
    g : numpy.ndarray
        float64 ``(M, D)``.
    h : numpy.ndarray
        float64 ``(M,)``.
    """
    u, distance = nnls(np.vstack([g.T, h]), np.append(np.zeros(g.shape[1]), 1.0))
    if distance < 1e-9:
        return None
    residual = np.append(g.T @ u, h @ u - 1)
    return -residual[:-1] / residual[-1]
