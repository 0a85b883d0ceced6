"""Promises of the explorer in a page without a kernel, seen in a browser."""

import json
import re

import pytest
from toys import toy_recordings

from tkmia_utils.explorer.page import embed, static_page
from tkmia_utils.explorer.recording import picture
from tkmia_utils.explorer.widget import first_pair

PIXELS = "e => [...e.getContext('2d').getImageData(0, 0, e.width, e.height).data]"


@pytest.fixture(scope="module")
def recordings() -> list[dict]:
    return toy_recordings()


@pytest.fixture(scope="module")
def address(recordings, tmp_path_factory) -> str:
    """A page as a file, opened as one opens files."""
    file = tmp_path_factory.mktemp("page") / "page.html"
    file.write_text(static_page(recordings), encoding="utf-8")
    return file.as_uri()


@pytest.fixture
def pair(recordings) -> tuple[dict, dict]:
    """The two attacks with which the page opens."""
    left, right = ({r["id"]: r for r in recordings}[name] for name in first_pair(recordings))
    assert (left["name"], right["name"]) == ("TkMIA", "ML-CW-U")
    return left, right


@pytest.fixture
def opened(page, address):
    requests: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    page.goto(address)
    page.get_by_role("slider").wait_for()
    yield page
    outside = [url for url in requests if not url.startswith((address, "blob:", "data:"))]
    assert outside == []


def state(page, side: str = "Left") -> str:
    return page.get_by_role("article", name=f"{side} attack").locator(".tkx-state").inner_text()


def test_arrow_keys_home_and_end_move_the_step_and_the_text_says_where(opened, pair):
    one, k = pair[0], pair[0]["k"]
    last = len(one["l2"]) - 1
    slider = opened.get_by_role("slider")
    slider.focus()
    opened.keyboard.press("ArrowRight")
    opened.keyboard.press("ArrowRight")
    opened.keyboard.press("ArrowLeft")
    (c,) = one["specified"]
    rank, name = one["ranks"][1][c], one["classes"][c]
    seen = "hidden" if rank > k else "seen"
    p = one["measures"]["P@k"]
    told = state(opened)
    assert told.startswith(f"TkMIA, step 1 of {last}: {name} has rank {rank}, {seen}; ")
    assert f"P@{k} {p[1]:.2f}, was {p[0]:.2f}" in told
    longest = max(len(r["l2"]) for r in pair) - 1
    assert slider.get_attribute("aria-valuetext") == f"step 1 of {longest}"
    opened.keyboard.press("End")
    rank = one["ranks"][-1][c]
    assert f"step {last} of {last}" in state(opened)
    assert f"{name} has rank {rank}, hidden" in state(opened)
    opened.keyboard.press("Home")
    assert state(opened).startswith(f"TkMIA, step 0 of {last}: {name} has rank 1, seen")


def test_a_screen_reader_is_told_when_the_slider_rests(opened):
    opened.get_by_role("slider").focus()
    opened.keyboard.press("End")
    told = opened.locator("p[aria-live=polite]")
    opened.wait_for_function(
        "document.querySelector('p[aria-live]').textContent.includes('hidden')"
    )
    assert "TkMIA, step" in told.text_content() and "ML-CW-U, step" in told.text_content()


def test_all_that_is_shown_moves_with_the_step(opened, pair):
    """List, measures, pictures: of the last step after End."""
    opened.get_by_role("slider").focus()
    opened.keyboard.press("End")
    one, left = pair[0], opened.get_by_role("article", name="Left attack")
    best = one["classes"][one["ranks"][-1].index(1)]
    items = left.get_by_role("list").first.get_by_role("listitem")
    assert items.count() == one["k"] and best in items.first.inner_text()
    assert "relevant" in items.first.inner_text() and "●" in items.first.inner_text()
    row = left.get_by_role("row", name=re.compile("^AP@")).inner_text()
    assert f"{one['measures']['AP@k'][-1]:.2f}" in row and "=" in row
    last, (image, perturbation) = len(one["l2"]) - 1, picture(one, len(one["l2"]) - 1)
    for name, wanted in ((f"first at step {last}", image), ("Perturbation at", perturbation)):
        pixels = (wanted * 255).round().int().permute(1, 2, 0).flatten().tolist()
        shown = left.get_by_role("img", name=name).evaluate(PIXELS)
        assert [value for i, value in enumerate(shown) if i % 4 < 3] == pixels
    assert "rank" in left.get_by_role("img", name="Rank of every label").get_attribute("aria-label")


def test_the_tab_key_alone_reaches_every_control(opened):
    reached = set()
    opened.locator("body").click(position={"x": 1, "y": 1})
    for _ in range(40):
        opened.keyboard.press("Tab")
        reached.add(
            opened.evaluate(
                """() => {
                  const at = document.activeElement;
                  const label = at.labels?.[0]?.textContent ?? at.textContent;
                  const side = at.closest('[role=group]')?.getAttribute('aria-label') ?? '';
                  return `${side} ${at.getAttribute('aria-label') ?? label}`.trim();
                }"""
            )
        )
    sides = ("Left attack", "Right attack")
    runs = {f"{side} {name}" for side in sides for name in ("Method", "Stop", "Pixels")}
    scene = {f"Image and labels {name}" for name in ("Image", "Hide", "k")}
    steps = {"Step", "One step back", "One step on", "Every step as a table"}
    assert runs | scene | steps <= reached


def test_only_recorded_combinations_can_be_chosen(opened, recordings):
    scene = opened.get_by_role("group", name="Image and labels")
    assert scene.get_by_label("k", exact=True).locator("option").all_inner_texts() == ["2", "3"]
    assert scene.get_by_label("k", exact=True).input_value() == "3"
    scene.get_by_label("Image").select_option("second")
    assert scene.get_by_label("k", exact=True).locator("option").all_inner_texts() == ["2"]
    right = opened.get_by_role("group", name="Right attack")
    method = right.get_by_label("Method")
    assert method.locator("option").all_inner_texts() == ["none", "TkMIA", "ML-CW-U", "TkMIA-min"]
    method.focus()
    opened.keyboard.press("ArrowDown")
    assert state(opened, "Right").startswith("TkMIA-min, step 0 of 40")
    assert opened.evaluate("document.activeElement.selectedOptions[0].textContent") == "TkMIA-min"
    stop = right.get_by_label("Stop").locator("option")
    assert stop.all_inner_texts() == ["and no measure lower"]
    last = recordings[8]
    told = opened.get_by_role("article", name="Right attack").inner_text()
    assert f"gives back is that of step {last['result']}" in told


def test_one_attack_can_be_shown_alone(opened):
    right = opened.get_by_role("group", name="Right attack")
    right.get_by_label("Method").select_option(label="none")
    assert opened.locator(".tkx-state").count() == 1
    right.get_by_label("Method").select_option(label="TkMIA")
    assert opened.locator(".tkx-state").count() == 2


def test_every_step_stands_in_a_table_too(opened, pair):
    left = opened.get_by_role("article", name="Left attack")
    left.get_by_text("Every step as a table").click()
    rows = left.get_by_role("region").get_by_role("row")
    rows.first.wait_for()
    assert rows.count() == len(pair[0]["l2"]) + 1


def test_without_a_kernel_new_attacks_are_not_offered_and_the_page_says_why(opened):
    assert opened.get_by_text("New attacks need a running kernel").is_visible()
    assert opened.get_by_role("button", name="Attack").count() == 0


@pytest.mark.parametrize(
    ("scheme", "paper", "ink"),
    [
        ("light", "rgb(255, 255, 255)", "rgb(27, 27, 27)"),
        ("dark", "rgb(20, 24, 30)", "rgb(236, 236, 236)"),
    ],
)
def test_light_and_dark_are_those_of_the_reader(opened, scheme, paper, ink):
    opened.emulate_media(color_scheme=scheme)
    colours = "e => [getComputedStyle(e).backgroundColor, getComputedStyle(e).color]"
    assert opened.locator(".tkx").evaluate(colours) == [paper, ink]
    # a page that says which goes first
    other = {"light": "dark", "dark": "light"}[scheme]
    opened.evaluate(f"document.documentElement.dataset.theme = '{other}'")
    assert opened.locator(".tkx").evaluate(colours) != [paper, ink]


def test_on_a_phone_all_stands_in_one_column_and_nothing_is_cut_off(opened):
    place = "e => e.getBoundingClientRect().x"
    sides = [opened.get_by_role("article", name=f"{s} attack") for s in ("Left", "Right")]
    assert sides[0].evaluate(place) < sides[1].evaluate(place)
    opened.set_viewport_size({"width": 390, "height": 800})
    assert sides[0].evaluate(place) == sides[1].evaluate(place)
    assert opened.evaluate("document.documentElement.scrollWidth") == 390


def test_text_from_outside_stays_text(page, recordings, tmp_path):
    evil = "</script><img src=x onerror=document.title='hurt'>"
    one = json.loads(json.dumps(recordings[0]))
    one |= {"classes": [evil, *one["classes"][1:]], "image": evil, "id": evil}
    file = tmp_path / "page.html"
    file.write_text(static_page([one], title=evil), encoding="utf-8")
    page.goto(file.as_uri())
    page.get_by_role("slider").wait_for()
    assert page.title() == evil


def test_a_page_without_recordings_says_so(page, tmp_path):
    file = tmp_path / "page.html"
    file.write_text(f"<!doctype html><title>none</title>{embed([])}", encoding="utf-8")
    page.goto(file.as_uri())
    page.get_by_text("Nothing is recorded.").wait_for()
    assert not page.get_by_role("slider").is_visible()
