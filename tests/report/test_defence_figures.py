"""Promises of the figures of notebook 13: they show what the tables say."""

import numpy as np
import pandas as pd
import pytest

from tkmia_utils.experiments.defence import ADAPTIVE, ATTACKERS, IDENTITY, UNAWARE
from tkmia_utils.report import defence


def test_every_attacker_has_a_look_and_an_infinite_norm_stands_at_the_edge():
    table = pd.DataFrame(
        [
            {"defence": name, "attacker": attacker, "kept": kept, "norm": norm}
            for name, attacker, kept, norm in [
                ("JPEG", UNAWARE, 0.0, np.inf),
                ("JPEG", IDENTITY, 1.0, 0.8),
                ("JPEG", ADAPTIVE, 1.0, 0.4),
                ("PNG", ADAPTIVE, 1.0, 0.2),
            ]
        ]
    )
    for name in ("kept", "norm"):
        table[f"{name} low"] = table[f"{name} high"] = table[name]
    assert set(defence.ATTACKERS) == set(ATTACKERS)
    fig = defence.transformations(table)
    left, right = fig.axes
    assert len(left.containers) == len(right.containers) == 3
    assert right.containers[0].lines[0].get_xdata().tolist() == [right.get_xlim()[1]]
    assert right.get_xticklabels()[-1].get_text() == defence.NOT_HIDDEN
    assert right.containers[2].lines[0].get_xdata().tolist() == [0.4, 0.2]


def test_a_curve_counts_failures_and_marks_the_median():
    rows = pd.DataFrame({"model": "plain", "norm": [0.3, 0.1, np.inf, 0.2]})
    (ax,) = defence.success_by_norm(rows, most=0.5).axes
    curve = ax.lines[0]
    assert curve.get_xdata().tolist() == [0, 0.1, 0.2, 0.3, 0.5]
    assert curve.get_ydata().tolist() == [0, 0.25, 0.5, 0.75, 0.75]
    assert ax.lines[-1].get_xdata().tolist() == [0.25]
    assert ax.get_legend().get_texts()[0].get_text() == "plain: median 0.25"


def test_a_model_that_mostly_withstands_has_no_median():
    rows = pd.DataFrame({"model": ["a"] * 3, "norm": [0.1, np.inf, np.inf]})
    (ax,) = defence.success_by_norm(rows).axes
    assert ax.get_legend().get_texts()[0].get_text() == "a: under half"


def test_proved_and_broken_are_shares_of_the_same_images():
    rows = pd.DataFrame(
        {
            "model": ["plain"] * 2 + ["smoothed"] * 2,
            "proved": [0.0, 0.0, 0.2, 0.0],
            "broken": [0.1, 0.3, 0.6, np.inf],
        }
    )
    fig = defence.gap(rows, most=1.0)
    first, second = fig.axes
    standing, safe = second.lines
    at = safe.get_xdata()
    assert safe.get_ydata()[at < 0.19].tolist() == [0.5] * int((at < 0.19).sum())
    assert not safe.get_ydata()[at > 0.21].any()
    assert set(standing.get_ydata()[at < 0.59]) == {1.0}
    assert set(standing.get_ydata()[at > 0.61]) == {0.5}
    assert not first.lines[1].get_ydata().any()  # nothing is proved
    assert first.get_title().endswith("proved 0.00, broken 0.20")
    assert second.get_title().endswith(f"proved 0.10, broken {defence.NOT_HIDDEN}")


@pytest.mark.parametrize("norm", [0.0, np.inf])
def test_a_figure_without_a_finite_norm_is_drawn_all_the_same(norm):
    table = pd.DataFrame({"defence": ["PNG"], "attacker": [ADAPTIVE]})
    for name in ("kept", "norm"):
        for end in ("", " low", " high"):
            table[name + end] = norm if name == "norm" else 0.0
    rows = pd.DataFrame({"model": ["plain"], "norm": norm, "proved": 0.0, "broken": norm})
    for fig in (
        defence.transformations(table), defence.success_by_norm(rows), defence.gap(rows),
    ):  # fmt: skip
        fig.canvas.draw()


def test_attacks_that_all_failed_are_drawn_at_infinity():
    rows = [
        {"defence": name, "attacker": "adaptive", "norm": np.inf, "norm low": np.inf}
        | {"norm high": np.inf, "kept": 0.0, "kept low": 0.0, "kept high": 0.0}
        for name in ("PNG", "blurred")
    ]
    figure = defence.transformations(pd.DataFrame(rows))
    figure.canvas.draw()
    assert figure.axes[1].get_xticklabels()[-1].get_text() == "∞"
