"""Promises of the files that others' machines read: the workflow and the container."""

import json
import re
import subprocess
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
WORKFLOW = ROOT / ".github" / "workflows" / "notebooks.yml"
CONTAINER = ROOT / ".devcontainer" / "devcontainer.json"


def steps() -> list[dict]:
    (job,) = yaml.safe_load(WORKFLOW.read_text())["jobs"].values()
    return job["steps"]


def command(name: str) -> str:
    return next(step["run"] for step in steps() if step.get("name") == name)


def targets() -> set[str]:
    return set(re.findall(r"(?m)^([a-z]+):", (ROOT / "Makefile").read_text()))


def test_workflow_and_container_call_targets_that_exist():
    said = " ".join(step.get("run", "") for step in steps())
    container = json.loads(CONTAINER.read_text())
    said += " ".join(container[name] for name in ("postCreateCommand", "postAttachCommand"))
    assert set(re.findall(r"make ([a-z]+)", said)) == {"setup", "lab"} <= targets()
    assert (CONTAINER.parent / container["build"]["dockerfile"]).is_file()


@pytest.mark.parametrize(
    ("only", "given", "wanted"),
    [
        ("", "", []),
        ("01_measures 02_lemma", "", ["--only", "01_measures", "02_lemma"]),
        ("03_data", "seed=3 n_val=100", ["--only", "03_data", "--set", "seed=3", "n_val=100"]),
    ],
)
def test_the_workflow_hands_its_inputs_to_the_pipeline(tmp_path, only, given, wanted):
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    python = tmp_path / ".venv" / "bin" / "python"
    python.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    python.chmod(0o755)
    asked = {"PATH": "/usr/bin:/bin", "PROFILE": "smoke", "ONLY": only, "SET": given}
    told = subprocess.run(
        ["bash", "-e", "-c", command("Notebooks")],
        cwd=tmp_path, env=asked, capture_output=True, text=True, check=True,
    )  # fmt: skip
    start = ["-m", "tkmia_utils.pipeline", "--profile", "smoke"]
    assert told.stdout.split("\n")[:-1] == [*start, *wanted]


def test_the_environment_is_cached_by_all_that_decides_it():
    (cache,) = [step for step in steps() if "actions/cache" in step.get("uses", "")]
    assert "hashFiles('pyproject.toml', 'constraints.txt')" in cache["with"]["key"]
    assert cache["with"]["path"] == ".venv"


def test_what_a_run_makes_comes_back_even_if_it_failed():
    (upload,) = [step for step in steps() if "upload-artifact" in step.get("uses", "")]
    assert upload["if"] == "always()" and "figures" in upload["with"]["path"]
