"""Campaigns on more than one machine: Ray actors attack the shards that a local run does in turn.

What is sent. The driver, the process that calls :func:`run`, sends a shard's rows and the paths of
its images where these are files. An actor that sees the same files and would read them alike (its
hashes and its version of Pillow tell) reads them itself. To any other, and where the images are no
files or in memory already, the driver sends them as uint8, each read once: one process then decodes
for all, and ``--plan PROFILE --images N`` says how far that reaches. No data set is sent whole. The
victim goes to the object store, which copies it once to a node, and every actor holds it for all
its shards. A shard's parquet comes back as bytes; only the driver writes files, each atomically, so
that a killed driver goes on from those.

What must agree. Bytes equal those of a local run for the same chunk, slots, threads and kind of
machine. Threads are part of a shard and set wherever it is attacked; actors refuse to start where
the code or torch differs from the driver's. No other module uses Ray, and this one imports it only
when it is needed.
"""

import io
import logging
import os
import traceback
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import ModuleType

import pandas as pd
import torch
from tqdm.auto import tqdm

from tkmia_utils.data import MultiLabelDataset
from tkmia_utils.experiments import campaign as local
from tkmia_utils.experiments.campaign import Campaign, Shard
from tkmia_utils.experiments.protocol import Queue
from tkmia_utils.experiments.sending import are_files, changed, lend, pack
from tkmia_utils.files import write_atomically

ENGINES = ("local", "ray")
RETRIES = 3
"""How often a shard is given to another actor after one died of it or with it."""
PATIENCE = 10.0
"""Seconds without an answer after which the driver checks that a node is left."""
NAMED = 5
"""How many images of a shard a message names before it only counts."""
UNSEEN = "unseen"
"""An actor's answer where it does not find the files that the driver has hashed."""


@dataclass(frozen=True)
class Failure:
    """A shard that could not be done.

    Attributes
    ----------
    shard : str
        Its id.
    images : tuple of str
        Ids of its images, each once.
    cause : str
        Type and message of what was raised.
    trace : str
        The traceback, from wherever it was raised; may be empty.
    """

    shard: str
    images: tuple[str, ...]
    cause: str
    trace: str


class ShardError(RuntimeError):
    """Some shards failed, and all others are on disk.

    Attributes
    ----------
    method : str
        Of the campaign.
    failures : tuple of Failure
        One a shard, in the order of the queue.
    """

    def __init__(self, method: str, failures: Sequence[Failure]) -> None:
        self.method, self.failures = method, tuple(failures)
        lines = [f"{method}: {len(failures)} of the shards failed; all others are on disk"]
        for one in failures:
            more = max(0, len(one.images) - NAMED)
            named = ", ".join(one.images[:NAMED]) + (f" and {more} more" if more else "")
            lines.append(f"  shard {one.shard}, images {named}: {one.cause}")
        super().__init__("\n".join(lines))


def run(
    campaign: Campaign,
    *,
    engine: str = "local",
    address: str | None = None,
    workers: int | None = None,
    num_cpus: float | None = None,
    num_gpus: float = 0,
    progress: bool = False,
    on_shard: Callable[[Path], None] | None = None,
) -> pd.DataFrame:
    """Attack a queue shard by shard, here or on a cluster, with the same result.

    Parameters
    ----------
    campaign : Campaign
        What to do. For a cluster, choose its chunks so small that every actor gets a few; an actor
        holds one in memory. With the engine "ray" the default of ``threads`` is the number that
        torch uses here, or 1 with a GPU; many actors of one thread get more done than one actor of
        many. ``place`` follows from `num_gpus`.
    engine : {"local", "ray"}
        This process, or a cluster.
    address : str, optional
        Of a running cluster (``"auto"`` on one of its machines), which is left as it was found;
        default a cluster of this machine alone, for this run. Where the program is connected
        to Ray already, that connection is used.
    workers : int, optional
        Most actors; default as many as the nodes hold.
    num_cpus : float, optional
        CPUs an actor asks for; default one a thread.
    num_gpus : float
        GPUs an actor asks for, fractions allowed; 0 attacks on the CPU, wherever the victim is.
        Not run on a GPU yet.
    progress : bool
        Show a progress bar; never where the environment variable CI is set.
    on_shard : callable, optional
        Called with the path of each file that this run has written. Engine "ray" alone.

    Returns
    -------
    pandas.DataFrame
        As for :func:`tkmia_utils.experiments.campaign.run`.

    Raises
    ------
    ValueError
        An unknown engine, one without its package, arguments that engine does not take, an address
        where no cluster is, or more CPUs or GPUs than any node has.
    RuntimeError
        A node runs other code, or cannot load the victim.
    ShardError
        Shards that raised, or whose actors died repeatedly; raised after all others are done.
    """
    if engine not in ENGINES:
        raise ValueError(f"engine: expected one of {', '.join(ENGINES)}, got {engine!r}")
    progress = progress and not os.environ.get("CI")
    if engine == "local":
        for name, value in (("address", address), ("workers", workers), ("on_shard", on_shard)):
            if value is not None:
                raise ValueError(f"{name}: the engine 'local' has none, got {value!r}")
        return local.run(campaign, progress=progress)
    ray = _ray()
    campaign = local.settled(replace(campaign, place="cuda" if num_gpus else "cpu"))
    plan = local.shards(campaign)
    needs = {"num_cpus": plan[0].threads if num_cpus is None else num_cpus, "num_gpus": num_gpus}
    _check(workers, needs)
    folder = Path(campaign.folder)
    # by file: rows that come again in another chunk are the same work
    todo = {shard.file: shard for shard in plan if not (folder / shard.file).is_file()}
    if todo:
        failures = {}
        bar = _Bar(
            total=len(campaign.queue.k), desc=campaign.method, unit="image", leave=False,
            disable=not progress,
        )  # fmt: skip
        with _connected(ray, address), bar:
            team = _Team(ray, campaign, needs)
            for shard in plan:
                if shard.file not in todo:
                    bar.add(shard, folder / shard.file)
            with closing(team.outcomes(todo.values(), workers)) as outcomes:
                for shard, outcome in outcomes:
                    if isinstance(outcome, Failure):
                        failures[shard.rows.start] = outcome
                        continue
                    path = folder / shard.file
                    write_atomically(path, partial(Path.write_bytes, data=outcome))
                    bar.add(shard, path)
                    if on_shard is not None:
                        on_shard(path)
        if failures:
            raise ShardError(campaign.method, [failures[start] for start in sorted(failures)])
    return local.merge(plan, folder)


class _Team:
    """Actors that take the shards of a queue, and new ones for those that die."""

    def __init__(self, ray: ModuleType, campaign: Campaign, needs: dict[str, float]) -> None:
        self.ray, self.needs, self.place = ray, needs, campaign.place
        self.queue, self.data = campaign.queue, campaign.data
        if not self.capacity():
            raise ValueError(
                f"num_cpus, num_gpus: no node of the cluster has {needs['num_cpus']:g} CPUs and "
                f"{needs['num_gpus']:g} GPUs for an actor; ask for less, or for fewer threads"
            )
        self.stamp = _stamp()  # now: a node hired later may find newer files
        # a copy on the CPU: not every node need have the driver's device
        self.model = ray.put(deepcopy(campaign.victim.model).cpu())
        # one that dies is replaced here and not by Ray, which would wait for its node
        self.actor = ray.remote(scheduling_strategy="SPREAD", max_restarts=0, **needs)(_Actor)
        # pending answers: of which actor, and for which shard; None while it starts
        self.jobs: dict[object, tuple[object, Shard | None]] = {}
        self.died: Counter[str | None] = Counter()
        # actors that read images themselves, until they once do not find them
        self.blind: set[object] = set()

    def capacity(self) -> int:
        """How many actors the living nodes hold."""
        asked = [(kind, self.needs[f"num_{kind.lower()}s"]) for kind in ("CPU", "GPU")]
        nodes = [node["Resources"] for node in self.ray.nodes() if node["Alive"]]
        return sum(min(int(n.get(kind, 0) / x + 1e-9) for kind, x in asked if x) for n in nodes)

    def outcomes(
        self, todo: Iterable[Shard], workers: int | None
    ) -> Iterator[tuple[Shard, bytes | Failure]]:
        """Yield every shard with the bytes of its parquet or its failure, as they arrive."""
        waiting = deque(todo)
        try:
            for _ in range(min(len(waiting), workers or self.capacity())):
                self._hire()
            while waiting or any(shard for _, shard in self.jobs.values()):
                actor, shard, answer = self._drain()
                found = []
                if isinstance(answer, Exception):  # lost with its actor
                    times = self.died[shard.id] if shard else 0
                    if shard and times <= RETRIES:
                        waiting.append(shard)
                    elif shard:
                        cause = f"its actor died {times} time(s): {_last_line(answer)}"
                        found.append(self._failed(shard, cause, str(answer)))
                    if waiting:
                        self._hire()
                elif answer == UNSEEN:
                    self.blind.add(actor)
                    waiting.appendleft(shard)
                    found += self._give(actor, waiting)
                else:
                    if shard:
                        done = isinstance(answer, bytes)
                        found.append((shard, answer) if done else self._failed(shard, *answer))
                    found += self._give(actor, waiting)
                yield from found
        finally:
            for actor, _ in self.jobs.values():
                self.ray.kill(actor)

    def _give(self, actor: object, waiting: deque[Shard]) -> list[tuple[Shard, Failure]]:
        """Give an actor the next shard; one that cannot be sent has failed."""
        failed = []
        while waiting:
            shard = waiting.popleft()
            try:
                give = pack if actor in self.blind else lend
                sent = give(shard.of(self.queue), self.data, shard.digests)
                self.jobs[actor.run_shard.remote(shard, *sent)] = (actor, shard)
                return failed
            except Exception as error:  # an image that cannot be read
                failed.append(self._failed(shard, *_cause_and_trace(error)))
        self.ray.kill(actor)  # frees its CPUs for an actor that repeats a lost shard
        return failed

    def _failed(self, shard: Shard, cause: str, trace: str) -> tuple[Shard, Failure]:
        ids = dict.fromkeys(self.data.ids[i] for i in shard.of(self.queue).index.tolist())
        return shard, Failure(shard.id, tuple(ids), cause, trace)

    def _hire(self) -> None:
        actor = self.actor.remote(self.stamp, [self.model], self.place)
        self.jobs[actor.ready.remote()] = (actor, None)

    def _drain(
        self,
    ) -> tuple[object, Shard | None, bytes | str | tuple[str, str] | Exception | None]:
        """Wait for an answer: the actor, its shard, and the result or the error."""
        ray, found = self.ray, []
        while not found:
            found, _ = ray.wait(list(self.jobs), timeout=PATIENCE)
            if not found and not self.capacity():
                raise RuntimeError("the cluster has no node left that holds an actor")
        actor, shard = self.jobs.pop(found[0])
        try:
            answer = ray.get(found[0])
        except ray.exceptions.RayTaskError as error:  # what was sent cannot be unpickled there
            lent = are_files(self.data) and actor not in self.blind  # as a reader of one's own
            return actor, shard, UNSEEN if lent else (_last_line(error), str(error))
        except ray.exceptions.RayError as error:  # the actor, its node or the answer is lost
            ray.kill(actor)
            if getattr(error, "actor_init_failed", False):
                raise RuntimeError(f"an actor cannot start: {_last_line(error)}") from error
            self.died[shard.id if shard else None] += 1
            if self.died[None] > RETRIES * (len(self.jobs) + 1):
                raise RuntimeError(f"actors die before they start: {error}") from error
            return actor, shard, error
        if shard is None:
            self.died[None] = 0
        return actor, shard, answer


class _Actor:
    """Holds the victim on a node and attacks one shard after the other."""

    def __init__(self, stamp: dict[str, str], model: list[object], place: str) -> None:
        """Refuse other code before it unpickles the model, whose reference is inside a list."""
        if stamp != _stamp():
            raise RuntimeError(f"a node has other code than the driver: {_stamp()}, not {stamp}")
        import ray

        self.model = ray.get(model[0]).to(place)

    def ready(self) -> None:
        """Return once the victim is loaded."""

    def run_shard(
        self, shard: Shard, part: Queue, data: MultiLabelDataset
    ) -> bytes | str | tuple[str, str]:
        """Return the parquet of a shard, or the error as text, which can always be pickled."""
        try:
            if changed(shard.digests, data):
                return UNSEEN
            file = io.BytesIO()
            local.attack_shard(shard, self.model, part, data).to_parquet(file)
            # once more: a file that was replaced meanwhile is not the one of the shard's name
            return UNSEEN if changed(shard.digests, data) else file.getvalue()
        except Exception as error:
            return _cause_and_trace(error)


def _stamp() -> dict[str, str]:
    """What must be the same on every node."""
    return {"code": local.deciding_code_hash(), "torch": torch.__version__.split("+")[0]}


def _ray() -> ModuleType:
    try:
        import ray
    except ImportError:
        raise ValueError(
            "engine: 'ray' needs the extra cluster: pip install '.[cluster]'"
        ) from None
    return ray


def _check(workers: int | None, needs: dict[str, float]) -> None:
    whole = isinstance(workers, int) and not isinstance(workers, bool)
    if workers is not None and (not whole or workers < 1):
        raise ValueError(f"workers: expected an int >= 1, got {workers!r}")
    for name, value in needs.items():
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or value < 0 or (name == "num_cpus" and not value):
            raise ValueError(f"{name}: expected a number above 0 (num_gpus: or 0), got {value!r}")


@contextmanager
def _connected(ray: ModuleType, address: str | None) -> Iterator[None]:
    """Connect if there is no connection yet; close it only if it was made here."""
    if ray.is_initialized():
        yield
        return
    own = {"include_dashboard": False} if address is None else {}
    for tries_left in (2, 1, 0):
        try:
            ray.init(address or "local", log_to_driver=False, logging_level=logging.ERROR, **own)
            break
        except ConnectionError as error:
            raise ValueError(f"address: no cluster answers at {address!r} ({error})") from error
        except Exception as error:  # the half minute that Ray allows a node may not do under load
            ray.shutdown()
            if not tries_left or "timed out during startup" not in str(error):
                raise
    try:
        yield
    finally:
        ray.shutdown()


class _Bar(tqdm):
    """Counts rows of the queue, and shows how many of them succeeded."""

    successes = 0

    def add(self, shard: Shard, path: Path) -> None:
        if self.disable:
            return
        rows = pd.read_parquet(path, columns=["success", "max_iter"])
        self.successes += int(rows.success[rows.max_iter == max(shard.limits)].sum())
        self.update(len(shard.rows))
        self.set_postfix(success=f"{self.successes / self.n:.0%}")


def _cause_and_trace(error: Exception) -> tuple[str, str]:
    return f"{type(error).__name__}: {error}", traceback.format_exc()


def _last_line(error: Exception) -> str:
    return str(error).strip().splitlines()[-1].strip()
