"""Promises of the figures of notebooks 10 and 11: they show what the tables say."""

import numpy as np
import pandas as pd
import torch

from tkmia_utils.experiments.tradeoff import aggregate_front
from tkmia_utils.report import optimality, tradeoff, transfer
from tkmia_utils.report.figures import FAILED


def test_a_curve_is_the_share_of_images_within_a_relative_norm():
    known = pd.DataFrame(
        {"run": "tkmia", "method": "tkmia", "stop": "excluded", "budget": 30,
         "relative": [1.0, 1.5, np.inf, np.inf]}
    )  # fmt: skip
    fig = optimality.curves(known)
    (line,) = fig.axes[0].lines
    assert line.get_ydata()[0] == 0.25 and line.get_ydata()[-1] == 0.5


def test_every_stop_and_budget_has_a_panel_and_every_run_a_line():
    known = pd.DataFrame(
        [
            {"run": run, "method": "kfool", "stop": stop, "budget": budget, "relative": 1.2}
            for run in ("kfool", "longer")
            for stop in ("excluded", "imperceptible")
            for budget in (30, 100)
        ]
    )
    fig = optimality.curves(known)
    assert len(fig.axes) == 4 and all(len(ax.lines) == 2 for ax in fig.axes)
    assert {line.get_linestyle() for line in fig.axes[0].lines} == {"-", ":"}


def test_a_margin_says_at_which_iteration_its_stop_first_holds():
    fig = tradeoff.margins(
        {"excluded": torch.tensor([-1.0, 0.5, 2.0]), "strict": torch.tensor([-3.0, -1.0, -0.1])}
    )
    texts = [text.get_text() for text in fig.axes[0].get_legend().get_texts()]
    assert texts == ["excluded: first at iteration 1", "strict: never"]


def test_a_perturbation_that_its_file_loses_is_hollow_and_grey():
    rows = pd.DataFrame(
        {"run": "tkmia", "success": [True, True, False], "levels": [0.4, 2.0, 9.0],
         "survives PNG": [0.0, 1.0, 0.0]}
    )  # fmt: skip
    fig = tradeoff.grey_levels(rows)
    _, _, lost, lives = fig.axes[0].lines
    assert lost.get_xdata().tolist() == [0.4] and lost.get_color() == FAILED
    assert lost.get_markerfacecolor() == "none" and lives.get_xdata().tolist() == [2.0]


def test_a_front_has_one_line_an_image_and_one_mark_a_run():
    rows = pd.DataFrame(
        {"run": ["a", "a", "b", "b"], "cell": "one", "image": ["u", "v"] * 2, "success": True,
         "l2_paper": [1.0, 2.0, 3.0, 2.5], "fall": [0.5, 0.0, 0.0, 0.0]}
    )  # fmt: skip
    fig = tradeoff.fronts(rows, aggregate_front(rows, [0.0, 100.0]))
    left, right = fig.axes
    assert [len(line.get_xdata()) for line in left.lines] == [2, 1]
    assert right.lines[0].get_xdata().tolist() == [1.5, 2.5]
    assert [line.get_label() for line in right.lines] == ["front", "a", "b"]


def test_a_confidence_shows_both_shares_and_the_norm_it_costs():
    table = pd.DataFrame(
        [
            {"place": place, "confidence": c}
            | {f"{q}{end}": 0.5 for q in ("hidden", "kept") for end in ("", " low", " high")}
            for place in ("PNG", "JPEG 90")
            for c in (0.0, 1.0)
        ]
    )
    fig = transfer.by_confidence(table, pd.Series({0.0: 0.7, 1.0: 0.9}))
    assert [len(ax.containers) for ax in fig.axes] == [2, 2]
    ticks = [tick.get_text() for tick in fig.axes[0].get_xticklabels()]
    assert ticks == ["0\n‖ε‖ 0.70", "1\n‖ε‖ 0.90"]
