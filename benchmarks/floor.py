"""The engine beside its floor, the bare forward pass and input gradient, and beside a plain loop.

All that is compared is timed in turns; medians and quartiles are reported.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from functools import partial

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from tkmia_utils import data, losses, victims
from tkmia_utils.engine import trial
from tkmia_utils.engine.folding import Layout
from tkmia_utils.engine.loop import attack
from tkmia_utils.engine.runtime import Runtime
from tkmia_utils.experiments import protocol
from tkmia_utils.victims.backbones import build, small_net


def in_turns(contestants: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, np.ndarray]:
    """Seconds of each contestant, one after the other, round by round, after one round unseen."""
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for turn in range(rounds + 1):
        for name, work in contestants.items():
            begun = time.perf_counter()
            work()
            if turn:
                seconds[name].append(time.perf_counter() - begun)
    return {name: np.array(times) for name, times in seconds.items()}


def spread(values: np.ndarray) -> str:
    """Median and quartiles."""
    low, middle, high = np.quantile(values, [0.25, 0.5, 0.75])
    return f"{middle:.3g} [{low:.3g}, {high:.3g}]"


def own_labels(
    model: nn.Module, images: torch.Tensor, *, k: int = 3, m: int = 1
) -> tuple[torch.Tensor, torch.Tensor]:
    """The k + m highest labels as the relevant ones, the m highest of them as the specified."""
    with torch.no_grad():
        logits = torch.cat([model(part) for part in images.split(16)])
    order, none = logits.argsort(descending=True), torch.zeros(logits.shape, dtype=torch.bool)
    return none.scatter(1, order[:, : k + m], True), none.scatter(1, order[:, :m], True)


def case(
    model: nn.Module, n: int, side: int, *, k: int = 3, seed: int = 0
) -> tuple[torch.Tensor, ...]:
    """Noise images, with what a model says of them for labels."""
    generator = torch.Generator().manual_seed(seed)
    images = 0.1 + 0.8 * torch.rand(n, 3, side, side, generator=generator)
    return images, *own_labels(model, images, k=k)


def models() -> dict[str, tuple[nn.Module, int, int]]:
    """The two victims by name, with their side in pixels and the slots they are timed at."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        embedded = small_net(20, (24, 48, 96, 96, 192), normed=False).eval()
        resnet = build("resnet50", 80).eval()
    return {"ResNet-50, 224 px": (resnet, 224, 8), "embedded, 96 px": (embedded, 96, 16)}


def bare(model: nn.Module, images: torch.Tensor, direction: torch.Tensor, steps: int) -> None:
    """What cannot be done without: a forward pass, and the gradient at the input."""
    for _ in range(steps):
        x = images.clone().requires_grad_()
        torch.autograd.grad(model(x), x, direction)


PLAIN = {"fold": False, "channels_last": False}
FAST = Layout(fold=True, channels_last=True)


def floor(rounds: int) -> list[dict[str, object]]:
    """An image-iteration of the engine over a bare forward pass and input gradient, same B.

    And that bare pass itself: in other layouts, through the compiler and in bfloat16.
    """
    lines = []
    for name, (model, side, slots) in models().items():
        given = case(model, slots, side)
        steps = 4 if side > 100 else 40
        direction = torch.zeros(given[1].shape).scatter_(1, given[1].int().argmax(1, True), 1.0)
        # so small a step that nobody succeeds: every slot is at work throughout
        runtime = Runtime(slots=slots, **PLAIN)
        runs = {"ours": partial(attack, model, *given, 3, lr=1e-9, max_iter=steps, runtime=runtime)}
        runs |= bare_ways(model, given[0], direction, steps + 1)
        times = in_turns(runs, rounds)
        each = 1e3 / (steps + 1) / slots
        ratio = times["ours"] / times["as given"]
        lines.append(
            {"benchmark": "floor", "case": name, "ours, ms": spread(times["ours"] * each),
             "other, ms": spread(times["as given"] * each), "ratio": spread(ratio),
             "value": float(np.median(ratio)), "note": f"an image-iteration, {slots} slots"}
        )  # fmt: skip
        for way in list(runs)[2:]:
            ratio = times["as given"] / times[way]
            lines.append(
                {"benchmark": "bare pass", "case": f"{name}: {way}",
                 "ours, ms": spread(times[way] * each),
                 "other, ms": spread(times["as given"] * each), "ratio": spread(ratio),
                 "value": float(np.median(ratio)), "note": "times as fast as as given"}
            )  # fmt: skip
    return lines


def bare_ways(
    model: nn.Module, images: torch.Tensor, direction: torch.Tensor, steps: int
) -> dict[str, Callable[[], object]]:
    """The bare pass as given first, then in every way that could be faster."""
    last = images.contiguous(memory_format=torch.channels_last)
    ways = {"as given": partial(bare, model, images, direction, steps)}
    for layout in (Layout(False, True), Layout(True, False), FAST):
        shown = last if layout.channels_last else images
        ways[str(layout)] = partial(bare, layout.of(model, images), shown, direction, steps)
    fast = FAST.of(model, images)
    try:
        compiled = torch.compile(FAST.of(model, images), dynamic=False)
        bare(compiled, last, direction, 1)
        ways["both, and inductor"] = partial(bare, compiled, last, direction, steps)
    except Exception as error:  # no compiler for C++ here, for one
        print(f"inductor is left out: {type(error).__name__}")
    ways["both, in bfloat16"] = partial(in_bf16, fast, last, direction, steps)
    return ways


def gradients(rounds: int) -> list[dict[str, object]]:
    """The k + 1 gradients of kFool, one after the other and as one batched product, at k = 3."""
    lines = []
    for name, (model, side, slots) in models().items():
        images, labels, _ = case(model, slots, side)
        pulls = torch.randn(4, *labels.shape, generator=torch.Generator().manual_seed(0))

        def logits(model=model, images=images) -> tuple[torch.Tensor, torch.Tensor]:
            x = images.clone().requires_grad_()
            return x, model(x)

        def one_by_one(logits=logits, pulls=pulls) -> torch.Tensor:
            x, f = logits()
            keep = partial(torch.autograd.grad, f, x, retain_graph=True)
            return torch.stack([keep(pull)[0] for pull in pulls])

        def batched(logits=logits, pulls=pulls) -> torch.Tensor:
            x, f = logits()
            return torch.autograd.grad(f, x, pulls, is_grads_batched=True)[0]

        alike = torch.equal(one_by_one(), batched())
        times = in_turns({"batched": batched, "one by one": one_by_one}, rounds)
        ratio = times["one by one"] / times["batched"]
        lines.append(
            {"benchmark": "kFool", "case": f"{name}: batched gradients",
             "ours, ms": spread(times["batched"] * 1e3),
             "other, ms": spread(times["one by one"] * 1e3), "ratio": spread(ratio),
             "value": float(np.median(ratio)),
             "note": f"times as fast as one by one; {'equal' if alike else 'not equal'} to the bit"}
        )  # fmt: skip
    return lines


def in_bf16(model: nn.Module, images: torch.Tensor, direction: torch.Tensor, steps: int) -> None:
    """:func:`bare` under autocast."""
    with torch.autocast(images.device.type, torch.bfloat16):
        bare(model, images, direction, steps)


def literal(
    model: nn.Module,
    image: torch.Tensor,
    labels: torch.Tensor,
    specified: torch.Tensor,
    k: int,
    *,
    lr: float,
    max_iter: int,
) -> tuple[bool, int]:
    """One image as a plain loop: batch 1, weight gradients on, the host asked at every step."""
    eps = torch.zeros_like(image).requires_grad_()
    descent = torch.optim.SGD([eps], lr=lr, momentum=0.9, weight_decay=1e-4)
    for step in range(max_iter + 1):
        logits = model(image + eps / 2)
        top = set(logits[0].detach().cpu().numpy().argsort()[::-1][:k].tolist())
        if not top & set(specified[0].nonzero().flatten().tolist()):
            return True, step
        descent.zero_grad()
        model.zero_grad()
        losses.tkmia(logits, labels, specified, k).sum().backward()
        descent.step()
        with torch.no_grad():
            eps.copy_(2 * ((image + eps / 2).clamp(0, 1) - image))
    return False, max_iter


def loop(
    rounds: int, victim: victims.Victim | None, scenes: data.MultiLabelDataset
) -> list[dict[str, object]]:
    """Ours against the plain loop, to the same successes, on the embedded scenes.

    The logits of the clean images are known to both: from them the labels were chosen.
    """
    lines = []
    for name, (model, side, slots) in models().items():
        if side > 100:
            # too short a queue for the engine to try layouts by itself: the default runs as given
            images = functional.interpolate(scenes.images(torch.arange(3 * slots)), size=side)
            given, lr, most = (images, *own_labels(model, images)), 1.0, 30
        elif victim is None:
            continue
        else:
            # as the plain loop of the released code has it: its channels do not come last
            model = deepcopy(victim.model).to(memory_format=torch.contiguous_format)
            queue = queued(victim, scenes, 400, ks=(3,))
            images = scenes.images(queue.index)
            given, lr, most = (images, queue.labels, queue.specified), 1e-3, 100
        with torch.no_grad():
            clean = torch.cat([model(part) for part in images.split(slots)])
        ended: dict[str, np.ndarray] = {}
        norms: dict[str, float] = {}

        def ours(
            who: str,
            settings: Mapping[str, object],
            model=model,
            given=given,
            ended=ended,
            norms=norms,
            slots=slots,
            clean=clean,
            **call: object,
        ) -> None:
            runtime = Runtime(slots=slots, **settings)
            result = attack(model, *given, 3, runtime=runtime, clean_logits=clean, **call)
            ended[who] = torch.stack([result.success.long(), result.iterations], 1).numpy()
            norms[who] = float(result.l2[result.success].median())

        def plain(model=model, given=given, ended=ended, lr=lr, most=most) -> None:
            singles = zip(*(tensor.split(1) for tensor in given), strict=True)
            ended["plain"] = np.array(
                [literal(model, *one, 3, lr=lr, max_iter=most) for one in singles]
            )

        sgd = {"lr": lr, "max_iter": most}
        fast = {"fold": FAST.fold, "channels_last": FAST.channels_last}
        least = {"method": "tkmia_min", "first": True, "max_iter": 30}
        trial.choose(  # once, and not within what is timed
            model, images[:slots], fold=None, channels_last=None, rows=10**6, passes=1e6
        )
        runs = {
            name: partial(ours, name, {}, **sgd),
            f"{name}, as given": partial(ours, f"{name}, as given", PLAIN, **sgd),
            f"{name}, bfloat16": partial(
                ours, f"{name}, bfloat16", {**fast, "precision": "bf16"}, **sgd
            ),
            f"{name}, tkmia_min": partial(ours, f"{name}, tkmia_min", fast, **least),
            "plain": plain,
        }
        times = in_turns(runs, max(7, rounds))
        for who in list(runs)[:-1]:
            won, alike = ended[who].mean(0), (ended[who] == ended["plain"]).mean(0)
            ratio = times["plain"] / times[who]
            lines.append(
                {"benchmark": "loop", "case": who, "ours, ms": spread(times[who] * 1e3),
                 "other, ms": spread(times["plain"] * 1e3), "ratio": spread(ratio),
                 "value": float(np.median(ratio)),
                 "note": f"{len(ended[who])} images, {won[0]:.1%} succeed, {won[1]:.1f} steps, "
                 f"median norm {norms[who]:.2f}; "
                 f"alike {alike[0]:.1%} of the ends, {alike[1]:.1%} of the steps"}
            )  # fmt: skip
    return lines


def queued(
    victim: victims.Victim, scenes: data.MultiLabelDataset, n: int, ks: Sequence[int] = (1, 2, 3)
) -> protocol.Queue:
    """So many rows of scheme S2, repeated if the scenes run out."""
    logits = victims.predict(victim.model, scenes)
    cells = [protocol.Cell("S2", k, m=1) for k in ks]
    queue = protocol.build_queue(cells, scenes, logits, {}, n=n)
    return queue.rows(torch.arange(n) % len(queue.k))
