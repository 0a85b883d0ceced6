"""TkMIA of minimal norm: the shortest way over the linearised borders of the whole condition."""

import torch

from tkmia_utils.attacks.base import Iterate, PixelDescent, State
from tkmia_utils.attacks.quadratic import least_norm_multipliers
from tkmia_utils.condition.gaps import asked, targets, worst_pair
from tkmia_utils.condition.order import order
from tkmia_utils.exact import on_grid
from tkmia_utils.validation import is_number

ALIGNED = 16  # float32 numbers in 64 bytes, to which the rows of the bundle are padded
MEMORY = 6  # gradients kept for each image
KEPT = 0.98  # largest share of a perturbation that an iteration keeps before it corrects the gaps
SWEEPS = 6  # of the dual coordinate ascent; it starts where the last iteration ended
FIRST_LEAD, LEAST_LEAD = 0.02, 0.002  # shares of the worst gap of the clean image
HASTY_LEAD = 0.1  # likewise, where the first success is wanted
LARGEST_LEAD = 0.5  # likewise
LARGEST_SHARE = 0.1  # or of the span of logits, if larger: a tiny gap is lost in rounding
RAISE, LOWER = 1.5, 0.7  # of the lead, after a known pair has failed and after a success
CORRECTIONS = 4  # of a rounded step, whose size does not follow the multipliers evenly
LATE, RAISE_LATE = 6, 2.5  # from then on without any success, and by how much it grows there
DETOURS = (34, 44, 54, 64)  # iterations that start anew from the clean image
RETURNS = (74,)  # iterations that go back to the best so far
HOLD = 3  # iterations for which a detour keeps its labels out of the list
AVOIDED = 4  # labels that are remembered for it


class MinimalTkMIA(PixelDescent):
    r"""The measure-imperceptible attack of least norm.

    It looks for the shortest e that meets the condition of ``stop``. That condition is a system of
    score differences (see :mod:`tkmia_utils.condition.gaps`). An iteration pulls the gradient of
    the worst of them and keeps the last ones in a bundle G. The next perturbation is

    .. math:: e' = c + G^T l, \quad l \ge 0 \text{ of least } \|G^T l\| \text{ with }
        gap + G (e' - e) \ge lead + target,

    where c is e, shrunk towards the clean image, and only pairs count that the current ranking
    asks for. The target is 0, or what a stop with a `gap` asks between the top k and the rest.
    Their gaps are exact and their gradients may be old. The step is clipped to the
    pixel box and, with ``bits=8``, rounded; what that costs the linearised gaps is made up for.
    The lead grows after a failure and falls after a success.

    Which labels should rise is a choice that the ranking of the clean image makes badly at times.
    So at fixed iterations the attack starts anew and for a while leaves out the label that carried
    most; later it goes back to the best. No schedule depends on `max_iter`.

    Parameters
    ----------
    confidence : float
        Gap in logits that the attack aims at for every difference, >= 0: the knob for transfer. A
        success is whatever meets the condition, and of all of them the nearest is given back.
    first : bool
        End at the first success, as the other attacks do. That takes a few iterations, fewer than
        theirs; the norm is then not the least.

    Raises
    ------
    ValueError
        An option out of range.
    """

    watched = ("adversarial",)
    uses_lr = False

    def __init__(self, *, confidence: float = 0.0, first: bool = False) -> None:
        super().__init__()
        if not isinstance(first, bool):
            raise ValueError(f"first: expected True or False, got {first!r}")
        self.anytime = not first
        self.late, self.first_lead = (1, HASTY_LEAD) if first else (LATE, FIRST_LEAD)
        if not is_number(confidence) or not 0 <= confidence < float("inf"):
            raise ValueError(f"confidence: expected a finite number >= 0, got {confidence!r}")
        self.confidence = float(confidence)

    def begin(self, images: torch.Tensor) -> State:
        """Start from e = 0 with an empty bundle."""
        n, m = len(images), MEMORY
        wide = -(-images[0].numel() // ALIGNED) * ALIGNED
        pairs = images.new_zeros(n, m, dtype=torch.float64)
        whole = torch.zeros(n, dtype=torch.int64, device=images.device)
        none = torch.full((n, max(m, AVOIDED)), -1, device=images.device)
        return {
            "adversarial": images.clone(),
            "shadow": images.new_zeros(n, wide),  # e before it was rounded
            "gradients": images.new_zeros(n, m, wide),
            "gram": pairs[:, :, None].repeat(1, 1, m),
            "multipliers": pairs,
            "weight": pairs.clone(),  # share of each gradient in the shadow
            "up": none[:, :m].clone(),
            "down": none[:, :m].clone(),
            "age": none[:, :m].clone(),
            "lead": pairs[:, 0].clone(),
            "scale": pairs[:, 0].clone(),
            "step": whole,
            "since": whole.clone(),  # iterations since the last start
            "avoided": none[:, :AVOIDED].clone(),
            "best": torch.full_like(pairs[:, 0], torch.inf),
            "best_shadow": images.new_zeros(n, wide),
        }

    def step(self, point: Iterate, state: State) -> State:
        """One gradient into the bundle, one small programme, one correction."""
        clean, adversarial = point.images.flatten(1), state["adversarial"].flatten(1)
        step, since, shadow = state["step"], state["since"], state["shadow"]
        # a row at a time, so that its bits are its own
        size = torch.stack([(x - y).norm() for x, y in zip(adversarial, clean, strict=True)])
        better = point.met & (size < state["best"])
        best = torch.where(better, size.double(), state["best"])
        best_shadow = _chosen(better, shadow, state["best_shadow"])
        anew, back = _turns(step, best)
        since = torch.where(anew, 0, torch.where(back, 10**6, since))
        avoided = torch.where(anew[:, None], _avoid(state), state["avoided"])
        # a detour starts at the clean image, whose logits are known
        base = _chosen(anew, clean, adversarial)
        logits = torch.where(anew[:, None], point.clean_logits, point.logits)
        shadow = _chosen(anew, torch.zeros_like(shadow), shadow)
        shadow = _chosen(back, best_shadow, shadow)

        listed = _without(logits, avoided, (since < HOLD))
        ranked = order(listed, point.condition)
        up, down, pattern = worst_pair(listed, point.condition, ranked=ranked)
        worst = _difference(logits, up[:, None], down[:, None])
        if ranked.border is not None:
            worst = worst - targets(ranked, ranked.border, up[:, None], down[:, None])
        worst = worst.squeeze(1)
        pull = torch.zeros_like(logits).scatter_(1, up[:, None], 1.0)
        pull.scatter_add_(1, down[:, None], torch.full_like(logits[:, :1], -1.0))
        gradient = point.vjp(pull).flatten(1)
        bundle, here, known = _enter(gradient, up, down, state)
        ups = torch.where(here, up[:, None], state["up"])
        downs = torch.where(here, down[:, None], state["down"])
        scale = torch.where(step > 0, state["scale"], worst.abs().clamp_min(1e-6))
        late = known & best.isinf() & (step >= self.late)
        rise = torch.where(late, RAISE_LATE, torch.where(known, RAISE, 1.0))
        change = torch.where(point.met, LOWER, rise)
        lead = torch.where(step > 0, state["lead"] * change, self.first_lead * scale)
        span = point.clean_logits.amax(-1) - point.clean_logits.amin(-1)
        most = torch.maximum(LARGEST_LEAD * scale, LARGEST_SHARE * span.double())
        lead = torch.minimum(torch.maximum(lead, LEAST_LEAD * scale), most)

        # early on the gradients are far from those at the border: forget them faster
        keep = torch.clamp(1 - 2 / (since.double() + 1), 0, KEPT)
        keep = torch.where(back, 1.0, keep)
        start = shadow * keep.to(shadow.dtype)[:, None]
        u, d = ups.clamp_min(0), downs.clamp_min(0)
        counts = (ups >= 0) & asked(ranked, point.condition, pattern, u, d) & ~back[:, None]
        short = lead[:, None] + self.confidence - _difference(logits, u, d)
        if ranked.border is not None:
            short = short + targets(ranked, ranked.border, u, d)
        place = here.to(torch.int64).argmax(1)
        wide = bundle.shape[-1] - clean.shape[1]
        if wide:
            base = torch.nn.functional.pad(base, (0, wide))
            clean = torch.nn.functional.pad(clean, (0, wide))
        newest = bundle[torch.arange(len(bundle), device=bundle.device), place]
        row = _products(bundle, newest)
        gram = torch.where(here[:, :, None], row[:, None], state["gram"])
        gram = torch.where(here[:, None], row[:, :, None], gram)
        reach = point.images[0].numel() ** 0.5  # the diagonal of the pixel box

        def solve(wanted: torch.Tensor, warm: torch.Tensor) -> torch.Tensor:
            return least_norm_multipliers(gram, wanted, counts, warm, sweeps=SWEEPS, reach=reach)

        multipliers = solve(short - _products(bundle, start - base + clean), state["multipliers"])
        for _ in range(CORRECTIONS if point.bits else 1):
            _, _, made = _moved(bundle, start, multipliers, clean, base, point.bits, look=True)
            wanted = short - made + (gram * multipliers[:, None]).sum(-1)
            multipliers = solve(wanted, multipliers)
        new, shadow, _ = _moved(bundle, start, multipliers, clean, base, point.bits, look=False)
        weight = torch.where(here & ~known[:, None], 0.0, state["weight"])
        return {
            "adversarial": new[:, : new.shape[1] - wide].reshape(point.images.shape).contiguous(),
            "shadow": shadow,
            "gradients": bundle,
            "gram": gram,
            "multipliers": multipliers,
            "weight": keep[:, None] * weight + multipliers,
            "up": ups,
            "down": downs,
            "age": torch.where(here, 0, state["age"] + 1),
            "lead": lead,
            "scale": scale,
            "step": step + 1,
            "since": since + 1,
            "avoided": avoided,
            "best": best,
            "best_shadow": best_shadow,
        }


def _turns(step: torch.Tensor, best: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Which rows start anew and which go back to their best, bool ``(B,)`` each."""
    anew, back = torch.zeros_like(step, dtype=torch.bool), best.isfinite()
    for when in DETOURS:
        anew = anew | (step == when)
    there = torch.zeros_like(anew)
    for when in RETURNS:
        there = there | (step == when)
    # without a success there is nothing to compare a detour with, so stay
    return anew & back, there & back


def _avoid(state: State) -> torch.Tensor:
    """Remember the label that had to rise most, in place of the one avoided longest."""
    length = state["gram"].diagonal(dim1=1, dim2=2).sqrt()
    most = (state["weight"] * length).argmax(1, keepdim=True)
    return torch.cat([state["up"].gather(1, most), state["avoided"][:, :-1]], 1)


def _enter(
    gradient: torch.Tensor, up: torch.Tensor, down: torch.Tensor, state: State
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Put a gradient in place of the pair's old one, of nothing, or of the least active."""
    m = MEMORY
    same = (state["up"] == up[:, None]) & (state["down"] == down[:, None])
    place = torch.arange(m, device=up.device)
    idle = (state["multipliers"] <= 0).long() << 40
    rank = (same.long() << 42) + ((state["up"] < 0).long() << 41) + idle
    here = place == (rank + state["age"] * m + place).argmax(1, keepdim=True)
    bundle, at = state["gradients"], here.to(torch.int64).argmax(1)
    rows = torch.arange(len(bundle), device=bundle.device)
    bundle[rows, at, : gradient.shape[1]] = gradient.to(bundle.dtype)
    return bundle, here, same.any(1)


def _difference(logits: torch.Tensor, up: torch.Tensor, down: torch.Tensor) -> torch.Tensor:
    """Gaps of pairs ``(B, M)``, float64."""
    return (logits.gather(1, up) - logits.gather(1, down)).double()


def _without(logits: torch.Tensor, avoided: torch.Tensor, held: torch.Tensor) -> torch.Tensor:
    """Logits by which to rank: avoided labels come after all others."""
    out = torch.zeros_like(logits, dtype=torch.bool)
    for label in avoided.unbind(1):
        hit = torch.zeros_like(out).scatter_(1, label.clamp_min(0)[:, None], True)
        out = out | (hit & (label >= 0)[:, None])
    span = logits.amax(-1, keepdim=True) - logits.amin(-1, keepdim=True) + 1
    return torch.where(out & held[:, None], logits - span, logits)


def _products(bundle: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """``G v`` row by row, float64 ``(B, M)``."""
    if bundle.device.type != "cpu":
        return torch.bmm(bundle, v[:, :, None]).squeeze(2).double()
    # the same call on the same shape, in memory aligned alike: no bit depends on the place
    return torch.stack([torch.mv(g, x) for g, x in zip(bundle, v, strict=True)]).double()


def _chosen(mask: torch.Tensor, new: torch.Tensor, old: torch.Tensor) -> torch.Tensor:
    """Rows of `new` where `mask` says so; on the CPU it is free to see that there are none."""
    if mask.device.type == "cpu" and not mask.any():
        return old
    return torch.where(mask[:, None], new, old)


def _moved(
    bundle: torch.Tensor,
    start: torch.Tensor,
    multipliers: torch.Tensor,
    clean: torch.Tensor,
    base: torch.Tensor,
    bits: int | None,
    *,
    look: bool,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Images ``(B, D)`` after the step ``G' l`` from `start`, their shadows, and what it did.

    The last is ``G (new - base)``, float64 ``(B, M)``, if one wants to `look`; otherwise zeros.
    """
    weights = multipliers.to(bundle.dtype)
    new, shadow = torch.empty_like(start), torch.empty_like(start)
    if bundle.device.type != "cpu":
        _place(torch.bmm(weights[:, None], bundle).squeeze(1), start, clean, bits, new, shadow)
        made = _products(bundle, new - base) if look else torch.zeros_like(multipliers)
        return new, shadow, made
    made = torch.zeros_like(multipliers)
    # a row at a time, while its gradients are in the cache
    for i, g in enumerate(bundle):
        _place(torch.mv(g.T, weights[i].clone()), start[i], clean[i], bits, new[i], shadow[i])
        if look:
            made[i] = torch.mv(g, new[i] - base[i])
    return new, shadow, made


def _place(
    step: torch.Tensor,
    start: torch.Tensor,
    clean: torch.Tensor,
    bits: int | None,
    new: torch.Tensor,
    shadow: torch.Tensor,
) -> None:
    """Write the clipped image into `new`, rounded if asked for, and e before that into `shadow`."""
    torch.add(step.add_(start), clean, out=new).clamp_(0, 1)
    torch.sub(new, clean, out=shadow)
    if bits:
        new.copy_(on_grid(new))
