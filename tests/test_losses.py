"""TkMIA's objective: Eq. (6), its closed form, and the gradient written by hand."""

import pytest
import references as ref
import torch

from tkmia_utils import losses, topk

EXACT = 1e-12
N, C = 400, 9
LABELS, SPECIFIED = ref.random_sets(N, C, seed=1)
K = ref.random_k(N, 1, C - 1, seed=2)


def close(a: torch.Tensor, b: torch.Tensor) -> None:
    torch.testing.assert_close(a, b, rtol=0, atol=EXACT)


def scores(kind: str, *, n: int = N, c: int = C) -> torch.Tensor:
    if kind == "logits":
        return 5 * torch.randn(n, c, dtype=torch.float64, generator=ref.generator(3))
    return ref.random_scores(n, c, seed=4, tied=kind == "tied")


KINDS = pytest.mark.parametrize("kind", ["sigmoid", "tied", "logits"])


def random_lambdas(kind: str, seed: int) -> torch.Tensor:
    scale = 10 if kind == "logits" else 1
    lam = torch.rand(2, N, dtype=torch.float64, generator=ref.generator(seed))
    return scale * (2 * lam - 0.5)


# ---- Eq. (6) and its closed form ----


@KINDS
def test_eq6_is_what_the_paper_prints_sum_by_sum(kind: str) -> None:
    f = scores(kind)
    lam1, lam2 = random_lambdas(kind, 5)
    rows = zip(
        f.tolist(), LABELS.tolist(), SPECIFIED.tolist(), K.tolist(), lam1.tolist(), lam2.tolist(),
        strict=True,
    )  # fmt: skip
    wanted = torch.tensor([ref.eq6(*row) for row in rows], dtype=torch.float64)
    close(losses.tkmia_eq6(f, LABELS, SPECIFIED, K, lam1, lam2), wanted)


@KINDS
def test_the_closed_form_is_eq6_at_the_optimal_lambdas(kind: str) -> None:
    f = scores(kind)
    for k in (1, 3, C - 1, K):
        best = losses.tkmia_optimal_lambdas(f, LABELS, SPECIFIED, k)
        close(
            losses.tkmia(f, LABELS, SPECIFIED, k),
            losses.tkmia_eq6(f, LABELS, SPECIFIED, k, *best),
        )


@KINDS
def test_eq6_is_never_below_the_closed_form(kind: str) -> None:
    f = scores(kind)
    lowest = losses.tkmia(f, LABELS, SPECIFIED, K) - EXACT
    for seed in range(20):
        lam1, lam2 = random_lambdas(kind, seed)
        assert (losses.tkmia_eq6(f, LABELS, SPECIFIED, K, lam1, lam2) >= lowest).all()


@KINDS
def test_the_optimal_lambdas_are_the_upper_ends_of_the_flat_bottoms(kind: str) -> None:
    f = scores(kind)
    lam1, lam2 = losses.tkmia_optimal_lambdas(f, LABELS, SPECIFIED, K)
    best = losses.tkmia_eq6(f, LABELS, SPECIFIED, K, lam1, lam2)
    for step in (1e-3, 0.1):
        for moved in ((lam1 - step, lam2), (lam1, lam2 - step)):
            assert (losses.tkmia_eq6(f, LABELS, SPECIFIED, K, *moved) >= best - EXACT).all()
        # above, at least one term of the mean has left the hinge
        higher = losses.tkmia_eq6(f, LABELS, SPECIFIED, K, lam1 + step, lam2)
        assert (higher >= best + step / (C - K.double()) - EXACT).all()
        higher = losses.tkmia_eq6(f, LABELS, SPECIFIED, K, lam1, lam2 + step)
        assert (higher >= best + step / K.double() - EXACT).all()


def test_lambdas_kept_in_the_unit_interval_cannot_always_reach_the_closed_form() -> None:
    # S is excluded already: the best lam1 is negative
    f = torch.tensor([[0.9, 0.8, 0.7, 0.1]], dtype=torch.float64)
    labels = torch.tensor([[True, False, False, True]])
    specified = torch.tensor([[False, False, False, True]])
    lam1, lam2 = losses.tkmia_optimal_lambdas(f, labels, specified, 2)
    assert lam1.item() < 0
    clamped = losses.tkmia_eq6(f, labels, specified, 2, lam1.clamp(0, 1), lam2)
    assert clamped.item() > losses.tkmia(f, labels, specified, 2).item() + 0.1
    grid = torch.linspace(0, 1, 101).tolist()
    lowest = min(losses.tkmia_eq6(f, labels, specified, 2, lam, lam2).item() for lam in grid)
    close(torch.tensor(lowest), torch.tensor(clamped.item()))


def test_inside_the_unit_interval_eq6_keeps_the_inner_hinges_of_eqs_4_and_5() -> None:
    """Lemma 4.2 at work: for lambdas not negative the hinged differences give the same value."""
    f = scores("sigmoid")
    lam1, lam2 = (lam.clamp(0, 1) for lam in random_lambdas("sigmoid", 6))
    best = losses.highest(f, SPECIFIED).unsqueeze(-1)
    worst = losses.lowest(f, LABELS & ~SPECIFIED).unsqueeze(-1)
    first = lam1 + (topk.nested_hinge(best, f, lam1.unsqueeze(-1))).sum(-1) / (C - K)
    second = lam2 + (topk.nested_hinge(f, worst, lam2.unsqueeze(-1))).sum(-1) / K
    close(losses.tkmia_eq6(f, LABELS, SPECIFIED, K, lam1, lam2), first + second)


def test_one_lambda_for_all_rows_is_that_lambda_in_every_row() -> None:
    f = scores("sigmoid")
    each = torch.full((N,), 0.25, dtype=torch.float64)
    close(
        losses.tkmia_eq6(f, LABELS, SPECIFIED, K, 0.25, 0.25),
        losses.tkmia_eq6(f, LABELS, SPECIFIED, K, each, each),
    )


@KINDS
def test_the_closed_form_bounds_the_hinge_free_eq3_from_above(kind: str) -> None:
    """Averages of the top and the bottom are the relaxation of f_[k] and f_[k+1]."""
    f = scores(kind)
    exclusion = losses.highest(f, SPECIFIED) - topk.kth_largest(f, K + 1)
    inclusion = topk.kth_largest(f, K) - losses.lowest(f, LABELS & ~SPECIFIED)
    loss = losses.tkmia(f, LABELS, SPECIFIED, K)
    assert (loss >= exclusion + inclusion - EXACT).all()


def test_the_loss_ignores_a_shift_of_all_scores_and_scales_with_them() -> None:
    f = scores("logits")
    loss = losses.tkmia(f, LABELS, SPECIFIED, K)
    torch.testing.assert_close(losses.tkmia(3 * f + 2, LABELS, SPECIFIED, K), 3 * loss)


# ---- gradients ----


def gradcheck_case() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    return scores("sigmoid")[:8].requires_grad_(), LABELS[:8], SPECIFIED[:8], K[:8]


def test_the_closed_form_passes_gradcheck() -> None:
    f, labels, specified, k = gradcheck_case()
    for one in (k, 1, 4, C - 1):
        assert torch.autograd.gradcheck(
            lambda x, one=one: losses.tkmia(x, labels, specified, one), f
        )


def test_eq6_passes_gradcheck_in_scores_and_lambdas() -> None:
    f, labels, specified, k = gradcheck_case()
    lam1, lam2 = (torch.rand(8, dtype=torch.float64, generator=ref.generator(s)) for s in (7, 8))
    lam1, lam2 = (lam.mul(0.4).requires_grad_() for lam in (lam1, lam2))
    for one in (k, 3):
        assert torch.autograd.gradcheck(
            lambda x, a, b, one=one: losses.tkmia_eq6(x, labels, specified, one, a, b),
            (f, lam1, lam2),
        )


@pytest.mark.parametrize("kind", ["sigmoid", "logits"])
@pytest.mark.parametrize("k", [1, 4, C - 1, K])
def test_the_gradient_by_hand_is_autograds(kind: str, k) -> None:
    f = scores(kind).requires_grad_()
    (wanted,) = torch.autograd.grad(losses.tkmia(f, LABELS, SPECIFIED, k).sum(), f)
    close(losses.tkmia_gradient(f, LABELS, SPECIFIED, k), wanted)


@pytest.mark.parametrize("kind", ["sigmoid", "logits"])
def test_at_lambdas_inside_the_flat_bottom_eq6_has_the_closed_forms_gradient(kind: str) -> None:
    """The envelope theorem: the optimal lambdas may be held fixed while the scores move."""
    f = scores(kind)
    order = f.sort(dim=-1, descending=True).values
    between = (order.gather(-1, K.unsqueeze(-1) - 1) + order.gather(-1, K.unsqueeze(-1))) / 2
    lam1 = losses.highest(f, SPECIFIED) - between.squeeze(-1)
    lam2 = between.squeeze(-1) - losses.lowest(f, LABELS & ~SPECIFIED)
    f = f.requires_grad_()
    loss = losses.tkmia_eq6(f, LABELS, SPECIFIED, K, lam1, lam2)
    (wanted,) = torch.autograd.grad(loss.sum(), f)
    close(losses.tkmia_gradient(f, LABELS, SPECIFIED, K), wanted)


@KINDS
def test_the_gradient_by_hand_is_a_subgradient_ties_included(kind: str) -> None:
    """The loss is convex in the scores, so the tangent plane stays below it."""
    f = scores(kind)
    gradient = losses.tkmia_gradient(f, LABELS, SPECIFIED, K)
    here = losses.tkmia(f, LABELS, SPECIFIED, K)
    for seed in range(20):
        step = torch.randn(N, C, dtype=torch.float64, generator=ref.generator(seed))
        step *= 10 ** (seed % 4 - 3)
        there = losses.tkmia(f + step, LABELS, SPECIFIED, K)
        assert (there >= here + (gradient * step).sum(-1) - EXACT).all()


@KINDS
def test_the_gradients_rows_sum_to_0(kind: str) -> None:
    gradient = losses.tkmia_gradient(scores(kind), LABELS, SPECIFIED, K)
    close(gradient.sum(-1), torch.zeros(N, dtype=torch.float64))
    assert (gradient.abs().sum(-1) > 0).all()


def test_the_gradient_asks_for_no_graph_and_keeps_the_dtype() -> None:
    f = scores("logits").float().requires_grad_()
    gradient = losses.tkmia_gradient(f, LABELS, SPECIFIED, K)
    assert gradient.dtype == torch.float32
    assert not gradient.requires_grad


# ---- the other objectives ----


@pytest.mark.parametrize("kind", ["sigmoid", "logits"])
def test_the_gradients_of_eq6_by_hand_are_autograds(kind: str) -> None:
    arguments = [x.requires_grad_() for x in (scores(kind), *random_lambdas(kind, 9))]
    for k in (K, 3):
        f, lam1, lam2 = arguments
        loss = losses.tkmia_eq6(f, LABELS, SPECIFIED, k, lam1, lam2)
        wanted = torch.autograd.grad(loss.sum(), arguments)
        got = losses.tkmia_eq6_gradients(f, LABELS, SPECIFIED, k, lam1.detach(), lam2.detach())
        for one, other in zip(got, wanted, strict=True):
            close(one, other)


@KINDS
def test_tkml_ap_u_is_the_best_relevant_score_against_the_lowest_ones(kind: str) -> None:
    f = scores(kind)
    wanted = [
        max(x for x, y in zip(row, labels, strict=True) if y) - sum(sorted(row)[: C - k]) / (C - k)
        for row, labels, k in zip(f.tolist(), LABELS.tolist(), K.tolist(), strict=True)
    ]
    close(losses.tkml_ap_u(f, LABELS, K), torch.tensor(wanted, dtype=torch.float64))


@KINDS
@pytest.mark.parametrize("form", ["untargeted", "printed"])
def test_ml_cw_u_is_the_hinge_between_the_two_sides(kind: str, form: str) -> None:
    f = scores(kind)
    wanted = []
    for row, labels in zip(f.tolist(), LABELS.tolist(), strict=True):
        down = [x for x, y in zip(row, labels, strict=True) if y == (form == "untargeted")]
        up = [x for x, y in zip(row, labels, strict=True) if y != (form == "untargeted")]
        # with all labels relevant there is no other side, and nothing to do
        wanted.append(max(max(down) - min(up), 0) if down and up else 0)
    assert LABELS.all(-1).any()
    close(losses.ml_cw_u(f, LABELS, form=form), torch.tensor(wanted, dtype=torch.float64))


@pytest.mark.parametrize("kind", ["sigmoid", "logits"])
def test_the_other_gradients_by_hand_are_autograds(kind: str) -> None:
    some = LABELS[~LABELS.all(-1)]
    f, k = scores(kind)[: len(some)].requires_grad_(), K[: len(some)]
    pairs = [(losses.tkml_ap_u(f, some, k), losses.tkml_ap_u_gradient(f, some, k))]
    for form in ("untargeted", "printed"):
        by_hand = losses.ml_cw_u_gradient(f, some, form=form)
        pairs.append((losses.ml_cw_u(f, some, form=form), by_hand))
    for loss, by_hand in pairs:
        (wanted,) = torch.autograd.grad(loss.sum(), f)
        close(by_hand, wanted)
        assert (by_hand != 0).any()


def test_with_all_labels_relevant_ml_cw_u_has_gradient_0() -> None:
    f, everything = torch.rand(3, 4, generator=ref.generator(9)), torch.ones(3, 4).bool()
    for form in ("untargeted", "printed"):
        assert (losses.ml_cw_u_gradient(f, everything, form=form) == 0).all()


# ---- rows ----


@KINDS
def test_an_int_k_a_k_per_row_and_row_by_row_are_the_same(kind: str) -> None:
    f = scores(kind)
    lam = losses.tkmia_optimal_lambdas(f, LABELS, SPECIFIED, K)
    values = {
        losses.tkmia: losses.tkmia(f, LABELS, SPECIFIED, K),
        losses.tkmia_gradient: losses.tkmia_gradient(f, LABELS, SPECIFIED, K),
    }
    for i in range(0, N, 10):
        row = (f[i : i + 1], LABELS[i : i + 1], SPECIFIED[i : i + 1], int(K[i]))
        for function, value in values.items():
            close(function(*row), value[i : i + 1])
        for one, all_rows in zip(losses.tkmia_optimal_lambdas(*row), lam, strict=True):
            close(one, all_rows[i : i + 1])
    for function in values:
        same = function(f, LABELS, SPECIFIED, torch.full((N,), 3))
        close(function(f, LABELS, SPECIFIED, 3), same)
        close(function(f, LABELS, SPECIFIED, torch.tensor(3)), same)


def test_highest_and_lowest_look_at_the_mask_alone() -> None:
    f = torch.tensor([[3.0, 1.0, 2.0], [3.0, 1.0, 2.0]])
    mask = torch.tensor([[False, True, True], [False, False, False]])
    assert losses.highest(f, mask).tolist() == [2, -torch.inf]
    assert losses.lowest(f, mask).tolist() == [1, torch.inf]


# ---- bad input ----

F = scores("sigmoid", n=2, c=4)
Y = torch.tensor([[True, True, False, False], [True, True, True, False]])
S = torch.tensor([[True, False, False, False], [True, False, True, False]])
NONE = torch.zeros_like(Y)
FUNCTIONS = pytest.mark.parametrize(
    "function",
    [losses.tkmia, losses.tkmia_optimal_lambdas, lambda *a: losses.tkmia_eq6(*a, 0.1, 0.1)],
    ids=["tkmia", "tkmia_optimal_lambdas", "tkmia_eq6"],
)
BAD = {
    "scores of integers": ("scores", (F.long(), Y, S, 2)),
    "scores in a list": ("scores", (F.tolist(), Y, S, 2)),
    "scores of one row": ("scores", (F[0], Y[0], S[0], 2)),
    "scores of three axes": ("scores", (F[None], Y[None], S[None], 2)),
    "labels as integers": ("labels", (F, Y.long(), S, 2)),
    "labels of another shape": ("labels", (F, Y[:, :3], S, 2)),
    "labels of one row for all": ("labels", (F, Y[:1], S, 2)),
    "labels without a relevant one": ("labels", (F, NONE, S, 2)),
    "specified as floats": ("specified", (F, Y, S.float(), 2)),
    "specified of one row for all": ("specified", (F, Y, S[:1], 2)),
    "specified empty": ("specified", (F, Y, NONE, 2)),
    "specified outside Y_p": ("specified", (F, Y, S | ~Y, 2)),
    "specified all of Y_p": ("specified", (F, Y, Y, 2)),
    "k = 0": ("k", (F, Y, S, 0)),
    "k = C": ("k", (F, Y, S, 4)),
    "k a float": ("k", (F, Y, S, 2.0)),
    "k a bool": ("k", (F, Y, S, True)),
    "k of three rows": ("k", (F, Y, S, torch.tensor([1, 2, 3]))),
    "k out of range in a row": ("k", (F, Y, S, torch.tensor([1, 4]))),
    "k of floats": ("k", (F, Y, S, torch.tensor([1.0, 2.0]))),
}


@FUNCTIONS
def test_the_good_neighbour_of_the_bad_input_is_taken(function) -> None:
    function(F, Y, S, 2)
    function(F, Y, S, torch.tensor([1, 3]))


@FUNCTIONS
@pytest.mark.parametrize(("name", "arguments"), BAD.values(), ids=BAD.keys())
def test_bad_input_is_refused_by_name(function, name: str, arguments: tuple) -> None:
    with pytest.raises(ValueError, match=rf"^{name}:"):
        function(*arguments)


@pytest.mark.parametrize("function", [losses.tkml_ap_u, lambda f, y, _: losses.ml_cw_u(f, y)])
@pytest.mark.parametrize(("name", "bad"), [v for v in BAD.values() if v[0] in ("scores", "labels")])
def test_the_other_objectives_refuse_the_same(function, name: str, bad: tuple) -> None:
    with pytest.raises(ValueError, match=rf"^{name}:"):
        function(bad[0], bad[1], 2)


def test_an_unknown_form_or_a_k_out_of_range_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^form:"):
        losses.ml_cw_u(F, Y, form="targeted")
    for k in (0, 4, 2.0):
        with pytest.raises(ValueError, match=r"^k:"):
            losses.tkml_ap_u(F, Y, k)


@pytest.mark.parametrize("lam", [torch.zeros(3), torch.zeros(1), torch.zeros(2, 1)])
def test_lambdas_that_are_neither_one_nor_one_a_row_are_refused(lam: torch.Tensor) -> None:
    with pytest.raises(ValueError, match=r"^lam1:"):
        losses.tkmia_eq6(F, Y, S, 2, lam, 0.1)
    with pytest.raises(ValueError, match=r"^lam2:"):
        losses.tkmia_eq6(F, Y, S, 2, 0.1, lam)
