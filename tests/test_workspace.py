import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import nbformat
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook
from PIL import Image

from tkmia_utils import workspace
from tkmia_utils.workspace import Workspace


def write_notebook(root, name, *sources):
    path = root / "notebooks" / f"{name}.ipynb"
    path.parent.mkdir(exist_ok=True)
    cells = [new_markdown_cell(f"# {name}"), *(new_code_cell(text) for text in sources)]
    nbformat.write(new_notebook(cells=cells), path)
    return path


@pytest.fixture
def lab(tmp_path):
    write_notebook(tmp_path, "02_lemma", "seed = 0")
    return Workspace(tmp_path, "quick", "02_lemma", {"seed": 0, "ks": (1, 2)})


def new_figure():
    figure, axes = plt.subplots(figsize=(3, 2))
    axes.plot([1, 3, 2], label="bound of λ")
    axes.legend()
    return figure


@pytest.fixture
def fig():
    figure = new_figure()
    yield figure
    plt.close(figure)


def manifest(lab):
    return json.loads((lab.figures / "manifest.json").read_text())


def git(root, *arguments):
    identity = ("-c", "user.name=reader", "-c", "user.email=reader@example.org")
    subprocess.run(("git", "-C", root, *identity, *arguments), check=True, capture_output=True)


def test_a_writer_that_fails_leaves_the_old_file_and_nothing_else(tmp_path):
    path = workspace.write_text(tmp_path / "new" / "kept.txt", "old")

    def breaks(temporary):
        temporary.write_text("half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        workspace.write_atomically(path, breaks)
    assert path.read_text() == "old"
    assert list(path.parent.iterdir()) == [path]


def test_the_temporary_file_keeps_its_name_and_lies_in_a_folder_beside(tmp_path):
    seen = []

    def writer(temporary):
        seen.append(temporary)
        temporary.write_bytes(b"x")

    workspace.write_atomically(tmp_path / "a.npz", writer)
    assert seen[0].name == "a.npz"
    assert seen[0].parent.parent == tmp_path


def test_the_commit_is_unknown_outside_git_and_marked_when_a_tracked_file_changed(tmp_path):
    assert workspace.commit(tmp_path) == "unknown"
    git(tmp_path, "init")
    assert workspace.commit(tmp_path) == "unknown"  # no commit yet
    for name in ("module.py", "figures/a.svg"):
        workspace.write_text(tmp_path / name, "one")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-m", "first")
    clean = workspace.commit(tmp_path)
    assert len(clean) == 40
    workspace.write_text(tmp_path / "figures/a.svg", "two")
    workspace.write_text(tmp_path / "untracked.py", "two")
    assert workspace.commit(tmp_path) == clean
    workspace.write_text(tmp_path / "module.py", "two")
    assert workspace.commit(tmp_path) == clean + "+"


def test_versions_name_the_interpreter_and_what_decides_results():
    found = workspace.versions()
    assert found["python"] == ".".join(map(str, sys.version_info[:3]))
    assert found["numpy"] == np.__version__
    assert {"tkmia-lab", "torch", "torchvision"} <= found.keys()


def test_results_come_back_as_they_were_saved(tmp_path):
    df = pd.DataFrame(
        {"id": ["a", "b"], "success": [True, False], "l2": np.float32([0.5, np.inf])},
    )
    path = workspace.save_results(df, tmp_path / "runs" / "06_attack_many_images.parquet")
    pd.testing.assert_frame_equal(workspace.load_results(path), df)


def test_missing_results_name_the_notebook_to_run_first(tmp_path):
    with pytest.raises(ValueError, match=r"run the notebook 06_attack_many_images first"):
        workspace.load_results(tmp_path / "06_attack_many_images.parquet")
    with pytest.raises(ValueError, match=r"run the notebook 04_victim first"):
        workspace.load_results(tmp_path / "scores.parquet", made_by="04_victim")


def test_only_a_table_is_saved_as_results(tmp_path):
    with pytest.raises(ValueError, match="df: expected a pandas"):
        workspace.save_results([1], tmp_path / "a.parquet")


def test_a_figure_is_listed_with_what_made_it(lab, fig):
    lab.save_figure(fig, "02_bottom", caption="Flat.")
    listed = manifest(lab)
    assert sorted(listed) == ["02_bottom.png"]
    for file, entry in listed.items():
        content = (lab.figures / file).read_bytes()
        assert entry["sha256"] == hashlib.sha256(content).hexdigest()
        assert entry["notebook"] == "02_lemma"
        assert entry["parameters"] == {"seed": 0, "ks": [1, 2]}
        assert entry["caption"] == "Flat."
        assert entry["commit"] == workspace.commit(lab.root)
        assert entry["source"] == workspace.source_hash(lab.root, "02_lemma")


def photograph() -> np.ndarray:
    return np.random.default_rng(0).random((64, 64, 3))


def drawn(lab, name, draw) -> Path:
    fig = Figure(figsize=(4, 3))
    draw(fig.subplots())
    lab.save_figure(fig, name, caption="Drawn.")
    (path,) = lab.figures.glob(f"{name}.*g")
    assert [file for file in manifest(lab) if file.startswith(name)] == [path.name]
    return path


def test_a_figure_is_kept_in_one_format_the_smaller_one(lab):
    x = np.random.default_rng(0).random((2, 20_000))

    def line(ax):
        ax.figure.set_size_inches(12, 9)
        ax.plot(x[0, :9])
        ax.set_title("λ")

    few = drawn(lab, "few", line)
    assert few.suffix == ".svg" and ">λ</text>" in few.read_text()
    assert drawn(lab, "many", lambda ax: ax.plot(*x, ".")).suffix == ".png"
    # a photograph is no drawing, however small
    assert drawn(lab, "photo", lambda ax: ax.imshow(photograph()[:2, :2])).suffix == ".png"
    # drawn anew in another format, the old file does not stay behind
    assert drawn(lab, "few", lambda ax: ax.plot(*x, ".")).suffix == ".png"
    assert drawn(lab, "few", line).suffix == ".svg"


def test_a_photograph_keeps_its_colours_and_a_drawing_needs_few(lab):
    pixels = np.kron(photograph(), np.ones((6, 6, 1)))

    def show(ax):
        ax.figure.set_size_inches(pixels.shape[0] / 150, pixels.shape[0] / 150)
        ax.set_position([0, 0, 1, 1])
        ax.set_axis_off()
        ax.imshow(pixels, interpolation="nearest")

    with Image.open(drawn(lab, "photo", show)) as kept:
        assert kept.mode == "RGB"
        edge = (kept.width - pixels.shape[1]) // 2  # a tight figure has a margin
        middles = np.asarray(kept)[edge + 3 : -edge : 6, edge + 3 : -edge : 6] / 255
    # 64 levels a channel: no pixel is off by more than two levels of 255, and rounding
    assert np.abs(middles - photograph()).max() < 3 / 255
    x = np.random.default_rng(0).random((2, 20_000))
    with Image.open(drawn(lab, "dots", lambda ax: ax.plot(*x, "."))) as kept:
        assert kept.mode == "P"


def test_a_wide_figure_has_no_more_pixels_than_a_screen_shows(lab):
    fig = Figure(figsize=(30, 3))
    fig.subplots().imshow(photograph())
    lab.save_figure(fig, "wide", caption="Wide.")
    with Image.open(lab.figures / "wide.png") as kept:
        assert kept.width <= workspace.MOST_PIXELS


def test_an_identical_rerun_changes_no_byte(lab):
    df = pd.DataFrame({"k": [1, 2], "APer": [0.1, 0.2]})

    def saved():
        fig = new_figure()  # as a rerun does: a constrained layout moves when drawn twice
        lab.save_figure(fig, "02_bottom", caption="Flat.")
        plt.close(fig)
        lab.save_table(df, "02_table", caption="Small.")
        return {path.name: path.read_bytes() for path in lab.figures.iterdir()}

    assert saved() == saved()


def test_the_manifest_keeps_the_commit_that_first_made_a_file_cleanly(lab, fig, monkeypatch):
    def listed(commit, caption="Flat."):
        monkeypatch.setattr(workspace, "commit", lambda root: commit)
        lab.save_figure(fig, "02_bottom", caption=caption)
        return manifest(lab)["02_bottom.png"]["commit"]

    assert listed("abc+") == "abc+"
    assert listed("abc") == "abc"
    assert listed("def") == "abc"
    assert listed("def", caption="Other.") == "def"


def test_figures_of_several_notebooks_share_a_manifest(lab, fig):
    lab.save_figure(fig, "02_bottom", caption="Flat.")
    other = Workspace(lab.root, "quick", "03_data", {})
    other.save_table(pd.DataFrame({"n": [1]}), "03_counts", caption="Counts.")
    assert {entry["notebook"] for entry in manifest(lab).values()} == {"02_lemma", "03_data"}


def test_a_table_is_exact_in_csv_and_readable_in_markdown(lab):
    df = pd.DataFrame({"|S|": [2, 3], "APer": [1 / 3, 2.0], "type": ["a|b", "c"]})
    lab.save_table(df, "table", caption="What it says.", digits=2)
    pd.testing.assert_frame_equal(pd.read_csv(lab.figures / "table.csv"), df)
    text = (lab.figures / "table.md").read_text()
    assert r"| \|S\| | APer | type |" in text
    assert r"| 2 | 0.33 | a\|b |" in text
    assert text.endswith("\n\nWhat it says.\n")


def test_readers_find_names_in_the_markdown_and_programs_identifiers_in_the_csv(lab):
    df = pd.DataFrame({"method": ["kfool", "mine"], "APer": [1.0, 2.0]}).set_index("method")
    lab.save_table(df, "table", caption="Named.", names={"kfool": "kFool"})
    text = (lab.figures / "table.md").read_text()
    assert "| kFool | 1.0000 |" in text and "| mine | 2.0000 |" in text
    assert list(pd.read_csv(lab.figures / "table.csv")["method"]) == ["kfool", "mine"]


def test_a_named_index_and_nested_columns_are_kept_in_a_table(lab):
    df = pd.DataFrame({"k": [1, 1, 2], "l2": [1.0, 2.0, 3.0]}).groupby("k").agg(["mean", "max"])
    lab.save_table(df, "table", caption="By k.")
    assert list(pd.read_csv(lab.figures / "table.csv").columns) == ["k", "l2 mean", "l2 max"]


def test_the_source_hash_follows_what_is_said_not_what_came_out(tmp_path):
    path = write_notebook(tmp_path, "a", "1 + 1")
    first = workspace.source_hash(tmp_path, "a")
    notebook = nbformat.read(path, as_version=4)
    notebook.cells[1].execution_count = 7
    notebook.cells[1].metadata["tags"] = ["x"]
    nbformat.write(notebook, path)
    assert workspace.source_hash(tmp_path, "a") == first
    write_notebook(tmp_path, "a", "1 + 2")
    assert workspace.source_hash(tmp_path, "a") != first


def test_the_source_hash_follows_the_modules_that_are_used(tmp_path, monkeypatch):
    write_notebook(tmp_path, "a", "from tkmia_utils.attacks import one")
    package = tmp_path / "package"
    monkeypatch.setattr(workspace, "PACKAGE", package)
    for module in ("attacks/__init__.py", "attacks/one.py", "bench.py"):
        workspace.write_text(package / module, "x = 1")
    first = workspace.source_hash(tmp_path, "a")
    workspace.write_text(package / "bench.py", "x = 2")
    assert workspace.source_hash(tmp_path, "a") == first
    workspace.write_text(package / "attacks" / "one.py", "x = 2")
    assert workspace.source_hash(tmp_path, "a") != first


def test_figures_whose_notebook_or_bytes_changed_are_stale(lab, fig):
    assert workspace.stale(lab.root, "quick") == []
    lab.save_figure(fig, "02_bottom", caption="Flat.")
    write_notebook(lab.root, "03_data", "n = 1")
    other = Workspace(lab.root, "quick", "03_data", {})
    other.save_table(pd.DataFrame({"n": [1]}), "03_counts", caption="Counts.")
    shutil.copytree(lab.figures, lab.record)
    assert workspace.stale(lab.root, "quick") == []
    (lab.record / "03_counts.md").write_text("by hand")
    (lab.record / "03_counts.csv").unlink()
    assert workspace.stale(lab.root, "quick") == ["03_counts.csv", "03_counts.md"]
    write_notebook(lab.root, "02_lemma", "seed = 1")
    assert "02_bottom.png" in workspace.stale(lab.root, "quick")


def test_folders_are_made_when_asked_for_and_stay_where_the_notebook_began(tmp_path, monkeypatch):
    (tmp_path / "notebooks").mkdir()
    monkeypatch.chdir(tmp_path / "notebooks")
    lab = Workspace("..", "quick", "a", {})
    monkeypatch.chdir("/")
    assert not (tmp_path / "cache").exists()
    assert lab.cache == tmp_path / "cache"
    assert lab.runs == tmp_path / "runs" / "quick"
    assert lab.figures == tmp_path / "runs" / "quick" / "figures"
    assert lab.record == tmp_path / "figures" / "quick" and not lab.record.exists()
    assert lab.cache.is_dir() and lab.runs.is_dir() and lab.figures.is_dir()


@pytest.mark.parametrize("bad", ["", "../up", "a/b", ".hidden", None])
def test_a_name_that_is_no_name_of_a_file_is_refused(tmp_path, fig, bad):
    with pytest.raises(ValueError, match="profile: expected letters"):
        Workspace(tmp_path, bad, "a", {})
    with pytest.raises(ValueError, match="notebook: expected letters"):
        Workspace(tmp_path, "quick", bad, {})
    with pytest.raises(ValueError, match="name: expected letters"):
        Workspace(tmp_path, "quick", "a", {}).save_figure(fig, bad, caption="")


def test_parameters_json_cannot_hold_are_refused(tmp_path):
    with pytest.raises(ValueError, match="parameters: expected plain JSON values"):
        Workspace(tmp_path, "quick", "a", {"labels": np.zeros(3)})


def test_parameters_are_read_from_the_manifest_or_the_missing_file_is_named(lab):
    with pytest.raises(ValueError, match="07_overall"):
        lab.made_with("07_overall.csv")
    listed = {"07_overall.csv": {"parameters": {"n": 3}}}
    (lab.figures / "manifest.json").write_text(json.dumps(listed))
    assert lab.made_with("07_overall.csv") == {"n": 3}
