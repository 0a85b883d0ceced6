"""The least hit patterns: all of them, no other, and as the measures have it."""

import math
from itertools import product

import pytest
import recheck
import torch

from tkmia_utils.condition import EXACT_K, STOPS, Stop, least_patterns
from tkmia_utils.measures import MEASURES

ALL = Stop(measures=tuple(MEASURES))


def named(pattern):
    """ "101" as least_patterns takes it."""
    return tuple(sign == "1" for sign in pattern)


def places(pattern):
    return tuple(place for place, hit in enumerate(pattern, start=1) if hit)


def values(pattern, attainable):
    """The measures of a list of these hits, by the judge's code."""
    k = len(pattern)
    labels = [*pattern, *[True] * (attainable - sum(pattern)), *[False] * k]
    scores = [float(len(labels) - place) for place in range(len(labels))]
    return {name: measure(scores, labels, k) for name, measure in recheck.MEASURES.items()}


def no_worse(pattern, clean, attainable, measures, tolerance=0.0):
    now, was = values(pattern, attainable), values(clean, attainable)
    return all(now[name] >= was[name] - tolerance - 1e-12 for name in measures)


def covers(pattern, least):
    """Is the j-th hit of `least` reached, for every j?"""
    return len(pattern) >= len(least) and all(a <= b for a, b in zip(pattern, least, strict=False))


def above(least, everything):
    """Which of these patterns reach one of the least."""
    return {places(p) for p in everything if any(covers(places(p), q) for q in least)}


@pytest.mark.parametrize("tolerance", [0.0, 0.11])
@pytest.mark.parametrize(
    "measures", [*((name,) for name in MEASURES), ("P@k", "AP@k"), ALL.measures]
)
def test_the_patterns_are_those_of_a_naive_enumeration(measures, tolerance):
    stop = Stop(measures=measures, tolerance=tolerance)
    for k in (1, 2, 3, 4, 5):
        for attainable in range(1, k + 1):
            everything = [p for p in product([True, False], repeat=k) if sum(p) <= attainable]
            for clean in everything:
                allowed = {
                    places(p)
                    for p in everything
                    if no_worse(p, clean, attainable, measures, tolerance)
                }
                least = least_patterns(clean, attainable, stop)
                assert len(set(least)) == len(least) and set(least) <= allowed
                # complete: what is allowed is what lies above one of them
                reached = {
                    places(p) for p in everything if any(covers(places(p), q) for q in least)
                }
                assert reached == allowed
                # minimal: none lies above another
                assert not any(covers(p, q) for p in least for q in least if p != q)


def test_at_k_10_they_are_those_of_a_naive_enumeration():
    clean, attainable = named("1101001000"), 10
    measures = tuple(MEASURES)
    everything = list(product([True, False], repeat=10))
    was = values(clean, attainable)
    allowed = {
        places(p)
        for p in everything
        if all(now >= was[name] - 1e-12 for name, now in values(p, attainable).items())
    }
    least = least_patterns(clean, attainable, Stop(measures=measures))
    assert above(least, everything) == allowed
    assert not any(covers(p, q) for p in least for q in least if p != q)


def test_two_lower_hits_may_stand_for_one_at_the_top():
    """100 -> 011: three relevant labels, AP@3 1/3 -> (1/2 + 2/3)/3, and NDCG@3 rises too."""
    clean, other = named("100"), named("011")
    for name in MEASURES:
        assert no_worse(other, clean, 3, [name])
    assert values(other, 3)["AP@k"] == pytest.approx((1 / 2 + 2 / 3) / 3)
    gain = 1 / math.log2(3) + 1 / math.log2(4)
    assert gain > 1 and values(other, 3)["NDCG@k"] == pytest.approx(gain / (gain + 1))
    assert set(least_patterns(clean, 3, ALL)) == {(1,), (2, 3)}
    # nothing of it holds where only one relevant label counts: there is no such list
    assert least_patterns(clean, 1, ALL) == ((1,),)


def test_two_relevant_labels_make_the_full_list_good_for_topk_accuracy_too():
    # attainable 2: 011 finds both, 100 one of two
    assert set(least_patterns(named("100"), 2, ALL)) == {(1,), (2, 3)}
    # with 011 clean, TkAcc is 1 and asks for both again
    assert least_patterns(named("011"), 2, ALL) == ((2, 3),)


@pytest.mark.parametrize(
    ("name", "expected"),
    [("excluded", {()}), ("refilled", {(2, 3)}), ("imperceptible", {(1, 3)})],
)
def test_by_name(name, expected):
    assert set(least_patterns(named("101"), 3, STOPS[name])) == expected


def test_refilled_is_precision_and_no_other_measure():
    assert STOPS["refilled"] == Stop(measures=("P@k",))
    assert STOPS["excluded"] == Stop() and STOPS["imperceptible"] == ALL
    for k in (1, 2, 3, 6):
        for clean in product([True, False], repeat=k):
            lowest = tuple(range(k - sum(clean) + 1, k + 1))
            assert least_patterns(clean, k, STOPS["refilled"]) == (lowest,)


def test_beyond_twelve_places_only_the_clean_pattern_is_known():
    clean = tuple(torch.rand(EXACT_K + 1, generator=torch.Generator().manual_seed(0)) < 0.5)
    clean = tuple(map(bool, clean))
    assert least_patterns(clean, EXACT_K + 1, ALL) == (places(clean),)
    assert least_patterns(clean, EXACT_K + 1, Stop()) == ((),)
    assert len(least_patterns(named("100000000011"), EXACT_K, ALL)) > 1


def test_the_order_in_which_measures_are_named_does_not_matter():
    assert Stop(measures=("NDCG@k", "P@k")) == Stop(measures=("P@k", "NDCG@k"))
    assert Stop(measures="P@k") == STOPS["refilled"]


@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("measures", {"measures": ("recall",)}),
        ("tolerance", {"tolerance": -0.1}),
        ("tolerance", {"tolerance": float("nan")}),
        ("tolerance", {"tolerance": float("inf")}),
        ("tolerance", {"tolerance": True}),
        ("tolerance", {"tolerance": "0"}),
    ],
)
def test_a_stop_that_cannot_be_is_refused(name, call):
    with pytest.raises(ValueError, match=f"^{name}:"):
        Stop(**call)
