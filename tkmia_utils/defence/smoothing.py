"""The smoothed classifier: labels ranked by how often noise leaves them in the top k.

A base model f sees an image with Gaussian noise e ~ N(0, sigma^2 I) on every pixel, and each draw
votes for its k top labels. With p_j(x) the probability that label j gets a vote, sum_j p_j(x) = k,
the smoothed classifier's top k are the k labels of largest p_j. What can be proved of it is in
:mod:`tkmia_utils.defence.certificate`.

The noisy image is not clipped to [0, 1]. A model that clips its input itself is allowed: clipping
is then a part of f, and the theorem asks nothing of f.

Ties. A draw votes for exactly k labels: of equal logits the label of lower index comes first, so
that a vote is a function of the noisy image. Among vote shares the rule of
:mod:`tkmia_utils.topk` holds: a label is in the top k unless at least k others have strictly more.
A tie counts for the label and against whoever wants it hidden.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from tkmia_utils.hashing import text_hash
from tkmia_utils.topk import in_top_k
from tkmia_utils.validation import K, check_k, is_int, is_number


@dataclass(frozen=True)
class Smoothing:
    """How a classifier is smoothed, and how sure its certificate is.

    Attributes
    ----------
    sigma : float
        Standard deviation of the noise, in pixels in [0, 1]; > 0.
    draws : int
        Noisy copies of an image.
    choosing : int
        The first of them, 1 <= choosing < draws: they choose the way of the proof, the rest make
        it.
    alpha : float
        In (0, 1): how likely, at most, a certificate may be wrong.
    seed : int
        Of the noise.

    Raises
    ------
    ValueError
        A setting out of range.
    """

    sigma: float = 0.12
    draws: int = 1000
    choosing: int = 100
    alpha: float = 0.001
    seed: int = 0

    def __post_init__(self) -> None:
        if not is_number(self.sigma) or not 0 < self.sigma < math.inf:
            raise ValueError(f"sigma: expected a finite number > 0, got {self.sigma!r}")
        if not is_int(self.draws) or self.draws < 2:
            raise ValueError(f"draws: expected an int >= 2, got {self.draws!r}")
        if not is_int(self.choosing) or not 1 <= self.choosing < self.draws:
            raise ValueError(f"choosing: expected 1 to {self.draws - 1}, got {self.choosing!r}")
        if not is_number(self.alpha) or not 0 < self.alpha < 1:
            raise ValueError(f"alpha: expected a number in (0, 1), got {self.alpha!r}")
        if not is_int(self.seed):
            raise ValueError(f"seed: expected an int, got {self.seed!r}")


def noise_source(seed: int, image: str) -> torch.Generator:
    """Where an image's noise comes from: a function of the seed and the image's id, on the CPU."""
    return torch.Generator().manual_seed(int(text_hash(seed, image)[:15], 16))


def ballots(logits: torch.Tensor, k: int) -> torch.Tensor:
    """The k labels that each row votes for: exactly k, of equal logits the lower index.

    Parameters
    ----------
    logits : torch.Tensor
        ``(..., C)``, no NaN.
    k : int
        1 <= k <= C.

    Returns
    -------
    torch.Tensor
        Bool ``(..., C)``, k entries a row.
    """
    order = logits.sort(dim=-1, descending=True, stable=True).indices[..., :k]
    return torch.zeros_like(logits, dtype=torch.bool).scatter_(-1, order, True)


@torch.no_grad()
def votes(
    model: nn.Module,
    images: torch.Tensor,
    *,
    ids: Sequence[str],
    k: K,
    smoothing: Smoothing,
    batch: int = 100,
) -> torch.Tensor:
    """Ask a model about noisy copies of images.

    The noise of an image is a function of the seed and its id alone, the same on every device and
    in any company; `batch` decides only how many copies the model sees at once.

    Parameters
    ----------
    model : torch.nn.Module
        Images to logits ``(B, C)``, in evaluation mode.
    images : torch.Tensor
        Floating ``(N, 3, H, W)`` in [0, 1].
    ids : sequence of str
        N names. A perturbed image may keep its name; for draws that are independent of earlier
        ones take another seed.
    k : int or torch.Tensor
        Labels a vote, one for all or int64 ``(N,)``.
    smoothing : Smoothing
        Its sigma, draws and seed.
    batch : int
        Noisy copies at once.

    Returns
    -------
    torch.Tensor
        Bool ``(N, draws, C)`` on the CPU: the labels each draw voted for.

    Raises
    ------
    ValueError
        A model in training mode, not one id an image, k out of range, or NaN among the logits.
    """
    if any(module.training for module in model.modules()):
        raise ValueError("model: expected evaluation mode; call model.eval()")
    if not isinstance(images, torch.Tensor) or not images.is_floating_point() or images.ndim != 4:
        raise ValueError("images: expected a floating torch.Tensor of shape (N, 3, H, W)")
    if len(ids) != len(images):
        raise ValueError(f"ids: expected {len(images)} names, got {len(ids)}")
    if not is_int(batch) or batch < 1:
        raise ValueError(f"batch: expected an int >= 1, got {batch!r}")
    check_k(k, low=1, high=None, rows=images.shape[:1])
    device = next((p.device for p in model.parameters()), images.device)
    ks = torch.as_tensor(k).expand(len(images)).tolist()
    found = []
    for image, name, places in zip(images, ids, ks, strict=True):
        source, clean = noise_source(smoothing.seed, name), image.to(device)
        for start in range(0, smoothing.draws, batch):
            size = min(batch, smoothing.draws - start)
            noise = torch.empty((size, *image.shape), dtype=image.dtype)
            for one in noise:  # one by one: how many are drawn at once may change their bits
                one.normal_(generator=source)
            logits = model(noise.to(device).mul_(smoothing.sigma).add_(clean))
            if logits.isnan().any():
                raise ValueError(f"model: NaN among the logits of image {name!r}")
            check_k(places, low=1, high=logits.shape[-1])
            found.append(ballots(logits, places).cpu())
    return torch.cat(found).reshape(len(images), smoothing.draws, -1)


def vote_shares(votes: torch.Tensor) -> torch.Tensor:
    """Estimates of p_j, the scores of the smoothed classifier.

    Parameters
    ----------
    votes : torch.Tensor
        Bool ``(N, draws, C)``.

    Returns
    -------
    torch.Tensor
        float64 ``(N, C)``; a row sums to k.
    """
    return votes.double().mean(1)


def smoothed_top_k(votes: torch.Tensor) -> torch.Tensor:
    """The top k by vote shares, bool ``(N, C)``; k is how many labels a draw votes for.

    Parameters
    ----------
    votes : torch.Tensor
        Bool ``(N, draws, C)``.

    Raises
    ------
    ValueError
        The draws of an image do not vote for equally many labels.
    """
    return in_top_k(vote_shares(votes), places_of(votes))


def places_of(votes: torch.Tensor) -> torch.Tensor:
    """The k of every image's votes, int64 ``(N,)``.

    Raises
    ------
    ValueError
        Not bool ``(N, draws, C)``, or the draws of an image vote for different numbers of labels.
    """
    if not isinstance(votes, torch.Tensor) or votes.dtype != torch.bool or votes.ndim != 3:
        raise ValueError("votes: expected a bool torch.Tensor of shape (N, draws, C)")
    counts = votes.sum(-1)
    if not (counts == counts[:, :1]).all():
        raise ValueError("votes: the draws of an image vote for different numbers of labels")
    return counts[:, 0]
