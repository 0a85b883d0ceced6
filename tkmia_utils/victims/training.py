"""The training loop: one recipe, on one device or many, resumed where it was killed.

Several GPUs are used through ``torchrun`` and DistributedDataParallel, which come with torch and
leave the loop readable. For any number of GPUs, a step sees the same images
with the same augmentation; only rounding (and batch normalisation's statistics, which are each
device's own) differ.
"""

import math
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from tqdm.auto import tqdm

from tkmia_utils.data import MultiLabelDataset
from tkmia_utils.files import write_atomically
from tkmia_utils.victims.backbones import build, head
from tkmia_utils.victims.prediction import batches, evaluate, features, pick_device, predict, unit
from tkmia_utils.victims.recipes import Recipe

History = list[dict[str, float]]


def fit(
    recipe: Recipe,
    data: MultiLabelDataset,
    held_out: MultiLabelDataset,
    *,
    device: str = "auto",
    report: Callable[[dict[str, float]], None] | None = None,
    progress: bool = False,
    workers: int = 0,
    checkpoint: str | Path | None = None,
    checkpoint_every: int = 200,
    keep_checkpoint: bool = False,
) -> tuple[nn.Module, History]:
    """Train a classifier with a loss for every label.

    Parameters
    ----------
    recipe : Recipe
        What, and how.
    data, held_out : MultiLabelDataset
        The training set, and the images the epochs are judged on.
    device : str
        See :func:`pick_device`. Under ``torchrun`` every process takes its own GPU (not run on one
        yet: two processes on a CPU were).
    report : callable, optional
        Told of every epoch's entry of the history.
    progress : bool
        Show a progress bar over the steps.
    workers : int
        Processes that decode images; 0 is this one. It changes no bit of the result.
    checkpoint : str or Path, optional
        File for the state of the training; a run that finds one goes on from there, and ends with
        the same weights. It is removed at the end.
    checkpoint_every : int
        Steps between two checkpoints; one is also written after every epoch.
    keep_checkpoint : bool
        Leave the last one there, for a caller who has not saved the model yet.

    Returns
    -------
    model : torch.nn.Module
        In evaluation mode, on the device; the average of the weights where the recipe keeps one.
    history : list of dict
        One entry an epoch: ``epoch, loss, class_map, image_ap``, the last two on the held-out set;
        epoch 0 is only the head, where the recipe trains that first.

    Raises
    ------
    ValueError
        Different classes in the two sets, fewer images than a batch, a batch that does not divide
        among the devices, a broken checkpoint or one of another training.
    """
    if data.classes != held_out.classes:
        raise ValueError("held_out: its classes are not those of the training set")
    if len(data) < recipe.batch:
        raise ValueError(f"data: expected at least one batch of {recipe.batch}, got {len(data)}")
    team = _Team.here(device)
    if recipe.batch % (team.size * recipe.accumulate):
        raise ValueError(
            f"batch: {recipe.batch} does not divide among {team.size} devices "
            f"of {recipe.accumulate} parts each"
        )
    steps = len(data) // recipe.batch
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        model = build(
            recipe.arch, len(data.classes), weights=recipe.weights, widths=recipe.widths
        ).to(team.device)
        if recipe.channels_last:
            model = model.to(memory_format=torch.channels_last)
        path = None if checkpoint is None else Path(checkpoint)
        run = _Training(recipe, model, team, steps)
        if path is not None and path.is_file():
            run.load(path)
        elif recipe.head_epochs:
            loss = _fit_head(recipe, model, data, workers)
            run.restart_average()
            run.judge(0, loss, held_out, workers)
    loss_of = _loss(recipe.loss)
    bar = tqdm(
        total=recipe.epochs * steps, initial=run.step, disable=not progress or team.rank > 0,
        leave=False,
    )  # fmt: skip
    for epoch in range(run.step // steps, recipe.epochs):
        if run.step == epoch * steps:
            run.order = torch.randperm(len(data), generator=run.generator)
            run.total = torch.zeros((), device=team.device)
        at = run.order[(run.step - epoch * steps) * recipe.batch : steps * recipe.batch]
        mine = [i[team.rank :: team.size] for i in at.split(recipe.batch)]
        read = batches(data, [i.tolist() for i in mine], workers=workers)
        for index, pixels in zip(mine, read, strict=True):
            y = data.labels[index].to(team.device, torch.float32)
            run.advance(pixels, y, loss_of)
            bar.update()
            if path is not None and run.step % checkpoint_every == 0:
                run.save(path)
        run.judge(epoch + 1, float(team.mean(run.total)) / steps, held_out, workers)
        if path is not None:
            run.save(path)
        if report and team.rank == 0:
            report(run.history[-1])
    bar.close()
    if path is not None and team.rank == 0 and not keep_checkpoint:
        path.unlink(missing_ok=True)
    return run.kept(), run.history


def measured_step(recipe: Recipe, data: MultiLabelDataset, *, device: torch.device) -> float:
    """Seconds that one training step takes here, for planning: the second of two.

    Parameters
    ----------
    recipe : Recipe
        Its batch is the one that is timed.
    data : MultiLabelDataset
        Any images of the right size and classes.
    device : torch.device
        Where.

    Returns
    -------
    float
    """
    model = build(recipe.arch, len(data.classes), widths=recipe.widths).to(device)
    if recipe.channels_last:
        model = model.to(memory_format=torch.channels_last)
    run = _Training(recipe, model, _Team(1, 0, device), steps=2)
    index = [i % len(data) for i in range(recipe.batch)]
    pixels = torch.stack([data.load(i) for i in index])
    y, seconds = data.labels[index].to(device, torch.float32), 0.0
    for _ in range(2):
        begun = time.perf_counter()
        run.advance(pixels, y, _loss(recipe.loss))
        float(run.total)  # waits for the device
        seconds = time.perf_counter() - begun
    return seconds


@dataclass(frozen=True)
class _Team:
    """The processes that train together: how many, which one this is, and its device."""

    size: int
    rank: int
    device: torch.device

    @staticmethod
    def here(device: str) -> "_Team":
        place = pick_device(device)
        if not (distributed.is_available() and distributed.is_initialized()):
            return _Team(1, 0, place)
        if place.type == "cuda":
            place = torch.device("cuda", torch.cuda.current_device())
        return _Team(distributed.get_world_size(), distributed.get_rank(), place)

    def mean(self, value: torch.Tensor) -> torch.Tensor:
        if self.size > 1:
            value = value.clone()
            distributed.all_reduce(value)
        return value / self.size


class _Training:
    """All that a training remembers from step to step; what a checkpoint holds."""

    def __init__(self, recipe: Recipe, model: nn.Module, team: _Team, steps: int) -> None:
        self.recipe, self.model, self.team = recipe, model, team
        self.runner: nn.Module = model
        self.generator = torch.Generator().manual_seed(recipe.seed)
        self.step, self.history = 0, []
        self.order = torch.empty(0, dtype=torch.int64)
        self.total = torch.zeros((), device=team.device)
        parameters = [p for p in model.parameters() if p.requires_grad]
        if recipe.optimiser == "sgd":
            self.optimiser: torch.optim.Optimizer = torch.optim.SGD(
                parameters, recipe.lr, momentum=0.9, weight_decay=recipe.weight_decay
            )
        else:
            kind = torch.optim.AdamW if recipe.optimiser == "adamw" else torch.optim.Adam
            self.optimiser = kind(parameters, recipe.lr, weight_decay=recipe.weight_decay)
        total = max(1, recipe.epochs * steps)
        self.rate: torch.optim.lr_scheduler.LRScheduler = (
            torch.optim.lr_scheduler.OneCycleLR(self.optimiser, recipe.lr, total_steps=total)
            if recipe.schedule == "onecycle"
            else torch.optim.lr_scheduler.ConstantLR(self.optimiser, factor=1.0)
        )
        self.average: AveragedModel | None = None
        self.restart_average()

    def restart_average(self) -> None:
        """Average from the weights as they are now."""
        if self.recipe.ema:
            average = get_ema_multi_avg_fn(self.recipe.ema)
            self.average = AveragedModel(self.model, multi_avg_fn=average, use_buffers=True)

    def kept(self) -> nn.Module:
        """The model that is judged and kept, in evaluation mode."""
        return (self.model if self.average is None else self.average.module).eval()

    def advance(
        self,
        pixels: torch.Tensor,
        y: torch.Tensor,
        loss_of: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    ) -> None:
        """One step on this process's share of a batch."""
        recipe, team = self.recipe, self.team
        if team.size > 1 and self.runner is self.model:
            self.runner = DistributedDataParallel(self.model)
        self.model.train()
        if recipe.freeze_norm:
            for module in self.model.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()
        drawn = _draw(recipe.augment, recipe.batch, self.generator)
        drawn = {k: v[team.rank :: team.size] if v.ndim else v for k, v in drawn.items()}
        x = _augment(unit(pixels, team.device), drawn)
        many = recipe.accumulate
        self.optimiser.zero_grad()
        with torch.random.fork_rng(devices=[team.device] if team.device.type == "cuda" else []):
            # dropout and its kin draw from the global generator: seeded a step, a kill is no loss
            torch.manual_seed((recipe.seed * 1_000_003 + self.step) * 4099 + team.rank)
            for i, (part, wanted) in enumerate(zip(x.chunk(many), y.chunk(many), strict=True)):
                last = team.size == 1 or i == many - 1
                with nullcontext() if last else self.runner.no_sync():
                    with torch.autocast(team.device.type, torch.bfloat16, enabled=recipe.amp):
                        logits = self.runner(part)
                    loss = loss_of(logits.float(), wanted) / many
                    loss.backward()
                self.total += loss.detach()
        self.optimiser.step()
        self.rate.step()
        if self.average is not None:
            self.average.update_parameters(self.model)
        self.step += 1

    def judge(self, epoch: int, loss: float, held_out: MultiLabelDataset, workers: int) -> None:
        """Add an entry to the history; every process predicts its share."""
        logits = _together(self.kept(), held_out, self.team, workers)
        self.history.append({"epoch": epoch, "loss": loss, **evaluate(logits, held_out.labels)})

    def state(self) -> dict[str, object]:
        return {
            "recipe": repr(self.recipe),
            "step": self.step,
            "history": self.history,
            "order": self.order,
            "total": self.total,
            "generator": self.generator.get_state(),
            "model": self.model.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "rate": self.rate.state_dict(),
            "average": None if self.average is None else self.average.state_dict(),
        }

    def save(self, path: Path) -> None:
        if self.team.rank == 0:
            write_atomically(path, lambda temporary: torch.save(self.state(), temporary))

    def load(self, path: Path) -> None:
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
            theirs = state["recipe"]
        except Exception as error:  # zip, pickle and torch each raise their own
            raise ValueError(
                f"checkpoint: {path} cannot be read ({error}); delete it to start again"
            ) from None
        if theirs != repr(self.recipe):
            raise ValueError(
                f"checkpoint: {path} is of another training ({theirs}); delete it to start again"
            )
        self.step, self.history = state["step"], state["history"]
        self.order, self.total = state["order"], state["total"].to(self.team.device)
        self.generator.set_state(state["generator"])
        self.model.load_state_dict(state["model"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.rate.load_state_dict(state["rate"])
        if self.average is not None:
            self.average.load_state_dict(state["average"])


def _draw(augment: str, n: int, generator: torch.Generator) -> dict[str, torch.Tensor]:
    """All that is random in the augmentation of a batch, for every device the same."""
    if augment == "none":
        return {}
    drawn = {"mirror": torch.rand(n, generator=generator) < 0.5}
    if augment == "shift":
        down, right = torch.randint(-4, 5, (2,), generator=generator)
        drawn |= {"down": down, "right": right}
    elif augment == "crop":
        drawn |= {"zoom": torch.rand(n, 3, generator=generator)}
    return drawn


def _augment(x: torch.Tensor, drawn: dict[str, torch.Tensor]) -> torch.Tensor:
    if "mirror" in drawn:
        mirrored = drawn["mirror"].reshape(-1, 1, 1, 1).to(x.device)
        x = torch.where(mirrored, x.flip(-1), x)
    if "down" in drawn:
        x = x.roll((int(drawn["down"]), int(drawn["right"])), dims=(-2, -1))
    if "zoom" in drawn:  # a square part of 60 to 100 % of the side, anywhere in the image
        scale, *middle = drawn["zoom"].to(x.device).unbind(1)
        scale = 0.6 + 0.4 * scale
        shift = [(1 - scale) * (2 * m - 1) for m in middle]
        zero = torch.zeros_like(scale)
        rows = [torch.stack([scale, zero, shift[0]], 1), torch.stack([zero, scale, shift[1]], 1)]
        grid = nn.functional.affine_grid(torch.stack(rows, 1), list(x.shape), align_corners=False)
        x = nn.functional.grid_sample(x, grid, padding_mode="border", align_corners=False)
    return x


def _loss(name: str) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
    if name == "bce":
        return nn.functional.binary_cross_entropy_with_logits
    try:
        from timm.loss import AsymmetricLossMultiLabel
    except ImportError:
        raise ValueError(
            "loss: 'asymmetric' needs the extra 'pretrained': pip install '.[pretrained]'"
        ) from None
    summed = AsymmetricLossMultiLabel()
    return lambda logits, y: summed(logits, y) / y.numel()


def _together(model: nn.Module, data: MultiLabelDataset, team: _Team, workers: int) -> torch.Tensor:
    """Logits of a whole set, each process doing its share."""
    if team.size == 1:
        return predict(model, data, workers=workers)
    share = math.ceil(len(data) / team.size)
    mine = range(min(team.rank * share, len(data)), min((team.rank + 1) * share, len(data)))
    own = predict(model, data.subset(mine), workers=workers) if len(mine) else None
    parts: list[torch.Tensor | None] = [None] * team.size
    distributed.all_gather_object(parts, own)
    return torch.cat([part for part in parts if part is not None])


def _fit_head(recipe: Recipe, model: nn.Module, data: MultiLabelDataset, workers: int) -> float:
    """Train only the last layer, on features computed once; return its last epoch's loss."""
    last = head(model.eval())
    x, y = features(model, data, workers=workers), data.labels.float()
    # rare features count as much as common ones; the scale is then folded into the layer
    mean, std = x.mean(0), x.std(0) + 1e-3
    x = (x - mean) / std
    layer = nn.Linear(x.shape[1], y.shape[1])
    steps = len(x) // recipe.batch
    optimiser = torch.optim.AdamW(layer.parameters(), 2e-3, weight_decay=0.1)
    rate = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, 2e-3, total_steps=recipe.head_epochs * steps
    )
    generator = torch.Generator().manual_seed(recipe.seed)
    for _ in range(recipe.head_epochs):
        total = 0.0
        order = torch.randperm(len(x), generator=generator)[: steps * recipe.batch]
        for at in order.split(recipe.batch):
            loss = nn.functional.binary_cross_entropy_with_logits(layer(x[at]), y[at])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            rate.step()
            total += float(loss.detach())
    with torch.no_grad():
        weight = layer.weight / std
        last.weight.copy_(weight)
        last.bias.copy_(layer.bias - weight @ mean)
    return total / steps
