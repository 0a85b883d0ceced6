"""Promises of how a defence is judged: by who knows it, behind the real one, on what it shows."""

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from tkmia_utils.data import MultiLabelDataset
from tkmia_utils.defence.smoothing import Smoothing
from tkmia_utils.defence.transformations import (
    TRANSFORMATIONS,
    Defended,
    Transformation,
    random_resize,
    same,
)
from tkmia_utils.experiments import defence
from tkmia_utils.experiments.protocol import Cell, Queue

BOX = {"max_iter": 20}


class Corners(nn.Module):
    """Three classes, each by the brightness of one pixel of the first row, and a fourth of 0.2."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()), requires_grad=False)
        self.eval()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.pad(self.scale * 4 * x[:, 0, 0, 2:5], (0, 1), value=0.8)


def row_of(*levels: float) -> torch.Tensor:
    image = torch.full((3, 16, 16), 0.5)
    image[:, 0, : len(levels)] = torch.tensor(levels)
    return image


@pytest.fixture
def one():
    """The first class is specified of three relevant ones, k = 1."""
    labels = torch.tensor([[True, True, True, False]])
    specified = torch.tensor([[True, False, False, False]])
    number = torch.ones(1, dtype=torch.int64)
    queue = Queue((Cell("S2", 1, m=1),), number - 1, labels, specified, number, number)
    pixels = (row_of(0.6, 0.7, 0.8, 0.6, 0.5) * 255).round().to(torch.uint8)
    data = MultiLabelDataset(
        name="toy", split="val", classes=tuple("abcd"), labels=labels, ids=("i0",),
        load=lambda i: pixels, card="toy", size=16,
    )  # fmt: skip
    return queue, data


def left(images: torch.Tensor) -> torch.Tensor:
    return images.roll(-1, -1)


def right(images: torch.Tensor) -> torch.Tensor:
    return images.roll(1, -1)


def some_way(images: torch.Tensor, numbers: torch.Tensor) -> torch.Tensor:
    """Brighter or darker by chance, all over."""
    return images + 0.1 * (numbers[:, :, None, None] - 0.5)


def test_only_who_goes_through_the_defence_gets_through(one):
    queue, data = one
    moved = {"left": Transformation("left", lambda x: left(x) * 1.0, left)}
    pixels = (row_of(0.6, 0.7, 0.6, 0.8, 0.5) * 255).round().to(torch.uint8)
    shown = MultiLabelDataset(
        name="toy", split="val", classes=tuple("abcd"), labels=data.labels, ids=("i0",),
        load=lambda i: pixels, card="toy", size=16,
    )  # fmt: skip
    rows = defence.attack_through(Corners(), moved, queue, shown, **BOX).set_index("attacker")
    assert rows["shown"].all() and list(rows.index) == list(defence.ATTACKERS)
    assert rows.loc[defence.ADAPTIVE, "kept"] and not rows.loc[defence.UNAWARE, "kept"]
    assert not rows.loc[defence.IDENTITY, "kept"]  # another pixel's gradient
    assert rows.loc[defence.ADAPTIVE, "norm"] == rows.loc[defence.ADAPTIVE, "l2"] < np.inf
    assert rows.loc[defence.UNAWARE, "norm"] == np.inf


def test_without_a_change_all_attackers_are_one(one):
    queue, data = one
    rows = defence.attack_through(
        Corners(), {"PNG": TRANSFORMATIONS["PNG"]}, queue, data, **BOX
    ).set_index("attacker")
    assert list(rows.index) == [defence.UNAWARE, defence.ADAPTIVE]
    assert rows["kept"].all() and rows["l2"].nunique() == 1


def test_a_random_defence_is_judged_by_several_fresh_draws(one):
    queue, data = one
    noisy = {"noisy": Transformation("noisy", some_way, some_way, numbers=1)}
    rows = defence.attack_through(Corners(), noisy, queue, data, trials=5, draws=2, **BOX)
    adaptive = rows[rows["attacker"] == defence.ADAPTIVE]
    assert sorted(adaptive["trial"]) == [0, 1, 2, 3, 4] and adaptive["l2"].nunique() == 1
    assert adaptive["kept"].all()  # all channels alike: no draw changes the order


def test_clean_and_attacked_images_share_their_draw_and_trials_do_not():
    random = TRANSFORMATIONS["random resize"]
    images = torch.rand((2, 3, 16, 16), generator=torch.Generator().manual_seed(0))
    changes = defence.fresh_changes(random, 2, trials=3, seed=0)
    assert len(changes) == 3
    assert torch.equal(changes[0](images), changes[0](images))
    assert not torch.equal(changes[0](images), changes[1](images))
    again = defence.fresh_changes(random, 2, trials=3, seed=0)
    assert torch.equal(changes[2](images), again[2](images))
    (only,) = defence.fresh_changes(TRANSFORMATIONS["resized"], 2, trials=3, seed=0)
    assert only is TRANSFORMATIONS["resized"].real


def test_what_an_attacker_differentiates():
    model, jpeg = Corners(), TRANSFORMATIONS["JPEG 75"]
    assert defence.attacked_model(model, jpeg, defence.UNAWARE) is model
    x = row_of(0.1, 0.2, 0.6, 0.4, 0.5)[None].requires_grad_()
    gradients = {}
    for attacker in (defence.IDENTITY, defence.ADAPTIVE):
        behind = defence.attacked_model(model, jpeg, attacker)
        assert isinstance(behind, Defended)
        assert torch.equal(behind(x), model(jpeg.real(x)))
        (gradients[attacker],) = torch.autograd.grad(behind(x)[0, 0], x)
    assert (gradients[defence.IDENTITY] != 0).sum() == 1
    assert (gradients[defence.ADAPTIVE] != 0).sum() > 100
    with pytest.raises(ValueError, match=r"^attacker: "):
        defence.attacked_model(model, jpeg, "nobody")


def test_quality_is_that_of_what_the_model_sees(one):
    _, data = one
    changes = {
        "PNG": TRANSFORMATIONS["PNG"],
        "small": Transformation("small", random_resize, same, numbers=3),
    }
    found = defence.clean_quality(Corners(), changes, data)
    assert list(found.index) == ["none", "PNG", "small"] and found["none"] == found["PNG"]


def test_a_median_may_be_infinite_and_is_never_nan():
    rows = pd.DataFrame(
        {
            "run": ["a"] * 3 + ["b"] * 4,
            "image": list("uvwuvwx"),
            "norm": [1.0, 2.0, np.inf, 1.0, 2.0, np.inf, np.inf],
            "kept": [True, True, False, True, True, False, False],
        }
    )
    table = defence.summary(rows, ["run"], shares=["kept"], norms=["norm"], resamples=50)
    assert table["norm"].tolist() == [2.0, np.inf] and table["kept"].tolist() == [2 / 3, 0.5]
    assert not table.isna().any(axis=None)


def test_only_images_that_every_model_shows_are_left_and_n_a_cell(one):
    queue, data = one
    twice = queue.rows([0, 0, 0])
    model = Corners()
    kept = defence.shown_by_all({"a": model, "b": model}, twice, data, n=2)
    assert len(kept.k) == 2 and kept.cells == twice.cells[:2]
    moved = Defended(model, Transformation("moved", right))  # where the second class is highest
    with pytest.raises(ValueError, match=r"^queue: "):
        defence.shown_by_all({"a": model, "b": moved}, twice, data, n=2)


def test_norms_of_several_models_and_runs(one):
    queue, data = one
    model = Corners()
    runs = {"short": {"method": "tkmia", "max_iter": 1}, "long": {"method": "tkmia_min", **BOX}}
    models = {"plain": model, "moved": Defended(model, Transformation("moved", right))}
    rows = defence.least_norms(models, queue, data, runs, stop="imperceptible")
    assert len(rows) == 4 and set(rows["model"]) == set(models)
    plain = rows[rows["model"] == "plain"].set_index("run")
    assert plain["shown"].all() and plain.loc["short", "norm"] == np.inf
    assert 0 < plain.loc["long", "norm"] < 1
    hidden = rows[rows["model"] == "moved"]  # its first class is not the highest there
    assert not hidden["shown"].any() and (hidden["norm"] == 0).all()


def test_what_was_made_for_one_model_is_asked_of_another(one):
    queue, data = one
    model = Corners()
    same_norm = defence.least_norms(
        {"plain": model}, queue, data, {"run": BOX}, method="tkmia_min", stop="imperceptible"
    )["norm"]
    moved = defence.transferred_norms(model, model, queue, data, [2.0, 0.0], **BOX)
    # the least of both confidences
    assert moved["norm"].tolist() == pytest.approx(same_norm.tolist(), rel=1e-5)
    numb = nn.Sequential(Defended(model, Transformation("numb", lambda x: x * 0 + x.mean()))).eval()
    rows = defence.transferred_norms(model, numb, queue, data, [0.0], **BOX)
    assert rows["norm"].tolist() == [np.inf]


def test_the_quality_of_the_smoothed_is_that_of_its_votes(one):
    _, data = one
    few = Smoothing(sigma=1e-4, draws=2, choosing=1)
    assert defence.smoothed_quality(Corners(), data, few, 3) == 1.0  # a, b and c get all votes
