"""Exercises on notebooks 05 and 06 that read results: how far alpha goes, and what was for free."""

import numpy as np
import torch

from tkmia_utils import topk
from tkmia_utils.course.exercise import Case, Exercise, mutant

_SHARES = (0.5, 0.75, 1.0)


def _tables(rng: np.random.Generator) -> list[Case]:
    """Alphas in any order, and who succeeds; some alpha reaches the share exactly, or none does."""
    cases: list[Case] = []
    for trial in range(18):
        images, share = 8, _SHARES[trial % 3]
        least = int(share * images)
        rows = 4 + trial // 6
        alphas = np.sort(rng.choice([0.01, 0.1, 1, 3, 10, 30, 100, 300], rows, replace=False))
        counts = rng.integers(0, least, rows)
        if trial % 6 != 5:  # else no alpha is small enough
            counts[0], counts[1], counts[2] = images, least, least
            if share < 1 and trial % 2:
                counts[2] = least + 1
            counts[3:] = np.minimum(counts[3:], least - 1)
        counts[-1] *= trial % 6 != 0  # no success at all at the largest
        success = np.arange(images) < counts[:, None]
        order = rng.permutation(rows)
        arrays = (alphas[order], rng.permuted(success[order], axis=1))
        cases.append((*map(torch.from_numpy, arrays), share))
    return cases


def largest_alpha(alphas: torch.Tensor, success: torch.Tensor, share: float) -> float:
    """The largest alpha that still hides S on enough of the images; 0 if none does."""
    enough = success.double().mean(1) >= share
    return float(alphas[enough].max()) if enough.any() else 0.0


def _alpha(
    alphas: torch.Tensor, success: torch.Tensor, share: float, *, strict: bool = False
) -> float:
    """By counting; strict is a mistake."""
    best = 0.0
    for alpha, row in zip(alphas.tolist(), success.tolist(), strict=True):
        rate = sum(row) / len(row)
        if rate > share or (rate == share and not strict):
            best = max(best, alpha)
    return best


def _row(alphas: torch.Tensor, success: torch.Tensor, share: float) -> int:
    """Number of the row, as if that was asked."""
    found = largest_alpha(alphas, success, share)
    return alphas.tolist().index(found) if found else 0


def _smallest(alphas: torch.Tensor, success: torch.Tensor, share: float) -> float:
    enough = success.double().mean(1) >= share
    return float(alphas[enough].min()) if enough.any() else 0.0


def _some(alphas: torch.Tensor, success: torch.Tensor, share: float) -> float:
    any_at_all = success.any(1)
    return float(alphas[any_at_all].max()) if any_at_all.any() else 0.0


def _last(alphas: torch.Tensor, success: torch.Tensor, share: float) -> float:
    enough = success.double().mean(1) >= share
    return float(alphas[enough][-1]) if enough.any() else 0.0


def _cells(rng: np.random.Generator) -> list[Case]:
    """Images of a cell: S wholly, partly or not at all in the clean top k, and ties."""
    cases: list[Case] = []
    for trial in range(14):
        images, classes, k = 10 + trial, 8, int(rng.integers(2, 4))
        clean = np.stack([rng.permutation(classes) + 1.0 for _ in range(images)])
        specified = np.zeros((images, classes), bool)
        inside = [2, 1, 0, 1, 0]  # of S in the clean top k, image after image
        for row in range(images):
            ranked = clean[row].argsort()[::-1]
            n = inside[row % 5]
            specified[row, ranked[:n]] = True
            specified[row, ranked[k + 1 : k + 3 - n]] = True
            if row == 2:  # both out, but one ties with place k
                specified[row, ranked[k + 1]] = True
                clean[row, ranked[k + 1]] = clean[row, ranked[k - 1]]
        delta = 2 if trial % 2 == 0 else 1
        out = (specified & ~topk.in_top_k(torch.from_numpy(clean), k).numpy()).sum(1)
        success = (out >= delta) | (rng.random(images) < 0.6)
        success[0], success[5] = True, False  # of those that have to be attacked
        arrays = map(torch.from_numpy, (clean, specified))
        cases.append((*arrays, k, delta, torch.from_numpy(success)))
    return cases


def free_success(
    clean: torch.Tensor, specified: torch.Tensor, k: int, delta: int, success: torch.Tensor
) -> tuple[float, float]:
    """Share of images that succeed without a step, and success rate of all others."""
    place_k = clean.sort(dim=1, descending=True).values[:, k - 1 : k]
    out = (specified & (clean < place_k)).sum(1)  # a label that ties with place k is inside
    free = out >= delta
    return float(free.double().mean()), float(success[~free].double().mean())


def _free(
    clean: torch.Tensor,
    specified: torch.Tensor,
    k: int,
    delta: int,
    success: torch.Tensor,
    *,
    least: int | None = None,
    strict: bool = False,
    kept: bool = False,
) -> np.ndarray:
    """By counting who is above; the options are mistakes."""
    free = []
    for scores, mask in zip(clean.tolist(), specified.tolist(), strict=True):
        chosen = [f for f, s in zip(scores, mask, strict=True) if s]
        if strict:
            inside = [sum(g >= f for g in scores) <= k for f in chosen]
        else:
            inside = [sum(g > f for g in scores) < k for f in chosen]
        gone = len(chosen) - sum(inside)
        free.append(sum(inside) >= delta if kept else gone >= (least or delta))
    mask = np.array(free)
    rest = success.numpy()[~mask]
    return np.array([mask.mean(), rest.mean() if len(rest) else 0.0])


def _measured(rng: np.random.Generator) -> list[Case]:
    """Four measures before and after: still, still up to rounding, fallen, risen, and failures."""
    cases: list[Case] = []
    for trial in range(10):
        images = 16 + 4 * trial
        k = torch.from_numpy(rng.permutation(np.arange(images) % 3 + 1))
        success = torch.from_numpy(rng.random(images) < 0.7)
        before = np.round(rng.uniform(0.3, 0.7, (images, 4)), 2)
        after = before.copy()
        for row in range(images):
            kind = int(rng.integers(7))
            if kind == 1:
                after[row] += 1e-15 * rng.choice([-1, 1], 4)  # another order of summation
            elif kind == 2:
                after[row] -= 0.2
            elif kind == 3:
                after[row, 2:] += 0.1  # it rose, on other places
            elif kind == 4:
                after[row, 3] -= 0.1  # NDCG@k alone
            elif kind == 5:
                after[row, 2:] += (0.1, -0.1)
            elif kind == 6:
                after[row, 1:] -= 0.1  # TkAcc was 0 before
        arrays = (torch.from_numpy(before), torch.from_numpy(after))
        cases.append((k, success, *arrays))
    return cases


def unmoved_by_k(
    k: torch.Tensor, success: torch.Tensor, before: torch.Tensor, after: torch.Tensor
) -> torch.Tensor:
    """Share of images on which S is hidden and no measure moved, for each k in ascending order."""
    still = ((before - after).abs() < 1e-12).all(1)  # rounding is no change
    good = (success & still).double()
    return torch.stack([good[k == value].mean() for value in k.unique()])


def _unmoved(
    k: torch.Tensor,
    success: torch.Tensor,
    before: torch.Tensor,
    after: torch.Tensor,
    *,
    exact: bool = False,
    falls: bool = False,
    some: bool = False,
    cancel: bool = False,
    failures: bool = False,
    survivors: bool = False,
) -> list[float]:
    """Image by image; the options are mistakes."""
    tolerance = 0.0 if exact else 1e-9
    groups: dict[int, list[bool]] = {}
    rows = zip(k.tolist(), success.tolist(), (before - after).tolist(), strict=True)
    for at, done, change in rows:
        moved = [(d if falls else abs(d)) > tolerance for d in change]
        if cancel:
            moved = [abs(sum(change)) > tolerance]
        if survivors and not done:
            continue
        still = not all(moved) if some else not any(moved)
        groups.setdefault(at, []).append(still and (done or failures))
    return [sum(groups[at]) / len(groups[at]) for at in sorted(groups)]


EXERCISES = (
    Exercise(
        name="largest_alpha",
        number="05.5",
        title="How large may alpha be?",
        task="`largest_alpha(alphas, success, share)`: the largest alpha that still hides S on at"
        " least `share` of the images, or 0 if none does. `alphas` `(A,)` in no order; `success`"
        " bool `(A, N)`, a row for each alpha and a column for each image.",
        points=3,
        minutes=10,
        cases=_tables,
        expected=lambda alphas, success, share: max(
            [
                0.0,
                *(
                    float(a)
                    for a, row in zip(alphas, success, strict=True)
                    if int(row.sum()) >= share * len(row)
                ),
            ]
        ),
        solution=largest_alpha,
        others=(_alpha,),
        mutants=(
            mutant(
                "That is the smallest alpha that hides; the largest is asked for.",
                _smallest,
            ),
            mutant(
                "At least `share`: >=, not >.",
                lambda *case: _alpha(*case, strict=True),
            ),
            mutant(
                "The alphas come in no order: the last row that qualifies need not be the largest.",
                _last,
            ),
            mutant(
                "One success is not enough: compare each row's mean with `share`.",
                _some,
            ),
            mutant(
                "That is a row's number; return the alpha of this row.",
                _row,
            ),
            mutant(
                "You look at the largest alpha and at no success.",
                lambda alphas, success, share: alphas.max(),
            ),
        ),
        hints=(
            "One mean for each row, then a mask over the alphas.",
            "`enough = success.double().mean(1) >= share`; ask whether it holds anywhere.",
        ),
    ),
    Exercise(
        name="free_success",
        number="06.2",
        title="Success for nothing",
        task="`free_success(clean, specified, k, delta, success)`: two numbers. First the share of"
        " all images that succeed with 0 iterations: at least `delta` labels of S are outside the"
        " *clean* top k. Then the success rate of all other images. `clean` are clean logits"
        " `(N, C)`, `specified` is bool `(N, C)`, `success` bool `(N,)`; a tie counts for the"
        " label.",
        points=3,
        minutes=15,
        cases=_cells,
        expected=lambda clean, specified, k, delta, success: _free(
            clean, specified, k, delta, success
        ),
        solution=free_success,
        others=(_free,),
        parts=("the share for nothing", "the success rate of the others"),
        mutants=(
            mutant(
                "The second number is about the images that need an attack, not about all.",
                lambda *case: (free_success(*case)[0], case[-1].double().mean()),
            ),
            mutant(
                "The second number has the right images on top; divide by their number, not by N.",
                lambda *case: (
                    free_success(*case)[0],
                    free_success(*case)[1] * (1 - free_success(*case)[0]),
                ),
            ),
            mutant(
                "The first is a share of all images, not of the successes.",
                lambda *case: (
                    free_success(*case)[0] / float(case[-1].double().mean()),
                    free_success(*case)[1],
                ),
            ),
            mutant(
                "`delta` labels have to be out: not one, and not all of S.",
                lambda *case: _free(*case, least=1),
                lambda *case: _free(*case, least=2),
            ),
            mutant(
                "A label that ties with place k is in the top k.",
                lambda *case: _free(*case, strict=True),
            ),
            mutant(
                "Count the labels of S outside the clean top k, not those inside.",
                lambda *case: _free(*case, kept=True),
            ),
        ),
        hints=(
            "The attack looks at the scores before its first step. When does it stop right there?",
            "A label is out if its score is below the k-th largest. Count those of S in each row.",
            "`free = out >= delta`; then `free.double().mean()` and the mean of `success[~free]`.",
        ),
    ),
    Exercise(
        name="unmoved_by_k",
        number="06.4",
        title="Hidden, and nothing moved",
        task="`unmoved_by_k(k, success, before, after)`: for each k that occurs, in ascending"
        " order, the share of all its images on which the attack succeeds and no measure moves, up"
        " or down. `k` is int64 `(N,)`, `success` bool `(N,)`; `before` and `after` hold the four"
        " measures, float64 `(N, 4)`.",
        points=4,
        minutes=20,
        cases=_measured,
        expected=_unmoved,
        solution=unmoved_by_k,
        others=(_unmoved,),
        mutants=(
            mutant(
                "== on floats: a difference of 1e-15 is rounding, so compare with a tolerance.",
                lambda *case: _unmoved(*case, exact=True),
            ),
            mutant(
                "Failures are dropped: divide by all images of a k.",
                lambda *case: _unmoved(*case, survivors=True),
            ),
            mutant(
                "A failed attack that moves nothing is no merit: ask for success as well.",
                lambda *case: _unmoved(*case, failures=True),
            ),
            mutant(
                "A measure that rose has moved too: take the absolute value.",
                lambda *case: _unmoved(*case, falls=True),
            ),
            mutant(
                "No measure may move: all four must stand still, not just one.",
                lambda *case: _unmoved(*case, some=True),
            ),
            mutant(
                "Changes can cancel in a sum: look at each measure.",
                lambda *case: _unmoved(*case, cancel=True),
            ),
            mutant(
                "P@k alone is not enough: hits may change places, and NDCG@k moves.",
                lambda k, done, before, after: _unmoved(k, done, before[:, 1:2], after[:, 1:2]),
            ),
        ),
        hints=(
            "Two conditions on each image, then a mean for each k.",
            "`((before - after).abs() < 1e-12).all(1)`: no measure moved.",
            "`k.unique()` is sorted; take the mean of the rows with `k == value`.",
        ),
    ),
)
