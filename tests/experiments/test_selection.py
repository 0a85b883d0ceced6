"""Who is attacked, and which labels are to be hidden: S1, S2 and eligibility."""

import dataclasses

import numpy as np
import pytest
import references as ref
import torch

from tkmia_utils.experiments.selection import eligible, global_selection, random_selection

N, C = 300, 10
LABELS = ref.random_labels(N, C, seed=1, share=0.5)
CLEAN = ref.random_scores(N, C, seed=2, tied=True)
IDS = tuple(f"image-{i:04d}" for i in range(N))


def in_clean_top(k: int) -> torch.Tensor:
    return torch.tensor([ref.in_top_k(row, k) for row in CLEAN.tolist()])


def draw(
    m: int, k: int, *, rule: str = "released", seed: int = 0, rows=slice(None)
) -> torch.Tensor:
    """S of the rows, drawn as S2."""
    index = torch.arange(N)[rows]
    return random_selection(
        LABELS[index], m, k,
        ids=[IDS[i] for i in index.tolist()], seed=seed, clean_scores=CLEAN[index], rule=rule,
    ).specified  # fmt: skip


RULES = pytest.mark.parametrize("rule", ["released", "paper"])


# ---- eligibility ----


@pytest.mark.parametrize("released", [False, True])
def test_an_image_is_eligible_when_k_other_labels_and_some_of_s_are_there(released: bool) -> None:
    members = torch.rand(N, C, generator=ref.generator(3)) < 0.3
    specified = LABELS & members
    k = ref.random_k(N, 1, 5, seed=4)
    clean = CLEAN if released else None
    wanted = []
    for y, s, f, one in zip(*(x.tolist() for x in (LABELS, specified, CLEAN, k)), strict=True):
        seen = any(a and b for a, b in zip(s, ref.in_top_k(f, one), strict=True))
        wanted.append(sum(s) > 0 and sum(y) >= one + sum(s) and (seen or not released))
    value = eligible(LABELS, specified, k, clean_scores=clean)
    assert value.tolist() == wanted
    assert value.dtype == torch.bool
    assert value.any()
    assert not value.all()


def test_the_released_rule_asks_for_more_than_the_papers() -> None:
    specified = LABELS & (torch.arange(C) < 2)
    paper = eligible(LABELS, specified, 2)
    released = eligible(LABELS, specified, 2, clean_scores=CLEAN)
    assert not (released & ~paper).any()
    assert (paper & ~released).any()


def test_the_boundary_of_eligibility_is_k_plus_the_size_of_s() -> None:
    labels = torch.tensor([[True, True, True, False]])
    specified = torch.tensor([[True, False, False, False]])
    assert eligible(labels, specified, 2).tolist() == [True]
    assert eligible(labels, specified, 3).tolist() == [False]
    assert eligible(labels, torch.zeros_like(labels), 1).tolist() == [False]


def test_a_specified_label_that_ties_into_the_clean_top_k_counts_as_seen() -> None:
    labels = torch.tensor([[True, True, False]])
    specified = torch.tensor([[True, False, False]])
    tied = torch.tensor([[0.5, 0.1, 0.5]])
    assert eligible(labels, specified, 1, clean_scores=tied).tolist() == [True]
    tied[0, 0] -= 1e-3
    assert eligible(labels, specified, 1, clean_scores=tied).tolist() == [False]


def test_an_int_k_a_k_per_row_and_row_by_row_are_the_same() -> None:
    specified = LABELS & (torch.arange(C) < 3)
    for k in (1, 3):
        each = eligible(LABELS, specified, torch.full((N,), k), clean_scores=CLEAN)
        assert torch.equal(eligible(LABELS, specified, k, clean_scores=CLEAN), each)
        for i in range(0, N, 20):
            row = slice(i, i + 1)
            alone = eligible(LABELS[row], specified[row], k, clean_scores=CLEAN[row])
            assert alone.tolist() == each[row].tolist()


# ---- S1 ----


@RULES
def test_s1_specifies_the_relevant_members_and_keeps_the_eligible_images(rule: str) -> None:
    members = (1, 4, 7)
    chosen = global_selection(LABELS, members, 2, clean_scores=CLEAN, rule=rule)
    for y, s in zip(LABELS.tolist(), chosen.specified.tolist(), strict=True):
        assert {j for j in range(C) if s[j]} == {j for j in members if y[j]}
    clean = CLEAN if rule == "released" else None
    assert torch.equal(chosen.eligible, eligible(LABELS, chosen.specified, 2, clean_scores=clean))
    assert chosen.eligible.any()


def test_s1_takes_any_sequence_of_indices_in_any_order() -> None:
    wanted = global_selection(LABELS, [1, 4], 2, rule="paper").specified
    for members in ((4, 1), [4, 1, 4], torch.tensor([1, 4]), np.array([4, 1]), range(1, 5, 3)):
        assert torch.equal(global_selection(LABELS, members, 2, rule="paper").specified, wanted)


def test_the_released_rule_is_the_default() -> None:
    named = global_selection(LABELS, [1, 4], 2, clean_scores=CLEAN, rule="released")
    default = global_selection(LABELS, [1, 4], 2, clean_scores=CLEAN)
    paper = global_selection(LABELS, [1, 4], 2, clean_scores=CLEAN, rule="paper")
    assert torch.equal(default.eligible, named.eligible)
    assert not torch.equal(default.eligible, paper.eligible)


def test_first_gives_the_first_eligible_positions_in_order() -> None:
    chosen = global_selection(LABELS, [1, 4], 2, rule="paper")
    wanted = [i for i, yes in enumerate(chosen.eligible.tolist()) if yes]
    assert chosen.first(7).tolist() == wanted[:7]
    assert chosen.first(10 * N).tolist() == wanted
    assert chosen.first(0).tolist() == []


def test_a_selection_cannot_be_reassigned() -> None:
    chosen = global_selection(LABELS, [1, 4], 2, rule="paper")
    with pytest.raises(dataclasses.FrozenInstanceError):
        chosen.eligible = chosen.eligible


# ---- S2 ----


@RULES
@pytest.mark.parametrize(("m", "k"), [(1, 1), (2, 2), (1, 3), (3, 3)])
def test_s2_draws_m_candidates_or_none(rule: str, m: int, k: int) -> None:
    chosen = random_selection(
        LABELS, m, k, ids=IDS, seed=0, clean_scores=CLEAN, rule=rule
    )  # fmt: skip
    pool = LABELS & in_clean_top(k) if rule == "released" else LABELS
    assert not (chosen.specified & ~pool).any()
    enough = pool.sum(-1) >= m
    assert torch.equal(chosen.specified.sum(-1), m * enough)
    assert torch.equal(chosen.eligible, enough & (LABELS.sum(-1) >= k + m))
    assert chosen.eligible.any()
    assert not chosen.eligible.all()


@RULES
def test_s2_is_the_same_in_any_order_subset_or_shard(rule: str) -> None:
    whole = draw(2, 3, rule=rule)
    assert torch.equal(draw(2, 3, rule=rule), whole)
    for rows in (
        torch.randperm(N, generator=ref.generator(5)), torch.arange(0, N, 7), torch.tensor([42]),
    ):  # fmt: skip
        assert torch.equal(draw(2, 3, rule=rule, rows=rows), whole[rows])
    shards = [draw(2, 3, rule=rule, rows=slice(i, i + 100)) for i in range(0, N, 100)]
    assert torch.equal(torch.cat(shards), whole)


@RULES
def test_s2_of_a_smaller_m_is_inside_that_of_a_larger_one(rule: str) -> None:
    one, two, three = (draw(m, 4, rule=rule) for m in (1, 2, 3))
    drawn = two.any(-1)
    assert not (one & ~two)[drawn].any()
    drawn = three.any(-1)
    assert not (two & ~three)[drawn].any()
    assert drawn.any()


@RULES
def test_s2_depends_on_the_seed_and_on_the_image_id(rule: str) -> None:
    assert not torch.equal(draw(2, 4, rule=rule, seed=1), draw(2, 4, rule=rule, seed=2))
    other = random_selection(
        LABELS, 2, 4, ids=[f"x{i}" for i in IDS], seed=1, clean_scores=CLEAN, rule=rule
    )
    assert not torch.equal(other.specified, draw(2, 4, rule=rule, seed=1))


def test_a_seed_and_an_id_are_not_run_together() -> None:
    labels = torch.ones(64, 40, dtype=torch.bool)

    def drawn(seed: int, prefix: str) -> torch.Tensor:
        ids = [f"{prefix}{i}" for i in range(64)]
        return random_selection(labels, 3, 5, ids=ids, seed=seed, rule="paper").specified

    assert not torch.equal(drawn(1, "1"), drawn(11, ""))


def test_images_of_equal_labels_get_draws_of_their_own_and_every_label_its_share() -> None:
    n = 2000
    labels = torch.zeros(n, 6, dtype=torch.bool)
    labels[:, 1:5] = True
    ids = [str(i) for i in range(n)]
    share = random_selection(labels, 1, 1, ids=ids, seed=3, rule="paper").specified.sum(0) / n
    assert share[[0, 5]].tolist() == [0, 0]
    # five standard deviations of a fair draw
    assert ((share[1:5] - 1 / 4).abs() < 5 * (3 / 16 / n) ** 0.5).all()


def test_under_the_papers_rule_the_clean_scores_do_not_matter() -> None:
    without = random_selection(LABELS, 2, 3, ids=IDS, seed=0, rule="paper").specified
    assert torch.equal(without, draw(2, 3, rule="paper"))
    assert not torch.equal(without, draw(2, 3))


def test_s2_leaves_the_global_random_states_alone() -> None:
    before = torch.get_rng_state(), np.random.get_state()[1].tolist()  # noqa: NPY002
    draw(2, 3)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.random.get_state()[1].tolist() == before[1]  # noqa: NPY002


def test_without_images_there_is_nothing_to_select() -> None:
    chosen = random_selection(LABELS[:0], 1, 2, ids=[], seed=0, rule="paper")
    assert chosen.specified.shape == (0, C)
    assert chosen.first(5).tolist() == []


# ---- bad input ----

Y = torch.tensor([[True, True, True, False], [True, True, True, True]])
S = torch.tensor([[True, False, False, False], [True, False, False, True]])
F = ref.random_scores(2, 4, seed=6)
HOLE = torch.where(S, torch.nan, F)
BAD_LABELS = [Y.long(), Y.tolist(), Y[0], Y[None], None]
BAD_K = [0, 5, 2.0, True, "2", None, torch.tensor([1.0, 2.0]), torch.tensor([1, 9])]
BAD_CLEAN = [HOLE, F[:1], F[:, :3], F[0], F.long(), F.tolist()]


def s1(labels=Y, members=(0, 3), k=1, clean=F, rule="released"):
    return global_selection(labels, members, k, clean_scores=clean, rule=rule)


def s2(labels=Y, m=1, k=2, ids=("a", "b"), seed=0, clean=F, rule="released"):
    return random_selection(labels, m, k, ids=ids, seed=seed, clean_scores=clean, rule=rule)


def plain(labels=Y, specified=S, k=1, clean=F):
    return eligible(labels, specified, k, clean_scores=clean)


def refused(name: str):
    return pytest.raises(ValueError, match=rf"^{name}:")


EVERY = pytest.mark.parametrize("function", [plain, s1, s2])
SCHEMES = pytest.mark.parametrize("function", [s1, s2])


@EVERY
def test_the_good_neighbour_of_the_bad_input_is_taken(function) -> None:
    function()


@EVERY
@pytest.mark.parametrize("labels", BAD_LABELS)
def test_labels_that_are_not_rows_of_bools_are_refused(function, labels) -> None:
    with refused("labels"):
        function(labels=labels)


@EVERY
@pytest.mark.parametrize("k", BAD_K)
def test_a_k_that_is_no_place_is_refused(function, k) -> None:
    with refused("k"):
        function(k=k)


@EVERY
@pytest.mark.parametrize("clean", BAD_CLEAN)
def test_clean_scores_of_another_kind_are_refused(function, clean) -> None:
    with refused("clean_scores"):
        function(clean=clean)


@SCHEMES
def test_the_released_rule_without_clean_scores_is_refused(function) -> None:
    with refused("clean_scores"):
        function(clean=None)
    function(clean=None, rule="paper")


@SCHEMES
@pytest.mark.parametrize("rule", ["Released", "", None])
def test_an_unknown_rule_is_refused(function, rule) -> None:
    with refused("rule"):
        function(rule=rule)


@pytest.mark.parametrize("specified", [S.long(), S[:1], S[0], S.tolist(), torch.ones_like(Y)])
def test_specified_that_is_no_part_of_the_labels_is_refused(specified) -> None:
    with refused("specified"):
        plain(specified=specified)


@pytest.mark.parametrize("members", [(), (4,), (-1,), (0.5,), "ab", 3, None, (None,)])
def test_members_that_are_no_class_indices_are_refused(members) -> None:
    with refused("members"):
        s1(members=members)


@pytest.mark.parametrize("m", [0, 3, -1, 1.0, True, "1", None])
def test_an_m_outside_1_to_k_is_refused(m) -> None:
    with refused("m"):
        s2(m=m)


def test_an_m_of_numpy_is_an_integer_too() -> None:
    assert torch.equal(s2(m=np.int64(1)).specified, s2(m=1).specified)


def test_s2_takes_one_k_for_all() -> None:
    with refused("k"):
        s2(k=torch.tensor([2, 2]))


@pytest.mark.parametrize("ids", [(), ("a",), ("a", "b", "c"), 3])
def test_a_wrong_number_of_ids_is_refused(ids) -> None:
    with refused("ids"):
        s2(ids=ids)


@pytest.mark.parametrize("seed", [1.0, None, "1", True])
def test_a_seed_that_is_no_integer_is_refused(seed) -> None:
    with refused("seed"):
        s2(seed=seed)


@pytest.mark.parametrize("n", [-1, 2.5, None, True])
def test_a_number_of_images_that_cannot_be_is_refused(n) -> None:
    with refused("n"):
        s1().first(n)
