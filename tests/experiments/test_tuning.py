"""Promises of the choice of lr and alpha."""

import pandas as pd
import pytest

from tkmia_utils.experiments import tuning


def test_rates_are_the_only_ones_or_those_the_search_chose():
    assert tuning.rates({"lrs": [0.1], "alphas": [0.2]}, None, "tkmia") == {
        "lr": 0.1,
        "alpha": 0.2,
    }
    assert tuning.rates({"lrs": [0.1, 1], "alphas": [0.2]}, None, "kfool") == {}
    lines = [["tkmia", 0.1, 0.2, 0.90, 5.0], ["tkmia", 1.0, 0.2, 0.895, 4.0]]
    lines += [["tkmia", 2.0, 0.2, 0.5, 1.0], ["gmla", 3.0, 0.2, 1.0, 1.0]]
    grid = pd.DataFrame(lines, columns=["method", "lr", "alpha", "success", "APer"])
    many = {"lrs": [0.1, 1.0, 2.0], "alphas": [0.2]}
    assert tuning.rates(many, grid, "tkmia") == {"lr": 1.0, "alpha": 0.2}
    with pytest.raises(ValueError, match="07_baselines"):
        tuning.rates(many, grid, "ml_cw_u")


def test_within_a_percentage_point_of_success_the_smaller_norm_is_chosen():
    grid = pd.DataFrame(
        [
            [0.1, 0.2, 0.900, 5.0],
            [1.0, 0.2, 0.891, 4.0],
            [2.0, 0.2, 0.889, 1.0],
            [3.0, 0.2, 0.9, 4],
        ],
        columns=["lr", "alpha", "success", "APer"],
    )
    assert tuning.best_rates(grid) == {"lr": 1.0, "alpha": 0.2}
