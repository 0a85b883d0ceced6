"""One image of an attack's result, before and after."""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import torch
from matplotlib.figure import Figure

from tkmia_utils.engine.result import AttackResult
from tkmia_utils.report.figures import kinds_legend, magnified, show_image, show_list
from tkmia_utils.report.ranking import Ranking


def plot_result(
    result: AttackResult,
    i: int,
    image: torch.Tensor,
    *,
    classes: Sequence[str] | None = None,
    factor: float | None = None,
) -> Figure:
    """Draw the clean image, the adversarial one, the perturbation and both ranking lists.

    Parameters
    ----------
    result : AttackResult
        With its images and its :attr:`~tkmia_utils.AttackResult.spec`.
    i : int
        Which image of the result.
    image : torch.Tensor
        Clean, ``(3, H, W)`` in [0, 1]: a result does not keep it.
    classes : sequence of str, optional
        C names; default "label 0" and so on.
    factor : float, optional
        How much the perturbation is magnified; default so that its largest value just fits.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ValueError
        No such image, an image of another shape, a wrong number of names, a factor that is not
        positive, or a result without images or without its spec.
    """
    if isinstance(i, bool) or not isinstance(i, int) or not -len(result) <= i < len(result):
        raise ValueError(f"i: expected a position in 0 .. {len(result) - 1}, got {i!r}")
    if result.adversarial is None or result.spec is None:
        raise ValueError("result: its images or its spec were not kept; attack with keep_images")
    after, spec = result.adversarial[i], result.spec
    if not isinstance(image, torch.Tensor) or image.shape != after.shape:
        got = tuple(image.shape) if isinstance(image, torch.Tensor) else type(image).__name__
        raise ValueError(f"image: expected shape {tuple(after.shape)}, got {got}")
    if not image.is_floating_point() or not bool(((image >= 0) & (image <= 1)).all()):
        raise ValueError(f"image: expected floating values in [0, 1], got {image.dtype}")
    n_classes = spec.labels.shape[1]
    names = [f"label {c}" for c in range(n_classes)] if classes is None else list(classes)
    ranking = Ranking(
        result.clean_logits[i], spec.labels[i], spec.specified[i], int(spec.k[i]), names
    )
    before = image.detach().cpu().float()
    largest = float((after - before).abs().nan_to_num().max())
    if factor is None:
        factor = float(f"{0.5 / largest:.1g}") if largest > 0 else 1.0
    if not factor > 0:
        raise ValueError(f"factor: expected a number > 0, got {factor!r}")
    fig, axes = plt.subplots(
        1, 5, figsize=(14, 3.6), width_ratios=(1, 1, 1, 1.1, 1.1), layout="constrained"
    )
    show_image(axes[0], before, "clean")
    verdict = "" if result.success[i] else f", FAILED ({result.reasons[i]})"
    show_image(axes[1], after, f"attacked{verdict}")
    title = f"perturbation ×{factor:g}, L2 {float(result.l2[i]):.3g}"
    show_image(axes[2], magnified(before, after, factor=factor), title)
    show_list(axes[3], ranking, title="clean ranking")
    show_list(axes[4], ranking.scored(result.adversarial_logits[i]), title="attacked ranking")
    kinds_legend(axes[1], loc="upper center", bbox_to_anchor=(0.5, -0.02), ncol=3)
    if result.method:
        fig.suptitle(f"{result.method}, {int(result.iterations[i])} iterations")
    return fig
