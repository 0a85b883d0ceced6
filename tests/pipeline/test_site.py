"""The site of a run: built whole, read page by page, and looked at in a browser."""

import base64
import importlib.util
import io
import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from nbformat.v4 import new_output
from PIL import Image

from tkmia_utils.pipeline import runner

ROOT = Path(__file__).parents[2]
LOADS = {"script": "src", "img": "src", "link": "href", "source": "src", "iframe": "src"}
RAW = re.compile(r"\$[^$\n]{1,80}\$|\\(?:frac|lambda|sum|max|min|text|operatorname)\b")

pytestmark = pytest.mark.notebook
pytest.importorskip("myst_nb", reason="the extra 'site' is not installed")


class Page(HTMLParser):
    """What a page links, loads, shows and says."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.ids: set[str] = set()
        self.links: list[str] = []
        self.loads: list[str] = []
        self.textless: list[str] = []
        self.formulas = 0
        self.text: list[str] = []
        self.inside: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        self.ids |= {found[name] for name in ("id", "name") if found.get(name)}
        self.formulas += tag == "math"
        if tag == "a" and found.get("href"):
            self.links.append(found["href"])
        if found.get(LOADS.get(tag, "")):
            self.loads.append(found[LOADS[tag]])
        if tag == "img" and not (found.get("alt") or "").strip():
            self.textless.append(found.get("src", ""))
        if tag in ("pre", "code", "script", "style", "math"):
            self.inside.append(tag)

    def handle_endtag(self, tag):
        if self.inside and self.inside[-1] == tag:
            self.inside.pop()

    def handle_data(self, data):
        if not self.inside:
            self.text.append(data)


@pytest.fixture(scope="module")
def site(workshop, tmp_path_factory) -> Path:
    spec = importlib.util.spec_from_file_location("make_site", ROOT / "docs" / "make_site.py")
    make_site = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(make_site)
    assert runner.main(["--profile", "smoke", "--root", str(workshop)]) == 0
    out = tmp_path_factory.mktemp("site") / "html"
    run = ["--run", str(workshop / "runs" / "smoke"), "--out", str(out)]
    assert make_site.main(run) == 0, "Sphinx warns of something"
    return out


@pytest.fixture(scope="module")
def pages(site) -> dict[str, Page]:
    """All pages; what the theme brings in its own folder is none."""
    names = [path.relative_to(site).as_posix() for path in site.rglob("*.html")]
    return {name: Page(site / name) for name in names if not name.startswith("_static")}


def test_every_lesson_is_a_page_with_its_downloads(site, pages):
    for path in (ROOT / "notebooks").glob("*.ipynb"):
        page = pages[f"notebooks/{path.stem}.html"]
        assert f"../_static/downloads/{path.name}" in page.links
        assert any("_static/figures" in load for load in page.loads)
    for name in ("index", "lessons", "docs/glossary", "docs/course", "docs/api", "search"):
        assert f"{name}.html" in pages


def test_no_link_is_broken(site, pages):
    broken = []
    for name, page in pages.items():
        for link in [*page.links, *page.loads]:
            parts = urlsplit(link)
            if parts.scheme:
                continue
            target = (site / name).parent / unquote(parts.path) if parts.path else site / name
            if not target.exists():
                broken.append((name, link))
                continue
            there = target.resolve().relative_to(site.resolve()).as_posix()
            if parts.fragment and there in pages and parts.fragment not in pages[there].ids:
                broken.append((name, link))
    assert broken == []


def test_nothing_is_loaded_from_elsewhere(pages):
    loads = [(name, load) for name, page in pages.items() for load in page.loads]
    outside = [(n, load) for n, load in loads if urlsplit(load).scheme in ("http", "https")]
    assert outside == [] and not any(load.startswith("//") for _, load in loads)


def test_every_picture_has_a_text_and_every_formula_is_set(pages):
    assert [(name, src) for name, page in pages.items() for src in page.textless] == []
    raw = [
        (name, found[0])
        for name, page in pages.items()
        for t in page.text
        if (found := RAW.search(t))
    ]
    assert raw == []
    assert pages["notebooks/02_lemma.html"].formulas > 50


def test_a_figure_without_a_text_is_refused(tmp_path):
    spec = importlib.util.spec_from_file_location("make_site", ROOT / "docs" / "make_site.py")
    make_site = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(make_site)
    file = io.BytesIO()
    Image.new("L", (2, 1)).save(file, "png")
    pixel = base64.b64encode(file.getvalue()).decode()
    output = new_output("display_data", data={"image/png": pixel})
    (tmp_path / "figures").mkdir()
    with pytest.raises(ValueError, match="a figure without a text"):
        make_site.shown([output], [], name="lesson-1", static=tmp_path)
    (kept,) = make_site.shown([output], ['a "dot"'], name="lesson-1", static=tmp_path)
    assert 'alt="a &quot;dot&quot;"' in kept.data["text/html"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_browser_shows_every_page_without_an_error_a_request_or_a_scroll_bar(
    site, pages, browser, scheme
):
    context = browser.new_context(viewport={"width": 390, "height": 844}, color_scheme=scheme)
    tab, faults = context.new_page(), []
    tab.on("request", lambda r: r.url.startswith("http") and faults.append(("request", r.url)))
    tab.on("pageerror", lambda e: faults.append(("error", str(e))))
    tab.on("console", lambda m: m.type == "error" and faults.append(("console", m.text)))
    for name in pages:
        tab.goto((site / name).as_uri())
        wide = tab.evaluate("document.documentElement.scrollWidth - window.innerWidth")
        if wide > 0:
            faults.append((name, f"{wide} pixels too wide"))
        seen = tab.evaluate("getComputedStyle(document.body).backgroundColor")
        light = sum(int(v) for v in re.findall(r"\d+", seen)[:3]) > 380
        if light != (scheme == "light"):
            faults.append((name, f"background {seen}"))
        broken = "[...document.images].filter(i => i.complete && !i.naturalWidth).map(i => i.src)"
        faults += [(name, src) for src in tab.evaluate(broken)]
    context.close()
    assert faults == []


def test_the_search_finds_a_word_by_keyboard(site, browser):
    context = browser.new_context(viewport={"width": 1200, "height": 900})
    tab = context.new_page()
    tab.goto((site / "index.html").as_uri())
    tab.keyboard.press("Control+k")
    tab.keyboard.type("subgradient")
    tab.keyboard.press("Enter")
    tab.wait_for_selector("#search-results li a")
    assert "lemma" in tab.inner_text("#search-results").lower()
    context.close()
