"""Promises of what is left elsewhere: what changes an image, and who judges it by what."""

import pytest
import torch
from torch import nn

from tkmia_utils.data import MultiLabelDataset
from tkmia_utils.defence.transformations import TREATMENTS
from tkmia_utils.experiments import transfer
from tkmia_utils.experiments.protocol import Cell, Queue


class Channels(nn.Module):
    """Three classes, by the mean of each channel; and a fourth of 0."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.pad(x.mean((-2, -1)), (0, 1))


def flat(*colours) -> torch.Tensor:
    return torch.tensor(colours)[..., None, None].expand(-1, -1, 16, 16).clone()


@pytest.fixture
def one():
    """Red and green are relevant, red is specified, k = 1."""
    labels = torch.tensor([[True, True, False, False]])
    specified = torch.tensor([[True, False, False, False]])
    number = torch.ones(1, dtype=torch.int64)
    queue = Queue((Cell("S2", 1, m=1),), number - 1, labels, specified, number, number)
    data = MultiLabelDataset(
        name="toy", split="val", classes=tuple("rgbx"), labels=labels, ids=("i0",),
        load=lambda i: torch.zeros(3, 16, 16, dtype=torch.uint8), card="toy", size=16,
    )  # fmt: skip
    return queue, data


def test_kept_means_hidden_and_no_measure_fell(one):
    queue, data = one
    clean, model = flat([0.8, 0.6, 0.2]), Channels()
    green, blue = flat([0.6, 0.8, 0.2]), flat([0.2, 0.3, 0.9])
    good = transfer.judge(model, clean, green, queue, data).iloc[0]
    bad = transfer.judge(model, clean, blue, queue, data).iloc[0]
    assert good["shown"] and good["hidden"] and good["kept"]
    assert bad["hidden"] and not bad["kept"]


def test_measures_are_judged_by_the_clean_image_as_this_victim_sees_it(one):
    queue, data = one
    swapped = nn.Sequential(Channels(), nn.Linear(4, 4, bias=False)).requires_grad_(False)
    swapped[1].weight.copy_(torch.eye(4)[[1, 2, 0, 3]])  # its "r" is our green
    clean = flat([0.8, 0.6, 0.2])
    row = transfer.judge(swapped, clean, clean, queue, data).iloc[0]
    assert not row["shown"] and row["hidden"]  # hidden without an attack
    assert row["kept"]


def test_every_run_arrives_everywhere(one):
    queue, data = one
    places = transfer.viewers(Channels(), {"other": Channels()})
    clean = flat([0.8, 0.6, 0.2])
    attacked = {"mine": flat([0.6, 0.8, 0.2]), "none": clean}
    rows = transfer.judge_everywhere(places, clean, attacked, queue, data)
    assert set(rows["place"]) == {*TREATMENTS, "other"}
    assert rows["shown"].all() and len(rows) == 2 * len(places)
    assert rows.loc[rows["run"] == "mine", "kept"].all()
    assert not rows.loc[rows["run"] == "none", "hidden"].any()
