"""Promises of the ranking list of one image."""

import pytest
import torch

from tkmia_utils.report.ranking import Ranking

GIVEN = {
    "logits": torch.tensor([0.1, 3.0, 0.1, -1.0]),
    "relevant": torch.tensor([True, True, False, False]),
    "specified": torch.tensor([False, True, False, False]),
    "k": 2,
    "classes": ("a", "b", "c", "d"),
}


def test_labels_are_ordered_by_score_and_have_a_kind():
    ranking = Ranking(**GIVEN)
    assert ranking.order == [1, 0, 2, 3]
    assert [ranking.kind(c) for c in range(4)] == [
        *("relevant", "specified", "irrelevant", "irrelevant")
    ]
    after = ranking.scored(torch.tensor([0.1, -3.0, 0.1, 1.0]))
    assert after.order == [3, 0, 2, 1] and after.kind(1) == "specified"
    assert after.named([1, 3]) == (("b", "specified"), ("d", "irrelevant"))


def test_a_tie_across_the_boundary_shows_both_labels():
    tied = Ranking(**GIVEN)
    assert tied.shown.tolist() == [True, True, True, False] and tied.order[: tied.k] == [1, 0]


def test_the_measures_are_those_of_the_scores():
    after = Ranking(**GIVEN).scored(torch.tensor([0.1, -3.0, 0.2, 1.0]))
    assert after.measures == {"TkAcc": 0.0, "P@k": 0.0, "AP@k": 0.0, "NDCG@k": 0.0}
    assert after.scored(torch.tensor([0.3, -3.0, 0.2, 1.0])).measures["P@k"] == 0.5


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("logits", torch.zeros(1, 4)),
        ("relevant", torch.zeros(4)),
        ("specified", torch.zeros(3, dtype=torch.bool)),
        ("k", 5),
        ("classes", ("a", "b")),
    ],
)
def test_what_makes_no_ranking_is_refused_by_name(name, value):
    with pytest.raises(ValueError, match=f"^{name}:"):
        Ranking(**{**GIVEN, name: value})
