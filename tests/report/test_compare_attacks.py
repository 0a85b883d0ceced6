"""Promises of the comparison: the same images for all, a figure, and a table of what happened."""

import matplotlib.pyplot as plt
import pytest
import torch
from test_engine import net, same, task

from tkmia_utils import Runtime, attack, choose_specified, compare
from tkmia_utils.report import tables

CALL = dict(lr=0.05, max_iter=60, runtime=Runtime(slots=4))


class Shelf:
    """Images with labels, as a data set."""

    def __init__(self, images, labels):
        self.pixels, self.labels = images, labels

    def __len__(self):
        return len(self.pixels)

    def images(self, index):
        return self.pixels[index]


def world(n=8):
    model = net()
    return model, *task(model, n, k=3, m=2, side=16, classes=10)


def selection(n, *, without):
    """A world whose image `without` has too few relevant labels to hide one."""
    model, images, labels, _ = world(n)
    labels = labels.clone()
    labels[without] = False
    labels[without, 0] = True
    with torch.no_grad():
        logits = model(images)
    return model, images, labels, logits, choose_specified(logits, labels, 3, m=1)


def test_each_method_does_what_it_does_alone_and_the_table_says_it():
    model, images, labels, specified = world()
    methods = {"tkmia": {}, "kfool": {"max_iter": 7}, "late": {"method": "tkmia", "lr": 1e-3}}
    with pytest.warns(UserWarning, match="tkmia: 0 of 8 images succeeded"):
        found = compare(model, images, labels, k=3, specified=specified, methods=methods, **CALL)
    table, figure, results, index = found
    assert table.index.tolist() == list(methods) == list(results)
    assert index.tolist() == list(range(8)) and table["n"].tolist() == [8, 8, 8]
    same(results["tkmia"], attack(model, images, labels, specified, 3, **CALL))
    alone = attack(model, images, labels, specified, 3, **CALL | {"max_iter": 7}, method="kfool")
    same(results["kfool"], alone)
    for name, result in results.items():
        won, frame = result.success, result.to_frame()
        assert table.loc[name, "success"] == pytest.approx(won.double().mean().item())
        for column, measure in (("Delta TkAcc", "TkAcc"), ("Delta mAP@k", "AP@k")):
            assert table.loc[name, column] == pytest.approx(frame[f"Delta {measure}"].mean())
        if won.any():
            assert table.loc[name, "APer"] == pytest.approx(float(result.l2_paper[won].mean()))
            steps = result.iterations[won].double().mean().item()
            assert table.loc[name, "iterations"] == pytest.approx(steps)
    assert table.loc["late", "success"] == 0 and table.loc["late"].isna()["APer"]
    files = {"survives PNG", "PNG and no measure fell"}  # which were not looked at
    assert set(tables.QUANTITIES) - files < set(table.columns)
    assert [t.get_text() for t in figure.axes[0].get_yticklabels()] == list(methods)
    plt.close(figure)


def test_a_selection_leaves_out_what_is_not_eligible_and_a_data_set_brings_its_labels():
    model, images, labels, _, chosen = selection(12, without=3)
    assert chosen.eligible.sum() == 11
    call = CALL | {"k": torch.full((12,), 3), "specified": chosen, "methods": ["tkmia"]}
    found = compare(model, Shelf(images, labels), **call)
    assert found.index.tolist() == [i for i in range(12) if i != 3]
    at = found.index
    alone = attack(model, images[at], labels[at], chosen.specified[at], 3, **CALL)
    same(found.results["tkmia"], alone)
    assert found.table.loc["tkmia", "n"] == 11 and found.table.loc["tkmia", "unchanged"] == 0
    plt.close(found.figure)


def test_images_that_all_end_alike_can_be_drawn():
    """A mean and its resamples may then differ in their last bits."""
    model, *data = world(1)
    images, labels, specified = (rows.repeat(7, *[1] * (rows.ndim - 1)) for rows in data)
    runtime = Runtime(slots=7)
    found = compare(
        model, images, labels, k=3, specified=specified, lr=0.05, max_iter=30, runtime=runtime
    )
    assert (found.table["n"] == 7).all() and set(found.table["success"]) <= {0.0, 1.0}
    plt.close(found.figure)


def test_a_success_without_an_attack_is_counted():
    model, images, labels, specified = world()
    low = torch.zeros_like(labels).scatter_(1, model(images).argsort()[:, :1], True)
    labels, specified = labels | low, torch.where(torch.arange(8)[:, None] < 3, low, specified)
    with pytest.warns(UserWarning, match="3 of 8 images succeed unchanged"):
        found = compare(model, images, labels, k=3, specified=specified, methods=["tkmia"], **CALL)
    assert found.table.loc["tkmia", "unchanged"] == 3
    plt.close(found.figure)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("methods", {"methods": []}),
        ("methods", {"methods": "tkmia"}),
        ("methods", {"methods": 3}),
        ("methods", {"methods": [torch.nn.Identity()]}),
        ("methods", {"methods": ["tkmia", "tkmia"]}),
        ("methods", {"methods": {"tkmia": None}}),
        ("method", {"methods": ["deepfool"]}),
        ("labels", {"labels": None}),
        ("labels", {"labels": [[True]]}),
        ("labels", {"labels": torch.tensor(True)}),
        ("labels", {"labels": torch.ones(1, 10, dtype=torch.bool)}),
        ("specified", {"specified": None}),
        ("specified", {"specified": torch.zeros(3, 10, dtype=torch.bool)}),
        ("specified", {"specified": torch.zeros(2, 5, dtype=torch.bool)}),
        ("specified", {"specified": torch.tensor(True)}),
        ("k", {"k": 0}),
        ("k", {"k": torch.tensor([3])}),
        ("slots", {"slots": 3}),
    ],
)
def test_bad_input_is_refused_by_name(name, change):
    model, images, labels, specified = world(2)
    call = dict(labels=labels, k=3, specified=specified, methods=["tkmia"], max_iter=1)
    with pytest.raises(ValueError, match=rf"^{name}: "):
        compare(model, images, **call | change)


def test_a_wrong_name_is_refused_before_the_first_attack_begins():
    _, images, labels, specified = world(2)

    def never(x):
        raise AssertionError("an attack began")

    with pytest.raises(ValueError, match=r"^method: .*'deepfool'"):
        compare(never, images, labels, k=3, specified=specified, methods=["tkmia", "deepfool"])


def test_settings_with_one_row_an_image_follow_the_images_that_are_attacked():
    model, images, labels, logits, chosen = selection(6, without=2)
    limits = torch.arange(10, 70, 10)
    call = CALL | {"clean_logits": logits, "methods": {"tkmia": {"max_iter": limits}}}
    found = compare(model, images, labels, k=3, specified=chosen, **call)
    spec = found.results["tkmia"].spec
    assert spec.max_iter.tolist() == limits[found.index].tolist() == [10, 20, 40, 50, 60]
    plt.close(found.figure)


def test_no_eligible_image_is_refused():
    model, images, labels, _ = world(2)
    chosen = choose_specified(model(images), labels, 5, m=1)
    assert not chosen.eligible.any()
    with pytest.raises(ValueError, match=r"^specified: .*eligible"):
        compare(model, images, labels, k=5, specified=chosen, methods=["tkmia"])
