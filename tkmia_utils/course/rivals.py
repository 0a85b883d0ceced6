"""Exercises on notebook 07: the rivals."""

import numpy as np
import torch

from tkmia_utils import losses
from tkmia_utils.course.exercise import Case, Exercise, mutant


def _images(rng: np.random.Generator) -> list[Case]:
    """Scores of one image, Y_p and k: half of the time Y_p is below all others."""
    cases: list[Case] = []
    for trial in range(16):
        classes = 5 + trial // 5
        f = np.round(3 * rng.standard_normal(classes), 2)
        relevant = np.zeros(classes, dtype=bool)
        order = np.argsort(f) if trial % 2 else rng.permutation(classes)
        relevant[order[: 1 if trial % 4 == 1 else 1 + trial % 4]] = True
        k = int(rng.choice([k for k in range(1, classes - 1) if 2 * k != classes]))
        cases.append((torch.from_numpy(f), torch.from_numpy(relevant), k))
    return cases


def tkml_objective(f: torch.Tensor, relevant: torch.Tensor, k: int) -> torch.Tensor:
    """What TkML-AP-U descends: all of Y_p against the lowest c - k."""
    order = f.sort(descending=True).values
    return f[relevant].max() - order[k:].mean()


def _tkml_list(f: torch.Tensor, relevant: torch.Tensor, k: int) -> float:
    scores: list[float] = sorted(f.tolist())
    best = max(s for s, y in zip(f.tolist(), relevant.tolist(), strict=True) if y)
    few = scores[: len(scores) - k]
    return float(best - sum(few) / len(few))


def _points(rng: np.random.Generator) -> list[Case]:
    """Pixels of a clean image and an iterate near it, some of them at the ends of [0, 1]."""
    cases: list[Case] = []
    for trial in range(14):
        size = 4 + trial // 4
        step, radius = (float(v) for v in rng.choice([0.02, 0.03, 0.05], 2))
        x = np.round(rng.uniform(0, 1, size), 2)
        x[:2] = 0.01, 0.99
        z = np.clip(x + radius * rng.choice([-1, -0.5, 0, 0.5, 1], size), 0, 1)
        gradient = np.round(rng.uniform(0.1, 2, size) * rng.choice([-1, 1], size), 2)
        gradient[:2] = 0.7, -1.3  # the first two go out of the box
        cases.append((*map(torch.from_numpy, (x, z, gradient)), step, radius))
    return cases


def pgd_step(
    x: torch.Tensor, z: torch.Tensor, gradient: torch.Tensor, step: float, radius: float
) -> torch.Tensor:
    """One step of PGD down the loss, from z, within the ball around the clean x and the box."""
    moved = z - step * gradient.sign()
    moved = moved.clamp(x - radius, x + radius)  # the ball is around the clean image
    return moved.clamp(0, 1)


def _pgd_numpy(
    x: torch.Tensor,
    z: torch.Tensor,
    gradient: torch.Tensor,
    step: float,
    radius: float,
    *,
    ball: bool = True,
    box: bool = True,
    signed: bool = True,
    way: int = -1,
    centre: torch.Tensor | None = None,
) -> np.ndarray:
    """The same on the distance from x; the options are mistakes."""
    at = (x if centre is None else centre).numpy()
    push = np.sign(gradient.numpy()) if signed else gradient.numpy()
    distance = z.numpy() + way * step * push - at
    if ball:
        distance = np.maximum(np.minimum(distance, radius), -radius)
    moved: np.ndarray = at + distance
    return moved.clip(0, 1) if box else moved


EXERCISES = (
    Exercise(
        name="pgd_step",
        number="07.1",
        title="One step of PGD",
        task="`pgd_step(x, z, gradient, step, radius)`: the next iterate, a tensor like `z`: one"
        " sign step down the loss from `z`, then back within `radius` (L-infinity) of the clean"
        " image `x`, and into [0, 1].",
        points=5,
        minutes=30,
        cases=_points,
        expected=lambda x, z, gradient, step, radius: torch.tensor(
            [
                min(max(b - step * (1 if g > 0 else -1), a - radius, 0), a + radius, 1)
                for a, b, g in zip(x.tolist(), z.tolist(), gradient.tolist(), strict=True)
            ],
            dtype=torch.float64,
        ),
        solution=pgd_step,
        others=(_pgd_numpy,),
        mutants=(
            mutant(
                "You go up the loss: S is to be hidden, so the step is against the gradient.",
                lambda *case: _pgd_numpy(*case, way=1),
            ),
            mutant(
                "The step is that of the sign of the gradient, not of the gradient.",
                lambda *case: _pgd_numpy(*case, signed=False),
            ),
            mutant(
                "The projection onto the ball is missing: stay within `radius` of `x`.",
                lambda *case: _pgd_numpy(*case, ball=False),
            ),
            mutant(
                "The image leaves [0, 1].",
                lambda *case: _pgd_numpy(*case, box=False),
            ),
            mutant(
                "The ball is around the clean image `x`, not around the last iterate `z`.",
                lambda x, z, g, step, radius: _pgd_numpy(x, z, g, step, radius, centre=z),
            ),
            mutant(
                "The step starts at the last iterate `z`, not at the clean image.",
                lambda x, z, g, step, radius: pgd_step(x, x, g, step, radius),
            ),
            mutant(
                "`step` is in [0, 1] pixels as it is: neither half of it nor twice.",
                lambda x, z, g, step, radius: pgd_step(x, z, g, step / 2, radius),
                lambda x, z, g, step, radius: pgd_step(x, z, g, 2 * step, radius),
            ),
        ),
        hints=(
            "Three things one after the other: the step, the ball, the box.",
            "Only the sign of the gradient counts, and the way is down.",
            "`clamp` takes tensors as bounds: `clamp(x - radius, x + radius)`.",
        ),
    ),
    Exercise(
        name="tkml_objective",
        number="07.2",
        title="The objective of TkML-AP-U",
        task="`tkml_objective(f, relevant, k)`: what TkML-AP-U descends, for one image: `f` is"
        " `(C,)`, `relevant` the mask Y_p. A number.",
        points=3,
        minutes=15,
        cases=_images,
        expected=lambda f, relevant, k: losses.tkml_ap_u(f[None], relevant[None], k)[0],
        solution=tkml_objective,
        others=(_tkml_list,),
        mutants=(
            mutant(
                "It keeps no hinge: the value may be negative.",
                lambda f, relevant, k: tkml_objective(f, relevant, k).clamp_min(0),
            ),
            mutant(
                "The mean is over the lowest c - k scores, not over the lowest k.",
                lambda f, relevant, k: f[relevant].max() - f.sort().values[:k].mean(),
            ),
            mutant(
                "The mean is over the lowest c - k scores, not over the top k.",
                lambda f, relevant, k: f[relevant].max() - f.topk(k).values.mean(),
            ),
            mutant(
                "Of Y_p the highest label counts, not the lowest.",
                lambda f, relevant, k: f[relevant].min() - f.sort().values[: len(f) - k].mean(),
            ),
            mutant(
                "It is about the relevant labels: max over Y_p, not over all labels.",
                lambda f, relevant, k: f.max() - f.sort().values[: len(f) - k].mean(),
            ),
            mutant(
                "The sign: this is descended, so the relevant labels count with a plus.",
                lambda f, relevant, k: -tkml_objective(f, relevant, k),
            ),
        ),
        hints=(
            "It is the exclusion half of TkMIA, with Y_p in the place of S.",
            "max over Y_p of f, minus the mean of the lowest c - k scores.",
        ),
    ),
)
