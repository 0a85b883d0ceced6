"""What success asks of the scores of an image, told from its clean scores."""

from dataclasses import dataclass

import torch

from tkmia_utils.condition.patterns import least_patterns
from tkmia_utils.condition.stop import Stop, as_stop
from tkmia_utils.measures import hits_at_k
from tkmia_utils.topk import kth_largest
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
        room = self.labels.shape[-1] - self.delta >= self._places
        return room & (self.above != NO_PATTERN).all(-1).any(-1)

    @property
    def _places(self) -> torch.Tensor:
        """How many labels must be above the hidden ones, int64 ``(N,)``."""
        return self.k


@dataclass(frozen=True)
class DeepCondition(Condition):
    """A condition that also asks for a gap below the top k, or hides the labels deeper.

    Attributes
    ----------
    depth : torch.Tensor
        int64 ``(N,)``, >= k: the labels must be hidden from the top `depth`.
    gap : torch.Tensor
        float64 ``(N,)``, in units of scores: the least ``f_[k] - f_[k+1]`` of all labels, both
        taken as float64; 0: nothing is asked.
    """

    depth: torch.Tensor
    gap: torch.Tensor

    @property
    def _places(self) -> torch.Tensor:
        return self.depth


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
        relevant labels outside T, or fewer than k (``k + stop.below``) labels are outside T. A
        :class:`DeepCondition` if the stop asks for a gap or for more depth.

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
    asks = (labels, specified, k, delta, above.to(device))
    if not stop.deep:
        return Condition(*asks)
    clean, gap = clean_scores.double(), torch.zeros(n, dtype=torch.float64, device=device)
    if stop.gap:
        gap = stop.gap * (kth_largest(clean, k) - kth_largest(clean, k + 1))
    return DeepCondition(*asks, k + stop.below, gap)
