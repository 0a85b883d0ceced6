"""A linear programme that tells whether four printed changes can come from top-k lists.

TkAcc, P@k, AP@k and NDCG@k of an image are four functions of one pattern of right and wrong places.
Their means over images are therefore a point in a polytope, and a change of the means is a
difference of two such points.
"""

import itertools

import numpy as np
from scipy.optimize import linprog

# a number printed with four digits: rounded, half a unit either way, or cut, a whole unit down
ROUNDED, CUT, SLACK = 0.5e-4, 1e-4, 1e-6


def patterns(k: int, *, precision: str = "P@i") -> np.ndarray:
    """Measures of every pattern of right and wrong in k places, ``(2**k, 4)``.

    All attacked images have more than k relevant labels, so every list of k labels is some row.

    Parameters
    ----------
    k : int
        Places.
    precision : {"P@i", "P@k"}
        What AP averages: the usual P@i, or P@k as the paper's Eq. (9) prints it.
    """
    hit = np.array(list(itertools.product([0, 1], repeat=k)), dtype=float)
    usual = precision == "P@i"
    share = np.cumsum(hit, 1) / np.arange(1, k + 1) if usual else hit.mean(1, keepdims=True)
    gain = 1 / np.log2(np.arange(2, k + 2))
    return np.stack(
        [hit.all(1), hit.mean(1), (hit * share).sum(1) / k, hit @ gain / gain.sum()], axis=1
    )


def violation(changes: np.ndarray, k: int, *, precision: str = "P@i") -> float:
    """How far printed changes are from any that n images can have; a linear programme.

    The clean images have one distribution over :func:`patterns`, each method's adversarial images
    another; a change is the difference of the means.

    Parameters
    ----------
    changes : numpy.ndarray
        ``(R, 4)``: rows of one setting, which share the clean images; NaN where a cell is lost.
    k : int
        Of the top k.
    precision : str
        See :func:`patterns`.

    Returns
    -------
    float
        The least error, beyond the last digit's, that the worst cell must have; 0 if possible.
    """
    points = patterns(k, precision=precision)
    size, count = len(points), 1 + len(changes)
    bounds, limits = [], []
    for (i, j), value in np.ndenumerate(changes):
        if np.isnan(value):
            continue
        line = np.zeros(size * count + 1)
        line[:size], line[(i + 1) * size : (i + 2) * size] = points[:, j], -points[:, j]
        down, up = (ROUNDED, CUT) if value >= 0 else (CUT, ROUNDED)
        for sign, limit in ((1, value + up + SLACK), (-1, -(value - down - SLACK))):
            bounds.append(np.append(sign * line[:-1], -1))
            limits.append(limit)
    ones = np.hstack([np.kron(np.eye(count), np.ones(size)), np.zeros((count, 1))])
    cost = np.append(np.zeros(size * count), 1.0)
    answer = linprog(cost, np.array(bounds), limits, ones, np.ones(count), (0, None))
    return max(0.0, float(answer.fun))
