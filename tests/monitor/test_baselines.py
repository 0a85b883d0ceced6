"""Promises of the charts that the monitor is compared with."""

import numpy as np
import pytest

from tkmia_utils.monitor.baselines import (
    cusum_times,
    gaussian_threshold,
    oracle_increments,
    plug_in_increments,
    shewhart_times,
)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(key=seed))


def test_the_oracle_counts_a_run_of_misses_when_an_attack_spares_none():
    values = np.array([[1, 0, 0, 1, 0, 0, 0, 0.0]])
    steps = oracle_increments(values, clean=0.9, attacked=0.0)
    assert steps[0, 1] == pytest.approx(np.log(10)) and steps[0, 0] == -np.inf
    assert cusum_times(steps, 4 * np.log(10) - 1e-9).tolist() == [8]
    assert cusum_times(steps, 2 * np.log(10) - 1e-9).tolist() == [3]
    assert cusum_times(steps, 2 * np.log(10) - 1e-9, first=3).tolist() == [6]
    assert cusum_times(steps, 20).tolist() == [np.inf]


def test_the_run_length_of_the_oracle_is_that_of_a_run_of_misses():
    steps = oracle_increments((rng().random((2000, 1500)) > 0.2) * 1.0, clean=0.8, attacked=0.0)
    times = cusum_times(steps, 3 * np.log(5) - 1e-9)  # (1 - q^3) / ((1 - q) q^3) = 155
    assert times.max() < np.inf and times.mean() == pytest.approx(155, rel=0.1)


def test_an_image_that_is_not_seen_moves_nothing():
    steps = oracle_increments(np.array([np.nan, 1.0]), clean=0.9, attacked=0.5)
    assert steps[0] == 0 and steps[1] < 0


@pytest.mark.parametrize("rates", [(0.0, 0.5), (1.0, 0.5), (0.5, 1.5)])
def test_impossible_rates_are_refused(rates):
    with pytest.raises(ValueError, match="rates"):
        oracle_increments(np.ones(3), clean=rates[0], attacked=rates[1])


def test_the_gaussian_threshold_is_right_for_gaussian_values_with_known_moments():
    steps = -rng(1).normal(size=(500, 4000)) - 0.25
    times = cusum_times(steps, gaussian_threshold(300))
    assert np.minimum(times, 4000).mean() == pytest.approx(300, rel=0.15)


def test_plug_in_means_shorten_the_run_in_the_typical_stream():
    """Why these charts are for comparison only: half of the owners get less than was promised."""
    source = rng(2)
    calibration, values = source.normal(size=(400, 50)), source.normal(size=(400, 4000))
    steps = plug_in_increments(values, calibration)
    times = cusum_times(steps, gaussian_threshold(1000))
    known = cusum_times(-values - 0.25, gaussian_threshold(1000))
    assert np.median(times) < 0.8 * np.median(known)


def test_a_window_rings_at_its_end_and_not_before_the_change():
    source = rng(3)
    calibration, values = source.normal(size=(50, 500)), source.normal(size=(50, 600))
    values[:, 300:] -= 3
    times = shewhart_times(values, calibration, arl=10_000, window=50, first=300)
    assert set(times.tolist()) == {350.0}
    assert np.isinf(shewhart_times(values[:, :300], calibration, arl=1e6)).mean() > 0.9
