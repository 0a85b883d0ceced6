"""What a profile will cost on this machine, from a short measurement, before anything runs.

Three things are measured: starting a notebook and drawing a figure; one training step and one
prediction of the victim; and, for every method, a few images attacked as they will be. Where the
profile's victim is trained already these are its own images, so that their iterations stand for
all. Where it is not, success and iterations are taken from the tables of the committed run of the
profile "quick", and the note says what it would be if no image succeeded.
"""

import heapq
import io
import re
import resource
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import nbformat
import pandas as pd
import torch
from matplotlib.figure import Figure

from tkmia_utils import data, victims, workspace
from tkmia_utils.engine.loop import DEFAULT_SLOTS
from tkmia_utils.engine.runtime import Runtime
from tkmia_utils.experiments import protocol
from tkmia_utils.experiments.lab import data_arguments, located
from tkmia_utils.experiments.tuning import WITHOUT_RATES
from tkmia_utils.victims.backbones import build
from tkmia_utils.victims.prediction import pick_device, predict
from tkmia_utils.victims.training import measured_step

RIVALS = ("tkml_ap_u", "ml_cw_u", "kfool", "gmla")  # of notebook 07
FORMS = (
    *(("paper", "sigmoid"), ("paper", "logits"), ("released", "logits")),
    *(("default", "sigmoid"), ("default", "logits")),
)
PILOT = 16  # images a method
# runs of the whole queue in the notebooks after 09, counted as if each went to its limit
RUNS = {"10_imperceptible": 17, "11_minimal_norm": 30, "12_monitor": 10, "13_defence": 20}


@dataclass(frozen=True)
class Pilot:
    """What attacking a few images showed.

    Attributes
    ----------
    iterations : tuple of int
        Forward passes that each image needs.
    seconds : float
        Of one iteration of all slots.
    slots : int
        Images an iteration.
    """

    iterations: tuple[int, ...]
    seconds: float
    slots: int

    def cost(self, rows: int) -> tuple[int, float]:
        """Image-iterations and seconds of `rows` images like these."""
        if not rows:
            return 0, 0.0
        needed = [self.iterations[i % len(self.iterations)] for i in range(rows)]
        return sum(needed), self.seconds * makespan(needed, self.slots)


def makespan(needed: Sequence[int], slots: int) -> int:
    """Iterations until a queue is finished: when an image ends, the next takes its slot."""
    busy = [0] * min(slots, len(needed))
    for many in needed:
        heapq.heappush(busy, heapq.heappop(busy) + many)
    return max(busy, default=0)


def estimate(
    parameters: Mapping[str, Mapping[str, object]],
    profile: str,
    root: str | Path,
    *,
    start: float,
) -> tuple[pd.DataFrame, str]:
    """Estimate every notebook of a profile.

    Parameters
    ----------
    parameters : mapping
        Notebook -> parameters, from :func:`tkmia_utils.pipeline.profile.resolve`.
    profile : str
        Its name.
    root : str or Path
        Folder that holds ``notebooks/`` and ``runs/``.
    start : float
        Seconds that an empty notebook takes.

    Returns
    -------
    table : pandas.DataFrame
        A line a notebook and one for all: ``image-iterations``, ``minutes``, ``GB`` (most memory
        at a time).
    note : str
        On what it rests.

    Raises
    ------
    ValueError
        Data that cannot be read.
    """
    root = Path(root).resolve()
    lab = workspace.Workspace(root, profile, "pipeline", {})
    figure = _seconds(_draw)
    costs = {name: _Cost(name, root, start, figure) for name in parameters}
    note = "No notebook of this profile attacks."
    if "04_victim" in costs:
        note = Study(dict(parameters["04_victim"]), lab).add_to(costs, parameters)
    lines = [cost.line() for cost in costs.values()]
    table = pd.DataFrame(lines).set_index("notebook")
    table.loc["all"] = [
        table["image-iterations"].sum(), table["minutes"].sum(), table["GB"].max()
    ]  # fmt: skip
    return table.astype({"image-iterations": int}), note


class _Cost:
    """The cost of one notebook: starting it, drawing its figures, and what is added."""

    def __init__(self, name: str, root: Path, start: float, figure: float) -> None:
        cells = nbformat.read(root / "notebooks" / f"{name}.ipynb", as_version=4).cells
        drawn = sum(len(re.findall(r"save_figure\(", cell.source)) for cell in cells)
        self.name, self.seconds, self.iterations = name, start + drawn * figure, 0
        self.most = 0  # image-iterations if none succeeds
        self.bytes = peak()

    def add(self, seconds: float, *, iterations: int = 0, held: float = 0.0, most: int = 0) -> None:
        self.seconds += seconds
        self.most += most
        self.iterations += iterations
        self.bytes += held

    def line(self) -> dict[str, object]:
        return {
            "notebook": self.name,
            "image-iterations": self.iterations,
            "minutes": self.seconds / 60,
            "GB": self.bytes / 1e9,
        }


class Study:
    """Data, victim and pilots of a profile."""

    def __init__(self, given: dict[str, object], lab: workspace.Workspace) -> None:
        self.lab, self.given = lab, given
        here = located(given, lab.root / "notebooks")
        val = {**data_arguments(here, "val"), "cache": lab.cache}
        begun = time.perf_counter()
        self.val = data.load(**val)
        self.reading = (time.perf_counter() - begun) / len(self.val)  # seconds an image
        self.n_train = given["n_train"]
        self.val_reading = self.reading * len(self.val)
        if given["dataset"] == "emoji":
            self.val_reading = _seconds(lambda: data.load(**val))
        else:
            train = data.load(**data_arguments(here, "train"), cache=lab.cache)
            self.n_train = len(train)
        self.recipe = victims.recipe(given["recipe"], **given["changes"], seed=given["seed"])
        self.device = pick_device(str(given["device"]))
        file = lab.runs / "victim.safetensors"
        self.trained = file.is_file()
        if self.trained:
            victim = victims.load(file, device=str(given["device"]))
            self.trained = victim.classes == self.val.classes
        if not self.trained:
            bare = replace(self.recipe, weights="scratch")
            model = build(bare.arch, len(self.val.classes), widths=bare.widths).eval()
            layout = torch.channels_last if bare.channels_last else torch.contiguous_format
            model = model.to(self.device, memory_format=layout)
            victim = victims.Victim(model, [], "", self.val.classes)
        self.victim = victim
        few = self.val.subset(range(min(16, len(self.val))))
        predict(victim.model, few)
        self.forward = _seconds(lambda: predict(victim.model, few)) / len(few)
        self.before = recorded(lab.root / "figures" / "quick")
        self.training_bytes = 0.0
        self.pixels = 3 * self.val.size**2

    def add_to(
        self, costs: dict[str, _Cost], parameters: Mapping[str, Mapping[str, object]]
    ) -> str:
        n_val = len(self.val)
        kept = self.pixels * n_val if self.given["dataset"] in ("emoji", "folder") else 0
        clean = self.val_reading + self.forward * n_val
        for name, cost in costs.items():
            if name > "04_victim":
                cost.add(clean, held=kept)
        first = min((name for name in costs if name >= "03"), default="")
        if first:
            costs[first].add(self.reading * (self.n_train + n_val))
        costs["04_victim"].add(self._training(), held=kept * (1 + self.n_train / n_val))
        costs["04_victim"].add(0.0, held=self.training_bytes)
        logits = predict(self.victim.model, self.val) if self.trained else None
        for name in ("06_attack_many_images", "07_baselines"):
            if name in costs:
                self._attack(name, costs[name], parameters[name], logits)
        for name, runs in RUNS.items():
            if name in costs:
                self._promise(costs[name], parameters[name], logits, runs)
        if self.trained:
            return f"Iterations as {PILOT} images a method needed them; the victim is trained."
        most = sum(cost.most for cost in costs.values())
        return (
            "No victim is trained yet: success and iterations are those of the committed run of "
            f"`quick`, on its own victim. If no image succeeded it would be {most:,} "
            "image-iterations. Ask again when 04_victim has run."
        )

    def _training(self) -> float:
        if self.trained:  # it is loaded
            return 0.0
        many = min(self.recipe.batch, 8 if self.device.type == "cpu" else 32)
        before = peak()
        step = measured_step(
            replace(self.recipe, weights="scratch", batch=many, accumulate=1), self.val,
            device=self.device,
        )  # fmt: skip
        self.training_bytes = (peak() - before) * self.recipe.batch / self.recipe.accumulate / many
        epochs = self.recipe.epochs
        judged = self.forward * len(self.val) * (epochs + 1 + bool(self.recipe.head_epochs))
        head = self.forward * self.n_train * bool(self.recipe.head_epochs)
        decode = self.reading * self.n_train * epochs * (self.given["dataset"] in data.BENCHMARKS)
        return step / many * self.n_train * epochs + judged + head + decode

    def _attack(
        self,
        name: str,
        cost: _Cost,
        given: Mapping[str, object],
        logits: torch.Tensor | None,
    ) -> None:
        queue = self.queue(given, logits)
        cells = protocol.list_cells(list(data.types_of(self.val)), given["ks"], given["pairs"])
        grid = len(given["lrs"]) * len(given["alphas"])
        tuning = grid * given["n_tune"] * len(cells) if grid > 1 else 0
        limit = max(given["limits"])
        first = name == "06_attack_many_images"
        for method in ("tkmia",) if first else RIVALS:
            pilot = self.pilot(queue, limit, method=method, lr=given["lrs"][0])
            search = 0 if method in WITHOUT_RATES else tuning
            for rows in (len(queue.k), search, len(cells)):
                iterations, seconds = pilot.cost(rows)
                cost.add(seconds, iterations=iterations, most=rows * (limit + 1))
        if name == "07_baselines":
            rows = min(given["n_variants"], len(queue.k))
            for variant, scores in FORMS:
                options = {"method": "tkmia", "variant": variant, "scores": scores}
                iterations, seconds = self.pilot(queue, limit, **options).cost(rows)
                cost.add(seconds, iterations=iterations, most=rows * (limit + 1))
            for form in ("untargeted", "printed"):
                pilot = self.pilot(queue, 100, method="ml_cw_u", form=form)
                iterations, seconds = pilot.cost(rows)
                cost.add(seconds, iterations=iterations, most=rows * 101)
        # clean and adversarial images of a chunk, in float32
        cost.add(0.0, held=2 * 4 * self.pixels * min(len(queue.k), 2000))

    def _promise(
        self,
        cost: _Cost,
        given: Mapping[str, object],
        logits: torch.Tensor | None,
        runs: int,
    ) -> None:
        queue, limit = (
            self.queue(given, logits),
            max([given.get("max_iter", 0), *given.get("budgets", ())]),
        )
        pilot = self.pilot(queue, limit, method="tkmia_min", stop="imperceptible")
        iterations, seconds = pilot.cost(len(queue.k) * runs)
        cost.add(seconds, iterations=iterations, most=iterations)

    def queue(self, given: Mapping[str, object], logits: torch.Tensor | None) -> protocol.Queue:
        """The rows that a notebook with these parameters attacks."""
        ks = given["ks"] if "ks" in given else [given["k"]]
        cells = protocol.list_cells(list(data.types_of(self.val)), ks, given["pairs"])
        rule = given["rule"]
        if logits is None:  # the label sets alone decide
            logits, rule = torch.zeros(len(self.val), len(self.val.classes)), "paper"
        return protocol.build_queue(
            cells,
            self.val,
            logits,
            data.types_of(self.val),
            n=given["n"],
            seed=given["seed"],
            rule=rule,
        )

    def pilot(self, queue: protocol.Queue, limit: int, **options: object) -> Pilot:
        """Attack a few images of a queue, at most `limit` iterations each."""
        slots = DEFAULT_SLOTS.get("cpu", 16)
        many = min(PILOT, len(queue.k))
        part = queue.rows(torch.arange(many) * len(queue.k) // many)
        options.setdefault("lr", 1e-3)
        tried = limit if self.trained else 3
        run: Callable[[], object] = lambda: protocol.run(  # noqa: E731
            self.victim.model, part, self.val, max_iter=tried,
            runtime=Runtime(slots=slots), **options,
        )  # fmt: skip
        begun = time.perf_counter()
        _, result = run()
        seconds = time.perf_counter() - begun
        needed = [i + 1 for i in result.iterations.tolist()]
        each = seconds / makespan(needed, slots)
        if not self.trained:
            needed = self.before.get(_called(options), lambda _: [limit + 1])(limit)
        return Pilot(tuple(needed), each, slots)


def recorded(folder: Path) -> dict[str, Callable[[int], list[int]]]:
    """What the committed run of a profile says of each method, and of TkMIA's variants.

    Parameters
    ----------
    folder : Path
        Its figures and tables.

    Returns
    -------
    dict
        Name -> function of an iteration limit: forward passes of a hundred typical images.
    """
    found: dict[str, Callable[[int], list[int]]] = {}
    for file in ("07_overall.csv", "07_variants.csv"):
        if not (folder / file).is_file():
            continue
        table = pd.read_csv(folder / file)
        for name, lines in table.groupby("method", sort=False):
            line = lines.iloc[-1]  # the longest limit
            won, steps = (float(str(line[c]).split()[0]) for c in ("success", "iterations"))
            found[str(name)] = partial(_typical, won, steps)
    return found


def _typical(won: float, steps: float, limit: int) -> list[int]:
    """Passes of a hundred images: `won` of them succeed after `steps`, the rest reach the limit."""
    needed = round(min(steps, limit)) + 1
    return [needed if int((i + 1) * won) > int(i * won) else limit + 1 for i in range(100)]


def _called(options: Mapping[str, object]) -> str:
    """The name a method or variant goes by in the tables."""
    if "variant" in options:
        return f"{options['variant']}, {options['scores']}"
    return str(options["method"])


def _seconds(work: Callable[[], object]) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def _draw() -> None:
    """A figure of two axes, as PNG and SVG."""
    figure = Figure(figsize=(10, 4))
    for ax in figure.subplots(1, 2):
        ax.plot(range(100))
        ax.set(title="title", xlabel="x", ylabel="y")
    for kind in ("png", "svg"):
        figure.savefig(io.BytesIO(), format=kind, dpi=150)


def peak() -> float:
    """Most memory this process has ever held, in bytes."""
    status = Path("/proc/self/status")
    if status.is_file():  # Linux, where getrusage starts with what the parent held
        return 1024.0 * int(re.search(r"VmHWM:\s*(\d+) kB", status.read_text())[1])
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
