"""Exercises on notebook 00: an attack on a toy, read and prepared."""

from collections.abc import Callable

import numpy as np
import torch

from tkmia_utils import measures, topk
from tkmia_utils.course.exercise import Answer, Case, Exercise, mutant


def _traces(rng: np.random.Generator) -> list[Case]:
    """Scores by iteration: S leaves, in some comes back and leaves again, and somebody comes in."""
    cases: list[Case] = []
    for trial in range(16):
        classes, k = 5 + trial // 4, 2 + trial % 2
        order = rng.permutation(classes)
        hidden, newcomer, late = order[0], order[k], order[k + 1]
        start = np.zeros(classes)
        start[order] = np.arange(classes, 0, -1)
        end = start.copy()
        # S falls below the newcomer, who is now on place k or, by turns, on the first
        end[hidden] = start[late] - 0.5
        end[newcomer] = classes + 1.0 if trial % 4 < 2 else start[newcomer]
        steps = int(rng.integers(4, 8)) + 3
        leaves = int(rng.integers(2, steps - 2))
        path = np.stack([end if t >= leaves else start for t in range(steps)])
        if trial % 3:  # it leaves for one iteration, in which another label is in its place
            path[leaves - 1] = end
            path[leaves - 1, [newcomer, late]] = end[[late, newcomer]]
            path[leaves] = start
        relevant = rng.random(classes) < 0.5
        relevant[[hidden, order[1]]] = True
        relevant[newcomer] = trial % 2 == 0
        specified = np.arange(classes) == hidden
        path = np.round(path + rng.uniform(-0.2, 0.2, path.shape), 2)
        cases.append((*map(torch.from_numpy, (path, relevant, specified)), k))
    return sorted(cases, key=lambda case: case[0].numel())


def _expected_trace(
    logits: torch.Tensor, labels: torch.Tensor, specified: torch.Tensor, k: int
) -> tuple[int, int, float]:
    """By the package's top k and P@k, from the last row back."""
    shown = topk.in_top_k(logits, k)
    first = len(logits)
    while not (shown[first - 1] & specified).any():
        first -= 1
    before, after = measures.precision_at_k(logits[[0, -1]], labels.expand(2, -1), k).tolist()
    return first, int((shown[-1] & ~shown[0]).nonzero()), after - before


def read_trace(
    logits: torch.Tensor, labels: torch.Tensor, specified: torch.Tensor, k: int
) -> tuple[int, int, float]:
    """When the specified label is out for good, who is in at the end, and how P@k has changed."""
    places = logits.argsort(dim=1, descending=True)[:, :k]  # the top k of each iteration
    inside = specified[places].any(dim=1)
    last = int(inside.nonzero().max())  # the last iteration that shows it
    before, after = set(places[0].tolist()), set(places[-1].tolist())
    (newcomer,) = after - before
    hits = labels[places].sum(dim=1)
    return last + 1, newcomer, float(hits[-1] - hits[0]) / k


def _trace_loop(
    logits: torch.Tensor,
    labels: torch.Tensor,
    specified: torch.Tensor,
    k: int,
    *,
    first_time: bool = False,
    first_newcomer: bool = False,
) -> list[float]:
    """The same, row by row; the options are mistakes."""
    tops = [sorted(range(len(row)), key=lambda c: -row[c])[:k] for row in logits.tolist()]
    (hidden,) = specified.nonzero().flatten().tolist()
    out = [t for t, top in enumerate(tops) if hidden not in top]
    stays = next(t for t in out if all(hidden not in top for top in tops[t:]))
    now = tops[out[0] if first_newcomer else -1]
    newcomer = next(c for c in now if c not in tops[0])
    hits = [sum(bool(labels[c]) for c in top) for top in (tops[0], tops[-1])]
    return [out[0] if first_time else stays, newcomer, (hits[1] - hits[0]) / k]


def _replaced(place: int, wrong: Callable[..., float]) -> Answer:
    """The three answers about a trace with one of them wrong."""

    def answer(
        logits: torch.Tensor, labels: torch.Tensor, specified: torch.Tensor, k: int
    ) -> list[float]:
        right: list[float] = list(read_trace(logits, labels, specified, k))
        right[place] = wrong(right[place], logits, k)
        return right

    return answer


def _sets(rng: np.random.Generator) -> list[Case]:
    """Scores of some images and S of each: inside, half inside, on the boundary, tied, outside."""
    cases: list[Case] = []
    for trial in range(10):
        classes, k = 5 + trial // 4, 2 + trial % 2
        logits: list[np.ndarray] = []
        specified: list[np.ndarray] = []
        for members in ([0], [0, k], [k - 1], [k], [k, k + 1], [1, k + 1], [k], [k, k + 1]):
            scores = np.sort(rng.choice(np.arange(-30, 30), classes, replace=False))[::-1] / 10
            if len(logits) > 5:
                scores[k] = scores[k - 1]  # a tie with place k
            order = rng.permutation(classes)
            place = np.empty(classes)
            place[order] = scores
            logits.append(place)
            specified.append(np.isin(np.arange(classes), order[members]))
        rows = rng.permutation(len(logits))
        arrays = (np.stack(logits)[rows], np.stack(specified)[rows])
        cases.append((*map(torch.from_numpy, arrays), k))
    return cases


def stops_at_once(logits: torch.Tensor, specified: torch.Tensor, k: int) -> torch.Tensor:
    """Images of which the clean top k shows no specified label, a mask (N,)."""
    kth = logits.sort(dim=1, descending=True).values[:, k - 1, None]
    shown = logits >= kth  # with place k itself, and whoever ties with it
    return ~(shown & specified).any(dim=1)


def _stops_loop(logits: torch.Tensor, specified: torch.Tensor, k: int) -> list[bool]:
    above = [[sum(t > s for t in row) for s in row] for row in logits.tolist()]
    pairs = zip(above, specified.tolist(), strict=True)
    return [all(n >= k for n, y in zip(counts, row, strict=True) if y) for counts, row in pairs]


def _choices(rng: np.random.Generator) -> list[Case]:
    """Scores of an untrained model for some images, with k and the size of S."""
    cases: list[Case] = []
    for trial in range(12):
        k, size = 2 + trial % 3, 2 if trial % 2 else 1
        classes = k + size + 1 + trial // 4
        values = [rng.choice(np.arange(-40, 40), classes, replace=False) / 10 for _ in range(3)]
        cases.append((torch.from_numpy(np.stack(values)), k, size))
    return sorted(cases, key=lambda case: case[0].shape[1])


def toy_sets(logits: torch.Tensor, k: int, m: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Y_p and S of a toy: the k + m best labels of each image, and the m best of these."""
    order = logits.argsort(dim=1, descending=True)
    none = torch.zeros_like(logits, dtype=torch.bool)
    relevant = none.scatter(1, order[:, : k + m], True)
    specified = none.scatter(1, order[:, :m], True)
    return relevant, specified


def _toy_ranks(logits: torch.Tensor, k: int, m: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The same, by places."""
    places = topk.ranks(logits)
    return places <= k + m, places <= m


def _other_sets(relevant: Callable[[int, int], int], start: Callable[[int, int], int]) -> Answer:
    """So many relevant labels, and S from another place of the list on."""

    def answer(logits: torch.Tensor, k: int, m: int) -> list[torch.Tensor]:
        places, first = topk.ranks(logits), start(k, m)
        return [places <= relevant(k, m), (places > first) & (places <= first + m)]

    return answer


EXERCISES = (
    Exercise(
        name="read_trace",
        number="00.2",
        title="Count by eye, then by code",
        task="`read_trace(logits, labels, specified, k)` returns three numbers: the first iteration"
        " from which on the specified label is out of the top k to the end; the index of the label"
        " that is in the last top k and was not in the first; P@k of the last row minus P@k of the"
        " first. `logits` is `(T, C)`, row t being iteration t, and row 0 the clean image;"
        " `labels` and `specified` are masks `(C,)`, `specified` with one label. No two scores of a"
        " row are equal, and exactly one label is new.",
        points=3,
        minutes=15,
        cases=_traces,
        expected=_expected_trace,
        solution=read_trace,
        others=(_trace_loop,),
        parts=("iteration", "label that came in", "change of P@k"),
        mutants=(
            mutant(
                "You take the first time that it leaves; it comes back once. Ask from when on it"
                " stays out.",
                lambda *case: _trace_loop(*case, first_time=True),
            ),
            mutant(
                "You count rows from 1: row 0 is iteration 0, the clean image.",
                _replaced(0, lambda right, logits, k: right + 1),
            ),
            mutant(
                "That is the last iteration that still shows it; it is out from the next one on.",
                _replaced(0, lambda right, logits, k: right - 1),
            ),
            mutant(
                "You name who is first at the end; asked is who is new in the top k.",
                _replaced(1, lambda right, logits, k: int(logits[-1].argmax())),
            ),
            mutant(
                "You name who came in when the label left for the first time; compare the last row"
                " with the first.",
                lambda *case: _trace_loop(*case, first_newcomer=True),
            ),
            mutant(
                "The sign is turned round: a change is the value at the end minus that at the"
                " start.",
                _replaced(2, lambda right, logits, k: -right),
            ),
            mutant(
                "You count hits. P@k is their share of the k places.",
                _replaced(2, lambda right, logits, k: right * k),
            ),
        ),
        hints=(
            "`logits.argsort(dim=1, descending=True)[:, :k]` lists the top k of every iteration.",
            "Find the last iteration that shows the label; what is asked for is the next one.",
            "Two sets of labels, first and last top k: which label is only in the second?",
        ),
    ),
    Exercise(
        name="stops_at_once",
        number="00.3",
        title="Does the attack stop at once?",
        task="`stops_at_once(logits, specified, k)`: of which images the attack is over at"
        " iteration 0, because no specified label is in the clean top k; a mask `(N,)`. `logits` is"
        " `(N, C)`, of the clean images, `specified` a mask `(N, C)` with at least one label a"
        " row. Who has the same score as place k counts as shown.",
        points=2,
        minutes=10,
        cases=_sets,
        expected=lambda logits, specified, k: (topk.in_top_k(logits, k) & specified).sum(1).eq(0),
        solution=stops_at_once,
        others=(_stops_loop,),
        mutants=(
            mutant(
                "You are content if one label of S is out; all of S must be.",
                lambda logits, specified, k: (~topk.in_top_k(logits, k) & specified).any(1),
            ),
            mutant(
                "A label that ties with place k is shown, so the attack has something to do.",
                lambda logits, specified, k: (
                    ~(specified & ((logits[:, None, :] >= logits[:, :, None]).sum(2) <= k)).any(1)
                ),
            ),
            mutant(
                "You look at the first place only; a label is shown on any of k places.",
                lambda logits, specified, k: (
                    ~specified.gather(1, logits.argmax(1, keepdim=True)).squeeze(1)
                ),
            ),
            mutant(
                "You leave out place k itself: the k-th score is index k - 1, and reaching it is"
                " enough.",
                lambda logits, specified, k: ~(topk.in_top_k(logits, k - 1) & specified).any(1),
            ),
        ),
        hints=(
            "Which labels does the clean top k show? Which of them are specified?",
            "`logits.sort(dim=1, descending=True).values[:, k - 1]` is the score to be reached.",
            "`any(dim=1)` says whether a row has at least one; you want the rows that have none.",
        ),
    ),
    Exercise(
        name="toy_sets",
        number="00.4",
        title="Your own toy",
        task="`toy_sets(logits, k, m)`: labels for an untrained model, so that there is something"
        " to attack. Of every image the k + m best labels are relevant, and the m best of these are"
        " specified; return both as masks `(N, C)`. `logits` is `(N, C)` without ties.",
        points=3,
        minutes=15,
        cases=_choices,
        expected=_toy_ranks,
        solution=toy_sets,
        others=(_toy_ranks,),
        parts=("relevant", "specified"),
        mutants=(
            mutant(
                "With k relevant labels too few are left: if m of them go, k others must remain.",
                _other_sets(lambda k, m: k, lambda k, m: 0),
            ),
            mutant(
                "S is not part of Y_p: you specify labels that are not relevant.",
                _other_sets(lambda k, m: k + m, lambda k, m: k + m),
            ),
            mutant(
                "You specify the last m relevant labels; the top k does not show all of them, so"
                " the attack may stop at once.",
                _other_sets(lambda k, m: k + m, lambda k, m: k),
            ),
            mutant(
                "You sort from below: the relevant labels are those with the lowest scores.",
                lambda logits, k, m: _toy_ranks(-logits, k, m),
            ),
            mutant(
                "All relevant labels are specified: then none is left to take the free places.",
                lambda logits, k, m: [_toy_ranks(logits, k, m)[0]] * 2,
            ),
            mutant(
                "The first columns are not the best labels: use the order that the sort gives.",
                lambda logits, k, m: [
                    (torch.arange(logits.shape[1]) < n).expand(len(logits), -1) for n in (k + m, m)
                ],
            ),
        ),
        hints=(
            "Sort each row: `logits.argsort(dim=1, descending=True)` gives labels, best first.",
            "Make masks of False and set chosen columns: `mask.scatter(1, columns, True)`.",
            "The columns are `order[:, : k + m]` and `order[:, :m]`.",
        ),
    ),
)
