"""Promises of the explorer in JupyterLab with a running kernel, seen in a browser."""

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import nbformat
import pytest
import toys

ROOT = Path(__file__).parents[2]
SECONDS = 60
HIGHEST = toys.CLASSES[toys.specified(2).int().argmax()]  # on the third image
SOURCE = f"""\
import sys
sys.path[:0] = [{str(ROOT)!r}, "."]
import toys
from tkmia_utils.explorer.widget import Explorer
explorer = Explorer(toys.toy_recordings()[:3], toys.toy_session(seconds=0.03))
explorer
"""


@pytest.fixture(scope="module")
def lab(browser, tmp_path_factory) -> Iterator[str]:
    """Address of a JupyterLab of its own, with one small notebook and nothing of this user's."""
    pytest.importorskip("jupyterlab", reason="JupyterLab is not installed")
    folder = tmp_path_factory.mktemp("lab")
    shutil.copy(Path(__file__).parent / "toys.py", folder)
    cells = [nbformat.v4.new_code_cell(SOURCE), nbformat.v4.new_code_cell("")]
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=kernel), folder / "toy.ipynb")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    own = {f"JUPYTER_{name}_DIR": str(folder / name) for name in ("CONFIG", "DATA", "RUNTIME")}
    places = {"JUPYTERLAB_SETTINGS_DIR": "settings", "JUPYTERLAB_WORKSPACES_DIR": "workspaces"}
    own |= {name: str(folder / place) for name, place in places.items()}
    own |= {"IPYTHONDIR": str(folder / "ipython"), "OMP_NUM_THREADS": "1"}
    command = [
        *(sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ip=127.0.0.1"),
        *(f"--port={port}", "--ServerApp.port_retries=0", "--IdentityProvider.token="),
        *("--ServerApp.password=", f"--ServerApp.root_dir={folder}"),
        "--LabApp.news_url=None",
        "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
    ]
    log = (folder / "server.log").open("w")
    server = subprocess.Popen(
        command, stdout=log, stderr=log, env={**os.environ, **own}, start_new_session=True
    )
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(2 * SECONDS):
            with suppress(OSError):
                urllib.request.urlopen(f"{address}/api", timeout=5).close()
                break
            time.sleep(0.5)
        else:
            pytest.fail((folder / "server.log").read_text()[-2000:])
        yield address
    finally:
        server.terminate()
        try:
            server.wait(20)
        except subprocess.TimeoutExpired:
            server.kill()
        log.close()


@pytest.fixture(scope="module")
def opened(browser, lab):
    """The notebook, its first cell run and the explorer there."""
    from playwright.sync_api import TimeoutError

    page = browser.new_page(viewport={"width": 1400, "height": 1000})
    page.set_default_timeout(SECONDS * 1000)
    page.goto(f"{lab}/lab/tree/toy.ipynb?reset")
    page.locator(".jp-Notebook .jp-CodeCell").first.wait_for()
    page.locator(".jp-Notebook-ExecutionIndicator[data-status=idle]").wait_for()
    for _ in range(SECONDS // 10):  # the first key may come before the kernel
        page.locator(".jp-Notebook .jp-CodeCell .jp-InputArea-editor").first.click()
        page.keyboard.press("Shift+Enter")
        with suppress(TimeoutError):
            page.locator(".tkx-state").first.wait_for(timeout=10_000)
            break
    yield page
    page.close()


def state(page, side: str = "Left") -> str:
    return page.get_by_role("article", name=f"{side} attack").locator(".tkx-state").inner_text()


def python(page, code: str) -> str:
    """What the kernel prints; in the notebook's second cell."""
    cell = page.locator(".jp-Notebook .jp-CodeCell").nth(1)
    cell.locator(".cm-content").click()
    page.keyboard.press("Control+a")
    page.keyboard.insert_text(f'print("<<", {code}, ">>")')
    page.keyboard.press("Control+Enter")
    found = cell.locator(".jp-OutputArea-output", has_text=">>")
    page.wait_for_timeout(1500)  # an older output may stand there until the new one comes
    found.wait_for()
    return found.inner_text().strip().removeprefix("<<").removesuffix(">>").strip()


def until(value: Callable[[], float], *, least: float) -> float:
    """Wait until a number is large enough."""
    for _ in range(5 * SECONDS):
        if value() >= least:
            return value()
        time.sleep(0.2)
    raise AssertionError(f"still {value()}")


def message(page, text: str) -> None:
    page.locator(".tkx-message", has_text=text).wait_for()


def test_the_keyboard_moves_the_step_and_not_the_cells_of_the_notebook(opened):
    opened.get_by_role("slider").focus()
    for key in ("ArrowRight", "ArrowUp", "ArrowRight", "ArrowDown", "ArrowLeft"):
        opened.keyboard.press(key)
    assert state(opened).startswith("TkMIA, step 1 of ")
    assert opened.evaluate("document.activeElement.type") == "range"
    opened.keyboard.press("End")
    assert "hidden; TkAcc" in state(opened)
    assert "step 12 of 12" in opened.get_by_role("slider").get_attribute("aria-valuetext")
    opened.keyboard.press("Home")
    assert state(opened).startswith("TkMIA, step 0 of ") and "has rank 1, seen" in state(opened)


def test_the_kernel_knows_the_step_and_sets_it(opened):
    opened.get_by_role("slider").focus()
    for _ in range(5):
        opened.keyboard.press("ArrowRight")
    opened.wait_for_timeout(500)
    assert python(opened, "explorer.step") == "5"
    assert python(opened, "setattr(explorer, 'step', 3)") == "None"
    assert state(opened).startswith("TkMIA, step 3 of ")


def fill(page, *, steps: int, method: str, stop: str) -> None:
    form = page.locator(".tkx-new")
    if not form.evaluate("e => e.open"):
        form.locator("summary").focus()
        page.keyboard.press("Enter")
    form.get_by_label("Image").select_option("third")
    for box in form.get_by_role("group", name="Hide").get_by_role("checkbox").all():
        box.set_checked(box.get_attribute("value") == HIGHEST)
    form.get_by_label("Method").select_option(method)
    form.get_by_label("Stop").select_option(stop)
    form.get_by_label("k", exact=True).fill("2")
    form.get_by_label("Most steps").fill(str(steps))


def test_an_attack_that_is_cancelled_leaves_the_explorer_as_it_was(opened):
    before = len(opened.get_by_role("group", name="Image and labels").locator("option").all())
    fill(opened, steps=500, method="tkmia_min", stop="imperceptible")
    opened.get_by_role("button", name="Attack").focus()
    opened.keyboard.press("Enter")
    opened.locator(".tkx-run", has_text="of at most 500").wait_for()
    message(opened, "Attacking")
    bar = opened.locator(".tkx-run progress")
    taken = until(lambda: bar.evaluate("e => e.value"), least=4)
    assert taken < 500
    opened.get_by_role("button", name="Cancel").focus()
    opened.keyboard.press("Space")
    message(opened, "Cancelled: nothing was recorded.")
    after = opened.get_by_role("group", name="Image and labels").locator("option").all()
    assert len(after) == before
    assert python(opened, "explorer.state, len(explorer.recordings)") == "idle 3"


def test_a_new_attack_is_shown_and_kept(opened):
    fill(opened, steps=60, method="ml_cw_u", stop="excluded")
    opened.get_by_role("button", name="Attack").focus()
    opened.keyboard.press("Enter")
    message(opened, "ML-CW-U ended after")
    assert state(opened).startswith("ML-CW-U, step 0 of ")
    image = opened.get_by_role("group", name="Image and labels").get_by_label("Image")
    assert image.evaluate("e => e.value") == "third"
    told = python(opened, "len(explorer.recordings), explorer.recordings[-1]['method']")
    assert told == "4 ml_cw_u"
    opened.get_by_role("slider").focus()
    opened.keyboard.press("End")
    assert "hidden; TkAcc" in state(opened)


def test_a_wish_that_cannot_be_granted_is_answered(opened):
    fill(opened, steps=60, method="tkmia", stop="excluded")
    opened.locator(".tkx-new").get_by_label("k", exact=True).fill("6")
    opened.get_by_role("button", name="Attack").click()
    message(opened, "Not possible: k:")
    assert python(opened, "explorer.state") == "idle"


def test_the_explorer_is_dark_where_jupyterlab_is(opened):
    shade = "e => getComputedStyle(e).backgroundColor"
    light = opened.locator(".tkx").evaluate(shade)
    opened.evaluate("document.body.dataset.jpThemeLight = 'false'")
    scheme = opened.locator(".tkx").evaluate("e => getComputedStyle(e).colorScheme")
    assert (light, scheme) == ("rgb(255, 255, 255)", "dark")
    opened.evaluate("document.body.dataset.jpThemeLight = 'true'")
