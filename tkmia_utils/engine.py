"""The engine: a constant batch of slots, through which a queue of images passes.

An image that succeeds, or runs out of iterations, leaves its slot and the next of the queue takes
it. Shapes never change, so an image's result does not depend on who sits beside it. Per iteration
the engine does one forward pass, one backward pass to the input (none to the weights), and one
small transfer to the host.
"""

from collections.abc import Callable, Sequence
from dataclasses import fields

import torch
from tqdm.auto import tqdm

from tkmia_utils.checks import K
from tkmia_utils.methods import Method, Point, Rows, build
from tkmia_utils.outcome import (
    BAD_GRADIENT,
    BAD_LOGITS,
    LIMIT,
    REASONS,
    RUNNING,
    SUCCESS,
    AttackResult,
    Snapshot,
    Trace,
)
from tkmia_utils.queue import enqueue
from tkmia_utils.topk import in_top_k

DEFAULT_SLOTS = {"cpu": 16, "cuda": 64}


def attack(
    model: Callable[[torch.Tensor], torch.Tensor],
    images: torch.Tensor,
    labels: torch.Tensor,
    specified: torch.Tensor,
    k: K,
    *,
    method: str | Method = "tkmia",
    max_iter: int | torch.Tensor = 300,
    lr: float | torch.Tensor = 1e-3,
    alpha: float | torch.Tensor = 1e-4,
    momentum: float | torch.Tensor = 0.9,
    delta: int | torch.Tensor | None = None,
    scores: str | None = None,
    slots: int | None = None,
    check_every: int = 1,
    device: str | torch.device = "auto",
    record: bool = False,
    snapshots: Sequence[int] = (),
    progress: bool = False,
    **options: object,
) -> AttackResult:
    """Perturb images until specified labels leave the top k (Algorithm 1, batched).

    Parameters
    ----------
    model : torch.nn.Module or callable
        Maps float32 images ``(N, 3, H, W)`` in [0, 1] to logits ``(N, C)``; normalisation is its
        own affair. In evaluation mode; it is neither moved nor changed.
    images : torch.Tensor
        float32 ``(N, 3, H, W)`` in [0, 1].
    labels : torch.Tensor
        Bool ``(N, C)``: relevant labels Y_p.
    specified : torch.Tensor
        Bool ``(N, C)``: S, a non-empty part of Y_p that leaves at least one other relevant label.
    k : int or torch.Tensor
        1 <= k <= C - 1; like the following arguments one for all, or a tensor with one an image.
    method : str or Method
        "tkmia", "tkml_ap_u", "ml_cw_u", "kfool" or "gmla" (:mod:`tkmia_utils.methods`).
    max_iter : int or torch.Tensor
        Most steps; no schedule depends on it.
    lr, alpha, momentum : float or torch.Tensor
        Step size, weight of ``1/2 ||eps||^2`` and momentum of SGD, in the paper's [-1, 1] pixels.
    delta : int or torch.Tensor, optional
        How many of S must be out of the top k for success, 1 <= delta <= |S|; default |S|.
    scores : {"logits", "sigmoid"}, optional
        What a loss of scores is taken of; default the method's own, which is logits for all but
        TkMIA as printed. kFool and GMLA know logits alone.
    slots : int, optional
        Batch size B of the engine, default min(N, 16), on CUDA min(N, 64). At a fixed B results
        are equal to the bit whatever the order and the neighbours; a short queue is padded to B.
    check_every : int
        Ask the device for finished images only every so many iterations; changes no result.
    device : str or torch.device
        "auto" is where the model's parameters are.
    record : bool
        Keep the logits and norms of every iteration (for looking, not for speed).
    snapshots : sequence of int
        Iterations at which to note where the unfinished images stand, so that one long run
        answers for shorter limits too (:meth:`AttackResult.at`).
    progress : bool
        Show a progress bar.
    **options
        Options of the method, for instance ``variant="paper"``.

    Returns
    -------
    AttackResult

    Raises
    ------
    ValueError
        An argument of the wrong type, shape, dtype or range, NaN, a model in training mode, S not
        inside Y_p, an empty Y_p∖S: the message begins with the argument's name.
    """
    place = _device(model, device)
    queue = enqueue(
        images, labels, specified, k, max_iter=max_iter, lr=lr, alpha=alpha, momentum=momentum,
        delta=delta,
    )  # fmt: skip
    for name, value in (("slots", slots), ("check_every", check_every)):
        whole = isinstance(value, int) and not isinstance(value, bool)
        if value is not None and (not whole or value < 1):
            raise ValueError(f"{name}: expected an int >= 1, got {value!r}")
    if not isinstance(snapshots, Sequence) or any(
        isinstance(s, bool) or not isinstance(s, int) or s < 0 for s in snapshots
    ):
        raise ValueError(f"snapshots: expected a sequence of ints >= 0, got {snapshots!r}")
    chosen = build(method, scores=scores, **options)
    size = slots or min(len(images), DEFAULT_SLOTS.get(place.type, 16))
    run = _Run(
        model, chosen, images, queue, size=size, device=place, record=record, snapshots=snapshots
    )
    bar = tqdm(total=len(images), disable=not progress, unit="image", leave=False)
    step = 0
    while run.busy:
        run.iterate()
        step += 1
        if step % check_every == 0:
            bar.update(run.exchange())
            bar.set_postfix(success=f"{run.successes / max(run.finished, 1):.0%}", refresh=False)
    bar.close()
    return run.result()


class _Run:
    """Slots, queue and results of one call of :func:`attack`."""

    def __init__(
        self,
        model: Callable[[torch.Tensor], torch.Tensor],
        method: Method,
        images: torch.Tensor,
        queue: Rows,
        *,
        size: int,
        device: torch.device,
        record: bool,
        snapshots: Sequence[int],
    ) -> None:
        self.model, self.method, self.images, self.queue = model, method, images, queue
        self.device, self.next, self.finished, self.successes = device, 0, 0, 0
        n, classes = queue.labels.shape
        self.out = {
            "adversarial": torch.empty_like(images, dtype=torch.float32, device="cpu"),
            "status": torch.zeros(n, dtype=torch.int64),
            "l2_paper": torch.zeros(n),
            "iterations": torch.zeros(n, dtype=torch.int64),
            "clean_logits": torch.full((n, classes), torch.nan),
            "adversarial_logits": torch.full((n, classes), torch.nan),
        }
        self.trace = None
        if record:
            steps = int(queue.limit.max()) + 1
            self.trace = Trace(
                torch.full((n, steps, classes), torch.nan), torch.full((n, steps), torch.nan)
            )
        self.snapshots = {limit: _blank(n, classes, torch.device("cpu")) for limit in snapshots}
        self.noted = {limit: _blank(size, classes, device) for limit in snapshots}
        # every slot starts with the first image, dead, until the queue fills it
        first = torch.zeros(size, dtype=torch.int64)
        self.who = torch.full((size,), -1, dtype=torch.int64)
        self.clean = images[first].to(device, torch.float32)
        self.rows = _take(queue, first, device)
        self.state = method.begin(self.clean)
        self.status = torch.full((size,), LIMIT, device=device)
        self.iteration = torch.zeros(size, dtype=torch.int64, device=device)
        self.logits = torch.zeros(size, classes, device=device)
        self.clean_logits = torch.zeros(size, classes, device=device)
        self._fill(torch.arange(size))

    @property
    def busy(self) -> bool:
        """Is any slot at work?"""
        return bool((self.who >= 0).any())

    def iterate(self) -> None:
        """One forward pass, one verdict, one backward pass and one step, for all slots."""
        x = self.method.image(self.clean, self.state).detach().requires_grad_()
        with torch.enable_grad():
            logits = self.model(x)
        self._check_logits(logits)
        scores = logits.detach().float()
        running = self.status == RUNNING
        fresh = (self.iteration == 0).unsqueeze(-1)
        self.clean_logits = torch.where(fresh, scores, self.clean_logits)
        self.logits = torch.where(running.unsqueeze(-1), scores, self.logits)
        self._judge(scores, running)
        if self.trace is not None:
            self._record(scores, x.detach(), running)
        for limit, kept in self.noted.items():
            self._note(kept, scores, x.detach(), running & (self.iteration == limit))

        def pull(v: torch.Tensor, *, keep: bool = False) -> torch.Tensor:
            return torch.autograd.grad(logits, x, v.to(logits.dtype), retain_graph=keep)[0]

        point = Point(self.clean, scores, self.clean_logits, pull, self.rows)
        stepped = self.method.step(point, self.state)
        running = self.status == RUNNING
        finite = torch.ones_like(running)
        for value in stepped.values():
            finite &= value.reshape(len(value), -1).isfinite().all(1)
        self.status = torch.where(running & ~finite, BAD_GRADIENT, self.status)
        running &= finite
        self.state = {key: _where(running, stepped[key], old) for key, old in self.state.items()}
        self.iteration += running

    def _judge(self, scores: torch.Tensor, running: torch.Tensor) -> None:
        """Success of Eq. (2) c1, relaxed to delta of S; then the limit."""
        rows = self.rows
        excluded = (rows.specified & ~in_top_k(scores, rows.k)).sum(-1)
        verdict = torch.where(self.iteration >= rows.limit, LIMIT, RUNNING)
        verdict = torch.where(excluded >= rows.delta, SUCCESS, verdict)
        verdict = torch.where(scores.isfinite().all(-1), verdict, BAD_LOGITS)
        self.status = torch.where(running, verdict, self.status)

    def exchange(self) -> int:
        """Move finished images out and waiting ones in; return how many left."""
        done = (self.status.cpu() != RUNNING) & (self.who >= 0)
        slots = done.nonzero().flatten()
        if not len(slots):
            return 0
        who, at = self.who[slots], slots.to(self.device)
        state = {key: value[at] for key, value in self.state.items()}
        adversarial = self.method.image(self.clean[at], state)
        self.out["adversarial"][who] = adversarial.cpu()
        self.out["l2_paper"][who] = self.method.norm(self.clean[at], adversarial, state).cpu()
        self.out["status"][who] = self.status[at].cpu()
        self.out["iterations"][who] = self.iteration[at].cpu()
        self.out["clean_logits"][who] = self.clean_logits[at].cpu()
        self.out["adversarial_logits"][who] = self.logits[at].cpu()
        for limit, kept in self.noted.items():
            for name, note in vars(kept).items():
                getattr(self.snapshots[limit], name)[who] = note[at].cpu()
                note[at] = torch.nan
        self.finished += len(slots)
        self.successes += int((self.out["status"][who] == SUCCESS).sum())
        self.who[slots] = -1
        self._fill(slots)
        return len(slots)

    def _fill(self, slots: torch.Tensor) -> None:
        """Put the next images of the queue into empty slots."""
        slots = slots[: len(self.images) - self.next]
        if not len(slots):
            return
        who = torch.arange(self.next, self.next + len(slots))
        self.next += len(slots)
        self.who[slots] = who
        at = slots.to(self.device)
        self.clean[at] = self.images[who].to(self.device, torch.float32)
        entering = _values(_take(self.queue, who, self.device))
        for field, new in zip(_values(self.rows), entering, strict=True):
            field[at] = new
        for key, new in self.method.begin(self.clean[at]).items():
            self.state[key][at] = new
        self.status[at] = RUNNING
        self.iteration[at] = 0

    def _record(self, scores: torch.Tensor, x: torch.Tensor, running: torch.Tensor) -> None:
        slots = (running.cpu() & (self.who >= 0)).nonzero().flatten()
        who, at = self.who[slots], slots.to(self.device)
        when = self.iteration[at].cpu()
        self.trace.logits[who, when] = scores[at].cpu()
        self.trace.l2[who, when] = (x - self.clean)[at].flatten(1).norm(dim=1).cpu()

    def _note(
        self, kept: Snapshot, scores: torch.Tensor, x: torch.Tensor, there: torch.Tensor
    ) -> None:
        l2 = (x - self.clean).flatten(1).norm(dim=1)
        l2_paper = self.method.norm(self.clean, x, self.state)
        for old, new in ((kept.logits, scores), (kept.l2, l2), (kept.l2_paper, l2_paper)):
            old.copy_(_where(there, new, old))

    def _check_logits(self, logits: torch.Tensor) -> None:
        wanted = (len(self.who), self.queue.labels.shape[1])
        if not isinstance(logits, torch.Tensor) or tuple(logits.shape) != wanted:
            got = tuple(logits.shape) if isinstance(logits, torch.Tensor) else type(logits).__name__
            raise ValueError(f"model: expected logits of shape {wanted}, got {got}")
        if not logits.requires_grad:
            raise ValueError("model: its logits do not depend on the images (no gradient)")

    def result(self) -> AttackResult:
        """Everything, in the order of the queue."""
        out = self.out
        l2 = (out["adversarial"] - self.images.cpu().float()).flatten(1).norm(dim=1)
        return AttackResult(
            adversarial=out["adversarial"],
            success=out["status"] == SUCCESS,
            iterations=out["iterations"],
            l2=l2,
            l2_paper=out["l2_paper"],
            clean_logits=out["clean_logits"],
            adversarial_logits=out["adversarial_logits"],
            reasons=tuple(REASONS[code] for code in out["status"].tolist()),
            trace=self.trace,
            snapshots=self.snapshots,
        )


def _values(rows: Rows) -> list[torch.Tensor]:
    """Every field that has one entry a row."""
    return [getattr(rows, field.name) for field in fields(rows) if field.name != "most"]


def _take(rows: Rows, index: torch.Tensor, device: torch.device) -> Rows:
    return Rows(*(value[index].to(device) for value in _values(rows)), most=rows.most)


def _blank(n: int, classes: int, device: torch.device) -> Snapshot:
    one, many = torch.full((n,), torch.nan), torch.full((n, classes), torch.nan)
    return Snapshot(many.to(device), one.to(device), one.clone().to(device))


def _where(rows: torch.Tensor, new: torch.Tensor, old: torch.Tensor) -> torch.Tensor:
    return torch.where(rows.reshape(-1, *[1] * (new.ndim - 1)), new, old)


def _device(model: object, device: str | torch.device) -> torch.device:
    """Where the model is; a model in training mode is refused."""
    if not callable(model):
        raise ValueError(f"model: expected a module or a function, got {type(model).__name__}")
    if isinstance(model, torch.nn.Module):
        training = [name or "the model itself" for name, m in model.named_modules() if m.training]
        if training:
            raise ValueError(f"model: expected evaluation mode, but {training[0]} is in training")
        home = next((p.device for p in model.parameters()), None)
    else:
        home = None
    try:
        wanted = None if device == "auto" else torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise ValueError(f"device: expected 'auto' or a torch device, got {device!r}") from error
    if wanted and home and (wanted.type, wanted.index or 0) != (home.type, home.index or 0):
        raise ValueError(f"device: the model is on {home}, not on {wanted}; move it first")
    return home or wanted or torch.device("cpu")
