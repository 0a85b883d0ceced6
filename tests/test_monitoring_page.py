"""Promises of docs/monitoring.md: its code runs as it stands, and does what the page says."""

import re
from pathlib import Path

import matplotlib.pyplot as plt
import pytest
import torch

from tkmia_utils.monitor import WATCHES

PAGE = Path(__file__).parents[1] / "docs" / "monitoring.md"


def blocks() -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.M | re.S)


@pytest.fixture(scope="module")
def after(tmp_path_factory):
    """For every block what `m` said after it, and the names that the last one leaves behind."""
    folder, names, said = tmp_path_factory.mktemp("page"), {}, []
    with pytest.MonkeyPatch.context() as patch, torch.random.fork_rng(devices=[]):
        patch.chdir(folder)
        for i, block in enumerate(blocks()):
            exec(compile(block, f"{PAGE.name}, block {i}", "exec"), names)
            said.append(names["m"].alarm if "m" in names else None)
    plt.close("all")
    return names, folder, said


def test_the_monitor_on_the_page_is_silent_on_clean_images_and_rings_for_the_attack(after):
    names, _, said = after
    assert said[1:3] == [False, True]
    assert names["result"].success.double().mean() > 0.5


def test_the_page_lowers_the_alarm_of_both_monitors(after):
    names, _, _ = after
    m, again = names["m"], names["again"]
    assert not m.alarm and not again.alarm
    stream = len(names["images"][300:400]) + len(names["at"])
    assert m.position == again.position == stream
    ranked = [
        monitor.evidence.set_index("watch")["images"]["second look"] for monitor in (m, again)
    ]
    assert ranked[0] == ranked[1] + stream  # the one remembers, the other has forgotten


def test_the_watch_on_the_page_is_watched_beside_those_of_the_house(after):
    names, _, _ = after
    assert names["mine"].setting.watch == ("top score", "gap")
    assert "top score" not in WATCHES


def test_the_page_writes_its_file_where_it_runs(after):
    _, folder, _ = after
    assert [path.name for path in folder.iterdir()] == ["monitor.safetensors"]


def test_the_table_lists_every_watch_and_what_it_needs():
    rows = re.findall(
        r"^\| ([^|]+) \| ([^|]+) \| [^|]+ \| [^|]+ \|$", PAGE.read_text("utf-8"), re.M
    )
    told = {name: needs for names, needs in rows[1:] for name in names.split(", ")}
    words = {"nothing": "nothing", "labels": "labels", "second": "second scores"}
    assert told == {name: words[watch.needs] for name, watch in WATCHES.items()}


def test_fitting_and_feeding_take_fifteen_lines():
    """Of code proper: without the stand-ins for model, images and labels."""
    lines = [line for line in blocks()[1].splitlines() if line.strip()]
    assert len(lines) <= 15
