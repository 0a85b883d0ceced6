"""A slider over the recorded steps of an attack; what it shows is a pure function of the step."""

import io
from dataclasses import dataclass

import ipywidgets
import matplotlib.pyplot as plt
import torch
from matplotlib.figure import Figure

from tkmia_utils.report import figures
from tkmia_utils.report.ranking import Kind, Ranking
from tkmia_utils.validation import check_scores


@dataclass(frozen=True)
class Steps:
    """One image's attack, iterate by iterate.

    Attributes
    ----------
    images : torch.Tensor
        ``(T, 3, H, W)`` in [0, 1]; entry 0 is the clean image.
    logits : torch.Tensor
        ``(T, C)``.
    ranking : Ranking
        Of the clean image.
    """

    images: torch.Tensor
    logits: torch.Tensor
    ranking: Ranking

    def __post_init__(self) -> None:
        """Check the arguments."""
        check_scores(self.logits, name="logits", finite=True)
        wanted = (len(self.images), len(self.ranking.classes))
        if self.logits.shape != wanted:
            raise ValueError(
                f"logits: expected shape {wanted}, a row an image, got {tuple(self.logits.shape)}"
            )


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

    top: tuple[tuple[str, Kind], ...]
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
    ranking = steps.ranking.scored(steps.logits[step])
    out = (ranking.specified & ~ranking.shown).nonzero().flatten().tolist()
    l2 = float((steps.images[step] - steps.images[0]).norm())
    return View(
        top=ranking.named(ranking.order[: ranking.k]),
        excluded=tuple(ranking.classes[c] for c in out),
        measures=ranking.measures,
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
    shown = figures.magnified(clean, steps.images[step], factor=factor)
    figures.show_image(axes["perturbation"], shown, f"perturbation ×{factor:g}")
    figures.show_image(axes["image"], steps.images[step], f"step {step}, ‖ε‖ = {seen.l2_paper:.2f}")
    figures.show_list(axes["list"], steps.ranking.scored(steps.logits[step]))
    axes["list"].set_title(figures.two_lines(seen.measures), fontsize=10)
    figures.rank_paths(steps.ranking, steps.logits, ax=axes["ranks"])
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
