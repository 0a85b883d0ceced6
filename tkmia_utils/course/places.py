"""Exercises on notebook 01: who is in the top k, and who may trade places."""

from itertools import combinations

import numpy as np
import torch

from tkmia_utils import measures, topk
from tkmia_utils.course.exercise import Case, Exercise, mutant


def _invisible_cases(rng: np.random.Generator) -> list[Case]:
    """Scores of 5 to 8 labels; in every other case a relevant label ties with place k."""
    cases: list[Case] = []
    for trial in range(12):
        classes, k = 5 + trial // 3, int(rng.integers(2, 4))
        ranked = np.sort(rng.choice(np.arange(5, 96), classes, replace=False))[::-1] / 100
        relevant = np.zeros(classes, dtype=bool)
        relevant[[0, k, *rng.choice(np.arange(k + 1, classes), 1)]] = True
        relevant |= rng.random(classes) < 0.3
        relevant[k - 1] = trial % 3 > 0
        if trial % 2:
            ranked[k] = ranked[k - 1]
        specified = np.zeros(classes, dtype=bool)
        specified[0] = True
        order = rng.permutation(classes)
        arrays = (ranked[order], relevant[order], specified[order])
        cases.append((*map(torch.from_numpy, arrays), k))
    return cases


def _invisible(
    scores: torch.Tensor, labels: torch.Tensor, specified: torch.Tensor, k: int
) -> frozenset[tuple[int, int]]:
    """Every pair is tried, and the module's measures are asked."""
    pairs = list(combinations(range(len(scores)), 2))
    swapped = scores.repeat(len(pairs), 1)
    for row, (i, j) in enumerate(pairs):
        swapped[row, [i, j]] = scores[[j, i]]
    clean, y, s = (t.expand_as(swapped) for t in (scores, labels, specified))
    changes = measures.measure_changes(clean, swapped, y, s, torch.full((len(pairs),), k))
    moved = torch.stack([changes[name].abs() > 1e-9 for name in measures.CHANGES]).any(0)
    hidden = changes["delta_l"] > 0
    return frozenset(p for p, yes in zip(pairs, (hidden & ~moved).tolist(), strict=True) if yes)


def invisible_swaps(
    scores: torch.Tensor, labels: torch.Tensor, specified: torch.Tensor, k: int
) -> set[tuple[int, int]]:
    """Pairs of labels whose swap hides a specified label and moves no measure."""
    kth = scores.sort(descending=True).values[k - 1]
    inside = scores >= kth  # a tie counts for the label
    leaving = (specified & inside).nonzero().flatten().tolist()
    # a relevant label must come in, or there is one hit fewer; it must come from outside
    coming = (labels & ~specified & ~inside).nonzero().flatten().tolist()
    return {(min(i, j), max(i, j)) for i in leaving for j in coming}


def _swaps(
    scores: torch.Tensor,
    labels: torch.Tensor,
    specified: torch.Tensor,
    k: int,
    *,
    ties: bool = True,
    any_partner: bool = False,
    any_relevant: bool = False,
    anywhere: bool = False,
) -> list[list[int]]:
    """The pairs, label by label; the options are mistakes."""
    above = [(scores > s).sum() for s in scores]
    if not ties:
        places = scores.argsort(descending=True, stable=True).tolist()
        above = [torch.tensor(places.index(i)) for i in range(len(scores))]
    found = []
    for i in range(len(scores)):
        for j in range(len(scores)):
            leaves = (labels if any_relevant else specified)[i] and above[i] < k
            comes = (any_partner or labels[j]) and (anywhere or above[j] >= k)
            if i != j and leaves and comes and not (specified[j] and not any_relevant):
                found.append([i, j])
    return found


def _tied_scores(rng: np.random.Generator) -> list[Case]:
    """Scores with few different values, each with its columns turned round as well."""
    cases: list[Case] = []
    for trial in range(14):
        classes = 4 + trial // 4
        k = int(rng.integers(3 if trial % 4 == 3 else 2, classes))
        ranked = np.sort(rng.choice(np.arange(1, 10), classes, replace=False))[::-1] / 10
        if trial % 4 == 3:
            ranked[:2] = ranked[0]  # a tie above the boundary
        elif trial:
            ranked[k - 1 : k + 1 + trial % 2] = ranked[k - 1]  # a tie across it
        scores = torch.from_numpy(rng.permutation(ranked))
        cases += [(scores, k), (scores.flip(0), k)]
    return cases


def top_k_mask(scores: torch.Tensor, k: int) -> torch.Tensor:
    """Which labels are in the top k: those with fewer than k labels strictly above them."""
    above = (scores[None, :] > scores[:, None]).sum(1)
    return above < k


def _plain_sort(scores: torch.Tensor, k: int, *, stable: bool = True) -> torch.Tensor:
    """Exactly k labels, whatever the ties."""
    order = scores.argsort(descending=True, stable=True) if stable else scores.topk(k).indices
    return torch.zeros(len(scores), dtype=torch.bool).scatter(0, order[:k], True)


EXERCISES = (
    Exercise(
        name="invisible_swaps",
        number="01.3",
        title="The invisible swap",
        task="`invisible_swaps(scores, labels, specified, k)`: the set of pairs `(i, j)` of labels"
        " that, if they trade scores, take a specified label out of the top k (Δl = 1) and move"
        " none of the four measures. Tensors of shape `(C,)`; a tie counts for the label.",
        points=3,
        minutes=15,
        cases=_invisible_cases,
        expected=_invisible,
        solution=invisible_swaps,
        others=(_invisible, _swaps),
        mutants=(
            mutant(
                "A label that ties with place k is in the top k already, so a swap with it hides"
                " nothing.",
                lambda *case: _swaps(*case, ties=False),
            ),
            mutant(
                "You let irrelevant labels in as well: then the list has one hit fewer.",
                lambda *case: _swaps(*case, any_partner=True),
            ),
            mutant(
                "You swap with labels inside the top k too: no measure moves, but the specified"
                " label is still shown.",
                lambda *case: _swaps(*case, anywhere=True),
            ),
            mutant(
                "You let any relevant label leave; Δl counts specified ones only.",
                lambda *case: _swaps(*case, any_relevant=True),
            ),
        ),
        hints=(
            "One of the two must be a specified label that is shown. Where must the other be?",
            "Which label may take its place so that each place holds a hit as before?",
            "In the top k is who has fewer than k labels strictly above; look at the ties.",
        ),
    ),
    Exercise(
        name="top_k_mask",
        number="01.4",
        title="Ties",
        task="`top_k_mask(scores, k)`: which labels are in the top k, a mask `(C,)`; `scores` is a"
        " tensor `(C,)`. A tie counts for the label.",
        points=3,
        minutes=15,
        cases=_tied_scores,
        expected=topk.in_top_k,
        solution=top_k_mask,
        others=(
            lambda scores, k: scores >= scores.topk(k).values[-1],
            lambda scores, k: [sum(t > s for t in scores.tolist()) < k for s in scores.tolist()],
        ),
        mutants=(
            mutant(
                "A sort lets exactly k labels in: among tied ones, the order of the columns"
                " decides.",
                _plain_sort,
                lambda scores, k: _plain_sort(scores, k, stable=False),
                lambda scores, k: _plain_sort(scores.flip(0), k).flip(0),
            ),
            mutant(
                "You ask for more than the k-th score, so that label k itself is out: ask for >=.",
                lambda scores, k: scores > scores.sort(descending=True).values[k - 1],
            ),
            mutant(
                "Tied labels across place k are left out: here a tie counts for the label.",
                lambda scores, k: (scores[None, :] >= scores[:, None]).sum(1) <= k,
            ),
            mutant(
                "You compare with the score on place k + 1: Python counts from 0.",
                lambda scores, k: scores >= scores.sort(descending=True).values[k],
            ),
            mutant(
                "You count different scores: labels that tie take up a place each.",
                lambda scores, k: (
                    scores >= scores.unique().flip(0)[min(k, len(scores.unique())) - 1]
                ),
            ),
        ),
        hints=(
            "How many labels stand strictly above a label that is in the top k?",
            "Equivalently: which score must a label reach, and is reaching it enough?",
            "The k-th largest score is `scores.sort(descending=True).values[k - 1]`.",
        ),
    ),
)
