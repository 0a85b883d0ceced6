"""Fine-tuning of a trained classifier, so that small perturbations move its logits less.

Adversarial training (Madry et al., ICLR 2018) learns from images that an inner attack has just
moved within an L2 ball; training with Gaussian noise (Cohen et al., ICML 2019) is what the
certificate of randomised smoothing wants. Both together are those of Salman et al. (NeurIPS 2019).
"""

import copy
import hashlib
import json
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional
from tqdm.auto import tqdm

from tkmia_utils.data import MultiLabelDataset
from tkmia_utils.files import sweep, write_atomically
from tkmia_utils.hashing import text_hash
from tkmia_utils.validation import check_one_of, is_int, is_number
from tkmia_utils.victims import Victim, evaluate, predict
from tkmia_utils.victims.prediction import batches, pick_device, unit


@dataclass(frozen=True)
class Hardening:
    """How a victim is hardened; everything here decides its weights, and nothing else does.

    Attributes
    ----------
    radius : float
        Of the L2 ball of the inner attack, in pixels in [0, 1]; 0: no attack
        (without noise either: the victim is trained on, a control).
    steps : int
        Gradient steps of the inner attack.
    loss : {"ranking", "bce"}
        What the inner attack raises: the logit of a random relevant label over that of another, or
        the binary cross-entropy of all labels. The training itself lowers the latter.
    noise : float
        Standard deviation of Gaussian noise on every pixel in [0, 1]; 0: none. The noisy image is
        not clipped, as the certificate of randomised smoothing has it.
    epochs, batch : int
        Passes over the training set, and images a step.
    lr : float
        Peak of the one-cycle rate of AdamW.
    seed : int
        Of the order of the images, the mirroring, the noise and the attack's pairs of labels.
    """

    radius: float = 2.0
    steps: int = 2
    loss: str = "ranking"
    noise: float = 0.0
    epochs: int = 8
    batch: int = 32
    lr: float = 2e-3
    seed: int = 0

    def __post_init__(self) -> None:
        check_one_of(self.loss, ("ranking", "bce"), name="loss")
        for name, least in (("steps", 1), ("epochs", 1), ("batch", 1), ("seed", 0)):
            value = getattr(self, name)
            if not is_int(value) or value < least:
                raise ValueError(f"{name}: expected an int >= {least}, got {value!r}")
        for name in ("radius", "noise", "lr"):
            value = getattr(self, name)
            if not is_number(value) or not 0 <= value < math.inf:
                raise ValueError(f"{name}: expected a finite number >= 0, got {value!r}")
        if not self.lr:
            raise ValueError("lr: expected a number > 0, got 0")


def harden(
    victim: Victim,
    train: MultiLabelDataset,
    held_out: MultiLabelDataset,
    settings: Hardening = Hardening(),  # frozen, and so shared without harm
    *,
    cache: str | Path | None = None,
    device: str = "auto",
    workers: int = 0,
    report: Callable[[dict[str, float]], None] | None = None,
    progress: bool = False,
) -> Victim:
    """Fine-tune a copy of a victim's model on perturbed images, or load what that gave before.

    Batch normalisation and dropout stay in evaluation mode; all weights are trained.

    Parameters
    ----------
    victim : Victim
        Its model is neither changed nor moved.
    train, held_out : MultiLabelDataset
        What is trained on, and what each epoch is judged on, without noise or attack.
    settings : Hardening
        How.
    cache : str or Path, optional
        Folder; the file is ``hardened-<key>.safetensors``. Default: nothing is read or written.
    device : str
        "auto": CUDA where there is one, else the CPU.
    workers : int
        Processes that decode images; 0 is this one.
    report : callable, optional
        Told of every epoch's entry of the history.
    progress : bool
        Show a progress bar over the steps.

    Returns
    -------
    Victim
        In evaluation mode, on the device. Its key is a hash of the victim's weights, the settings
        and the training set; its history is that of the fine-tuning.

    Raises
    ------
    ValueError
        Classes that are not the victim's, fewer images than a batch, or a broken file in `cache`.
    """
    for name, data in (("train", train), ("held_out", held_out)):
        if data.classes != victim.classes:
            raise ValueError(f"{name}: its classes are not those of the victim")
    if len(train) < settings.batch:
        raise ValueError(f"train: expected at least a batch of {settings.batch}, got {len(train)}")
    place = pick_device(device)
    model = copy.deepcopy(victim.model).eval().to(place)
    key = text_hash(victim.key, _weights_hash(model), asdict(settings), train.fingerprint())[:16]
    path = None if cache is None else Path(cache) / f"hardened-{key}.safetensors"
    if path is not None:
        sweep(path.parent)
        if path.exists():
            return Victim(model, _read(path, model), key, victim.classes)
    # another order of the weights in memory: a third faster on a CPU
    fast = copy.deepcopy(model).requires_grad_().to(memory_format=torch.channels_last)
    history = _fit(fast, train, held_out, settings, workers, report, progress)
    model.load_state_dict(fast.state_dict())
    hardened = Victim(model, history, key, victim.classes)
    if path is not None:
        weights = {name: value.cpu().contiguous() for name, value in model.state_dict().items()}
        header = {"history": json.dumps(history), "settings": json.dumps(asdict(settings))}
        write_atomically(path, lambda temporary: save_file(weights, temporary, metadata=header))
    return hardened


def _fit(
    model: nn.Module,
    train: MultiLabelDataset,
    held_out: MultiLabelDataset,
    settings: Hardening,
    workers: int,
    report: Callable[[dict[str, float]], None] | None,
    progress: bool,
) -> list[dict[str, float]]:
    """Train a model in place; the history."""
    place = next(model.parameters()).device
    steps = len(train) // settings.batch
    generator = torch.Generator().manual_seed(settings.seed)
    optimiser = torch.optim.AdamW(model.parameters(), settings.lr)
    rate = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, settings.lr, total_steps=settings.epochs * steps
    )
    history = []
    bar = tqdm(total=settings.epochs * steps, disable=not progress, leave=False)
    for epoch in range(1, settings.epochs + 1):
        order = torch.randperm(len(train), generator=generator)[: steps * settings.batch]
        parts = order.split(settings.batch)
        total = torch.zeros((), device=place)
        read = batches(train, [part.tolist() for part in parts], workers=workers)
        for part, pixels in zip(parts, read, strict=True):
            y = train.labels[part].to(place)
            x = _input(model, unit(pixels, place), y, settings, generator)
            loss = functional.binary_cross_entropy_with_logits(model(x).float(), y.float())
            optimiser.zero_grad()
            torch.autograd.backward(loss)
            optimiser.step()
            rate.step()
            total += loss.detach()
            bar.update()
        quality = evaluate(predict(model, held_out, workers=workers), held_out.labels)
        history.append({"epoch": epoch, "loss": float(total) / steps, **quality})
        if report:
            report(history[-1])
    bar.close()
    return history


def _input(
    model: nn.Module,
    images: torch.Tensor,
    labels: torch.Tensor,
    settings: Hardening,
    generator: torch.Generator,
) -> torch.Tensor:
    """What a step trains on: images mirrored at random, noisy, and moved by the inner attack."""
    # all chance is drawn on the CPU: the same for every device
    mirrored = torch.rand((len(images), 1, 1, 1), generator=generator) < 0.5
    x = torch.where(mirrored.to(images.device), images.flip(-1), images)
    x = x.contiguous(memory_format=torch.channels_last)
    if settings.noise:
        x = x + settings.noise * torch.randn(x.shape, generator=generator).to(x.device)
    if not settings.radius:
        return x
    moved = perturbed(model, x, labels, settings, generator=generator)
    return moved if settings.noise else moved.clamp(0, 1)


def perturbed(
    model: nn.Module,
    images: torch.Tensor,
    labels: torch.Tensor,
    settings: Hardening,
    *,
    generator: torch.Generator,
) -> torch.Tensor:
    """Move images within an L2 ball, uphill on the loss of the inner attack.

    Every step has the length of 1.5 radii shared among the steps, or of the radius if there is
    one alone, along the gradient; what leaves the ball is drawn back to it.

    Parameters
    ----------
    model : torch.nn.Module
        In evaluation mode. Its weights get no gradient.
    images : torch.Tensor
        float32 ``(N, 3, H, W)``.
    labels : torch.Tensor
        Bool ``(N, C)``, C >= 2.
    settings : Hardening
        Its radius, steps and loss are used.
    generator : torch.Generator
        On the CPU; of the pairs of labels.

    Returns
    -------
    torch.Tensor
        Like `images`, at most the radius away from them, not clipped to [0, 1].
    """
    radius = settings.radius
    size = radius if settings.steps == 1 else 1.5 * radius / settings.steps
    up, down = _pairs(labels, generator)
    moved = torch.zeros_like(images)
    with _frozen(model), torch.enable_grad():
        for _ in range(settings.steps):
            x = (images + moved).requires_grad_()
            logits = model(x).float()
            if settings.loss == "ranking":
                loss = (logits.gather(1, up) - logits.gather(1, down)).sum()
            else:
                loss = functional.binary_cross_entropy_with_logits(
                    logits, labels.float(), reduction="sum"
                )
            (gradient,) = torch.autograd.grad(loss, x)
            moved = _shortened(moved + size * gradient / _norms(gradient), radius)
    return (images + moved).detach()


def _pairs(labels: torch.Tensor, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """For every row a random label to raise and a random relevant one to lower, ``(N, 1)`` each.

    The one to raise is relevant as well where there are two: an attack that hides a label and
    wants no measure to fall has to swap relevant labels.
    """
    chance = torch.rand(labels.shape, generator=generator).to(labels.device)
    first = (labels + chance).topk(2, dim=1).indices  # relevant ones lead
    return first[:, 1:], first[:, :1]


def _norms(x: torch.Tensor) -> torch.Tensor:
    """L2 norm of every image, ``(N, 1, 1, 1)``, and never 0."""
    norms: torch.Tensor = torch.linalg.vector_norm(x.flatten(1), dim=1)
    return norms.clamp_min(1e-12).reshape(-1, 1, 1, 1)


def _shortened(x: torch.Tensor, radius: float) -> torch.Tensor:
    return x * (radius / _norms(x)).clamp(max=1)


@contextmanager
def _frozen(model: nn.Module) -> Iterator[None]:
    """The weights take no gradient meanwhile: the inner attack wants that of the images alone."""
    trained = [p for p in model.parameters() if p.requires_grad]
    for p in trained:
        p.requires_grad_(False)
    try:
        yield
    finally:
        for p in trained:
            p.requires_grad_()


def _weights_hash(model: nn.Module) -> str:
    digest = hashlib.sha256()
    for name, value in model.state_dict().items():
        digest.update(name.encode() + value.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _read(path: Path, model: nn.Module) -> list[dict[str, float]]:
    """Read weights into a model, and return the history beside them."""
    try:
        with safe_open(path, framework="pt") as file:
            history: list[dict[str, float]] = json.loads((file.metadata() or {})["history"])
            model.load_state_dict({name: file.get_tensor(name) for name in file.keys()})
    except Exception as error:  # safetensors, JSON and torch each raise their own
        raise ValueError(f"cache: {path} is not a whole victim ({error}); delete it") from error
    return history
