"""Long work on a queue: saved chunk by chunk, and the search for a method's lr and alpha."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import torch

from tkmia_utils import protocol
from tkmia_utils.data import MultiLabelSet
from tkmia_utils.engine import attack
from tkmia_utils.protocol import Queue
from tkmia_utils.results import PACKAGE, load_results, save_results
from tkmia_utils.victims import Victim

# the code that decides a row: when it changes, saved chunks are other work
MODULES = (
    *("topk.py", "measures.py", "losses.py", "methods/*.py"),
    *("queue.py", "outcome.py", "engine.py", "protocol.py", "campaign.py"),
)
# methods that have no learning rate and no alpha to search for
WITHOUT_RATES = ("kfool",)


def run(
    victim: Victim,
    queue: Queue,
    data: MultiLabelSet,
    *,
    method: str,
    folder: str | Path,
    limits: Sequence[int],
    chunk: int = 2000,
    slots: int = 16,
    progress: bool = False,
    **settings: object,
) -> pd.DataFrame:
    """Attack a queue in chunks, each saved when it is done; a killed run goes on with the next.

    One run at the largest limit answers for all of them. A chunk's file is named by the hash of
    the victim, its images, S, k and delta, the method, the settings and the code, so that a file
    is only ever read back for the very work that made it.

    Parameters
    ----------
    victim : Victim
        Who is attacked.
    queue, data : Queue, MultiLabelSet
        Rows of images, and where the images are.
    method : str
        As for :func:`tkmia_utils.attack`.
    folder : str or Path
        For the chunks.
    limits : sequence of int
        Iteration limits to report, in a column ``max_iter``.
    chunk : int
        Rows a file.
    slots : int
        Of the engine; fixed, so that chunks do not change a bit of an image's result.
    progress : bool
        Show a progress bar a chunk.
    **settings
        lr, alpha and the method's own options.

    Returns
    -------
    pandas.DataFrame
        :func:`tkmia_utils.protocol.frame` of every limit, one below the other.
    """
    frames = []
    for start in range(0, len(queue.k), chunk):
        part = queue.rows(torch.arange(start, min(start + chunk, len(queue.k))))
        path = (
            Path(folder)
            / f"{method}-{_key(victim, part, data, method, limits, slots, settings)}.parquet"
        )
        if not path.is_file():
            _, result = protocol.run(
                victim.model, part, data, method=method, max_iter=max(limits), slots=slots,
                snapshots=[limit for limit in limits if limit < max(limits)],
                progress=progress, **settings,
            )  # fmt: skip
            answers = []
            for limit in limits:
                answer = result.at(limit) if limit < max(limits) else result
                answers.append(protocol.frame(part, answer, data, method).assign(max_iter=limit))
            save_results(pd.concat(answers, ignore_index=True), path)
        frames.append(load_results(path))
    return pd.concat(frames, ignore_index=True)


def _key(
    victim: Victim,
    queue: Queue,
    data: MultiLabelSet,
    method: str,
    limits: Sequence[int],
    slots: int,
    settings: dict[str, object],
) -> str:
    told = [victim.key, data.name, data.size, method, list(limits), slots, sorted(settings.items())]
    told.append([data.ids[i] for i in queue.index.tolist()])
    digest = hashlib.sha256(json.dumps(told).encode())
    for module in MODULES:
        for path in sorted(PACKAGE.glob(module)):
            digest.update(path.read_bytes())
    for tensor in (queue.labels, queue.specified, queue.k, queue.delta):
        digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()[:16]


def examples(
    victim: Victim,
    queue: Queue,
    data: MultiLabelSet,
    path: str | Path,
    *,
    method: str,
    max_iter: int,
    slots: int = 16,
    **settings: object,
) -> None:
    """Attack a few rows once more and keep the images; at equal slots they are the same to the bit.

    Parameters
    ----------
    victim, queue, data, method, slots, **settings
        As for :func:`run`.
    path : str or Path
        The npz; see :func:`tkmia_utils.protocol.load_examples`.
    max_iter : int
        The limit.
    """
    _, result = protocol.run(
        victim.model, queue, data, method=method, max_iter=max_iter, slots=slots, **settings
    )
    protocol.save_examples(path, queue, result, data)


def search(
    victim: Victim,
    queue: Queue,
    data: MultiLabelSet,
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
        victim.model, data.images(many.index), many.labels, many.specified, many.k,
        delta=many.delta, method=method, lr=rates[:, 0], alpha=rates[:, 1],
        max_iter=max_iter, slots=slots,
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
