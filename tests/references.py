"""Slow references, written label by label from the paper's equations, and random cases for them."""

import math

import torch


def ranking(scores: list[float], labels: list[bool]) -> list[bool]:
    """Relevance of the labels from best to worst; among equal scores relevant labels come first."""
    pairs = sorted(zip(scores, labels, strict=True), key=lambda pair: (-pair[0], not pair[1]))
    return [relevant for _, relevant in pairs]


def precision(scores: list[float], labels: list[bool], k: int) -> float:
    """Eq. (8)."""
    return sum(ranking(scores, labels)[:k]) / k


def topk_accuracy(scores: list[float], labels: list[bool], k: int) -> float:
    """The tables' accuracy: Y_p inside the top k, or the top k inside Y_p when Y_p is larger."""
    top, rest = ranking(scores, labels)[:k], ranking(scores, labels)[k:]
    return float(any(labels) and (all(top) or not any(rest)))


def topk_accuracy_eq7(scores: list[float], labels: list[bool], k: int) -> float:
    """Eq. (7): no relevant label below the top k."""
    return float(any(labels) and not any(ranking(scores, labels)[k:]))


def average_precision(scores: list[float], labels: list[bool], k: int) -> float:
    """Eq. (9), with P@i at every hit."""
    ranked = ranking(scores, labels)
    found, total = 0, 0.0
    for place, relevant in enumerate(ranked[:k], start=1):
        if relevant:
            found += 1
            total += found / place
    return total / min(k, sum(labels)) if any(labels) else 0.0


def ndcg(scores: list[float], labels: list[bool], k: int) -> float:
    """Eq. (11)."""
    ranked = ranking(scores, labels)
    gain = sum(1 / math.log2(i + 1) for i, hit in enumerate(ranked[:k], start=1) if hit)
    ideal = sum(1 / math.log2(i + 1) for i in range(1, min(k, sum(labels)) + 1))
    return gain / ideal if any(labels) else 0.0


def in_top_k(scores: list[float], k: int) -> list[bool]:
    """Fewer than k labels score strictly higher."""
    return [sum(other > score for other in scores) < k for score in scores]


def delta_l(after: list[float], specified: list[bool], k: int, before: list[float] | None) -> int:
    """Eq. (12) for one image; `before` leaves out labels that never were in the top k."""
    out = [not inside for inside in in_top_k(after, k)]
    was_in = in_top_k(before, k) if before else [True] * len(after)
    return sum(all(row) for row in zip(specified, out, was_in, strict=True))


def eq6(
    scores: list[float],
    labels: list[bool],
    specified: list[bool],
    k: int,
    lam1: float,
    lam2: float,
) -> float:
    """Eq. (6) without the norm, sum by sum."""
    c = len(scores)
    best = max(f for f, s in zip(scores, specified, strict=True) if s)
    worst = min(
        f for f, y, s in zip(scores, labels, specified, strict=True) if y and not s
    )  # fmt: skip
    first = math.fsum(max(best - f - lam1, 0) for f in scores) / (c - k)
    second = math.fsum(max(f - worst - lam2, 0) for f in scores) / k
    return lam1 + lam2 + first + second


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random_scores(n: int, c: int, *, seed: int, tied: bool = False) -> torch.Tensor:
    """float64 ``(n, c)`` in [0, 1]; tied: on a grid of five values, 0 and 1 among them."""
    scores = torch.rand(n, c, generator=generator(seed), dtype=torch.float64)
    return (scores * 4).round() / 4 if tied else scores


def random_labels(n: int, c: int, *, seed: int, share: float = 0.3) -> torch.Tensor:
    """Bool ``(n, c)``; some rows have no label at all, and some have all."""
    labels = torch.rand(n, c, generator=generator(seed)) < share
    labels[:: max(n // 7, 1)] = False
    labels[1 :: max(n // 7, 1)] = True
    return labels


def random_sets(n: int, c: int, *, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Bool (Y_p, S), each ``(n, c)``: S is not empty and leaves another relevant label."""
    draw = generator(seed)
    sizes = torch.randint(2, c + 1, (n, 1), generator=draw)
    part = 1 + (torch.rand(n, 1, generator=draw) * (sizes - 1)).long()
    place = torch.rand(n, c, generator=draw).argsort(-1).argsort(-1)
    return place < sizes, place < part


def random_k(n: int, low: int, high: int, *, seed: int) -> torch.Tensor:
    """int64 ``(n,)`` in [low, high], both ends included."""
    return torch.randint(low, high + 1, (n,), generator=generator(seed))
