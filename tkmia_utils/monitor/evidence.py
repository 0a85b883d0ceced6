"""Bets against "nothing changed", and the detector that adds up what they win.

**Bets.** A bet is a density on [0, 1]: it pays ``e = f(p)``. While the stream is exchangeable with
the calibration, p is uniform given all p-values before it, so the mean of e is 1 (an *e-value*).
The bets used here say what an attack does: a share s of the images is attacked, and an attacked
image lies among the suspicious b of clean ones, ``f(p) = 1 - s + s [p < b] / b``.

**E-detector** (Shin, Ramdas and Rinaldo, *E-detectors: a nonparametric framework for sequential
change detection*, 2023; here of Shiryaev-Roberts type). ``R_t = (1 + R_{t-1}) e_t, R_0 = 0`` sums,
over all moments at which the change may have come, what a bet since then has won. A weighted mean
over bets is again one. ``R_t - t`` is a martingale of mean 0 in the filtration of the watch's own
p-values, and two bounds follow for a stream without change:

1. the first time with ``R >= c`` has mean at least c (optional stopping);
2. ``P(R >= c within the first m images) <= m / c`` (Doob, R is a submartingale), for all m.

**Conditions.** (a) Calibration and stream are exchangeable *together*. (b) Bets are functions of
earlier p-values of the same watch and of what is independent of all of them. Where the suspicious b
lies is learned, but on calibration images that are set apart (:func:`split`): given these, the
others and the stream are still exchangeable. The calibration values that p-values are ranked
against must not be looked at. (c) Images that a watch does not see (they lack its class, or nobody
labelled them) pay e = 1, R grows by 1. Given which images these are the others must be
exchangeable: they are chosen the same way in calibration and stream, for instance by chance.

**Several watches, several classes.** "The mean of e-detectors is an e-detector" holds in *one*
filtration, and conformal p-values of two watches of the same images have none in common: given the
past ranks of both, a rank of the first is in general not uniform. (Watch A is uniform on [0, 1],
watch B is |A - 1/2|, two images are seen, A_1 < A_2 and B_1 > B_2: then A_3 < A_1 has probability
1/6 and not 1/3, since the ranks of B tell where the values of A lie.) An alarm on the mean of
several watches stops by both, and bound 1 does not apply. Bound 2 does, watch by watch: with
thresholds ``c_i = 2 arl / w_i``, weights of sum 1, the union bound gives ``P(alarm within m) <=
m / (2 arl)`` under *any* dependence, and so a mean run length above ``arl``. That is the rule here;
a single watch needs only ``c = arl``. It costs ln 2 more than a mean would, in units of what an
attacked image pays.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.stats import beta

from tkmia_utils.monitor.conformal import Array

Cells = npt.NDArray[np.int64]

# What is bet on: shares of attacked images with their weights, depths for watches of many values.
SHARES = {0.015: 0.2, 0.05: 0.2, 0.15: 0.3, 0.5: 0.3}
DEPTHS = (0.002, 0.006, 0.02, 0.06, 0.2)
SET_ASIDE = 0.3  # share of the calibration images that choose bets and are never ranked
NODES = 15  # values that stand for a depth which is known up to its posterior
LARGEST = 1e300  # evidence stops here, far above every threshold, instead of overflowing


@dataclass(frozen=True)
class Bets:
    """Bets on one watch: densities that are constant in cells of [0, 1].

    Attributes
    ----------
    edges : numpy.ndarray
        float64 ``(M + 1,)``, ascending from 0 to 1.
    heights : numpy.ndarray
        float64 ``(J, M)``: what bet j pays for a p-value in cell m; the integral of a row is 1.
    weights : numpy.ndarray
        float64 ``(J,)``, of sum 1.
    """

    edges: Array
    heights: Array
    weights: Array

    def cells(self, p: Array) -> Cells:
        """In which cell each p-value lies."""
        inside = np.searchsorted(self.edges, p, side="right") - 1
        return np.asarray(np.clip(inside, 0, self.heights.shape[1] - 1))

    def e_values(self, p: Array) -> Array:
        """What every bet pays, ``(..., J)`` for p-values ``(...)``."""
        return np.asarray(self.heights.T[self.cells(p)])


def split(n: int, seed: int) -> tuple[Cells, Cells]:
    """Positions of the calibration images that choose the bets, and of those that are ranked."""
    order = np.random.Generator(np.random.Philox(key=seed + 2**64)).permutation(n)
    apart = round(SET_ASIDE * n)
    return np.sort(order[:apart]), np.sort(order[apart:])


def steps(depths: Sequence[Array], shares: Mapping[float, float]) -> Bets:
    """Bets ``1 - s + s [p < b] / b``, for every share s and every depth b.

    Parameters
    ----------
    depths : sequence of numpy.ndarray
        Each ``(nodes,)`` in (0, 1]: a depth that is not known exactly is given by several values,
        and the bet is the mean over them.
    shares : mapping of float to float
        Share in (0, 1) to its weight; the weights have sum 1.

    Returns
    -------
    Bets
        Depths are of equal weight.
    """
    edges = np.unique(np.concatenate([[0.0, 1.0], *depths]))
    middle = (edges[:-1] + edges[1:]) / 2
    heights = []
    for b in depths:
        attacked = ((middle[:, None] < b) / b).mean(1)
        heights += [1 - s + s * attacked for s in shares]
    table = np.array(heights)
    weights = np.tile(np.array(list(shares.values())) / len(depths), len(depths))
    return Bets(edges, table, weights)


def choose_bets(
    apart: Array,
    *,
    ranked: int,
    levels: Sequence[float] | None = None,
) -> Bets:
    """Bets for a watch, by the values that were set apart.

    A watch of few levels (recall: 0 and 1) has its depths at them: b is the share of clean images
    at a level or below, known up to its posterior (Jeffreys' prior) and to the chance of the
    images ranked against. Any other watch takes :data:`DEPTHS`.

    Parameters
    ----------
    apart : numpy.ndarray
        float64 ``(n,)``, low is suspicious; n may be 0. None of them is ever ranked against.
    ranked : int
        How many calibration values are ranked against.
    levels : sequence of float, optional
        All values the watch can take.

    Returns
    -------
    Bets
        On the shares of attacked images in :data:`SHARES`.
    """
    if levels is None:
        return steps([np.array([b]) for b in DEPTHS], SHARES)
    n, quantiles = len(apart), (np.arange(NODES) + 0.5) / NODES
    known = 1 / (1 / max(n, 1) + 1 / max(ranked, 1))  # of both samples, as one
    depths = []
    for level in sorted(levels)[:-1]:
        share = (np.count_nonzero(apart <= level) + 0.5) / (n + 1)
        nodes = beta(share * (known + 1), (1 - share) * (known + 1)).ppf(quantiles)
        depths.append(np.clip(nodes, 1e-4, 1.0))
    return steps(depths, SHARES)


def thresholds(arl: float, weights: Sequence[float]) -> Array:
    """How high each e-detector must rise, for a mean run length of at least `arl` of all together.

    Parameters
    ----------
    arl : float
        Images between false alarms.
    weights : sequence of float
        One a detector, positive, of sum 1.

    Returns
    -------
    numpy.ndarray
        ``arl`` for a single one, else ``2 arl / w``, see the module.
    """
    w = np.asarray(weights, dtype=np.float64)
    return np.full(1, float(arl)) if len(w) == 1 else 2 * arl / w
