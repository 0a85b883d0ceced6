"""Promises of the sentences about one image: they follow the numbers."""

import pytest
import torch

from tkmia_utils.report.exchange import exchange
from tkmia_utils.report.ranking import Ranking

NAMES = ("cat", "table", "chair", "boat", "dog")
RELEVANT = torch.tensor([True, True, True, False, False])
SPECIFIED = torch.tensor([True, False, False, False, False])
CLEAN = [4.0, 3.0, 2.0, 2.5, 0.0]


def told(after: list[float], *, k: int = 2):
    clean = Ranking(torch.tensor(CLEAN), RELEVANT, SPECIFIED, k, NAMES)
    return exchange(clean, torch.tensor(after))


def test_a_relevant_label_in_the_freed_place_moves_no_measure():
    one = told([1.0, 3.0, 2.75, 2.5, 0.0])
    assert one.left == (("cat", "specified"),) and one.entered == (("chair", "relevant"),)
    assert one.hits == ("✓✓", "✓✓") and not one.moved and not one.stayed
    assert (one.waiting, one.intruder, one.lead) == ("chair", "boat", (-0.5, 0.25))
    assert str(one) == (
        "cat left the top 2; chair (relevant) came in. The hit pattern is ✓✓ as before, so no "
        "measure moved. On the clean image chair, the relevant label that has to come in, stood "
        "0.50 below boat, the best irrelevant label outside the top 2; on the attacked one it "
        "stands 0.25 above."
    )


def test_an_irrelevant_label_in_the_freed_place_is_a_hit_fewer():
    one = told([1.0, 3.0, 2.0, 2.5, 0.0])
    assert one.entered == (("boat", "irrelevant"),) and one.moved
    assert one.hits == ("✓✓", "✓✗") and one.measures["P@k"] == (1.0, 0.5)
    assert "from ✓✓ to ✓✗, 1 fewer: TkAcc 1.00 → 0.00, P@k 1.00 → 0.50" in str(one)
    assert str(one).endswith("it stands 0.50 below.")


def test_hits_on_other_places_are_told_from_fewer_hits():
    one = told([1.0, 3.0, 2.0, 3.5, 0.0])
    assert one.hits == ("✓✓", "✗✓") and "1 fewer" in str(one)
    clean = Ranking(torch.tensor([3.0, 4.0, 2.0, 2.5, 0.0]), RELEVANT, SPECIFIED, 3, NAMES)
    other = exchange(clean, torch.tensor([3.0, 2.0, 1.0, 3.5, 0.0]))
    assert other.hits == ("✓✓✗", "✗✓✓") and "as many hits on other places: AP@k" in str(other)
    assert "TkAcc" not in str(other)


def test_a_label_that_is_still_in_the_top_k_is_called_not_hidden():
    one = told([3.5, 3.0, 2.0, 2.5, 0.0])
    assert one.stayed == ("cat",) and not one.left
    assert str(one).startswith("The top 2 holds the labels that it held. Not hidden: cat.")
    tie = told([2.5, 3.0, 2.0, 2.5, 0.0])  # a tie counts for the label
    assert tie.stayed == ("cat",) and tie.entered == (("boat", "irrelevant"),)


def test_the_last_of_two_freed_places_decides_who_has_to_come_in():
    relevant = torch.tensor([True, True, True, True, False])
    specified = torch.tensor([True, True, False, False, False])
    logits = torch.tensor([5.0, 4.0, 3.0, 1.0, 2.0])
    one = exchange(Ranking(logits, relevant, specified, 2, NAMES), logits)
    assert (one.waiting, one.intruder) == ("boat", "dog") and one.lead == (-1.0, -1.0)


def test_without_an_irrelevant_label_outside_there_is_nobody_to_compare_with():
    relevant = torch.ones(5, dtype=torch.bool)
    logits = torch.tensor(CLEAN)
    one = exchange(Ranking(logits, relevant, SPECIFIED, 2, NAMES), logits)
    assert (one.waiting, one.intruder) == ("", "") and "irrelevant" not in str(one)


def test_logits_without_a_ranking_are_refused():
    with pytest.raises(ValueError, match="scores"):
        told([torch.nan, 3.0, 2.0, 2.5, 0.0])
