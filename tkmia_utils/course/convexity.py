"""Exercises on notebook 02: in what the objective is convex, and in what it is not."""

from itertools import combinations

import numpy as np
import torch

from tkmia_utils import losses
from tkmia_utils.course.exercise import Case, Exercise, mutant


def _networks(rng: np.random.Generator) -> list[Case]:
    """Perturbations, a linear network and the sets of one image; some pair breaks convexity."""
    cases: list[Case] = []
    while len(cases) < 12:
        size = 3 + len(cases) // 4
        classes, k = 5, 1 + len(cases) % 2
        points = torch.from_numpy(np.round(2 * rng.standard_normal((size, 2)), 1))
        weights = torch.from_numpy(np.round(rng.standard_normal((classes, 2)), 1))
        order = rng.permutation(classes)
        relevant, specified = np.zeros(classes, dtype=bool), np.zeros(classes, dtype=bool)
        relevant[order[:4]], specified[order[:2]] = True, True
        sets = (torch.from_numpy(relevant), torch.from_numpy(specified))
        case = (points, weights, *sets, k)
        over = _all_pairs(*case)
        # not a matter of the first pair or of neighbours, and by turns no midpoint is as far below
        apart = [_all_pairs(*case, first=True), _all_pairs(*case, neighbours=True)]
        below = _all_pairs(*case, turned=True) > over
        if over <= max(0.02, *(other + 0.005 for other in apart)) or below != len(cases) % 2:
            continue
        convex = [_all_pairs(*case, logits=True), _all_pairs(*case, in_scores=True)]
        if len(cases) % 3 or abs(convex[0] - convex[1]) > 0.005:
            cases.append(case)
    return cases


def largest_excess(
    points: torch.Tensor,
    weights: torch.Tensor,
    relevant: torch.Tensor,
    specified: torch.Tensor,
    k: int,
) -> float:
    """How far, at most, the objective at a midpoint of two perturbations is above its chord."""

    def objective(eps: torch.Tensor) -> torch.Tensor:
        f = torch.sigmoid(weights @ eps)  # the network: perturbation in, scores out
        order = f.sort(descending=True).values
        exclusion = f[specified].max() - order[k:].mean()
        inclusion = order[:k].mean() - f[relevant & ~specified].min()
        return exclusion + inclusion

    excesses = []
    for i in range(len(points)):
        for j in range(i):
            u, v = points[i], points[j]
            chord = (objective(u) + objective(v)) / 2
            excesses.append(objective((u + v) / 2) - chord)
    return float(max(excesses))


def _all_pairs(
    points: torch.Tensor,
    weights: torch.Tensor,
    relevant: torch.Tensor,
    specified: torch.Tensor,
    k: int,
    *,
    first: bool = False,
    neighbours: bool = False,
    mean: bool = False,
    unhalved: bool = False,
    turned: bool = False,
    size: bool = False,
    logits: bool = False,
    in_scores: bool = False,
) -> float:
    """The same with the package's objective, all pairs at once; the options are mistakes."""
    pairs = list(combinations(range(len(points)), 2))
    if first or neighbours:
        pairs = [p for p in pairs if p == (0, 1) or (neighbours and p[1] == p[0] + 1)]
    one, other = (points[[p[end] for p in pairs]] for end in (0, 1))

    def network(eps: torch.Tensor) -> torch.Tensor:
        raw = eps @ weights.T
        return raw if logits else torch.sigmoid(raw)

    def value(scores: torch.Tensor) -> torch.Tensor:
        labels, hidden = (mask.expand(len(scores), -1) for mask in (relevant, specified))
        return losses.tkmia(scores, labels, hidden, k)

    u, v = network(one), network(other)
    middle = (u + v) / 2 if in_scores else network((one + other) / 2)
    chord = (value(u) + value(v)) / (1 if unhalved else 2)
    excess = value(middle) - chord
    excess = -excess if turned else excess.abs() if size else excess
    return float(excess.mean() if mean else excess.max())


EXERCISES = (
    Exercise(
        name="largest_excess",
        number="02.6",
        title="Convex in what?",
        task="`largest_excess(points, weights, relevant, specified, k)`: for the network"
        " `torch.sigmoid(weights @ eps)` and the closed form of TkMIA's objective, the largest"
        " value, over all pairs of the perturbations `points` `(N, D)`, of objective at the"
        " midpoint minus mean of the objectives at the two ends. `weights` is `(C, D)`, the masks"
        " Y_p and S are `(C,)`.",
        points=3,
        minutes=20,
        cases=_networks,
        expected=_all_pairs,
        solution=largest_excess,
        others=(_all_pairs,),
        mutants=(
            mutant(
                "You take midpoints of scores: in the scores it is convex. Take midpoints of ε.",
                lambda *case: _all_pairs(*case, in_scores=True),
            ),
            mutant(
                "The sigmoid is missing: on the logits of a linear network nothing is broken.",
                lambda *case: _all_pairs(*case, logits=True),
            ),
            mutant(
                "You try one pair: one that keeps the inequality proves nothing. Try them all.",
                lambda *case: _all_pairs(*case, first=True),
            ),
            mutant(
                "You try neighbours only: any two of the points make a pair.",
                lambda *case: _all_pairs(*case, neighbours=True),
            ),
            mutant(
                "The chord's middle is half of the sum of the two ends.",
                lambda *case: _all_pairs(*case, unhalved=True),
            ),
            mutant(
                "The sign: a function is convex if no midpoint is above its chord, not below.",
                lambda *case: _all_pairs(*case, turned=True),
            ),
            mutant(
                "A midpoint below its chord is as it should be: no absolute value.",
                lambda *case: _all_pairs(*case, size=True),
            ),
            mutant(
                "You average over the pairs: one pair above its chord is a counterexample.",
                lambda *case: _all_pairs(*case, mean=True),
            ),
        ),
        hints=(
            "Write a function of one ε first: scores by the network, then the closed form.",
            "The closed form: max_S f - mean(lowest c-k) + mean(top k) - min over Y_p∖S.",
            "For each pair: objective((u + v) / 2) - (objective(u) + objective(v)) / 2.",
        ),
    ),
)
