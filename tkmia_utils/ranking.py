"""The ranking list of one image: scores, the labels that are relevant and specified, and k."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from tkmia_utils.validation import check_k, check_mask, check_scores

KINDS = ("specified", "relevant", "irrelevant")


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

    def kind(self, label: int) -> str:
        """One of :data:`KINDS`."""
        return KINDS[0 if self.specified[label] else 1 if self.relevant[label] else 2]

    def scored(self, logits: torch.Tensor) -> "Ranking":
        """The same image with other scores, for instance after an attack."""
        return replace(self, logits=logits)
