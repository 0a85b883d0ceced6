"""Which labels are to be hidden, and in which images: the paper's schemes S1 and S2.

Both schemes keep only images with ``|Y_p| >= k + |S|``, so that k other relevant labels are there
to fill the top k. The released code adds a rule about the *clean* scores, and the paper's tables
rest on it; it is the default (``rule="released"``), the paper's text is ``rule="paper"``:

* S1: at least one label of S is in the clean top k;
* S2: the m labels are drawn only from relevant labels that are in the clean top k.
"""

import hashlib
import operator
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from numbers import Integral

import numpy as np
import torch

from tkmia_utils.topk import in_top_k
from tkmia_utils.validation import K, check_k, check_mask, check_scores

RULES = ("released", "paper")


@dataclass(frozen=True)
class Selection:
    """Specified labels and eligible images.

    Attributes
    ----------
    specified : torch.Tensor
        Bool ``(N, C)``: S of every image; rows that are not eligible may be empty.
    eligible : torch.Tensor
        Bool ``(N,)``.
    """

    specified: torch.Tensor
    eligible: torch.Tensor

    def first(self, n: int) -> torch.Tensor:
        """Positions of the first n eligible images, in data set order, int64.

        Raises
        ------
        ValueError
            n is no integer, or below 0, which would count from the end.
        """
        if isinstance(n, bool) or not isinstance(n, Integral) or n < 0:
            raise ValueError(f"n: expected an int >= 0, got {n!r}")
        return self.eligible.nonzero().flatten()[:n]


def _check_labels(labels: torch.Tensor) -> None:
    check_mask(labels, labels, name="labels")
    if labels.ndim != 2:
        raise ValueError(f"labels: expected shape (N, C), got {tuple(labels.shape)}")


def _check_clean(clean_scores: torch.Tensor, labels: torch.Tensor) -> None:
    check_scores(clean_scores, name="clean_scores", finite=True)
    if clean_scores.shape != labels.shape:
        raise ValueError(
            f"clean_scores: expected shape {tuple(labels.shape)}, got {tuple(clean_scores.shape)}"
        )


def eligible(
    labels: torch.Tensor,
    specified: torch.Tensor,
    k: K,
    *,
    clean_scores: torch.Tensor | None = None,
) -> torch.Tensor:
    """Images that can be attacked: S is not empty and ``|Y_p| >= k + |S|`` (section 5.1).

    Parameters
    ----------
    labels : torch.Tensor
        Bool ``(N, C)``: Y_p.
    specified : torch.Tensor
        Bool ``(N, C)``: S, inside Y_p.
    k : int or torch.Tensor
        1 <= k <= C.
    clean_scores : torch.Tensor, optional
        Floating ``(N, C)``. Given, an image must also have some of S in its clean top k (the
        released code's extra rule).

    Returns
    -------
    torch.Tensor
        Bool ``(N,)``.

    Raises
    ------
    ValueError
        Wrong shapes or dtypes, NaN, k out of range, or S outside Y_p.
    """
    _check_labels(labels)
    check_mask(specified, labels, name="specified")
    check_k(k, low=1, high=labels.shape[-1], rows=labels.shape[:1])
    if (specified & ~labels).any():
        raise ValueError("specified: S must lie inside Y_p, but a row specifies more")
    size = specified.sum(-1)
    mask = (size > 0) & (labels.sum(-1) >= size + torch.as_tensor(k, device=labels.device))
    if clean_scores is not None:
        _check_clean(clean_scores, labels)
        mask &= (specified & in_top_k(clean_scores, k)).any(-1)
    return mask


def _candidates(
    labels: torch.Tensor, k: int, clean_scores: torch.Tensor | None, rule: str
) -> torch.Tensor | None:
    """The clean scores the rule asks for, or None for the paper's rule."""
    _check_labels(labels)
    check_k(k, low=1, high=labels.shape[-1])
    if rule not in RULES:
        raise ValueError(f"rule: expected one of {RULES}, got {rule!r}")
    if rule == "paper":
        return None
    if clean_scores is None:
        raise ValueError('clean_scores: rule="released" looks at the clean top k, so it needs them')
    _check_clean(clean_scores, labels)
    return clean_scores


def global_selection(
    labels: torch.Tensor,
    members: Sequence[int],
    k: int,
    *,
    clean_scores: torch.Tensor | None = None,
    rule: str = "released",
) -> Selection:
    """S1: the same set of classes for every image, ``S = Y_p ∩ members``.

    Parameters
    ----------
    labels : torch.Tensor
        Bool ``(N, C)``: Y_p.
    members : sequence of int
        Class indices of the global set (a *type* of Tables 6 to 8).
    k : int
        1 <= k <= C.
    clean_scores : torch.Tensor, optional
        Floating ``(N, C)``; needed by ``rule="released"``.
    rule : {"released", "paper"}
        See the module's docstring.

    Returns
    -------
    Selection

    Raises
    ------
    ValueError
        Empty or out-of-range `members`, wrong shapes or dtypes, an unknown rule.
    """
    clean_scores = _candidates(labels, k, clean_scores, rule)
    try:
        members = [operator.index(m) for m in members]
    except TypeError:
        raise ValueError(
            f"members: expected a sequence of class indices, got {members!r}"
        ) from None
    if not members or min(members) < 0 or max(members) >= labels.shape[-1]:
        raise ValueError(
            f"members: expected class indices in [0, {labels.shape[-1]}), got {members}"
        )
    chosen = torch.zeros(labels.shape[-1], dtype=torch.bool, device=labels.device)
    chosen[members] = True
    specified = labels & chosen
    return Selection(specified, eligible(labels, specified, k, clean_scores=clean_scores))


def random_selection(
    labels: torch.Tensor,
    m: int,
    k: int,
    *,
    ids: Sequence[str],
    seed: int,
    clean_scores: torch.Tensor | None = None,
    rule: str = "released",
) -> Selection:
    """S2: m random relevant labels of every image, keyed by (seed, image id).

    The draw of an image depends on nothing but the seed, its id and its candidates, so it is the
    same in any order, batch or shard; for the same image the labels drawn for a smaller m are
    among those drawn for a larger one.

    Parameters
    ----------
    labels : torch.Tensor
        Bool ``(N, C)``: Y_p.
    m : int
        |S|, 1 <= m <= k (section 4.2).
    k : int
        1 <= k <= C.
    ids : sequence of str
        N image ids.
    seed : int
        Any integer.
    clean_scores : torch.Tensor, optional
        Floating ``(N, C)``; needed by ``rule="released"``.
    rule : {"released", "paper"}
        See the module's docstring.

    Returns
    -------
    Selection

    Raises
    ------
    ValueError
        m outside [1, k], a wrong number of ids, a seed that is no integer, wrong shapes or dtypes,
        an unknown rule.
    """
    if not isinstance(k, int):
        raise ValueError(f"k: expected an int, got {type(k).__name__}")
    clean_scores = _candidates(labels, k, clean_scores, rule)
    if isinstance(m, bool) or not isinstance(m, Integral) or not 1 <= m <= k:
        raise ValueError(f"m: expected an int, 1 <= m <= k = {k}, got {m!r}")
    if isinstance(seed, bool) or not isinstance(seed, Integral):
        raise ValueError(f"seed: expected an integer, got {seed!r}")  # 1 and 1.0 would differ
    if not isinstance(ids, Collection):
        raise ValueError(f"ids: expected {len(labels)} image ids, got {ids!r}")
    if len(ids) != len(labels):
        raise ValueError(f"ids: expected {len(labels)} image ids, got {len(ids)}")
    pool = labels if clean_scores is None else labels & in_top_k(clean_scores, k)
    specified = torch.zeros_like(labels)
    for row, (candidates, image_id) in enumerate(zip(pool.cpu().numpy(), ids, strict=True)):
        found = np.flatnonzero(candidates)
        if len(found) >= m:
            chosen = sorted(found, key=lambda label: _lot(seed, image_id, label))[:m]
            specified[row, torch.as_tensor(chosen, device=labels.device)] = True
    return Selection(specified, eligible(labels, specified, k))


def _lot(seed: int, image_id: str, label: int) -> bytes:
    """A label's place in the draw: a hash, so that no library's random stream can change it."""
    return hashlib.sha256(f"{seed}\x00{image_id}\x00{label}".encode()).digest()


def choose_specified(
    clean_scores: torch.Tensor,
    labels: torch.Tensor,
    k: int,
    *,
    m: int | None = None,
    members: Sequence[int] | None = None,
    seed: int = 0,
    ids: Sequence[str] | None = None,
    rule: str = "released",
) -> Selection:
    """Choose S for one's own images by one of the paper's schemes, and say which images qualify.

    Parameters
    ----------
    clean_scores : torch.Tensor
        Floating ``(N, C)``: the victim's logits of the clean images.
    labels : torch.Tensor
        Bool ``(N, C)``: relevant labels Y_p.
    k : int
        1 <= k <= C.
    m : int, optional
        Scheme S2: so many random relevant labels of the clean top k, 1 <= m <= k.
    members : sequence of int, optional
        Scheme S1: of every image the relevant labels among these class indices.
    seed : int
        Of S2's draw, which depends on nothing else but an image's id and its candidates: it is the
        same in any order, batch or subset.
    ids : sequence of str, optional
        Names of the images; default their positions, which change when images are left out.
    rule : {"released", "paper"}
        See the module's docstring.

    Returns
    -------
    Selection
        ``specified`` for :func:`tkmia_utils.attack`, and ``first(n)``: positions of eligible images
        for its `index`.

    Raises
    ------
    ValueError
        Not exactly one of `m` and `members`; wrong shapes, dtypes or ranges.

    Examples
    --------
    >>> logits = torch.tensor([[4.0, 3.0, 2.0, 1.0]])
    >>> labels = torch.tensor([[True, True, True, False]])
    >>> chosen = choose_specified(logits, labels, k=2, members=[0, 3])
    >>> chosen.specified.tolist(), chosen.eligible.tolist()
    ([[True, False, False, False]], [True])
    """
    if (m is None) == (members is None):
        raise ValueError("m, members: expected one of the two")
    _check_labels(labels)
    check_k(k, low=1, high=labels.shape[-1])
    _check_clean(clean_scores, labels)
    labels, clean_scores = labels.cpu(), clean_scores.detach().cpu()
    if members is not None:
        return global_selection(labels, members, k, clean_scores=clean_scores, rule=rule)
    ids = [str(i) for i in range(len(labels))] if ids is None else ids
    return random_selection(labels, m, k, ids=ids, seed=seed, clean_scores=clean_scores, rule=rule)
