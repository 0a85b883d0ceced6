"""What an attack returns."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from pkgutil import resolve_name
from typing import TYPE_CHECKING

import torch

from tkmia_utils.attacks import AttackSpec
from tkmia_utils.engine.tensor_file import Tensors, read_tensors, write_tensors
from tkmia_utils.measures import MEASURES, measure_changes

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

FORMAT = "tkmia result 1"
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
    success : torch.Tensor
        Bool ``(N,)``: do these logits succeed? An image goes on in spite of that only in an
        arithmetic other than plain fp32, whose own logits did not say so.
    """

    logits: torch.Tensor
    l2: torch.Tensor
    l2_paper: torch.Tensor
    success: torch.Tensor


@dataclass(frozen=True, repr=False)
class AttackResult:
    """What an attack returns, all tensors on the CPU and in the order of the images given.

    Printed, it is a summary of five lines.

    Attributes
    ----------
    adversarial : torch.Tensor or None
        float32 ``(N, 3, H, W)`` in [0, 1]: the first image that succeeded, or the last one tried.
        None with ``keep_images=False``.
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
    spec : AttackSpec or None
        What was asked for, one row an image: labels, S, k, delta, max_iter, lr, alpha, momentum.
    method : str
        Name of the attack.
    trace : Trace or None
        With ``record=True``.
    snapshots : dict of int to Snapshot
        By iteration, as asked for; see :meth:`at`.
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
        success, adversarial = torch.where(late, then.success, self.success), self.adversarial
        if adversarial is not None:
            adversarial = torch.where(late.reshape(-1, 1, 1, 1), torch.nan, adversarial)
        spec = self.spec
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
            trace=None,
            snapshots={},
        )

    @property
    def untouched(self) -> torch.Tensor:
        """Successes without an attack, bool ``(N,)``: the clean image met the condition."""
        return self.success & (self.iterations == 0)

    def __len__(self) -> int:
        """How many images were attacked."""
        return len(self.success)

    def __repr__(self) -> str:
        """Summarise it in five lines, without a tensor."""
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
        falls = self._falls()
        if falls is not None:
            said = ", ".join(f"{name} {float(falls[f'Delta {name}'].nanmean()):.3g}"
                             for name in MEASURES)  # fmt: skip
            lines.append(f"  measures    fall by {said}; mean of all images")
        return "\n".join(lines)

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
            (clean minus adversarial; NaN where logits are not finite).

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
        spec, falls = self.spec, self._falls()
        if spec is not None and falls is not None:
            table |= {"k": spec.k.numpy(), "s": spec.specified.sum(-1).numpy()}
            for name in ("delta", "max_iter", "lr", "alpha"):
                table[name] = getattr(spec, name).numpy()
            table |= {name: values.numpy() for name, values in falls.items()}
        return pd.DataFrame(table)

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
        tensors = {name: t for name in COLUMNS if (t := getattr(self, name)) is not None}
        tensors["reasons"] = torch.tensor([REASONS.index(reason) for reason in self.reasons])
        parts: dict[str, AttackSpec | Trace | Snapshot | None]
        parts = {"spec": self.spec, "trace": self.trace}
        parts |= {f"snapshot {limit}": snapshot for limit, snapshot in self.snapshots.items()}
        for part, held in parts.items():
            if held is not None:
                tensors |= {
                    f"{part} {name}": value
                    for name, value in vars(held).items()
                    if isinstance(value, torch.Tensor)
                }
        header = {
            "method": self.method,
            "k_max": None if self.spec is None else self.spec.k_max,
            "trace": self.trace is not None,
            "snapshots": list(self.snapshots),
        }
        return write_tensors(path, tensors, kind=FORMAT, metadata={"header": json.dumps(header)})

    @classmethod
    def load(cls, path: str | Path) -> "AttackResult":
        """Read what :meth:`save` wrote, equal to the bit.

        Raises
        ------
        ValueError
            There is no such file, or it is broken, or it holds something else.
        """
        if not Path(path).is_file():
            raise ValueError(f"path: there is no file {path}")
        try:
            tensors, metadata = read_tensors(path, kind=FORMAT)
            header = json.loads(metadata["header"])

            def part(name: str) -> Tensors:
                start = f"{name} "
                return {n[len(start) :]: t for n, t in tensors.items() if n.startswith(start)}

            k_max, by_code = header["k_max"], dict(enumerate(REASONS))
            result = cls(
                **{name: tensors[name] for name in COLUMNS[1:]},
                adversarial=tensors.get("adversarial"),
                reasons=tuple(by_code[code] for code in tensors["reasons"].tolist()),
                spec=None if k_max is None else AttackSpec(**part("spec"), k_max=k_max),
                method=header["method"],
                trace=Trace(**part("trace")) if header["trace"] else None,
                snapshots={i: Snapshot(**part(f"snapshot {i}")) for i in header["snapshots"]},
            )
            _check_rows(result)
            return result
        except (KeyError, IndexError, TypeError, ValueError, RecursionError) as error:
            raise ValueError(f"path: {path} is not a whole, saved AttackResult ({error})") from None

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


COLUMNS = (
    "adversarial", "success", "iterations", "l2", "l2_paper", "clean_logits", "adversarial_logits",
)  # fmt: skip


def _check_rows(result: AttackResult) -> None:
    """Refuse a result whose fields do not fit together: another program may have written it."""
    n, classes = result.clean_logits.shape
    rows: dict[str, tuple[torch.Tensor, torch.dtype, tuple[int, ...]]] = {
        "success": (result.success, torch.bool, (n,)),
        "iterations": (result.iterations, torch.int64, (n,)),
        "l2": (result.l2, torch.float32, (n,)),
        "l2_paper": (result.l2_paper, torch.float32, (n,)),
        "clean_logits": (result.clean_logits, torch.float32, (n, classes)),
        "adversarial_logits": (result.adversarial_logits, torch.float32, (n, classes)),
    }
    if result.spec is not None:
        for name in ("labels", "specified"):
            rows[name] = (getattr(result.spec, name), torch.bool, (n, classes))
        for name in ("k", "delta", "max_iter"):
            rows[name] = (getattr(result.spec, name), torch.int64, (n,))
    for name, (value, dtype, shape) in rows.items():
        kind = torch.float32 if value.is_floating_point() else value.dtype
        if kind != dtype or value.shape != shape:
            raise ValueError(f"{name} is {value.dtype} of shape {tuple(value.shape)}")
    if len(result.reasons) != n or not isinstance(result.method, str):
        raise ValueError("its header does not fit its tensors")


def _spread(values: torch.Tensor) -> tuple[float, float, float]:
    """Least, median (the lower where there are two) and greatest."""
    ordered = values.double().sort().values
    return float(ordered[0]), float(ordered[(len(ordered) - 1) // 2]), float(ordered[-1])
