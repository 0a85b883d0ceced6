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
    """Draw one step: perturbation, adversarial image, ranking list, and the ranks of all steps.

    The norm ‖ε‖ is in the paper's [-1, 1] pixels.
    """
    seen, clean = view(steps, step), steps.images[0]
    # one factor for all steps, so that the perturbation is seen to grow
    factor = figures.magnification(clean, steps.images[-1])
    fig, axes = plt.subplot_mosaic(
        [["perturbation", "list", "ranks"], ["image", "list", "ranks"]],
        figsize=(10, 5), width_ratios=(1, 0.95, 1.9),
    )  # fmt: skip
    lists = (steps.relevant, steps.specified, steps.k, steps.classes)
    shown = figures.magnified(clean, steps.images[step], factor=factor)
    figures.show_image(axes["perturbation"], shown, f"perturbation ×{factor:g}")
    figures.show_image(axes["image"], steps.images[step], f"step {step}, ‖ε‖ = {seen.l2_paper:.2f}")
    values = [f"{name} {value:.2f}" for name, value in seen.measures.items()]
    figures.show_list(axes["list"], steps.logits[step], *lists)
    axes["list"].set_title("  ".join(values[:2]) + "\n" + "  ".join(values[2:]), fontsize=10)
    figures.rank_paths(steps.logits, *lists, ax=axes["ranks"])
    axes["ranks"].axvline(step, color="black", linestyle=":")
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
        A slider above a picture. The widget holds the picture itself, because captured output may
        never arrive where no browser is connected.
    """
    last = len(steps.logits) - 1
    handle = ipywidgets.IntSlider(0, 0, last, description="step", continuous_update=False)
    shown = ipywidgets.Image(value=picture(steps, 0), format="png")

    def move(change: dict[str, int]) -> None:
        shown.value = picture(steps, change["new"])

    handle.observe(move, names="value")
    return ipywidgets.VBox([handle, shown])
