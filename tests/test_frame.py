"""Promises about the repository itself: dependencies, layering, notebooks."""

import ast
import json
import re
import tomllib
from itertools import chain
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

from tkmia_utils import paper, workspace
from tkmia_utils.pipeline import record

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
FLOORS = [
    ["validation", "files", "interruption", "exact", "pipeline.pace", "hashing"],
    ["topk", "measures", "ranking"],
    ["losses", "experiments.selection"],
    ["attacks"],
    ["engine.arguments", "engine.result", "engine.images", "engine.forward", "engine.checkpoint"],
    ["engine.slots"],
    ["engine.loop"],
    ["workspace"],
    ["data"],
    ["victims.backbones", "victims.recipes"],
    ["victims.prediction"],
    ["victims.training"],
    ["victims.store"],
    ["experiments.protocol", "experiments.lab"],
    [
        "report.tables",
        "experiments.campaign",
        "experiments.tuning",
        "paper.polytope",
        "paper.tables",
    ],
    ["experiments.examples"],
    ["paper.audit", "paper.comparison"],
    ["paper.claims"],
    ["report.figures"],
    ["paper.figures", "report.gallery", "report.exchange"],
    ["pipeline.profile", "pipeline.cost", "pipeline.inputs", "pipeline.execution"],
    ["pipeline.record"],
    ["pipeline.compare"],
    ["pipeline.compare_report"],
    ["pipeline.runner", "pipeline.train_victim", "experiments.cluster", "report.slider"],
]


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


def floor(module: str) -> int:
    """Of the longest part of the name that is listed; a whole package is as high as its highest."""
    name = module.removeprefix("tkmia_utils.")
    while name:
        found = [
            i for i, modules in enumerate(FLOORS) for r in modules if f"{r}.".startswith(f"{name}.")
        ]
        if found:
            return max(found)
        name = name.rpartition(".")[0]
    raise AssertionError(f"{module} stands on no floor")


@pytest.mark.parametrize("path", sorted((ROOT / "tkmia_utils").glob("**/*.py")), ids=str)
def test_an_import_never_points_up_and_a_room_stays_small(path):
    text = path.read_text()
    assert len(text.splitlines()) <= 400
    parts = path.relative_to(ROOT).with_suffix("").parts
    if parts == ("tkmia_utils", "__init__"):
        return
    here = floor(".".join(parts).removesuffix(".__init__").removesuffix(".__main__"))
    for node in ast.walk(ast.parse(text)):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{a.name}" for a in node.names]
        for name in names:
            if name.startswith("tkmia_utils."):
                assert floor(name) <= here, f"{'.'.join(parts)} imports {name}"


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
    assert there - {record.ABOUT} == {*listed, workspace.MANIFEST}
