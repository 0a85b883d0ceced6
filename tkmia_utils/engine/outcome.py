"""What became of an attack's promise: hidden, unseen by the measures, still so in the file."""

import torch

from tkmia_utils.attacks import AttackSpec
from tkmia_utils.condition.patterns import SLACK
from tkmia_utils.measures import CHANGES, measure_changes
from tkmia_utils.topk import in_top_k

UNSEEN, SURVIVES, BOTH = "no measure fell", "survives PNG", "PNG and no measure fell"


def excluded(
    logits: torch.Tensor, specified: torch.Tensor, k: torch.Tensor, delta: torch.Tensor
) -> torch.Tensor:
    """Are delta of S out of the top k, bool ``(N,)``? Eq. (2) c1, relaxed to delta.

    Parameters
    ----------
    logits : torch.Tensor
        ``(N, C)``.
    specified : torch.Tensor
        Bool ``(N, C)``.
    k, delta : torch.Tensor
        int64 ``(N,)``.
    """
    return (specified & ~in_top_k(logits, k)).sum(-1) >= delta


def fell(changes: dict[str, torch.Tensor]) -> torch.Tensor:
    """Is any measure lower than on the clean image, bool ``(N,)``? Also where that is not known.

    Parameters
    ----------
    changes : dict of str to torch.Tensor
        From :func:`tkmia_utils.measures.measure_changes`.
    """
    falls = torch.stack([changes[name] for name in CHANGES])
    return ~(falls <= SLACK).all(0)


def outcomes(
    success: torch.Tensor,
    clean: torch.Tensor,
    changes: dict[str, torch.Tensor],
    png: torch.Tensor | None,
    spec: AttackSpec,
) -> dict[str, torch.Tensor]:
    """Which successes keep the promise, one value an image; failures keep none.

    Parameters
    ----------
    success : torch.Tensor
        Bool ``(N,)``.
    clean : torch.Tensor
        Logits ``(N, C)``.
    changes : dict of str to torch.Tensor
        From the clean to the adversarial logits.
    png : torch.Tensor or None
        Logits ``(N, C)`` of the adversarial images as 8-bit files, NaN where not known.
    spec : AttackSpec
        What was asked for.

    Returns
    -------
    dict of str to torch.Tensor
        ``no measure fell`` (bool) and, with `png`, ``survives PNG`` (delta of S are still out) and
        ``PNG and no measure fell`` (float64: 1, 0, or NaN where the file's logits are not known).
    """
    found = {UNSEEN: success & ~fell(changes)}
    if png is None:
        return found
    known = png.isfinite().all(-1) | ~success
    out = excluded(png, spec.specified, spec.k, spec.delta)
    seen = fell(measure_changes(clean, png, spec.labels, spec.specified, spec.k))

    def where_known(value: torch.Tensor) -> torch.Tensor:
        return torch.where(known, (success & value).double(), torch.nan)

    return {**found, SURVIVES: where_known(out), BOTH: where_known(out & ~seen)}
