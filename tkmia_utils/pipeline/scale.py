"""How far one driver reaches: a queue of any length on any number of actors, on paper.

What the driver of a cluster does for an image is measured on this machine: hashing it, once,
before the first shard; handing it out, as a path or as pixels; saving what comes back, and reading
it again at the end. What an actor needs for an image is measured as well, or given. The rest is
arithmetic: how many images a second so many actors ask for, how many the driver hands out, and from
how many actors on it is what everybody waits for.
"""

import io
import pickle
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import nn

from tkmia_utils.data import MultiLabelDataset
from tkmia_utils.data.image_files import ImageFiles
from tkmia_utils.engine.advice import AttackWarning
from tkmia_utils.engine.runtime import Runtime
from tkmia_utils.experiments import protocol
from tkmia_utils.experiments.protocol import Queue
from tkmia_utils.experiments.sending import are_files, lend, pack
from tkmia_utils.files import write_atomically
from tkmia_utils.pipeline.cost import Study
from tkmia_utils.victims.prediction import predict
from tkmia_utils.workspace import Workspace, load_results

SECONDS = 1.0
"""How long each thing is measured."""
SHARD = 50
"""Images that are handed out together while that is measured."""


@dataclass(frozen=True)
class Handing:
    """One way of handing images out.

    Attributes
    ----------
    images : float
        Images a second that are made ready to be sent.
    size : float
        Bytes that are sent for one, its row included.
    """

    images: float
    size: float


@dataclass(frozen=True)
class Driver:
    """What the process that cuts a queue into shards was measured to do.

    Attributes
    ----------
    hashed : float
        Images a second that it hashes.
    paths : Handing or None
        As paths, which actors that see the files read; None where the images are no files.
    pixels : Handing
        Read and decoded by the driver.
    saved, merged : float
        Images a second whose results it writes as they arrive, and reads again at the end.
    """

    hashed: float
    paths: Handing | None
    pixels: Handing
    saved: float
    merged: float


def measured(
    queue: Queue,
    data: MultiLabelDataset,
    *,
    chunk: int = 2000,
    limits: int = 1,
    seconds: float = SECONDS,
) -> Driver:
    """Measure what a driver does with shards of a queue, on this machine.

    Parameters
    ----------
    queue : Queue
        A shard or more; its images are read again and again.
    data : MultiLabelDataset
        Where the images are.
    chunk : int
        Images a shard.
    limits : int
        Iteration limits that are reported: rows of results an image.
    seconds : float
        How long each thing is done. Files are read again and again, so from memory: a disk or a
        network that is slower than this is not seen.
    """
    if isinstance(data.load, ImageFiles):  # as if nothing were remembered
        data = replace(data, load=replace(data.load, cache=None))
    first = dict(reversed([(i, row) for row, i in enumerate(queue.index.tolist())]))
    part = queue.rows(sorted(first.values())[:SHARD])
    digests = data.digests(part.index.sort().values)
    hashed = _rate(lambda: data.digests(part.index), seconds) * len(part.k)
    handed = []
    for give in (lend, pack):
        send = partial(_sent, give, part, data, digests)
        handed.append(Handing(_rate(send, seconds) * len(part.k), send() / len(part.k)))
    paths = handed[0] if are_files(data) else None
    return Driver(hashed, paths, handed[1], *_kept(part, data, chunk, limits, seconds))


def _sent(
    give: Callable[..., object], part: Queue, data: MultiLabelDataset, digests: list[str]
) -> int:
    """Bytes of a shard: its rows with their images, and the digests of these."""
    return len(pickle.dumps((give(part, data, digests), digests), pickle.HIGHEST_PROTOCOL))


def _kept(
    part: Queue, data: MultiLabelDataset, chunk: int, limits: int, seconds: float
) -> tuple[float, float]:
    """Images a second whose results are written, and read again; of a victim that costs nothing."""
    model = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, len(data.classes)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AttackWarning)  # a victim that knows nothing
        rows, _ = protocol.run(
            model.eval(), part, data, max_iter=1, runtime=Runtime(keep_images=False, files=True)
        )
    rows = rows.iloc[[i % len(rows) for i in range(chunk * limits)]].reset_index(drop=True)
    numbers = rows.select_dtypes("float").columns  # no two alike, or the file would be too small
    rows[numbers] = np.random.default_rng(0).random((len(rows), len(numbers)))
    file = io.BytesIO()
    rows.to_parquet(file)
    write = partial(Path.write_bytes, data=file.getvalue())
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "shard.parquet"
        saved = _rate(lambda: write_atomically(path, write), seconds)
        return saved * chunk, _rate(lambda: load_results(path), seconds) * chunk


def _rate(work: Callable[[], object], seconds: float) -> float:
    """Calls a second."""
    begun, calls = time.perf_counter(), 0
    while calls < 3 or time.perf_counter() - begun < seconds:
        work()
        calls += 1
    return calls / (time.perf_counter() - begun)


def reach(
    driver: Driver, *, images: int, workers: int, each: float, chunk: int = 2000
) -> pd.DataFrame:
    """Say what a queue of so many images on so many actors asks of the driver.

    Parameters
    ----------
    driver : Driver
        From :func:`measured`.
    images, workers : int
        In the queue, and actors (for instance one a GPU).
    each : float
        Seconds that an actor needs for one image.
    chunk : int
        Images a shard.

    Returns
    -------
    pandas.DataFrame
        Lines of ``what``; one column where actors read the files, if there are any, and one where
        the driver does.

    Raises
    ------
    ValueError
        A number that is not above 0.
    """
    for name, value in (("images", images), ("workers", workers), ("seconds", each)):
        if not value > 0:
            raise ValueError(f"{name}: expected a number above 0, got {value!r}")
    ways = {} if driver.paths is None else {"actors read the files": driver.paths}
    ways |= {"the driver reads them": driver.pixels}
    shards = -(-images // chunk)
    asked, table = min(workers, shards) / each, {}  # no more actors work than there are shards
    before, after = images / driver.hashed / 60, images / driver.merged / 60
    for name, way in ways.items():
        most = 1 / (1 / way.images + 1 / driver.saved)
        given = min(asked, most)
        table[name] = {
            "images in the queue, and actors": f"{images:,}, {workers:,}",
            f"shards of {chunk:,}, and actors at work": f"{shards:,}, {min(workers, shards):,}",
            "seconds an actor needs for an image": f"{each:.3g}",
            "images a second that the actors ask for": f"{asked:,.1f}",
            "images a second that the driver hands out": f"{most:,.0f}",
            "actors from which on they wait for it": f"{most * each:,.0f}",
            "MB a second that it sends": f"{given * way.size / 1e6:,.3g}",
            "shards a second": f"{given / chunk:.3g}",
            "minutes to hash the images, once, before that": f"{before:.1f}",
            "hours until all are attacked": f"{images / given / 3600:.2f}",
            "minutes to read the results, after that": f"{after:.1f}",
            "hours if the driver cost nothing": f"{images / asked / 3600:.2f}",
        }
    return pd.DataFrame(table).rename_axis("what").reset_index()


def plan(
    parameters: Mapping[str, Mapping[str, object]],
    profile: str,
    root: str | Path,
    *,
    images: int,
    workers: int,
    each: float | None = None,
) -> tuple[pd.DataFrame, str]:
    """Measure on the data and the victim of a profile, and say how far one driver reaches.

    Parameters
    ----------
    parameters, profile, root
        As for :func:`tkmia_utils.pipeline.cost.estimate`; notebooks 04 and 06 are asked.
    images, workers, each
        As for :func:`reach`; without `each` TkMIA is tried on a few images, here.

    Returns
    -------
    table : pandas.DataFrame
        :func:`reach`.
    note : str
        On what it rests.

    Raises
    ------
    ValueError
        The profile attacks nothing, or data that cannot be read.
    """
    first = "06_attack_many_images"
    if not {"04_victim", first} <= parameters.keys():
        raise ValueError(f"--images: profile {profile} has no 04_victim and {first} to measure on")
    root = Path(root).resolve()
    study = Study(dict(parameters["04_victim"]), Workspace(root, profile, "pipeline", {}))
    given = parameters[first]
    logits = predict(study.victim.model, study.val) if study.trained else None
    queue = study.queue(given, logits)
    note = "Seconds an image as given."
    if each is None:
        limit = max(given["limits"])
        pilot = study.pilot(queue, limit, method="tkmia", lr=given["lrs"][0])
        each = pilot.cost(len(queue.k))[1] / len(queue.k)
        note = (
            f"Seconds an image: TkMIA with at most {limit} iterations on {study.device} of this "
            "machine; --seconds says those of yours."
        )
    few = queue.rows(torch.arange(min(200, len(queue.k))))
    found = measured(few, study.val, limits=len(given["limits"]))
    return reach(found, images=images, workers=workers, each=each), note
