"""README and docs name nothing that is gone; the API page is what the docstrings say."""

import ast
import re
import runpy
import subprocess
from pathlib import Path
from pkgutil import resolve_name

import pytest
from test_frame import FLOORS

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "tkmia_utils"
PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")]
PAGES += sorted([*ROOT.glob("docs/*.md"), *ROOT.glob("data/**/README.md")])
SUFFIXES = "py|md|ipynb|csv|yaml|yml|toml|txt|json|cff"
PATH = re.compile(rf"(\.?[A-Za-z][\w-]*/)+([\w.-]+)?|\.?[\w-]+\.({SUFFIXES})")
# Made by a run, by the reader, or part of a benchmark's own layout.
ELSEWHERE = re.compile(
    r"(runs|cache|\.venv|photos|train)/|data/(voc|coco|nus)\b|(manifest|record|run)\.json|"
    r"(train|val)\.csv|(VOCdevkit|ImageSets|Annotations|JPEGImages|annotations|train2014|val2014|"
    r"ImageList|Groundtruth|ConceptsList|Flickr)/|Concepts81\.txt|"
    r"(students|teacher|submissions|grades)/|(lab|homework|exam|syllabus|marking_guide|report)\.md|"
    r"grades\.csv|results\.json|/"
)


def code(text: str) -> list[str]:
    """What stands in code blocks and between backquotes."""
    blocks = re.findall(r"(?ms)^```\w*\n(.*?)^```", text)
    rest = re.sub(r"(?ms)^```.*?^```", "", text)
    return blocks + re.findall(r"`([^`]+)`", rest)


def paths(text: str) -> set[str]:
    """Every path-like word of a page's code that should exist here."""
    words = {w.rstrip(".:") for part in code(text) for w in re.split(r"[\s\"'(),;=\[\]|]+", part)}
    return {w for w in words if PATH.fullmatch(w) and not ELSEWHERE.match(w)}


def links(text: str) -> list[str]:
    """Targets of links and pictures that are not on the web."""
    return [t for t in re.findall(r"\]\(([^)\s]+)\)", text) if not t.startswith("http")]


def anchors(text: str) -> set[str]:
    heads = re.findall(r"(?m)^#+ (.+)$", re.sub(r"(?ms)^```.*?^```", "", text))
    return {re.sub(r"[^\w -]", "", head.lower()).replace(" ", "-") for head in heads}


def defined(name: str) -> bool:
    """Is this a module of the package, or something that one of its modules binds?"""
    path, rest = ROOT, name.split(".")
    while rest and ((path / rest[0]).is_dir() or (path / f"{rest[0]}.py").is_file()):
        path /= rest.pop(0)
    file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    if not rest:
        return file.is_file()
    bound: set[str] = set()
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            bound.add(node.name)
        elif isinstance(node, ast.ImportFrom):
            bound |= {alias.asname or alias.name for alias in node.names}
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            bound |= {n.id for n in ast.walk(node) if isinstance(n, ast.Name)}
    return rest[0] in bound


def gone(text: str, folder: Path) -> list[str]:
    """What a page in this folder names and nobody finds."""
    missing = [p for p in paths(text) if not any((r / p).exists() for r in (ROOT, folder, PACKAGE))]
    for link in links(text):
        path, _, anchor = link.partition("#")
        target = folder / path if path else None
        if target is not None and not target.exists():
            missing.append(link)
        elif anchor and anchor not in anchors(target.read_text("utf-8") if target else text):
            missing.append(link)
    dotted = set(re.findall(r"\btkmia_utils(?:\.\w+)+", text))
    short = {m for part in code(text) for m in re.findall(r"\bdata\.[a-z_]+\b(?=\()", part)}
    dotted |= {f"tkmia_utils.{name}" for name in short}  # as after `from tkmia_utils import data`
    return sorted([*missing, *(name for name in dotted if not defined(name))])


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_a_page_names_no_path_that_is_gone(page):
    assert gone(page.read_text(encoding="utf-8"), page.parent) == []


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("see `tkmia_utils/methods/tkmia.py`", ["tkmia_utils/methods/tkmia.py"]),
        ("`audit.py` and `topk.py`", ["audit.py"]),
        ("```sh\npython old/run.py\n```", ["old/run.py"]),
        ("[a](docs/old.md), [b](README.md#none)", ["README.md#none", "docs/old.md"]),
        ("`tkmia_utils.methods.build` and `tkmia_utils.topk.ranks`", ["tkmia_utils.methods.build"]),
        ("```python\ndata.load(1)\ndata.gone(2)\n```", ["tkmia_utils.data.gone"]),
        ("`runs/quick/figures`, `1/2 ||eps||^2`, `image,labels`", []),
    ],
)
def test_what_is_gone_is_found(text, wanted):
    assert gone(text, ROOT) == wanted


def tree() -> list[str]:
    """Whole paths of the README's tree."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    block = re.search(r"(?ms)^## Where things are\n+```text\n(.*?)^```", text)
    assert block is not None
    found, parent = [], ""
    for line in block[1].splitlines():
        name = line.split()[0]
        found.append(parent + name if line.startswith(" ") else name)
        parent = parent if line.startswith(" ") else name
    return found


def test_the_readmes_tree_shows_every_folder_once():
    listed = tree()
    assert len(set(listed)) == len(listed)
    made = {"runs/", "cache/"}
    git = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if git.returncode:
        pytest.skip("not a git checkout")
    parts = [line.split("/")[:-1] for line in git.stdout.splitlines() if not line.startswith(".")]
    folders = {f"{p[0]}/" for p in parts if p}
    folders |= {f"tkmia_utils/{p[1]}/" for p in parts if p[:1] == ["tkmia_utils"] and p[1:]}
    assert {name for name in listed if name.endswith("/")} - made == folders - made
    assert [name for name in listed if not (ROOT / name).exists() and name not in made] == []


def test_the_readme_draws_the_floors_that_the_import_test_checks():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    section = text.partition("## How it is built")[2]
    block = re.search(r"(?ms)^```text\n(.*?)^```", section)
    assert block is not None
    drawn = [sorted(line.split()) for line in block[1].splitlines()]
    assert drawn == [sorted(floor) for floor in reversed(FLOORS)]


def test_the_api_page_is_what_the_docstrings_say():
    text = runpy.run_path(str(ROOT / "docs" / "make_api.py"))["page"]()
    assert (ROOT / "docs" / "api.md").read_text(encoding="utf-8") == text, "run make docs"


def test_every_page_is_reached_from_the_readme():
    """By links, page after page."""
    seen, todo = set(), [ROOT / "README.md"]
    while todo:
        page = todo.pop()
        if page not in seen and page.suffix == ".md":
            seen.add(page)
            targets = (link.partition("#")[0] for link in links(page.read_text(encoding="utf-8")))
            todo += [(page.parent / target).resolve() for target in targets if target]
    assert set(PAGES) <= seen


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_prose_is_filled_to_a_hundred_columns(page):
    if page.name == "api.md":
        return  # made by a program, an entry a line
    lines = page.read_text(encoding="utf-8").splitlines()
    assert [s for s in lines if len(s) > 100 and not s.startswith(("|", "!["))] == []


def test_the_api_page_shows_properties_class_methods_and_warnings_as_they_are_used():
    page = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    assert "\nuntouched: torch.Tensor\n" in page
    assert "\nload(path: str | Path) -> 'AttackResult'\n" in page
    assert "**Warns**\n\n- `AttackWarning`: Images that succeed unchanged" in page


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda p: p.stem)
def test_a_docstring_refers_to_nothing_that_is_gone(path):
    text = path.read_text(encoding="utf-8")
    for name in set(re.findall(r":\w+:`~?(tkmia_utils\.[\w.]+)`", text)):
        owner, _, last = name.rpartition(".")
        try:
            resolve_name(name)
        except AttributeError:  # a field of a dataclass is no attribute of the class
            assert last in getattr(resolve_name(owner), "__dataclass_fields__", {}), name
