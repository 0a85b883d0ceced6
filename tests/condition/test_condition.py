"""The condition is the one that the measures themselves state, row by row, ties included."""

import itertools
import time
from dataclasses import dataclass

import pytest
import recheck
import torch

from tkmia_utils.condition import (
    STOPS,
    Condition,
    Stop,
    asked,
    condition,
    gaps,
    holds,
    least_patterns,
    margin,
    worst_pair,
)
from tkmia_utils.condition.gaps import order
from tkmia_utils.measures import MEASURES

NAMES = list(MEASURES)


@dataclass(frozen=True)
class Case:
    clean: torch.Tensor
    labels: torch.Tensor
    specified: torch.Tensor
    k: torch.Tensor
    delta: torch.Tensor

    def ask(self, stop: Stop | str = "imperceptible") -> Condition:
        return condition(
            self.clean, self.labels, self.specified, self.k, delta=self.delta, stop=stop
        )

    def brute(self, scores: torch.Tensor, stop: Stop) -> torch.Tensor:
        rows = zip(
            self.clean.tolist(), scores.tolist(), self.labels.tolist(), self.specified.tolist(),
            self.k.tolist(), self.delta.tolist(), strict=True,
        )  # fmt: skip
        told = [recheck.verdict(*row).kept(stop.measures, stop.tolerance) for row in rows]
        return torch.tensor(told)


def draw(seed, n, *, ties, classes=None, k_max=7):
    """Random rows; S need not be in the clean top k, and may be all of Y_p."""
    g = torch.Generator().manual_seed(seed)
    c = classes or int(torch.randint(3, 14, (1,), generator=g))
    clean = torch.randn(n, c, generator=g)
    clean = (3 * clean).round() if ties else clean
    labels = torch.rand(n, c, generator=g) < 0.55
    labels[:, 0] = True
    specified = labels & (torch.rand(n, c, generator=g) < 0.35)
    specified[:, 0] = True
    k = torch.randint(1, min(c - 1, k_max) + 1, (n,), generator=g)
    delta = (torch.rand(n, generator=g) * specified.sum(-1)).long() + 1
    return Case(clean, labels, specified, k, delta), g


def attacked(case, g, *, ties, push):
    """Scores near the clean ones, with S pushed down and the other relevant labels up."""
    others = case.labels & ~case.specified
    scores = case.clean + torch.randn(case.clean.shape, generator=g) + push * others.float()
    scores = scores - push * case.specified.float()
    return scores.round() if ties else scores


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("tolerance", [0.0, 0.11])
def test_it_holds_exactly_where_brute_force_says_so(ties, tolerance):
    seen = torch.zeros(2, dtype=torch.int64)
    for seed in range(56):
        case, g = draw(seed, 25, ties=ties)
        names = [name for name in NAMES if torch.rand(1, generator=g) < 0.6]
        stop = Stop(measures=tuple(names), tolerance=tolerance)
        asks = case.ask(stop)
        for push in (0.0, 3.0):
            scores = attacked(case, g, ties=ties, push=push)
            told = case.brute(scores, stop)
            assert torch.equal(holds(scores, asks), told)
            assert not (told & ~asks.feasible).any()
            assert torch.equal(margin(scores, asks) > 0, told)
            seen += torch.stack([told.sum(), (~told).sum()])
    assert seen.sum() == 56 * 25 * 2 and seen.min() > 500


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_every_dtype_is_judged_as_it_is(dtype):
    case, g = draw(5, 200, ties=False, classes=8)
    case = Case(case.clean.to(dtype), case.labels, case.specified, case.k, case.delta)
    for push in (0.5, 3.0):
        scores = attacked(case, g, ties=False, push=push).to(dtype)
        told = case.brute(scores, STOPS["imperceptible"])
        assert torch.equal(holds(scores, case.ask()), told) and told.any() and not told.all()


@pytest.mark.parametrize("ties", [False, True])
def test_the_margin_is_the_difference_of_the_worst_pair_which_is_one_that_is_asked(ties):
    compared = 0
    for seed in range(30):
        case, g = draw(100 + seed, 40, ties=ties)
        asks, scores = case.ask(), attacked(case, g, ties=ties, push=1.0)
        up, down, pattern = worst_pair(scores, asks)
        apart = (scores.gather(1, up[:, None]) - scores.gather(1, down[:, None])).squeeze(1)
        told = margin(scores, asks)
        tied = (told > 0) & (told <= torch.finfo(told.dtype).tiny)
        assert torch.equal(told[~tied & told.isfinite()], apart[~tied & told.isfinite()])
        assert (apart[tied] == 0).all()
        ranked = order(scores, asks)
        wanted = asked(ranked, asks, pattern, up[:, None], down[:, None])[:, 0]
        assert wanted[told.isfinite()].all()
        compared += int((~tied & told.isfinite()).sum())
        tied_rows = int(tied.sum())
        assert ties or not tied_rows
    assert compared > 500


def test_all_pairs_that_are_asked_hold_exactly_where_the_pattern_does():
    """Every hidden label below each of the top, and the hits above the rivals of the pattern."""
    for seed in range(20):
        case, g = draw(200 + seed, 10, ties=False, classes=7, k_max=4)
        asks, scores = case.ask(), attacked(case, g, ties=False, push=1.0)
        ranked = order(scores, asks)
        pattern = worst_pair(scores, asks)[2]
        up, down = (axis.flatten().expand(10, -1) for axis in torch.meshgrid(
            torch.arange(7), torch.arange(7), indexing="ij"))  # fmt: skip
        wanted = asked(ranked, asks, pattern, up, down)
        kept = (~wanted | (scores.gather(1, up) > scores.gather(1, down))).all(-1)
        _, hits = gaps(scores, asks, ranked=ranked)
        enough = hits[torch.arange(10), pattern] > -torch.inf
        possible = asks.feasible & enough.all(-1)
        assert torch.equal(kept[possible], holds(scores, asks)[possible])
        assert not wanted[:, :: 7 + 1].any()  # no label is asked to be above itself


def test_the_pairs_are_those_of_the_definition_one_by_one():
    several = 0
    for seed in range(20):
        case, g = draw(300 + seed, 10, ties=False, classes=8, k_max=5)
        asks, scores = case.ask(), attacked(case, g, ties=False, push=1.0)
        pattern = worst_pair(scores, asks)[2]
        pairs = torch.tensor(list(itertools.product(range(8), repeat=2))).T
        up, down = (axis.expand(10, -1) for axis in pairs)
        told = asked(order(scores, asks), asks, pattern, up, down)
        for i in asks.feasible.nonzero().flatten().tolist():
            f = scores[i].tolist()
            ranking = sorted(range(8), key=f.__getitem__, reverse=True)
            chosen = [label for label in ranking if case.specified[i, label]]
            hidden = chosen[len(chosen) - int(case.delta[i]) :]
            rest = [label for label in ranking if label not in hidden]
            r = [label for label in rest if case.labels[i, label]]
            n = [label for label in rest if not case.labels[i, label]]
            wanted = {(u, d) for u in rest[: int(case.k[i])] for d in hidden}
            for j, q in enumerate(asks.above[i, pattern[i]].tolist(), start=1):
                if q > 0:
                    wanted |= {(u, d) for u in r[:j] for d in n[q - 1 :]}
            assert {tuple(pair) for pair in pairs.T[told[i]].tolist()} == wanted
            several += len(wanted) > 1
    assert several > 100


def test_a_tie_counts_for_the_relevant_label_and_against_hiding():
    labels = torch.tensor([[True, True, True, False, False]])
    specified = torch.tensor([[True, False, False, False, False]])
    clean = torch.tensor([[5.0, 4.0, 1.0, 3.0, 2.0]])  # hits 1 1 0 at k = 3
    asks = condition(clean, labels, specified, 3)

    def at(*row):
        scores = torch.tensor([row])
        return bool(holds(scores, asks)), float(margin(scores, asks))

    assert at(0.0, 4.0, 3.0, 3.0, 1.0) == (True, torch.finfo(torch.float32).tiny)  # r_2 = n_1
    assert at(0.0, 4.0, 3.5, 3.0, 1.0) == (True, 0.5)
    assert at(0.0, 4.0, 3.0, 3.25, 1.0) == (False, -0.25)
    assert at(2.0, 4.0, 3.5, 2.0, 1.0) == (False, 0.0)  # the third of the others ties with S
    assert at(1.75, 4.0, 3.5, 2.0, 1.0) == (True, 0.25)


def test_delta_of_s_is_enough_and_the_rest_may_fill_the_list():
    labels = torch.tensor([[True, True, True, False]])
    specified = torch.tensor([[True, True, False, False]])
    clean = torch.tensor([[4.0, 3.0, 1.0, 2.0]])
    scores = torch.tensor([[4.0, 1.0, 3.0, 2.0]])
    assert holds(scores, condition(clean, labels, specified, 2, delta=1)).item()
    assert not holds(scores, condition(clean, labels, specified, 2, delta=2)).item()
    assert not condition(clean, labels, specified, 2).feasible.item()  # one label for two hits
    assert condition(clean, labels, specified, 2, stop="excluded").feasible.item()
    both = condition(clean.repeat(2, 1), labels.repeat(2, 1), specified.repeat(2, 1), 2,
                     delta=torch.tensor([1, 2]))  # fmt: skip
    assert both.feasible.tolist() == [True, False]


@pytest.mark.parametrize("stop", [*STOPS, "TkAcc", "NDCG@k"])
def test_it_is_infeasible_exactly_where_no_order_of_the_labels_succeeds(stop):
    """C = 5: all 120 orders, for all sets of labels and of S among them."""
    chosen = STOPS[stop] if stop in STOPS else Stop(measures=(stop,))
    orders = torch.tensor(list(itertools.permutations(range(5))))
    g = torch.Generator().manual_seed(11)
    verdicts = []
    for _ in range(60):
        labels = torch.rand(5, generator=g) < 0.6
        labels[0] = True
        specified = labels & (torch.rand(5, generator=g) < 0.5)
        specified[0] = True
        k = int(torch.randint(1, 5, (1,), generator=g))
        delta = int(torch.randint(1, int(specified.sum()) + 1, (1,), generator=g))
        clean = torch.randn(5, generator=g)
        asks = condition(clean[None], labels[None], specified[None], k, delta=delta, stop=chosen)
        # the same order of labels gives the same verdict, so scores 0 to 4 stand for all
        possible = any(
            recheck.verdict(clean, row, labels, specified, k, delta).kept(chosen.measures)
            for row in orders
        )
        verdicts.append(possible)
        assert bool(asks.feasible) == possible
        rows = Condition(asks.labels.expand(120, -1), asks.specified.expand(120, -1),
                         asks.k.expand(120), asks.delta.expand(120),
                         asks.above.expand(120, -1, -1))  # fmt: skip
        assert bool(holds(orders.float(), rows).any()) == possible
    assert any(verdicts) and not all(verdicts)


def large(n, *, ties):
    """k = 10 and 80 classes, 12 to 19 of them relevant and the five highest of these specified."""
    g = torch.Generator().manual_seed(7)
    clean = torch.randn(n, 80, generator=g) * (2 if ties else 1)
    clean = (3 * clean).round() if ties else clean
    place = clean.argsort(dim=-1, descending=True, stable=True).argsort(-1)
    sizes = torch.randint(12, 20, (n, 1), generator=g)
    labels = (place + 25 * torch.rand(n, 80, generator=g)).argsort(-1).argsort(-1) < sizes
    highest = clean.masked_fill(~labels, -99.0).argsort(dim=-1, descending=True)[:, :5]
    specified = torch.zeros_like(labels).scatter_(1, highest, True)
    full = torch.full((n,), 10)
    return Case(clean, labels, specified, full, torch.full((n,), 5)), g


@pytest.mark.parametrize("ties", [False, True])
def test_at_k_10_with_five_specified_of_80_classes_it_is_exact(ties):
    case, g = large(150, ties=ties)
    asks, seen = case.ask(), []
    for push in (0.8, 1.6, 3.0):
        scores = attacked(case, g, ties=ties, push=push * (6 if ties else 1))
        told = case.brute(scores, STOPS["imperceptible"])
        assert torch.equal(holds(scores, asks), told)
        seen.append(told)
    share = torch.cat(seen).double().mean()
    assert 0.05 < share < 0.95


def test_at_k_10_a_row_is_a_matter_of_milliseconds():
    case, _ = large(40, ties=False)
    case.ask()  # the table of measures is made once
    least_patterns.cache_clear()
    begun = time.process_time()
    asks = case.ask()
    assert (time.process_time() - begun) / 40 < 0.02  # about 1 ms
    assert asks.above.shape[1] < 100  # of 1024 patterns


def test_beyond_twelve_places_it_is_sufficient():
    for seed in range(4):
        g = torch.Generator().manual_seed(seed)
        clean = torch.randn(50, 30, generator=g)
        labels = torch.rand(50, 30, generator=g) < 0.7
        labels[:, 0] = True
        specified = torch.zeros_like(labels)
        specified[:, 0] = True
        ones = torch.ones(50, dtype=torch.int64)
        case = Case(clean, labels, specified, 13 + ones, ones)
        scores = attacked(case, g, ties=False, push=2.0)
        told = case.brute(scores, STOPS["imperceptible"])
        held = holds(scores, case.ask())
        assert held.any() and not (held & ~told).any()


def test_nothing_but_the_order_of_scores_matters_and_nan_never_holds():
    case, g = draw(9, 100, ties=False, classes=8)
    asks, scores = case.ask(), attacked(case, g, ties=False, push=2.0)
    assert torch.equal(holds(scores, asks), holds(2 * scores + 4, asks))
    held = holds(scores, asks).nonzero().flatten()
    scores[held, 1] = torch.nan
    assert len(held) and not holds(scores, asks)[held].any()


def test_the_clean_scores_hold_only_where_nothing_is_to_be_hidden():
    case, _ = draw(10, 200, ties=False, classes=9)
    told = case.brute(case.clean, STOPS["excluded"])
    assert torch.equal(holds(case.clean, case.ask()), told) and told.any() and not told.all()


def good():
    labels = torch.tensor([[True, True, True, False], [True, True, False, False]])
    specified = torch.tensor([[True, False, False, False]] * 2)
    clean_scores = torch.tensor([[4.0, 3.0, 2.0, 1.0]] * 2)
    return {"clean_scores": clean_scores, "labels": labels, "specified": specified, "k": 2}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("clean_scores", torch.ones(2, 4, dtype=torch.int64)),
        ("clean_scores", torch.ones(4)),
        ("clean_scores", torch.full((2, 4), torch.nan)),
        ("clean_scores", [[1.0, 2.0]]),
        ("labels", torch.ones(2, 4)),
        ("labels", torch.ones(2, 3, dtype=torch.bool)),
        ("specified", torch.ones(2, 4)),
        ("specified", torch.ones(1, 4, dtype=torch.bool)),
        ("specified", torch.tensor([[False, False, False, True]] * 2)),
        ("k", 0),
        ("k", 4),
        ("k", 2.0),
        ("k", torch.tensor([1, 2, 3])),
        ("k", torch.tensor([1, 4])),
        ("delta", 0),
        ("delta", 2),
        ("delta", torch.tensor([1, 0])),
        ("stop", "always"),
        ("stop", None),
        ("stop", ("P@k",)),
    ],
)
def test_bad_input_is_refused_by_its_name(name, value):
    condition(**good())
    with pytest.raises(ValueError, match=f"^{name}:"):
        condition(**good() | {name: value})


def test_a_row_without_specified_labels_is_refused():
    with pytest.raises(ValueError, match=r"^delta:"):
        condition(**good() | {"specified": torch.zeros(2, 4, dtype=torch.bool)})


@pytest.mark.parametrize("function", [margin, holds])
@pytest.mark.parametrize("scores", [torch.ones(2, 3), torch.ones(1, 4), torch.ones(2, 4).long()])
def test_other_scores_than_the_conditions_are_refused(function, scores):
    with pytest.raises(ValueError, match=r"^scores:"):
        function(scores, condition(**good()))
