"""A gap below the top k, and labels hidden deeper: by their definitions, ties included."""

import itertools
from dataclasses import replace

import pytest
import recheck
import torch
from test_condition import Case, attacked, draw

from tkmia_utils.condition import (
    Condition,
    DeepCondition,
    Stop,
    asked,
    condition,
    gaps,
    holds,
    margin,
    worst_pair,
)
from tkmia_utils.condition.gaps import excess, targets
from tkmia_utils.condition.order import order
from tkmia_utils.measures import MEASURES

STOPS = [
    Stop(gap=1.0),
    Stop(below=3),
    Stop(measures=("P@k",), gap=0.5),
    Stop(measures=tuple(MEASURES), below=2),
    Stop(measures=tuple(MEASURES), gap=1.25, below=1),
]


def gap_of(row, k):
    ranking = sorted(row, reverse=True)
    return ranking[k - 1] - ranking[k]


def plain(case: Case, scores: torch.Tensor, stop: Stop) -> torch.Tensor:
    """One image at a time: the measures, the rank of the labels, and the gap."""
    told = []
    for i, (row, k) in enumerate(zip(scores.tolist(), case.k.tolist(), strict=True)):
        sets = (case.labels[i].tolist(), case.specified[i].tolist())
        clean, delta, depth = case.clean[i].tolist(), int(case.delta[i]), k + stop.below
        kept = recheck.verdict(clean, row, *sets, k, delta).kept(stop.measures, stop.tolerance)
        out = sum(sum(f > row[label] for f in row) >= depth
                  for label, chosen in enumerate(sets[1]) if chosen)  # fmt: skip
        told.append(
            kept and out >= delta
            and (not stop.gap or gap_of(row, k) >= stop.gap * gap_of(clean, k))
        )  # fmt: skip
    return torch.tensor(told)


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("stop", STOPS, ids=str)
def test_it_holds_exactly_where_the_plain_definitions_do(stop, ties):
    seen = torch.zeros(2, dtype=torch.int64)
    for seed in range(30):
        case, g = draw(400 + seed, 25, ties=ties)
        asks = case.ask(stop)
        for push in (1.0, 4.0):
            scores = attacked(case, g, ties=ties, push=push)
            told = plain(case, scores, stop)
            assert torch.equal(holds(scores, asks), told)
            assert torch.equal(margin(scores, asks) > 0, told)
            assert not (told & ~asks.feasible).any()
            seen += torch.stack([told.sum(), (~told).sum()])
    assert seen.sum() == 1500 and seen.min() > 50


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_in_every_dtype_the_gap_is_exact_to_the_last_bit(dtype):
    """A gap that is just as large is enough, and one bit less is not; whatever else is large."""
    g = torch.Generator().manual_seed(1)
    n = 400
    high = torch.rand(n, generator=g).to(dtype) + 1
    wide = (0.5 + 3 * torch.rand(n, generator=g, dtype=torch.float64)).to(dtype)
    clean = torch.stack([high + 8, high + wide, high, high / 2, high / 4, high / 8], -1)
    labels = torch.tensor([[True, True, True, False, False, False]]).expand(n, -1)
    specified = torch.tensor([[True, False, False, False, False, False]]).expand(n, -1)
    asks = condition(clean, labels, specified, 2, stop=Stop(gap=1.0))
    wanted = clean[:, 1].double() - clean[:, 2].double()
    assert torch.equal(asks.gap, wanted)
    below = torch.rand(n, generator=g).to(dtype)
    place = (below.double() + wanted).to(dtype)
    seen = {}
    for step in (-1, 0, 1):
        toward = torch.full_like(place, step * torch.inf if step else 0)
        at = place if not step else torch.nextafter(place, toward)
        scores = torch.stack([below - 1, high + 40, at, below, below - 2, below - 3], -1)
        told = at.double() - below.double() >= wanted
        assert torch.equal(holds(scores, asks), told)
        assert torch.equal(margin(scores, asks) > 0, told)
        seen[step] = int(told.sum())
    assert seen[-1] == 0 < seen[0] and seen[1] == n


def test_a_gap_that_is_just_as_large_gives_the_least_positive_margin():
    labels = torch.tensor([[True, True, True, False, False]])
    specified = torch.tensor([[True, False, False, False, False]])
    clean = torch.tensor([[5.0, 4.0, 1.0, 2.0, 0.5]])  # f_[2] - f_[3] is 2
    asks = condition(clean, labels, specified, 2, stop=Stop(gap=0.5))

    def at(*row):
        scores = torch.tensor([row])
        return bool(holds(scores, asks)), float(margin(scores, asks))

    assert at(0.0, 6.0, 4.0, 3.0, 1.0) == (True, torch.finfo(torch.float32).tiny)
    assert at(0.0, 6.0, 4.5, 3.0, 1.0) == (True, 0.5)
    assert at(0.0, 6.0, 3.75, 3.0, 1.0) == (False, -0.25)
    assert at(3.0, 6.0, 3.75, 1.0, 1.0) == (False, -0.25)  # the hidden label is the next
    deep = condition(clean, labels, specified, 2, stop=Stop(below=1))
    assert holds(torch.tensor([[0.0, 6.0, 4.0, 3.0, 0.0]]), deep).item()
    assert not holds(torch.tensor([[3.0, 6.0, 4.0, 3.0, 0.0]]), deep).item()  # a tie is not out
    assert not holds(torch.tensor([[3.5, 6.0, 4.0, 3.0, 0.0]]), deep).item()


@pytest.mark.parametrize("ties", [False, True])
def test_with_neither_nothing_is_other_than_before(ties):
    for seed in range(20):
        case, g = draw(500 + seed, 20, ties=ties)
        names = tuple(name for name in MEASURES if torch.rand(1, generator=g) < 0.6)
        asks = case.ask(Stop(measures=names, gap=0.0, below=0))
        assert type(asks) is Condition
        # the deep way of asking for nothing gives the same, to the bit
        deep = DeepCondition(*vars(asks).values(), asks.k, torch.zeros(20, dtype=torch.float64))
        scores = attacked(case, g, ties=ties, push=2.0)
        assert torch.equal(margin(scores, asks), margin(scores, deep))
        assert torch.equal(asks.feasible, deep.feasible)
        for a, b in zip(worst_pair(scores, asks), worst_pair(scores, deep), strict=True):
            assert torch.equal(a, b)


@pytest.mark.parametrize("stop", STOPS, ids=str)
def test_the_margin_is_what_the_worst_pair_lacks_of_its_target(stop):
    compared = of_gap = 0
    for seed in range(20):
        case, g = draw(600 + seed, 40, ties=False, k_max=4)
        asks, scores = case.ask(stop), attacked(case, g, ties=False, push=3.0)
        ranked, (up, down, pattern) = order(scores, asks), worst_pair(scores, asks)
        up, down = up[:, None], down[:, None]
        apart = (scores.gather(1, up) - scores.gather(1, down)).double()
        target = targets(ranked, ranked.border, up, down)
        told = margin(scores, asks)
        known = told.isfinite() & asks.feasible
        missing = (apart - target).squeeze(1)
        assert torch.allclose(told[known].double(), missing[known], atol=1e-5, rtol=0)
        assert asked(ranked, asks, pattern, up, down)[known].all()
        compared, of_gap = compared + int(known.sum()), of_gap + int((target > 0).sum())
    assert compared > 200 and (of_gap > 50) == (stop.gap > 0)


def test_the_pairs_and_their_targets_are_those_of_the_definition_one_by_one():
    pairs = torch.tensor(list(itertools.product(range(8), repeat=2))).T
    compared = 0
    for seed, stop in itertools.product(range(8), STOPS):
        case, g = draw(700 + seed, 10, ties=False, classes=8, k_max=4)
        asks, scores = case.ask(stop), attacked(case, g, ties=False, push=1.0)
        base = Condition(*list(vars(asks).values())[:5])
        pattern, ranked = worst_pair(scores, asks)[2], order(scores, asks)
        up, down = (axis.expand(10, -1) for axis in pairs)
        told = asked(ranked, asks, pattern, up, down)
        before = asked(order(scores, base), base, pattern, up, down)
        by = targets(ranked, ranked.border, up, down)
        for i in asks.feasible.nonzero().flatten().tolist():
            f, k = scores[i].tolist(), int(case.k[i])
            ranking = sorted(range(8), key=f.__getitem__, reverse=True)
            chosen = [label for label in ranking if case.specified[i, label]]
            hidden = chosen[len(chosen) - int(case.delta[i]) :]
            rest = [label for label in ranking if label not in hidden]
            hides = set(itertools.product(rest[: k + stop.below], hidden))
            apart = set(itertools.product(rest[:k], rest[k:] + hidden)) if stop.gap else set()
            old = {tuple(pair) for pair in pairs.T[before[i]].tolist()}
            assert {tuple(pair) for pair in pairs.T[told[i]].tolist()} == old | hides | apart
            for pair, target in zip(
                pairs.T[told[i]].tolist(), by[i, told[i]].tolist(), strict=True
            ):
                wide = stop.gap * gap_of(case.clean[i].tolist(), k) if tuple(pair) in apart else 0
                assert target == pytest.approx(wide, abs=1e-6)
            compared += 1
    assert compared > 100


@pytest.mark.parametrize("stop", STOPS, ids=str)
def test_it_is_infeasible_exactly_where_no_order_of_the_labels_succeeds(stop):
    """C = 5: the scores of an order lie far apart, so that no gap is in the way."""
    orders = 100 * torch.tensor(list(itertools.permutations(range(5)))).float()
    g = torch.Generator().manual_seed(12)
    verdicts = []
    for _ in range(40):
        labels = torch.rand(5, generator=g) < 0.6
        labels[0] = True
        specified = labels & (torch.rand(5, generator=g) < 0.5)
        specified[0] = True
        k = torch.randint(1, 5, (1,), generator=g)
        delta = torch.randint(1, int(specified.sum()) + 1, (1,), generator=g)
        one = Case(torch.randn(1, 5, generator=g), labels[None], specified[None], k, delta)
        every = Case(*(value.expand(120, *value.shape[1:]) for value in vars(one).values()))
        possible = bool(plain(every, orders, stop).any())
        assert bool(one.ask(stop).feasible) == possible
        assert bool(holds(orders, every.ask(stop)).any()) == possible
        verdicts.append(possible)
    assert any(verdicts) and not all(verdicts)


def test_a_clean_tie_at_the_border_asks_for_no_gap():
    labels = torch.tensor([[True, True, True, False]])
    specified = torch.tensor([[True, False, False, False]])
    clean = torch.tensor([[3.0, 2.0, 1.0, 2.0]])
    asks = condition(clean, labels, specified, 2, stop=Stop(gap=5.0))
    scores = torch.tensor([[0.0, 2.0, 1.0, 1.0]])
    ranked = order(scores, asks)
    assert excess(scores, ranked.border).tolist() == [torch.inf] and holds(scores, asks).item()
    alone = torch.tensor([[2]])
    assert not asked(ranked, asks, torch.tensor([0]), alone, torch.tensor([[3]])).any()
    scores[0, 1] = torch.nan
    assert not holds(scores, replace(asks, gap=asks.gap + 1)).any()


def test_differences_of_a_deep_condition_keep_the_dtype_of_the_scores():
    case, g = draw(3, 20, ties=False, classes=8)
    for dtype in (torch.float64, torch.float32, torch.bfloat16):
        asks = replace(case, clean=case.clean.to(dtype)).ask(STOPS[-1])
        scores = attacked(case, g, ties=False, push=1.0).to(dtype)
        exclusion, hits = gaps(scores, asks)
        assert exclusion.dtype == hits.dtype == margin(scores, asks).dtype == dtype


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("gap", -0.1), ("gap", float("inf")), ("gap", float("nan")), ("gap", "1"), ("gap", True),
        ("gap", None), ("below", -1), ("below", 1.0), ("below", True), ("below", None),
    ],
)  # fmt: skip
def test_bad_gaps_and_depths_are_refused_by_name(name, value):
    with pytest.raises(ValueError, match=f"^{name}:"):
        Stop(**{name: value})


def test_equal_stops_are_equal_and_say_what_they_ask():
    assert Stop(gap=1) == Stop(gap=1.0) and hash(Stop(gap=1)) == hash(Stop(gap=1.0))
    assert not Stop().deep and not Stop(measures=("P@k",)).deep
    assert Stop(gap=0.5).deep and Stop(below=1).deep
    assert Stop(gap=0.5).compares and not Stop(below=1).compares
