"""Order statistics of scores: Eq. (1), Lemma 4.1 and Lemma 4.2 of Sun et al. (2023).

Scores are ``(..., C)`` tensors, one row an image; every function works on all rows at once and
keeps the dtype it is given. ``k`` is an int, or an int64 tensor with one k a row.

One rule for ties: a label is *in the top k* unless at least k labels score strictly higher. A
tie across the boundary therefore counts for the label, and against whoever wanted it excluded.
"""

import torch

from tkmia_utils.validation import K, check_k, check_scores


def _leading(scores: torch.Tensor, k: K) -> torch.Tensor:
    """Mask of the first k of C places, ``(C,)`` or ``(..., C)``."""
    k = torch.as_tensor(k, device=scores.device)
    return torch.arange(scores.shape[-1], device=scores.device) < k.unsqueeze(-1)


def kth_largest(scores: torch.Tensor, k: K) -> torch.Tensor:
    """The order statistic f_[k], the k-th largest score of each row.

    Parameters
    ----------
    scores : torch.Tensor
        Floating, shape ``(..., C)``.
    k : int or torch.Tensor
        1 <= k <= C, one for all rows or int64 of shape ``(...)``.

    Returns
    -------
    torch.Tensor
        Shape ``(...)``, dtype of `scores`.

    Raises
    ------
    ValueError
        `scores` not floating, or k out of range.
    """
    check_scores(scores)
    check_k(k, low=1, high=scores.shape[-1], rows=scores.shape[:-1])
    if isinstance(k, int):
        return scores.topk(k, dim=-1).values[..., -1]
    order = scores.sort(dim=-1, descending=True).values
    return order.gather(-1, (k - 1).expand(scores.shape[:-1]).unsqueeze(-1)).squeeze(-1)


def in_top_k(scores: torch.Tensor, k: K) -> torch.Tensor:
    """Which labels are in the top k: those with fewer than k labels strictly above them.

    Parameters
    ----------
    scores : torch.Tensor
        Floating, shape ``(..., C)``.
    k : int or torch.Tensor
        1 <= k <= C.

    Returns
    -------
    torch.Tensor
        Bool, shape ``(..., C)``; more than k entries of a row are set where scores tie with f_[k].

    Raises
    ------
    ValueError
        `scores` not floating, or k out of range.
    """
    return scores >= kth_largest(scores, k).unsqueeze(-1)


def ranks(scores: torch.Tensor) -> torch.Tensor:
    """Rank of every label, 1 for the highest score; tied labels share the best rank.

    Parameters
    ----------
    scores : torch.Tensor
        Floating, shape ``(..., C)``.

    Returns
    -------
    torch.Tensor
        int64, shape ``(..., C)``; ``ranks(scores) <= k`` equals ``in_top_k(scores, k)``.

    Raises
    ------
    ValueError
        `scores` not floating.
    """
    check_scores(scores)
    ascending = scores.sort(dim=-1).values.contiguous()
    above = scores.shape[-1] - torch.searchsorted(ascending, scores.contiguous(), right=True)
    return above + 1


def sum_top_k(scores: torch.Tensor, k: K) -> torch.Tensor:
    """Sum of the k largest scores of each row, the left side of Lemma 4.1.

    Parameters
    ----------
    scores : torch.Tensor
        Floating, shape ``(..., C)``.
    k : int or torch.Tensor
        0 <= k <= C.

    Returns
    -------
    torch.Tensor
        Shape ``(...)``.

    Raises
    ------
    ValueError
        `scores` not floating, or k out of range.
    """
    check_scores(scores)
    check_k(k, low=0, high=scores.shape[-1], rows=scores.shape[:-1])
    order = scores.sort(dim=-1, descending=True, stable=True).values
    # where, not a product: an infinite score outside the top k must not turn into NaN
    return torch.where(_leading(scores, k), order, 0.0).sum(-1)


def average_top_k(scores: torch.Tensor, k: K) -> torch.Tensor:
    """Average of the k largest scores, phi_k of Eq. (1); convex and never below f_[k].

    NaN counts as the largest score: a row that holds one has NaN for its average, at every k.

    Parameters
    ----------
    scores : torch.Tensor
        Floating, shape ``(..., C)``.
    k : int or torch.Tensor
        1 <= k <= C.

    Returns
    -------
    torch.Tensor
        Shape ``(...)``.

    Raises
    ------
    ValueError
        `scores` not floating, or k out of range.
    """
    check_scores(scores)
    check_k(k, low=1, high=scores.shape[-1], rows=scores.shape[:-1])
    return sum_top_k(scores, k) / k


def average_bottom_k(scores: torch.Tensor, k: K) -> torch.Tensor:
    """Average of the k lowest scores: ``-average_top_k(-scores, k)``, NaN for a row with NaN.

    Parameters
    ----------
    scores : torch.Tensor
        Floating, shape ``(..., C)``.
    k : int or torch.Tensor
        1 <= k <= C.

    Returns
    -------
    torch.Tensor
        Shape ``(...)``.

    Raises
    ------
    ValueError
        `scores` not floating, or k out of range.
    """
    check_scores(scores)
    return -average_top_k(-scores, k)


def lemma_objective(scores: torch.Tensor, k: K, lam: torch.Tensor | float) -> torch.Tensor:
    """The braces of Lemma 4.1: ``k lam + sum_i [f_i - lam]_+``.

    Its minimum over lam in [0, 1] is the sum of the k largest scores, for scores in [0, 1].

    Parameters
    ----------
    scores : torch.Tensor
        Floating, shape ``(..., C)``.
    k : int or torch.Tensor
        0 <= k <= C.
    lam : torch.Tensor or float
        Broadcast against the rows: one lambda, one a row ``(...)``, or ``(L,)`` for a single row
        of scores ``(C,)`` to draw the function.

    Returns
    -------
    torch.Tensor
        The broadcast shape of the rows and `lam`.

    Raises
    ------
    ValueError
        `scores` not floating, k out of range, or `lam` of a shape that does not broadcast.
    """
    check_scores(scores)
    check_k(k, low=0, high=scores.shape[-1], rows=scores.shape[:-1])
    lam = torch.as_tensor(lam, dtype=scores.dtype, device=scores.device)
    try:
        torch.broadcast_shapes(lam.shape, scores.shape[:-1])
    except RuntimeError:
        raise ValueError(
            f"lam: expected a shape that fits the rows {tuple(scores.shape[:-1])}, "
            f"got {tuple(lam.shape)}"
        ) from None
    return k * lam + (scores - lam.unsqueeze(-1)).clamp_min(0).sum(-1)


def lemma_minimisers(scores: torch.Tensor, k: K) -> tuple[torch.Tensor, torch.Tensor]:
    """Ends of the flat bottom of :func:`lemma_objective`: every lam in [f_[k+1], f_[k]] is optimal.

    Lemma 4.1 names the upper end, f_[k]. With f_[0] read as 1 and f_[C+1] as 0, the ends of the
    lemma's own interval, the statement also holds for k = 0 and k = C.

    Parameters
    ----------
    scores : torch.Tensor
        Floating, shape ``(..., C)``, in [0, 1] as the lemma assumes.
    k : int or torch.Tensor
        0 <= k <= C.

    Returns
    -------
    low, high : torch.Tensor
        Shape ``(...)`` each.

    Raises
    ------
    ValueError
        `scores` not floating, or k out of range.
    """
    check_scores(scores)
    check_k(k, low=0, high=scores.shape[-1], rows=scores.shape[:-1])
    order = scores.sort(dim=-1, descending=True).values
    one, zero = torch.ones_like(order[..., :1]), torch.zeros_like(order[..., :1])
    padded = torch.cat([one, order, zero], dim=-1)
    at = torch.as_tensor(k, device=scores.device).expand(scores.shape[:-1]).unsqueeze(-1)
    return padded.gather(-1, at + 1).squeeze(-1), padded.gather(-1, at).squeeze(-1)


def nested_hinge(a: torch.Tensor, x: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Left side of Lemma 4.2: ``[[a - x]_+ - b]_+``.

    Parameters
    ----------
    a, x, b : torch.Tensor
        Broadcast together.

    Returns
    -------
    torch.Tensor
        The broadcast shape.
    """
    return ((a - x).clamp_min(0) - b).clamp_min(0)


def single_hinge(a: torch.Tensor, x: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Right side of Lemma 4.2: ``[a - x - b]_+``; equal to :func:`nested_hinge` whenever b >= 0.

    Parameters
    ----------
    a, x, b : torch.Tensor
        Broadcast together.

    Returns
    -------
    torch.Tensor
        The broadcast shape.
    """
    return (a - x - b).clamp_min(0)
