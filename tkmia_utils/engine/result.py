"""What an attack returns."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from pkgutil import resolve_name
from typing import TYPE_CHECKING

import torch

from tkmia_utils.attacks import AttackSpec
from tkmia_utils.condition import Stop
from tkmia_utils.engine.ends import LIMIT, REASONS, SUCCESS, Snapshot, Trace
from tkmia_utils.engine.outcome import outcomes
from tkmia_utils.engine.png import save_png
from tkmia_utils.engine.result_file import read_result, write_result
from tkmia_utils.engine.trial import Trial
from tkmia_utils.measures import MEASURES, measure_changes
from tkmia_utils.tensor_file import Tensors

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure


@dataclass(frozen=True, repr=False)
class AttackResult:
    """What an attack returns, all tensors on the CPU and in the order of the images given.

    Printed, it is a summary of six lines, or of four where the labels are not known, and one more
    where a trial chose the victim's layout.

    Attributes
    ----------
    adversarial : torch.Tensor or None
        float32 ``(N, 3, H, W)`` in [0, 1]: the first image that succeeded (of an attack that goes
        on, the nearest), or the last one tried. None with ``keep_images=False``.
    success : torch.Tensor
        Bool ``(N,)``: at least delta specified labels are outside the top k of the logits of the
        very image that is returned, and all else that `stop` asks for holds of them.
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
        Why each image stopped: "success", "limit", "logits not finite", "gradient not finite",
        "infeasible" (no scores at all could meet the condition).
    spec : AttackSpec or None
        What was asked for, one row an image: labels, S, k, delta, max_iter, lr, alpha, momentum.
    method : str
        Name of the attack.
    stop : Stop
        What a success had to keep, beside hiding the labels.
    bits : int or None
        8: the images are whole grey levels n/255, and all logits are theirs.
    passes : int
        Backward passes an iteration, see :attr:`backward`.
    png_logits : torch.Tensor or None
        float32 ``(N, C)``: of the images as 8-bit files give them back. With
        ``Runtime(files=True)``.
    trace : Trace or None
        With ``record=True``.
    snapshots : dict of int to Snapshot
        By iteration, as asked for; see :meth:`at`.
    trial : Trial or None
        In which layout the victim was run, where a short trial chose it
        (:class:`~tkmia_utils.engine.runtime.Runtime`); not saved.
    """

    adversarial: torch.Tensor | None
    success: torch.Tensor
    iterations: torch.Tensor
    l2: torch.Tensor
    l2_paper: torch.Tensor
    clean_logits: torch.Tensor
    adversarial_logits: torch.Tensor
    reasons: tuple[str, ...]
    spec: AttackSpec | None = None
    method: str = ""
    stop: Stop = Stop()  # noqa: RUF009  (frozen, and so shared without harm)
    bits: int | None = None
    passes: int = 1
    png_logits: torch.Tensor | None = None
    trace: Trace | None = None
    snapshots: dict[int, Snapshot] = field(default_factory=dict)
    trial: Trial | None = None

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
        success, adversarial = torch.where(late, then.success, self.success), self.adversarial
        if adversarial is not None:
            adversarial = torch.where(late.reshape(-1, 1, 1, 1), torch.nan, adversarial)
        spec, png = self.spec, self.png_logits
        if png is not None:  # nobody looked at the file of an image that was still at work
            png = torch.where(late[:, None], torch.nan if self.bits is None else then.logits, png)
        if spec is not None:
            spec = replace(spec, max_iter=spec.max_iter.clamp_max(limit))
        return replace(
            self,
            adversarial=adversarial,
            success=success,
            iterations=self.iterations.clamp_max(limit),
            l2=torch.where(late, then.l2, self.l2),
            l2_paper=torch.where(late, then.l2_paper, self.l2_paper),
            adversarial_logits=torch.where(late[:, None], then.logits, self.adversarial_logits),
            reasons=tuple(
                REASONS[SUCCESS if won else LIMIT] if was_late else reason
                for was_late, won, reason in zip(
                    late.tolist(), success.tolist(), self.reasons, strict=True
                )
            ),
            spec=spec,
            png_logits=png,
            trace=None,
            snapshots={},
        )

    @property
    def backward(self) -> torch.Tensor:
        """Backward passes through the victim, int64 ``(N,)``: what an attack costs."""
        return self.iterations * self.passes

    @property
    def untouched(self) -> torch.Tensor:
        """Successes without an attack, bool ``(N,)``: the clean image met the condition."""
        return self.success & (self.iterations == 0)

    def __len__(self) -> int:
        """How many images were attacked."""
        return len(self.success)

    def __repr__(self) -> str:
        """Summarise it in a few lines, without a tensor."""
        n, won = len(self), self.success
        counts = [(name, self.reasons.count(name)) for name in REASONS]
        lines = [
            f"AttackResult: {self.method or 'an attack'} on {n} images, {int(won.sum())} succeeded "
            f"({won.double().mean():.1%}), {int(self.untouched.sum())} of them unchanged",
            "  ended by    " + ", ".join(f"{name}: {count}" for name, count in counts if count),
        ]
        at, who = (won, "successes") if won.any() else (~won, "failures")
        low, mid, high = _spread(self.l2[at])
        lines.append(
            f"  L2 norm     {mid:.3g} in [0, 1] pixels ({low:.3g} to {high:.3g}), "
            f"{_spread(self.l2_paper[at])[1]:.3g} in [-1, 1] pixels; median of the {who}"
        )
        low, mid, high = _spread(self.iterations[at])
        lines.append(f"  iterations  {mid:g} ({low:g} to {high:g}); median of the {who}")
        falls = self._falls
        if falls is not None:
            said = ", ".join(f"{name} {float(falls[f'Delta {name}'].nanmean()):.3g}"
                             for name in MEASURES)  # fmt: skip
            kept = self.outcomes()
            shares = ", ".join(
                f"{name} {float(values.double().nanmean()):.1%}" for name, values in kept.items()
            )
            lines.append(f"  measures    fall by {said}; mean of all images")
            lines.append(f"  of all      {shares}")
        if self.trial is not None:
            lines.append(f"  victim      {self.trial}")
        return "\n".join(lines)

    @cached_property
    def _falls(self) -> Tensors | None:
        """Measures before and after; None where labels or k are not known."""
        if self.spec is None:
            return None
        sets = (self.spec.labels, self.spec.specified, self.spec.k)
        return measure_changes(self.clean_logits, self.adversarial_logits, *sets)

    def to_frame(self, *, ids: Sequence[str] | None = None) -> "pd.DataFrame":
        """One row an image.

        Parameters
        ----------
        ids : sequence of str, optional
            Names of the images; default their positions.

        Returns
        -------
        pandas.DataFrame
            Columns ``image, method, success, iterations, reason, l2`` (norm in [0, 1] pixels),
            ``l2_paper`` (in [-1, 1] pixels) and, if the result has its :attr:`spec`, ``k, s``
            (``|S|``), ``delta, max_iter, lr, alpha, delta_l`` (specified labels of the clean top k
            that left it) and for every measure M ``M clean``, ``M adversarial`` and ``Delta M``
            (clean minus adversarial; NaN where logits are not finite), ``no measure fell`` (a
            success that left none lower) and, with :attr:`png_logits`, ``survives PNG`` and ``PNG
            and no measure fell`` (of the file: 1, 0, or NaN where it was not looked at).

        Raises
        ------
        ValueError
            Not one id an image.
        """
        import pandas as pd  # an attack alone does not wait for it

        if ids is not None and len(ids) != len(self):
            raise ValueError(f"ids: expected {len(self)} names, got {len(ids)}")
        table: dict[str, object] = {
            "image": range(len(self)) if ids is None else list(ids),
            "method": self.method,
            "success": self.success.numpy(),
            "iterations": self.iterations.numpy(),
            "reason": list(self.reasons),
            "l2": self.l2.numpy(),
            "l2_paper": self.l2_paper.numpy(),
        }
        spec, falls = self.spec, self._falls
        if spec is not None and falls is not None:
            table |= {"k": spec.k.numpy(), "s": spec.specified.sum(-1).numpy()}
            for name in ("delta", "max_iter", "lr", "alpha"):
                table[name] = getattr(spec, name).numpy()
            table |= {name: values.numpy() for name, values in falls.items()}
            table |= {name: values.numpy() for name, values in self.outcomes().items()}
        return pd.DataFrame(table)

    def outcomes(self) -> Tensors:
        """Which successes keep the promise, see :func:`tkmia_utils.engine.outcome.outcomes`.

        Raises
        ------
        ValueError
            The result has no :attr:`spec`.
        """
        falls = self._falls
        if self.spec is None or falls is None:
            raise ValueError("result: expected one with its spec")
        return outcomes(self.success, self.clean_logits, falls, self.png_logits, self.spec)

    def save_png(self, folder: str | Path, *, ids: Sequence[str] | None = None) -> list[Path]:
        """Write the adversarial images as PNG files, each read back and compared.

        Parameters
        ----------
        folder : str or Path
            Where; made if it is not there.
        ids : sequence of str, optional
            Names of the files, without the ending; default the positions, ``"0000"``.

        Returns
        -------
        list of Path

        Raises
        ------
        ValueError
            The images were not kept, or not one plain and different name an image.
        """
        if self.adversarial is None:
            raise ValueError("adversarial: the images were not kept (keep_images=False)")
        names = [f"{i:04d}" for i in range(len(self))] if ids is None else [str(i) for i in ids]
        if len(names) != len(self) or len(set(names)) != len(names):
            raise ValueError(f"ids: expected {len(self)} different names, got {len(set(names))}")
        bad = [name for name in names if not name or Path(name).name != name]
        if bad:
            raise ValueError(f"ids: expected plain names, got {bad[0]!r}")
        return save_png(self.adversarial, [Path(folder) / f"{name}.png" for name in names])

    def save(self, path: str | Path) -> Path:
        """Write everything into one safetensors file, atomically; :meth:`load` reads it.

        Parameters
        ----------
        path : str or Path
            The file, for instance ``"result.safetensors"``.

        Returns
        -------
        Path
            `path`.
        """
        return write_result(self, path)

    @classmethod
    def load(cls, path: str | Path) -> "AttackResult":
        """Read what :meth:`save` wrote, equal to the bit.

        Raises
        ------
        ValueError
            There is no such file, or it is broken, or it holds something else.
        """
        return cls(**read_result(path))

    def plot(
        self,
        i: int,
        image: torch.Tensor,
        *,
        classes: Sequence[str] | None = None,
        factor: float | None = None,
    ) -> "Figure":
        """Draw one image before and after, its perturbation and both ranking lists.

        Parameters
        ----------
        i, image, classes, factor
            As for :func:`tkmia_utils.report.result_figure.plot_result`.

        Returns
        -------
        matplotlib.figure.Figure
        """
        # by name, because the engine stands below the figures and does not depend on them
        draw: Callable[..., Figure] = resolve_name("tkmia_utils.report.result_figure:plot_result")
        return draw(self, i, image, classes=classes, factor=factor)


def _spread(values: torch.Tensor) -> tuple[float, float, float]:
    """Least, median (the lower where there are two) and greatest."""
    ordered = values.double().sort().values
    return float(ordered[0]), float(ordered[(len(ordered) - 1) // 2]), float(ordered[-1])
