"""Promises about the record: a run leaves it alone, an update replaces it, the machine is told."""

import json
import platform
import shutil
import socket
import subprocess
from pathlib import Path

import pandas as pd
import pytest
from test_pipeline import PARAMETERS, Root

from tkmia_utils import workspace
from tkmia_utils.pipeline import record
from tkmia_utils.workspace import Workspace

CELL = (
    "import pandas as pd\n"
    "from tkmia_utils.workspace import Workspace\n"
    "lab = Workspace(workspace, profile, '01_a', {'seed': seed})\n"
    "df = pd.DataFrame({'seed': [seed], 'lr': [lr]})"
)
SAVE = "lab.save_table(df, '%s', caption='One.')"


def git(path, *arguments):
    identity = ("-c", "user.name=reader", "-c", "user.email=reader@example.org")
    command = ("git", "-C", str(path), *identity, *arguments)
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def content(folder):
    return {path.name: path.read_bytes() for path in Path(folder).iterdir()}


@pytest.fixture
def root(tmp_path):
    """A git repository with one notebook, and the record of its run committed."""
    root = Root(tmp_path).add("01_a", CELL, SAVE % "seeds", parameters=PARAMETERS)
    shutil.copy(Path(__file__).parents[2] / ".gitignore", tmp_path)
    assert root.run("--update") == 0
    git(tmp_path, "init")
    git(tmp_path, "add", ".")
    git(tmp_path, "add", "--force", "figures/tiny")
    git(tmp_path, "commit", "-m", "first")
    return root


def test_a_run_with_other_numbers_leaves_git_status_clean(root, capsys):
    kept = content(root.path / "figures" / "tiny")
    assert sorted(kept) == ["manifest.json", "record.json", "seeds.csv", "seeds.md"]
    assert root.run("--set", "seed=4") == 0
    assert pd.read_csv(root.runs / "figures" / "seeds.csv")["seed"].tolist() == [4]
    assert content(root.path / "figures" / "tiny") == kept
    assert git(root.path, "status", "--porcelain") == ""
    said = capsys.readouterr().out
    assert "other settings (seed)" in said and str(root.runs / "compare.md") in said


def test_an_update_replaces_the_record_and_removes_what_is_no_longer_made(root, capsys):
    root.add("01_a", CELL, SAVE % "others", parameters=PARAMETERS)
    assert root.run("--set", "seed=4") == 0
    assert "no table in common with the record" in capsys.readouterr().out
    assert (root.path / "figures" / "tiny" / "seeds.csv").is_file()
    assert not (root.runs / "figures" / "seeds.csv").exists()
    (root.runs / "figures" / "by_hand.csv").write_text("x\n1\n")
    assert root.run("--set", "seed=4", "--update") == 0
    now = content(root.path / "figures" / "tiny")
    assert sorted(now) == ["manifest.json", "others.csv", "others.md", "record.json"]
    assert sorted(json.loads(now["manifest.json"])) == ["others.csv", "others.md"]
    assert now["others.csv"] == (root.runs / "figures" / "others.csv").read_bytes()


def test_the_record_stays_when_a_notebook_fails_or_only_some_are_run(root, capsys):
    kept = content(root.path / "figures" / "tiny")
    assert root.run("--update", "--only", "01_a") == 2
    assert "--update: a record is a whole run" in capsys.readouterr().err
    root.add("02_b", "raise KeyError('lost')")
    assert root.run("--update", "--set", "seed=4") == 1
    assert content(root.path / "figures" / "tiny") == kept


def test_a_profile_may_keep_a_record_of_some_tables_without_anybodys_folders(root, capsys):
    root.add("01_a", CELL.replace("{'seed': seed}", "{'seed': seed, 'val_csv': '/home/me/v.csv'}"),
             SAVE % "seeds", SAVE % "private", parameters=PARAMETERS)  # fmt: skip
    root.add("02_b", "raise KeyError('never run')")
    root.profile["record"] = ["seeds.*"]
    assert root.run("--only", "01_a") == 0
    assert f"More: {root.runs / 'figures'}" in capsys.readouterr().out
    assert root.run("--only", "01_a", "--update") == 0
    kept = content(root.path / "figures" / "tiny")
    assert sorted(kept) == ["manifest.json", "record.json", "seeds.csv", "seeds.md"]
    listed = json.loads(kept["manifest.json"])
    assert listed["seeds.csv"]["parameters"] == {"seed": 0, "val_csv": "v.csv"}
    assert not any(b"/home/me" in text for text in kept.values())
    root.profile["record"] = "seeds.*"
    assert root.run("--only", "01_a") == 2
    assert "record: expected a list of patterns" in capsys.readouterr().err


@pytest.fixture
def lab(tmp_path):
    lab = Workspace(tmp_path, "quick", "01_a", {})
    for name in ("one", "two"):
        lab.save_table(pd.DataFrame({"n": [1]}), name, caption=name)
    workspace.write_json(lab.figures / record.ABOUT, {})
    return lab


MADE = ["one.csv", "one.md", "two.csv", "two.md"]


def test_an_update_that_was_killed_is_completed_by_the_next(lab, monkeypatch):
    record.replace(lab.figures, lab.record, made=MADE)
    old = (lab.record / "manifest.json").read_bytes()
    for name in ("one", "two"):
        lab.save_table(pd.DataFrame({"n": [2]}), name, caption=name)
    write, calls = record.write_atomically, []

    def killed(*arguments):
        calls.append(arguments)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return write(*arguments)

    monkeypatch.setattr(record, "write_atomically", killed)
    with pytest.raises(KeyboardInterrupt):
        record.replace(lab.figures, lab.record, made=MADE)
    monkeypatch.undo()
    assert (lab.record / "manifest.json").read_bytes() == old
    assert workspace.stale(lab.root, "quick") != []
    assert content(lab.record) != content(lab.figures)
    record.replace(lab.figures, lab.record, made=MADE)
    assert content(lab.record) == content(lab.figures)
    assert record.replace(lab.figures, lab.record, made=MADE) == 0


def test_an_update_with_a_file_missing_writes_nothing(lab):
    (lab.figures / "two.csv").unlink()
    with pytest.raises(ValueError, match=r"folder: .* lacks two\.csv"):
        record.replace(lab.figures, lab.record, made=MADE)
    with pytest.raises(ValueError, match=r"folder: .* lacks figures"):
        record.replace(lab.figures, lab.record, made=[])
    assert not lab.record.exists()


def test_an_update_keeps_the_commit_that_first_made_the_same_file(lab, monkeypatch):
    commits = iter(["a" * 40, "b" * 40])
    for value in commits:
        monkeypatch.setattr(workspace, "commit", lambda root, value=value: value)
        monkeypatch.setattr(workspace, "source_hash", lambda *_: "same")
        shutil.rmtree(lab.figures)
        lab.save_table(pd.DataFrame({"n": [1]}), "one", caption="one")
        workspace.write_json(lab.figures / record.ABOUT, {})
        record.replace(lab.figures, lab.record, made=["one.csv", "one.md"])
    listed = workspace.read_manifest(lab.record)
    assert {entry["commit"] for entry in listed.values()} == {"a" * 40}


def test_the_machine_is_told_without_its_name_or_the_time(root):
    about = json.loads((root.path / "figures" / "tiny" / "record.json").read_text())
    assert about["profile"] == "tiny" and about["machine"] == record.machine()
    assert about["machine"]["cores"] >= 1 and about["machine"]["threads"] >= 1
    assert about["machine"]["cpu"] and about["machine"]["capability"]
    assert about["versions"]["python"] == platform.python_version()
    assert socket.gethostname() not in json.dumps(about)


def test_the_quality_of_the_victim_stands_in_the_record(tmp_path):
    quality = pd.DataFrame({"images": [40], "class mAP": [0.5]})
    quality.to_csv(tmp_path / record.QUALITY, index=False)
    profile = record.Profile("tiny", "", 60, {}, ())
    path = record.describe(tmp_path, profile=profile, versions={})
    assert json.loads(path.read_text())["victim"] == {"images": 40, "class mAP": 0.5}
