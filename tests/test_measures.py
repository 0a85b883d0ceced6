"""The ranking measures against scikit-learn and against loops over labels."""

import math

import numpy as np
import pytest
import references as ref
import torch
from sklearn import metrics

from tkmia_utils import measures

EXACT = 1e-12
NAMES = {
    measures.topk_accuracy: ref.topk_accuracy,
    measures.topk_accuracy_eq7: ref.topk_accuracy_eq7,
    measures.precision_at_k: ref.precision,
    measures.average_precision_at_k: ref.average_precision,
    measures.ndcg_at_k: ref.ndcg,
}
ALL = pytest.mark.parametrize("measure", NAMES, ids=lambda m: m.__name__)


def close(a: torch.Tensor, b: object) -> None:
    b = torch.as_tensor(b, dtype=torch.float64)
    torch.testing.assert_close(a, b, rtol=0, atol=EXACT, equal_nan=True)


def one_by_one(reference, *columns: torch.Tensor) -> list[float]:
    return [reference(*row) for row in zip(*(c.tolist() for c in columns), strict=True)]


# ---- against loops ----


@ALL
@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("c", [1, 2, 5, 20])
def test_every_measure_is_its_equation_for_thousands_of_rows(measure, tied: bool, c: int) -> None:
    """Rows without labels and with all labels, a k of its own for every row, k > C as well."""
    n = 1500
    scores = ref.random_scores(n, c, seed=c, tied=tied)
    labels = ref.random_labels(n, c, seed=c + 1)
    k = ref.random_k(n, 1, c + 2, seed=c + 2)
    close(measure(scores, labels, k), one_by_one(NAMES[measure], scores, labels, k))


@ALL
def test_an_int_k_a_k_per_row_and_row_by_row_are_the_same(measure) -> None:
    scores, labels = ref.random_scores(60, 6, seed=1, tied=True), ref.random_labels(60, 6, seed=2)
    for k in (1, 3, 6, 9):
        together = measure(scores, labels, k)
        close(measure(scores, labels, torch.full((60,), k)), together)
        close(measure(scores, labels, torch.tensor(k)), together)
        rows = [measure(scores[i : i + 1], labels[i : i + 1], k) for i in range(60)]
        close(torch.cat(rows), together)


@ALL
def test_one_float64_an_image_between_0_and_1(measure) -> None:
    labels = ref.random_labels(1000, 80, seed=4)
    for dtype in (torch.float64, torch.float32, torch.float16):
        scores = ref.random_scores(1000, 80, seed=3).to(dtype)
        for k in (1, 10, 80):
            value = measure(scores, labels, k)
            assert value.shape == (1000,)
            assert value.dtype == torch.float64
            assert ((value >= 0) & (value <= 1)).all()


@ALL
def test_only_the_order_of_the_scores_counts(measure) -> None:
    scores, labels = ref.random_scores(200, 9, seed=5, tied=True), ref.random_labels(200, 9, seed=6)
    logits = 8 * scores - 4
    close(measure(logits, labels, 3), measure(scores, labels, 3))
    close(measure(logits.sigmoid(), labels, 3), measure(scores, labels, 3))
    infinite = torch.where(scores == 0, -torch.inf, torch.where(scores == 1, torch.inf, scores))
    close(measure(infinite, labels, 3), measure(scores, labels, 3))


@ALL
def test_the_order_of_the_classes_does_not_matter_even_with_ties(measure) -> None:
    scores, labels = ref.random_scores(200, 9, seed=7, tied=True), ref.random_labels(200, 9, seed=8)
    for seed in range(5):
        shuffle = torch.randperm(9, generator=ref.generator(seed))
        close(measure(scores[:, shuffle], labels[:, shuffle], 4), measure(scores, labels, 4))


@ALL
def test_a_row_without_labels_scores_0(measure) -> None:
    scores = ref.random_scores(20, 6, seed=9)
    close(measure(scores, torch.zeros(20, 6, dtype=torch.bool), 3), torch.zeros(20))


@ALL
def test_the_arguments_are_left_as_they_were(measure) -> None:
    scores, labels = ref.random_scores(20, 6, seed=9, tied=True), ref.random_labels(20, 6, seed=9)
    before = scores.clone(), labels.clone()
    measure(scores, labels, 3)
    assert torch.equal(scores, before[0])
    assert torch.equal(labels, before[1])


def test_among_equal_scores_relevant_labels_come_first() -> None:
    scores = torch.tensor([[0.5, 0.5, 0.5, 0.1]])
    labels = torch.tensor([[False, False, True, False]])
    assert measures.precision_at_k(scores, labels, 1).item() == 1
    # a hair below, and the tie is gone
    scores[0, 2] -= 1e-6
    assert measures.precision_at_k(scores, labels, 2).item() == 0


def test_past_c_there_are_no_labels_but_precision_still_divides_by_k() -> None:
    scores, labels = torch.tensor([[0.9, 0.1]]), torch.tensor([[True, True]])
    assert measures.precision_at_k(scores, labels, 8).item() == 0.25
    assert measures.average_precision_at_k(scores, labels, 8).item() == 1
    assert measures.ndcg_at_k(scores, labels, 8).item() == 1
    assert measures.topk_accuracy(scores, labels, 8).item() == 1


# ---- against scikit-learn, where it defines the same quantity ----


def test_ndcg_is_scikit_learns_without_ties() -> None:
    scores, labels = ref.random_scores(700, 8, seed=10), ref.random_labels(700, 8, seed=11)
    y, f = labels.double().numpy(), scores.numpy()
    for k in (1, 3, 10):
        wanted = [metrics.ndcg_score(y[i : i + 1], f[i : i + 1], k=k) for i in range(700)]
        close(measures.ndcg_at_k(scores, labels, k), wanted)


def test_average_precision_over_all_labels_is_scikit_learns_without_ties() -> None:
    scores, labels = ref.random_scores(1000, 8, seed=12), ref.random_labels(1000, 8, seed=13)
    scores, labels = scores[labels.any(-1)], labels[labels.any(-1)]
    wanted = [
        metrics.average_precision_score(y, f)
        for y, f in zip(labels.numpy(), scores.numpy(), strict=True)
    ]
    value = measures.average_precision_at_k(scores, labels, 8)
    close(value, wanted)
    close(value.mean(), metrics.label_ranking_average_precision_score(labels, scores))


def test_accuracy_of_eq7_is_scikit_learns_coverage_within_k() -> None:
    scores, labels = ref.random_scores(500, 8, seed=14), ref.random_labels(500, 8, seed=15)
    scores, labels = scores[labels.any(-1)], labels[labels.any(-1)]
    cover = [
        metrics.coverage_error(labels[i : i + 1], scores[i : i + 1]) for i in range(len(labels))
    ]
    for k in range(1, 9):
        close(measures.topk_accuracy_eq7(scores, labels, k), np.array(cover) <= k)


def test_with_one_label_an_image_accuracy_is_scikit_learns_top_k_accuracy() -> None:
    scores = ref.random_scores(500, 8, seed=16)
    target = ref.random_k(500, 0, 7, seed=17)
    labels = torch.nn.functional.one_hot(target, 8).bool()
    for k in range(1, 8):
        wanted = metrics.top_k_accuracy_score(target, scores, k=k, labels=np.arange(8))
        close(measures.topk_accuracy(scores, labels, k).mean(), wanted)


def test_precision_is_scikit_learns_for_the_top_k_as_a_prediction() -> None:
    scores, labels = ref.random_scores(500, 8, seed=18), ref.random_labels(500, 8, seed=19)
    for k in (1, 4, 8):
        top = torch.zeros_like(labels).scatter_(-1, scores.topk(k).indices, True)
        wanted = metrics.precision_score(labels, top, average="samples")
        close(measures.precision_at_k(scores, labels, k).mean(), wanted)


@pytest.mark.parametrize("tied", [False, True])
def test_class_average_precision_is_scikit_learns_ties_included(tied: bool) -> None:
    scores = ref.random_scores(300, 25, seed=20, tied=tied)
    labels = ref.random_labels(300, 25, seed=21)
    wanted = [
        metrics.average_precision_score(labels[:, j].numpy(), scores[:, j].numpy())
        for j in range(25)
    ]
    value = measures.class_average_precision(scores, labels)
    close(value, wanted)
    assert value.dtype == torch.float64


def test_a_victim_that_gives_all_images_one_score_has_the_prevalence_as_class_ap() -> None:
    labels = ref.random_labels(100, 6, seed=22)
    value = measures.class_average_precision(torch.zeros(100, 6), labels)
    close(value, labels.double().mean(0))


def test_a_class_that_no_image_has_is_nan_and_leaves_the_others() -> None:
    scores, labels = ref.random_scores(50, 3, seed=23), ref.random_labels(50, 3, seed=24)
    whole = measures.class_average_precision(scores, labels)
    labels[:, 1] = False
    part = measures.class_average_precision(scores, labels)
    assert part.isnan().tolist() == [False, True, False]
    close(part[[0, 2]], whole[[0, 2]])


# ---- what ties the measures together ----


@pytest.mark.parametrize("tied", [False, True])
def test_accuracy_is_full_precision_where_there_are_labels_enough(tied: bool) -> None:
    scores, labels = (
        ref.random_scores(2000, 7, seed=25, tied=tied),
        ref.random_labels(2000, 7, seed=26, share=0.6),
    )
    for k in range(1, 8):
        enough = labels.sum(-1) >= k
        accuracy = measures.topk_accuracy(scores, labels, k)[enough]
        full = measures.precision_at_k(scores, labels, k)[enough] == 1
        assert torch.equal(accuracy, full.double())
        assert 0 < len(accuracy)


@pytest.mark.parametrize("tied", [False, True])
def test_at_k_1_all_measures_coincide(tied: bool) -> None:
    scores, labels = (
        ref.random_scores(2000, 7, seed=27, tied=tied),
        ref.random_labels(2000, 7, seed=28),
    )
    values = [
        measures.topk_accuracy, measures.precision_at_k,
        measures.average_precision_at_k, measures.ndcg_at_k,
    ]  # fmt: skip
    values = [measure(scores, labels, 1) for measure in values]
    for value in values[1:]:
        close(value, values[0])
    assert set(values[0].tolist()) == {0.0, 1.0}


def test_eq7_is_the_tables_accuracy_up_to_k_labels_and_0_beyond() -> None:
    scores, labels = ref.random_scores(2000, 7, seed=29), ref.random_labels(2000, 7, seed=30)
    for k in range(1, 8):
        few = labels.sum(-1) <= k
        printed = measures.topk_accuracy_eq7(scores, labels, k)
        assert torch.equal(printed[few], measures.topk_accuracy(scores, labels, k)[few])
        assert (printed[~few] == 0).all()


def test_a_perfect_ranking_scores_exactly_1_and_a_hopeless_one_0() -> None:
    labels = ref.random_labels(500, 9, seed=31)
    labels = labels[labels.any(-1) & ~labels.all(-1)]
    scores = ref.random_scores(len(labels), 9, seed=32)
    for k in (1, 2, 4):
        for measure in (
            measures.topk_accuracy, measures.average_precision_at_k, measures.ndcg_at_k,
        ):  # fmt: skip
            assert (measure(scores + 2 * labels, labels, k) == 1).all()
            hopeless = labels[(~labels).sum(-1) >= k]
            below = scores[: len(hopeless)] - 2 * hopeless
            assert (measure(below, hopeless, k) == 0).all()


# ---- Delta l and APer ----


@pytest.mark.parametrize("tied", [False, True])
def test_delta_l_counts_the_specified_labels_that_left_the_top_k(tied: bool) -> None:
    _, specified = ref.random_sets(1500, 8, seed=33)
    before, after = (ref.random_scores(1500, 8, seed=s, tied=tied) for s in (34, 35))
    k = ref.random_k(1500, 1, 8, seed=36)
    rows = list(
        zip(after.tolist(), specified.tolist(), k.tolist(), before.tolist(), strict=True)
    )  # fmt: skip
    plain = measures.delta_l(after, specified, k)
    merit = measures.delta_l(after, specified, k, before=before)
    close(plain, [ref.delta_l(f, s, one, None) for f, s, one, _ in rows])
    close(merit, [ref.delta_l(f, s, one, clean) for f, s, one, clean in rows])
    assert (merit <= plain).all()
    assert (merit < plain).any()
    close(measures.delta_l(after, specified, 3)[:1], [ref.delta_l(*rows[0][:2], 3, None)])


def test_a_specified_label_that_ties_at_the_boundary_is_a_failed_exclusion() -> None:
    specified = torch.tensor([[False, True, False]])
    tied, out = torch.tensor([[0.9, 0.5, 0.5]]), torch.tensor([[0.9, 0.5, 0.6]])
    assert measures.delta_l(tied, specified, 2).item() == 0
    assert measures.delta_l(out, specified, 2).item() == 1
    # the measures see the same label in the same place
    assert measures.precision_at_k(tied, specified, 2).item() == 0.5
    assert measures.precision_at_k(out, specified, 2).item() == 0


def test_a_label_that_was_never_in_the_top_k_is_no_merit() -> None:
    specified = torch.tensor([[True, False, True]])
    clean, after = torch.tensor([[0.9, 0.5, 0.1]]), torch.tensor([[0.2, 0.5, 0.1]])
    assert measures.delta_l(after, specified, 1).item() == 2
    assert measures.delta_l(after, specified, 1, before=clean).item() == 1


def test_aper_is_the_mean_over_all_images_or_over_the_successes() -> None:
    l2 = torch.tensor([1.0, 2.0, 6.0])
    success = torch.tensor([True, True, False])
    assert measures.aper(l2).item() == 3
    assert measures.aper(l2, success).item() == 1.5
    assert measures.aper(l2).dtype == torch.float64
    assert math.isnan(measures.aper(l2, torch.zeros(3, dtype=torch.bool)).item())


# ---- bad input ----

F = ref.random_scores(2, 4, seed=37)
Y = torch.tensor([[True, True, False, False], [True, True, True, False]])
HOLE = F.clone()
HOLE[1, 2] = torch.nan
BAD = {
    "scores with NaN": ("scores", (HOLE, Y, 2)),
    "scores of integers": ("scores", (F.long(), Y, 2)),
    "scores in a list": ("scores", (F.tolist(), Y, 2)),
    "scores of one row": ("scores", (F[0], Y[0], 2)),
    "scores of three axes": ("scores", (F[None], Y[None], 2)),
    "scores of no class": ("scores", (F[:, :0], Y[:, :0], 2)),
    "labels as integers": ("labels", (F, Y.long(), 2)),
    "labels in a list": ("labels", (F, Y.tolist(), 2)),
    "labels of another shape": ("labels", (F, Y[:, :3], 2)),
    "labels of one row for all": ("labels", (F, Y[:1], 2)),
    "k = 0": ("k", (F, Y, 0)),
    "k a float": ("k", (F, Y, 2.0)),
    "k a bool": ("k", (F, Y, True)),
    "k None": ("k", (F, Y, None)),
    "k of three rows": ("k", (F, Y, torch.tensor([1, 2, 3]))),
    "k = 0 in a row": ("k", (F, Y, torch.tensor([1, 0]))),
    "k of floats": ("k", (F, Y, torch.tensor([1.0, 2.0]))),
}


@ALL
@pytest.mark.parametrize(("name", "arguments"), BAD.values(), ids=BAD.keys())
def test_bad_input_is_refused_by_name(measure, name: str, arguments: tuple) -> None:
    with pytest.raises(ValueError, match=rf"^{name}:"):
        measure(*arguments)


@pytest.mark.parametrize(("name", "arguments"), BAD.values(), ids=BAD.keys())
def test_delta_l_refuses_the_same_by_its_own_names(name: str, arguments: tuple) -> None:
    with pytest.raises(ValueError, match=rf"^{name.replace('labels', 'specified')}:"):
        measures.delta_l(*arguments)


def test_delta_l_refuses_a_k_past_c() -> None:
    with pytest.raises(ValueError, match=r"^k:"):
        measures.delta_l(F, Y, 5)


@pytest.mark.parametrize("before", [HOLE, F[:1], F[0], F.long(), F.tolist()])
def test_delta_l_refuses_clean_scores_of_another_kind(before) -> None:
    with pytest.raises(ValueError, match=r"^before:"):
        measures.delta_l(F, Y, 2, before=before)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [v for v in BAD.values() if v[0] != "k"],
    ids=[key for key, v in BAD.items() if v[0] != "k"],
)
def test_class_average_precision_refuses_the_same(name: str, arguments: tuple) -> None:
    with pytest.raises(ValueError, match=rf"^{name}:"):
        measures.class_average_precision(*arguments[:2])


@pytest.mark.parametrize("l2", [[1.0], torch.tensor([1, 2]), F, HOLE[1], torch.tensor(1.0)])
def test_aper_refuses_norms_that_are_not_one_number_an_image(l2) -> None:
    with pytest.raises(ValueError, match=r"^l2:"):
        measures.aper(l2)


@pytest.mark.parametrize("success", [torch.ones(3), torch.ones(2, dtype=torch.bool), [True] * 3])
def test_aper_refuses_a_success_that_is_not_one_bool_an_image(success) -> None:
    with pytest.raises(ValueError, match=r"^success:"):
        measures.aper(torch.ones(3), success)


def test_the_message_says_which_row_holds_nan() -> None:
    with pytest.raises(ValueError, match="row 1"):
        measures.precision_at_k(HOLE, Y, 2)
