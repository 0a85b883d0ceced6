"""What an attack returns."""

from dataclasses import dataclass, field, replace

import torch

REASONS = ("running", "success", "limit", "logits not finite", "gradient not finite")
RUNNING, SUCCESS, LIMIT, BAD_LOGITS, BAD_GRADIENT = range(5)


@dataclass(frozen=True)
class Trace:
    """What happened at every iteration; NaN after an image has finished.

    Attributes
    ----------
    logits : torch.Tensor
        float32 ``(N, T + 1, C)``; entry 0 is the clean image.
    l2 : torch.Tensor
        float32 ``(N, T + 1)``, norm of the perturbation in [0, 1] pixels.
    """

    logits: torch.Tensor
    l2: torch.Tensor


@dataclass(frozen=True)
class Snapshot:
    """Where the images stood at one iteration; NaN for those that had finished before.

    Attributes
    ----------
    logits : torch.Tensor
        float32 ``(N, C)``.
    l2, l2_paper : torch.Tensor
        float32 ``(N,)``: norms in [0, 1] and in the paper's pixels.
    """

    logits: torch.Tensor
    l2: torch.Tensor
    l2_paper: torch.Tensor


@dataclass(frozen=True)
class AttackResult:
    """What an attack returns, all tensors on the CPU and in the order of the images given.

    Attributes
    ----------
    adversarial : torch.Tensor
        float32 ``(N, 3, H, W)`` in [0, 1]: the first image that succeeded, or the last one tried.
    success : torch.Tensor
        Bool ``(N,)``: at least delta specified labels are outside the top k of the logits of the
        very image that is returned.
    iterations : torch.Tensor
        int64 ``(N,)``: steps taken; 0 where the clean image already met the condition.
    l2 : torch.Tensor
        float32 ``(N,)``: norm of the perturbation over pixels in [0, 1].
    l2_paper : torch.Tensor
        float32 ``(N,)``: the same in the paper's [-1, 1] pixels, twice as large. (The released
        variant of TkMIA reports its norm before a tanh instead.)
    clean_logits, adversarial_logits : torch.Tensor
        float32 ``(N, C)``.
    reasons : tuple of str
        Why each image stopped: "success", "limit", "logits not finite", "gradient not finite".
    trace : Trace or None
        With ``record=True``.
    snapshots : dict of int to Snapshot
        By iteration, as asked for; see :meth:`at`.
    """

    adversarial: torch.Tensor
    success: torch.Tensor
    iterations: torch.Tensor
    l2: torch.Tensor
    l2_paper: torch.Tensor
    clean_logits: torch.Tensor
    adversarial_logits: torch.Tensor
    reasons: tuple[str, ...]
    trace: Trace | None = None
    snapshots: dict[int, Snapshot] = field(default_factory=dict)

    def at(self, limit: int) -> "AttackResult":
        """Answer what a run with ``max_iter=limit`` would have returned.

        No schedule depends on the limit, so a longer run passes through the shorter one's states.
        Of images that were still at work then, logits and norms are those of that iteration; their
        pixels were not kept and are NaN.

        Parameters
        ----------
        limit : int
            One of the iterations given as `snapshots`.

        Returns
        -------
        AttackResult

        Raises
        ------
        ValueError
            No snapshot was taken there.
        """
        if limit not in self.snapshots:
            raise ValueError(f"limit: expected one of {sorted(self.snapshots)}, got {limit}")
        late, then = self.iterations > limit, self.snapshots[limit]
        return replace(
            self,
            adversarial=torch.where(late.reshape(-1, 1, 1, 1), torch.nan, self.adversarial),
            success=self.success & ~late,
            iterations=self.iterations.clamp_max(limit),
            l2=torch.where(late, then.l2, self.l2),
            l2_paper=torch.where(late, then.l2_paper, self.l2_paper),
            adversarial_logits=torch.where(late[:, None], then.logits, self.adversarial_logits),
            reasons=tuple(
                REASONS[LIMIT] if was_late else reason
                for was_late, reason in zip(late.tolist(), self.reasons, strict=True)
            ),
            trace=None,
            snapshots={},
        )
