"""The condition under which an attack has succeeded, as differences of two scores each.

Let T be the delta lowest labels of S, r_j the j-th highest score of the relevant labels outside T,
and n_q the q-th highest of the irrelevant ones. T is hidden exactly if the k-th highest score
outside T is above the highest in T. Then no measure has fallen exactly if, for one of the least
hit patterns p_1 < .. < p_H, ``r_j >= n_(p_j - j + 1)`` for every j: the j-th hit has at most
p_j - j irrelevant labels above it. Ties follow the rule of the house: they count for the relevant
label, and against whoever wants a label hidden.

Taking the lowest of S for T gives the largest differences, so that nothing is lost by it.

A :class:`DeepCondition` asks for more: T is below the (k + below)-th highest score outside T, and
f_[k] - f_[k+1] of all labels is at least g. With T hidden that says that each of the k highest
labels outside T is at least g above all the rest; a difference of just g is enough.
"""

import torch

from tkmia_utils.condition.conditions import NO_PATTERN, NOTHING, Condition
from tkmia_utils.condition.order import Border, Order, order
from tkmia_utils.validation import check_scores


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
        ``(N,)``: the k-th highest score outside T (of a :class:`DeepCondition` the `depth`-th)
        minus the highest in T; must be above 0.
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


def excess(scores: torch.Tensor, border: Border) -> torch.Tensor:
    """By how much ``f_[k] - f_[k+1]`` is larger than what is asked for; nothing is checked.

    Parameters
    ----------
    scores : torch.Tensor
        Floating ``(N, C)``.
    border : Border
        Of :func:`order` of the same scores.

    Returns
    -------
    torch.Tensor
        float64 ``(N,)``, so that its sign is exact for scores of fewer bits; must not be below 0.
        inf where nothing is asked.
    """
    last, first = (scores.gather(-1, x[:, None]).squeeze(-1) for x in (border.last, border.first))
    apart = last.double() - first.double()
    return torch.where(border.gap > 0, apart - border.gap, torch.inf)


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
        irrelevant label counts for the former: it gives the least positive number, not 0. So does
        a gap that is just as large as asked.

    Raises
    ------
    ValueError
        Scores of another shape, or not floating.
    """
    check_scores(scores)
    if scores.shape != condition.labels.shape:
        wanted, got = tuple(condition.labels.shape), tuple(scores.shape)
        raise ValueError(f"scores: expected shape {wanted}, got {got}")
    ranked = order(scores, condition)
    exclusion, hits = gaps(scores, condition, ranked=ranked)
    tiny = torch.finfo(hits.dtype).tiny
    hits = torch.where(hits == 0, tiny, hits)
    least = torch.minimum(exclusion, hits.amin(-1).amax(-1))
    if ranked.border is None:
        return least
    spare = excess(scores, ranked.border)
    # in fewer bits a small number may become 0, and must not change its sign
    fewer = spare.to(least.dtype)
    fewer = torch.where(spare >= 0, fewer.clamp_min(tiny), fewer.clamp_max(-tiny))
    return torch.minimum(least, fewer)


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

    The margin's gradient is +1 at the first, -1 at the second. Of a gap that is asked for, the
    margin is their difference less that gap. Nothing is checked.

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
    up = torch.where(hides, ranked.lowest_top, hit)
    down = torch.where(hides, ranked.highest_hidden, rival)
    if ranked.border is not None:
        least = torch.minimum(exclusion, best).double()
        apart = excess(scores, ranked.border) < least
        up = torch.where(apart, ranked.border.last, up)
        down = torch.where(apart, ranked.border.first, down)
    return up, down, pattern


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
    border = ranked.border
    top = ranked.top if border is None else border.deep
    hides = top.gather(-1, up) & ranked.hidden.gather(-1, down)
    if border is not None:
        hides |= targets(ranked, border, up, down) > 0
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


def targets(ranked: Order, border: Border, up: torch.Tensor, down: torch.Tensor) -> torch.Tensor:
    """By how much `up` is asked to be above `down`, if it is asked to be; nothing is checked.

    Parameters
    ----------
    ranked, border
        Of N rows; `border` is ``ranked.border``.
    up, down : torch.Tensor
        int64 ``(N, M)``.

    Returns
    -------
    torch.Tensor
        float64 ``(N, M)``: the gap asked for where `up` is in the top k and `down` is not, else 0.
    """
    across = ranked.top.gather(-1, up) & ~ranked.top.gather(-1, down)
    return torch.where(across, border.gap[:, None], 0.0)


def _asked_ranks(condition: Condition, pattern: torch.Tensor) -> torch.Tensor:
    """What one pattern a row asks for, int64 ``(N, K)``."""
    return condition.above[torch.arange(len(pattern), device=pattern.device), pattern]
