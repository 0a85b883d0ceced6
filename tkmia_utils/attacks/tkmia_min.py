"""TkMIA of minimal norm: the shortest way over the linearised borders of the whole condition."""

import torch

from tkmia_utils.attacks.base import PIXEL_SCALE, Iterate, State
from tkmia_utils.attacks.quadratic import least_norm_multipliers
from tkmia_utils.condition.gaps import asked, order, worst_pair

ALIGNED = 16  # float32 numbers in 64 bytes
LEVELS = 255


class MinimalTkMIA:
    watched: tuple[str, ...] = ("adversarial",)
    uses_lr: bool = False
    anytime: bool = True

    def __init__(
        self,
        *,
        memory: int = 8,
        shrink: float = 0.98,
        confidence: float = 0.0,
        sweeps: int = 6,
        correct: int = 1,
        up: float = 1.5,
        down: float = 0.7,
        low: float = 0.002,
        high: float = 0.5,
        first: float = 0.02,
        sched: float = 1.0,
    ) -> None:
        self.memory, self.shrink, self.confidence = memory, shrink, confidence
        self.sweeps, self.correct = sweeps, correct
        self.up, self.down, self.low, self.high, self.first, self.sched = (
            up,
            down,
            low,
            high,
            first,
            sched,
        )

    def begin(self, images: torch.Tensor) -> State:
        n, m = len(images), self.memory
        pixels = images[0].numel()
        wide = -(-pixels // ALIGNED) * ALIGNED
        new = images.new_zeros
        whole = {"dtype": torch.int64, "device": images.device}
        double = {"dtype": torch.float64, "device": images.device}
        return {
            "adversarial": images.clone(),
            "shadow": new(n, wide),
            "gradients": new(n, m, wide),
            "gram": torch.zeros(n, m, m, **double),
            "multipliers": torch.zeros(n, m, **double),
            "up": torch.full((n, m), -1, **whole),
            "down": torch.full((n, m), -1, **whole),
            "age": torch.zeros(n, m, **whole),
            "lead": torch.zeros(n, **double),
            "scale": torch.zeros(n, **double),
            "step": torch.zeros(n, **whole),
        }

    def image(self, images: torch.Tensor, state: State) -> torch.Tensor:
        return state["adversarial"]

    def norm(self, images: torch.Tensor, adversarial: torch.Tensor, state: State) -> torch.Tensor:
        distance: torch.Tensor = (adversarial - images).flatten(1).norm(dim=1)
        return distance / PIXEL_SCALE

    def step(self, point: Iterate, state: State) -> State:
        images, logits, cond = point.images, point.logits, point.condition
        n, m = state["up"].shape
        ranked = order(logits, cond)
        a, b, pattern = worst_pair(logits, cond, ranked=ranked)
        weight = torch.zeros_like(logits)
        weight.scatter_(1, a[:, None], 1.0)
        weight.scatter_add_(1, b[:, None], torch.full_like(logits[:, :1], -1.0))
        gradient = point.vjp(weight).flatten(1)
        # place in the bundle
        up, down, age, mult = state["up"], state["down"], state["age"], state["multipliers"]
        same = (up == a[:, None]) & (down == b[:, None])
        place = torch.arange(m, device=up.device)
        rank = (same.long() << 42) + ((up < 0).long() << 41) + ((mult <= 0).long() << 40)
        rank += age * m + place
        at = rank.argmax(1)
        known = same.any(1)
        here = place == at[:, None]
        up, down = torch.where(here, a[:, None], up), torch.where(here, b[:, None], down)
        age = torch.where(here, 0, age + 1)
        # lead
        step, lead, scale = state["step"], state["lead"], state["scale"]
        worst = (logits.gather(1, a[:, None]) - logits.gather(1, b[:, None])).squeeze(1).double()
        begun = step > 0
        scale = torch.where(begun, scale, worst.abs().clamp_min(1e-6))
        change = torch.where(point.met, self.down, torch.where(known, self.up, 1.0))
        lead = torch.where(begun, lead * change, self.first * scale)
        lead = torch.minimum(torch.maximum(lead, self.low * scale), self.high * scale)
        goal = lead + self.confidence
        t = step.double()
        beta = torch.clamp(1 - self.sched / (t + 1), 0, self.shrink)
        # programme
        seen = up >= 0
        u, d = up.clamp_min(0), down.clamp_min(0)
        counts = seen & asked(ranked, cond, pattern, u, d)
        gap = (logits.gather(1, u) - logits.gather(1, d)).double()
        bundle, shadow = state["gradients"], state["shadow"]
        adversarial = state["adversarial"].flatten(1)
        clean = images.flatten(1)
        pixels = clean.shape[1]
        beta32 = beta.to(clean.dtype)
        slots = at.tolist()
        H_new, ahead = [], []
        c = torch.empty_like(shadow)
        buf = torch.zeros_like(shadow[0])
        e = torch.zeros_like(shadow)
        for i in range(n):
            g = bundle[i]
            g[slots[i], :pixels] = gradient[i]
            H_new.append(torch.mv(g, g[slots[i]]))
            torch.sub(adversarial[i], clean[i], out=e[i, :pixels])
            torch.mul(shadow[i], beta32[i], out=c[i])
            ahead.append(torch.mv(g, torch.sub(c[i], e[i], out=buf)))
        row = torch.stack(H_new).double()
        ahead = torch.stack(ahead).double()
        gram = torch.where(here[:, :, None], row[:, None, :], state["gram"])
        gram = torch.where(here[:, None, :], row[:, :, None], gram)
        wanted = goal[:, None] - gap - ahead
        reach = pixels**0.5
        l = least_norm_multipliers(gram, wanted, counts, mult, sweeps=self.sweeps, reach=reach)
        z = torch.empty_like(shadow)
        new = torch.empty_like(state["adversarial"])
        flat = new.flatten(1)
        for turn in range(self.correct + 1):
            l32 = l.to(clean.dtype)
            moved = []
            for i in range(n):
                torch.addmv(c[i], bundle[i].T, l32[i], out=z[i])
                torch.add(clean[i], z[i, :pixels], out=flat[i])
                y = flat[i].clamp_(0, 1)
                torch.sub(y, clean[i], out=z[i, :pixels])
                if point.bits:
                    y.mul_(LEVELS).round_().div_(LEVELS)
                if turn < self.correct:
                    torch.sub(y, adversarial[i], out=buf[:pixels])
                    moved.append(torch.mv(bundle[i], buf))
            if turn < self.correct:
                short = goal[:, None] - gap - torch.stack(moved).double()
                wanted = short + (gram * l[:, None]).sum(-1)
                l = least_norm_multipliers(gram, wanted, counts, l, sweeps=self.sweeps, reach=reach)
        return {
            "adversarial": new,
            "shadow": z,
            "gradients": bundle,
            "gram": gram,
            "multipliers": l,
            "up": up,
            "down": down,
            "age": age,
            "lead": lead,
            "scale": scale,
            "step": step + 1,
        }
