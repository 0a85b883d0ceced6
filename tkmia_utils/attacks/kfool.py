"""kFool: Tursynbek et al., *Geometry-Inspired Top-k Adversarial Perturbations*, WACV 2022."""

import torch

from tkmia_utils.attacks.base import PIXEL_SCALE, Iterate, PixelDescent, State, column


class KFool(PixelDescent):
    """DeepFool for the top k, with one label that stands for all relevant ones.

    That label, y*, is the highest relevant label of the clean image. An iteration linearises the
    victim and steps along the sum of the unit normals ``w_j = grad f_j - grad f_y*`` of the k+1
    highest labels j, by the sum of the distances ``|f_j - f_y*| / ||w_j||`` to their boundaries.
    It has no learning rate, no momentum and no alpha, and knows of S only when to stop. An
    iteration costs k+1 backward passes, with the largest k of the queue.

    Parameters
    ----------
    overshoot : float
        The step is lengthened by this share; the reference has none.
    class_sum : {"sum", "mean"}
        Step by the sum of the distances, as the reference does, or by their mean.
    """

    watched = ("adversarial",)
    uses_lr = False

    def __init__(self, *, overshoot: float = 0.0, class_sum: str = "sum") -> None:
        super().__init__()
        if not isinstance(overshoot, int | float) or not 0 <= overshoot < float("inf"):
            raise ValueError(f"overshoot: expected a finite number >= 0, got {overshoot!r}")
        if class_sum not in ("sum", "mean"):
            raise ValueError(f"class_sum: expected 'sum' or 'mean', got {class_sum!r}")
        self.overshoot, self.class_sum = overshoot, class_sum

    def backward_passes(self, k_max: int) -> int:
        """One for each of the k+1 highest labels."""
        return k_max + 1

    def begin(self, images: torch.Tensor) -> State:
        """Start from eps = 0."""
        return {"adversarial": images.clone()}

    def step(self, point: Iterate, state: State) -> State:
        """Step over the k+1 boundaries at once."""
        images, logits, rows = point.images, point.logits, point.rows
        classes = logits.shape[-1]
        star = point.clean_logits.masked_fill(~rows.labels, -torch.inf).argmax(-1)
        order = logits.argsort(dim=-1, descending=True, stable=True)
        from_star = _one_hot(star, classes)
        normals, distances = torch.zeros_like(images), torch.zeros_like(rows.lr)
        counted = torch.zeros_like(rows.lr)
        # every row goes through as many labels as the largest k asks for; the rest weigh nothing
        for place in range(rows.k_max + 1):
            label = order[:, place]
            counts = ((place <= rows.k) & (label != star)).to(logits.dtype)
            w = PIXEL_SCALE * point.vjp(
                _one_hot(label, classes) - from_star, keep=place < rows.k_max
            )
            length = w.flatten(1).norm(dim=1).clamp_min(torch.finfo(w.dtype).tiny)
            gap = (logits.gather(1, label[:, None]) - logits.gather(1, star[:, None])).abs()
            normals = normals + column(counts / length) * w
            distances = distances + counts * gap.squeeze(1) / length
            counted = counted + counts
        if self.class_sum == "mean":
            distances = distances / counted.clamp_min(1)
        length = normals.flatten(1).norm(dim=1).clamp_min(torch.finfo(normals.dtype).tiny)
        step = column(PIXEL_SCALE * (1 + self.overshoot) * distances / length)
        return {"adversarial": torch.addcmul(state["adversarial"], step, normals).clamp_(0, 1)}


def _one_hot(label: torch.Tensor, classes: int) -> torch.Tensor:
    return torch.nn.functional.one_hot(label, classes).float()
