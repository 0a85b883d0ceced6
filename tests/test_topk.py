"""Order statistics, Lemma 4.1 and Lemma 4.2."""

import math

import pytest
import references as ref
import torch

from tkmia_utils import topk

EXACT = 1e-12
SCORES = torch.rand(3, 5, dtype=torch.float64, generator=ref.generator(0))


def close(a: torch.Tensor, b: torch.Tensor) -> None:
    torch.testing.assert_close(a, b, rtol=0, atol=EXACT)


def lemma_cases() -> list[torch.Tensor]:
    """Rows in [0, 1]: random, tied, all equal, at both ends, of one class."""
    constant = torch.tensor([0.0, 0.3, 1.0], dtype=torch.float64).unsqueeze(-1)
    return [
        ref.random_scores(200, 20, seed=1),
        ref.random_scores(200, 12, seed=2, tied=True),
        ref.random_scores(200, 7, seed=3).round(),
        ref.random_scores(100, 1, seed=4),
        constant.expand(-1, 6),
    ]


# ---- order statistics ----


@pytest.mark.parametrize("tied", [False, True])
def test_order_statistics_are_those_of_a_sorted_list(tied: bool) -> None:
    scores = ref.random_scores(100, 9, seed=5, tied=tied)
    order = [sorted(row, reverse=True) for row in scores.tolist()]
    for k in range(1, 10):
        sums = torch.tensor([math.fsum(row[:k]) for row in order], dtype=torch.float64)
        lows = torch.tensor([math.fsum(row[-k:]) for row in order], dtype=torch.float64)
        assert topk.kth_largest(scores, k).tolist() == [row[k - 1] for row in order]
        close(topk.sum_top_k(scores, k), sums)
        close(topk.average_top_k(scores, k), sums / k)
        close(topk.average_bottom_k(scores, k), lows / k)


def test_the_top_0_of_anything_sums_to_0() -> None:
    assert topk.sum_top_k(SCORES, 0).tolist() == [0, 0, 0]


@pytest.mark.parametrize("tied", [False, True])
def test_the_average_of_the_top_k_is_never_below_the_kth_score_and_is_convex(tied: bool) -> None:
    a, b = (ref.random_scores(300, 8, seed=s, tied=tied) for s in (6, 7))
    t = torch.rand(300, dtype=torch.float64, generator=ref.generator(8))
    mix = t.unsqueeze(-1) * a + (1 - t).unsqueeze(-1) * b
    for k in range(1, 9):
        assert (topk.average_top_k(a, k) >= topk.kth_largest(a, k) - EXACT).all()
        chord = t * topk.average_top_k(a, k) + (1 - t) * topk.average_top_k(b, k)
        assert (topk.average_top_k(mix, k) <= chord + EXACT).all()


def test_an_infinite_score_outside_the_chosen_ones_leaves_sum_and_gradient_finite() -> None:
    scores = torch.tensor([2.0, -torch.inf, 1.0], dtype=torch.float64, requires_grad=True)
    average = topk.average_top_k(scores, 2)
    (gradient,) = torch.autograd.grad(average, scores)
    assert average.item() == 1.5
    assert gradient.tolist() == [0.5, 0, 0.5]
    assert topk.average_bottom_k(torch.tensor([torch.inf, 1.0, 2.0]), 2).item() == 1.5


def test_a_row_with_nan_averages_to_nan_and_leaves_the_other_rows_alone() -> None:
    scores = SCORES.clone()
    scores[1, 2] = torch.nan
    for k in range(1, 6):
        for average in (topk.average_top_k, topk.average_bottom_k):
            found, wanted = average(scores, k), average(SCORES, k)
            assert found.isnan().tolist() == [False, True, False]
            close(found[[0, 2]], wanted[[0, 2]])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_dtype_given_is_the_dtype_returned(dtype: torch.dtype) -> None:
    scores = SCORES.to(dtype)
    k = torch.tensor([1, 2, 3])
    for value in (
        topk.kth_largest(scores, k),
        topk.sum_top_k(scores, k),
        topk.average_top_k(scores, k),
        topk.average_bottom_k(scores, k),
        topk.lemma_objective(scores, k, 0.5),
        *topk.lemma_minimisers(scores, k),
    ):
        assert value.dtype == dtype
        assert value.shape == (3,)


@pytest.mark.parametrize("function", [topk.average_top_k, topk.average_bottom_k, topk.sum_top_k])
def test_gradients_of_the_averages_pass_gradcheck(function) -> None:
    scores = ref.random_scores(4, 6, seed=9).requires_grad_()
    for k in (1, 3, 6, torch.tensor([1, 2, 5, 6])):
        assert torch.autograd.gradcheck(lambda f, k=k: function(f, k), scores)


# ---- in the top k, and ranks ----


@pytest.mark.parametrize("tied", [False, True])
def test_in_top_k_and_ranks_agree_with_counting_the_labels_above(tied: bool) -> None:
    scores = ref.random_scores(200, 8, seed=10, tied=tied)
    ranks = topk.ranks(scores)
    for k in range(1, 9):
        wanted = [ref.in_top_k(row, k) for row in scores.tolist()]
        assert topk.in_top_k(scores, k).tolist() == wanted
        assert (ranks <= k).tolist() == wanted


def test_a_tie_across_the_boundary_counts_as_in() -> None:
    scores = torch.tensor([0.9, 0.5, 0.5, 0.1])
    assert topk.in_top_k(scores, 2).tolist() == [True, True, True, False]
    assert topk.ranks(scores).tolist() == [1, 2, 2, 4]


def test_without_ties_exactly_k_labels_are_in_and_ranks_are_a_permutation() -> None:
    scores = ref.random_scores(50, 11, seed=11)
    for k in range(1, 12):
        assert (topk.in_top_k(scores, k).sum(-1) == k).all()
    assert (topk.ranks(scores).sort(-1).values == torch.arange(1, 12)).all()


def test_ranks_survive_a_monotone_map_of_the_scores() -> None:
    scores = ref.random_scores(50, 11, seed=12, tied=True)
    assert torch.equal(topk.ranks(scores), topk.ranks(3 * scores - 7))


# ---- rows ----


@pytest.mark.parametrize(
    "function",
    [
        topk.kth_largest,
        topk.in_top_k,
        topk.sum_top_k,
        topk.average_top_k,
        topk.average_bottom_k,
        lambda f, k: topk.lemma_objective(f, k, 0.4),
        lambda f, k: torch.stack(topk.lemma_minimisers(f, k), dim=-1),
    ],
)
def test_an_int_k_a_k_per_row_and_row_by_row_are_the_same(function) -> None:
    scores = ref.random_scores(30, 7, seed=13, tied=True)
    k = ref.random_k(30, 1, 7, seed=14)
    together = function(scores, k)
    alone = torch.stack([function(row, int(one)) for row, one in zip(scores, k, strict=True)])
    close(together.double(), alone.double())
    close(function(scores, torch.tensor(3)).double(), function(scores, 3).double())
    folded = function(scores.reshape(5, 6, 7), k.reshape(5, 6))
    close(folded.double().flatten(), together.double().flatten())


# ---- Lemma 4.1 ----


@pytest.mark.parametrize("scores", lemma_cases())
def test_lemma_41_the_sum_of_the_top_k_is_the_minimum_over_lambda(scores: torch.Tensor) -> None:
    c = scores.shape[-1]
    grid = torch.linspace(0, 1, 201, dtype=torch.float64).unsqueeze(-1)
    ends = torch.tensor([0.0, 1.0], dtype=torch.float64).unsqueeze(-1).expand(2, len(scores))
    # piecewise linear in lambda: the minimum is at a kink or at an end of the interval
    candidates = torch.cat([scores.T, ends])
    for k in range(c + 1):
        wanted = torch.tensor(
            [math.fsum(sorted(row)[c - k :]) for row in scores.tolist()], dtype=torch.float64
        )
        close(topk.lemma_objective(scores, k, candidates).min(0).values, wanted)
        close(topk.sum_top_k(scores, k), wanted)
        assert (topk.lemma_objective(scores, k, grid) >= wanted - EXACT).all()


@pytest.mark.parametrize("scores", lemma_cases())
def test_lemma_41_the_whole_flat_bottom_is_optimal(scores: torch.Tensor) -> None:
    for k in range(scores.shape[-1] + 1):
        low, high = topk.lemma_minimisers(scores, k)
        assert (low <= high).all()
        for t in (0, 0.25, 0.5, 1):
            value = topk.lemma_objective(scores, k, low + t * (high - low))
            close(value, topk.sum_top_k(scores, k))


@pytest.mark.parametrize("scores", lemma_cases())
def test_lemma_41_outside_the_flat_bottom_lambda_is_strictly_worse(scores: torch.Tensor) -> None:
    for k in range(scores.shape[-1] + 1):
        best = topk.sum_top_k(scores, k)
        low, high = topk.lemma_minimisers(scores, k)
        for step in (1e-6, 0.01, 0.5):
            # the slope is at least one label steep on either side
            inside = low - step >= 0
            worse = topk.lemma_objective(scores, k, low - step) - best
            assert (worse[inside] >= step - EXACT).all()
            inside = high + step <= 1
            worse = topk.lemma_objective(scores, k, high + step) - best
            assert (worse[inside] >= step - EXACT).all()


def test_the_ends_of_the_flat_bottom_are_neighbouring_order_statistics() -> None:
    scores = ref.random_scores(50, 6, seed=15)
    for k in range(1, 6):
        low, high = topk.lemma_minimisers(scores, k)
        assert torch.equal(high, topk.kth_largest(scores, k))
        assert torch.equal(low, topk.kth_largest(scores, k + 1))
    assert (topk.lemma_minimisers(scores, 0)[1] == 1).all()
    assert (topk.lemma_minimisers(scores, 6)[0] == 0).all()


@pytest.mark.parametrize("row", [[3.0, 2.0, 0.5], [-1.0, -2.0, 0.5]])
def test_lemma_41_fails_on_the_unit_interval_when_scores_leave_it(row: list[float]) -> None:
    scores = torch.tensor(row, dtype=torch.float64)
    k = 1 if max(row) > 1 else 2
    lam = torch.linspace(0, 1, 1001, dtype=torch.float64)
    best = topk.sum_top_k(scores, k)
    assert topk.lemma_objective(scores, k, lam).min() > best + 0.1
    # with lambda free, it holds again
    close(topk.lemma_objective(scores, k, topk.kth_largest(scores, k)), best)


def test_with_lambda_free_lemma_41_holds_for_logits() -> None:
    scores = 8 * torch.randn(100, 10, dtype=torch.float64, generator=ref.generator(16))
    for k in range(1, 10):
        close(topk.lemma_objective(scores, k, scores.T).min(0).values, topk.sum_top_k(scores, k))


def test_the_lemmas_function_can_be_drawn_over_many_lambdas_of_one_row() -> None:
    lam = torch.linspace(0, 1, 11, dtype=torch.float64)
    drawn = topk.lemma_objective(SCORES[0], 2, lam)
    wanted = [
        2 * x + math.fsum(max(f - x, 0) for f in SCORES[0].tolist()) for x in lam.tolist()
    ]  # fmt: skip
    close(drawn, torch.tensor(wanted, dtype=torch.float64))


# ---- Lemma 4.2 ----


def test_lemma_42_the_inner_hinge_is_redundant_for_b_not_negative() -> None:
    a, x, b = (
        torch.randn(10_000, dtype=torch.float64, generator=ref.generator(s)) for s in (1, 2, 3)
    )
    b = b.abs()
    b[:100], x[50:200] = 0, a[50:200]
    close(topk.nested_hinge(a, x, b), topk.single_hinge(a, x, b))
    assert (topk.nested_hinge(a, x, b) > 0).any()


def test_lemma_42_fails_for_every_negative_b_where_x_exceeds_a() -> None:
    a, x, b = (
        torch.randn(10_000, dtype=torch.float64, generator=ref.generator(s)) for s in (4, 5, 6)
    )
    b = -b.abs() - 1e-3
    nested, single = topk.nested_hinge(a, x, b), topk.single_hinge(a, x, b)
    differ = (nested - single).abs() > EXACT
    assert torch.equal(differ, x - a > EXACT)
    assert differ.any()
    assert (nested >= single).all()


# ---- bad input ----

TAKES_K = [
    (topk.kth_largest, 1),
    (topk.in_top_k, 1),
    (topk.sum_top_k, 0),
    (topk.average_top_k, 1),
    (topk.average_bottom_k, 1),
    (lambda f, k: topk.lemma_objective(f, k, 0.5), 0),
    (topk.lemma_minimisers, 0),
]
BAD_SCORES = [[0.1, 0.2], torch.arange(4), torch.ones(2, 3, dtype=torch.bool), torch.tensor(0.5)]


@pytest.mark.parametrize("scores", [*BAD_SCORES, torch.zeros(2, 0), None])
@pytest.mark.parametrize("function", [*(f for f, _ in TAKES_K), lambda f, _: topk.ranks(f)])
def test_scores_that_are_not_rows_of_floats_are_refused(function, scores) -> None:
    with pytest.raises(ValueError, match=r"^scores:"):
        function(scores, 1)


@pytest.mark.parametrize(
    "k", [6, 1.0, True, "2", None, torch.tensor([1, 2]), torch.tensor([1.0, 2, 3]),
          torch.tensor([1, 2, 6]), torch.tensor([1, 2, 3], dtype=torch.int32)],
)  # fmt: skip
@pytest.mark.parametrize("function", [f for f, _ in TAKES_K])
def test_a_k_that_is_no_place_is_refused(function, k) -> None:
    with pytest.raises(ValueError, match=r"^k:"):
        function(SCORES, k)


@pytest.mark.parametrize(("function", "lowest"), TAKES_K)
def test_a_k_just_below_the_lowest_is_refused_and_the_lowest_is_not(function, lowest) -> None:
    function(SCORES, lowest)
    for k in (lowest - 1, torch.tensor([2, lowest - 1, 2])):
        with pytest.raises(ValueError, match=r"^k:"):
            function(SCORES, k)


def test_a_lambda_that_fits_no_row_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^lam:"):
        topk.lemma_objective(SCORES, 2, torch.zeros(4))
