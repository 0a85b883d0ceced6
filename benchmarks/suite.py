"""The benchmark, ``make bench``: what the engine costs beside what it must cost.

Everything that is compared is timed in turns within one run, so that whatever else the machine does
hits all alike; medians and quartiles are reported. Nothing here is a test: numbers differ from
machine to machine, and a table says what they were on this one.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import nn
from torch.nn import functional
from torchvision.utils import save_image

from benchmarks.floor import PLAIN, case, floor, gradients, in_turns, loop, queued, spread
from benchmarks.report import write
from tkmia_utils import data, measures, victims
from tkmia_utils.data.image_files import ImageFiles
from tkmia_utils.engine.advice import AttackWarning
from tkmia_utils.engine.loop import attack
from tkmia_utils.engine.runtime import Runtime
from tkmia_utils.experiments import protocol
from tkmia_utils.interruption import ending_in_time
from tkmia_utils.pipeline import scale
from tkmia_utils.pipeline.cost import peak
from tkmia_utils.victims.backbones import small_net


class Counting(nn.Module):
    """A model that counts the images it is shown."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model, self.count = model, 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """As the model."""
        self.count += len(x)
        return self.model(x)


def work(victim: victims.Victim, scenes: data.MultiLabelDataset) -> list[dict[str, object]]:
    """Image-iterations done over those needed, at 1000 images."""
    queue = queued(victim, scenes, 1000)
    counting = Counting(victim.model).eval()
    result = attack(
        counting, scenes.images(queue.index), queue.labels, queue.specified, queue.k,
        delta=queue.delta, max_iter=100, runtime=Runtime(slots=16, **PLAIN),
    )  # fmt: skip
    needed = result.iterations + 1  # the last forward pass finds the success
    waiting = sum(len(part) * int(part.max()) for part in needed.split(16))
    total = int(needed.sum())
    return [
        {"benchmark": "work", "case": name, "ratio": f"{done / total:.3f}", "value": done / total,
         "note": note}
        for name, done, note in (
            ("slots with refill", counting.count, f"{len(needed)} images, {total} needed"),
            ("wait for the slowest of 16", waiting, "counted from the same iterations"),
            ("shrink the batch", total, "no waste in images, but other shapes and other bits"),
        )
    ]  # fmt: skip


def growth(rounds: int) -> list[dict[str, object]]:
    """Seconds against images, classes and k; memory against the length of the queue."""
    lines = []

    def timed(what: str, size: int, n: int, classes: int, k: int) -> None:
        torch.manual_seed(0)
        model = small_net(classes, (16, 32, 32, 32, 32), normed=False).eval()
        images, labels, specified = case(model, n, 48, k=k)
        run = {"ours": lambda: attack(
            model, images, labels, specified, k, lr=1e-9, max_iter=20,
            runtime=Runtime(slots=16, **PLAIN),
        )}  # fmt: skip
        seconds = in_turns(run, max(1, rounds // 3))["ours"]
        lines.append(
            {"benchmark": "growth", "case": what, "size": size, "value": float(np.median(seconds)),
             "ours, ms": spread(seconds * 1e3)}
        )  # fmt: skip

    with torch.random.fork_rng(devices=[]):
        for n in (64, 128, 256, 512):
            timed("images", n, n, 20, 3)
        for classes in (20, 80, 200, 1000):
            timed("classes", classes, 64, classes, 3)
        for k in (1, 3, 10, 18):
            timed("k", k, 64, 20, k)
    for n in (500, 2000, 10_000, 100_000):
        call = [sys.executable, "-c", f"from benchmarks import suite as bench; bench.held({n})"]
        # every tensor in pages of its own: what is held counts, not the holes of glibc's heap
        env = os.environ | {"MALLOC_MMAP_THRESHOLD_": "16384"}
        told = subprocess.run(call, capture_output=True, text=True, check=True, env=env).stdout
        memory, seconds = (float(word) for word in told.split())
        lines.append(
            {"benchmark": "growth", "case": "queue, peak MB", "size": n, "value": memory,
             "note": f"{memory:.0f} MB; {1e3 * seconds / n:.2f} ms an image, one core"}
        )  # fmt: skip
    return lines


class _Tiny:
    """A queue of images that exist only while they are looked at."""

    def __init__(self, n: int) -> None:
        self.n = n

    def __len__(self) -> int:
        return self.n

    def images(self, index: torch.Tensor) -> torch.Tensor:
        """Noise that depends on the position alone."""
        return torch.stack(
            [torch.rand(3, 48, 48, generator=torch.Generator().manual_seed(int(i))) for i in index]
        )


def held(n: int) -> None:
    """Print this process's peak memory in MB, and seconds, after a queue of n streamed images."""
    torch.set_num_threads(1)
    model = small_net(10, (8, 8, 8, 8, 8), normed=False).eval()
    labels = torch.zeros(n, 10, dtype=torch.bool)
    labels[:, :4] = True
    specified = torch.zeros_like(labels)
    specified[:, 0] = True
    runtime, begun = Runtime(slots=32, keep_images=False, **PLAIN), time.perf_counter()
    attack(model, _Tiny(n), labels, specified, 2, lr=1e-9, max_iter=1, runtime=runtime)
    print(peak() / 2**20, time.perf_counter() - begun)


def driver(seconds: float) -> list[dict[str, object]]:
    """Images a second that a cluster's driver hands out: JPEG files of 500 by 375, from memory."""
    generator, lines = torch.Generator().manual_seed(0), []
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / f"{i}.jpg" for i in range(200)]
        for path in paths:  # coarse and fine noise, so that a file is about as large as a photo's
            small = torch.rand(1, 3, 94, 125, generator=generator)
            pixels = functional.interpolate(small, (375, 500), mode="bicubic").clamp(0, 1)
            save_image(pixels, path)
        labels = torch.zeros(len(paths), 20, dtype=torch.bool)
        labels[:, :4] = True
        shown = data.MultiLabelDataset(
            name="noise", split="val", classes=tuple(f"c{c}" for c in range(20)), labels=labels,
            ids=tuple(path.name for path in paths), load=ImageFiles(tuple(paths), 224),
            card="noise", size=224,
        )  # fmt: skip
        scores = torch.rand(len(paths), 20, generator=generator)
        queue = protocol.build_queue([protocol.Cell("S2", 3, m=1)], shown, scores, {}, n=200)
        found = scale.measured(queue, shown, seconds=seconds)
    assert found.paths is not None
    ways = {
        "actors read the files": found.paths.images, "the driver reads them": found.pixels.images,
        "images hashed": found.hashed, "results saved": found.saved, "results read": found.merged,
    }  # fmt: skip
    for name, rate in ways.items():
        lines.append(
            {"benchmark": "driver", "case": name, "value": rate,
             "note": f"{rate:,.0f} images a second"}
        )  # fmt: skip
    return lines


def contests(n: int, classes: int) -> dict[str, dict[str, Callable[[], object]]]:
    """Measures that others compute as well, on random scores and about three labels an image."""
    from sklearn.metrics import label_ranking_average_precision_score, ndcg_score
    from torchmetrics.functional.classification import multilabel_ranking_average_precision

    generator = torch.Generator().manual_seed(0)
    scores = torch.rand(n, classes, generator=generator)
    labels = torch.rand(n, classes, generator=generator) < 3 / classes
    labels[:, 0] = True
    y, f = labels.numpy(), scores.numpy()
    return {
        "NDCG@5": {
            "ours": lambda: measures.ndcg_at_k(scores, labels, 5).mean(),
            "scikit-learn": lambda: ndcg_score(y, f, k=5),
        },
        "AP over all classes": {
            "ours": lambda: measures.average_precision_at_k(scores, labels, classes).mean(),
            "scikit-learn": lambda: label_ranking_average_precision_score(y, f),
            "torchmetrics": lambda: multilabel_ranking_average_precision(
                scores, labels.long(), num_labels=classes
            ),
        },
    }


def rated(rounds: int, large: bool) -> list[dict[str, object]]:
    """Our measures against scikit-learn and torchmetrics, which must agree with them."""
    lines = []
    for n, classes in ((1000, 80), (100_000, 1000)) if large else ((1000, 80),):
        for measure, contestants in contests(n, classes).items():
            said = {name: float(work()) for name, work in contestants.items()}
            times = in_turns(contestants, max(1, rounds // 3) if n < 10_000 else 1)
            for name in list(contestants)[1:]:
                ratio = times[name] / times["ours"]
                lines.append(
                    {"benchmark": "measures", "case": f"{measure}, {n} x {classes}, {name}",
                     "ours, ms": spread(times["ours"] * 1e3),
                     "other, ms": spread(times[name] * 1e3),
                     "ratio": spread(ratio), "value": float(np.median(ratio)),
                     "note": f"differ by {abs(said['ours'] - said[name]):.1e}"}
                )  # fmt: skip
    return lines


def merged(kept: pd.DataFrame, new: pd.DataFrame) -> pd.DataFrame:
    """New lines in the place of old ones of the same benchmark and case, or below them."""
    if kept.empty:
        return new
    both = pd.concat([kept, new], ignore_index=True)
    cases = [name for name in ("benchmark", "case", "size") if name in both]
    order = both.drop_duplicates(cases).set_index(cases).index
    return both.drop_duplicates(cases, keep="last").set_index(cases).loc[order].reset_index()


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line: writes a table and a figure."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--rounds", type=int, default=9, help="times each contestant is timed")
    parser.add_argument(
        "--only", nargs="+", default=[], help="floor kfool loop work growth driver measures"
    )
    parser.add_argument("--small", action="store_true", help="leave out the largest measures")
    parser.add_argument("--root", default=".", help="the folder that holds runs/ and figures/")
    given = parser.parse_args(arguments)
    # steps so small that nothing succeeds are what is wanted here
    warnings.simplefilter("ignore", AttackWarning)
    file = Path(given.root) / "runs" / "quick" / "victim.safetensors"
    victim = victims.load(file, device="cpu") if file.is_file() else None
    scenes = data.load("emoji", "val", n=2500, cache=Path(given.root) / "cache")
    jobs: dict[str, Callable[[], list[dict[str, object]]]] = {
        "floor": lambda: floor(given.rounds),
        "kfool": lambda: gradients(given.rounds),
        "loop": lambda: loop(given.rounds, victim, scenes),
        "growth": lambda: growth(given.rounds),
        "driver": lambda: driver(given.rounds / 3),
        "measures": lambda: rated(given.rounds, not given.small),
    }
    if victim is not None:
        jobs["work"] = lambda: work(victim, scenes)
    else:
        print(f"no victim at {file}: 'work' and the embedded 'loop' are left out; run")
        print("`make reproduce` first")
    folder = Path(given.root) / "figures" / "bench"
    old, text = folder / "bench.csv", ""
    # what is not timed now is kept
    kept = pd.read_csv(old) if given.only and old.is_file() else pd.DataFrame()
    lines: list[dict[str, object]] = []
    for name, job in jobs.items():  # what is done is written at once: a killed run leaves it
        if not given.only or name in given.only:
            print(f"{name} ...", flush=True)
            lines += job()
            text = write(merged(kept, pd.DataFrame(lines)), folder)
    print(text)
    return 0


if __name__ == "__main__":
    with ending_in_time():
        sys.exit(main())
