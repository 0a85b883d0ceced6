"""The condition under which an attack has succeeded, as differences of two scores each.

Let T be the delta lowest labels of S, r_j the j-th highest score of the relevant labels outside T,
and n_q the q-th highest of the irrelevant ones. T is hidden exactly if the k-th highest score
outside T is above the highest in T. Then no measure has fallen exactly if, for one of the least
hit patterns p_1 < .. < p_H, ``r_j >= n_(p_j - j + 1)`` for every j: the j-th hit has at most
p_j - j irrelevant labels above it. Ties follow the rule of the house: they count for the relevant
label, and against whoever wants a label hidden.

Taking the lowest of S for T gives the largest differences, so that nothing is lost by it.
"""

from dataclasses import dataclass

import torch

from tkmia_utils.condition.patterns import least_patterns
from tkmia_utils.condition.stop import Stop, as_stop
from tkmia_utils.measures import hits_at_k
from tkmia_utils.validation import K, check_k, check_mask, check_scores, is_int

NOTHING, NO_PATTERN = 0, -1  # entries of `Condition.above` that are no rank


@dataclass(frozen=True)
class Condition:
    """What success asks of the scores, one row an image.

    Attributes
    ----------
    labels, specified : torch.Tensor
        Bool ``(N, C)``: Y_p and S.
    k, delta : torch.Tensor
        int64 ``(N,)``.
    above : torch.Tensor
        int64 ``(N, P, K)``: by the p-th least pattern, the (j+1)-th highest relevant label must
        not be lower than the ``above[p, j]``-th highest irrelevant one; 0: nothing is asked, -1:
        there is no such pattern.
    """

    labels: torch.Tensor
    specified: torch.Tensor
    k: torch.Tensor
    delta: torch.Tensor
    above: torch.Tensor

    @property
    def feasible(self) -> torch.Tensor:
        """Bool ``(N,)``: can any scores at all meet it?"""
        room = self.labels.shape[-1] - self.delta >= self.k
        return room & (self.above != NO_PATTERN).all(-1).any(-1)


def condition(
    clean_scores: torch.Tensor,
    labels: torch.Tensor,
    specified: torch.Tensor,
    k: K,
    *,
    delta: int | torch.Tensor | None = None,
    stop: str | Stop = "imperceptible",
) -> Condition:
    """Say what success asks for, from the clean scores.

    Parameters
    ----------
    clean_scores : torch.Tensor
        Floating ``(N, C)``, no NaN; infinite scores that tie are not told apart.
    labels, specified : torch.Tensor
        Bool ``(N, C)``: Y_p, and S inside it.
    k : int or torch.Tensor
        1 <= k <= C - 1; one for all rows, or int64 ``(N,)``.
    delta : int or torch.Tensor, optional
        How many of S must be out of the top k; default all.
    stop : str or Stop
        A key of :data:`STOPS`, or a :class:`Stop`.

    Returns
    -------
    Condition
        Exact up to k = 12, beyond that sufficient (see :func:`least_patterns`). Rows that no scores
        can meet have :attr:`Condition.feasible` False: every pattern needs more hits than there are
        relevant labels outside T, or fewer than k labels are outside T.

    Raises
    ------
    ValueError
        Wrong shapes or dtypes, NaN, k or delta out of range, S not inside Y_p.
    """
    stop = as_stop(stop)
    check_scores(clean_scores, name="clean_scores", finite=True)
    if clean_scores.ndim != 2:
        raise ValueError(f"clean_scores: expected shape (N, C), got {tuple(clean_scores.shape)}")
    check_mask(labels, clean_scores, name="labels")
    check_mask(specified, clean_scores, name="specified")
    n, classes = clean_scores.shape
    check_k(k, low=1, high=classes - 1, rows=clean_scores.shape[:1])
    if bool((specified & ~labels).any()):
        raise ValueError("specified: S must lie inside Y_p, but a row specifies more")
    size, device = specified.sum(-1), clean_scores.device
    k = torch.as_tensor(k, device=device).expand(n)
    if delta is None:
        delta = size
    elif isinstance(delta, torch.Tensor):
        if delta.dtype != torch.int64 or delta.shape not in ((), (n,)):
            raise ValueError(f"delta: expected an int, or int64 of shape ({n},), one a row")
        delta = delta.to(device).expand(n)
    elif not is_int(delta):
        raise ValueError(f"delta: expected an int or an int64 tensor, got {delta!r}")
    else:
        delta = torch.full((n,), delta, device=device)
    if bool(((delta < 1) | (delta > size)).any()):
        raise ValueError("delta: expected 1 <= delta <= |S| for every row")
    hits = hits_at_k(clean_scores, labels, k).tolist()
    relevant, ks, hidden = labels.sum(-1).tolist(), k.tolist(), delta.tolist()
    rows = []
    for i, kk in enumerate(ks):
        least = least_patterns(tuple(map(bool, hits[i][:kk])), min(kk, relevant[i]), stop)
        rows.append([p for p in least if len(p) <= relevant[i] - hidden[i]])
    most, k_max = max([1, *map(len, rows)]), max(ks, default=1)
    above = torch.full((n, most, k_max), NO_PATTERN)
    for i, patterns in enumerate(rows):
        for j, places in enumerate(patterns):
            ranks = [place - hit for hit, place in enumerate(places)]
            above[i, j] = torch.tensor(ranks + [NOTHING] * (k_max - len(ranks)))
    return Condition(labels, specified, k, delta, above.to(device))


@dataclass(frozen=True)
class Order:
    """The labels that the condition speaks of, as ranked by some scores.

    Attributes
    ----------
    hidden : torch.Tensor
        Bool ``(N, C)``: T, the delta lowest labels of S.
    top : torch.Tensor
        Bool ``(N, C)``: the k highest labels outside T.
    lowest_top, highest_hidden : torch.Tensor
        int64 ``(N,)``: the two labels whose scores decide whether T is hidden.
    relevant, irrelevant : torch.Tensor
        int64 ``(N, K)``: labels outside T from the highest down; where a row has fewer, some label.
    r, n : torch.Tensor
        ``(N, K)``: their scores; -inf where a row has fewer.
    """

    hidden: torch.Tensor
    top: torch.Tensor
    lowest_top: torch.Tensor
    highest_hidden: torch.Tensor
    relevant: torch.Tensor
    irrelevant: torch.Tensor
    r: torch.Tensor
    n: torch.Tensor


def order(scores: torch.Tensor, condition: Condition) -> Order:
    """Rank the labels of each row; nothing is checked.

    Parameters
    ----------
    scores : torch.Tensor
        Floating ``(N, C)``.
    condition : Condition
        Of N rows.

    Returns
    -------
    Order
    """
    low, high = -torch.inf, torch.inf
    specified = scores.masked_fill(~condition.specified, high)
    rank = specified.argsort(dim=-1, stable=True).argsort(dim=-1, stable=True)
    hidden = condition.specified & (rank < condition.delta[:, None])
    outside = scores.masked_fill(hidden, low)
    places = outside.argsort(dim=-1, descending=True, stable=True)
    leading = torch.arange(scores.shape[-1], device=scores.device) < condition.k[:, None]
    top = torch.zeros_like(hidden).scatter_(-1, places, leading.expand_as(hidden))
    deepest = condition.above.shape[-1]

    def ranked(mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        values, labels = scores.masked_fill(~mask, low).topk(min(deepest, mask.shape[-1]), -1)
        return values, labels

    r, relevant = ranked(condition.labels & ~hidden)
    n, irrelevant = ranked(~condition.labels)
    return Order(
        hidden=hidden,
        top=top,
        lowest_top=places.gather(-1, condition.k[:, None] - 1).squeeze(-1),
        highest_hidden=scores.masked_fill(~hidden, low).argmax(-1),
        relevant=relevant,
        irrelevant=irrelevant,
        r=r,
        n=n,
    )


def gaps(
    scores: torch.Tensor, condition: Condition, *, ranked: Order | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Score differences that the condition asks to be positive; nothing is checked.

    Parameters
    ----------
    scores, condition
        As for :func:`order`.
    ranked : Order, optional
        Of the same scores, if known.

    Returns
    -------
    exclusion : torch.Tensor
        ``(N,)``: the k-th highest score outside T minus the highest in T; must be above 0.
    hits : torch.Tensor
        ``(N, P, K)``: by pattern, ``r_j`` minus the irrelevant score it must reach; must not be
        below 0. inf where nothing is asked, -inf where there is no pattern.
    """
    ranked = ranked or order(scores, condition)

    def at(label: torch.Tensor) -> torch.Tensor:
        return scores.gather(-1, label[:, None]).squeeze(-1)

    above, r, n = condition.above, ranked.r, ranked.n
    rank = (above - 1).clamp(0, n.shape[-1] - 1)
    rival = n[:, None].expand(-1, above.shape[1], -1).gather(-1, rank)
    rival = torch.where(above > n.shape[-1], -torch.inf, rival)
    wide = r.new_full((*r.shape[:-1], above.shape[-1] - r.shape[-1]), -torch.inf)
    hit = torch.cat([r, wide], -1)[:, None]
    # -inf against -inf: there is neither such a label nor such a rival
    difference = torch.where(rival == -torch.inf, torch.inf, hit - rival)
    difference = torch.where(hit == -torch.inf, -torch.inf, difference)
    difference = torch.where(above == NOTHING, torch.inf, difference)
    return at(ranked.lowest_top) - at(ranked.highest_hidden), torch.where(
        above == NO_PATTERN, -torch.inf, difference
    )


def margin(scores: torch.Tensor, condition: Condition) -> torch.Tensor:
    """How far the condition is from failing: the worst difference of the best pattern.

    Parameters
    ----------
    scores, condition
        As for :func:`order`.

    Returns
    -------
    torch.Tensor
        ``(N,)``: positive exactly where the condition holds. A tie between a relevant and an
        irrelevant label counts for the former: it gives the least positive number, not 0.

    Raises
    ------
    ValueError
        Scores of another shape, or not floating.
    """
    check_scores(scores)
    if scores.shape != condition.labels.shape:
        wanted, got = tuple(condition.labels.shape), tuple(scores.shape)
        raise ValueError(f"scores: expected shape {wanted}, got {got}")
    exclusion, hits = gaps(scores, condition)
    hits = torch.where(hits == 0, torch.finfo(hits.dtype).tiny, hits)
    return torch.minimum(exclusion, hits.amin(-1).amax(-1))


def holds(scores: torch.Tensor, condition: Condition) -> torch.Tensor:
    """Where the attack has succeeded, bool ``(N,)``; never on scores with NaN.

    Parameters
    ----------
    scores, condition
        As for :func:`margin`.

    Raises
    ------
    ValueError
        As for :func:`margin`.
    """
    return (margin(scores, condition) > 0) & ~scores.isnan().any(-1)


def worst_pair(
    scores: torch.Tensor, condition: Condition, *, ranked: Order | None = None
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The two labels whose difference is the margin, and the pattern that it belongs to.

    The margin's gradient is +1 at the first, -1 at the second. Nothing is checked.

    Parameters
    ----------
    scores, condition, ranked
        As for :func:`gaps`.

    Returns
    -------
    up, down, pattern : torch.Tensor
        int64 ``(N,)`` each; `pattern` counts along the axis P of :attr:`Condition.above`.
    """
    ranked = ranked or order(scores, condition)
    exclusion, hits = gaps(scores, condition, ranked=ranked)
    worst, j = hits.min(-1)
    best, pattern = worst.max(-1)
    j = j.gather(-1, pattern[:, None])
    rank = (_asked_ranks(condition, pattern).gather(-1, j) - 1).clamp(
        0, ranked.irrelevant.shape[-1] - 1
    )
    j = j.clamp_max(ranked.relevant.shape[-1] - 1)
    hit = ranked.relevant.gather(-1, j).squeeze(-1)
    rival = ranked.irrelevant.gather(-1, rank).squeeze(-1)
    hides = exclusion <= best
    return (
        torch.where(hides, ranked.lowest_top, hit),
        torch.where(hides, ranked.highest_hidden, rival),
        pattern,
    )


def asked(
    ranked: Order,
    condition: Condition,
    pattern: torch.Tensor,
    up: torch.Tensor,
    down: torch.Tensor,
) -> torch.Tensor:
    """Which pairs of labels the condition asks to be ordered so; nothing is checked.

    The ranking fixes T, the k labels outside it and the hits, and a pattern how many irrelevant
    labels each hit may leave above it: from there on the condition is a system of differences.

    Parameters
    ----------
    ranked, condition
        Of the same N rows.
    pattern : torch.Tensor
        int64 ``(N,)``, from :func:`worst_pair`.
    up, down : torch.Tensor
        int64 ``(N, M)``: is `up` asked to be above `down`?

    Returns
    -------
    torch.Tensor
        Bool ``(N, M)``.
    """
    deep = condition.above.shape[-1]
    above = _asked_ranks(condition, pattern)
    hides = ranked.top.gather(-1, up) & ranked.hidden.gather(-1, down)
    # place of `up` among the hits and of `down` among the irrelevant labels, from 1; deep if none
    far = deep + 1

    def place(labels: torch.Tensor, label: torch.Tensor, there: torch.Tensor) -> torch.Tensor:
        same = labels[:, None] == label[..., None]
        found = torch.where(same, torch.arange(labels.shape[-1], device=label.device) + 1, far)
        return torch.where(there.gather(-1, label), found.amin(-1), 0)

    hit = place(ranked.relevant, up, condition.labels & ~ranked.hidden)
    rival = place(ranked.irrelevant, down, ~condition.labels)
    # hit h stands among the first j for every j >= h, and rival l at or below n_q for every q <= l
    j = torch.arange(deep, device=up.device) + 1
    covers = (above > 0)[:, None] & (j >= hit[..., None]) & (above[:, None] <= rival[..., None])
    return hides | (covers.any(-1) & (hit > 0) & (rival > 0))


def _asked_ranks(condition: Condition, pattern: torch.Tensor) -> torch.Tensor:
    """What one pattern a row asks for, int64 ``(N, K)``."""
    return condition.above[torch.arange(len(pattern), device=pattern.device), pattern]
