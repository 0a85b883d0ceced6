"""The paper's experiments as data: cells, the images they take, and one row an attacked image.

A *cell* is one line block of a table: S1 with a type and a k, or S2 with k and |S|. All cells of
a study form one queue for the engine, since k, S and delta are rows there.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from tkmia_utils import measures
from tkmia_utils.data import MultiLabelSet
from tkmia_utils.engine import AttackResult, attack
from tkmia_utils.results import write_atomically
from tkmia_utils.selection import Selection, global_selection, random_selection

MEASURES = {
    "TkAcc": measures.topk_accuracy,
    "P@k": measures.precision_at_k,
    "AP@k": measures.average_precision_at_k,
    "NDCG@k": measures.ndcg_at_k,
}


@dataclass(frozen=True)
class Cell:
    """One setting of the paper's tables.

    Attributes
    ----------
    scheme : str
        "S1", the same classes for every image, or "S2", random relevant labels.
    k : int
        Of the top k.
    type : str
        S1: the name of the global set. S2: "".
    m : int
        S2: how many labels are drawn, |S|. S1: 0, since |S| is the image's own.
    """

    scheme: str
    k: int
    type: str = ""
    m: int = 0

    def __post_init__(self) -> None:
        if self.scheme not in ("S1", "S2"):
            raise ValueError(f"scheme: expected 'S1' or 'S2', got {self.scheme!r}")
        if (self.scheme == "S1") != bool(self.type) or (self.scheme == "S2") != bool(self.m):
            raise ValueError("cell: S1 wants a type and no m, S2 wants an m and no type")

    @property
    def name(self) -> str:
        """For axes and tables: "Person, k=2" or "k=3, |S|=2"."""
        return f"{self.type}, k={self.k}" if self.scheme == "S1" else f"k={self.k}, |S|={self.m}"


def study(types: Sequence[str], ks: Sequence[int], pairs: Sequence[Sequence[int]]) -> list[Cell]:
    """List the cells of S1 (every type at every k) and of S2 (every pair (k, |S|)).

    Parameters
    ----------
    types : sequence of str
        Names of global sets.
    ks : sequence of int
        The ks of S1.
    pairs : sequence of (k, m)
        The settings of S2.

    Returns
    -------
    list of Cell
    """
    first = [Cell("S1", k, type=name) for name in types for k in ks]
    return first + [Cell("S2", k, m=m) for k, m in pairs]


def choose(
    cell: Cell,
    data: MultiLabelSet,
    clean_logits: torch.Tensor,
    types: Mapping[str, Sequence[str]],
    *,
    seed: int = 0,
    rule: str = "released",
) -> Selection:
    """Choose specified labels and eligible images of one cell.

    Parameters
    ----------
    cell : Cell
        The setting.
    data : MultiLabelSet
        N images.
    clean_logits : torch.Tensor
        ``(N, C)``, of the victim on the clean images.
    types : mapping of str to sequence of str
        Class names of every global set.
    seed : int
        Of S2's draw.
    rule : {"released", "paper"}
        See :mod:`tkmia_utils.selection`.

    Returns
    -------
    Selection

    Raises
    ------
    ValueError
        A type that is not in `types`, or a class of it that the data does not have.
    """
    if cell.scheme == "S2":
        return random_selection(
            data.labels, cell.m, cell.k,
            ids=data.ids, seed=seed, clean_scores=clean_logits, rule=rule,
        )  # fmt: skip
    if cell.type not in types:
        raise ValueError(f"type: expected one of {sorted(types)}, got {cell.type!r}")
    unknown = sorted(set(types[cell.type]) - set(data.classes))
    if unknown:
        raise ValueError(f"types: {cell.type} names classes that {data.name} lacks: {unknown}")
    members = [data.classes.index(name) for name in types[cell.type]]
    return global_selection(data.labels, members, cell.k, clean_scores=clean_logits, rule=rule)


@dataclass(frozen=True)
class Queue:
    """Images of several cells, one after the other, ready for :func:`tkmia_utils.attack`.

    Attributes
    ----------
    cells : tuple of Cell
        R entries, one a row.
    index : torch.Tensor
        int64 ``(R,)``: position of the row's image in the data set.
    labels, specified : torch.Tensor
        Bool ``(R, C)``.
    k : torch.Tensor
        int64 ``(R,)``.
    """

    cells: tuple[Cell, ...]
    index: torch.Tensor
    labels: torch.Tensor
    specified: torch.Tensor
    k: torch.Tensor


def line_up(
    cells: Sequence[Cell],
    data: MultiLabelSet,
    clean_logits: torch.Tensor,
    types: Mapping[str, Sequence[str]],
    *,
    n: int,
    seed: int = 0,
    rule: str = "released",
) -> Queue:
    """Queue the first n eligible images of every cell, in data set order.

    Parameters
    ----------
    cells : sequence of Cell
        A cell with fewer eligible images contributes those it has.
    data, clean_logits, types, seed, rule
        As for :func:`choose`.
    n : int
        Most images a cell; the paper's is 1000.

    Returns
    -------
    Queue

    Raises
    ------
    ValueError
        No cell has an eligible image; or as :func:`choose`.
    """
    owners, index, specified = [], [], []
    for cell in cells:
        selection = choose(cell, data, clean_logits, types, seed=seed, rule=rule)
        first = selection.first(n)
        owners += [cell] * len(first)
        index.append(first)
        specified.append(selection.specified[first])
    if not owners:
        raise ValueError("cells: no image is eligible in any cell (|Y_p| >= k + |S| and S seen)")
    rows = torch.cat(index)
    k = torch.tensor([cell.k for cell in owners])
    return Queue(tuple(owners), rows, data.labels[rows], torch.cat(specified), k)


def frame(queue: Queue, result: AttackResult, data: MultiLabelSet, method: str) -> pd.DataFrame:
    """Tabulate an attack: one row an image, with every measure before and after.

    Parameters
    ----------
    queue : Queue
        What was attacked.
    result : AttackResult
        What came out, in the same order.
    data : MultiLabelSet
        For the image ids.
    method : str
        Name for the column.

    Returns
    -------
    pandas.DataFrame
        Columns ``dataset, scheme, cell, type, k, s, method, image, success, iterations, reason,
        l2, l2_paper, delta_l`` and, for every measure M, ``M clean``, ``M adversarial`` and
        ``Delta M`` (clean minus adversarial, so that a loss is positive).
    """
    table = {
        "dataset": data.name,
        "scheme": [cell.scheme for cell in queue.cells],
        "cell": [cell.name for cell in queue.cells],
        "type": [cell.type for cell in queue.cells],
        "k": queue.k.numpy(),
        "s": queue.specified.sum(-1).numpy(),
        "method": method,
        "image": [data.ids[i] for i in queue.index.tolist()],
        "success": result.success.numpy(),
        "iterations": result.iterations.numpy(),
        "reason": list(result.reasons),
        "l2": result.l2.numpy(),
        "l2_paper": result.l2_paper.numpy(),
    }
    # an image whose logits were not finite has no ranking: its measures are NaN, not zero
    sound = (result.clean_logits.isfinite() & result.adversarial_logits.isfinite()).all(-1)
    clean, adversarial = result.clean_logits[sound], result.adversarial_logits[sound]
    labels, specified, k = queue.labels[sound], queue.specified[sound], queue.k[sound]

    def column(values: torch.Tensor) -> np.ndarray:
        return torch.full((len(sound),), torch.nan).double().masked_scatter(sound, values).numpy()

    table["delta_l"] = column(measures.delta_l(adversarial, specified, k, before=clean))
    for name, measure in MEASURES.items():
        before, after = measure(clean, labels, k), measure(adversarial, labels, k)
        table |= {f"{name} clean": column(before), f"{name} adversarial": column(after)}
        table[f"Delta {name}"] = column(before - after)
    return pd.DataFrame(table)


def run(
    model: torch.nn.Module,
    queue: Queue,
    data: MultiLabelSet,
    *,
    method: str = "tkmia",
    **settings: object,
) -> tuple[pd.DataFrame, AttackResult]:
    """Attack a queue with one method.

    Parameters
    ----------
    model : torch.nn.Module
        The victim.
    queue : Queue
        From :func:`line_up`.
    data : MultiLabelSet
        Where the images are.
    method : str
        As for :func:`tkmia_utils.attack`, which takes the `settings`.

    Returns
    -------
    frame : pandas.DataFrame
        See :func:`frame`.
    result : AttackResult
        With the adversarial images.
    """
    result = attack(
        model, data.images(queue.index), queue.labels, queue.specified, queue.k,
        method=method, **settings,
    )  # fmt: skip
    return frame(queue, result, data, method), result


def typical(rows: pd.DataFrame) -> list[int]:
    """Choose the image of every cell that stands for it: the median success by norm.

    Parameters
    ----------
    rows : pandas.DataFrame
        From :func:`frame`, of one method.

    Returns
    -------
    list of int
        One position in `rows` a cell that has a success; the lower median where there are two.
    """
    chosen = []
    for _, cell in rows.reset_index(drop=True).groupby("cell", sort=False):
        won = cell[cell["success"]].sort_values("l2_paper", kind="stable")
        if len(won):
            chosen.append(int(won.index[(len(won) - 1) // 2]))
    return chosen


def save_examples(
    path: str | Path, queue: Queue, result: AttackResult, rows: pd.DataFrame, at: Sequence[int]
) -> None:
    """Keep the images of some rows of an attack, for figures: one npz, written atomically.

    Parameters
    ----------
    path : str or Path
        The file.
    queue, result, rows
        As given to and returned by :func:`run`.
    at : sequence of int
        Positions of the rows to keep.
    """
    index = torch.as_tensor(at, dtype=torch.int64)
    arrays = {
        "adversarial": result.adversarial[index].numpy(),
        "clean_logits": result.clean_logits[index].numpy(),
        "adversarial_logits": result.adversarial_logits[index].numpy(),
        "labels": queue.labels[index].numpy(),
        "specified": queue.specified[index].numpy(),
        "k": queue.k[index].numpy(),
        "cell": rows["cell"].iloc[at].to_numpy(dtype=str),
        "image": rows["image"].iloc[at].to_numpy(dtype=str),
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
