"""What is worth a warning in an attack's result, and what to try: looked at when all is over."""

import math
from collections.abc import Iterator

import torch

from tkmia_utils.attacks import AttackSpec
from tkmia_utils.engine.result import AttackResult
from tkmia_utils.topk import in_top_k


class AttackWarning(UserWarning):
    """An attack whose figures do not mean what they seem to; the message says what to try."""


def advice(result: AttackResult, *, uses_lr: bool = True) -> Iterator[str]:
    """Warn of successes without an attack, NaN, dead gradients and steps that are too small.

    Parameters
    ----------
    result : AttackResult
        With its spec.
    uses_lr : bool
        False for a method that takes its steps without a learning rate.

    Yields
    ------
    str
        One message a finding; none where there is nothing to say.

    Raises
    ------
    ValueError
        The result has no spec.
    """
    if result.spec is None:
        raise ValueError("result: expected one with its spec")
    spec, n, untouched = result.spec, len(result), int(result.untouched.sum())
    if untouched:
        yield (
            f"{untouched} of {n} images succeed unchanged, with norm 0: delta of their specified "
            "labels were outside the clean top k already, so that nothing had to be hidden. "
            "Specify labels that are in the clean top k (tkmia_utils.choose_specified does), and "
            "leave these images out (result.untouched)."
        )
    for what, why in (
        ("logits", "the model, its normalisation and the range that it expects of images"),
        ("gradient", "the model for a root, a logarithm or a division at 0; or take a smaller lr"),
    ):
        ill = result.reasons.count(f"{what} not finite")
        if ill:
            yield (
                f"{ill} of {n} images ended as failures because the {what} had NaN or infinity in "
                f"it. Look at {why}."
            )
    dead = unmoved(result)
    if dead.any():
        yield (
            f"{int(dead.sum())} of {n} images did not move at all: the gradient of the attack's "
            "loss is zero there, or nothing is left of its steps after rounding and clipping to "
            "[0, 1]. Common causes: a model that ends in a sigmoid or softmax which saturates "
            '(return logits), scores="sigmoid" on confident logits (use "logits"), rounding or '
            "clamping in the model, a loss that is 0 on the clean image already (try another "
            "method or form), or a tiny lr."
        )
    pool = ~result.untouched & ~dead
    least = share_of_least(result, spec)
    stuck = pool & (least < 1)
    if pool.any() and not result.success[pool].any() and 2 * int(stuck.sum()) >= int(pool.sum()):
        share = float(least[stuck].median())
        rates, steps = spec.lr[stuck].unique(), int(result.iterations[stuck].max())
        # small steps add up, so that logits move about as far as lr says
        said = f"{share:.1%}" if share >= 0.001 else "less than 0.1%"
        times = 10.0 ** min(6, max(1, math.ceil(-math.log10(max(share, 1e-9)))))
        larger = f"lr={times * float(rates[0]):.2g}" if len(rates) == 1 else f"{times:g} times lr"
        remedy = f"{f'{larger}, or ' if uses_lr else ''}a larger max_iter"
        # what is left of eps after the steps is about (1 - lr alpha)^steps, were there no loss
        if uses_lr and float((spec.lr * spec.alpha)[stuck].median()) * steps >= 1:
            remedy = "a smaller alpha: the norm pulls the images back to where they were"
        yield (
            f"0 of {int(pool.sum())} images succeeded, and {int(stuck.sum())} of them could not "
            f"have: in {steps} steps their logits moved by {said} (median) of the least that "
            f"leads to success. Try {remedy}."
            f"{PROBABILITIES if _in_unit_range(result.clean_logits) else ''}"
        )


PROBABILITIES = (
    " All of the model's outputs on clean images lie in [0, 1]: if they are probabilities, attack "
    "the logits before its sigmoid or softmax."
)


def _in_unit_range(logits: torch.Tensor) -> bool:
    return bool(((logits >= 0) & (logits <= 1)).all())


def unmoved(result: AttackResult) -> torch.Tensor:
    """Which images failed where they began, bool ``(N,)``: steps were taken and changed nothing.

    The logits are looked at as well as the norm, since a variant of TkMIA sees the clean image
    through a tanh and so never has norm 0.
    """
    same = (result.adversarial_logits == result.clean_logits).all(-1)
    limit = torch.tensor([reason == "limit" for reason in result.reasons])
    return limit & (result.iterations > 0) & (same | (result.l2 == 0))


def share_of_least(result: AttackResult, spec: AttackSpec) -> torch.Tensor:
    """How far the logits moved, as a share of the least that could succeed, ``(N,)``.

    A specified label leaves the top k only if k others pass it. While no logit moves by half of the
    gap between it and the k-th highest of the others, they cannot. Infinite for an image that
    succeeded, that took no step, or whose logits are not finite.
    """
    clean = result.clean_logits
    moved = (result.adversarial_logits - clean).abs().amax(-1)
    # where s is in the top k, the k-th highest of the others is the one at place k + 1
    barrier = clean.sort(-1, descending=True).values.gather(-1, spec.k[:, None])
    gaps = torch.where(in_top_k(clean, spec.k), clean - barrier, 0.0)
    gaps = torch.where(spec.specified, gaps, torch.inf).sort(-1).values
    least = gaps.gather(-1, spec.delta[:, None] - 1).squeeze(-1) / 2
    share = moved / least
    counts = ~result.success & (result.iterations > 0) & share.isfinite()
    return torch.where(counts, share, torch.inf)
