"""A few attacked images for figures: chosen by a rule from saved results, then attacked again.

Results keep numbers, not images. Which images a figure shows follows from the numbers; these are
attacked once more, and their images are kept in an npz.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from tkmia_utils.data import MultiLabelDataset
from tkmia_utils.engine.result import AttackResult
from tkmia_utils.engine.runtime import Runtime, split_settings
from tkmia_utils.experiments import protocol
from tkmia_utils.experiments.campaign import Campaign, cpu_threads
from tkmia_utils.experiments.protocol import Queue
from tkmia_utils.files import write_atomically
from tkmia_utils.victims.store import Victim


def median_positions(rows: pd.DataFrame) -> list[int]:
    """Choose one typical image of every cell: the median success by norm.

    In a cell without any success it is the median failure, so that a figure shows what there is.

    Parameters
    ----------
    rows : pandas.DataFrame
        From :func:`tkmia_utils.experiments.protocol.to_frame`, of one method.

    Returns
    -------
    list of int
        One position in `rows` a cell; the lower median where there are two.
    """
    chosen = []
    for _, cell in rows.reset_index(drop=True).groupby("cell", sort=False):
        pool = cell[cell["success"]] if cell["success"].any() else cell
        pool = pool.sort_values("l2_paper", kind="stable")
        chosen.append(int(pool.index[(len(pool) - 1) // 2]))
    return chosen


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
        for kind in (True, False):
            pool = part[part["success"] == kind].sort_values("l2_paper", kind="stable")
            if len(pool):
                row = pool.iloc[(len(pool) - 1) // 2]
                chosen.append(pd.concat([row, pd.Series({"of": len(pool), "position": row.name})]))
    return pd.DataFrame(chosen).reset_index(drop=True)


def attack_rows(campaign: Campaign, positions: Sequence[int], path: str | Path) -> None:
    """Attack a few rows of a campaign once more, at its largest limit, and keep their images.

    With as many threads as the campaign had they are the same images to the bit.

    Parameters
    ----------
    campaign : Campaign
        What was attacked, and with which settings.
    positions : sequence of int
        Positions in its queue.
    path : str or Path
        The npz; see :func:`load_examples`.
    """
    rows = campaign.queue.rows(positions)
    fast, others = split_settings(campaign.settings)
    with cpu_threads(campaign.threads or torch.get_num_threads()):
        _, result = protocol.run(
            campaign.victim.model, rows, campaign.data, method=campaign.method,
            max_iter=max(campaign.limits), runtime=Runtime(slots=campaign.slots, **fast), **others,
        )  # fmt: skip
    save_examples(path, rows, result, campaign.data)


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
    """Attack the rows of :func:`median_rows` once more, a few rows a method.

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
        Method to what :func:`load_examples` reads, in the order of `chosen`.

    Raises
    ------
    ValueError
        The queue has another image in a chosen row's place.
    """
    kept = {}
    for method, part in chosen.groupby("method", sort=False):
        positions = part["position"].astype(int).tolist()
        found = [data.ids[i] for i in queue.rows(positions).index.tolist()]
        if found != part["image"].tolist():
            raise ValueError("queue: other images than those of the saved results; run 06 and 07")
        path = Path(folder) / f"gallery-{method}.npz"
        own = Campaign(victim, queue, data, method, folder, [max_iter], settings[method])
        attack_rows(own, positions, path)
        kept[method] = load_examples(path)
    return kept


def save_examples(
    path: str | Path, queue: Queue, result: AttackResult, data: MultiLabelDataset
) -> None:
    """Keep the images of an attack, for figures: one npz, written atomically.

    Parameters
    ----------
    path : str or Path
        The file.
    queue, result : Queue, AttackResult
        What was attacked, and what came out.
    data : MultiLabelDataset
        For the image ids.
    """
    arrays = {
        "adversarial": result.adversarial.numpy(),
        "clean_logits": result.clean_logits.numpy(),
        "adversarial_logits": result.adversarial_logits.numpy(),
        "labels": queue.labels.numpy(),
        "specified": queue.specified.numpy(),
        "k": queue.k.numpy(),
        "cell": np.array([cell.name for cell in queue.cells]),
        "image": np.array([data.ids[i] for i in queue.index.tolist()]),
    }

    def write(temporary: Path) -> None:
        with open(temporary, "wb") as file:
            np.savez(file, **arrays)

    write_atomically(path, write)


def load_examples(path: str | Path) -> dict[str, np.ndarray]:
    """Read what :func:`save_examples` wrote, as arrays by name.

    Raises
    ------
    ValueError
        There is no such file.
    """
    if not Path(path).is_file():
        raise ValueError(f"path: there is no {path}; run the notebook that attacks first")
    with np.load(path, allow_pickle=False) as file:
        return dict(file)
