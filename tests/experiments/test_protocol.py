"""Promises of the protocol and its tables."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from tkmia_utils import attack, measures
from tkmia_utils.data import MultiLabelDataset
from tkmia_utils.experiments import examples, protocol
from tkmia_utils.report import tables

CLASSES = tuple("abcdefgh")
TYPES = {"first": ("a", "b"), "last": ("h",)}


@pytest.fixture(scope="module")
def world():
    """A linear victim, and images labelled by its own five highest classes."""
    generator = torch.Generator().manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(48, len(CLASSES))).eval()
    for parameter in model.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator)
    pixels = torch.randint(0, 256, (40, 3, 4, 4), generator=generator, dtype=torch.uint8)
    logits = model(pixels / 255).detach()
    labels = torch.zeros_like(logits, dtype=torch.bool).scatter_(1, logits.topk(5).indices, True)
    data = MultiLabelDataset(
        name="toy", split="val", classes=CLASSES, labels=labels,
        ids=tuple(f"i{n}" for n in range(40)), load=pixels.__getitem__, card="toy", size=4,
    )  # fmt: skip
    return model, data, logits


@pytest.fixture(scope="module")
def attacked(world):
    model, data, logits = world
    cells = protocol.list_cells(TYPES, [1, 2], [(2, 2), (3, 2)])
    queue = protocol.build_queue(cells, data, logits, TYPES, n=6)
    frames = {
        name: protocol.run(model, queue, data, method=name, lr=1e-2)
        for name in ("tkmia", "tkml_ap_u")
    }
    return queue, frames


def test_a_study_lists_every_cell_once():
    cells = protocol.list_cells(TYPES, [1, 2], [(2, 2)])
    assert [c.name for c in cells] == [
        "first, k=1", "first, k=2", "last, k=1", "last, k=2", "k=2, |S|=2",
    ]  # fmt: skip
    with pytest.raises(ValueError, match="cell"):
        protocol.Cell("S1", 1, m=2)
    with pytest.raises(ValueError, match="scheme"):
        protocol.Cell("S3", 1, m=2)
    with pytest.raises(ValueError, match="k: "):
        protocol.Cell("S2", 0, m=1)
    for pairs in ([(2,)], [(2, 2, 2, 1)]):
        with pytest.raises(ValueError, match="pairs"):
            protocol.list_cells(TYPES, [1], pairs)


def test_the_queue_holds_the_first_eligible_images_of_each_cell(world, attacked):
    _, data, logits = world
    queue, _ = attacked
    for cell in set(queue.cells):
        at = [i for i, c in enumerate(queue.cells) if c == cell]
        selection = protocol.choose(cell, data, logits, TYPES)
        assert queue.index[at].tolist() == selection.first(6).tolist()
        assert torch.equal(queue.specified[at], selection.specified[queue.index[at]])
        assert (queue.labels[at].sum(1) >= cell.k + queue.specified[at].sum(1)).all()


def test_types_are_matched_by_name(world):
    _, data, logits = world
    with pytest.raises(ValueError, match="lacks"):
        protocol.choose(protocol.Cell("S1", 1, type="x"), data, logits, {"x": ("zebra",)})
    with pytest.raises(ValueError, match="type"):
        protocol.choose(protocol.Cell("S1", 1, type="y"), data, logits, {"x": ("a",)})
    with pytest.raises(ValueError, match="cells"):
        protocol.build_queue([protocol.Cell("S2", 7, m=7)], data, logits, TYPES, n=3)


def test_a_row_says_what_the_attack_did(world, attacked):
    model, data, _ = world
    queue, frames = attacked
    rows, result = frames["tkmia"]
    images = data.images(queue.index)
    alone = attack(model, images, queue.labels, queue.specified, queue.k, lr=1e-2)
    assert rows["success"].tolist() == alone.success.tolist() == result.success.tolist()
    before = measures.ndcg_at_k(alone.clean_logits, queue.labels, queue.k)
    after = measures.ndcg_at_k(alone.adversarial_logits, queue.labels, queue.k)
    np.testing.assert_allclose(rows["Delta NDCG@k"], (before - after).numpy())
    np.testing.assert_allclose(
        rows["NDCG@k clean"] - rows["NDCG@k adversarial"], rows["Delta NDCG@k"]
    )
    hidden = measures.delta_l(
        alone.adversarial_logits, queue.specified, queue.k, before=alone.clean_logits
    )
    np.testing.assert_allclose(rows["delta_l"], hidden)


def test_a_summary_is_the_plain_mean_inside_its_interval(attacked):
    rows = pd.concat([frame for frame, _ in attacked[1].values()], ignore_index=True)
    table = tables.summary(rows, resamples=300)
    for line in table.to_dict("records"):
        cell = rows[(rows["cell"] == line["cell"]) & (rows["method"] == line["method"])]
        won = cell[cell["success"]]
        assert line["n"] == len(cell)
        assert line["Delta P@k"] == pytest.approx(cell["Delta P@k"].mean())
        assert line["Delta mAP@k"] == pytest.approx(cell["Delta AP@k"].mean())
        assert line["APer"] == pytest.approx(won["l2_paper"].mean(), nan_ok=True)
        assert line["APer"] == pytest.approx(2 * line["APer [0,1]"], nan_ok=True)
        assert line["Delta P@k low"] <= line["Delta P@k"] + 1e-12
        assert line["Delta P@k"] <= line["Delta P@k high"] + 1e-12
    pd.testing.assert_frame_equal(table, tables.summary(rows, resamples=300))
    assert list(tables.format_summary(table)["n"]) == list(table["n"])


def test_a_bootstrap_interval_covers_about_as_often_as_it_says():
    rng, inside = np.random.default_rng(0), 0
    for _ in range(200):
        value = rng.exponential(size=60)
        rows = pd.DataFrame(
            {c: 0.0 for c in [*tables.CHANGES, "delta_l", "l2", "iterations"]}, index=range(60)
        )
        rows = rows.assign(
            scheme="S2",
            cell="c",
            method="m",
            success=True,
            l2_paper=value,
            image=[str(i) for i in range(60)],
        )
        line = tables.summary(rows, resamples=200).iloc[0]
        inside += line["APer low"] <= 1.0 <= line["APer high"]
    assert 0.85 <= inside / 200 <= 0.99


def test_rows_of_one_image_are_resampled_together():
    rng = np.random.default_rng(0)
    once = verdict_rows(rng.random(40), rng.random(40))
    thrice = pd.concat([once] * 3, ignore_index=True)
    a, b = tables.summary(once, resamples=400), tables.summary(thrice, resamples=400)
    np.testing.assert_allclose(a["APer low"], b["APer low"])
    np.testing.assert_allclose(a["APer high"], b["APer high"])


def verdict_rows(ours, theirs):
    parts = []
    for method, values in {"tkmia": ours, "rival": theirs}.items():
        part = pd.DataFrame({c: values for c in [*tables.CHANGES, "l2", "l2_paper", "delta_l"]})
        part = part.assign(scheme="S2", cell="c", method=method, success=True, iterations=1.0)
        parts.append(part.assign(image=[str(i) for i in range(len(part))]))
    return pd.concat(parts, ignore_index=True)


def test_standing_tells_first_tied_and_behind_apart():
    rng = np.random.default_rng(0)
    base = rng.random(80)
    for shift, wanted in ((-0.5, "first"), (0.5, "behind")):
        lines = tables.compare_with_best_rival(
            verdict_rows(base + shift, base), rivals=["rival"], resamples=200
        )
        assert set(lines["verdict"]) == {wanted}
    noise = rng.normal(size=80)
    ours = base + noise - noise.mean() + 0.01
    lines = tables.compare_with_best_rival(
        verdict_rows(ours, base), rivals=["rival"], resamples=500
    )
    assert set(lines["verdict"]) == {"tied"}
    # a better mean whose interval holds 0 is no first place
    lines = tables.compare_with_best_rival(
        verdict_rows(ours - 0.02, base), rivals=["rival"], resamples=500
    )
    assert (lines["champion"] < lines["best"]).all() and set(lines["verdict"]) == {"tied"}
    rows = verdict_rows(base, base)
    rows.loc[0, "image"] = "another"
    with pytest.raises(ValueError, match="different images"):
        tables.compare_with_best_rival(rows, rivals=["rival"])


def test_the_typical_image_is_the_median_success_of_its_cell(attacked):
    rows, _ = attacked[1]["tkmia"]
    for at in examples.median_positions(rows):
        cell = rows[rows["cell"] == rows["cell"][at]]
        norms = np.sort(cell[cell["success"]]["l2_paper"])
        assert rows["l2_paper"][at] == norms[(len(norms) - 1) // 2] and rows["success"][at]


def test_a_cell_without_success_is_shown_by_its_median_failure(attacked):
    rows, _ = attacked[1]["tkmia"]
    rows = rows.assign(success=False)
    at = examples.median_positions(rows)
    assert [rows["cell"][i] for i in at] == list(rows["cell"].unique())
    for i in at:
        norms = np.sort(rows[rows["cell"] == rows["cell"][i]]["l2_paper"])
        assert rows["l2_paper"][i] == norms[(len(norms) - 1) // 2]


def test_saved_examples_come_back_as_they_were(world, attacked, tmp_path):
    _, data, _ = world
    queue, frames = attacked
    rows, result = frames["tkmia"]
    examples.save_examples(tmp_path / "e.npz", queue, result, data)
    kept = examples.load_examples(tmp_path / "e.npz")
    assert kept["cell"].tolist() == rows["cell"].tolist()
    assert kept["image"].tolist() == rows["image"].tolist()
    np.testing.assert_array_equal(kept["adversarial"], result.adversarial.numpy())
    with pytest.raises(ValueError, match="run the notebook"):
        examples.load_examples(tmp_path / "absent.npz")


def test_an_image_without_finite_logits_has_no_measures_and_spoils_no_table(world, attacked):
    _, data, _ = world
    queue, frames = attacked
    _, result = frames["tkmia"]
    logits = result.adversarial_logits.clone()
    logits[0] = torch.nan
    broken = replace(
        result, adversarial_logits=logits, success=result.success & (torch.arange(len(logits)) > 0)
    )
    rows = protocol.to_frame(queue, broken, data, "tkmia")
    assert rows.loc[0, ["delta_l", "Delta P@k", "P@k clean"]].isna().all()
    whole = protocol.to_frame(queue, result, data, "tkmia")
    np.testing.assert_allclose(rows["Delta P@k"][1:], whole["Delta P@k"][1:])
    line = tables.summary(rows, resamples=50).iloc[0]
    cell = rows[rows["cell"] == rows["cell"][0]]
    assert line["Delta P@k"] == pytest.approx(cell["Delta P@k"].mean()) and line["n"] == len(cell)
