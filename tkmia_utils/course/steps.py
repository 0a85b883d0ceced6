"""Exercises on notebook 05: one step of the attack, and when it may stop."""

import numpy as np
import torch

from tkmia_utils import measures, topk
from tkmia_utils.attacks.base import AttackSpec, descend
from tkmia_utils.course.exercise import Case, Exercise, mutant


def _steps(rng: np.random.Generator) -> list[Case]:
    cases: list[Case] = []
    for trial in range(12):
        arrays = np.round(rng.uniform(-1, 1, (3, 2 + trial // 3)), 2)
        settings = (
            rng.choice([0.01, 0.1, 0.5]),
            rng.choice([0.1, 0.2, 1.5]),
            rng.choice([0.5, 0.9]),
        )
        if trial == 0:
            settings = (0.1, 0.5, 0.9)
        cases.append((*map(torch.from_numpy, arrays), *map(float, settings)))
    return cases


def _expected_step(
    eps: torch.Tensor,
    velocity: torch.Tensor,
    gradient: torch.Tensor,
    lr: float,
    alpha: float,
    momentum: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    one, none = torch.ones(1, dtype=torch.int64), torch.zeros(1, 1, dtype=torch.bool)
    rate, weight, kept = (torch.full((1,), v, dtype=torch.float64) for v in (lr, alpha, momentum))
    rows = AttackSpec(none, none, one, one, one, rate, weight, kept, 1)
    old, slope, at = (t.clone().reshape(1, 1, 1, -1) for t in (velocity, gradient, eps))
    new = descend(old, slope, at, rows).flatten()
    return eps - lr * new, new


def momentum_step(
    eps: torch.Tensor,
    velocity: torch.Tensor,
    gradient: torch.Tensor,
    lr: float,
    alpha: float,
    momentum: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    """One step on the loss, whose gradient is given, plus alpha/2 ||eps||^2."""
    velocity = momentum * velocity + gradient + alpha * eps
    return eps - lr * velocity, velocity


def _optimiser(
    eps: torch.Tensor,
    velocity: torch.Tensor,
    gradient: torch.Tensor,
    lr: float,
    alpha: float,
    momentum: float,
    *,
    dampening: bool = False,
    nesterov: bool = False,
) -> list[torch.Tensor]:
    """By torch's own optimiser; the options are mistakes."""
    leaf = eps.clone().requires_grad_()
    leaf.grad = gradient.clone()
    sgd = torch.optim.SGD(
        [leaf], lr=lr, momentum=momentum, weight_decay=alpha,
        dampening=momentum if dampening else 0.0, nesterov=nesterov,
    )  # fmt: skip
    sgd.state[leaf]["momentum_buffer"] = velocity.clone()
    sgd.step()
    return [leaf.detach(), sgd.state[leaf]["momentum_buffer"]]


def _stops(rng: np.random.Generator) -> list[Case]:
    """Scores before and after: S out, tied or still there, and hits kept, lost or won."""
    cases: list[Case] = []
    for trial in range(48):
        classes, k = 6, int(rng.integers(2, 4))
        clean = torch.from_numpy(rng.permutation(classes) + 1.0)
        f = torch.from_numpy(rng.permutation(classes) + 1.0)
        specified = torch.zeros(classes, dtype=torch.bool)
        specified[clean.topk(k).indices[: 1 + trial % 2]] = True
        relevant = specified | torch.from_numpy(rng.random(classes) < 0.5)
        relevant[clean.topk(k + 1).indices[-1]] = True
        others = f[~specified].topk(k).values
        if trial % 4 < 3:  # S at the bottom
            f = torch.where(specified, f - 10, f)
            if trial % 4 == 2:  # and more hits than before: a miss has left
                miss = clean.topk(k).indices[-1]
                f[miss] = 0
                relevant |= f >= f.topk(k).values[-1]
                relevant[miss] = False
        elif trial % 8 == 3:  # S ties with place k, and all above it are hits
            relevant |= f >= others[-1]
            f = torch.where(specified, others[-1], f)
        else:  # nothing has happened yet, or one of two has left and a hit has come
            f, ranked = clean.clone(), clean.argsort(descending=True)
            if trial % 16 == 15:
                f[ranked[[1, k]]] = clean[ranked[[k, 1]]]
        cases.append((f, clean, relevant, specified, k))
    return cases


def _expected_stop(
    f: torch.Tensor, clean: torch.Tensor, relevant: torch.Tensor, specified: torch.Tensor, k: int
) -> bool:
    now, before = (measures.precision_at_k(s[None], relevant[None], k) for s in (f, clean))
    return bool(now >= before) and not (specified & topk.in_top_k(f, k)).any()


def may_stop(
    f: torch.Tensor, clean: torch.Tensor, relevant: torch.Tensor, specified: torch.Tensor, k: int
) -> bool:
    """Is S out of the top k, with as many relevant labels in it as on the clean image?"""
    inside = f >= f.sort(descending=True).values[k - 1]  # a tie counts for the label
    before = clean >= clean.sort(descending=True).values[k - 1]
    hidden = not (specified & inside).any()
    return hidden and bool((relevant & inside).sum() >= (relevant & before).sum())


def _stop(
    f: torch.Tensor,
    clean: torch.Tensor,
    relevant: torch.Tensor,
    specified: torch.Tensor,
    k: int,
    *,
    strict: bool = False,
    some: bool = False,
    exactly: bool = False,
) -> bool:
    """With Python's lists; the options are mistakes."""
    above = [sum(g > s for g in f.tolist()) for s in f.tolist()]
    inside = [a < k for a in above]
    gone = [not i for i, s in zip(inside, specified.tolist(), strict=True) if s]
    if strict:
        gone = [bool(s <= f.topk(k).values[-1]) for s in f[specified]]
    hits = sum(i and y for i, y in zip(inside, relevant.tolist(), strict=True))
    before = int(relevant[clean.topk(k).indices].sum())
    return (any(gone) if some else all(gone)) and (hits == before if exactly else hits >= before)


def _hidden(f: torch.Tensor, specified: torch.Tensor, k: int) -> bool:
    return not bool((specified & topk.in_top_k(f, k)).any())


EXERCISES = (
    Exercise(
        name="momentum_step",
        number="05.3",
        title="One step with momentum",
        task="`momentum_step(eps, velocity, gradient, lr, alpha, momentum)`: `eps` and `velocity`"
        " after one step; `gradient` is that of the loss in eps, to which alpha/2 ||eps||² comes.",
        points=3,
        minutes=15,
        cases=_steps,
        expected=_expected_step,
        solution=momentum_step,
        others=(_optimiser,),
        parts=("eps", "the velocity"),
        mutants=(
            mutant(
                "The gradient is not scaled by 1 - momentum here.",
                lambda *case: _optimiser(*case, dampening=True),
            ),
            mutant(
                "That is Nesterov's step; here eps moves by the new velocity.",
                lambda *case: _optimiser(*case, nesterov=True),
            ),
            mutant(
                "The norm's gradient is missing: that of alpha/2 ||eps||² is alpha eps.",
                lambda e, v, g, lr, a, m: momentum_step(e, v, g, lr, 0, m),
            ),
            mutant(
                "The gradient of alpha/2 ||eps||² is alpha eps, not 2 alpha eps nor half of it.",
                lambda e, v, g, lr, a, m: momentum_step(e, v, g, lr, 2 * a, m),
                lambda e, v, g, lr, a, m: momentum_step(e, v, g, lr, a / 2, m),
            ),
            mutant(
                "eps moves by the old velocity: update the velocity first.",
                lambda e, v, g, lr, a, m: (e - lr * v, m * v + g + a * e),
            ),
            mutant(
                "The step goes against the velocity: minus, not plus.",
                lambda e, v, g, lr, a, m: (e + lr * (m * v + g + a * e), m * v + g + a * e),
            ),
            mutant(
                "You return them in the other order: eps first.",
                lambda *case: momentum_step(*case)[::-1],
            ),
        ),
        hints=(
            "What is the gradient of alpha/2 ||eps||²?",
            "The new velocity is momentum times the old one, plus all gradients.",
            "Then eps moves by -lr times the new velocity.",
        ),
    ),
    Exercise(
        name="may_stop",
        number="05.4",
        title="Stop later",
        task="`may_stop(f, clean, relevant, specified, k)`: True if none of S is in the top k of"
        " `f`, and there are no fewer relevant labels in it than in that of `clean`. Tensors"
        " `(C,)`; a tie counts for the label.",
        points=4,
        minutes=20,
        cases=_stops,
        expected=_expected_stop,
        solution=may_stop,
        others=(_stop,),
        mutants=(
            mutant(
                "You only ask whether S is out; its places may hold irrelevant labels.",
                lambda f, clean, y, s, k: _hidden(f, s, k),
            ),
            mutant(
                "You do not ask whether S is out.",
                lambda f, clean, y, s, k: _expected_stop(f, clean, y, torch.zeros_like(s), k),
            ),
            mutant(
                "You ask for a top k full of relevant labels; it need hold no more than before.",
                lambda f, clean, y, s, k: _hidden(f, s, k) and int(y[f.topk(k).indices].sum()) == k,
            ),
            mutant(
                "You ask that all of Y_p∖S is in the top k; as many hits as before is enough.",
                lambda f, clean, y, s, k: (
                    _hidden(f, s, k) and bool(topk.in_top_k(f, k)[y & ~s].all())
                ),
            ),
            mutant(
                "All of S must be out, not just one label of it.",
                lambda *case: _stop(*case, some=True),
            ),
            mutant(
                "A specified label that ties with place k is still in the top k.",
                lambda *case: _stop(*case, strict=True),
            ),
            mutant(
                "More hits than before is as good: >=, not ==.",
                lambda *case: _stop(*case, exactly=True),
            ),
        ),
        hints=(
            "Two conditions, both needed: S is out, and the hits are not fewer.",
            "A label is in the top k if its score is at least the k-th largest.",
            "Count `relevant & inside` for both score vectors.",
        ),
    ),
)
