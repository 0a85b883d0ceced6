"""An attack on the smoothed classifier: how much norm it takes to push a chosen label out.

The certificate bounds this norm from below; an attack bounds it from above. Hard votes have no
gradient, so the attacker looks at *soft* votes of a fixed set of noise draws (expectation over
transformations: Athalye et al., ICML 2018): ``sigmoid((f_j - border) / temperature)``, the border
halfway between the k-th and the next logit. Their means are mapped by Phi^-1, after which the
smoothed classifier is a 1/sigma-Lipschitz function of the image (Salman et al., NeurIPS 2019) and a
method that linearises, such as "tkmia_min", sees it nearly straight.

What comes out is judged by the votes themselves, with fresh draws: the perturbation is scaled, and
the least scale counts at which the label is out by a test. So a reported success is one of the
smoothed classifier, up to the test's level, and not of the draws that the attacker knew.
"""

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from scipy.stats import binom
from torch import nn

from tkmia_utils.defence.smoothing import Smoothing, noise_source, places_of, votes
from tkmia_utils.engine.advice import AttackWarning
from tkmia_utils.engine.loop import attack
from tkmia_utils.engine.runtime import Runtime
from tkmia_utils.validation import K, check_k, is_int, is_number

LEAST_SHARE = 1e-6  # soft vote shares are kept this far from 0 and 1, where Phi^-1 is infinite


@dataclass(frozen=True)
class SmoothedAttack:
    """How the smoothed classifier is attacked, and how successes are judged.

    Attributes
    ----------
    draws : int
        Noise draws that the attacker averages over, the same for all images.
    temperature : float
        Of the soft votes, in logits; > 0.
    margin : float
        >= 0, in units of ``Phi^-1``: how far below its rival the attacker wants the label among the
        soft votes. They are not the votes, and without a margin an image that is near the border
        may look done to him at once.
    max_iter : int
        Iterations of "tkmia_min".
    scales : tuple of float
        Ascending, > 0: what the perturbation is multiplied by before it is judged.
    judged : int
        Fresh draws of a judgement, >= 2.
    level : float
        In (0, 1): how likely, at most, a success is none; for all scales of an image together.
    seed : int
        Of the attacker's draws; the judge takes the next seed.

    Raises
    ------
    ValueError
        A setting out of range.
    """

    draws: int = 16
    temperature: float = 1.0
    margin: float = 0.3
    max_iter: int = 15
    scales: tuple[float, ...] = (0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.2, 1.35, 1.5, 1.75, 2.0, 2.5)
    judged: int = 300
    level: float = 0.05
    seed: int = 1

    def __post_init__(self) -> None:
        for name, least in (("draws", 1), ("max_iter", 1), ("judged", 2)):
            value = getattr(self, name)
            if not is_int(value) or value < least:
                raise ValueError(f"{name}: expected an int >= {least}, got {value!r}")
        if not is_int(self.seed):
            raise ValueError(f"seed: expected an int, got {self.seed!r}")
        if not is_number(self.temperature) or not 0 < self.temperature < math.inf:
            raise ValueError(f"temperature: expected a number > 0, got {self.temperature!r}")
        if not is_number(self.margin) or not 0 <= self.margin < math.inf:
            raise ValueError(f"margin: expected a number >= 0, got {self.margin!r}")
        if not is_number(self.level) or not 0 < self.level < 1:
            raise ValueError(f"level: expected a number in (0, 1), got {self.level!r}")
        ascending = sorted(set(self.scales)) == list(self.scales)
        if not self.scales or not ascending or not 0 < self.scales[0]:
            raise ValueError(f"scales: expected ascending numbers > 0, got {self.scales!r}")


class SoftVotes(nn.Module):
    """The smoothed classifier with soft votes, on fixed noise: something with a gradient.

    Parameters
    ----------
    model : torch.nn.Module
        Images ``(B, 3, H, W)`` to logits ``(B, C)``; in evaluation mode.
    noise : torch.Tensor
        ``(M, 3, H, W)``, already times sigma; added to every image.
    k : int
        Labels a vote, 1 <= k < C.
    temperature : float
        In logits.
    favoured, margin : int, float
        A label, and what is added to its score; default: none.
    """

    def __init__(
        self,
        model: nn.Module,
        noise: torch.Tensor,
        k: int,
        *,
        temperature: float,
        favoured: int = 0,
        margin: float = 0.0,
    ) -> None:
        super().__init__()
        self.model, self.k, self.temperature = model, k, temperature
        self.favoured, self.margin = favoured, margin
        self.register_buffer("noise", noise)
        self.eval()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``Phi^-1`` of the mean soft votes, float32 ``(B, C)``."""
        rows = (x[:, None] + self.get_buffer("noise")).flatten(0, 1)
        logits = self.model(rows).float()
        border = logits.topk(self.k + 1, dim=-1).values[:, -2:].mean(-1, keepdim=True)
        soft = torch.sigmoid((logits - border) / self.temperature)
        shares = soft.double().reshape(len(x), -1, logits.shape[-1]).mean(1)
        shares = shares.clamp(LEAST_SHARE, 1 - LEAST_SHARE)
        scores: torch.Tensor = torch.special.ndtri(shares).float()
        own = torch.arange(scores.shape[-1], device=x.device) == self.favoured
        return scores + self.margin * own


def out_p_value(votes: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
    """Test "the label is in the smoothed top k" against "k others have a larger p_j".

    Each rival has a sign test on the draws with exactly one of both among the votes. If s is in,
    at most k - 1 rivals are above it, so that the other ``C - k`` tests are of true hypotheses: the
    k-th smallest of all, times ``C - k``, is a p-value (partial conjunction by Bonferroni).

    Parameters
    ----------
    votes : torch.Tensor
        Bool ``(N, draws, C)``, of draws that the image does not depend on.
    label : torch.Tensor
        int64 ``(N,)``.

    Returns
    -------
    torch.Tensor
        float64 ``(N,)``.
    """
    k, classes = places_of(votes), votes.shape[-1]
    own = votes.gather(2, label[:, None, None].expand(-1, votes.shape[1], 1))
    lost, won = (votes & ~own).sum(1), (own & ~votes).sum(1)
    p = torch.from_numpy(binom.sf(lost.numpy() - 1, (lost + won).numpy(), 0.5))
    p.scatter_(1, label[:, None], torch.inf)  # no rival of itself
    kth = p.sort(-1).values.gather(1, k[:, None] - 1).squeeze(1)
    found: torch.Tensor = (kth * (classes - k)).clamp(max=1.0)
    return found


def smoothed_norm(
    model: nn.Module,
    images: torch.Tensor,
    labels: torch.Tensor,
    label: torch.Tensor,
    *,
    ids: Sequence[str],
    k: K,
    smoothing: Smoothing,
    settings: SmoothedAttack = SmoothedAttack(),
    runtime: Runtime = Runtime(progress=False),  # noqa: B008
) -> tuple[torch.Tensor, torch.Tensor]:
    """Look for the least norm at which a chosen label leaves the smoothed top k.

    Parameters
    ----------
    model : torch.nn.Module
        The base model, in evaluation mode.
    images : torch.Tensor
        float32 ``(N, 3, H, W)`` in [0, 1]; what comes out stays there.
    labels : torch.Tensor
        Bool ``(N, C)``: relevant labels, the chosen one and at least one other.
    label : torch.Tensor
        int64 ``(N,)``: the label to push out.
    ids : sequence of str
        N names, for the judge's noise.
    k : int or torch.Tensor
        One for all, or int64 ``(N,)``.
    smoothing : Smoothing
        Its sigma.
    settings : SmoothedAttack
        How.
    runtime : Runtime
        As for :func:`tkmia_utils.attack`; its slots are images, each seen `draws` times.

    Returns
    -------
    norms : torch.Tensor
        float64 ``(N,)``: L2 norm in [0, 1] pixels; inf where no scale was a success.
    adversarial : torch.Tensor
        float32 ``(N, 3, H, W)``, on the CPU: the images of these norms; where there was no success,
        at the largest scale.

    Raises
    ------
    ValueError
        As :func:`tkmia_utils.attack` and :func:`tkmia_utils.defence.smoothing.votes`.
    """
    check_k(k, low=1, high=labels.shape[-1] - 1, rows=images.shape[:1])
    ks = torch.as_tensor(k).expand(len(images))
    device = next((p.device for p in model.parameters()), images.device)
    noise = torch.randn(
        (settings.draws, *images.shape[1:]),
        generator=noise_source(settings.seed, "attacker"), dtype=images.dtype,
    )  # fmt: skip
    specified = torch.zeros_like(labels).scatter_(1, label[:, None], True)
    found = images.cpu().clone()
    pairs = list(zip(ks.tolist(), label.tolist(), strict=True))
    for places, one in sorted(set(pairs)):
        at = torch.tensor([i for i, pair in enumerate(pairs) if pair == (places, one)])
        soft = SoftVotes(
            model, (smoothing.sigma * noise).to(device), places,
            temperature=settings.temperature, favoured=one, margin=settings.margin,
        )  # fmt: skip
        with warnings.catch_warnings():
            # of soft votes: what an image is worth is decided below, by hard ones
            warnings.simplefilter("ignore", AttackWarning)
            result = attack(
                soft, images[at], labels[at], specified[at], places,
                method="tkmia_min", max_iter=settings.max_iter, runtime=runtime,
            )  # fmt: skip
        assert result.adversarial is not None
        found[at] = result.adversarial
    return _least_scale(model, images.cpu(), found, label, ids, ks, smoothing, settings)


def _least_scale(
    model: nn.Module,
    clean: torch.Tensor,
    found: torch.Tensor,
    label: torch.Tensor,
    ids: Sequence[str],
    k: torch.Tensor,
    smoothing: Smoothing,
    settings: SmoothedAttack,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Binary search over the scales, as if a success at one were one at all larger ones.

    Which scales are looked at depends on the tests, so each is at its share of the level.
    """
    scales = torch.tensor(settings.scales)
    judge = replace(smoothing, draws=settings.judged, choosing=1, seed=settings.seed + 1)
    level = settings.level / len(scales)

    def scaled(rows: torch.Tensor, place: torch.Tensor) -> torch.Tensor:
        factor = scales[place].reshape(-1, 1, 1, 1)
        return (clean[rows] + factor * (found[rows] - clean[rows])).clamp(0, 1)

    low = torch.zeros(len(clean), dtype=torch.int64)  # the least success is at low or above
    high = torch.full_like(low, len(scales))  # a success, or beyond the last
    while (low < high).any():
        rows = (low < high).nonzero().flatten()
        middle = (low[rows] + high[rows]) // 2
        seen = votes(
            model, scaled(rows, middle), ids=[ids[i] for i in rows.tolist()], k=k[rows],
            smoothing=judge,
        )  # fmt: skip
        out = out_p_value(seen, label[rows]) <= level
        high[rows] = torch.where(out, middle, high[rows])
        low[rows] = torch.where(out, low[rows], middle + 1)
    everything = torch.arange(len(clean))
    adversarial = scaled(everything, high.clamp(max=len(scales) - 1))
    norms = (adversarial - clean).double().flatten(1).norm(dim=1)
    return torch.where(high < len(scales), norms, torch.inf), adversarial
