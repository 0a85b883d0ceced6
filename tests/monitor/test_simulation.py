"""Promises of simulated streams: what is drawn, and that they ring when a monitor would."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import binom, norm

from tkmia_utils.monitor import simulation
from tkmia_utils.monitor.conformal import Reference, uniforms
from tkmia_utils.monitor.evidence import choose_bets
from tkmia_utils.monitor.simulation import (
    CLEAN,
    Plan,
    detection_times,
    doubled,
    draw_streams,
    simulate,
    with_labels,
)

CHANCE = 1e-4  # a test of chance fails this rarely when the promise holds
LEVELS = {"binary": (0.0, 1.0), "grades": (0.0, 1 / 3, 2 / 3, 1.0), "continuous": None}
PLAN = Plan(calibration=40, clean=30, length=120, share=0.6, streams=13, group=5)
SEED = 3


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(key=seed))


def pool(kind: str, n: int, seed: int, missing: float = 0.0) -> np.ndarray:
    source = rng(seed)
    values = {
        "binary": (source.random(n) > 0.2).astype(float),
        "grades": np.ceil(source.random(n) ** 0.5 * 4 - 1) / 3,
        "continuous": source.normal(size=n),
    }[kind]
    return np.where(source.random(n) < missing, np.nan, values)


def test_sizes_are_those_of_the_plan():
    drawn = draw_streams(PLAN, images=50, attacked=9, seed=1)
    assert drawn.apart.shape == (3, 12) and drawn.before.shape == (13, 28)
    assert drawn.stream.shape == drawn.attack.shape == (13, 120)
    assert drawn.attack.min() == CLEAN and set(drawn.attack[drawn.attack >= 0]) == set(range(9))
    again = draw_streams(PLAN, images=50, attacked=9, seed=1)
    np.testing.assert_array_equal(again.stream, drawn.stream)
    assert (draw_streams(PLAN, images=50, attacked=9, seed=2).stream != drawn.stream).any()


def test_only_images_that_can_be_attacked_are_and_only_after_the_change():
    able = np.arange(50) < 20
    plan = replace(PLAN, streams=200, share=0.3)
    drawn = draw_streams(plan, images=50, attacked=9, attackable=able, seed=1)
    assert (drawn.attack[:, :30] == CLEAN).all()
    hit, could = drawn.attack[:, 30:] != CLEAN, able[drawn.stream[:, 30:]]
    assert not hit[~could].any()
    low, high = binom(could.sum(), 0.3).ppf([CHANCE, 1 - CHANCE])
    assert low <= hit.sum() <= high
    assert hit[:, 0].any()  # at once
    assert (draw_streams(replace(plan, share=0.0), images=50, seed=1).attack == CLEAN).all()


def test_a_ramp_is_a_share_that_grows_from_nothing_to_its_end():
    plan = replace(PLAN, streams=4000, group=4000, share=0.8, ramp=40)
    hit = draw_streams(plan, images=5, attacked=2, seed=1).attack != CLEAN
    for image, share in {30: 0.02, 49: 0.4, 69: 0.8, 119: 0.8}.items():
        low, high = binom(4000, share).ppf([CHANCE, 1 - CHANCE])
        assert low <= hit[:, image].sum() <= high
    assert not hit[:, :30].any()


def test_drift_changes_how_often_images_come_after_the_change_alone():
    after = np.array([0.0, 1.0, 3.0])
    plan = replace(PLAN, share=0.0, streams=100)
    stream = draw_streams(plan, images=3, after=after, seed=1).stream
    for part, chances in ((stream[:, :30], [1 / 3] * 3), (stream[:, 30:], [0, 0.25, 0.75])):
        for image, chance in enumerate(chances):
            low, high = binom(part.size, chance).ppf([CHANCE, 1 - CHANCE])
            assert low <= (part == image).sum() <= high


@pytest.mark.parametrize("resample", [False, True])
def test_streams_of_a_group_share_their_pool_and_groups_do_not(resample):
    plan = replace(PLAN, length=400, streams=10, resample=resample)
    drawn = draw_streams(plan, images=40, attacked=40, seed=1)
    pools, attacked = [], []
    for g in range(2):
        mine = slice(5 * g, 5 * g + 5)
        parts = (drawn.apart[g], drawn.before[mine].ravel(), drawn.stream[mine].ravel())
        pools.append(set(np.concatenate(parts).tolist()))
        attacked.append(set(drawn.attack[mine].ravel().tolist()) - {CLEAN})
    for found in (pools, attacked):  # 2,000 draws see every image of the pool
        sizes = [len(one) for one in found]
        assert sizes == [40, 40] if not resample else max(sizes) < 36
        assert (found[0] != found[1]) == resample


@pytest.mark.parametrize("length", [120, 121])
def test_doubled_streams_are_pairs_of_the_same_image(length):
    drawn = draw_streams(replace(PLAN, length=length), images=500, attacked=9, seed=1)
    twice = doubled(drawn)
    for found, once in ((twice.stream, drawn.stream), (twice.attack, drawn.attack)):
        assert found.shape == once.shape
        np.testing.assert_array_equal(found[:, ::2], once[:, : -(-length // 2)])
        np.testing.assert_array_equal(found[:, 1::2], once[:, : length // 2])
    assert twice.before is drawn.before


def by_hand(clean, attacked, streams, limit, levels, labelled, u):
    """One stream after the other, one image after the other."""
    plan, times = streams.plan, []
    every = np.concatenate([clean, attacked])
    ranked = round(streams.before.shape[1] * np.mean(~np.isnan(clean)))
    for s in range(plan.streams):
        apart, before = clean[streams.apart[s // plan.group]], clean[streams.before[s]]
        bets = choose_bets(apart[~np.isnan(apart)], ranked=ranked, levels=levels)
        reference = Reference(before[~np.isnan(before)])
        r, rang = np.zeros(len(bets.weights)), np.inf
        for t in range(plan.length):
            made = streams.attack[s, t]
            value = every[streams.stream[s, t] if made == CLEAN else len(clean) + made]
            e = np.ones(1)
            if not np.isnan(value) and labelled[s, t]:
                e = bets.e_values(reference.p_values(np.array([value]), u[s, t : t + 1])[0])
            r = (1 + r) * e
            if bets.weights @ r >= limit:
                if t >= plan.clean:
                    rang = t + 1 - plan.clean
                    break
                r = np.zeros_like(r)
        times.append(rang)
    return times


@pytest.mark.parametrize("missing", [0.0, 0.3])
@pytest.mark.parametrize("kind", LEVELS)
def test_a_stream_rings_when_a_plain_loop_over_its_images_does(kind, missing):
    clean = pool(kind, 60, 1, missing)
    attacked = (clean[~np.isnan(clean)].min() - (LEVELS[kind] is None)) * np.ones(7)
    attacked[:2] = np.nan if missing else attacked[2]
    plan = replace(PLAN, share=0.15, resample=True)
    streams = draw_streams(plan, images=60, attacked=7, seed=SEED)
    labelled = rng(4).random((13, 120)) < 1 - missing
    limits = [1.5, 12.0, 60.0]
    found = detection_times(
        clean, attacked, streams, limits, seed=SEED, levels=LEVELS[kind], labelled=labelled
    )
    u = uniforms(SEED + 2**65, 0, 13, 120)
    for row, limit in zip(found, limits, strict=True):
        expected = by_hand(clean, attacked, streams, limit, LEVELS[kind], labelled, u)
        assert row.tolist() == expected
    assert len(np.unique(found)) > 5  # not all at once, not all never


def test_how_many_streams_are_looked_at_together_changes_nothing(monkeypatch):
    clean, attacked = pool("grades", 60, 1, 0.2), np.zeros(3)
    streams = draw_streams(PLAN, images=60, attacked=3, seed=SEED)
    asked = {"seed": SEED, "levels": LEVELS["grades"], "labelled": with_labels(PLAN, 0.7, seed=1)}
    whole = detection_times(clean, attacked, streams, [5.0, 40.0], **asked)
    for at_once in (1, 2 * 5 * 125):  # one group, two groups of five
        monkeypatch.setattr(simulation, "AT_ONCE", at_once)
        parts = detection_times(clean, attacked, streams, [5.0, 40.0], **asked)
        np.testing.assert_array_equal(parts, whole)


def test_several_thresholds_are_the_same_as_one_after_the_other():
    plan, clean = replace(PLAN, clean=0), pool("grades", 60, 1)
    streams = draw_streams(plan, images=60, attacked=1, seed=SEED)
    asked = {"seed": SEED, "levels": LEVELS["grades"]}
    both = detection_times(clean, np.zeros(1), streams, [4.0, 30.0], **asked)
    for row, limit in zip(both, (4.0, 30.0), strict=True):
        alone = detection_times(clean, np.zeros(1), streams, [limit], **asked)
        np.testing.assert_array_equal(alone[0], row)
    assert (both[0] <= both[1]).all()


def test_an_alarm_before_the_change_does_not_count():
    """With a threshold that every image passes, the first one after the change rings."""
    times = simulate(pool("continuous", 60, 1), None, 1e-9, replace(PLAN, share=0.0), seed=SEED)
    assert times.tolist() == [1] * 13


def test_an_image_that_is_not_seen_pays_one():
    none = np.zeros((13, 120), dtype=bool)
    clean, streams = pool("binary", 60, 1), draw_streams(PLAN, images=60, attacked=1, seed=SEED)
    blind = detection_times(clean, np.zeros(1), streams, [50.0, 500.0], seed=SEED, labelled=none)
    assert blind[0].tolist() == [20] * 13  # R is t, the change came after 30
    assert np.isinf(blind[1]).all()


def test_labels_come_by_chance_and_as_often_as_said():
    plan = replace(PLAN, streams=100)
    some = with_labels(plan, 0.1, seed=1)
    low, high = binom(some.size, 0.1).ppf([CHANCE, 1 - CHANCE])
    assert some.shape == (100, 120) and low <= some.sum() <= high
    assert with_labels(plan, 1.0, seed=1).all()


@pytest.mark.parametrize("resample", [False, True])
@pytest.mark.parametrize("kind", LEVELS)
def test_clean_streams_keep_the_run_length(kind, resample):
    arl, length = 60, 240
    plan = Plan(calibration=50, clean=0, length=length, streams=400, group=20, resample=resample)
    times = simulate(pool(kind, 40, 1), None, arl, plan, seed=SEED, levels=LEVELS[kind])
    watched = np.minimum(times, length)
    error = watched.std(ddof=1) / np.sqrt(400)
    assert watched.mean() + norm.isf(CHANCE) * error >= arl


def test_the_test_above_would_see_a_calibration_of_easier_images():
    arl, length = 60, 240
    plan = Plan(calibration=50, clean=0, length=length, streams=400, group=20)
    streams, clean = draw_streams(plan, images=40, seed=SEED), pool("binary", 40, 1)
    order = np.argsort(-clean)  # the second half of the images is the hard one
    streams = replace(streams, before=order[streams.before // 2], stream=order[streams.stream])
    times = detection_times(clean, None, streams, [arl], seed=SEED, levels=(0.0, 1.0))[0]
    watched = np.minimum(times, length)
    assert watched.mean() + norm.isf(CHANCE) * watched.std(ddof=1) / 20 < arl


def test_more_attacked_images_are_seen_sooner():
    clean, asked = pool("binary", 60, 1), {"seed": SEED, "levels": (0.0, 1.0)}
    plan = Plan(calibration=100, clean=50, length=350, streams=60, group=20)
    medians = [
        np.median(simulate(clean, np.zeros(1), 1000, replace(plan, share=share), **asked))
        for share in (0.1, 0.4, 1.0)
    ]
    assert medians[0] > medians[1] > medians[2] and medians[2] < 15


@pytest.mark.parametrize(("images", "attacked"), [(0, 5), (5, 0)])
def test_a_pool_without_images_is_refused(images, attacked):
    with pytest.raises(ValueError, match=r"^images, attacked: .* 0"):
        draw_streams(PLAN, images=images, attacked=attacked)
