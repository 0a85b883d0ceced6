"""Promises of the figures: attacks differ, failures are called failures, scales are fair."""

from itertools import combinations

import matplotlib
import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.colors import to_rgb
from skimage.color import deltaE_ciede2000, rgb2lab

from tkmia_utils import attacks, paper
from tkmia_utils.paper import figures as paper_figures
from tkmia_utils.report import figures, gallery, overview, tables
from tkmia_utils.report.ranking import Ranking

# Machado, Oliveira and Fernandes 2009: linear RGB as the two kinds of red-green blind see it
SEEN = {
    "by most": np.eye(3),
    "deuteranope": [[0.367, 0.861, -0.228], [0.280, 0.673, 0.047], [-0.012, 0.043, 0.969]],
    "protanope": [[0.152, 1.053, -0.205], [0.115, 0.786, 0.099], [-0.004, -0.048, 1.052]],
}


def lab_colour(colour: str, eyes) -> np.ndarray:
    value = np.array(to_rgb(colour))
    linear = np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)
    seen = np.clip(np.asarray(eyes) @ linear, 0, 1)
    encoded = np.where(seen <= 0.0031308, 12.92 * seen, 1.055 * seen ** (1 / 2.4) - 0.055)
    return rgb2lab(encoded)


@pytest.mark.parametrize("eyes", SEEN)
def test_the_colours_of_attacks_differ_for_colour_blind_readers_too(eyes):
    seen = {m: lab_colour(look.colour, SEEN[eyes]) for m, look in figures.METHODS.items()}
    apart = {(a, b): deltaE_ciede2000(seen[a], seen[b]) for a, b in combinations(seen, 2)}
    assert min(apart.values()) > 15, min(apart, key=apart.get)


def test_every_attack_has_its_own_name_colour_and_marker():
    assert set(figures.METHODS) == set(attacks.ATTACKS)
    for field in ("name", "colour", "marker"):
        values = {getattr(look, field) for look in figures.METHODS.values()}
        assert len(values) == len(figures.METHODS)
    assert paper.NAMES.items() <= figures.NAMES.items()
    assert set(paper_figures.LOOKS) == set(paper.METHODS)


def test_a_table_for_readers_has_names_and_the_original_keeps_its_identifiers():
    frame = pd.DataFrame({"method": ["ml_cw_u", "mine"], "kfool": [1, 2]}, index=["gmla", "x"])
    read = figures.named(frame)
    assert list(read["method"]) == ["ML-CW-U", "mine"]
    assert list(read.columns) == ["method", "kFool"] and list(read.index) == ["GMLA", "x"]
    assert list(frame["method"]) == ["ml_cw_u", "mine"]


@pytest.mark.parametrize("size", [1e-3, 3e-3, 0.02, 0.3, 1.0])
def test_a_magnified_perturbation_fills_the_range_without_being_clipped(size):
    clean = torch.full((3, 20, 20), 0.5)
    noise = torch.rand(clean.shape, generator=torch.Generator().manual_seed(0)) * 2 - 1
    factor = figures.magnification(clean, clean + size * noise)
    assert factor in figures.FACTORS
    away = (factor * size * noise).abs()
    assert (away > 0.5).float().mean() <= 0.06
    assert away.max() > 0.15


def texts(fig) -> list[str]:
    return [text.get_text() for text in fig.findobj(matplotlib.text.Text)]


def pair(after: list[float], *, delta: int | None = None, specified=(True, True, False, False)):
    """One image, four labels, one attack that leaves the scores `after`."""
    clean, logits = torch.rand(3, 8, 8), torch.tensor([4.0, 3.0, 2.0, 1.0])
    relevant = torch.ones(4, dtype=torch.bool)
    ranking = Ranking(logits, relevant, torch.tensor(specified), 2, "abcd")
    return figures.comparison(
        clean, clean[None] + 0.01, ranking, torch.tensor([after]), methods=["kfool"], delta=delta
    )


def test_an_attack_that_failed_is_called_a_failure_and_its_measures_are_not_shown():
    failed = texts(pair([4.0, 3.0, 2.0, 1.0]))
    assert "kFool: not hidden" in failed and not any("ΔP@k" in text for text in failed)
    won = texts(pair([1.0, 2.0, 3.0, 4.0]))
    assert "kFool" in won and any("ΔP@k 0.00" in text for text in won)


def test_as_many_labels_have_to_leave_as_the_setting_asks_for():
    one_left = [4.0, 1.0, 2.0, 3.0]
    assert "kFool: not hidden" in texts(pair(one_left))
    assert "kFool" in texts(pair(one_left, delta=1))


def frame(*, lost: float = 0.0, methods=("tkmia", "kfool"), n: int = 10) -> pd.DataFrame:
    """Rows of two schemes and two k; of the last method a share is `lost`."""
    rng, rows = np.random.default_rng(0), []
    for scheme, k in (("S1", 1), ("S1", 2), ("S2", 2)):
        for method in methods:
            for i in range(n):
                won = method != methods[-1] or i >= lost * n
                change = dict.fromkeys(tables.CHANGES, float(rng.integers(0, 3)) / 2)
                rows.append(
                    {"scheme": scheme, "cell": f"{scheme}, k={k}", "type": "Animals", "k": k}
                    | {"method": method, "image": str(i), "success": won, "delta_l": 1.0}
                    | {"l2_paper": rng.random() + 0.1, "l2": 0.1, "iterations": i} | change
                )  # fmt: skip
    return pd.DataFrame(rows)


def marks(fig) -> list:
    return [
        line for ax in fig.axes for line in ax.get_lines()
        if line.get_marker() not in ("None", "", None, "|") and len(line.get_xdata())
    ]  # fmt: skip


def test_the_figure_of_changes_shows_the_numbers_of_the_table():
    table = tables.summary(frame(), resamples=50)
    fig = overview.measure_changes(table, "S1")
    shown = np.sort(
        np.concatenate([m.get_xdata(orig=False) for m in marks(fig) if m.axes is fig.axes[0]])
    )
    part = table[table["scheme"] == "S1"]
    np.testing.assert_allclose(shown, np.sort(part["Delta TkAcc"]))
    colours = {figures.METHODS[m].colour for m in ("tkmia", "kfool")}
    assert {m.get_color() for m in marks(fig)} == colours


@pytest.mark.parametrize(("lost", "hollow"), [(0.2, False), (0.8, True)])
def test_an_attack_that_mostly_fails_has_hollow_marks(lost, hollow):
    rows = frame(lost=lost)
    for fig in (
        overview.measure_changes(tables.summary(rows, resamples=20), "S1"),
        overview.norms(rows, "S1"),
    ):
        white = {m.get_color() for m in marks(fig) if m.get_markerfacecolor() == "white"}
        assert white == ({figures.METHODS["kfool"].colour} if hollow else set())
        legend = [text.get_text() for text in fig.legends[0].get_texts()]
        assert any("hollow" in text for text in legend) == hollow


def test_a_method_that_never_succeeds_has_no_norms_and_no_changes_to_report():
    rows = frame(lost=1.0)
    assert len(overview.norms(rows, "S1").axes) == 1
    shown = tables.format_summary(tables.summary(rows, resamples=20)).set_index("method")
    assert set(shown.loc["kfool", "Delta P@k"]) == {"–"}
    assert "–" not in set(shown.loc["tkmia", "Delta P@k"])
    assert set(shown.loc["kfool", "success"].str.split().str[0]) == {"0.000"}


def test_the_panels_of_the_costs_share_axes_and_looks_and_failures_are_grey():
    rows = frame(lost=0.3, methods=("kfool",))
    fig = overview.costs(rows)
    left, right = fig.axes
    assert left.get_xlim() == right.get_xlim() and left.get_ylim() == right.get_ylim()
    labels = [text.get_text() for text in fig.legends[0].get_texts()]
    assert labels == ["k = 1", "k = 2", "not hidden"]
    looks = [
        {(m.get_marker(), tuple(np.atleast_1d(m.get_color()))) for m in marks(fig)
         if m.axes is ax and m.get_color() is not figures.FAILED and m.get_fillstyle() == "full"}
        for ax in (left, right)
    ]  # fmt: skip
    assert looks[1] < looks[0]
    grey = [m for m in marks(fig) if m.get_fillstyle() == "none"]
    assert sum(len(m.get_xdata()) for m in grey) == int((~rows["success"]).sum())
    assert {m.get_color() for m in grey} == {figures.FAILED}


def test_a_curve_of_successes_ends_at_the_success_rate():
    fig = overview.progress(frame(lost=0.3, methods=("kfool",)))
    for ax in fig.axes:
        for line in ax.get_lines():
            assert line.get_ydata()[-1] == pytest.approx(0.7)
            assert (np.diff(line.get_ydata()) >= 0).all()


def test_the_gallery_is_drawn_in_two_parts_and_says_where_there_is_nothing(scenes):
    arrays = {
        "image": np.array([scenes.ids[0]] * 2), "adversarial": scenes.images([0, 0]).numpy(),
        "clean_logits": np.array([[3.0, 2, 1], [3, 2, 1]]),
        "adversarial_logits": np.array([[1.0, 2, 3], [3, 2, 1]]), "k": np.array([1, 1]),
        "labels": np.array([[True, True, False]] * 2),
        "specified": np.array([[True, False, False]] * 2),
    }  # fmt: skip
    chosen = pd.DataFrame(
        {"method": ["gmla", "gmla", "tkmia"], "success": [True, False, True]}
    ).assign(of=5, cell="Animals, k=1", position=0)
    kept = {"gmla": arrays, "tkmia": {name: value[:1] for name, value in arrays.items()}}
    shared = dict(total={"gmla": 10, "tkmia": 5})
    won = texts(gallery.gallery(chosen, kept, scenes, **shared, success=True))
    lost = texts(gallery.gallery(chosen, kept, scenes, **shared, success=False))
    assert not any("not hidden" in text or "among" in text for text in won)
    assert any(text.startswith("GMLA: not hidden") for text in lost)
    assert "TkMIA: no failure among 5 attacks" in lost


@pytest.fixture
def scenes():
    class Scenes:
        ids, classes = ("one",), ("cat", "dog", "bus")

        @staticmethod
        def images(index):
            return torch.full((len(index), 3, 8, 8), 0.5)

    return Scenes()


def test_the_labels_stand_where_their_paths_end():
    logits = torch.tensor([[3.0, 2.0, 1.0], [1.0, 2.0, 3.0]])
    relevant, specified = torch.tensor([True, True, False]), torch.tensor([True, False, False])
    ranking = Ranking(logits[0], relevant, specified, 1, ("cat", "dog", "bus"))
    fig = figures.rank_paths(ranking, logits)
    (right,) = fig.axes[0].child_axes
    ends = {
        t.get_text(): y for t, y in zip(right.get_yticklabels(), right.get_yticks(), strict=True)
    }
    assert ends == {"cat": 3, "dog": 2, "bus": 1}
    assert right.get_yticklabels()[0].get_color() == figures.LOOKS["specified"].colour
