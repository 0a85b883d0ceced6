"""Promises of false alarms: run lengths are measured as named, and the oracle is one."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import norm
from test_watching import CELL, scene, sight

from tkmia_utils.experiments import false_alarms, watching
from tkmia_utils.experiments.watching import Scene
from tkmia_utils.monitor.baselines import (
    cusum_times,
    gaussian_threshold,
    oracle_increments,
    plug_in_increments,
)
from tkmia_utils.monitor.simulation import Plan, doubled
from tkmia_utils.monitor.streams import run_length

CHANCE = 1e-4  # a test of chance fails this rarely when the promise holds
PLAN = Plan(calibration=40, clean=30, length=130, streams=24, group=4)


def rates(clean: float, attacked: float, *, members: tuple[int, ...] = (0,)) -> Scene:
    """400 images that all have class 0, in the top 2 on these shares of them."""
    every = []
    for share in (clean, attacked):
        one = sight(400, 1)
        one.scores[:, 0] = -9.0
        one.scores[: round(400 * share), 0] = 9.0
        every.append(one)
    return Scene(CELL, members, *every, np.ones(400, dtype=bool))


def test_run_lengths_are_those_of_clean_streams_from_the_first_image_on():
    one, names = scene(), ["gap", "recall", "P@k"]
    plan = Plan(calibration=40, clean=0, length=150, streams=60, group=10, share=0.9)
    asked = {"arl": 40, "seed": 1, "charted": 20}
    table = false_alarms.run_lengths(one, names, plan, **asked)
    again = false_alarms.run_lengths(one, names, replace(plan, clean=50, share=0.0), **asked)
    assert table.equals(again)
    plain = table[table["chart"] == "e-detector"]
    assert plain["watch"].tolist() == names and (plain["streams"] == 60).all()
    error = (plain["bounded high"] - plain["bounded"]) / norm.isf(0.025)
    assert (plain["bounded"] + norm.isf(CHANCE) * error >= 40).all()
    assert (table["nominal"] == 40).all()


def test_charts_see_as_many_calibration_images_as_the_monitor_and_the_same_stream():
    one = scene()
    plan = Plan(calibration=40, clean=0, length=150, streams=30, group=10)
    table = false_alarms.run_lengths(one, ["gap"], plan, arl=40, seed=1, charted=20)
    assert table["chart"].tolist() == ["e-detector", "CUSUM, plug-in", "Shewhart, plug-in"]
    drawn = watching.drawn_for(one, replace(plan, group=1), seed=1)
    values = one.clean.values("gap", 2, one.members)[:, 0]
    known = values[np.concatenate([drawn.apart, drawn.before], axis=1)[:20]]
    assert known.shape == (20, 40)
    steps = plug_in_increments(values[drawn.stream[:20]], known)
    told = run_length(cusum_times(steps, gaussian_threshold(40)), 150)
    assert table.iloc[1][list(told)].to_dict() == told


def test_a_watch_of_several_classes_or_of_some_images_has_no_chart():
    one = scene(members=(0, 1))
    plan = replace(PLAN, clean=0)
    table = false_alarms.run_lengths(one, ["near miss", "recall"], plan, arl=40, seed=1)
    assert table["chart"].tolist() == ["e-detector"] * 2
    alone = replace(one, members=(1,))  # class 1 is in some images only
    table = false_alarms.run_lengths(alone, ["recall", "rate"], plan, arl=40, seed=1)
    assert (table["watch"] == "recall").sum() == 1 and (table["watch"] == "rate").sum() == 3


@pytest.mark.parametrize("seed", range(3))
def test_mean_runs_are_those_of_the_chart_at_each_threshold(seed):
    rng = np.random.default_rng(seed)
    steps = rng.normal(-0.1, 0.5, (15, 200))
    steps[rng.random(steps.shape) < 0.05] = -np.inf
    grid = np.geomspace(0.01, 8, 30)
    found = false_alarms._mean_runs(steps, grid)
    for mean, threshold in zip(found, grid, strict=True):
        times = cusum_times(steps, threshold)
        rang = np.isfinite(times).sum()
        assert mean == (np.minimum(times, 200).sum() / rang if rang else np.inf)
    assert (np.diff(found[np.isfinite(found)]) >= 0).all() and np.isinf(found[-1])


def oracle(one: Scene, plan: Plan, arl: float, monkeypatch) -> tuple[np.ndarray, float, tuple]:
    """Its delays, its threshold, and the rates it was told."""
    noted = {}

    def cusum(steps, threshold, *, first):
        noted["threshold"] = threshold
        return cusum_times(steps, threshold, first=first)

    def increments(values, *, clean, attacked):
        noted["rates"] = clean, attacked
        return oracle_increments(values, clean=clean, attacked=attacked)

    monkeypatch.setattr(false_alarms, "cusum_times", cusum)
    monkeypatch.setattr(false_alarms, "oracle_increments", increments)
    drawn = watching.drawn_for(one, plan, seed=1)
    delays = false_alarms.oracle_delays(one, drawn, arl=arl, seed=1)
    return delays, noted["threshold"], noted["rates"]


@pytest.mark.parametrize(("attacked", "share"), [(0.0, 0.3), (0.0, 1.0), (0.5, 0.5), (0.75, 0.2)])
def test_the_run_length_of_the_oracle_is_the_nominal_one(attacked, share, monkeypatch):
    """Of other streams than those that set its threshold; weak changes too."""
    plan = replace(PLAN, streams=200, length=230, share=share)
    _, threshold, (clean, after) = oracle(rates(0.8, attacked), plan, 100, monkeypatch)
    assert clean == pytest.approx(0.8)
    assert after == pytest.approx(0.8 + share * (attacked - 0.8), abs=0.02)
    values = (np.random.default_rng(0).random((600, 2000)) < clean) * 1.0
    steps = oracle_increments(values, clean=clean, attacked=after)
    assert 80 < cusum_times(steps, threshold).mean() < 250  # the increments are few: it may jump
    if share == 0.2:
        assert threshold < 1


def test_the_oracle_is_sooner_than_the_monitor(monkeypatch):
    one = rates(0.8, 0.0)
    plan = replace(PLAN, streams=200, length=630, share=0.25)
    delays, *_ = oracle(one, plan, 500, monkeypatch)
    drawn = watching.drawn_for(one, plan, seed=1)
    own = watching.first_alarms(one, ["recall"], drawn, [500], seed=1)[0]
    assert (delays > 0).all()
    assert np.minimum(delays, 600).mean() < np.minimum(own, 600).mean()


def test_an_oracle_of_images_that_never_miss_rings_at_the_first_miss(monkeypatch):
    delays, _, (clean, _) = oracle(rates(1.0, 0.0), replace(PLAN, share=1.0), 100, monkeypatch)
    assert 1 - clean == pytest.approx(0.5 / 400) and (delays == 1).all()


def test_an_oracle_is_of_one_class_that_clean_images_have():
    one = scene(members=(0, 1))
    drawn = watching.drawn_for(one, replace(PLAN, share=0.5), seed=1)
    with pytest.raises(ValueError, match=r"^scene: .*one class"):
        false_alarms.oracle_delays(one, drawn, arl=50, seed=1)
    one.clean.labels[:, 1] = False
    with pytest.raises(ValueError, match=r"^scene: no clean image"):
        false_alarms.oracle_delays(replace(one, members=(1,)), drawn, arl=50, seed=1)


def test_what_happens_without_an_attack_has_a_share_of_alarms_each():
    one, plan = rates(0.9, 0.0), replace(PLAN, streams=60, length=131, share=0.7)
    monitors = false_alarms.named(["recall", "second look"]) | {"both": ["recall", "second look"]}
    asked = {"arl": 200, "within": 80, "seed": 1}
    after = np.where(np.arange(400) < 40, 1.0, 0.1)
    table = false_alarms.benign_changes(one, monitors, plan, after=after, **asked)
    assert table.columns.tolist() == ["watch", "nothing", "twice", "dropped", "drift"]
    assert table["watch"].tolist() == list(monitors)
    clean = replace(plan, share=0.0)
    usual = watching.drawn_for(one, clean, seed=1)
    drawn = {
        "nothing": (usual, 80),
        "twice": (doubled(usual), 80),
        "dropped": (watching.drawn_for(one, replace(clean, length=81), seed=1), 40),
        "drift": (watching.drawn_for(one, clean, seed=1, after=after), 80),
    }
    for case, (streams, images) in drawn.items():
        for name, watches in monitors.items():
            times = watching.first_alarms(one, watches, streams, [200], seed=1)[0]
            found = table.set_index("watch").loc[name, case]
            assert found == np.mean(times <= images)


def test_duplicates_and_drift_ring_and_a_conditional_watch_stands_drift():
    """Class 0 becomes rare: its rate falls, its recall does not."""
    one = rates(0.9, 0.0)
    one.clean.labels[:, 0] = False
    one.clean.labels[:200, 0] = True  # those show it
    one.clean.scores[200:, 0] = -9.0
    after = np.where(np.arange(400) < 200, 0.2, 1.0)
    plan = Plan(calibration=200, clean=100, length=400, streams=80, group=20)
    monitors = false_alarms.named(["recall", "rate"])
    asked = {"arl": 2000, "within": 300, "seed": 1}
    table = false_alarms.benign_changes(one, monitors, plan, after=after, **asked)
    by = table.set_index("watch")
    assert by.loc["rate", "drift"] > 0.9 and by.loc["recall", "drift"] < 0.3
    assert (by["nothing"] <= 400 / 2000 + 0.2).all() and (by["dropped"] <= 400 / 2000 + 0.2).all()
    assert by.loc["rate", "twice"] > by.loc["rate", "nothing"]


def test_a_monitor_for_every_watch_alone_and_only_for_known_ones():
    assert false_alarms.named(["gap", "rate"]) == {"gap": ["gap"], "rate": ["rate"]}
    with pytest.raises(ValueError, match=r"^watches: .*'mine'"):
        false_alarms.named(["gap", "mine"])
