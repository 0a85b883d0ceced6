"""Long work on a queue: cut into shards, each saved when done; and the search for lr and alpha."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import torch

from tkmia_utils.data import MultiLabelDataset
from tkmia_utils.engine.runtime import Runtime, split_settings
from tkmia_utils.experiments import protocol
from tkmia_utils.experiments.protocol import Queue
from tkmia_utils.hashing import code_hash
from tkmia_utils.victims.store import Victim
from tkmia_utils.workspace import PACKAGE, load_results, save_results

# the code that decides a row, with what it imports: when it changes, saved shards are other work
MODULES = (
    "tkmia_utils.engine.loop",
    "tkmia_utils.experiments.protocol",
    "tkmia_utils.victims.backbones",
)
# what reads images, and this module: a victim counts by its weights, not by how it was trained
ALONE = (
    "tkmia_utils.experiments.campaign",
    "tkmia_utils.data.files",
    "tkmia_utils.data.folder",
    "tkmia_utils.data.voc",
)


@dataclass(frozen=True)
class Shard:
    """Rows of a queue that are attacked together and saved as one file.

    It says all that decides the result but the victim, the queue and the data themselves, whose
    hash is in the id.

    Attributes
    ----------
    id : str
        Hash of the victim's recipe and weights, the rows' images and their ids, labels, S, k and
        delta, the code, and everything below.
    method : str
        As for :func:`tkmia_utils.attack`.
    rows : range
        Positions in the queue.
    limits : tuple of int
        Iteration limits to report.
    slots : int
        Of the engine.
    place : str
        Kind of device, ``"cpu"`` or ``"cuda"``: they round differently.
    threads : int
        CPU threads while it runs: torch divides some sums among them, so that their number
        decides last bits.
    settings : dict
        lr, alpha and the method's own options.
    """

    id: str
    method: str
    rows: range
    limits: tuple[int, ...]
    slots: int
    place: str
    threads: int
    settings: dict[str, object]

    @property
    def file(self) -> str:
        """Name of its parquet."""
        return f"{self.method}-{self.id}.parquet"

    def of(self, queue: Queue) -> Queue:
        """Its rows of the queue."""
        return queue.rows(torch.arange(self.rows.start, self.rows.stop))


def shards(
    victim: Victim,
    queue: Queue,
    data: MultiLabelDataset,
    *,
    method: str,
    limits: Sequence[int],
    chunk: int = 2000,
    slots: int = 16,
    threads: int | None = None,
    place: str | None = None,
    **settings: object,
) -> list[Shard]:
    """Cut a queue into shards; nothing is attacked and no image is decoded.

    Parameters
    ----------
    victim, queue, data, method, limits, chunk, slots, threads, **settings
        As for :func:`run`.
    place : str, optional
        Kind of device; default the victim's.

    Returns
    -------
    list of Shard
        In the order of the queue.

    Raises
    ------
    ValueError
        No limit, no row, a chunk or threads below 1, or settings that are no plain values.
    """
    for name, value in (("chunk", chunk), ("threads", 1 if threads is None else threads)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(f"{name}: expected an int >= 1, got {value!r}")
    if not limits or not len(queue.k):
        raise ValueError("limits, queue: expected at least one iteration limit and one row")
    try:
        json.dumps(settings)
    except TypeError as error:
        raise ValueError(f"settings: expected plain values ({error})") from None
    if place is None:
        place = next((p.device.type for p in victim.model.parameters()), "cpu")
    if threads is None:  # beside a GPU the CPU has little to do, wherever that is
        threads = torch.get_num_threads() if place == "cpu" else 1
    told = [
        victim.key,
        weights(victim.model),
        deciding_code_hash(),
        data.name,
        data.size,
        method,
        list(limits),
    ]
    told += [slots, place, threads, sorted(settings.items())]
    plan = []
    for start in range(0, len(queue.k), chunk):
        rows = range(start, min(start + chunk, len(queue.k)))
        part = queue.rows(torch.arange(rows.start, rows.stop))
        digest = hashlib.sha256(json.dumps(told).encode())
        images = [[data.ids[i] for i in part.index.tolist()], data.digests(part.index)]
        digest.update(json.dumps(images).encode())
        for tensor in (part.labels, part.specified, part.k, part.delta):
            digest.update(tensor.numpy().tobytes())
        key = digest.hexdigest()[:16]
        plan.append(Shard(key, method, rows, tuple(limits), slots, place, threads, settings))
    return plan


def attack_shard(
    shard: Shard,
    model: torch.nn.Module,
    part: Queue,
    data: MultiLabelDataset,
    *,
    checkpoint: Path | None = None,
    progress: bool = False,
) -> pd.DataFrame:
    """Attack the rows of a shard: a function of its arguments, to the bit.

    Parameters
    ----------
    shard : Shard
        What to do.
    model : torch.nn.Module
        The victim's.
    part : Queue
        The shard's rows alone.
    data : MultiLabelDataset
        Where their images are.
    checkpoint : Path, optional
        Where the engine keeps its state, so that a killed shard goes on from within.
    progress : bool
        Show a progress bar.

    Returns
    -------
    pandas.DataFrame
        :func:`tkmia_utils.experiments.protocol.to_frame` of every limit, one below the other.
    """
    last, (fast, settings) = max(shard.limits), split_settings(shard.settings)
    runtime = Runtime(
        slots=shard.slots, keep_images=False, checkpoint=checkpoint, progress=progress, **fast
    )
    with _threads(shard.threads):
        _, result = protocol.run(
            model, part, data, method=shard.method, max_iter=last, runtime=runtime,
            snapshots=[limit for limit in shard.limits if limit < last],
            **settings,
        )  # fmt: skip
        frames = []
        for limit in shard.limits:
            answer = result.at(limit) if limit < last else result
            rows = protocol.to_frame(part, answer, data, shard.method)
            frames.append(rows.assign(max_iter=limit))
    return pd.concat(frames, ignore_index=True)


def run_shard(
    shard: Shard,
    victim: Victim,
    queue: Queue,
    data: MultiLabelDataset,
    *,
    folder: str | Path,
    progress: bool = False,
) -> Path:
    """Attack a shard of :func:`shards` and save it atomically, if its file is not there yet.

    Arguments are as for :func:`run`, and the very ones the shard was cut from; returns the path.
    """
    path = Path(folder) / shard.file
    if not path.is_file():
        part, state = shard.of(queue), path.with_suffix(".state")
        path.parent.mkdir(parents=True, exist_ok=True)
        rows = attack_shard(shard, victim.model, part, data, checkpoint=state, progress=progress)
        save_results(rows, path)
    return path


def merge(plan: Sequence[Shard], folder: str | Path) -> pd.DataFrame:
    """Read the files of all shards, one below the other; a missing one is a ``ValueError``."""
    frames = [load_results(Path(folder) / shard.file) for shard in plan]
    return pd.concat(frames, ignore_index=True)


def run(
    victim: Victim,
    queue: Queue,
    data: MultiLabelDataset,
    *,
    method: str,
    folder: str | Path,
    limits: Sequence[int],
    chunk: int = 2000,
    slots: int = 16,
    threads: int | None = None,
    progress: bool = False,
    **settings: object,
) -> pd.DataFrame:
    """Attack a queue shard by shard, each saved when it is done; a killed run goes on from there.

    One run at the largest limit answers for all of them. A shard's file is named by the hash of
    all that decides it (:class:`Shard`), so that a file is only ever read back for the very work
    that made it.

    Parameters
    ----------
    victim : Victim
        Who is attacked.
    queue, data : Queue, MultiLabelDataset
        Rows of images, and where the images are.
    method : str
        As for :func:`tkmia_utils.attack`.
    folder : str or Path
        For the files.
    limits : sequence of int
        Iteration limits to report, in a column ``max_iter``.
    chunk : int
        Rows a shard.
    slots : int
        Of the engine; fixed, so that shards do not change a bit of an image's result.
    threads : int, optional
        CPU threads; default those torch has, and one beside a GPU. Set again when it is done.
    progress : bool
        Show a progress bar a shard.
    **settings
        lr, alpha, the method's own options, and settings of :class:`tkmia_utils.Runtime`.

    Returns
    -------
    pandas.DataFrame
        :func:`tkmia_utils.experiments.protocol.to_frame` of every limit, one below the other.

    Raises
    ------
    ValueError
        As for :func:`shards` and :func:`tkmia_utils.attack`.
    """
    plan = shards(
        victim, queue, data, method=method, limits=limits, chunk=chunk, slots=slots,
        threads=threads, **settings,
    )  # fmt: skip
    for shard in plan:
        run_shard(shard, victim, queue, data, folder=folder, progress=progress)
    return merge(plan, folder)


def deciding_code_hash() -> str:
    """SHA-256 over the code that decides a row; a module that is not there is a ``ValueError``."""
    return code_hash(MODULES, alone=ALONE, package=PACKAGE)


def weights(model: torch.nn.Module) -> str:
    """SHA-256 over the names, types, shapes and bytes of a model's state."""
    digest = hashlib.sha256()
    for name, value in model.state_dict().items():
        value = value.detach().cpu().contiguous()
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        # as bytes first: numpy does not know every type
        digest.update(value.reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


@contextmanager
def _threads(number: int) -> Iterator[None]:
    before = torch.get_num_threads()
    # also when it is the same: asked for, MKL keeps to it
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def examples(
    victim: Victim,
    queue: Queue,
    data: MultiLabelDataset,
    path: str | Path,
    *,
    method: str,
    max_iter: int,
    slots: int = 16,
    **settings: object,
) -> None:
    """Attack a few rows once more and keep the images.

    At equal slots, and as many threads as torch has, they are the same to the bit.

    Parameters
    ----------
    victim, queue, data, method, slots, **settings
        As for :func:`run`.
    path : str or Path
        The npz; see :func:`tkmia_utils.experiments.protocol.load_examples`.
    max_iter : int
        The limit.
    """
    fast, others = split_settings(settings)
    with _threads(torch.get_num_threads()):
        _, result = protocol.run(
            victim.model, queue, data, method=method, max_iter=max_iter,
            runtime=Runtime(slots=slots, **fast), **others,
        )  # fmt: skip
    protocol.save_examples(path, queue, result, data)
