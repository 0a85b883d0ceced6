"""Promises of the game: the victim judges every attacker, and only hidden images are sent."""

import numpy as np
import pytest
import torch
from test_protocol import TYPES, world  # noqa: F401  (a fixture)
from torch import nn

from tkmia_utils.engine.runtime import Runtime
from tkmia_utils.experiments import game, protocol
from tkmia_utils.experiments.watching import look_at_all
from tkmia_utils.topk import in_top_k

SETTINGS = {"method": "tkmia", "lr": 1e-2, "max_iter": 60}


@pytest.fixture(scope="module")
def other(world):  # noqa: F811
    """Another view of the images, on which other pixels count."""
    model, *_ = world
    g = torch.Generator().manual_seed(5)
    found = nn.Sequential(nn.Flatten(), nn.Linear(48, 8)).eval()
    noise = torch.randn(model[1].weight.shape, generator=g)
    found[1].weight.data = model[1].weight + noise
    found[1].bias.data = model[1].bias.clone()
    return found


@pytest.fixture(scope="module")
def played(world, other):  # noqa: F811
    model, data, logits = world
    cells = protocol.list_cells(TYPES, [1, 2], [(2, 2)])
    queue = protocol.build_queue(cells, data, logits, TYPES, n=6)
    attackers = {"direct": {}, "through": {"through": other}, "short": {"max_iter": 1}}
    rows, sent = game.attack_all(model, queue, data, attackers, **SETTINGS)
    assert attackers["through"] == {"through": other}  # as it was given
    return queue, rows, sent


def test_every_attacker_has_a_row_an_image(played):
    queue, rows, sent = played
    assert rows.columns.tolist() == ["cell", "k", "image", "run", "l2", "hidden", "kept"]
    assert list(sent) == ["direct", "through", "short"] == list(rows["run"].unique())
    for name, one in sent.items():
        mine = rows[rows["run"] == name]
        assert mine["cell"].tolist() == [c.name for c in queue.cells]
        assert mine["k"].tolist() == queue.k.tolist()
        assert one.hidden.dtype == torch.bool and one.hidden.tolist() == mine["hidden"].tolist()
        assert not (mine["kept"] & ~mine["hidden"]).any()


def test_the_victim_judges_also_what_was_made_for_another_model(world, other, played):  # noqa: F811
    model, data, _ = world
    queue, rows, sent = played
    for name, one in sent.items():
        with torch.no_grad():
            scores = model(one.images)
        out = (queue.specified & ~in_top_k(scores, queue.k)).sum(1) >= queue.delta
        assert torch.equal(out, one.hidden), name
        l2 = (one.images - data.images(queue.index)).flatten(1).norm(dim=1)
        told = torch.tensor(rows.loc[rows["run"] == name, "l2"].tolist())
        assert torch.allclose(told, l2, atol=1e-5)
    _, alone = protocol.run(other, queue, data, **SETTINGS)
    assert torch.equal(sent["through"].images, alone.adversarial)
    # there it succeeds more often than the victim says, so the two can be told apart
    assert (alone.success != sent["through"].hidden).any()
    assert sent["short"].hidden.sum() < sent["direct"].hidden.sum()


def test_the_owner_sees_what_was_sent_with_both_of_her_looks(world, other, played):  # noqa: F811
    model, data, logits = world
    queue, _, sent = played
    seen = game.watched(model, other, queue, data, sent, TYPES)
    assert list(seen) == list(sent)
    for name, found in seen.items():
        for cell, one in found.items():
            mine = [r for r, c in enumerate(queue.cells) if c == cell and sent[name].hidden[r]]
            assert len(one.attacked) == len(mine) > 0
            with torch.no_grad():
                scores, second = (net(sent[name].images[mine]) for net in (model, other))
            assert torch.allclose(one.attacked.scores, scores, atol=1e-5)
            assert torch.allclose(one.attacked.second, second, atol=1e-5)
            assert torch.equal(one.attacked.labels, queue.labels[mine])
            assert len(one.clean) == len(data)
            eligible = protocol.choose(cell, data, logits, TYPES).eligible
            np.testing.assert_array_equal(one.attackable, eligible.numpy())
            members = [data.classes.index(n) for n in TYPES[cell.type]] if cell.type else range(8)
            assert one.members == tuple(members)
        hidden = {c for c, h in zip(queue.cells, sent[name].hidden.tolist(), strict=True) if h}
        assert set(found) == hidden


def test_images_that_were_looked_at_are_not_looked_at_again(world, other, played):  # noqa: F811
    model, data, _ = world
    queue, _, sent = played
    clean = look_at_all(model, other, data)
    seen = game.watched(model, other, queue, data, sent, TYPES, clean=clean)
    assert all(one.clean is clean for found in seen.values() for one in found.values())


def test_images_that_are_thrown_away_cannot_be_judged(world, played):  # noqa: F811
    model, data, _ = world
    queue, *_ = played
    asked = {**SETTINGS, "runtime": Runtime(keep_images=False)}
    with pytest.raises(ValueError, match=r"^runtime: "):
        game.attack_all(model, queue.rows([0]), data, {"direct": {}}, **asked)
