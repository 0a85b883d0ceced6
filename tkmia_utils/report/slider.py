"""A slider over the recorded steps of an attack; what it shows is a pure function of the step."""

import io
from dataclasses import dataclass

import ipywidgets
import matplotlib.pyplot as plt
import torch
from matplotlib.figure import Figure

from tkmia_utils.measures import MEASURES
from tkmia_utils.report import figures
from tkmia_utils.topk import in_top_k
from tkmia_utils.validation import check_k, check_mask, check_scores


@dataclass(frozen=True)
class Steps:
    """One image's attack, iterate by iterate.

    Attributes
    ----------
    images : torch.Tensor
        ``(T, 3, H, W)`` in [0, 1]; entry 0 is the clean image.
    logits : torch.Tensor
        ``(T, C)``.
    relevant, specified : torch.Tensor
        Bool ``(C,)``: Y_p and S.
    k : int
        Of the top k.
    classes : tuple of str
        C names.
    """

    images: torch.Tensor
    logits: torch.Tensor
    relevant: torch.Tensor
    specified: torch.Tensor
    k: int
    classes: tuple[str, ...]

    def __post_init__(self) -> None:
        check_scores(self.logits, name="logits", finite=True)
        for name in ("relevant", "specified"):
            check_mask(getattr(self, name), self.logits[0], name=name)
        check_k(self.k, low=1, high=self.logits.shape[1])
        if len(self.images) != len(self.logits):
            raise ValueError(f"images: expected {len(self.logits)} of them, got {len(self.images)}")
        if len(self.classes) != self.logits.shape[1]:
            raise ValueError(f"classes: expected {self.logits.shape[1]}, got {len(self.classes)}")


@dataclass(frozen=True)
class View:
    """What the slider shows of one step.

    Attributes
    ----------
    top : tuple of (str, str)
        The k highest labels, best first, each with its kind: specified, relevant or irrelevant.
    excluded : tuple of str
        Specified labels that are out of the top k.
    measures : dict of str to float
        TkAcc, P@k, AP@k, NDCG@k at this step.
    l2, l2_paper : float
        Norm of the perturbation in [0, 1] and in [-1, 1] pixels.
    """

    top: tuple[tuple[str, str], ...]
    excluded: tuple[str, ...]
    measures: dict[str, float]
    l2: float
    l2_paper: float


def view(steps: Steps, step: int) -> View:
    """What there is to see at one step.

    Parameters
    ----------
    steps : Steps
        The record.
    step : int
        0 (the clean image) to T - 1.

    Returns
    -------
    View

    Raises
    ------
    ValueError
        A step outside the record.
    """
    if not 0 <= step < len(steps.logits):
        raise ValueError(f"step: expected 0 <= step < {len(steps.logits)}, got {step}")
    logits = steps.logits[step]
    best = logits.argsort(descending=True)[: steps.k].tolist()
    out = (steps.specified & ~in_top_k(logits, steps.k)).nonzero().flatten().tolist()
    l2 = float((steps.images[step] - steps.images[0]).norm())
    return View(
        top=tuple(
            (steps.classes[c], figures.kind(c, steps.relevant, steps.specified)) for c in best
        ),
        excluded=tuple(steps.classes[c] for c in out),
        measures={
            name: float(measure(logits[None], steps.relevant[None], steps.k)[0])
            for name, measure in MEASURES.items()
        },
        l2=l2,
        l2_paper=2 * l2,
    )


def draw(steps: Steps, step: int) -> Figure:
    """Draw one step: perturbation, adversarial image, ranking list, and the ranks so far."""
    seen, clean = view(steps, step), steps.images[0]
    fig, axes = plt.subplots(1, 4, figsize=(15, 4.6), width_ratios=(1, 1, 0.8, 2))
    figures.show_image(axes[0], figures.magnified(clean, steps.images[step]), "perturbation ×100")
    figures.show_image(
        axes[1], steps.images[step], f"step {step}, ‖ε‖ = {seen.l2_paper:.2f} (paper's pixels)"
    )
    values = [f"{name} {value:.2f}" for name, value in seen.measures.items()]
    figures.show_list(
        axes[2], steps.logits[step], steps.relevant, steps.specified, steps.k, steps.classes,
        title="  ".join(values[:2]) + "\n" + "  ".join(values[2:]),
    )  # fmt: skip
    figures.rank_paths(
        steps.logits, steps.relevant, steps.specified, steps.k, steps.classes, ax=axes[3]
    )
    axes[3].axvline(step, color="black", linestyle=":")
    return fig


def picture(steps: Steps, step: int) -> bytes:
    """Render :func:`draw` as the bytes of a PNG."""
    fig, buffer = draw(steps, step), io.BytesIO()
    fig.savefig(buffer, format="png", dpi=80)
    plt.close(fig)
    return buffer.getvalue()


def slider(steps: Steps) -> ipywidgets.Widget:
    """Build a slider that shows :func:`draw` for the step it stands at.

    Parameters
    ----------
    steps : Steps
        The record.

    Returns
    -------
    ipywidgets.Widget
        A slider over a picture. It holds the picture itself rather than captured output, which a
        headless run may wait for in vain.
    """
    last = len(steps.logits) - 1
    handle = ipywidgets.IntSlider(0, 0, last, description="step", continuous_update=False)
    shown = ipywidgets.Image(value=picture(steps, 0), format="png")

    def move(change: dict[str, int]) -> None:
        shown.value = picture(steps, change["new"])

    handle.observe(move, names="value")
    return ipywidgets.VBox([handle, shown])
