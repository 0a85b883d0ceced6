"""Attacks on a long queue, cut into shards: each is saved, so that a killed run continues."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import pandas as pd
import torch

from tkmia_utils.data import MultiLabelDataset
from tkmia_utils.engine.checkpoint import digest
from tkmia_utils.engine.folding import Layout
from tkmia_utils.engine.runtime import Runtime, split_settings
from tkmia_utils.engine.trial import choose
from tkmia_utils.experiments import protocol
from tkmia_utils.experiments.protocol import Queue
from tkmia_utils.files import write_atomically
from tkmia_utils.hashing import PACKAGE, code_hash, text_hash
from tkmia_utils.victims.store import Victim
from tkmia_utils.workspace import load_results, save_results

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
class Campaign:
    """One method against one victim on one queue: all that decides the rows of a result.

    Attributes
    ----------
    victim : Victim
        Who is attacked.
    queue, data : Queue, MultiLabelDataset
        Rows of images, and where the images are.
    method : str
        As for :func:`tkmia_utils.attack`.
    folder : str or Path
        For the files of the shards.
    limits : sequence of int
        Iteration limits to report, in a column ``max_iter``; one attack at the largest answers for
        all of them.
    settings : mapping
        lr, alpha, the method's own options and settings of the engine's
        :class:`~tkmia_utils.Runtime`; plain values.
    chunk : int
        Rows a shard.
    slots : int
        Of the engine; fixed, so that shards do not change a bit of an image's result.
    threads : int, optional
        CPU threads of a shard; default those torch has, and one where a GPU does the work.
    place : {"cpu", "cuda"}, optional
        Kind of device that attacks; default the victim's.

    Raises
    ------
    ValueError
        No limit, no row, a chunk or threads below 1, or settings that are no plain values.
    """

    victim: Victim
    queue: Queue
    data: MultiLabelDataset
    method: str
    folder: str | Path
    limits: Sequence[int]
    settings: Mapping[str, object] = field(default_factory=dict)
    chunk: int = 2000
    slots: int = 16
    threads: int | None = None
    place: str | None = None

    def __post_init__(self) -> None:
        """Check the arguments."""
        for name in ("chunk", "threads"):
            value = getattr(self, name)
            if value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"{name}: expected an int >= 1, got {value!r}")
        if not self.limits or not len(self.queue.k):
            raise ValueError("limits, queue: expected at least one iteration limit and one row")
        try:
            json.dumps(dict(self.settings))
        except TypeError as error:
            raise ValueError(f"settings: expected plain values ({error})") from None
        object.__setattr__(self, "limits", tuple(self.limits))


@dataclass(frozen=True)
class Shard:
    """Rows of a queue that are attacked together and saved as one file.

    It states all that decides the result except for the victim, the queue and the data, which are
    hashed into the id.

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
        Kind of device, ``"cpu"`` or ``"cuda"``: the two round differently.
    threads : int
        CPU threads while it runs: torch divides some sums among them, so that their number
        decides the last bits.
    settings : dict
        lr, alpha and the method's own options.
    digests : tuple of str
        Of the images of its rows, each once and in the order of the data set
        (:meth:`~tkmia_utils.data.MultiLabelDataset.digests`).
    """

    id: str
    method: str
    rows: range
    limits: tuple[int, ...]
    slots: int
    place: str
    threads: int
    settings: dict[str, object]
    digests: tuple[str, ...] = field(default=(), repr=False)

    @property
    def file(self) -> str:
        """Name of its parquet."""
        return f"{self.method}-{self.id}.parquet"

    def of(self, queue: Queue) -> Queue:
        """Its rows of the queue."""
        return queue.rows(torch.arange(self.rows.start, self.rows.stop))


def shards(campaign: Campaign) -> list[Shard]:
    """Cut the queue of a campaign into shards; nothing is attacked and no image is decoded.

    Returns
    -------
    list of Shard
        In the order of the queue.
    """
    queue, data = campaign.queue, campaign.data
    method, limits, slots = campaign.method, campaign.limits, campaign.slots
    settings = dict(campaign.settings)
    place, threads = _surroundings(campaign)
    victim = [campaign.victim.key, digest(campaign.victim.model.state_dict())]
    hash_inputs = [*victim, deciding_code_hash(), data.name, data.size, method, list(limits)]
    hash_inputs += [slots, place, threads, sorted(settings.items())]
    seen = torch.unique(queue.index)
    # once for the whole queue: what is remembered of files is one file itself
    known = dict(zip(seen.tolist(), data.digests(seen), strict=True))
    plan = []
    for start in range(0, len(queue.k), campaign.chunk):
        rows = range(start, min(start + campaign.chunk, len(queue.k)))
        part = queue.rows(torch.arange(rows.start, rows.stop))
        sha = hashlib.sha256(json.dumps(hash_inputs).encode())
        index = part.index.tolist()
        images = [[data.ids[i] for i in index], [known[i] for i in index]]
        sha.update(json.dumps(images).encode())
        for tensor in (part.labels, part.specified, part.k, part.delta):
            sha.update(tensor.numpy().tobytes())
        key = sha.hexdigest()[:16]
        own = tuple(known[i] for i in sorted(set(index)))
        plan.append(Shard(key, method, rows, limits, slots, place, threads, settings, own))
    return plan


def _surroundings(campaign: Campaign) -> tuple[str, int]:
    """Kind of device, and CPU threads."""
    home = next((p.device.type for p in campaign.victim.model.parameters()), "cpu")
    place = campaign.place or home
    # where a GPU does the work, the CPU has little to do
    return place, campaign.threads or (torch.get_num_threads() if place == "cpu" else 1)


def settled(campaign: Campaign) -> Campaign:
    """The same campaign with the victim's layout in its settings, where a trial finds one faster.

    The trial (:mod:`tkmia_utils.engine.trial`) is made once for a victim and its surroundings, and
    kept in the campaign's folder as ``layout-*.json``: a layout decides last bits, so that a run
    that goes on, and every node of a cluster, must use the same.
    """
    queue, last = campaign.queue, max(campaign.limits)
    asked = [campaign.settings.get(name) for name in ("fold", "channels_last")]
    model, slots = campaign.victim.model, campaign.slots
    place, threads = _surroundings(campaign)
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    if place != device.type or None not in asked:
        return campaign
    inputs = [digest(model.state_dict()), campaign.data.size, slots, place, threads, asked]
    file = Path(campaign.folder) / f"layout-{text_hash(*inputs)[:16]}.json"
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        layout = Layout(bool(found["fold"]), bool(found["channels_last"]))
    except (OSError, ValueError, KeyError, TypeError):  # not there yet, or broken
        try:
            first = campaign.data.images(queue.index[:1]).to(device)
        except Exception:  # the shard of that image says what is wrong with it
            return campaign
        passes = len(queue.k) * (last + 1) / slots
        with cpu_threads(threads):
            layout, trial = choose(
                model, first.expand(slots, -1, -1, -1), fold=asked[0], channels_last=asked[1],
                rows=len(queue.k), passes=passes,
            )  # fmt: skip
        if trial is None:
            return campaign
        text = json.dumps(asdict(layout) | {"trial": str(trial)})
        write_atomically(file, lambda path: path.write_text(text, encoding="utf-8"))
    chosen = {name: True for name, on in asdict(layout).items() if on}
    return replace(campaign, settings={**campaign.settings, **chosen})


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
        Only the shard's rows.
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
        slots=shard.slots, checkpoint=checkpoint, progress=progress,
        **{"keep_images": False, "files": True, "fold": False, "channels_last": False, **fast},
    )  # fmt: skip
    with cpu_threads(shard.threads):
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


def run_shard(campaign: Campaign, shard: Shard, *, progress: bool = False) -> Path:
    """Attack a shard of :func:`shards` and save it atomically, if its file is not there yet.

    Parameters
    ----------
    campaign : Campaign
        The one that the shard was cut from.
    shard : Shard
        What to do.
    progress : bool
        Show a progress bar.

    Returns
    -------
    Path
        The shard's file.
    """
    path = Path(campaign.folder) / shard.file
    if not path.is_file():
        part, state = shard.of(campaign.queue), path.with_suffix(".state")
        path.parent.mkdir(parents=True, exist_ok=True)
        rows = attack_shard(
            shard, campaign.victim.model, part, campaign.data, checkpoint=state, progress=progress
        )
        save_results(rows, path)
    return path


def merge(plan: Sequence[Shard], folder: str | Path) -> pd.DataFrame:
    """Read the files of all shards, one below the other; a missing one is a ``ValueError``."""
    frames = [load_results(Path(folder) / shard.file) for shard in plan]
    return pd.concat(frames, ignore_index=True)


def run(campaign: Campaign, *, progress: bool = False) -> pd.DataFrame:
    """Attack a queue shard by shard, each saved when it is done; a killed run goes on from there.

    A shard's file is named by the hash of all that decides it (:class:`Shard`), so that a file is
    read back only for the work that made it.

    Parameters
    ----------
    campaign : Campaign
        What to do.
    progress : bool
        Show a progress bar a shard.

    Returns
    -------
    pandas.DataFrame
        :func:`tkmia_utils.experiments.protocol.to_frame` of every limit, one below the other.

    Raises
    ------
    ValueError
        As for :func:`tkmia_utils.attack`.
    """
    campaign = settled(campaign)
    plan = shards(campaign)
    for shard in plan:
        run_shard(campaign, shard, progress=progress)
    return merge(plan, campaign.folder)


def deciding_code_hash() -> str:
    """SHA-256 over the code that decides a row; a module that is not there is a ``ValueError``."""
    return code_hash(MODULES, alone=ALONE, package=PACKAGE)


@contextmanager
def cpu_threads(number: int) -> Iterator[None]:
    """Let torch use so many CPU threads, and afterwards as many as before."""
    before = torch.get_num_threads()
    # also when it is the same: asked for, MKL keeps to it
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)
