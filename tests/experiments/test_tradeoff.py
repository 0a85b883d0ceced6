"""Promises of the trade-off: ratios of the same image, fronts that nothing betters."""

from itertools import product

import numpy as np
import pandas as pd
import pytest
from test_protocol import world  # noqa: F401  (a fixture)

from tkmia_utils.experiments import protocol, tradeoff
from tkmia_utils.experiments.optimality import contest


def made(seed: int = 0, images: int = 4, runs: int = 5) -> pd.DataFrame:
    rng, n = np.random.default_rng(seed), images * runs
    return pd.DataFrame(
        {
            "cell": "one", "k": 2, "s": 1, "image": np.tile([f"i{i}" for i in range(images)], runs),
            "run": np.repeat([f"r{i}" for i in range(runs)], images),
            "success": rng.random(n) < 0.8, "l2_paper": rng.random(n),
            "fall": rng.integers(0, 4, n) / 4,
        }
    )  # fmt: skip


def test_a_ratio_needs_both_runs_to_succeed_on_the_image():
    rows = made(images=3, runs=2).assign(
        success=[True, True, True, True, False, True], l2_paper=[2.0, 2.0, 2.0, 4.0, 1.0, 3.0]
    )
    found = tradeoff.ratios(rows, {"up": ("r1", "r0")})
    assert found["image"].tolist() == ["i0", "i2"] and found["value"].tolist() == [2.0, 1.5]
    none = rows.assign(l2_paper=[0.0] * 3 + [1.0] * 3)
    assert tradeoff.ratios(none, {"up": ("r1", "r0")}).empty
    with pytest.raises(ValueError, match="pairs"):
        tradeoff.ratios(rows, {"up": ("r1", "mine")})


@pytest.mark.parametrize("seed", range(5))
def test_a_front_is_what_no_success_of_the_image_betters(seed):
    rows = made(seed)
    kept = tradeoff.pareto(rows)
    for i, row in rows.iterrows():
        rivals = rows[(rows["image"] == row["image"]) & rows["success"]]
        as_good = (rivals["l2_paper"] <= row["l2_paper"]) & (rivals["fall"] <= row["fall"])
        better = (rivals["l2_paper"] < row["l2_paper"]) | (rivals["fall"] < row["fall"])
        assert kept[i] == (row["success"] and not (as_good & better).any())


def test_of_two_equal_rows_one_is_on_the_front():
    rows = made(images=1, runs=2).assign(success=True, l2_paper=1.0, fall=0.0)
    assert tradeoff.pareto(rows).tolist() == [True, False]


def test_no_choice_of_runs_betters_a_line_of_the_aggregate_front():
    rows = made(3, images=3, runs=3).assign(success=True)
    front = tradeoff.aggregate_front(rows, [0.0, 0.1, 0.3, 1.0, 10.0])
    assert front["norm"].is_monotonic_increasing and front["fall"].is_monotonic_decreasing
    groups = [part for _, part in rows.groupby("image")]
    for choice in product(range(3), repeat=3):
        lines = [group.iloc[i] for group, i in zip(groups, choice, strict=True)]
        norm, fall = (np.mean([line[name] for line in lines]) for name in ("l2_paper", "fall"))
        for line in front.to_dict("records"):
            assert not (norm < line["norm"] - 1e-9 and fall < line["fall"] - 1e-9)


def test_a_grey_level_in_every_value_is_a_root_mean_square_of_one():
    l2 = np.sqrt(3 * 8**2) / 255
    assert tradeoff.rms_levels(np.array([l2]), 8) == pytest.approx([1.0])


def test_several_runs_attack_the_same_rows_each_with_its_settings(world):  # noqa: F811
    model, data, logits = world
    queue = protocol.build_queue(
        protocol.list_cells([], [], [(1, 1), (2, 1)]), data, logits, {}, n=3
    )
    rows, results = tradeoff.several(
        model, queue, data, {"short": {"max_iter": 1}, "long": {}}, max_iter=40, lr=1e-2
    )
    assert (
        list(results) == ["short", "long"] and rows["run"].tolist() == ["short"] * 6 + ["long"] * 6
    )
    assert (rows.loc[rows["run"] == "short", "iterations"] <= 1).all()
    assert rows["fall"].isna().equals(~rows["success"]) and (rows["fall"].dropna() >= 0).all()


def test_a_budget_counts_backward_passes(world):  # noqa: F811
    model, data, logits = world
    queue = protocol.build_queue(protocol.list_cells([], [], [(2, 2)]), data, logits, {}, n=4)
    runs = {"gmla": {"method": "gmla"}, "tkmia": {"method": "tkmia"}}
    rows, kept = contest(
        model, queue, data, runs, stops=["excluded", "imperceptible"], budgets=[3, 8],
        lr=1e-5, keep=("excluded", 8),
    )  # fmt: skip
    assert (rows["backward"] <= rows["budget"]).all()
    tired = rows[~rows["success"] & (rows["run"] == "gmla") & (rows["budget"] == 8)]
    assert len(tired) and (tired["iterations"] == 4).all()
    assert len(rows) == 2 * 2 * 2 * 4
    assert list(kept) == ["gmla", "tkmia"] and kept["tkmia"].iterations.max() == 8
    with pytest.raises(ValueError, match="budgets: expected an iteration of every attack, 2"):
        contest(model, queue, data, runs, stops=["excluded"], budgets=[1])
