"""Promises of the monitor: the same bits however it is fed, and no answer to bad questions."""

from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from sources import hidden, images

from tkmia_utils import measures, monitor
from tkmia_utils.monitor import WATCHES, Monitor, Watch
from tkmia_utils.monitor.monitor import FORMAT
from tkmia_utils.tensor_file import write_tensors

K = 3


def fitted(watch=tuple(WATCHES), n=120, **settings) -> Monitor:
    scores, labels = images(n)
    given = {"k": K, "watch": watch, "arl": 500, "second": second(scores)} | settings
    return monitor.fit(scores, labels, **given)


def second(scores: torch.Tensor) -> torch.Tensor:
    """Scores of changed copies: each image's own, a little off."""
    return scores + 0.1 * scores.sin()


def value_of(name: str, scores: torch.Tensor, labels: torch.Tensor, k: int = K) -> torch.Tensor:
    """The value of a watch, given what it needs."""
    beside = {"labels": labels, "second": second(scores), "nothing": None}[WATCHES[name].needs]
    return WATCHES[name].value(scores, beside, k)


def bits(m: Monitor) -> list[bytes]:
    """All that a monitor knows."""
    known = [m._statistic, m._best, m._since, m._rang, np.array(m._history), m.position]
    return [np.asarray(x).tobytes() for x in [*known, *(r.values for r in m._references)]]


@pytest.mark.parametrize("name", WATCHES)
def test_a_watch_gives_an_image_the_same_bits_in_any_batch(name):
    scores, labels = images(60, 1, classes=20)
    scores[::3] = scores[::3].round()  # ties
    whole = value_of(name, scores, labels)
    assert whole.dtype == torch.float64
    assert whole.shape == ((60, 20) if WATCHES[name].per_class else (60,))
    parts = [value_of(name, scores[i : i + 7], labels[i : i + 7]) for i in range(0, 60, 7)]
    ones = [value_of(name, scores[i : i + 1], labels[i : i + 1]) for i in range(60)]
    for other in (parts, ones):
        assert torch.cat(other).numpy().tobytes() == whole.numpy().tobytes()


def test_watches_say_what_their_names_say():
    scores = torch.tensor([[0.9, 0.8, 0.4, 0.3, 0.2, 0.1]])
    labels = torch.tensor([[True, False, False, True, False, False]])
    value = {name: value_of(name, scores, labels, 2).squeeze(0) for name in WATCHES}
    assert value["P@k"] == 0.5 and value["AP@k"] == 0.5 and value["TkAcc"] == 0
    assert value["NDCG@k"] == measures.ndcg_at_k(scores, labels, 2)[0]
    assert value["recall"].nan_to_num(-1).tolist() == [1, -1, -1, 0, -1, -1]
    assert value["rate"].tolist() == [1, 1, 0, 0, 0, 0]
    assert float(value["gap"]) == pytest.approx(0.4)
    assert value["near miss"].tolist() == [0, 0, 1, 1 / 2, 1 / 3, 0]
    low = WATCHES["near miss"].oriented(scores, labels, 2)
    assert low.argmin() == 2  # the most suspicious is always the lowest
    beside = torch.tensor([[0.9, 0.3, 0.7, 0.5, 0.2, 0.1]])
    look = WATCHES["second look"]
    assert float(look.value(scores, beside, 2)) == pytest.approx(0.7 - 0.7)
    beside[0, 3] = 0.8  # a label that was left out is now above the border
    assert float(look.value(scores, beside, 2)) == pytest.approx(0.8 - 0.8)
    beside[0, 2] = 1.0
    assert float(look.value(scores, beside, 2)) == pytest.approx(1.0 - 0.9)


@pytest.mark.parametrize("name", [name for name in WATCHES if WATCHES[name].levels])
def test_a_watch_takes_no_value_but_its_levels(name):
    scores, labels = images(300, 2)
    value = WATCHES[name].oriented(scores.round(), labels, K)
    assert set(value[~value.isnan()].tolist()) <= set(WATCHES[name].oriented_levels(K))


@pytest.mark.parametrize("cut", [[1] * 40, [40], [3, 20, 1, 16]])
def test_a_batch_does_what_its_images_do_in_turn(cut):
    scores, labels = images(40, 3)
    asked = torch.arange(40) % 3 == 0
    whole, other = fitted(), fitted()
    whole.update(scores, labels, second=second(scores), labelled=asked)
    at = 0
    for size in cut:
        part = slice(at, at + size)
        other.update(scores[part], labels[part], second=second(scores[part]), labelled=asked[part])
        at += size
    assert bits(other) == bits(whole)


def test_an_image_may_come_without_a_batch():
    scores, labels = images(5, 4)
    one, batch = fitted(), fitted()
    for s, y in zip(scores, labels, strict=True):
        one.update(s, y, second=second(s))
    batch.update(scores, labels, second=second(scores))
    assert bits(one) == bits(batch) and one.position == 5


def test_an_attack_rings_says_which_class_and_since_when():
    m = fitted(["recall", "near miss"], n=500, arl=10_000)
    scores, labels = images(460, 5)
    assert not m.update(scores[:400], labels[:400])
    rang = m.update(torch.where(labels[400:, :1], hidden(scores[400:], K), scores[400:]),
                    labels[400:])  # fmt: skip
    assert rang and m.alarm
    # recall sees attacked images alone; half of those that near miss sees are not attacked
    for name, late in (("recall", 5), ("near miss", 30)):
        found = m.evidence[m.evidence["watch"] == name].iloc[0]
        assert found["class"] == "0" and 395 <= found["since"] <= 400 + late
        assert found["since"] < found["alarm"] < 440 and found["statistic"] > found["threshold"]
    assert m.evidence["alarm"].notna().sum() == 2
    assert f"ALARM at image {m.evidence['alarm'].min()}: recall, 0" in repr(m)
    assert m.evidence["class"].iloc[0] == "0"  # the most suspicious first


def test_an_alarm_stays_until_it_is_reset():
    m = fitted(["recall"], n=500, watched=["0"])
    scores, labels = images(2000, 6)
    m.update(hidden(scores[:60], K), labels[:60])
    m.update(scores[60:], labels[60:])
    assert m.alarm and float(m.evidence["statistic"].iloc[0]) < float(m.evidence["threshold"][0])
    before = len(m._references[0])
    m.reset()
    assert not m.alarm and m.evidence["statistic"].tolist() == [0] and m.position == 2000
    assert len(m._references[0]) == before
    m.reset(forget=True)
    fresh = fitted(["recall"], n=500, watched=["0"])
    np.testing.assert_array_equal(m._references[0].values, fresh._references[0].values)


@pytest.mark.parametrize("at", [0, 17, 39])
def test_saved_and_loaded_it_goes_on_to_the_same_bits(tmp_path, at):
    scores, labels = images(40, 7)
    m = fitted()
    m.update(scores[:at], labels[:at])
    path = m.save(tmp_path / "a monitor")
    other = Monitor.load(path)
    assert other.setting == m.setting and bits(other) == bits(m)
    for one in (m, other):
        one.update(scores[at:], labels[at:])
    assert bits(other) == bits(m) and other.evidence.equals(m.evidence)
    other.reset(forget=True)
    m.reset(forget=True)
    assert bits(other) == bits(m)


@pytest.mark.parametrize(
    "harm", ["cut", "changed", "another kind", "no header", "text", "empty", "absent"]
)
def test_a_broken_file_is_refused(tmp_path, harm):
    path = fitted(["gap"]).save(tmp_path / "m.safetensors")
    whole = path.read_bytes()
    if harm == "cut":
        path.write_bytes(whole[: len(whole) // 2])
    elif harm == "changed":
        path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    elif harm == "another kind":
        write_tensors(path, {"statistic": torch.zeros(1)}, kind="a weather report", metadata={})
    elif harm == "no header":
        write_tensors(path, {"values": torch.zeros(1)}, kind=FORMAT, metadata={})
    elif harm == "text":
        path.write_text("a monitor")
    elif harm == "empty":
        path.write_bytes(b"")
    else:
        path.unlink()
    with pytest.raises(ValueError, match=r"m\.safetensors"):
        Monitor.load(path)


def test_a_file_with_a_watch_that_is_not_known_is_refused(tmp_path):
    mine = {
        **WATCHES,
        "top score": Watch(lambda s, y, k: s.amax(1).double(), "nothing", False, "low"),
    }
    m = fitted(["top score"], watches=mine)
    path = m.save(tmp_path / "m.safetensors")
    assert bits(Monitor.load(path, watches=mine)) == bits(m)
    with pytest.raises(ValueError, match="watch"):
        Monitor.load(path)


def test_without_labels_the_watches_that_need_them_wait():
    scores, _ = images(30, 8)
    m = fitted(["recall", "gap"], watched=["0"])
    seen = {w: n for w, n in zip(m.evidence["watch"], m.evidence["images"], strict=True)}
    m.update(scores)
    after = m.evidence.set_index("watch")
    assert after.loc["recall", "images"] == seen["recall"]
    assert after.loc["recall", "statistic"] == pytest.approx(30)  # e = 1: R counts the images
    assert after.loc["gap", "images"] == seen["gap"] + 30


def test_labels_for_a_tenth_keep_the_run_length_and_find_the_attack_later():
    scores, labels = images(3000, 9)
    tenth = torch.rand(3000, generator=torch.Generator().manual_seed(1)) < 0.1
    attacked = torch.where((torch.arange(3000) >= 1000)[:, None], hidden(scores, K), scores)
    rang = []
    for asked in (tenth, torch.ones_like(tenth)):
        m = fitted(["recall"], n=500, watched=["0"], arl=10_000)
        assert not m.update(scores[:1000], labels[:1000], labelled=asked[:1000])
        m.update(attacked[1000:], labels[1000:], labelled=asked[1000:])
        rang.append(int(m.evidence["alarm"][0]))
    assert 1000 < rang[1] < 1040 < rang[0] < 1400
    unlabelled = fitted(["recall"], n=500, watched=["0"])
    flipped = torch.where(tenth[:, None], labels, ~labels)  # labels nobody gave are not read
    one, two = unlabelled, fitted(["recall"], n=500, watched=["0"])
    one.update(scores, labels, labelled=tenth)
    two.update(scores, flipped, labelled=tenth)
    assert bits(one) == bits(two)


def test_a_class_is_ranked_among_images_that_have_it():
    scores, labels = images(50, 10)
    m = fitted(["recall"])
    known = {c: n for c, n in zip(m.evidence["class"], m.evidence["images"], strict=True)}
    m.update(scores, labels)
    now = {c: n for c, n in zip(m.evidence["class"], m.evidence["images"], strict=True)}
    assert {c: now[c] - known[c] for c in now} == {
        str(c): int(n) for c, n in enumerate(labels.sum(0))
    }


def test_a_class_that_no_calibration_image_has_is_no_error():
    scores, labels = images(100)
    labels[:, 7] = False
    m = monitor.fit(scores, labels, k=K, watch=["recall"], arl=100)
    m.update(*images(50, 1))
    assert np.isfinite(m.evidence["statistic"]).all()


def test_the_seed_decides_and_nothing_else():
    scores, labels = images(50, 11)
    torch.manual_seed(0)
    first, again, other = fitted(), fitted(), fitted(seed=1)
    first.update(scores, labels)
    torch.manual_seed(1)
    np.random.seed(1)  # noqa: NPY002
    again.update(scores, labels)
    other.update(scores, labels)
    assert bits(first) == bits(again) != bits(other)


def test_evidence_without_end_stays_finite():
    m = fitted(["recall"], n=100, watched=["0"])
    scores, labels = images(3000, 12)
    labels[:, 0] = True
    m.update(hidden(scores, K), labels)
    assert np.isfinite(m._statistic).all() and np.isfinite(m._best).all()


def test_the_null_check_has_a_row_for_every_simulation_and_keeps_the_bound():
    m = fitted(["recall", "gap"], n=200, watched=["0"], arl=200)
    table = m.null_check(streams=300, length=300)
    assert table["simulation"].tolist() == ["uniform"] * 2 + ["redrawn", "permuted"]
    rare, n = table["bound"], table["streams"]
    assert (table["alarms"] / n < rare + 4 * np.sqrt(rare * (1 - rare) / n)).all()
    assert (table["length"].iloc[-1] == 70) and (table["nominal"].iloc[2:] == 200).all()
    assert table.equals(m.null_check(streams=300, length=300))


@pytest.mark.parametrize("n", [0, 1, 100])
def test_it_is_drawn_on_a_logarithmic_axis_with_its_threshold(n):
    m = fitted()
    m.update(*images(n, 13))
    figure = m.plot()
    (ax,) = figure.axes
    assert ax.get_yscale() == "log"
    assert any(np.allclose(line.get_ydata(), 1) for line in ax.lines)
    figure.canvas.draw()
    plt.close(figure)


def with_nan(scores):
    scores[2, 1] = torch.nan
    return scores


@pytest.mark.parametrize("bad", [
    lambda s, y: dict(scores=with_nan(s), labels=y),
    lambda s, y: dict(scores=s * torch.inf, labels=y),
    lambda s, y: dict(scores=s[:, :5], labels=y[:, :5]),
    lambda s, y: dict(scores=s[None], labels=y[None]),
    lambda s, y: dict(scores=s.numpy(), labels=y),
    lambda s, y: dict(scores=y, labels=y),
    lambda s, y: dict(scores=s, labels=y.float()),
    lambda s, y: dict(scores=s, labels=y[:5]),
    lambda s, y: dict(scores=s[0], labels=y),
    lambda s, y: dict(scores=s[0], labels=y[0, :5]),
    lambda s, y: dict(scores=s, labels=y, k=4),
    lambda s, y: dict(scores=s, labels=y, classes=list("abcdefgh")),
    lambda s, y: dict(scores=s, labels=y, labelled=y[:, 0].float()),
    lambda s, y: dict(scores=s, labels=None, labelled=y[:, 0]),
    lambda s, y: dict(scores=s, labels=y, second=with_nan(s.clone())),
    lambda s, y: dict(scores=s, labels=y, second=s[:5]),
    lambda s, y: dict(scores=s, labels=y, second=y),
])  # fmt: skip
def test_bad_images_are_refused_and_leave_no_trace(bad):
    m = fitted()
    before = bits(m)
    with pytest.raises(ValueError):
        m.update(**bad(*images(10, 14)))
    assert bits(m) == before


def test_scores_out_of_the_range_of_probabilities_are_refused():
    scores, labels = images(60)
    m = monitor.fit(scores.sigmoid(), labels, k=K, watch=["gap"])
    m.update(scores.sigmoid())
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        m.update(scores)


@pytest.mark.parametrize("bad", [
    {"k": 0}, {"k": 8}, {"k": 2.0}, {"watch": []}, {"watch": "gap"}, {"watch": ["gap", "gap"]},
    {"watch": ["fun"]}, {"arl": 0}, {"arl": float("nan")}, {"arl": float("inf")}, {"seed": -1},
    {"seed": 0.5}, {"classes": ["a"]}, {"classes": ["a"] * 8}, {"watched": ["fun"]},
    {"watched": []}, {"k": torch.tensor(3)}, {"arl": "a"}, {"arl": True}, {"watch": 3},
    {"classes": 3}, {"classes": "abcdefgh"}, {"classes": [("a", i) for i in range(8)]},
])  # fmt: skip
def test_a_bad_setting_is_refused(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        fitted(**bad)


def test_what_a_watch_needs_is_not_left_out_when_it_is_fitted():
    scores, _ = images(60)
    with pytest.raises(ValueError, match="second"):
        monitor.fit(scores, k=K, watch=["gap", "second look"])
    with pytest.raises(ValueError, match="labels"):
        monitor.fit(scores, k=K, watch=["gap", "recall"])
    monitor.fit(scores, k=K, watch=["gap"])


@pytest.mark.parametrize("sizes", [{"streams": 1}, {"length": 0}])
def test_a_null_check_of_nothing_is_refused(sizes):
    with pytest.raises(ValueError, match="streams"):
        fitted(["gap"]).null_check(**sizes)


def test_a_watch_of_ones_own_is_checked_when_it_is_made_and_when_it_answers():
    with pytest.raises(ValueError, match="suspicious"):
        replace(WATCHES["gap"], suspicious="hgih")
    with pytest.raises(ValueError, match="needs"):
        replace(WATCHES["gap"], needs="sleep")
    scores, labels = images(60)
    wide = replace(WATCHES["rate"], per_class=False)
    endless = replace(WATCHES["gap"], value=lambda s, y, k: s[:, 0] / 0)
    for name, mine in (("wide", wide), ("endless", endless)):
        with pytest.raises(ValueError, match=f"watch: '{name}' must give finite"):
            monitor.fit(scores, labels, k=K, watch=[name], watches={name: mine})


def test_a_file_read_with_other_watches_is_refused(tmp_path):
    path = fitted(["gap"]).save(tmp_path / "m.safetensors")
    with pytest.raises(ValueError, match="watches"):
        monitor.Monitor.load(path, watches={**WATCHES, "gap": WATCHES["rate"]})
