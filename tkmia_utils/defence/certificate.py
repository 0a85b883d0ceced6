r"""A certificate that one chosen label stays in the top k of the smoothed classifier.

MultiGuard (Jia, Qu and Gong, NeurIPS 2022) certifies *how many* relevant labels stay in the top k
under any small perturbation, not which. Here it is one label s, chosen beforehand: with probability
at least 1 - alpha over the noise draws, s stays under *every* perturbation of L2 norm <= r.

**Lemma** (Cohen, Rosenfeld and Kolter, ICML 2019). For a function h with values in [0, 1] and
p = E h(x + e), e ~ N(0, sigma^2 I), every d of norm <= r has
``E h(x + d + e) >= Phi(Phi^-1(p) - r / sigma)``. It is an equality for a half-space h, against d.

**Contests.** T is the set of k labels that a draw votes for. A contest of s with a set W of other
labels for m places looks at the difference

.. math:: g = m [s \in T] - \min(m, |T \cap W|), \qquad -m \le g \le m.

*If E g >= 0 at some image, fewer than m labels of W are ranked strictly above s there.* For if a
set A of m labels of W had p_j > p_s each, then ``m p_s < sum_A p_j = E |T ∩ A|``, which is at most
``E min(m, |T ∩ W|)``, so that E g < 0.

**Transport.** g is an integer, so ``E g = -m + sum_{t = 1 - m}^{m} P(g >= t)``. Each of the 2m
probabilities obeys the lemma. With lower bounds ``P(g >= t) >= q_t`` at x, E g >= 0 for all d with

.. math:: \sum_t \Phi(\Phi^{-1}(q_t) - r / \sigma) \ge m ,

whose left side falls in r; :func:`contest_radius` solves for r. The events are nested, and where
they are parallel half-spaces nothing is lost. For m = 1 and W = {j} this is a duel:
``r = sigma / 2 (Phi^-1(a) - Phi^-1(b))`` with a the chance that s alone of both is in T and b that
j alone is. Draws with both or neither do not count. That is never weaker than to bound p_s from
below and p_j from above: some model with the same p_s and p_j attains the duel's bound.

**Theorem.** Concede c labels, and let disjoint sets W_1, W_2, ... that hold all others each have a
contest for m_i places. If ``c + sum_i (m_i - 1) <= k - 1`` then s stays in the top k within the
least of the contests' radii. *Proof.* Within it at most m_i - 1 labels of W_i are above s, and with
the c conceded ones that is at most k - 1 in all. ∎

Known certificates are corners of it: c = k - 1 and duels are MultiGuard's comparison with the k-th
rival; one contest with all other labels for m = k places has g = 1 or g = -k as s is in T or not,
and says that s stays while ``p_s >= k / (k + 1)``, which for k = 1 is Cohen's rule.

**Confidence.** Which labels are conceded, which are grouped and which probabilities are bounded is
decided on the first `choosing` draws. The other draws, independent of them, give each of the J
probabilities an exact lower bound (Clopper and Pearson) at level alpha / J, so that by the union
bound all hold together with probability 1 - alpha. A probability left out takes the bound of the
next higher t, or 0: both are valid because the events are nested. The label must have been chosen
without a look at these draws. Several labels: the statements hold together at the sum of their
alphas; that not all of S leave the top k holds within the largest radius of its labels.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from scipy.special import betaincinv, ndtr, ndtri

from tkmia_utils.defence.smoothing import Smoothing, places_of

Array = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]
STEPS = 60  # of the bisection, from a bracket of less than 30 sigma
BEYOND = 9.0  # sigmas after which Phi(-x) adds nothing to a sum


@dataclass(frozen=True)
class Contest:
    """What is shown of a set W of rivals: fewer than `places` of them get above s.

    Attributes
    ----------
    rivals : tuple of int
        W.
    places : int
        m.
    counted : tuple of bool
        2m entries: for which t = 1 - m, ..., m a bound on P(g >= t) is made from the draws.
    """

    rivals: tuple[int, ...]
    places: int
    counted: tuple[bool, ...]


def certified_radius(
    votes: torch.Tensor, label: torch.Tensor, *, smoothing: Smoothing
) -> torch.Tensor:
    """L2 norm up to which no perturbation moves a chosen label out of the smoothed top k.

    Parameters
    ----------
    votes : torch.Tensor
        Bool ``(N, draws, C)``, from :func:`tkmia_utils.defence.smoothing.votes` on clean images.
    label : torch.Tensor
        int64 ``(N,)``: s, chosen without a look at these votes.
    smoothing : Smoothing
        The one that the votes were made with.

    Returns
    -------
    torch.Tensor
        float64 ``(N,)``, in pixels in [0, 1]; 0 where nothing could be shown. Each is wrong with
        probability at most alpha.

    Raises
    ------
    ValueError
        Votes that are not those of `smoothing`, labels of the wrong dtype, shape or range, or
        k = C.
    """
    k = places_of(votes)
    n, draws, classes = votes.shape
    if draws != smoothing.draws:
        raise ValueError(f"votes: expected {smoothing.draws} draws an image, got {draws}")
    if not isinstance(label, torch.Tensor) or label.dtype != torch.int64 or label.shape != (n,):
        raise ValueError(f"label: expected an int64 torch.Tensor of shape ({n},)")
    if ((label < 0) | (label >= classes)).any():
        raise ValueError(f"label: expected 0 to {classes - 1}, got {int(label.max())}")
    if ((k < 1) | (k >= classes)).any():
        raise ValueError(f"votes: expected 1 to {classes - 1} labels a vote")
    rows = [
        _radius(row, s, places, smoothing)
        for row, s, places in zip(votes.cpu().numpy(), label.tolist(), k.tolist(), strict=True)
    ]
    return torch.tensor(rows, dtype=torch.float64)


def _radius(votes: Mask, s: int, k: int, smoothing: Smoothing) -> float:
    first, rest = votes[: smoothing.choosing], votes[smoothing.choosing :]
    if not first[:, s].any():
        return 0.0
    contests = choose_contests(first, s, k, draws=len(rest), alpha=smoothing.alpha)
    events = max(1, sum(sum(contest.counted) for contest in contests))
    radii = []
    for contest in contests:
        rivals = rest[:, list(contest.rivals)].sum(1)
        counts = tail_counts(rest[:, s], rivals, contest.places)
        lower = tail_bounds(counts, np.array(contest.counted), len(rest), smoothing.alpha / events)
        radii.append(float(contest_radius(lower, sigma=smoothing.sigma)))
    return min(radii)


def tail_counts(shown: Mask, rivals: Counts, places: int) -> Counts:
    """How many draws have ``g >= t``, for t = 1 - m, ..., m.

    Parameters
    ----------
    shown : numpy.ndarray
        Bool ``(n,)``: is s among the draw's votes?
    rivals : numpy.ndarray
        int64 ``(n, ...)``: how many of W are.
    places : int
        m.

    Returns
    -------
    numpy.ndarray
        int64 ``(..., 2m)``, falling along the last axis.
    """
    own = places * shown.astype(np.int64)
    g = own.reshape(-1, *[1] * (rivals.ndim - 1)) - np.minimum(places, rivals)
    return np.asarray((g[..., None] >= np.arange(1 - places, places + 1)).sum(0))


def lower_bound(counts: npt.ArrayLike, draws: int, level: npt.ArrayLike) -> Array:
    """Exact one-sided lower bound on a probability (Clopper and Pearson, 1934).

    Parameters
    ----------
    counts : array_like
        How often it came, 0 <= counts <= draws; broadcast against `level`.
    draws : int
        Independent draws.
    level : array_like
        Chance that the bound is above the probability.

    Returns
    -------
    numpy.ndarray
        float64; 0 for a count of 0.
    """
    x = np.asarray(counts, dtype=np.float64)
    found = betaincinv(np.maximum(x, 1e-9), draws - x + 1, level)
    return np.asarray(np.where(x > 0, found, 0.0))


def tail_bounds(counts: npt.ArrayLike, counted: Mask, draws: int, level: npt.ArrayLike) -> Array:
    """Lower bounds on ``P(g >= t)``, each at `level` where it is counted.

    Parameters
    ----------
    counts : array_like
        ``(..., 2m)``.
    counted : numpy.ndarray
        Bool ``(..., 2m)``; elsewhere the bound of the next higher t, or 0.
    draws : int
        Of the counts.
    level : array_like
        Broadcast against the counts.

    Returns
    -------
    numpy.ndarray
        float64 ``(..., 2m)``, falling along the last axis.
    """
    bounds = np.where(counted, lower_bound(counts, draws, level), 0.0)
    return np.asarray(np.maximum.accumulate(bounds[..., ::-1], axis=-1)[..., ::-1])


def contest_radius(tails: npt.ArrayLike, *, sigma: float) -> Array:
    """Largest r at which ``sum_t Phi(Phi^-1(q_t) - r / sigma) >= m``.

    Parameters
    ----------
    tails : array_like
        ``(..., 2m)``: q_t for t = 1 - m, ..., m, lower bounds on (or values of) P(g >= t).
    sigma : float
        Of the noise.

    Returns
    -------
    numpy.ndarray
        float64 ``(...)``: 0 where it does not hold at r = 0, inf where m of them are 1.
    """
    z = ndtri(np.asarray(tails, dtype=np.float64))
    places = z.shape[-1] // 2
    low = np.zeros(z.shape[:-1])
    high = np.where(np.isfinite(z), z, 0.0).max(-1).clip(0) + BEYOND
    for _ in range(STEPS):
        middle = (low + high) / 2
        holds = ndtr(z - middle[..., None]).sum(-1) >= places
        low, high = np.where(holds, middle, low), np.where(holds, high, middle)
    return np.asarray(sigma * np.where((z == np.inf).sum(-1) >= places, np.inf, low))


def choose_contests(votes: Mask, s: int, k: int, *, draws: int, alpha: float) -> list[Contest]:
    """Choose the contests that promise the largest radius, from draws that are not used again.

    Rivals are put in order, the most dangerous first. Considered are all plans that concede the
    first c < k, group the next w >= k - c for ``m = k - c`` places, and let each of the others
    have a duel; those that never got a vote have one contest together.

    Parameters
    ----------
    votes : numpy.ndarray
        Bool ``(n, C)``, each row with k votes.
    s, k : int
        The label, and the votes a draw.
    draws : int
        How many draws the proof will have.
    alpha : float
        To be shared out among its bounds.

    Returns
    -------
    list of Contest
    """
    n, classes = votes.shape
    shown = votes[:, s]

    def promised(counts: Counts, counted: Mask, level: npt.ArrayLike) -> Array:
        # half a draw for and against, so that 0 of few does not promise 0 of many
        expected = (counts + 0.5) / (n + 1) * draws
        return contest_radius(tail_bounds(expected, counted, draws, level), sigma=1.0)

    others = np.delete(np.arange(classes), s)
    duels = tail_counts(shown, votes[:, others].astype(np.int64), 1)
    order = np.argsort(promised(duels, _new(duels), alpha / classes), kind="stable")
    others, duels = others[order], duels[order]
    seen = votes[:, others].any(0)
    last = int(np.flatnonzero(seen).max(initial=-1)) + 1  # behind it only labels without a vote
    price = np.where(np.arange(len(others)) < last, _new(duels).sum(-1), 0)
    together = np.where(np.arange(len(others) + 1) < len(others), 2, 0)  # the last contest's
    behind = np.append(price[::-1].cumsum()[::-1], 0) + together
    before = np.pad(votes[:, others].cumsum(1, dtype=np.int64), ((0, 0), (1, 0)))
    best, plan = -1.0, (0, 0)
    for conceded in range(k):
        places = k - conceded
        ends = np.arange(conceded + places, len(others) + 1)
        group = tail_counts(shown, before[:, ends] - before[:, [conceded]], places)
        level = alpha / np.maximum(1, _new(group).sum(-1) + behind[ends])[:, None]
        radii = promised(group, _new(group), level)
        single = promised(duels[None], _new(duels)[None], level[:, None])
        outside = np.arange(len(others)) >= ends[:, None]
        radii = np.minimum(radii, np.where(outside, single, np.inf).min(1))
        if radii.max() > best:
            best, plan = float(radii.max()), (conceded, int(ends[radii.argmax()]))
    conceded, end = plan
    sets = [(others[conceded:end], k - conceded)]
    sets += [(others[[i]], 1) for i in range(end, last)]
    sets += [(others[max(end, last) :], 1)] if max(end, last) < len(others) else []
    contests = []
    for rivals, places in sets:
        counted = _new(tail_counts(shown, votes[:, rivals].sum(1), places))
        contests.append(Contest(tuple(rivals.tolist()), places, tuple(counted.tolist())))
    return contests


def _new(counts: Counts) -> Mask:
    """Which events came more often than the next, rarer one: only these are worth a bound."""
    following = np.concatenate([counts[..., 1:], np.zeros_like(counts[..., :1])], axis=-1)
    return np.asarray(counts > following)
