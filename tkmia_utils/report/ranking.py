"""The ranking list of one image: scores, the labels that are relevant and specified, and k."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch

from tkmia_utils.measures import MEASURES
from tkmia_utils.topk import in_top_k
from tkmia_utils.validation import check_k, check_mask, check_scores

Kind = Literal["specified", "relevant", "irrelevant"]


@dataclass(frozen=True)
class Ranking:
    """What a figure or sentence about the top k of one image needs.

    Attributes
    ----------
    logits : torch.Tensor
        Floating ``(C,)``.
    relevant, specified : torch.Tensor
        Bool ``(C,)``: Y_p and S.
    k : int
        Of the top k, in ``1 .. C``.
    classes : sequence of str
        C names.

    Raises
    ------
    ValueError
        Wrong shapes or dtypes, k out of range, or not C names.
    """

    logits: torch.Tensor
    relevant: torch.Tensor
    specified: torch.Tensor
    k: int
    classes: Sequence[str]

    def __post_init__(self) -> None:
        """Check the arguments."""
        check_scores(self.logits, name="logits")
        if self.logits.ndim != 1:
            raise ValueError(f"logits: expected shape (C,), got {tuple(self.logits.shape)}")
        check_mask(self.relevant, self.logits, name="relevant")
        check_mask(self.specified, self.logits, name="specified")
        check_k(self.k, low=1, high=len(self.logits))
        if len(self.classes) != len(self.logits):
            raise ValueError(
                f"classes: expected {len(self.logits)} names, one a logit, got {len(self.classes)}"
            )

    @property
    def order(self) -> list[int]:
        """Labels by falling score; of equal scores the first comes first."""
        return self.logits.argsort(descending=True, stable=True).tolist()

    @property
    def shown(self) -> torch.Tensor:
        """Bool ``(C,)``: the labels in the top k; a tie counts for the label."""
        return in_top_k(self.logits, self.k)

    @property
    def measures(self) -> dict[str, float]:
        """TkAcc, P@k, AP@k and NDCG@k."""
        logits, relevant = self.logits[None], self.relevant[None]
        return {name: float(f(logits, relevant, self.k)[0]) for name, f in MEASURES.items()}

    def kind(self, label: int) -> Kind:
        """What a label is to the attack; one of S is called specified, though relevant too."""
        if self.specified[label]:
            return "specified"
        return "relevant" if self.relevant[label] else "irrelevant"

    def named(self, labels: Sequence[int]) -> tuple[tuple[str, Kind], ...]:
        """Names of labels, each with its kind."""
        return tuple((self.classes[label], self.kind(label)) for label in labels)

    def scored(self, logits: torch.Tensor) -> "Ranking":
        """The same image with other scores, for instance after an attack."""
        return replace(self, logits=logits)


def saved_ranking(arrays: Mapping[str, np.ndarray], classes: Sequence[str]) -> Ranking:
    """Clean ranking of one example, a row of what an attack's ``examples`` file holds."""
    names = ("clean_logits", "labels", "specified")
    logits, relevant, specified = (torch.as_tensor(arrays[name]) for name in names)
    return Ranking(logits, relevant, specified, int(arrays["k"]), classes)
