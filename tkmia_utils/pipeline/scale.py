"""How far one driver reaches: a queue of any length on any number of actors, on paper.

What the driver of a cluster does for every image is measured on this machine: reading it, and
turning a shard into the bytes that are sent. What an actor needs for an image is measured as well,
or given. The rest is arithmetic: how many images a second so many actors ask for, how many the
driver can hand out, and from how many actors on it is what everybody waits for.
"""

import pickle
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import torch

from tkmia_utils.data import MultiLabelDataset
from tkmia_utils.experiments.cluster import pack
from tkmia_utils.experiments.protocol import Queue
from tkmia_utils.pipeline.cost import Study
from tkmia_utils.victims.prediction import predict
from tkmia_utils.workspace import Workspace

SECONDS = 1.0
"""How long each thing is measured."""


@dataclass(frozen=True)
class Driver:
    """What the process that cuts a queue into shards was measured to do.

    Attributes
    ----------
    read : float
        Images a second that it reads and decodes.
    sent : float
        Images a second that it turns into bytes, once they are read.
    image_bytes, row_bytes : float
        What is sent of an image, and what of a row without its image.
    """

    read: float
    sent: float
    image_bytes: float
    row_bytes: float

    @property
    def images(self) -> float:
        """Images a second that it can hand out."""
        return 1 / (1 / self.read + 1 / self.sent)


def measured(queue: Queue, data: MultiLabelDataset, *, seconds: float = SECONDS) -> Driver:
    """Measure what a driver does with shards of a queue, on this machine.

    Parameters
    ----------
    queue : Queue
        A shard or more; its images are read again and again.
    data : MultiLabelDataset
        Where the images are.
    seconds : float
        How long each thing is done.
    """
    ids = queue.index.tolist()
    read = _rate(lambda i: data.load(ids[i % len(ids)]), seconds)
    part, own = pack(queue, data)
    pixels = torch.stack([own.load(i) for i in range(len(own))])
    whole = len(pickle.dumps((part, pixels)))
    rows = len(pickle.dumps(part))
    sent = _rate(lambda i: pickle.dumps((part, pixels.clone())), seconds) * len(own)
    return Driver(read, sent, (whole - rows) / len(own), rows / len(queue.k))


def _rate(work: Callable[[int], object], seconds: float) -> float:
    """Calls a second."""
    begun, calls = time.perf_counter(), 0
    while calls < 3 or time.perf_counter() - begun < seconds:
        work(calls)
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
        Lines of ``what`` and ``value``.

    Raises
    ------
    ValueError
        A number that is not above 0.
    """
    for name, value in (("images", images), ("workers", workers), ("seconds", each)):
        if not value > 0:
            raise ValueError(f"{name}: expected a number above 0, got {value!r}")
    asked = workers / each
    given = min(asked, driver.images)
    lines = [
        ("images in the queue", f"{images:,}"),
        ("actors", f"{workers:,}"),
        ("seconds an actor needs for an image", f"{each:.3g}"),
        ("images a second that the actors ask for", f"{asked:,.1f}"),
        ("images a second that the driver reads and decodes", f"{driver.read:,.0f}"),
        ("images a second that it hands out", f"{driver.images:,.0f}"),
        ("actors from which on they wait for it", f"{driver.images * each:,.0f}"),
        ("MB a second that it sends", f"{given * driver.image_bytes / 1e6:,.1f}"),
        ("shards, and shards a second", f"{-(-images // chunk):,}, {given / chunk:.3g}"),
        ("hours until the queue is done", f"{images / given / 3600:.2f}"),
        ("hours if the driver were no limit", f"{images / asked / 3600:.2f}"),
        ("KB a second that it sends if actors read the images themselves",
         f"{asked * driver.row_bytes / 1e3:,.1f}"),
    ]  # fmt: skip
    return pd.DataFrame(lines, columns=["what", "value"])


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
    return reach(measured(few, study.val), images=images, workers=workers, each=each), note
