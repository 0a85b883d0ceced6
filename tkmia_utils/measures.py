"""What the owner of a top-k classifier watches: TkAcc, P@k, AP@k, NDCG@k, and the attack's Delta l.

Every ranking measure takes ``(scores, labels, k)`` and returns one float64 value an image, shape
``(N,)``; the mean over images is the figure a table prints (mAP@k is the mean of AP@k, see
:func:`average_precision_at_k`).

Ties: among equal scores relevant labels come first. This is the rule of
:func:`tkmia_utils.topk.in_top_k`, where a tie counts for the label: a specified label that ties
across the k boundary is still in the top k, and counts as a failed exclusion. Rows without relevant
labels score 0 in every measure (as scikit-learn does for NDCG). With k > C the missing places hold
no label: P@k still divides by k, as Eq. (8) prints it.
"""

import math

import torch

from tkmia_utils.topk import in_top_k
from tkmia_utils.validation import K, check_k, check_mask, check_scores


def _checked(scores: torch.Tensor, labels: torch.Tensor, k: K, *, name: str = "labels") -> None:
    check_scores(scores, finite=True)
    if scores.ndim != 2:
        raise ValueError(f"scores: expected shape (N, C), got {tuple(scores.shape)}")
    check_mask(labels, scores, name=name)
    check_k(k, low=1, high=None, rows=scores.shape[:1])


def hits_at_k(scores: torch.Tensor, labels: torch.Tensor, k: K) -> torch.Tensor:
    """y_[i] of Eq. (8): is the i-th ranked label relevant; zero past k.

    Parameters
    ----------
    scores : torch.Tensor
        Floating, shape ``(N, C)``, no NaN.
    labels : torch.Tensor
        Bool, shape ``(N, C)``: Y_p.
    k : int or torch.Tensor
        k >= 1; one for all rows, or int64 of shape ``(N,)``.

    Returns
    -------
    torch.Tensor
        float64 ``(N, C)``, 0 or 1.

    Raises
    ------
    ValueError
        Wrong shapes or dtypes, NaN, or k < 1.
    """
    _checked(scores, labels, k)
    relevant_first = labels.to(torch.int8).argsort(dim=-1, descending=True, stable=True)
    order = scores.gather(-1, relevant_first).argsort(dim=-1, descending=True, stable=True)
    ranked = labels.gather(-1, relevant_first).gather(-1, order)
    places = torch.arange(scores.shape[-1], device=scores.device)
    return (ranked & (places < _column(k, scores))).double()


def _column(k: K, scores: torch.Tensor) -> torch.Tensor:
    return torch.as_tensor(k, device=scores.device).reshape(-1, 1)


def _attainable(labels: torch.Tensor, k: K) -> torch.Tensor:
    """N_k = min(k, |Y_p|) of Eq. (9), ``(N,)``."""
    return torch.minimum(labels.sum(-1), _column(k, labels).squeeze(-1))


def _ratio(part: torch.Tensor, whole: torch.Tensor) -> torch.Tensor:
    """Part / whole, and 0 where there is nothing to find."""
    return torch.where(whole > 0, part / whole.clamp_min(torch.finfo(torch.float64).tiny), 0.0)


def topk_accuracy(scores: torch.Tensor, labels: torch.Tensor, k: K) -> torch.Tensor:
    """Top-k accuracy as the tables use it: the top k holds min(k, |Y_p|) relevant labels.

    This is "Y_p inside the top k" when |Y_p| <= k and "the top k inside Y_p" otherwise. Eq. (7)
    prints only the first half, which no image with more than k labels can meet: see
    :func:`topk_accuracy_eq7`.

    Parameters
    ----------
    scores, labels, k
        As for :func:`hits_at_k`.

    Returns
    -------
    torch.Tensor
        float64 ``(N,)``, 0 or 1.

    Raises
    ------
    ValueError
        As for :func:`hits_at_k`.
    """
    hits, attainable = hits_at_k(scores, labels, k).sum(-1), _attainable(labels, k)
    return ((hits == attainable) & (attainable > 0)).double()


def topk_accuracy_eq7(scores: torch.Tensor, labels: torch.Tensor, k: K) -> torch.Tensor:
    """Top-k accuracy exactly as Eq. (7) prints it: every relevant label is in the top k.

    Parameters
    ----------
    scores, labels, k
        As for :func:`hits_at_k`.

    Returns
    -------
    torch.Tensor
        float64 ``(N,)``, 0 or 1; always 0 where |Y_p| > k.

    Raises
    ------
    ValueError
        As for :func:`hits_at_k`.
    """
    hits, relevant = hits_at_k(scores, labels, k).sum(-1), labels.sum(-1)
    return ((hits == relevant) & (relevant > 0)).double()


def precision_at_k(scores: torch.Tensor, labels: torch.Tensor, k: K) -> torch.Tensor:
    """Precision at k, Eq. (8): the share of relevant labels among the k highest scores.

    Parameters
    ----------
    scores, labels, k
        As for :func:`hits_at_k`.

    Returns
    -------
    torch.Tensor
        float64 ``(N,)`` in [0, 1].

    Raises
    ------
    ValueError
        As for :func:`hits_at_k`.
    """
    return hits_at_k(scores, labels, k).sum(-1) / _column(k, scores).squeeze(-1)


def average_precision_at_k(scores: torch.Tensor, labels: torch.Tensor, k: K) -> torch.Tensor:
    """Average precision at k of each image: ``sum_i y_[i] P@i / min(k, |Y_p|)``.

    Eq. (9) prints P@k inside the sum; its text ("averages the top-k precision performance at
    different recall values") and the reference code mean P@i, the precision at each hit. Eq. (10)
    prints a mean over classes; the tables' mAP@k is the mean of this over images.

    Parameters
    ----------
    scores, labels, k
        As for :func:`hits_at_k`.

    Returns
    -------
    torch.Tensor
        float64 ``(N,)`` in [0, 1].

    Raises
    ------
    ValueError
        As for :func:`hits_at_k`.
    """
    hits = hits_at_k(scores, labels, k)
    places = torch.arange(1, hits.shape[-1] + 1, dtype=torch.float64, device=hits.device)
    return _ratio((hits * hits.cumsum(-1) / places).sum(-1), _attainable(labels, k).double())


def ndcg_at_k(scores: torch.Tensor, labels: torch.Tensor, k: K) -> torch.Tensor:
    """Normalised discounted cumulative gain at k, Eq. (11).

    Parameters
    ----------
    scores, labels, k
        As for :func:`hits_at_k`.

    Returns
    -------
    torch.Tensor
        float64 ``(N,)`` in [0, 1].

    Raises
    ------
    ValueError
        As for :func:`hits_at_k`.
    """
    hits = hits_at_k(scores, labels, k)
    # a sum a row and not a matrix product, a logarithm at a time and not torch's: the last bit of
    # a row must not depend on the rows beside it, or a measure that stands would seem to fall
    gains = [1 / math.log2(place + 1) for place in range(1, hits.shape[-1] + 1)]
    discount = torch.tensor(gains, dtype=torch.float64, device=hits.device)
    places = torch.arange(1, hits.shape[-1] + 1, device=hits.device)
    best = torch.where(places <= _attainable(labels, k).unsqueeze(-1), discount, 0.0).sum(-1)
    return _ratio((hits * discount).sum(-1), best)


def delta_l(
    scores: torch.Tensor, specified: torch.Tensor, k: K, *, before: torch.Tensor | None = None
) -> torch.Tensor:
    """How many specified labels the attack took out of the top k: |S| - |S'| of Eq. (12).

    Parameters
    ----------
    scores : torch.Tensor
        After the attack; floating ``(N, C)``, no NaN.
    specified : torch.Tensor
        Bool ``(N, C)``: S.
    k : int or torch.Tensor
        1 <= k <= C; one for all rows, or int64 of shape ``(N,)``.
    before : torch.Tensor, optional
        Clean scores ``(N, C)``. Given, |S| counts only the specified labels that were in the top
        k to begin with, so that a label which was never there is no merit of the attack.

    Returns
    -------
    torch.Tensor
        float64 ``(N,)``; its mean is the tables' Delta l.

    Raises
    ------
    ValueError
        Wrong shapes or dtypes, NaN, or k out of range.
    """
    _checked(scores, specified, k, name="specified")
    if before is not None:
        check_scores(before, name="before", finite=True)
        if before.shape != scores.shape:
            raise ValueError(
                f"before: expected shape {tuple(scores.shape)}, got {tuple(before.shape)}"
            )
        specified = specified & in_top_k(before, k)
    return (specified & ~in_top_k(scores, k)).sum(-1).double()


def aper(l2: torch.Tensor, success: torch.Tensor | None = None) -> torch.Tensor:
    """Average perturbation, Eq. (13): the mean norm over images, or over the successes only.

    Eq. (13) divides by n; the released code averages over successful images. Both are the same
    where every attack succeeds; a table says which it prints.

    Parameters
    ----------
    l2 : torch.Tensor
        Norms ``(N,)``, no NaN, in whatever unit the caller reports.
    success : torch.Tensor, optional
        Bool ``(N,)``; given, failures are left out.

    Returns
    -------
    torch.Tensor
        float64 scalar; NaN where nothing is left to average.

    Raises
    ------
    ValueError
        Wrong shape or dtype, or NaN.
    """
    check_scores(l2, name="l2", finite=True)
    if l2.ndim != 1:
        raise ValueError(f"l2: expected shape (N,), got {tuple(l2.shape)}")
    if success is not None:
        check_mask(success, l2, name="success")
        l2 = l2[success]
    return l2.double().mean()


def class_average_precision(scores: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Average precision of each class over all images; its mean is the usual class mAP.

    Table 5 of the paper calls another figure mAP: the mean over *images* of their average
    precision, which is ``average_precision_at_k(scores, labels, C).mean()``.

    Ties: images of equal score share one threshold, as in scikit-learn. With relevant images first,
    a victim that gives every image the same scores would be perfect.

    Parameters
    ----------
    scores : torch.Tensor
        Floating, shape ``(N, C)``, no NaN.
    labels : torch.Tensor
        Bool, shape ``(N, C)``.

    Returns
    -------
    torch.Tensor
        float64 ``(C,)``; NaN for a class that no image has.

    Raises
    ------
    ValueError
        Wrong shapes or dtypes, or NaN.
    """
    _checked(scores, labels, 1)
    order, images = scores.T.sort(dim=-1, descending=True)
    found = labels.T.gather(-1, images).double()
    # how many images score at least as much: the last place of each group of ties
    seen = len(scores) - torch.searchsorted(order.flip(-1).contiguous(), order.contiguous())
    precision = found.cumsum(-1).gather(-1, seen - 1) / seen
    return (found * precision).sum(-1) / labels.sum(0)


MEASURES = {
    "TkAcc": topk_accuracy,
    "P@k": precision_at_k,
    "AP@k": average_precision_at_k,
    "NDCG@k": ndcg_at_k,
}
CHANGES = tuple(f"Delta {name}" for name in MEASURES)
"""What :func:`measure_changes` calls the falls of these measures."""


def measure_changes(
    clean: torch.Tensor,
    adversarial: torch.Tensor,
    labels: torch.Tensor,
    specified: torch.Tensor,
    k: torch.Tensor,
) -> dict[str, torch.Tensor]:
    """All measures of every image before and after an attack, and how far they fell.

    Parameters
    ----------
    clean, adversarial : torch.Tensor
        Scores ``(N, C)``.
    labels, specified : torch.Tensor
        Bool ``(N, C)``.
    k : torch.Tensor
        int64 ``(N,)``.

    Returns
    -------
    dict of str to torch.Tensor
        float64 ``(N,)`` each: ``delta_l`` (specified labels of the clean top k that left it) and,
        for every measure M, ``M clean``, ``M adversarial`` and ``Delta M`` (clean minus
        adversarial, so that a loss is positive). NaN for an image whose scores are not finite: it
        has no ranking.
    """
    sound = (clean.isfinite() & adversarial.isfinite()).all(-1)
    before, after, labels, specified, k = (
        rows[sound] for rows in (clean, adversarial, labels, specified, k)
    )
    found = {"delta_l": delta_l(after, specified, k, before=before)}
    for name, measure in MEASURES.items():
        was, now = measure(before, labels, k), measure(after, labels, k)
        found |= {f"{name} clean": was, f"{name} adversarial": now, f"Delta {name}": was - now}
    blank = torch.full((len(sound),), torch.nan, dtype=torch.float64, device=clean.device)
    return {name: blank.masked_scatter(sound, values) for name, values in found.items()}
