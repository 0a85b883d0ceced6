"""Promises about the repository itself: dependencies, layering, notebooks."""

import ast
import json
import re
import tomllib
from graphlib import TopologicalSorter
from itertools import chain
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

from tkmia_utils import paper, workspace
from tkmia_utils.pipeline import record

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
# The rooms of the package, floor by floor from the ground: a module or a folder of modules. What a
# room imports stands on a lower floor. README.md draws the same.
FLOORS = [
    ["validation", "files", "exact", "interruption"],
    ["topk", "hashing", "tensor_file"],
    ["measures", "losses", "workspace"],
    ["condition"],
    ["attacks", "data", "monitor"],
    ["engine", "victims"],
    ["defence"],
    ["experiments"],
    ["report"],
    ["explorer", "paper"],
    ["course"],
    ["pipeline"],
]
PACKAGE = ROOT / "tkmia_utils"
MODULES = {
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(PACKAGE.glob("**/*.py"))
    if path != PACKAGE / "__init__.py"  # the package's face, for those outside
}


def pyproject() -> dict[str, Requirement]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = list(chain(project["dependencies"], *project["optional-dependencies"].values()))
    return {r.name: r for r in map(Requirement, lines)}


def test_environment_yml_says_what_pyproject_says():
    entries = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    pip = next(e["pip"] for e in entries if isinstance(e, dict))
    lines = [e for e in [*entries, *pip] if isinstance(e, str) and not e.startswith("--")]
    found = {r.name: r for r in map(Requirement, lines)}
    python = found.pop("python")
    found.pop("pip")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert str(python.specifier) == project["requires-python"]
    assert {n: r.specifier for n, r in found.items()} == {
        n: r.specifier for n, r in pyproject().items()
    }


def test_constraints_pin_every_dependency_to_a_version_pyproject_allows():
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = [Requirement(line) for line in lines if line and not line.startswith("#")]
    allowed = pyproject()
    assert {pin.name for pin in pins} == set(allowed)
    for pin in pins:
        (version,) = [s.version for s in pin.specifier if s.operator == "=="]
        assert allowed[pin.name].specifier.contains(version), pin


def imported(path: Path) -> set[str]:
    """What a module imports from the package, anywhere in it: "topk.ranks", "data.base", "data"."""
    names = []
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            node.body = [ast.Pass()]  # a name for a type is no import when the program runs
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: an import is written in full"
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    inside = {name for name in names if name.split(".")[0] == "tkmia_utils"}
    return {name.removeprefix("tkmia_utils").removeprefix(".") for name in inside}


def test_every_room_stands_on_one_floor():
    rooms = [room for floor in FLOORS for room in floor]
    assert sorted(rooms) == sorted({name.split(".")[0] for name in MODULES})


@pytest.mark.parametrize("module", MODULES)
def test_an_import_points_to_a_lower_floor(module):
    height = {room: i for i, floor in enumerate(FLOORS) for room in floor}
    room = module.split(".")[0]
    for name in imported(MODULES[module]):
        other = name.split(".")[0]
        assert other in height, f"{module} imports {name or 'the whole package'}"
        assert other == room or height[other] < height[room], f"{module} imports {name}"


def test_imports_make_no_circle_within_a_room_either():
    graph = {}
    for module, path in MODULES.items():
        names = {n if n in MODULES else n.rpartition(".")[0] for n in imported(path)}
        assert names <= MODULES.keys(), f"{module}: {names - MODULES.keys()}"
        graph[module] = names
    TopologicalSorter(graph).prepare()  # raises CycleError, and names the circle


def test_the_package_needs_neither_its_tests_nor_its_benchmarks():
    outside = re.compile(r"(?m)^\s*(from|import) (tests|benchmarks)\b")
    assert not [name for name, path in MODULES.items() if outside.search(path.read_text())]


@pytest.mark.parametrize("module", MODULES)
def test_a_module_stays_small(module):
    assert len(MODULES[module].read_text(encoding="utf-8").splitlines()) <= 400


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_a_notebook_is_a_lesson_without_outputs(path):
    notebook = json.loads(path.read_text())
    code = [c for c in notebook["cells"] if c["cell_type"] == "code"]
    tagged = [c for c in code if "parameters" in c["metadata"].get("tags", [])]
    assert len(tagged) == 1
    for line in "".join(tagged[0]["source"]).splitlines():
        assert "#" in line, f"no comment: {line}"
    for statement in ast.parse("".join(tagged[0]["source"])).body:
        assert isinstance(statement, ast.Assign)
        ast.literal_eval(statement.value)
    for cell in code:
        text = "".join(cell["source"])
        assert cell["outputs"] == [] and cell["execution_count"] is None
        assert len(text.splitlines()) <= 25
        assert not re.search(r"sys\.path|[!%]pip|[\"']/[a-z]+/", text)


def test_the_readme_links_every_notebook():
    readme = (ROOT / "README.md").read_text()
    missing = [path.name for path in NOTEBOOKS if f"notebooks/{path.name}" not in readme]
    assert not missing


def test_no_committed_figure_is_older_than_what_makes_it():
    """Made anew by `make reproduce`: the notebook, the modules and the paper's tables all count."""
    assert workspace.stale(ROOT, "quick") == []
    text = (ROOT / "figures" / "quick" / workspace.MANIFEST).read_text(encoding="utf-8")
    listed = json.loads(text)
    assert {entry["notebook"] for entry in listed.values()} == {path.stem for path in NOTEBOOKS}
    told = {
        e["parameters"].get("tables") for e in listed.values() if e["notebook"].startswith("09")
    }
    assert told == {paper.fingerprint(ROOT)}


def test_every_committed_figure_is_listed():
    folder = ROOT / "figures" / "quick"
    listed = json.loads((folder / workspace.MANIFEST).read_text(encoding="utf-8"))
    there = {path.name for path in folder.iterdir() if not path.name.startswith(".")}
    assert there == {*listed, workspace.MANIFEST, record.ABOUT}


def test_the_record_is_small_since_every_new_one_stays_in_the_history():
    files = [path for path in (ROOT / "figures").rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 5_000_000
