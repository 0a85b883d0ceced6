"""Promises of choose_specified: the paper's schemes for one's own logits and labels."""

import pytest
import references as ref
import torch

from tkmia_utils import choose_specified
from tkmia_utils.experiments.selection import RULES, global_selection, random_selection
from tkmia_utils.topk import in_top_k

N, C, K = 200, 10, 3
LABELS = ref.random_labels(N, C, seed=1, share=0.6)
LOGITS = ref.random_scores(N, C, seed=2).float()


@pytest.mark.parametrize("rule", RULES)
def test_it_is_the_papers_schemes(rule):
    ids = [f"photo {i}" for i in range(N)]
    s1 = choose_specified(LOGITS, LABELS, K, members=[1, 4], rule=rule)
    wanted = global_selection(LABELS, [1, 4], K, clean_scores=LOGITS, rule=rule)
    assert torch.equal(s1.specified, wanted.specified)
    assert torch.equal(s1.eligible, wanted.eligible) and s1.eligible.any()
    s2 = choose_specified(LOGITS, LABELS, K, m=2, seed=5, ids=ids, rule=rule)
    wanted = random_selection(LABELS, 2, K, ids=ids, seed=5, clean_scores=LOGITS, rule=rule)
    assert torch.equal(s2.specified, wanted.specified)
    assert torch.equal(s2.eligible, wanted.eligible) and s2.eligible.any()


def test_what_is_drawn_was_relevant_and_in_the_clean_top_k():
    chosen = choose_specified(LOGITS, LABELS, K, m=2)
    drawn = chosen.specified[chosen.eligible]
    assert (drawn.sum(1) == 2).all()
    assert not (chosen.specified & ~(LABELS & in_top_k(LOGITS, K))).any()


def test_a_draw_depends_on_seed_and_id_and_on_nothing_else():
    ids = [f"photo {i}" for i in range(N)]
    whole = choose_specified(LOGITS, LABELS, K, m=1, ids=ids).specified
    at = torch.randperm(N, generator=ref.generator(3))[:50]
    part = choose_specified(LOGITS[at], LABELS[at], K, m=1, ids=[ids[i] for i in at]).specified
    assert torch.equal(part, whole[at])
    assert not torch.equal(
        choose_specified(LOGITS, LABELS, K, m=1, ids=ids, seed=1).specified, whole
    )
    other = choose_specified(LOGITS, LABELS, K, m=1).specified  # ids are positions
    assert not torch.equal(other, whole)


def test_logits_with_a_graph_are_taken_as_they_are():
    assert choose_specified(LOGITS.clone().requires_grad_(), LABELS, K, m=1).eligible.any()


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("m, members", {"m": None}),
        ("m, members", {"members": [0]}),
        ("m", {"m": 4}),
        ("members", {"m": None, "members": [10]}),
        ("k", {"k": 0}),
        ("clean_scores", {"clean_scores": LOGITS[:3]}),
        ("labels", {"labels": LABELS.float()}),
        ("ids", {"ids": ["one"]}),
        ("seed", {"seed": 0.5}),
        ("rule", {"rule": "mine"}),
    ],
)
def test_bad_input_is_refused_by_name(name, change):
    call = {"clean_scores": LOGITS, "labels": LABELS, "k": K, "m": 1}
    with pytest.raises(ValueError, match=rf"^{name}: "):
        choose_specified(**call | change)
