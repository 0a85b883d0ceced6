"""Promises of watching attacks: who is in the streams, what rings first, how it is summed up."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from test_protocol import TYPES, world  # noqa: F401  (a fixture)
from torch import nn

from tkmia_utils import monitor
from tkmia_utils.experiments import protocol, watching
from tkmia_utils.experiments.intervals import resampled
from tkmia_utils.experiments.protocol import Cell
from tkmia_utils.experiments.watching import Scene, Sight
from tkmia_utils.monitor import simulation
from tkmia_utils.monitor.conformal import uniforms
from tkmia_utils.monitor.evidence import split
from tkmia_utils.monitor.simulation import CLEAN, Plan

CELL = Cell("S2", 2, m=1)
PLAN = Plan(calibration=40, clean=30, length=110, share=0.5, streams=12, group=4)


def sight(n: int, seed: int, *, hide: float = 0.0) -> Sight:
    """Scores of six classes that show the labels; class 0 is everywhere, and may be hidden."""
    g = torch.Generator().manual_seed(seed)
    labels = torch.rand(n, 6, generator=g) < 0.2
    labels[:, 0] = True
    scores = torch.randn(n, 6, generator=g) + 2 * labels
    second = scores + 0.3 * torch.randn(n, 6, generator=g)
    scores[:, 0] -= hide
    return Sight(scores, second, labels)


def scene(*, hide: float = 2.0, members: tuple[int, ...] = (0,), seed: int = 2) -> Scene:
    able = np.arange(80) % 2 == 0
    return Scene(CELL, members, sight(80, 1), sight(11, seed, hide=hide), able)


def test_values_are_those_of_the_watch_for_the_classes_that_are_looked_at():
    seen = sight(20, 1)
    recall, near, gap = (seen.values(n, 2, [3, 0]) for n in ("recall", "near miss", "gap"))
    assert recall.shape == near.shape == (20, 2) and gap.shape == (20, 1)
    assert recall.dtype == np.float64
    np.testing.assert_array_equal(np.isnan(recall), ~seen.labels[:, [3, 0]].numpy())
    order = seen.scores.argsort(1, descending=True)
    place = order.argsort(1)[:, [3, 0]].numpy()
    np.testing.assert_array_equal(recall[:, 1] == 1, place[:, 1] < 2)
    np.testing.assert_array_equal(near == -1, place == 2)  # low is suspicious
    top = seen.scores.sort(1, descending=True).values.double()
    np.testing.assert_array_equal(gap[:, 0], (top[:, 1] - top[:, 2]).numpy())


def test_images_are_picked_and_put_together_with_all_that_belongs_to_them():
    seen = sight(20, 1)
    both = seen.rows(torch.tensor([4, 2])).joined(seen.rows(torch.tensor([9])))
    assert len(both) == 3
    for name in ("scores", "second", "labels"):
        assert torch.equal(getattr(both, name), getattr(seen, name)[[4, 2, 9]])


def test_a_data_set_is_looked_at_as_its_images_are(world):  # noqa: F811
    model, data, logits = world
    second = nn.Sequential(model, nn.Softmax(-1)).eval()
    whole = watching.look_at_all(model, second, data, batch=17)
    assert torch.allclose(whole.scores, logits) and torch.equal(whole.labels, data.labels)
    assert torch.allclose(whole.second, logits.softmax(-1))
    some = torch.arange(5)
    part = watching.look(model, second, data.images(some), data.labels[some])
    assert torch.allclose(part.scores, logits[:5]) and torch.equal(part.labels, data.labels[:5])


def test_only_images_on_which_the_attack_succeeded_are_in_a_scene(world):  # noqa: F811
    _, data, logits = world
    cells = protocol.list_cells(TYPES, [1], [(2, 2)])
    queue = protocol.build_queue(cells, data, logits, TYPES, n=4)
    rows = len(queue.cells)
    attacked = Sight(torch.arange(8.0 * rows).view(rows, 8), torch.zeros(rows, 8), queue.labels)
    success = torch.arange(rows) % 3 == 0
    success &= torch.tensor([c != cells[1] for c in queue.cells])
    clean = Sight(logits, logits, data.labels)
    eligible = {c: protocol.choose(c, data, logits, TYPES).eligible for c in cells}
    members = {c: [i, i + 1] for i, c in enumerate(cells)}
    found = watching.scenes(queue, clean, attacked, success, eligible, members)
    assert list(found) == [cells[0], cells[2]]  # the second has no success
    for cell, one in found.items():
        mine = [r for r in range(rows) if queue.cells[r] == cell and success[r]]
        assert torch.equal(one.attacked.scores, attacked.scores[mine])
        assert one.cell == cell and one.members == tuple(members[cell]) and one.clean is clean
        np.testing.assert_array_equal(one.attackable, eligible[cell].numpy())


def test_an_attack_comes_in_place_of_an_image_that_could_be_attacked():
    one = scene()
    drawn = watching.drawn_for(one, PLAN, seed=0)
    hit = drawn.attack != CLEAN
    assert hit.any() and one.attackable[drawn.stream[hit]].all()
    assert drawn.attack.max() == 10 and drawn.stream.max() == 79


@pytest.mark.parametrize("watches", [["recall"], ["gap", "near miss"], ["second look", "P@k"]])
def test_the_first_alarm_is_that_of_a_monitor_fitted_on_the_same_images(monkeypatch, watches):
    """Stream by stream: calibration and stream are given to `monitor.fit` and `update`."""
    seed, arls, one = 5, [8.0, 150.0], scene()
    plan = replace(PLAN, clean=0, streams=5, group=1)
    drawn = watching.drawn_for(one, plan, seed=seed)

    def same(key, first, images, rows):  # a monitor has the same numbers for every stream
        detector = key - 2**65 - seed
        return np.tile(uniforms(seed, 0, rows, len(watches))[:, detector], (images, 1))

    monkeypatch.setattr(simulation, "uniforms", same)
    found = watching.first_alarms(one, watches, drawn, arls, seed=seed)
    every = one.clean.joined(one.attacked)
    apart, ranked = split(plan.calibration, seed)
    for s in range(5):
        at = np.empty(plan.calibration, dtype=np.int64)
        at[apart], at[ranked] = drawn.apart[s], drawn.before[s]
        known = one.clean.rows(torch.from_numpy(at))
        now = np.where(drawn.attack[s] == CLEAN, drawn.stream[s], 80 + drawn.attack[s])
        came = every.rows(torch.from_numpy(now))
        for row, arl in zip(found, arls, strict=True):
            m = monitor.fit(
                known.scores, known.labels, second=known.second, k=2, watch=watches, arl=arl,
                seed=seed, watched=["0"],
            )  # fmt: skip
            m.update(came.scores, came.labels, second=came.second)
            rang = m.evidence["alarm"].dropna()
            assert row[s] == (rang.min() + 1 if len(rang) else np.inf)
    assert (found[0] <= found[1]).all() and np.isfinite(found[0]).all()


def test_watches_and_their_classes_share_the_run_length_and_the_labels(monkeypatch):
    asked = []

    def noted(clean, attacked, streams, limits, *, seed, levels, labelled):
        asked.append((limits, seed, levels is None, labelled))
        return np.full((len(limits), streams.plan.streams), float(len(asked)))

    monkeypatch.setattr(watching, "detection_times", noted)
    one = scene(members=(0, 1))
    drawn = watching.drawn_for(one, PLAN, seed=0)
    first = watching.first_alarms(one, ["recall", "gap", "P@k"], drawn, [10, 30], seed=7)
    # shares 1/6, 1/6, 1/3, 1/3; of several the threshold is 2 arl / share
    limits = np.array([limits for limits, *_ in asked])
    np.testing.assert_allclose(limits, [[120, 360], [120, 360], [60, 180], [60, 180]])
    assert len({seed for _, seed, *_ in asked}) == 4
    assert [few for *_, few, _ in asked] == [False, False, True, False]
    assert all(labels is None for *_, labels in asked)
    assert (first == 1).all()  # the first of them
    asked.clear()
    watching.first_alarms(one, ["recall", "gap", "P@k"], drawn, [10], seed=7, labelled=0.4)
    masks = [labels for *_, labels in asked]
    assert masks[2] is None and masks[0].shape == (12, 110) and 0.3 < masks[0].mean() < 0.5
    np.testing.assert_array_equal(masks[0], masks[1])
    np.testing.assert_array_equal(masks[0], masks[3])
    asked.clear()
    watching.first_alarms(replace(one, members=(1,)), ["recall"], drawn, [10], seed=7)
    assert asked[0][0] == [10]  # one detector has it all


def parts_of(plan: Plan) -> list:
    scenes = [scene(hide=h, seed=s) for h, s in ((2.0, 2), (1.0, 3))]
    return [
        (one, watching.drawn_for(one, replace(plan, share=share), seed=i))
        for i, (one, share) in enumerate([(scenes[0], 0.5), (scenes[1], 0.9), (scenes[0], 0.2)])
    ]


@pytest.mark.parametrize("group", [4, 5])  # 12 streams: whole groups, and a smaller last one
def test_attacks_side_by_side_ring_when_they_do_alone(monkeypatch, group):
    parts = parts_of(replace(PLAN, group=group, resample=True))
    watches, (joined, streams) = ["recall", "gap"], watching.side_by_side(parts)

    def rang(one, drawn):
        return watching.first_alarms(one, watches, drawn, [10, 40], seed=3)

    both = rang(joined, streams)
    assert both.shape == (2, 36)
    np.testing.assert_array_equal(both[:, :12], rang(*parts[0]))  # it has the same numbers

    def equal(key, first, images, rows):
        return np.full((images, rows), 0.5)

    monkeypatch.setattr(simulation, "uniforms", equal)
    alone = np.concatenate([rang(*part) for part in parts], axis=1)
    np.testing.assert_array_equal(rang(joined, streams), alone)


def test_only_streams_of_one_plan_and_cell_stand_side_by_side():
    (first, drawn), *_ = parts_of(PLAN)
    longer = watching.drawn_for(first, replace(PLAN, length=120), seed=0)
    with pytest.raises(ValueError, match=r"^parts: "):
        watching.side_by_side([(first, drawn), (first, longer)])
    for other in (replace(first, cell=Cell("S2", 3, m=1)), replace(first, members=(1,))):
        with pytest.raises(ValueError, match=r"^parts: "):
            watching.side_by_side([(first, drawn), (other, drawn)])


def slow_summary(times, within, horizon, group, resamples):
    """Streams drawn group by group, each bootstrap sample written out."""
    groups = [times[i : i + group] for i in range(0, len(times), group)]
    powers, medians = [], []
    for counts in resampled(len(groups), resamples, 0):
        drawn = np.concatenate([np.tile(g, c) for g, c in zip(groups, counts, strict=True)])
        powers.append(np.mean(drawn <= within))
        kept = sorted(t if t <= horizon else np.inf for t in drawn)
        medians.append(kept[(len(kept) - 1) // 2])
    low, high = np.percentile(powers, [2.5, 97.5])
    medians = sorted(medians)
    ends = medians[int(0.025 * resamples)], medians[int(0.975 * resamples)]
    return [low, high, *ends]


@pytest.mark.parametrize(("n", "group"), [(40, 4), (41, 4), (37, 5), (12, 1), (7, 10)])
@pytest.mark.parametrize("never", [0.0, 0.5, 1.0])
def test_a_summary_is_the_plain_one_of_every_bootstrap_sample(n, group, never):
    rng = np.random.default_rng(n)
    times = rng.integers(1, 60, n).astype(float)
    times[rng.random(n) < never] = np.inf
    told = watching.summary(times, within=20, horizon=50, group=group, resamples=80)
    assert told["power"] == np.mean(times <= 20)
    cut = np.where(times <= 50, times, np.inf)
    assert told["delay"] == np.sort(cut)[(n - 1) // 2]
    if n % 2:
        assert told["delay"] == np.median(cut)
    names = ("power low", "power high", "delay low", "delay high")
    expected = slow_summary(times, 20, 50, group, 80)
    np.testing.assert_allclose([told[name] for name in names], expected, rtol=1e-12)


def test_a_median_beyond_the_horizon_is_none_and_half_of_the_streams_is_enough():
    times = np.array([3.0, 8.0, 70.0, np.inf])
    assert watching.summary(times, within=9, horizon=50, group=1)["delay"] == 8
    assert watching.summary(times, within=9, horizon=50, group=1)["power"] == 0.5
    assert watching.summary(times[1:], within=9, horizon=50, group=1)["delay"] == np.inf
    assert watching.summary(times[1:], within=9, horizon=80, group=1)["delay"] == 70


def test_an_interval_covers_as_often_as_it_says_when_groups_differ():
    rng, covered = np.random.default_rng(0), 0
    for seed in range(200):
        rates = rng.choice([0.2, 0.8], 30)  # 30 groups of 10 streams, the power of each
        times = np.where(rng.random((30, 10)) < rates[:, None], 1.0, np.inf).ravel()
        told = watching.summary(times, within=5, horizon=5, group=10, resamples=200, seed=seed)
        covered += told["power low"] <= 0.5 <= told["power high"]
    assert 0.86 <= covered / 200 <= 0.99


def test_a_table_has_a_line_for_every_attack_share_watch_and_run_length():
    other = Cell("S1", 1, type="first")
    strong, weak = scene(hide=4.0), scene(hide=0.0, seed=3)
    by_run = {
        "weak": {CELL: weak},
        "strong": {CELL: strong, other: replace(strong, cell=other, members=(0, 1))},
    }
    monitors = {"recall": ["recall"], "both": ["gap", "recall"]}
    plan = replace(PLAN, streams=8)
    asked = {"shares": [0.2, 1.0], "arls": [20, 60], "within": 40, "seed": 1}
    table = watching.detection_table(by_run, monitors, plan, **asked)
    assert len(table) == (2 + 1) * 2 * 2 * 2
    by = table.set_index(["cell", "run", "share", "watch", "arl"]).sort_index()
    assert by.index.is_unique and (by["images"] == 11).all()
    assert by.loc[CELL.name, "k"].eq(2).all() and by.loc[other.name, "k"].eq(1).all()
    first = watching.drawn_for(weak, replace(plan, share=0.2), seed=1)
    times = watching.first_alarms(weak, ["gap", "recall"], first, [20, 60], seed=1)
    for row, arl in zip(times, (20, 60), strict=True):
        told = watching.summary(row, within=40, horizon=80, group=4)
        line = by.loc[(CELL.name, "weak", 0.2, "both", arl)]
        assert line[list(told)].to_dict() == told
    # each line has the times of its own attack
    recall = by["delay"].xs((CELL.name, "recall", 60), level=("cell", "watch", "arl"))
    assert recall["strong"][1.0] < recall["strong"][0.2]
    assert recall["strong"][1.0] < recall["weak"][[0.2, 1.0]].min()


def test_a_delay_is_written_with_its_interval_and_none_as_more_than_was_looked_at():
    table = pd.DataFrame(
        {"delay": [12.0, np.inf], "delay low": [9.0, 80.0], "delay high": [np.inf, np.inf]}
    )
    assert watching.delays_written(table, horizon=90) == [
        "12 [9, > 90]",
        "> 90 [80, > 90]",
    ]
