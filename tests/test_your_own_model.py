"""Promises of docs/your_own_model.md: its code runs as it stands, and does what the page says."""

import re
from pathlib import Path

import matplotlib.pyplot as plt
import pytest
import torch

PAGE = Path(__file__).parents[1] / "docs" / "your_own_model.md"


def blocks() -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.M | re.S)


@pytest.fixture(scope="module")
def after(tmp_path_factory):
    """Names that the page's code leaves behind, and the folder in which it ran."""
    folder, names = tmp_path_factory.mktemp("page"), {}
    with pytest.MonkeyPatch.context() as patch, torch.random.fork_rng(devices=[]):
        patch.chdir(folder)
        for i, block in enumerate(blocks()):
            exec(compile(block, f"{PAGE.name}, block {i}", "exec"), names)
    plt.close("all")
    return names, folder


def test_the_attack_on_the_page_hides_what_it_was_asked_to(after):
    names, _ = after
    result = names["result"]
    assert len(result) == 16 and result.success.all() and not result.untouched.any()


def test_the_page_is_warned_of_its_small_lr_and_told_one_that_works(after):
    names, _ = after
    (told,) = names["caught"]
    lr = float(re.search(r"Try lr=([\d.e+-]+),", str(told.message))[1])
    found = names["attack"](names["model"], *names["task"], k=3, lr=lr, max_iter=100)
    assert found.success.double().mean() > 0.5


def test_the_page_writes_its_files_where_it_runs(after):
    names, folder = after
    assert {path.name for path in folder.iterdir()} == {
        "first_image.png", "result.safetensors", "comparison.png",
    }  # fmt: skip
    assert names["found"].table.index.tolist() == ["tkmia", "tkml_ap_u", "kfool"]


def test_setting_up_and_attacking_take_fifteen_lines():
    """Of code proper: without the stand-ins for model, images and labels."""
    lines = [line for line in blocks()[1].splitlines() if line.strip()]
    assert len(lines) <= 15
