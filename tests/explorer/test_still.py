"""Promises of recordings on paper."""

import matplotlib
import matplotlib.pyplot as plt
import pytest
import toys

from tkmia_utils.explorer import still
from tkmia_utils.explorer.page import static_page


def test_a_row_of_the_table_says_what_was_asked_and_how_it_ended():
    made = toys.toy_recordings()
    table = still.table(made)
    assert len(table) == 9 and table["method"].tolist()[:3] == ["tkmia", "ml_cw_u", "tkmia_min"]
    first, before = table.iloc[0], made[0]["measures"]["P@k"]
    assert (first["hidden"], first["end"]) == ("cup", "success")
    assert first["P@k"] == f"{before[0]:.2f} → {before[-1]:.2f}"
    assert table["norm"].tolist() == [one["l2_paper"][one["result"]] for one in made]
    assert still.table([]).columns.tolist() == table.columns.tolist()


def test_the_figure_shows_the_step_whose_image_is_given_back():
    matplotlib.use("Agg")
    made = toys.toy_recordings()[:3]
    fig = still.still(made)
    titles = [ax.get_title() for ax in fig.axes]
    for one in made:
        wanted = f"{one['name']}, step {one['result']}"
        assert any(title.startswith(wanted) for title in titles)
    plt.close(fig)
    with pytest.raises(ValueError, match=r"^recordings:"):
        still.still([])


def test_a_page_asks_for_nothing_from_outside():
    page = static_page(toys.toy_recordings()[:1])
    assert "http" not in page.replace("http://www.w3.org/2000/svg", "")
    assert "<script src" not in page and "<link" not in page
