"""Exercises on notebook 05: the attack, step by step."""

import warnings
from typing import Any

import numpy as np
import torch

from tkmia_utils import losses, topk
from tkmia_utils.course.closed_form import sets
from tkmia_utils.course.exercise import Answer, Case, Exercise, mutant
from tkmia_utils.course.reading import Refused
from tkmia_utils.engine.advice import AttackWarning
from tkmia_utils.engine.loop import attack

MAX_ITER = 60


def _images(rng: np.random.Generator) -> list[Case]:
    """Scores of one image, its sets and k."""
    cases: list[Case] = []
    for trial in range(18):
        classes = 5 + trial // 5
        f = np.round(3 * rng.permutation(classes) + rng.uniform(-1, 1, classes), 2) / 4
        k = int(rng.choice([k for k in range(1, classes - 1) if 2 * k != classes]))
        cases.append((torch.from_numpy(f), *sets(rng, f, trial), k))
    return cases


def _with_gradient(
    answer: Answer, f: torch.Tensor, relevant: torch.Tensor, specified: torch.Tensor, k: int
) -> Any:
    """Value and gradient."""
    leaf = f.clone().requires_grad_()
    value = answer(leaf, relevant, specified, k)
    if value is None or value is Ellipsis:
        return None
    if not isinstance(value, torch.Tensor) or value.numel() != 1:
        raise Refused("expected a tensor with one number, so that it has a gradient")
    if not value.requires_grad:
        raise Refused("its value has no gradient: keep to torch, without .item() or .detach()")
    (slope,) = torch.autograd.grad(value.reshape(()), leaf, allow_unused=True)
    return value, torch.zeros_like(f) if slope is None else slope


def _expected_objective(
    f: torch.Tensor, relevant: torch.Tensor, specified: torch.Tensor, k: int
) -> tuple[torch.Tensor, torch.Tensor]:
    rows = f[None], relevant[None], specified[None], k
    return losses.tkmia(*rows)[0], losses.tkmia_gradient(*rows)[0]


def objective(
    f: torch.Tensor, relevant: torch.Tensor, specified: torch.Tensor, k: int
) -> torch.Tensor:
    """TkMIA's objective of one image (Eq. 6 at its best lambdas), without the norm."""
    order = f.sort(descending=True).values
    down = f[specified].max() - order[k:].mean()  # S goes down
    up = order[:k].mean() - f[relevant & ~specified].min()  # the other relevant labels come up
    return down + up


def _objective(
    f: torch.Tensor,
    relevant: torch.Tensor,
    specified: torch.Tensor,
    k: int,
    *,
    lowest: int | None = None,
    others: bool = True,
    sign: int = 1,
    mean: bool = False,
    highest: bool = False,
    halves: tuple[int, int] = (1, 1),
) -> torch.Tensor:
    """The same with topk; the options are mistakes."""
    low = -(-f).topk(lowest or len(f) - k).values.mean()
    top = f.topk(k).values.mean()
    rest = f[relevant & ~specified] if others else f[relevant]
    best = f[specified].mean() if mean else f[specified].max()
    second = top - (rest.max() if highest else rest.min())
    return sign * (halves[0] * (best - low) + halves[1] * second)


class _Small(torch.nn.Module):
    """A linear model that stops a loop which goes on for ever."""

    def __init__(self, weight: torch.Tensor) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(weight)
        self.passes = 0

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits ``(N, C)``."""
        self.passes += 1
        if self.passes > 4 * MAX_ITER:
            raise Refused(f"its loop goes on after {4 * MAX_ITER} forward passes")
        return (images.flatten(1) - 0.5) @ self.weight.T


def _attacks(rng: np.random.Generator) -> list[Case]:
    """Linear models and images, no close decision: 4 to 50 steps, none at all, and too many."""
    cases: list[Case] = []
    while len(cases) < 10:
        weight = torch.from_numpy(rng.standard_normal((6, 48)).astype(np.float32))
        model = _Small(weight / 4).eval()
        pixels = np.clip(rng.uniform(-0.2, 1.2, (1, 3, 4, 4)), 0, 1).astype(np.float32)
        x, k = torch.from_numpy(pixels), int(rng.integers(1, 4))
        ranked = model(x)[0].argsort(descending=True)
        relevant = torch.zeros(1, 6, dtype=torch.bool)
        relevant[0, ranked[[0, 1, 3, int(rng.integers(4, 6))]]] = True
        specified = torch.zeros_like(relevant)
        specified[0, ranked[0]] = True
        case = (model, x, relevant, specified, k, 0.01, 0.5, MAX_ITER)
        result = _attack(*case, record=True)
        end = int(result.iterations[0])
        near = result.trace.logits[0, max(0, end - 1) : end + 1]
        margin = topk.kth_largest(near[:, ~specified[0]], k) - near[:, specified[0]].amax(1)
        model.passes = 0
        if bool(result.success) and 4 <= end <= 50 and float(margin.abs().min()) > 1e-3:
            cases.append(case)
    model, x, relevant, _, k, *settings = cases[0]
    hidden = torch.zeros_like(relevant)  # its lowest relevant label is out from the start
    hidden[0, model(x)[0].masked_fill(~relevant[0], torch.inf).argmin()] = True
    model.passes = 0
    return [*cases, (model, x, relevant, hidden, k, *settings), (*cases[1][:-1], 3)]


def _attack(
    model: torch.nn.Module,
    x: torch.Tensor,
    relevant: torch.Tensor,
    specified: torch.Tensor,
    k: int,
    lr: float,
    alpha: float,
    max_iter: int,
    *,
    record: bool = False,
) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AttackWarning)
        return attack(
            model, x, relevant, specified, k, lr=lr, alpha=alpha, max_iter=max_iter, record=record
        )


def _expected_attack(model: _Small, *case: Any) -> tuple[torch.Tensor, torch.Tensor]:
    result = _attack(model, *case)
    model.passes = 0
    return result.adversarial, result.iterations[0]


def attack_loop(
    model: torch.nn.Module,
    x: torch.Tensor,
    relevant: torch.Tensor,
    specified: torch.Tensor,
    k: int,
    lr: float,
    alpha: float,
    max_iter: int,
) -> tuple[torch.Tensor, int]:
    """TkMIA on one image (1, 3, H, W): the last image and the number of steps."""
    eps, velocity = torch.zeros_like(x), torch.zeros_like(x)
    for step in range(max_iter + 1):
        z = (x + eps / 2).clamp(0, 1).requires_grad_()  # [-1, 1] is twice as wide as [0, 1]
        f = model(z)[0]
        order = f.sort(descending=True).values
        if not (f[specified[0]] >= order[k - 1]).any() or step == max_iter:
            break  # S is out of the top k, or there are no steps left
        down = f[specified[0]].max() - order[k:].mean()
        up = order[:k].mean() - f[(relevant & ~specified)[0]].min()
        (gradient,) = torch.autograd.grad(down + up, z)
        velocity = 0.9 * velocity + gradient / 2 + alpha * eps  # d(pixel)/d(eps) = 1/2
        eps = eps - lr * velocity
        eps = 2 * ((x + eps / 2).clamp(0, 1) - x)
    return z.detach(), step


def _by_hand(
    model: torch.nn.Module,
    x: torch.Tensor,
    relevant: torch.Tensor,
    specified: torch.Tensor,
    k: int,
    lr: float,
    alpha: float,
    max_iter: int,
    *,
    unit: float = 0.5,
    box: bool = True,
    momentum: float = 0.9,
    sign: int = 1,
    late: bool = False,
    after: bool = False,
) -> tuple[np.ndarray, int]:
    """The same in [0, 1] pixels, with the gradient in closed form; the options are mistakes."""
    z, velocity, steps = x.clone(), torch.zeros_like(x), 0
    while steps <= max_iter:
        leaf = z.clone().requires_grad_()
        f = model(leaf)
        out = not (specified & topk.in_top_k(f, k)).any()
        if (out and not late and (steps or not after)) or steps == max_iter:
            break
        weights = losses.tkmia_gradient(f, relevant, specified, k)
        (gradient,) = torch.autograd.grad(f, leaf, weights)
        velocity = momentum * velocity + sign * unit * gradient + alpha * 2 * (z - x)
        z = z - lr / 2 * velocity
        z = z.clamp(0, 1) if box else z
        steps += 1
        if out:
            break
    return z.numpy(), steps


EXERCISES = (
    Exercise(
        name="objective",
        number="05.1",
        title="The objective",
        task="`objective(f, relevant, specified, k)`: what TkMIA descends, Eq. (6) at its best"
        " lambdas without the norm, for one image: `f` is `(C,)`, the masks Y_p and S as well. A"
        " tensor with one number; its gradient is checked too.",
        points=4,
        minutes=15,
        cases=_images,
        expected=_expected_objective,
        solution=objective,
        others=(_objective,),
        parts=("its value", "its gradient"),
        mutants=(
            mutant(
                "The exclusion has the mean of the lowest c - k scores, not of the lowest k.",
                lambda f, y, s, k: _objective(f, y, s, k, lowest=k),
            ),
            mutant(
                "The minimum is over Y_p∖S: with S in it, the attack pulls S up.",
                lambda f, y, s, k: _objective(f, y, s, k, others=False),
            ),
            mutant(
                "The sign: this is descended, so S counts with a plus and Y_p∖S with a minus.",
                lambda f, y, s, k: _objective(f, y, s, k, sign=-1),
            ),
            mutant(
                "Of S the highest label counts, not the mean.",
                lambda f, y, s, k: _objective(f, y, s, k, mean=True),
            ),
            mutant(
                "Of Y_p∖S the lowest label counts, not the highest.",
                lambda f, y, s, k: _objective(f, y, s, k, highest=True),
            ),
            mutant(
                "Half of it is missing: mean(top k) - min over Y_p∖S, which pulls the others up.",
                lambda f, y, s, k: _objective(f, y, s, k, halves=(1, 0)),
            ),
            mutant(
                "Half of it is missing: max_S f - mean(lowest c - k), which pushes S down.",
                lambda f, y, s, k: _objective(f, y, s, k, halves=(0, 1)),
            ),
        ),
        hints=(
            "Two halves: S goes down, the other relevant labels come up.",
            "max_S f - mean(lowest c - k) + mean(top k) - min over Y_p∖S.",
            "Sort once; `order[:k]` and `order[k:]` are the top k and the lowest c - k.",
        ),
        call=_with_gradient,
    ),
    Exercise(
        name="attack_loop",
        number="05.2",
        title="The loop",
        task="`attack_loop(model, x, relevant, specified, k, lr, alpha, max_iter)`: Algorithm 1 as"
        " section 3 has it, on one image `(1, 3, H, W)` with masks `(1, C)` and momentum 0.9."
        " Returns the last image and the number of steps.",
        points=6,
        minutes=30,
        cases=_attacks,
        expected=_expected_attack,
        solution=attack_loop,
        others=(_by_hand,),
        parts=("the image", "the number of steps"),
        mutants=(
            mutant(
                "A half is missing: the image is x + eps/2, so the gradient in eps is half of"
                " that in pixels.",
                lambda *case: _by_hand(*case, unit=1.0),
            ),
            mutant(
                "The image leaves [0, 1]: keep every iterate inside the box.",
                lambda *case: _by_hand(*case, box=False),
            ),
            mutant(
                "You take one step too many: look at the scores before you take it.",
                lambda *case: _by_hand(*case, late=True),
            ),
            mutant(
                "You take a step before you look: a clean image on which S is out already takes"
                " none.",
                lambda *case: _by_hand(*case, after=True),
            ),
            mutant(
                "The last image is never looked at: after max_iter steps there are max_iter + 1"
                " images.",
                lambda *case: _by_hand(*case[:-1], case[-1] - 1),
            ),
            mutant(
                "The momentum is missing: 0.9 of the last velocity stays.",
                lambda *case: _by_hand(*case, momentum=0.0),
            ),
            mutant(
                "The norm is missing: alpha * eps belongs to the gradient.",
                lambda model, x, y, s, k, lr, alpha, most: _by_hand(
                    model, x, y, s, k, lr, 0.0, most
                ),
            ),
            mutant(
                "You go up: the step is against the gradient.",
                lambda *case: _by_hand(*case, sign=-1),
            ),
        ),
        hints=(
            "Before each step: forward pass, then ask whether S is out of the top k.",
            "velocity = 0.9 velocity + gradient/2 + alpha eps; eps = eps - lr velocity.",
            "After the step bring eps back: 2 * ((x + eps/2).clamp(0, 1) - x).",
        ),
    ),
)
