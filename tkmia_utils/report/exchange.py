"""Which labels left the top k of one image, which came in, and how the measures changed.

Notebooks describe single images with these sentences. They are made from the numbers, because
another seed or another machine makes another victim, on which an attack has another effect.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from tkmia_utils import measures
from tkmia_utils.measures import MEASURES
from tkmia_utils.report import figures
from tkmia_utils.topk import in_top_k

Named = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Exchange:
    """What an attack did to the top k of one image.

    Attributes
    ----------
    k : int
        Of the top k.
    left, entered : tuple of (str, str)
        Labels that left the top k and labels that came in, best first, each with its kind:
        specified, relevant or irrelevant.
    stayed : tuple of str
        Specified labels that are still in the top k.
    hits : tuple of (str, str)
        Hit pattern of the top k before and after, a ✓ or ✗ a place.
    measures : dict of str to (float, float)
        TkAcc, P@k, AP@k and NDCG@k before and after.
    waiting, intruder : str
        Of the labels outside the clean top k, the relevant one that has to come in for the last
        place that S frees, and the best irrelevant one; "" where there is no such pair.
    lead : tuple of (float, float)
        Score of `waiting` minus that of `intruder`, before and after.
    """

    k: int
    left: Named
    entered: Named
    stayed: tuple[str, ...]
    hits: tuple[str, str]
    measures: dict[str, tuple[float, float]]
    waiting: str
    intruder: str
    lead: tuple[float, float]

    @property
    def moved(self) -> bool:
        """Did any measure change?"""
        return any(abs(before - after) > 1e-12 for before, after in self.measures.values())

    def __str__(self) -> str:
        return " ".join([self._labels(), self._changes(), self._lead()]).strip()

    def _labels(self) -> str:
        gone = [name for name, _ in self.left]
        if not gone:
            text = f"The top {self.k} holds the labels that it held."
        else:
            text = f"{_joined(gone)} left the top {self.k}"
            new = [f"{name} ({kind})" for name, kind in self.entered]
            text += f"; {_joined(new)} came in." if new else "."
        if self.stayed:
            text += f" Not hidden: {_joined(self.stayed)}."
        return text

    def _changes(self) -> str:
        before, after = self.hits
        change = after.count("✓") - before.count("✓")
        if before == after:
            return f"The hit pattern is {before} as before, so no measure moved."
        words = [
            f"{name} {a:.2f} → {b:.2f}"
            for name, (a, b) in self.measures.items()
            if abs(a - b) > 1e-12
        ]
        count = f"{abs(change)} {'more' if change > 0 else 'fewer'}" if change else "as many hits"
        where = "" if change else " on other places"
        moves = ", ".join(words) or "no measure moved"
        return f"The hit pattern went from {before} to {after}, {count}{where}: {moves}."

    def _lead(self) -> str:
        if not (self.waiting and self.intruder):
            return ""
        (before, one), (after, other) = (
            (abs(lead), "above" if lead >= 0 else "below") for lead in self.lead
        )
        return (
            f"On the clean image {self.waiting}, the relevant label that has to come in, stood "
            f"{before:.2f} {one} {self.intruder}, the best irrelevant label outside the "
            f"top {self.k}; on the attacked one it stands {after:.2f} {other}."
        )


def exchange(
    before: torch.Tensor,
    after: torch.Tensor,
    relevant: torch.Tensor,
    specified: torch.Tensor,
    k: int,
    classes: Sequence[str],
) -> Exchange:
    """Compare the top k of one image before and after an attack.

    Parameters
    ----------
    before, after : torch.Tensor
        Logits ``(C,)``.
    relevant, specified : torch.Tensor
        Bool ``(C,)``: Y_p and S.
    k : int
        Of the top k.
    classes : sequence of str
        C names.

    Returns
    -------
    Exchange
        Its ``str`` is the sentences for a reader.

    Raises
    ------
    ValueError
        Logits that are not finite; shapes or dtypes that do not fit; k below 1.
    """
    shown = [in_top_k(logits, k) for logits in (before, after)]

    def named(mask: torch.Tensor, logits: torch.Tensor) -> Named:
        order = _best_first(logits, mask)
        return tuple((classes[c], figures.kind(c, relevant, specified)) for c in order)

    outside = ~shown[0] & ~specified
    freed = int((specified & shown[0]).sum())
    line = _best_first(before, outside & relevant)[max(freed, 1) - 1 :][:1]
    first = _best_first(before, outside & ~relevant)[:1]
    pair = line + first if line and first else []
    lead = tuple(float(f[pair[0]] - f[pair[1]]) if pair else 0.0 for f in (before, after))
    return Exchange(
        k=k,
        left=named(shown[0] & ~shown[1], before),
        entered=named(shown[1] & ~shown[0], after),
        stayed=tuple(name for name, _ in named(shown[1] & specified, after)),
        hits=(_hits(before, relevant, k), _hits(after, relevant, k)),
        measures={
            name: tuple(float(f(logits[None], relevant[None], k)[0]) for logits in (before, after))
            for name, f in MEASURES.items()
        },
        waiting=classes[pair[0]] if pair else "",
        intruder=classes[pair[1]] if pair else "",
        lead=lead,
    )


def _joined(names: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


def _best_first(scores: torch.Tensor, mask: torch.Tensor) -> list[int]:
    return [c for c in scores.argsort(descending=True).tolist() if mask[c]]


def _hits(scores: torch.Tensor, relevant: torch.Tensor, k: int) -> str:
    """Hit pattern under the measures' own rule for ties: P@i tells how many hits i places hold."""
    found = [
        round(i * float(measures.precision_at_k(scores[None], relevant[None], i)[0]))
        for i in range(1, k + 1)
    ]
    return "".join("✓" if n > m else "✗" for m, n in zip([0, *found], found, strict=False))
