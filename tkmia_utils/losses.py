"""The attacks' objectives as functions of scores, and their gradients written by hand.

Scores and masks are ``(N, C)``; a loss is ``(N,)``, one value an image, without the norm term,
which lives with the optimiser. Gradients with respect to the scores are sparse and known in closed
form; the attack feeds them to ``torch.autograd.grad`` as ``grad_outputs``, so that the graph it
differentiates ends at the scores.
"""

import torch

from tkmia_utils.topk import average_bottom_k, average_top_k
from tkmia_utils.validation import K, check_k, check_mask, check_scores


def _checked(
    scores: torch.Tensor, labels: torch.Tensor, k: K, specified: torch.Tensor | None = None
) -> None:
    check_scores(scores)
    if scores.ndim != 2:
        raise ValueError(f"scores: expected shape (N, C), got {tuple(scores.shape)}")
    check_mask(labels, scores, name="labels")
    check_k(k, low=1, high=scores.shape[-1] - 1, rows=scores.shape[:1])
    if specified is not None:
        check_mask(specified, scores, name="specified")
    # reading a set back from an accelerator would stop the device: there the caller has checked
    if scores.device.type == "cpu":
        if not labels.any(-1).all():
            raise ValueError("labels: a row has no relevant label")
        if specified is not None:
            if not specified.any(-1).all():
                raise ValueError("specified: a row has no specified label")
            if (specified & ~labels).any():
                raise ValueError("specified: S must lie inside Y_p, but a row specifies more")
            if not (labels & ~specified).any(-1).all():
                raise ValueError("specified: a row leaves no other relevant label (Y_p∖S empty)")


def highest(scores: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Largest score among the labels of `mask`, ``(N,)``; -inf where the mask is empty."""
    return scores.masked_fill(~mask, -torch.inf).max(dim=-1).values


def lowest(scores: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Smallest score among the labels of `mask`, ``(N,)``; +inf where the mask is empty."""
    return scores.masked_fill(~mask, torch.inf).min(dim=-1).values


def tkmia(
    scores: torch.Tensor, labels: torch.Tensor, specified: torch.Tensor, k: K
) -> torch.Tensor:
    """TkMIA's objective, Eq. (6) at its optimal lambdas, without the norm.

    ``max_S f - mean(lowest c-k) + mean(top k) - min_{Y_p∖S} f``: the best specified label goes
    down against the many, and the worst other relevant label comes up against the top k.

    Parameters
    ----------
    scores : torch.Tensor
        Floating ``(N, C)``; logits or sigmoid scores.
    labels : torch.Tensor
        Bool ``(N, C)``: Y_p.
    specified : torch.Tensor
        Bool ``(N, C)``: S, a non-empty part of Y_p that leaves at least one other relevant label.
    k : int or torch.Tensor
        1 <= k <= C - 1; one for all rows, or int64 ``(N,)``.

    Returns
    -------
    torch.Tensor
        ``(N,)``.

    Raises
    ------
    ValueError
        Wrong shapes or dtypes, k out of range, or sets that are empty or not nested.
    """
    _checked(scores, labels, k, specified)
    others = labels & ~specified
    exclusion = highest(scores, specified) - average_bottom_k(scores, scores.shape[-1] - k)
    inclusion = average_top_k(scores, k) - lowest(scores, others)
    return exclusion + inclusion


def tkmia_eq6(
    scores: torch.Tensor,
    labels: torch.Tensor,
    specified: torch.Tensor,
    k: K,
    lam1: torch.Tensor | float,
    lam2: torch.Tensor | float,
) -> torch.Tensor:
    """TkMIA's objective as Eq. (6) prints it, with explicit lambdas and without the norm.

    ``lam1 + 1/(c-k) sum_i [max_S f - f_i - lam1]_+
    + lam2 + 1/k sum_j [f_j - min_{Y_p∖S} f - lam2]_+``

    Parameters
    ----------
    scores, labels, specified, k
        As for :func:`tkmia`.
    lam1, lam2 : torch.Tensor or float
        One for all rows, or ``(N,)``. The best ones are order statistics:
        :func:`tkmia_optimal_lambdas`.

    Returns
    -------
    torch.Tensor
        ``(N,)``; never below :func:`tkmia`, and equal to it at the optimal lambdas.

    Raises
    ------
    ValueError
        As for :func:`tkmia`, or a lambda that is neither one nor one a row.
    """
    _checked(scores, labels, k, specified)
    c = scores.shape[-1]
    lam1, lam2 = (
        torch.as_tensor(v, dtype=scores.dtype, device=scores.device) for v in (lam1, lam2)
    )
    for name, lam in (("lam1", lam1), ("lam2", lam2)):
        if lam.shape not in ((), scores.shape[:1]):
            raise ValueError(
                f"{name}: expected one, or one a row ({len(scores)},), got {tuple(lam.shape)}"
            )
    above = highest(scores, specified).unsqueeze(-1) - scores
    below = scores - lowest(scores, labels & ~specified).unsqueeze(-1)
    exclusion = lam1 + (above - lam1.unsqueeze(-1)).clamp_min(0).sum(-1) / (c - k)
    inclusion = lam2 + (below - lam2.unsqueeze(-1)).clamp_min(0).sum(-1) / k
    return exclusion + inclusion


def tkmia_optimal_lambdas(
    scores: torch.Tensor, labels: torch.Tensor, specified: torch.Tensor, k: K
) -> tuple[torch.Tensor, torch.Tensor]:
    """The lambdas that minimise Eq. (6): the (c-k)-th and k-th largest of its differences.

    They are the order statistics of the *un-hinged* differences (Lemma 4.2 drops the inner hinge
    for lambda >= 0), so over all reals the minimum is :func:`tkmia`. The lemma's interval [0, 1]
    holds them only where the differences are in [0, 1]; where S is already excluded lam1 is
    negative, and a lambda clamped at 0 keeps the hinge that the closed form has lost.

    Parameters
    ----------
    scores, labels, specified, k
        As for :func:`tkmia`.

    Returns
    -------
    lam1, lam2 : torch.Tensor
        ``(N,)`` each.

    Raises
    ------
    ValueError
        As for :func:`tkmia`.
    """
    _checked(scores, labels, k, specified)
    order = scores.sort(dim=-1, descending=True).values
    at = torch.as_tensor(k, device=scores.device).expand(scores.shape[:1]).unsqueeze(-1)
    kth, next_one = order.gather(-1, at - 1).squeeze(-1), order.gather(-1, at).squeeze(-1)
    lam1 = highest(scores, specified) - next_one
    lam2 = kth - lowest(scores, labels & ~specified)
    return lam1, lam2


def _one_hot(scores: torch.Tensor, mask: torch.Tensor, *, largest: bool) -> torch.Tensor:
    """1 at the extreme score of the mask, 0 elsewhere, ``(N, C)``."""
    fill = -torch.inf if largest else torch.inf
    filled = scores.masked_fill(~mask, fill)
    at = filled.argmax(dim=-1, keepdim=True) if largest else filled.argmin(dim=-1, keepdim=True)
    return torch.zeros_like(scores).scatter_(-1, at, 1.0)


def _split_means(scores: torch.Tensor, k: K, top: float) -> torch.Tensor:
    """Gradient of ``top * mean(top k) - mean(lowest c-k)``, ``(N, C)``."""
    c = scores.shape[-1]
    k = torch.as_tensor(k, device=scores.device).reshape(-1, 1)
    order = scores.argsort(dim=-1, descending=True, stable=True)
    leading = torch.arange(c, device=scores.device) < k
    k = k.to(scores.dtype)
    weights = torch.where(leading, top / k, -1.0 / (c - k))
    return torch.zeros_like(scores).scatter_(-1, order, weights.expand_as(scores))


def tkmia_gradient(
    scores: torch.Tensor, labels: torch.Tensor, specified: torch.Tensor, k: K
) -> torch.Tensor:
    """Gradient of :func:`tkmia` with respect to the scores.

    +1 at the best specified label, 1/k on the top k, -1/(c-k) on the rest, -1 at the worst other
    relevant label. Nothing is checked: the attack has checked its arguments once.

    Parameters
    ----------
    scores, labels, specified, k
        As for :func:`tkmia`.

    Returns
    -------
    torch.Tensor
        ``(N, C)``, dtype of `scores`; a row sums to 0.
    """
    scores = scores.detach()
    return (
        _one_hot(scores, specified, largest=True)
        + _split_means(scores, k, top=1.0)
        - _one_hot(scores, labels & ~specified, largest=False)
    )


def tkmia_eq6_gradients(
    scores: torch.Tensor,
    labels: torch.Tensor,
    specified: torch.Tensor,
    k: K,
    lam1: torch.Tensor,
    lam2: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Gradients of :func:`tkmia_eq6` with respect to the scores, lam1 and lam2.

    Nothing is checked: the attack has checked its arguments once.

    Parameters
    ----------
    scores, labels, specified, k
        As for :func:`tkmia`.
    lam1, lam2 : torch.Tensor
        ``(N,)``.

    Returns
    -------
    scores_gradient, lam1_gradient, lam2_gradient : torch.Tensor
        ``(N, C)``, ``(N,)`` and ``(N,)``.
    """
    scores, others = scores.detach(), labels & ~specified
    k = torch.as_tensor(k, device=scores.device).to(scores.dtype).expand(len(scores)).unsqueeze(-1)
    above = highest(scores, specified).unsqueeze(-1) - scores
    below = scores - lowest(scores, others).unsqueeze(-1)
    first = (above > lam1.unsqueeze(-1)) / (scores.shape[-1] - k)
    second = (below > lam2.unsqueeze(-1)) / k
    gradient = (
        first.sum(-1, keepdim=True) * _one_hot(scores, specified, largest=True)
        - first
        + second
        - second.sum(-1, keepdim=True) * _one_hot(scores, others, largest=False)
    )
    return gradient, 1 - first.sum(-1), 1 - second.sum(-1)


def tkml_ap_u(scores: torch.Tensor, labels: torch.Tensor, k: K) -> torch.Tensor:
    """TkML-AP-U's objective (Hu et al., 2021): ``max_{Y_p} f - mean(lowest c-k)``.

    Parameters
    ----------
    scores, labels, k
        As for :func:`tkmia`.

    Returns
    -------
    torch.Tensor
        ``(N,)``.

    Raises
    ------
    ValueError
        As for :func:`tkmia`.
    """
    _checked(scores, labels, k)
    return highest(scores, labels) - average_bottom_k(scores, scores.shape[-1] - k)


def tkml_ap_u_gradient(scores: torch.Tensor, labels: torch.Tensor, k: K) -> torch.Tensor:
    """Gradient of :func:`tkml_ap_u` with respect to the scores, ``(N, C)``; nothing is checked."""
    scores = scores.detach()
    return _one_hot(scores, labels, largest=True) + _split_means(scores, k, top=0.0)


def ml_cw_u(
    scores: torch.Tensor, labels: torch.Tensor, *, form: str = "untargeted"
) -> torch.Tensor:
    """ML-CW-U's objective: ``[max_{Y_p} f - min_{not Y_p} f]_+``, or as appendix B.2 prints it.

    Parameters
    ----------
    scores, labels
        As for :func:`tkmia`.
    form : {"untargeted", "printed"}
        "printed" is ``[max_{not Y_p} f - min_{Y_p} f]_+``, whose descent raises relevant labels.

    Returns
    -------
    torch.Tensor
        ``(N,)``.

    Raises
    ------
    ValueError
        As for :func:`tkmia`, or an unknown form.
    """
    _checked(scores, labels, 1)
    if form not in ("untargeted", "printed"):
        raise ValueError(f"form: expected 'untargeted' or 'printed', got {form!r}")
    down = labels if form == "untargeted" else ~labels
    return (highest(scores, down) - lowest(scores, ~down)).clamp_min(0)


def ml_cw_u_gradient(
    scores: torch.Tensor, labels: torch.Tensor, *, form: str = "untargeted"
) -> torch.Tensor:
    """Gradient of :func:`ml_cw_u` with respect to the scores, ``(N, C)``; nothing is checked."""
    scores = scores.detach()
    down = labels if form == "untargeted" else ~labels
    active = (highest(scores, down) > lowest(scores, ~down)).unsqueeze(-1)
    margin = _one_hot(scores, down, largest=True) - _one_hot(scores, ~down, largest=False)
    return torch.where(active, margin, 0.0)
