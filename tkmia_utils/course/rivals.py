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


def _linear(rng: np.random.Generator) -> list[Case]:
    """Linear models, with y* among the k + 1 highest labels or not, and k from 1."""
    cases: list[Case] = []
    for trial in range(15):
        k, pixels = 1 + trial % 3, 3 + trial // 5
        classes = k + 3
        weight = np.round(rng.standard_normal((classes, pixels)), 2)
        bias = np.round(rng.standard_normal(classes), 2)
        x = np.round(rng.uniform(0.1, 0.9, pixels), 2)
        order = np.argsort(-(weight @ x + bias))
        star = int(order[rng.integers(0, k)] if trial % 4 else order[k + 1])
        overshoot = float(rng.choice([0.02, 0.05, 0.1]))
        cases.append((*map(torch.from_numpy, (weight, bias, x)), star, k, overshoot))
    return cases


def kfool_step(
    weight: torch.Tensor, bias: torch.Tensor, x: torch.Tensor, star: int, k: int, overshoot: float
) -> torch.Tensor:
    """One step of kFool on the linear model f(x) = weight @ x + bias."""
    f = weight @ x + bias
    normals, distance = torch.zeros_like(x), 0.0
    for j in f.topk(k + 1).indices.tolist():
        if j != star:
            w = weight[j] - weight[star]  # across the border between j and y*
            normals = normals + w / w.norm()
            distance = distance + (f[j] - f[star]).abs() / w.norm()
    return x + (1 + overshoot) * distance * normals / normals.norm()


def _kfool_numpy(
    weight: torch.Tensor,
    bias: torch.Tensor,
    x: torch.Tensor,
    star: int,
    k: int,
    overshoot: float,
    *,
    more: int = 1,
    way: int = 1,
    unit: bool = True,
    mean: bool = False,
    per_norm: bool = True,
    scaled: bool = True,
    added: bool = False,
) -> np.ndarray:
    """The same on all labels at once; the options are mistakes."""
    rows, at = weight.numpy(), x.numpy()
    f = rows @ at + bias.numpy()
    high = [j for j in np.argsort(-f)[: k + more] if j != star]
    w = rows[high] - rows[star]
    length = np.linalg.norm(w, axis=1)
    distances = np.abs(f[high] - f[star]) / (length if per_norm else 1)
    far = distances.mean() if mean and high else distances.sum()
    normals = (w / length[:, None] if unit else w).sum(0)
    size = (np.linalg.norm(normals) or 1) if scaled else 1
    step: np.ndarray = (far + overshoot if added else (1 + overshoot) * far) * normals / size
    return at + way * step


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
    Exercise(
        name="kfool_step",
        number="07.3",
        title="kFool with overshoot",
        task="`kfool_step(weight, bias, x, star, k, overshoot)`: the image after one step of kFool"
        " on the linear model f(x) = weight @ x + bias, `weight` `(C, D)`, `bias` `(C,)`, `x`"
        " `(D,)`. `star` is the index of y*. Step along the sum of the unit normals, by the sum of"
        " the distances times 1 + `overshoot`; nothing is clipped.",
        points=4,
        minutes=20,
        cases=_linear,
        expected=lambda *case: _kfool_numpy(*case),
        solution=kfool_step,
        others=(lambda *case: torch.from_numpy(_kfool_numpy(*case)),),
        mutants=(
            mutant(
                "The overshoot is missing: the step is 1 + `overshoot` times as long.",
                lambda *case: kfool_step(*case[:-1], 0.0),
            ),
            mutant(
                "The overshoot is a share of the step, and is not added to it.",
                lambda *case: _kfool_numpy(*case, added=True),
            ),
            mutant(
                "The k + 1 highest labels count, not k.",
                lambda *case: _kfool_numpy(*case, more=0),
            ),
            mutant(
                "You step back: across the border f_j has to grow and f_y* to fall.",
                lambda *case: _kfool_numpy(*case, way=-1),
            ),
            mutant(
                "Each normal is brought to length 1 before they are added.",
                lambda *case: _kfool_numpy(*case, unit=False),
            ),
            mutant(
                "The distance to a border is the gap divided by the length of the normal.",
                lambda *case: _kfool_numpy(*case, per_norm=False),
            ),
            mutant(
                "The sum of the normals is no unit vector: divide it by its length.",
                lambda *case: _kfool_numpy(*case, scaled=False),
            ),
            mutant(
                "That is the mean of the distances; kFool steps by their sum.",
                lambda *case: _kfool_numpy(*case, mean=True),
            ),
        ),
        hints=(
            "On a linear model grad f_j is the row `weight[j]`: no autograd is needed.",
            "For each j of the k + 1 highest but y*: w = weight[j] - weight[star].",
            "Add up w / |w| and |f_j - f_y*| / |w|; then one step along the sum.",
        ),
    ),
)
