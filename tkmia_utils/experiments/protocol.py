"""The paper's experiments as data: cells, the images they take, and one row an attacked image.

A *cell* is one line block of a table: S1 with a type and a k, or S2 with k and |S|. All cells of
a study form one queue for the engine, since k, S and delta are rows there.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd
import torch

from tkmia_utils import measures
from tkmia_utils.data import MultiLabelDataset
from tkmia_utils.engine.loop import attack
from tkmia_utils.engine.outcome import outcomes
from tkmia_utils.engine.result import AttackResult
from tkmia_utils.experiments.selection import Selection, global_selection, random_selection


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
    delta : int
        How many of S must leave the top k for success; 0 means all of them.
    """

    scheme: str
    k: int
    type: str = ""
    m: int = 0
    delta: int = 0

    def __post_init__(self) -> None:
        if self.scheme not in ("S1", "S2"):
            raise ValueError(f"scheme: expected 'S1' or 'S2', got {self.scheme!r}")
        if (self.scheme == "S1") != bool(self.type) or (self.scheme == "S2") != bool(self.m):
            raise ValueError("cell: S1 wants a type and no m, S2 wants an m and no type")
        if self.k < 1:
            raise ValueError(f"k: expected k >= 1, got {self.k}")
        if not 0 <= self.delta <= self.m:
            raise ValueError(f"delta: expected 0 <= delta <= |S| = {self.m}, got {self.delta}")

    @property
    def name(self) -> str:
        """For axes and tables: "Person, k=2", "k=3, |S|=2", "k=3, |S|=3, δ=2"."""
        if self.scheme == "S1":
            return f"{self.type}, k={self.k}"
        part = self.delta and self.delta < self.m
        return f"k={self.k}, |S|={self.m}" + (f", δ={self.delta}" if part else "")


def list_cells(
    types: Sequence[str], ks: Sequence[int], pairs: Sequence[Sequence[int]]
) -> list[Cell]:
    """List the cells of S1 (every type at every k) and of S2 (every pair (k, |S|)).

    Parameters
    ----------
    types : sequence of str
        Names of global sets.
    ks : sequence of int
        The ks of S1.
    pairs : sequence of (k, m) or (k, m, delta)
        The settings of S2; without delta all of S must leave the top k.

    Returns
    -------
    list of Cell
    """
    for pair in pairs:
        if len(pair) not in (2, 3):
            raise ValueError(f"pairs: expected (k, m) or (k, m, delta), got {tuple(pair)}")
    first = [Cell("S1", k, type=name) for name in types for k in ks]
    return first + [Cell("S2", k, m=m, delta=sum(delta)) for k, m, *delta in pairs]


def choose(
    cell: Cell,
    data: MultiLabelDataset,
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
    data : MultiLabelDataset
        N images.
    clean_logits : torch.Tensor
        ``(N, C)``, of the victim on the clean images.
    types : mapping of str to sequence of str
        Class names of every global set.
    seed : int
        Of S2's draw.
    rule : {"released", "paper"}
        See :mod:`tkmia_utils.experiments.selection`.

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
    k, delta : torch.Tensor
        int64 ``(R,)``.
    """

    cells: tuple[Cell, ...]
    index: torch.Tensor
    labels: torch.Tensor
    specified: torch.Tensor
    k: torch.Tensor
    delta: torch.Tensor

    def rows(self, at: Sequence[int] | torch.Tensor) -> "Queue":
        """Some rows of the queue, by position, in that order and as often as given; or none."""
        at = torch.as_tensor(at, dtype=torch.int64)
        cells = tuple(self.cells[i] for i in at.tolist())
        tensors = (self.index, self.labels, self.specified, self.k, self.delta)
        return Queue(cells, *(tensor[at] for tensor in tensors))


def build_queue(
    cells: Sequence[Cell],
    data: MultiLabelDataset,
    clean_logits: torch.Tensor,
    types: Mapping[str, Sequence[str]],
    *,
    n: int,
    seed: int = 0,
    rule: str = "released",
    without: torch.Tensor | None = None,
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
    without : torch.Tensor, optional
        int64 positions of images that no cell may take.

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
        if without is not None:
            selection.eligible[without] = False
        first = selection.first(n)
        owners += [cell] * len(first)
        index.append(first)
        specified.append(selection.specified[first])
    if not owners:
        raise ValueError("cells: no image is eligible in any cell (|Y_p| >= k + |S| and S seen)")
    rows = torch.cat(index)
    k = torch.tensor([cell.k for cell in owners])
    chosen = torch.cat(specified)
    asked = torch.tensor([cell.delta for cell in owners])
    delta = torch.where(asked > 0, asked, chosen.sum(-1))
    return Queue(tuple(owners), rows, data.labels[rows], chosen, k, delta)


def to_frame(
    queue: Queue, result: AttackResult, data: MultiLabelDataset, method: str
) -> pd.DataFrame:
    """Tabulate an attack: one row an image, with every measure before and after.

    Parameters
    ----------
    queue : Queue
        What was attacked.
    result : AttackResult
        What came out, in the same order.
    data : MultiLabelDataset
        For the image ids.
    method : str
        Name for the column.

    Returns
    -------
    pandas.DataFrame
        Columns ``dataset, scheme, cell, type, k, s, delta, method, image, success, iterations,
        reason, l2, l2_paper, delta_l`` and, for every measure M, ``M clean``, ``M adversarial`` and
        ``Delta M`` (clean minus adversarial, so that a loss is positive); then ``no measure fell``
        and, where the files were looked at, ``survives PNG`` and ``PNG and no measure fell``
        (:meth:`tkmia_utils.AttackResult.to_frame`).
    """
    table = {
        "dataset": data.name,
        "scheme": [cell.scheme for cell in queue.cells],
        "cell": [cell.name for cell in queue.cells],
        "type": [cell.type for cell in queue.cells],
        "k": queue.k.numpy(),
        "s": queue.specified.sum(-1).numpy(),
        "delta": queue.delta.numpy(),
        "method": method,
        "image": [data.ids[i] for i in queue.index.tolist()],
        "success": result.success.numpy(),
        "iterations": result.iterations.numpy(),
        "reason": list(result.reasons),
        "l2": result.l2.numpy(),
        "l2_paper": result.l2_paper.numpy(),
    }
    changes = measures.measure_changes(
        result.clean_logits, result.adversarial_logits, queue.labels, queue.specified, queue.k
    )
    kept = outcomes(result.success, result.clean_logits, changes, result.png_logits, result.spec)
    table |= {name: values.numpy() for name, values in (changes | kept).items()}
    return pd.DataFrame(table)


def run(
    model: torch.nn.Module,
    queue: Queue,
    data: MultiLabelDataset,
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
        From :func:`build_queue`.
    data : MultiLabelDataset
        Where the images are.
    method : str
        As for :func:`tkmia_utils.attack`, which takes the `settings`.

    Returns
    -------
    frame : pandas.DataFrame
        See :func:`to_frame`.
    result : AttackResult
        With the adversarial images, unless ``runtime=Runtime(keep_images=False)``.
    """
    result = attack(
        model, data, queue.labels, queue.specified, queue.k,
        index=queue.index, delta=queue.delta, method=method, **settings,
    )  # fmt: skip
    return to_frame(queue, result, data, method), result
