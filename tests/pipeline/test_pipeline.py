import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pytest
import yaml
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook
from PIL import Image

from tkmia_utils.pipeline import pace, runner
from tkmia_utils.pipeline import profile as plan
from tkmia_utils.pipeline.runner import main
from tkmia_utils.workspace import load_results

PARAMETERS = """
profile = "quick"  # names the folders
workspace = ".."
seed = 0
lr = 1e-3  # a step
ks = [1, 2]
kind = "VOC"
limit = None
"""


class Root:
    """A folder with notebooks and a profile, and the pipeline run on it."""

    def __init__(self, path):
        self.path = path
        self.runs = path / "runs" / "tiny"
        self.profile = {"name": "tiny", "time_limit": 60, "notebooks": []}
        (path / "notebooks").mkdir()

    def add(self, name, *sources, parameters="seed = 0", **entry):
        cells = [new_markdown_cell(f"# 01 · About {name}")]
        cells += [new_code_cell(parameters, metadata={"tags": ["parameters"]})]
        cells += [new_code_cell(text) for text in sources]
        nbformat.write(new_notebook(cells=cells), self.path / "notebooks" / f"{name}.ipynb")
        kept = [old for old in self.profile["notebooks"] if old["notebook"] != name]
        self.profile["notebooks"] = [*kept, {"notebook": name, **entry}]
        return self

    def arguments(self, *more):
        file = self.path / "tiny.yaml"
        file.write_text(yaml.safe_dump(self.profile))
        return ["--root", str(self.path), "--profile", str(file), *more]

    def run(self, *more):
        return main(self.arguments(*more))

    @property
    def record(self):
        return json.loads((self.runs / "run.json").read_text())


@pytest.fixture
def root(tmp_path):
    return Root(tmp_path)


def refused(root, capsys, *more):
    """What the pipeline says when it refuses, having run nothing."""
    assert root.run(*more) == 2
    assert not root.runs.exists()
    return capsys.readouterr().err


def test_a_run_leaves_copies_results_figures_and_a_record(root, capsys):
    root.add(
        "01_a",
        "import os, sys\n"
        "import pandas as pd\n"
        "from tkmia_utils.workspace import Workspace, save_results\n"
        "lab = Workspace(workspace, profile, '01_a', {'seed': seed})\n"
        "df = pd.DataFrame({'seed': [seed], 'lr': [lr], 'here': [os.getcwd()]})\n"
        "df['python'] = sys.executable",
        "save_results(df, lab.runs / '01_a.parquet')\nlab.save_table(df, 'seeds', caption='One.')",
        parameters=PARAMETERS,
    )
    root.profile["common"] = {"seed": 3}
    assert root.run("--set", "lr=2e-3") == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith("[1/1] 01_a  About 01_a · ")

    record = root.record
    assert record["profile"] == "tiny"
    assert record["device"] and record["cores"] >= 1 and record["commit"] == "unknown"
    assert record["versions"]["python"] == ".".join(map(str, sys.version_info[:3]))
    own = record["notebooks"]["01_a"]
    assert own["status"] == "done" and own["seconds"] > 0
    assert own["parameters"] == {
        **{"profile": "tiny", "workspace": "..", "seed": 3, "lr": 2e-3},
        **{"ks": [1, 2], "kind": "VOC", "limit": None},
    }
    made = [
        f"runs/tiny/{file}" for file in ("01_a.parquet", "figures/seeds.csv", "figures/seeds.md")
    ]
    assert sorted(own["made"]) == made
    listed = json.loads((root.runs / "figures" / "manifest.json").read_text())
    assert listed["seeds.md"]["parameters"] == {"seed": 3}
    assert listed["seeds.md"]["notebook"] == "01_a"

    copy = nbformat.read(root.runs / "01_a.ipynb", as_version=4)
    assert all(cell.execution_count for cell in copy.cells if cell.cell_type == "code")
    table = load_results(root.runs / "01_a.parquet").iloc[0].to_dict()
    assert table["seed"] == 3 and table["lr"] == 2e-3
    assert table["here"] == str(root.path / "notebooks")
    assert table["python"] == sys.executable

    assert root.run("--set", "lr=2e-3") == 0
    assert "up to date" in capsys.readouterr().out
    (root.runs / "01_a.parquet").unlink()
    assert root.run("--list", "--set", "lr=2e-3") == 0
    assert "to run" in capsys.readouterr().out


def states(root, capsys, *more):
    """Notebook -> 'to run' or 'up to date'."""
    capsys.readouterr()
    assert root.run("--list", *more) == 0
    lines = capsys.readouterr().out.splitlines()
    return {line.split()[1]: line.rsplit("· ")[-1] for line in lines}


def test_what_is_done_is_done_again_only_when_its_inputs_changed(root, capsys, monkeypatch):
    root.add("01_a").add("02_b", needs=["01_a"]).add("03_c", parameters="other = 1")
    done = dict.fromkeys(("01_a", "02_b", "03_c"), "up to date")
    assert root.run() == 0
    assert states(root, capsys) == done
    first = root.record["notebooks"]["03_c"]

    changed = {**done, "01_a": "to run", "02_b": "to run"}
    assert states(root, capsys, "--set", "seed=5") == changed
    root.profile["notebooks"][0]["parameters"] = {"seed": 6}
    assert states(root, capsys) == changed
    del root.profile["notebooks"][0]["parameters"]
    assert states(root, capsys) == done
    monkeypatch.setattr(runner, "versions", lambda: dict.fromkeys(("python", "torch", "numpy")))
    assert set(states(root, capsys).values()) == {"to run"}
    monkeypatch.undo()

    (root.runs / "01_a.ipynb").unlink()
    assert states(root, capsys) == {**done, "01_a": "to run"}
    root.profile["notebooks"] = []
    root.add("01_a", "1 + 1").add("02_b", needs=["01_a"]).add("03_c", parameters="other = 1")
    assert states(root, capsys) == changed
    assert root.run("--force", "--only", "02_b") == 0
    assert states(root, capsys) == done
    assert root.record["notebooks"]["03_c"] == first


def test_a_changed_file_that_a_notebook_reads_makes_it_due_again(root, capsys):
    folder = root.path / "data" / "tables"
    root.add("01_a").add("02_b", reads=["data/tables"]).add("03_c", needs=["02_b"])
    assert root.run() == 2
    assert "02_b: reads: there is no folder" in capsys.readouterr().err
    folder.mkdir(parents=True)
    (folder / "one.csv").write_text("1")
    assert root.run() == 0
    done = dict.fromkeys(("01_a", "02_b", "03_c"), "up to date")
    assert states(root, capsys) == done
    for change in ("2", "3"):
        (folder / f"one{change}.csv").write_text(change)
        assert states(root, capsys) == {**done, "02_b": "to run", "03_c": "to run"}
        assert root.run() == 0
        assert states(root, capsys) == done


def test_a_folder_to_read_that_is_empty_is_refused(root, capsys):
    (root.path / "tables").mkdir()
    root.add("01_a", reads=["tables"])
    assert root.run() == 2
    assert "01_a: reads: there is no file in" in capsys.readouterr().err


DATA = """
dataset = "folder"
val_csv = None
data_root = None
data_options = {}
size = 8
"""


def test_a_replaced_photo_makes_due_what_reads_it_and_nothing_else(root, capsys):
    for half in ("train", "val"):
        for name in "ab":
            path = root.path / "photos" / half / f"{name}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (8, 8), "red").save(path)
        (path.parent / "list.csv").write_text("image,labels\na.png,dog\nb.png,cat\n")
    root.profile["common"] = {"val_csv": "../photos/val/list.csv"}
    root.add("01_a", parameters="train_csv = '../photos/train/list.csv'\n" + DATA)
    root.add("02_b", parameters=DATA).add("03_c", parameters="n = 1")
    assert root.run() == 0
    done = dict.fromkeys(("01_a", "02_b", "03_c"), "up to date")
    assert states(root, capsys) == done
    os.utime(root.path / "photos/val/a.png", (1e9, 1e9))
    unlisted = root.path / "photos/val/c.png"
    Image.new("RGB", (8, 8), "red").save(unlisted)
    assert states(root, capsys) == done
    Image.new("RGB", (8, 8), "blue").save(root.path / "photos/train/a.png")
    assert states(root, capsys) == {**done, "01_a": "to run"}
    Image.new("RGB", (8, 8), "blue").save(root.path / "photos/val/a.png")
    due = {**done, "01_a": "to run", "02_b": "to run"}
    assert states(root, capsys) == due
    assert root.run() == 0
    assert states(root, capsys) == done
    (root.path / "photos/val/list.csv").write_text("image,labels\na.png,dog\nb.png,dog;cat\n")
    assert states(root, capsys) == due
    (root.path / "photos/val/a.png").unlink()
    assert states(root, capsys) == due


def test_new_prose_comes_into_the_executed_copy_and_runs_nothing(root, capsys):
    root.add("01_a", "print(seed)", parameters=PARAMETERS)
    assert root.run("--set", "seed=4") == 0
    path = root.path / "notebooks" / "01_a.ipynb"
    source = nbformat.read(path, as_version=4)
    source.cells[0].source = "# 01 · Told better"
    source.cells.append(new_markdown_cell("The end."))
    nbformat.write(source, path)
    before = nbformat.read(root.runs / "01_a.ipynb", as_version=4).cells
    capsys.readouterr()
    assert root.run("--set", "seed=4") == 0
    assert "up to date" in capsys.readouterr().out
    after = nbformat.read(root.runs / "01_a.ipynb", as_version=4).cells
    assert [after[0].source, after[-1].source] == ["# 01 · Told better", "The end."]
    assert after[1:-1] == before[1:] and before[-1].outputs[0].text == "4\n"


def test_only_runs_what_is_named_and_what_it_needs(root, capsys):
    root.add("01_a").add("02_b", needs=["01_a"]).add("03_c").add("04_d", needs=["02_b"])
    assert list(states(root, capsys, "--only", "04_d")) == ["01_a", "02_b", "04_d"]
    assert root.run("--only", "03_e") == 2
    assert "--only: '03_e' is not a notebook of profile tiny" in capsys.readouterr().err


def test_a_failing_cell_ends_the_run_and_keeps_the_partial_copy(root, capsys):
    root.add("01_a", "x = 1", "\n# the bad one\nraise KeyError('lost')", "y = 2").add("02_b")
    assert root.run() == 1
    said = capsys.readouterr()
    failed = root.runs / "01_a.failed.ipynb"
    assert "01_a failed in cell In [3]: # the bad one" in said.err
    assert "KeyError: 'lost'" in said.err and str(failed) in said.err
    assert "02_b" not in said.out and "Traceback" not in said.err
    counts = [
        cell.execution_count
        for cell in nbformat.read(failed, as_version=4).cells
        if cell.cell_type == "code"
    ]
    assert counts == [1, 2, 3, None]
    assert list(root.record["notebooks"]) == ["01_a"]
    assert root.record["notebooks"]["01_a"]["status"] == "failed"
    assert not (root.runs / "01_a.ipynb").exists()

    root.profile["notebooks"].clear()
    root.add("01_a", "x = 1").add("02_b")
    assert root.run() == 0
    assert not failed.exists()
    assert [own["status"] for own in root.record["notebooks"].values()] == ["done", "done"]


def test_the_time_limit_is_for_the_whole_notebook(root, capsys, monkeypatch):
    root.profile["time_limit"] = 6
    root.add("01_a", *["import time\ntime.sleep(3.5)"] * 3)
    monkeypatch.setattr(pace, "slowness", lambda: 1.0)
    assert root.run() == 1
    said = capsys.readouterr().err
    assert "ran past its time limit of 6 s" in said
    assert "01_a failed in cell In [" in said and "]: import time" in said
    assert (root.runs / "01_a.failed.ipynb").is_file()


def test_a_slow_machine_has_longer_and_a_limit_that_is_given_is_the_limit(
    root, capsys, monkeypatch
):
    monkeypatch.setattr(pace, "slowness", lambda: 20.0)
    root.profile["time_limit"] = 6
    root.add("01_a", *["import time\ntime.sleep(3.5)"] * 3)
    assert root.run() == 0
    assert "20.0 times slower" in capsys.readouterr().out
    assert root.run("--force", "--time-limit", "6") == 1
    assert "--time-limit SECONDS" in capsys.readouterr().err
    assert root.run("--time-limit", "0") == 2


def test_a_dead_kernel_is_told(root, capsys):
    root.add("01_a", "import os\nos._exit(1)")
    assert root.run() == 1
    assert "In [2]: import os\n  the kernel was stopped" in capsys.readouterr().err


def test_a_killed_run_goes_on_with_the_first_unfinished_notebook(root, capsys):
    root.add("01_a").add("02_b", "import time\ntime.sleep(0 if seed else 60)")
    command = [sys.executable, "-m", "tkmia_utils.pipeline", *root.arguments()]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        said = process.stdout.readline()
        assert "01_a" in (process.stdout.readline() if "times slower" in said else said)
        end = time.monotonic() + 30
        while not (root.runs / "02_b.running.ipynb").exists() and time.monotonic() < end:
            time.sleep(0.05)
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
    assert states(root, capsys) == {"01_a": "up to date", "02_b": "to run"}
    root.profile["notebooks"][1]["parameters"] = {"seed": 1}
    assert root.run() == 0
    assert "01_a  About 01_a · up to date" in capsys.readouterr().out
    left = ["01_a.ipynb", "02_b.ipynb", "figures", "run.json"]
    assert sorted(path.name for path in root.runs.iterdir()) == left


def test_another_python3_kernel_of_the_user_is_not_taken(root, tmp_path, monkeypatch):
    kernel = tmp_path / "jupyter" / "kernels" / "python3"
    kernel.mkdir(parents=True)
    spec = {"argv": ["false"], "display_name": "Other", "language": "python"}
    (kernel / "kernel.json").write_text(json.dumps(spec))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))
    root.add("01_a", "1 + 1")
    assert root.run() == 0


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("own", "01_a: 'sede' is not a declared parameter; did you mean 'seed'?"),
        ("common", "common: 'sede' is not a declared parameter; did you mean 'seed'?"),
        ("set", "--set: 'sede' is not a declared parameter; did you mean 'seed'?"),
    ],
)
def test_a_misspelled_parameter_is_refused_by_name(root, capsys, where, message):
    root.add("01_a", parameters=PARAMETERS)
    if where == "own":
        root.profile["notebooks"][0]["parameters"] = {"sede": 1}
    if where == "common":
        root.profile["common"] = {"sede": 1}
    more = ["--set", "sede=1"] if where == "set" else []
    assert message in refused(root, capsys, *more)


def test_a_parameter_of_another_notebook_is_refused_in_a_notebooks_own_list(root, capsys):
    root.add("01_a").add("02_b", parameters="n = 1")
    root.profile["notebooks"][0]["parameters"] = {"n": 2}
    assert "01_a: 'n' is not a declared parameter" in refused(root, capsys)


@pytest.mark.parametrize("name", ["profile", "workspace"])
def test_what_the_pipeline_gives_cannot_be_set(root, capsys, name):
    root.add("01_a", parameters=PARAMETERS)
    assert f"{name!r} is given by the pipeline" in refused(root, capsys, "--set", f"{name}=x")


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("seed=1.5", "01_a: seed: expected int like 0, got 1.5"),
        ("seed=true", "01_a: seed: expected int like 0, got True"),
        ("seed=", "01_a: seed: expected int like 0, got None"),
        ("lr=fast", "01_a: lr: expected float like 0.001, got 'fast'"),
        ("ks=3", "01_a: ks: expected list like [1, 2], got 3"),
        ("ks=[1, a]", "01_a: ks: expected int like 1, got 'a'"),
        ("ks=[1", "--set ks: not YAML"),
        ("seed", "--set: expected NAME=VALUE, got 'seed'"),
    ],
)
def test_a_value_of_the_wrong_type_is_refused(root, capsys, setting, message):
    root.add("01_a", parameters=PARAMETERS)
    assert message in refused(root, capsys, "--set", setting)


def test_settings_take_the_type_of_the_default(root):
    root.add("01_a", parameters=PARAMETERS)
    profile = plan.load_profile(root.arguments()[3])
    given = {"lr": "1", "ks": "[3]", "kind": "2007", "limit": "1e-3", "seed": "7"}
    values = plan.resolve(profile, root.path, given)["01_a"]
    expected = {"lr": 1.0, "ks": [3], "kind": "2007", "limit": 1e-3, "seed": 7}
    assert values == {**expected, "profile": "tiny", "workspace": ".."}
    assert type(values["lr"]) is float
    assert plan.resolve(profile, root.path, {"limit": "None"})["01_a"]["limit"] is None


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ("import os", "expected 'name = literal', got 'import os'"),
        ("a = b = 1", "expected 'name = literal', got 'a = b = 1'"),
        ("n = 2 * 3", "expected 'name = literal', got 'n = 2 * 3'"),
        ("n = ", "01_a: parameters: not Python"),
    ],
)
def test_a_parameters_cell_holds_literals_only(root, capsys, cell, message):
    assert message in refused(root.add("01_a", parameters=cell), capsys)


def test_a_notebook_that_is_not_there_is_refused(root, capsys):
    root.add("01_measures")
    root.profile["notebooks"].append({"notebook": "01_measure"})
    assert "'01_measure' is not a notebook of" in (said := refused(root, capsys))
    assert "did you mean '01_measures'?" in said


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"time_limits": 3}, "'time_limits' is not a field of a profile; did you mean"),
        ({"time_limit": 0}, "time_limit: expected seconds above 0, got 0"),
        ({"time_limit": None}, "time_limit: expected seconds above 0, got None"),
        ({"name": "a/b"}, "name: expected letters"),
        ({"common": [1]}, "common: expected 'name: value' pairs, got [1]"),
        ({"notebooks": []}, "notebooks: expected at least one"),
        ({"notebooks": ["01_a"]}, "notebooks: expected 'name: value' pairs, got '01_a'"),
        ({"notebooks": [{"notebok": "01_a"}]}, "'notebok' is not a field of a notebook"),
        ({"notebooks": [{"notebook": "01_a", "needs": ["02"]}]}, "is not an earlier notebook"),
        ({"notebooks": [{"notebook": "01_a", "needs": "00"}]}, "needs: expected a list"),
        ({"notebooks": [{"notebook": "01_a", "reads": "data"}]}, "reads: expected a list"),
        ({"extends": "tiny.yaml"}, "extends: goes round in a circle"),
        ({"extends": "quik"}, "there is no 'quik'; did you mean 'quick'?"),
    ],
)
def test_a_profile_that_makes_no_sense_is_refused(root, capsys, change, message):
    root.add("01_a")
    root.profile.update(change)
    assert message in refused(root, capsys)


def test_a_profile_that_extends_another_changes_only_what_it_names(root):
    root.add("01_a", parameters=PARAMETERS).add("02_b", needs=["01_a"])
    root.profile["notebooks"][0] = {"notebook": "01_a", "parameters": {"seed": 1, "lr": 0.5}}
    root.profile["common"] = {"kind": "VOC", "seed": 4}
    root.arguments()
    child = {
        "name": "child",
        "extends": "tiny.yaml",
        "common": {"seed": 9},
        "notebooks": [{"notebook": "01_a", "parameters": {"lr": 0.25}}],
    }
    (root.path / "child.yaml").write_text(yaml.safe_dump(child))
    profile = plan.load_profile(root.path / "child.yaml")
    assert (profile.name, profile.time_limit) == ("child", 60)
    assert profile.common == {"kind": "VOC", "seed": 9}
    assert profile.steps == (
        plan.Step("01_a", (), {"seed": 1, "lr": 0.25}),
        plan.Step("02_b", ("01_a",), {}),
    )


def test_the_profiles_shipped_can_be_read():
    names = sorted(path.stem for path in plan.PROFILES.glob("*.yaml"))
    assert {"quick", "smoke"} <= set(names)
    assert [plan.load_profile(name).name for name in names] == names


def test_a_number_may_be_written_1e_3_in_a_profile(root):
    root.add("01_a", parameters=PARAMETERS)
    file = root.path / "tiny.yaml"
    file.write_text(
        "name: tiny\ntime_limit: 1e2\nnotebooks:\n  - notebook: 01_a\n"
        "    parameters: {lr: 5e-4, kind: 1e, limit: -1E+2}\n"
    )
    profile = plan.load_profile(file)
    assert profile.time_limit == 100
    assert profile.steps[0].parameters == {"lr": 5e-4, "kind": "1e", "limit": -100.0}


@pytest.mark.parametrize("path", sorted(plan.PROFILES.glob("*.yaml")), ids=lambda p: p.stem)
def test_every_profile_that_ships_fits_the_notebooks(path):
    profile = plan.load_profile(path.stem)
    root = Path(__file__).parents[2]
    resolved = plan.resolve(profile, root)
    notebooks = {notebook.stem for notebook in (root / "notebooks").glob("*.ipynb")}
    if path.stem == "victims":  # notebook 15 alone, from the beginning
        assert (profile.name, set(resolved)) == ("victims", {"15_victims"})
        return
    assert profile.name == path.stem and set(resolved) == notebooks
    attacks = [resolved[name] for name in ("06_attack_many_images", "07_baselines")]
    shared = set(attacks[0]) & set(attacks[1])
    assert all(attacks[0][name] == attacks[1][name] for name in shared)
    assert resolved["08_tables_and_figures"]["limit"] in attacks[0]["limits"]
