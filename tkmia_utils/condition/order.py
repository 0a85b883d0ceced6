"""The labels that a condition speaks of, as ranked by some scores."""

from dataclasses import dataclass

import torch

from tkmia_utils.condition.conditions import Condition, DeepCondition


@dataclass(frozen=True)
class Border:
    """The labels at the end of the top k, for conditions that ask for a gap or for depth.

    Attributes
    ----------
    last, first : torch.Tensor
        int64 ``(N,)``: the k-th label outside T, and the highest of all that are not above it. Once
        T is hidden they are those at ranks k and k + 1.
    deep : torch.Tensor
        Bool ``(N, C)``: the highest labels outside T, as many as must be above T.
    gap : torch.Tensor
        float64 ``(N,)``: the least gap that is asked for; 0 for none.
    """

    last: torch.Tensor
    first: torch.Tensor
    deep: torch.Tensor
    gap: torch.Tensor


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
        int64 ``(N,)``: the two labels whose scores decide whether T is hidden: the k-th outside T
        (of a :class:`DeepCondition` the `depth`-th) and the highest of T.
    relevant, irrelevant : torch.Tensor
        int64 ``(N, K)``: labels outside T from the highest down; where a row has fewer, some label.
    r, n : torch.Tensor
        ``(N, K)``: their scores; -inf where a row has fewer.
    border : Border or None
        Of a :class:`DeepCondition`.
    """

    hidden: torch.Tensor
    top: torch.Tensor
    lowest_top: torch.Tensor
    highest_hidden: torch.Tensor
    relevant: torch.Tensor
    irrelevant: torch.Tensor
    r: torch.Tensor
    n: torch.Tensor
    border: Border | None = None


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
    count = torch.arange(scores.shape[-1], device=scores.device)

    def highest(many: torch.Tensor) -> torch.Tensor:
        leading = count < many[:, None]
        return torch.zeros_like(hidden).scatter_(-1, places, leading.expand_as(hidden))

    def at_place(place: torch.Tensor) -> torch.Tensor:
        return places.gather(-1, place[:, None] - 1).squeeze(-1)

    top, lowest_top, border = highest(condition.k), at_place(condition.k), None
    if isinstance(condition, DeepCondition):
        # where there are too few others the label is one of T, and the condition fails
        depth, last = condition.depth.clamp_max(scores.shape[-1]), lowest_top
        first = scores.masked_fill(top, low).argmax(-1)
        lowest_top, border = at_place(depth), Border(last, first, highest(depth), condition.gap)
    deepest = condition.above.shape[-1]

    def ranked(mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        values, labels = scores.masked_fill(~mask, low).topk(min(deepest, mask.shape[-1]), -1)
        return values, labels

    r, relevant = ranked(condition.labels & ~hidden)
    n, irrelevant = ranked(~condition.labels)
    return Order(
        hidden=hidden,
        top=top,
        lowest_top=lowest_top,
        highest_hidden=scores.masked_fill(~hidden, low).argmax(-1),
        relevant=relevant,
        irrelevant=irrelevant,
        r=r,
        n=n,
        border=border,
    )
