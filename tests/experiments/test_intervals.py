"""Promises of intervals: images are drawn whole, and nothing is averaged over nothing."""

import numpy as np
import pandas as pd
import pytest

from tkmia_utils.experiments.intervals import interval, summarise, written


def test_intervals_draw_the_rows_of_an_image_together():
    values, images = [0.0, 0.0, 1.0, 1.0], ["a", "a", "b", "b"]
    together = interval(values, images)
    assert together == (0.5, 0.0, 1.0)
    many = interval(values * 25, [str(i) for i in range(100)])
    few = interval(values * 25, images * 25)
    assert many[1] > 0.35 and many[2] < 0.65 and few == together
    assert np.isnan(interval([np.nan], ["a"])).all()


def test_the_mean_is_drawn_as_any_other_statistic():
    rng = np.random.default_rng(1)
    values, images = rng.random(30), rng.integers(0, 9, 30).astype(str)
    slow = interval(values, images, statistic=lambda v: v.mean())
    assert interval(values, images) == pytest.approx(slow)


def test_a_summary_keeps_the_order_of_its_groups_and_leaves_nan_out():
    rows = pd.DataFrame(
        {"run": ["z", "z", "a"], "image": ["u", "v", "u"], "norm": [1.0, np.nan, np.nan]}
    )
    table = summarise(rows, ["run"], {"norm": np.median}, resamples=50)
    assert table["run"].tolist() == ["z", "a"] and table["n"].tolist() == [2, 1]
    assert table["norm"].iloc[0] == 1.0
    assert written(table)["norm"].tolist() == ["1.00 [1.00, 1.00]", "–"]
    assert list(written(table, intervals=False)) == ["run", "n", "norm"]
    empty = summarise(rows.iloc[:0], ["run"], {"norm": np.median})
    assert empty.empty and list(written(empty)) == ["run", "n", "norm"]
