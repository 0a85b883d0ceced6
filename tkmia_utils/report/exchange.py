"""Which labels left the top k of one image, which came in, and how the measures changed.

Notebooks describe single images with these sentences. They are made from the numbers, because
another seed or another machine makes another victim, on which an attack has another effect.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from tkmia_utils.measures import precision_at_k
from tkmia_utils.report.ranking import Kind, Ranking

Named = tuple[tuple[str, Kind], ...]


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


def exchange(ranking: Ranking, after: torch.Tensor) -> Exchange:
    """Compare the top k of one image before and after an attack.

    Parameters
    ----------
    ranking : Ranking
        Of the clean image.
    after : torch.Tensor
        Logits of the attacked one, ``(C,)``.

    Returns
    -------
    Exchange
        Its ``str`` is the sentences for a reader.

    Raises
    ------
    ValueError
        NaN among the logits, or logits of another shape.
    """
    pair = ranking, ranking.scored(after)
    before, attacked = (one.shown for one in pair)
    outside = ~before & ~ranking.specified
    freed = int((ranking.specified & before).sum())
    line = _best_first(ranking, outside & ranking.relevant)[max(freed, 1) - 1 :][:1]
    first = _best_first(ranking, outside & ~ranking.relevant)[:1]
    rivals = line + first if line and first else []
    waiting, intruder = (ranking.classes[c] for c in rivals) if rivals else ("", "")
    measured = [one.measures for one in pair]
    return Exchange(
        k=ranking.k,
        left=ranking.named(_best_first(pair[0], before & ~attacked)),
        entered=ranking.named(_best_first(pair[1], attacked & ~before)),
        stayed=tuple(
            ranking.classes[c] for c in _best_first(pair[1], attacked & ranking.specified)
        ),
        hits=(_hits(pair[0]), _hits(pair[1])),
        measures={name: (value, measured[1][name]) for name, value in measured[0].items()},
        waiting=waiting,
        intruder=intruder,
        lead=(_gap(pair[0], rivals), _gap(pair[1], rivals)),
    )


def _joined(names: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


def _best_first(ranking: Ranking, mask: torch.Tensor) -> list[int]:
    return [c for c in ranking.order if mask[c]]


def _gap(ranking: Ranking, rivals: Sequence[int]) -> float:
    """Score of the first of two labels minus that of the second; 0 where there is no such pair."""
    return float(ranking.logits[rivals[0]] - ranking.logits[rivals[1]]) if rivals else 0.0


def _hits(ranking: Ranking) -> str:
    """Hit pattern under the measures' own rule for ties: P@i tells how many hits i places hold."""
    scores, relevant = ranking.logits[None], ranking.relevant[None]
    found = [
        round(i * float(precision_at_k(scores, relevant, i)[0])) for i in range(1, ranking.k + 1)
    ]
    return "".join("✓" if n > m else "✗" for m, n in zip([0, *found], found, strict=False))
