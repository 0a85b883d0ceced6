"""Exercises on notebook 13: what a defence is worth, and what can be proved."""

import copy
import math

import numpy as np
import torch
from scipy.optimize import brentq
from scipy.stats import beta, binom, norm
from torch import nn

from tkmia_utils.course.exercise import Answer, Case, Exercise, mutant
from tkmia_utils.defence import certificate

Tensor = torch.Tensor


def _counts(rng: np.random.Generator) -> list[Case]:
    """Votes of a label, draws, and how often the bound may be wrong."""
    cases: list[Case] = [(0, 20, 0.01), (20, 20, 0.01)]
    for draws in (10, 50, 50, 200, 200, 900, 900, 2000):
        count = int(draws * rng.uniform(0.1, 0.98))
        cases.append((max(1, count), draws, float(rng.choice([0.001, 0.01, 0.05]))))
    return cases


def clopper_pearson(count: int, draws: int, alpha: float) -> float:
    """Lower bound on a probability that is wrong with probability at most alpha."""
    if count == 0:
        return 0.0
    return float(beta.ppf(alpha, count, draws - count + 1))


def _bound_by_search(count: int, draws: int, alpha: float) -> float:
    """The p at which so many votes or more have just the probability alpha."""
    if count == 0:
        return 0.0
    return float(brentq(lambda p: binom.sf(count - 1, draws, p) - alpha, 0, 1, xtol=1e-13))


def _normal_bound(count: int, draws: int, alpha: float) -> float:
    share = count / draws
    return float(share - norm.isf(alpha) * math.sqrt(share * (1 - share) / draws))


def _shares(rng: np.random.Generator) -> list[Case]:
    """A lower bound on a probability, sigma and k; some bounds prove nothing."""
    cases: list[Case] = []
    for trial in range(20):
        k = 1 + trial % 4
        edge = k / (k + 1)
        p = rng.uniform(edge, 0.9999) if trial % 5 else rng.uniform(0.05, edge)
        cases.append((float(p), float(rng.uniform(0.05, 1)), k))
    return sorted(cases, key=lambda case: case[2])


def proved_radius(p: float, sigma: float, k: int) -> float:
    """L2 norm up to which a label with vote probability p or more stays in the smoothed top k."""
    return max(0.0, sigma * float(norm.ppf(p) - norm.ppf(k / (k + 1))))


def _radius_by_search(p: float, sigma: float, k: int) -> float:
    """The move r at which the probability has fallen to k / (k + 1)."""
    if p <= k / (k + 1):
        return 0.0
    return float(brentq(lambda r: norm.cdf(norm.ppf(p) - r / sigma) - k / (k + 1), 0, 20 * sigma))


def _defended_nets(rng: np.random.Generator) -> list[Case]:
    """Small nets, an image, shifts that a defence draws, and the labels to raise and to lower."""
    cases: list[Case] = []
    for side, draws in ((3, 2), (4, 2), (4, 3), (5, 4)):
        with torch.random.fork_rng():
            torch.manual_seed(int(rng.integers(2**31)))
            net = nn.Sequential(
                nn.Conv2d(3, 4, 3, padding=1), nn.Tanh(), nn.Flatten(), nn.Linear(4 * side**2, 5)
            )
            for parameter in net.parameters():
                nn.init.normal_(parameter, std=0.6)
        image = torch.tensor(rng.random((1, 3, side, side)), dtype=torch.float32)
        shifts = [int(s) for s in rng.permutation(np.arange(1, side))[: draws - 1]]
        up, down = (int(j) for j in rng.permutation(5)[:2])
        cases.append((net.eval().requires_grad_(False), image, [0, *shifts], up, down))
    return cases


def eot_gradient(
    model: nn.Module, image: torch.Tensor, shifts: list[int], up: int, down: int
) -> torch.Tensor:
    """Gradient at the image of f_up - f_down, where f is the mean of the logits over the shifts."""
    x = image.clone().requires_grad_()
    copies = torch.cat([x.roll(shift, dims=-1) for shift in shifts])
    mean = model(copies).mean(dim=0)
    (gradient,) = torch.autograd.grad(mean[up] - mean[down], x)
    return gradient


def _eot_in_double(
    model: nn.Module, image: Tensor, shifts: list[int], up: int, down: int
) -> Tensor:
    """Copy by copy: the gradient at a copy, shifted back."""
    net, x = copy.deepcopy(model).double(), image.double()
    parts = []
    for shift in shifts:
        moved = x.roll(shift, dims=-1).requires_grad_()
        out = net(moved)[0]
        (gradient,) = torch.autograd.grad(out[up] - out[down], moved)
        parts.append(gradient.roll(-shift, dims=-1))
    return torch.stack(parts).mean(0)


def _eot_with(
    *,
    back: bool = True,
    total: bool = False,
    sign: float = 1.0,
    first: bool = False,
    last: bool = False,
    mean_image: bool = False,
    rise: bool = False,
) -> Answer:
    """The gradient with a mistake."""

    def answer(model: nn.Module, image: Tensor, shifts: list[int], up: int, down: int) -> Tensor:
        used = shifts[:1] if first else shifts[-1:] if last else shifts
        if not back:
            parts = []
            for shift in used:
                moved = image.roll(shift, dims=-1).requires_grad_()
                out = model(moved)[0]
                parts.append(torch.autograd.grad(out[up] - out[down], moved)[0])
            return torch.stack(parts).mean(0)
        x = image.clone().requires_grad_()
        copies = torch.cat([x.roll(shift, dims=-1) for shift in used])
        if mean_image:
            copies = copies.mean(0, keepdim=True)
        out = model(copies).sum(0) if total else model(copies).mean(0)
        aim = out[up] if rise else out[up] - out[down]
        return sign * torch.autograd.grad(aim, x)[0]

    return answer


EXERCISES: tuple[Exercise, ...] = (
    Exercise(
        name="eot_gradient",
        number="13.1",
        title="The gradient through a random defence",
        task="`eot_gradient(model, image, shifts, up, down)`: a defence moves each image by a"
        " random number of pixels to the right before `model` sees it; what leaves on the right"
        " comes in on the left, `torch.roll(image, shift, dims=-1)`. The attacker has drawn the"
        " list `shifts`. Return the gradient, with respect to `image` `(1, 3, H, W)`, of"
        " f_up - f_down, where f is the mean over the shifts of the model's logits. A tensor like"
        " `image`.",
        points=4,
        minutes=20,
        cases=_defended_nets,
        expected=_eot_in_double,
        solution=eot_gradient,
        others=(_eot_in_double,),
        imports=("import torch", "from torch import nn"),
        tolerance=1e-4,
        mutants=(
            mutant(
                "The gradients are taken at the copies: undo the shift on the way back.",
                _eot_with(back=False),
            ),
            mutant(
                "The model sees the mean of the copies; asked for is the mean of its logits.",
                _eot_with(mean_image=True),
            ),
            mutant("The logits are added up: take their mean.", _eot_with(total=True)),
            mutant(
                "Only one draw is used: a single draw differs from the mean.",
                _eot_with(first=True),
                _eot_with(last=True),
            ),
            mutant("The sign is turned: f_up is to rise and f_down to fall.", _eot_with(sign=-1)),
            mutant("f_down is missing: it is a difference of two logits.", _eot_with(rise=True)),
        ),
        hints=(
            "Shift inside the graph: from a copy of the image that requires a gradient.",
            "`torch.cat` of the shifted images is a batch; the mean of its logits is over dim 0.",
            "`torch.autograd.grad(mean[up] - mean[down], x)` gives a tuple of one gradient.",
        ),
    ),
    Exercise(
        name="clopper_pearson",
        number="13.2",
        title="A bound from votes",
        task="`clopper_pearson(count, draws, alpha)`: the lower bound of Clopper and Pearson on the"
        " probability of a vote, from `count` votes in `draws` independent draws. It is one-sided"
        " and too high with a probability of at most `alpha`. Return one number, 0 for a count of"
        " 0. Use `scipy.stats`.",
        points=2,
        minutes=15,
        cases=_counts,
        expected=lambda count, draws, alpha: float(certificate.lower_bound(count, draws, alpha)),
        solution=clopper_pearson,
        others=(_bound_by_search,),
        imports=("from scipy.stats import beta, norm",),
        mutants=(
            mutant(
                "That is the share of the votes: the probability may be lower.",
                lambda count, draws, alpha: count / draws,
            ),
            mutant(
                "The bound is one-sided: alpha is not halved.",
                lambda count, draws, alpha: clopper_pearson(count, draws, alpha / 2),
            ),
            mutant(
                "That is an upper bound.",
                lambda count, draws, alpha: (
                    1.0 if count == draws else float(beta.ppf(1 - alpha, count + 1, draws - count))
                ),
            ),
            mutant(
                "That is the normal approximation, which is no bound: it is wrong near 1.",
                _normal_bound,
            ),
            mutant(
                "The second parameter of the beta distribution is draws - count + 1.",
                lambda count, draws, alpha: (
                    float(beta.ppf(alpha, count, max(draws - count, 1e-9))) if count else 0.0
                ),
            ),
            mutant(
                "The parameters count and draws - count + 1 belong together: you give the bound of"
                " a posterior.",
                lambda count, draws, alpha: float(beta.ppf(alpha, count + 1, draws - count + 1)),
            ),
        ),
        hints=(
            "It is the p at which `count` votes or more would have just the probability alpha.",
            "A quantile of a beta distribution gives it: `beta.ppf(alpha, a, b)`.",
            "a = count, b = draws - count + 1, as in the last cell of section 3.",
        ),
    ),
    Exercise(
        name="proved_radius",
        number="13.3",
        title="The radius by hand",
        task="`proved_radius(p, sigma, k)`: the L2 norm up to which a label stays in the top `k` of"
        " the smoothed classifier, by the simple rule at the end of section 3. The label gets a"
        " vote with probability `p` or more, and the noise has deviation `sigma`. Return one"
        " number, 0 where nothing is proved.",
        points=3,
        minutes=15,
        cases=_shares,
        expected=_radius_by_search,
        solution=proved_radius,
        others=(_radius_by_search,),
        imports=("from scipy.stats import beta, norm",),
        mutants=(
            mutant(
                "That is the rule for k = 1: for more places p has to stay above k/(k + 1).",
                lambda p, sigma, k: max(0.0, sigma * float(norm.ppf(p))),
            ),
            mutant(
                "Below k/(k + 1) nothing is proved: the radius is 0 and not negative.",
                lambda p, sigma, k: sigma * float(norm.ppf(p) - norm.ppf(k / (k + 1))),
            ),
            mutant(
                "The difference is in units of the noise: multiply by sigma.",
                lambda p, sigma, k: proved_radius(p, 1.0, k),
                lambda p, sigma, k: proved_radius(p, 1 / sigma, k),
            ),
            mutant(
                "Take the difference of the two quantiles, not the quantile of a difference.",
                lambda p, sigma, k: max(
                    0.0, sigma * float(norm.ppf(min(0.5 + p - k / (k + 1), 0.9999)))
                ),
            ),
            mutant(
                "Differences of probabilities are no lengths: take quantiles of the normal"
                " distribution.",
                lambda p, sigma, k: max(0.0, sigma * (p - k / (k + 1))),
                lambda p, sigma, k: max(0.0, sigma * float(norm.cdf(p) - norm.cdf(k / (k + 1)))),
            ),
            mutant(
                "The probability must not fall below k/(k + 1); you use 1/(k + 1).",
                lambda p, sigma, k: max(0.0, sigma * float(norm.ppf(p) - norm.ppf(1 / (k + 1)))),
            ),
        ),
        hints=(
            "After a move by r the probability is at least Phi(Phi^-1(p) - r/sigma).",
            "Solve that for the r at which it is k/(k + 1). For k = 1 this is 1/2.",
            "`norm.ppf` is Phi^-1.",
        ),
    ),
)
