"""Promises of the figures and of the slider's callback."""

from typing import get_args

import matplotlib
import matplotlib.pyplot as plt
import pytest
import torch

from tkmia_utils.measures import precision_at_k
from tkmia_utils.report import figures, slider
from tkmia_utils.report.ranking import Kind, Ranking


@pytest.fixture
def steps() -> slider.Steps:
    """Four labels over three steps: the first, specified, is overtaken one by one."""
    logits = torch.tensor([[4.0, 3.0, 2.0, 1.0], [2.5, 3.0, 2.0, 1.0], [0.5, 3.0, 2.0, 1.0]])
    images = torch.full((3, 3, 4, 4), 0.5)
    images[1, 0, 0, 0], images[2, 0, 0, :2] = 0.8, torch.tensor([0.9, 0.8])
    relevant = torch.tensor([True, True, True, False])
    specified = torch.tensor([True, False, False, False])
    names = ("cat", "table", "chair", "boat")
    return slider.Steps(images, logits, Ranking(logits[0], relevant, specified, 2, names))


def test_the_view_of_a_step_is_what_the_victim_shows_there(steps):
    first, middle, last = (slider.view(steps, t) for t in range(3))
    assert first.top == (("cat", "specified"), ("table", "relevant"))
    assert middle.top == (("table", "relevant"), ("cat", "specified"))
    assert last.top == (("table", "relevant"), ("chair", "relevant"))
    assert (first.excluded, middle.excluded, last.excluded) == ((), (), ("cat",))
    assert first.l2 == 0 and last.l2 == pytest.approx(0.5)
    assert last.l2_paper == pytest.approx(1.0)
    for t, seen in enumerate((first, middle, last)):
        wanted = float(precision_at_k(steps.logits[t : t + 1], steps.ranking.relevant[None], 2)[0])
        assert seen.measures["P@k"] == wanted


def test_the_slider_shows_the_step_it_stands_at(steps):
    handle, shown = slider.slider(steps).children
    assert (handle.min, handle.max, handle.value) == (0, 2, 0)
    assert shown.value == slider.picture(steps, 0)
    handle.value = 2
    assert shown.value == slider.picture(steps, 2) != slider.picture(steps, 0)
    assert not plt.get_fignums()


def test_a_step_outside_the_record_is_refused(steps):
    for step in (-1, 3):
        with pytest.raises(ValueError, match="step"):
            slider.view(steps, step)


def test_records_that_do_not_fit_together_are_refused(steps):
    images, logits = steps.images, steps.logits
    for some, other in (
        (images[:2], logits), (images, logits[:2]), (images, logits[:, :3]), (images, logits[0]),
        (images, logits * torch.nan),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=r"^logits:"):
            slider.Steps(some, other, steps.ranking)


def test_the_magnified_perturbation_is_grey_where_nothing_changed(steps):
    shown = figures.magnified(steps.images[0], steps.images[2], factor=1)
    assert shown[0, 0, 0] == pytest.approx(0.9) and shown[1].unique().tolist() == [0.5]


def test_every_label_is_listed_with_its_kind(steps):
    ax = plt.figure().subplots()
    figures.show_list(ax, steps.ranking)
    texts = [t.get_text() for t in ax.texts]
    kinds = ("specified", "relevant", "relevant", "irrelevant")
    listed = enumerate(zip(kinds, steps.ranking.classes, strict=True), start=1)
    wanted = [f"{i}. {figures.LOOKS[kind].glyph} {name}" for i, (kind, name) in listed]
    assert texts[:4] == wanted


def test_a_step_is_drawn_with_its_numbers(steps):
    fig = slider.draw(steps, 2)
    titles = " ".join(ax.get_title() for ax in fig.axes)
    assert "step 2" in titles and "P@k 1.00" in titles


def test_every_kind_of_label_has_a_look():
    assert set(figures.LOOKS) == set(get_args(Kind))


def test_kinds_differ_in_lightness_as_well_as_in_colour():
    grey = []
    for look in figures.LOOKS.values():
        r, g, b = matplotlib.colors.to_rgb(look.colour)
        grey.append(0.2126 * r + 0.7152 * g + 0.0722 * b)
    assert len({look.glyph for look in figures.LOOKS.values()}) == 3
    assert min(abs(a - b) for i, a in enumerate(grey) for b in grey[:i]) > 0.08
