"""Which top-k lists are as good as the clean one: the least of them, as hit patterns.

A *hit pattern* says which places of the top k hold a relevant label. Every measure only rises when
a hit moves up or another joins, so the patterns that are good enough are known from the least of
them: those from which no hit can move down by a place, or leave, without a measure falling.
"""

import math
from functools import lru_cache

import numpy as np
import torch

from tkmia_utils.condition.stop import Stop
from tkmia_utils.measures import MEASURES

EXACT_K = 12  # all 2^k patterns are looked at up to here
SLACK = 1e-12  # of a measure's float64 rounding


@lru_cache(maxsize=64)
def _values(k: int, attainable: int) -> np.ndarray:
    """Every measure of all 2^k patterns, ``(measures, 2^k)``; -inf with too many hits.

    Bit i of a pattern's number is place i + 1.
    """
    hits = np.arange(2**k)[:, None] >> np.arange(k) & 1
    found = hits.sum(1)
    # as many relevant labels below the top k as make `attainable` in all
    rest = np.arange(k) < np.maximum(attainable - found, 0)[:, None]
    labels = torch.from_numpy(np.concatenate([hits.astype(bool), rest], axis=1))
    scores = torch.arange(2.0 * k, 0, -1).expand(len(labels), -1)
    table = np.stack([measure(scores, labels, k).numpy() for measure in MEASURES.values()])
    table[:, found > attainable] = -np.inf
    return table


@lru_cache(maxsize=4096)
def least_patterns(
    clean: tuple[bool, ...], attainable: int, stop: Stop
) -> tuple[tuple[int, ...], ...]:
    """Least hit patterns with which none of the stop's measures is lower than on the clean image.

    A list is good enough exactly if, for one of them, its j-th hit stands at that pattern's j-th
    place or higher, for every j.

    Parameters
    ----------
    clean : tuple of bool
        The clean list's hits, k places.
    attainable : int
        ``min(k, |Y_p|)``.
    stop : Stop
        Which measures, and by how much they may fall.

    Returns
    -------
    tuple of tuple of int
        Places of the hits, from 1, rising. Beyond k = 12 they are known for P@k alone; of other
        measures the clean pattern is returned, which is sufficient and not necessary.
    """
    k = len(clean)
    if not stop.measures:
        return ((),)
    if stop.measures == ("P@k",):
        fewest = max(0, math.ceil(sum(clean) - k * (stop.tolerance + SLACK)))
        return (tuple(range(k - fewest + 1, k + 1)),)
    if k > EXACT_K:
        return (tuple(place + 1 for place, hit in enumerate(clean) if hit),)
    rows = [list(MEASURES).index(name) for name in stop.measures]
    values = _values(k, attainable)[rows]
    number = sum(1 << place for place, hit in enumerate(clean) if hit)
    enough = values >= values[:, [number]] - stop.tolerance - SLACK
    allowed: np.ndarray = np.all(enough, axis=0)
    pattern = np.arange(2**k)
    least = allowed.copy()
    for place in range(k):
        bit, below = 1 << place, 1 << place + 1
        last = place == k - 1
        movable = (pattern & bit > 0) & (last | (pattern & below == 0))
        moved = pattern ^ (bit if last else bit | below)
        least &= ~(movable & allowed[np.where(movable, moved, 0)])
    return tuple(
        tuple(place + 1 for place in range(k) if code >> place & 1)
        for code in pattern[least].tolist()
    )
