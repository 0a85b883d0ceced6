"""Promises of the yardstick: the best known norm, the area, and the true optimum of a line."""

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.optimize import minimize

from tkmia_utils.condition import condition, margin
from tkmia_utils.experiments import optimality


def contest_rows() -> pd.DataFrame:
    """Two images and one that nobody solves, two runs."""
    lines = [
        *[("a", "u", 2.0, True), ("a", "v", 3.0, True), ("a", "w", 1.0, False)],
        *[("b", "u", 1.0, True), ("b", "v", 1.0, False), ("b", "w", 0.5, False)],
    ]
    rows = pd.DataFrame(lines, columns=["run", "image", "l2_paper", optimality.STRICT])
    return rows.assign(cell="one")


def test_the_best_known_norm_is_of_strict_successes_alone():
    known = optimality.relative_norms(contest_rows())
    assert set(known["image"]) == {"u", "v"}  # nobody solved w
    assert known["best"].tolist() == [1.0, 3.0, 1.0, 3.0]
    assert known["relative"].tolist() == [2.0, 1.0, 1.0, np.inf]


def test_an_image_that_needs_no_perturbation_has_a_relative_norm_of_one():
    rows = contest_rows().assign(l2_paper=[0.0, 3.0, 1.0, 0.5, 1.0, 0.5])
    assert optimality.relative_norms(rows)["relative"].tolist() == [1.0, 1.0, np.inf, np.inf]


def test_optimality_is_one_minus_the_area_between_the_curves():
    relative = np.array([1.0, 1.3, 1.9, 2.5, np.inf])
    at = np.linspace(1, 2, 20001)
    area = 1 - optimality.curve(relative, at).mean()
    assert 1 - optimality.optimality(relative).mean() == pytest.approx(area, abs=1e-4)
    assert optimality.optimality(relative, most=2).tolist()[3:] == [0, 0]
    with pytest.raises(ValueError, match="most"):
        optimality.optimality(relative, most=1.0)


def test_a_least_distance_is_the_least_and_an_empty_system_has_none():
    rng = np.random.default_rng(0)
    for _ in range(20):
        g, h = rng.normal(size=(4, 6)), rng.normal(size=4)
        x = optimality.least_distance(g, h)
        other = minimize(
            lambda y: y @ y, np.zeros(6), jac=lambda y: 2 * y, method="SLSQP",
            constraints={"type": "ineq", "fun": lambda y, g=g, h=h: g @ y - h},
        )  # fmt: skip
        assert (g @ x - h).min() > -1e-9
        assert x @ x == pytest.approx(other.fun, abs=1e-6)
    line = np.array([[1.0, 0.0], [-1.0, 0.0]])
    assert optimality.least_distance(line, np.array([1.0, 1.0])) is None


@pytest.mark.parametrize("k", [1, 2, 3])
def test_the_optimum_of_a_linear_victim_is_on_the_border_and_nothing_nearer_is_inside(k):
    model, x, labels, specified = optimality.linear_problem(4, seed=k)
    clean, generator = model(x), torch.Generator().manual_seed(k)
    for i in range(len(x)):
        asked = condition(clean[[i]], labels[[i]], specified[[i]], k)
        least = optimality.linear_optimum(model[1], x[i], asked)
        length = np.linalg.norm(least)
        at = x[i].flatten().double() + torch.from_numpy(least)
        layer = model[1].double()
        assert abs(float(margin(layer(at)[None], asked))) < 1e-9
        # directions that matter, a little inside of the optimum's sphere
        span = torch.randn(4000, 6, generator=generator, dtype=torch.float64) @ layer.weight
        near = torch.cat(
            [span, torch.from_numpy(least) + 0.3 * length * span / span.norm(dim=1)[:, None]]
        )
        near = 0.999 * length * near / near.norm(dim=1, keepdim=True)
        many = condition(*(t[[i]].expand(len(near), -1) for t in (clean, labels, specified)), k)
        assert float(margin(layer(x[i].flatten().double() + near), many).max()) <= 0
        layer.float()


def test_an_impossible_condition_has_no_optimum():
    model, x, labels, specified = optimality.linear_problem(1, relevant=2)
    # S is the whole Y_p but one, and both places were hits
    asked = condition(model(x), labels, specified, 2)
    assert not asked.feasible.any()
    assert np.isnan(optimality.linear_optimum(model[1], x[0], asked)).all()
