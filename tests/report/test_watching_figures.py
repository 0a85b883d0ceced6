"""Promises of the figures of notebook 12: they show what the tables say."""

import numpy as np
import pandas as pd
import pytest

from tkmia_utils.report import watching
from tkmia_utils.report.figures import look_of


def table(runs=("tkmia", "kfool")) -> pd.DataFrame:
    lines = [
        {"run": run, "share": share, "watch": watch, "power": 0.5, "delay": 10.0 * (i + 1) / share}
        for i, run in enumerate(runs)
        for share in (0.2, 1.0)
        for watch in ("recall", "gap", "rate")
    ]
    found = pd.DataFrame(lines)
    found.loc[(found["watch"] == "gap") & (found["run"] == runs[-1]), "delay"] = np.inf
    return found


def marks(ax, name: str) -> list[tuple[float, float, bool]]:
    """Place and filling of every mark of an attack."""
    colour, found = look_of(name).colour, []
    for line in ax.lines:
        if line.get_marker() not in ("None", None, "") and line.get_color() == colour:
            filled = line.get_markerfacecolor() != "none"
            found += [(x, y, filled) for x, y in zip(*line.get_data(), strict=True)]
    return sorted(found, key=lambda mark: mark[1])


def test_every_share_has_a_panel_and_every_attack_a_mark_a_watch():
    fig = watching.delays(table(), horizon=1500)
    assert [ax.get_title().split("%")[0] for ax in fig.axes] == ["20", "100"]
    for ax, share in zip(fig.axes, (0.2, 1.0), strict=True):
        ours, theirs = marks(ax, "tkmia"), marks(ax, "kfool")
        assert [x for x, *_ in ours] == pytest.approx([10 / share] * 3)
        assert all(filled for *_, filled in ours)
        assert [round(y) for _, y, _ in ours] == [round(y) for _, y, _ in theirs] == [0, 1, 2]
        assert [filled for *_, filled in theirs] == [True, False, True]
        assert theirs[1][0] > 1500  # no alarm: beyond what was looked at
    labels = [text.get_text() for text in fig.axes[0].get_yticklabels()]
    assert labels == ["recall", "gap", "rate"]
    assert fig.axes[0].get_ylim()[0] > fig.axes[0].get_ylim()[1]  # the first watch is above


def test_a_watch_without_a_line_has_no_mark():
    known = table()
    known = known[(known["watch"] != "rate") | (known["run"] != "kfool")]
    fig = watching.delays(known, horizon=1500)
    assert len(marks(fig.axes[0], "tkmia")) == 3 and len(marks(fig.axes[0], "kfool")) == 2


def test_every_attack_is_named_once_even_one_that_never_rings():
    known = table(runs=("tkmia", "gmla", "kfool"))
    known.loc[known["run"] == "kfool", "delay"] = np.inf
    fig = watching.delays(known, horizon=1500)
    texts = [text.get_text() for text in fig.axes[-1].get_legend().get_texts()]
    assert texts == ["TkMIA", "GMLA", "kFool"] and fig.axes[0].get_legend() is None
    one = watching.delays(known[known["run"] == "tkmia"], horizon=1500)
    assert len(one.axes[-1].get_legend().get_texts()) == 1


@pytest.mark.parametrize("attackers", [3, 15])
def test_a_frontier_shows_every_attacker_at_his_norm_and_silence(attackers):
    known = pd.DataFrame(
        {"attacker": [f"a{i}" for i in range(attackers)], "norm": 1.0 + np.arange(attackers),
         "kept": 1.0, "recall": 20.0, "gap": [np.inf, *[30.0] * (attackers - 1)]}
    )  # fmt: skip
    fig = watching.frontier(known, horizon=1500, watches=["recall", "gap"])
    assert [ax.get_title() for ax in fig.axes] == ["recall", "gap"]
    recall, gap = ([line for line in ax.lines if len(line.get_xdata()) == 1] for ax in fig.axes)
    assert len(recall) == len(gap) == attackers
    assert [line.get_xdata()[0] for line in gap] == known["norm"].tolist()
    hollow = [str(line.get_markerfacecolor()) == "none" for line in gap]
    assert hollow == [True, *[False] * (attackers - 1)]
    assert gap[0].get_ydata()[0] > 1500 and gap[1].get_ydata()[0] == 30
    texts = [text.get_text() for text in fig.axes[-1].get_legend().get_texts()]
    assert texts == known["attacker"].tolist()
    looks = {(line.get_marker(), tuple(line.get_color())) for line in gap}
    assert len(looks) == attackers  # no two are alike


def test_benign_alarms_have_a_row_a_watch_and_a_mark_a_case():
    known = pd.DataFrame(
        {"watch": ["recall", "gap"], "nothing": [0.05, 0.0], "twice": [0.6, 1.0],
         "dropped": [0.04, 0.01], "drift": [0.1, 0.9]}
    )  # fmt: skip
    fig = watching.benign(known, nominal=10_000, within=1000)
    (ax,) = fig.axes
    cases, (bound,) = ax.lines[:4], ax.lines[4:]
    for line, case in zip(cases, known.columns[1:], strict=True):
        assert line.get_label() == case and line.get_xdata().tolist() == known[case].tolist()
    assert set(bound.get_xdata()) == {0.1}
    assert [text.get_text() for text in ax.get_yticklabels()] == ["recall", "gap"]
    assert len({line.get_color() for line in cases}) == 4
