"""Promises of the lab: one line opens what a notebook works with, and nothing before it is used."""

import nbformat
import pandas as pd
import pytest
import torch
from nbformat.v4 import new_code_cell, new_notebook

from tkmia_utils import data, victims
from tkmia_utils.experiments.lab import Lab, data_arguments, located, open_lab
from tkmia_utils.workspace import save_results

PARAMETERS = """
profile = "tiny"  # name
workspace = ".."  # folder
dataset = "emoji"  # which
train_csv = None  # path
val_csv = None  # path
data_root = None  # folder
data_options = {}  # options
n_train = 8  # images
n_val = 6  # images
size = 32  # pixels
seed = 3  # of the scenes
device = "cpu"  # where
"""


def opened(root, monkeypatch, text=PARAMETERS, **more):
    """The lab of a notebook in `root`, opened as the notebook itself would."""
    cell = new_code_cell(text, metadata={"tags": ["parameters"]})
    (root / "notebooks").mkdir(exist_ok=True)
    nbformat.write(new_notebook(cells=[cell]), root / "notebooks" / "04_mine.ipynb")
    monkeypatch.chdir(root / "notebooks")
    variables = {"In": [text], "other": 5}
    exec(text, variables)
    return open_lab("04_mine", variables, **more)


def test_nothing_is_loaded_before_it_is_asked_for(tmp_path, monkeypatch):
    monkeypatch.setattr(data, "load", None)
    lab = opened(tmp_path, monkeypatch)
    assert repr(lab) == "04_mine: works in runs/tiny"
    with pytest.raises(ValueError, match="04_victim"):
        _ = lab.victim
    assert not (tmp_path / "cache").exists()


def test_the_lab_gives_the_data_of_the_parameters_and_says_so(tmp_path, monkeypatch):
    lab = opened(tmp_path, monkeypatch)
    wanted = {half: data.load("emoji", half, n=n, size=32, seed=3, cache=tmp_path / "cache")
              for half, n in (("train", 8), ("val", 6))}  # fmt: skip
    for half, expected in wanted.items():
        found = getattr(lab, half)
        assert found.fingerprint() == expected.fingerprint()
        assert getattr(lab, half) is found
    assert lab.classes == wanted["val"].classes and lab.types == data.types_of(lab.val)
    assert "train: 8 images" in repr(lab) and lab.val.card in repr(lab)


def test_fresh_images_are_held_out_ones_of_another_seed_where_they_are_made(tmp_path, monkeypatch):
    lab = opened(tmp_path, monkeypatch)
    fresh = lab.fresh(5)
    wanted = data.load("emoji", "val", n=6, size=32, seed=5, cache=tmp_path / "cache")
    assert fresh.fingerprint() == wanted.fingerprint() != lab.val.fingerprint()
    assert fresh.split == "val" and fresh.classes == lab.classes
    assert not set(fresh.ids) & {*lab.val.ids, *lab.train.ids}
    assert lab.fresh(3).fingerprint() == lab.val.fingerprint()  # the seed of its own
    yours = Lab(tmp_path, "tiny", "04_mine", {**lab.parameters, "dataset": "folder"})
    vars(yours)["val"] = lab.val
    assert yours.fresh(5) is lab.val  # photos are not made on the spot


def test_the_victim_of_the_profile_gives_classes_and_clean_logits(tmp_path, monkeypatch):
    made = victims.recipe("small", epochs=1, batch=8, seed=0)
    first = opened(tmp_path, monkeypatch)
    victim = victims.train(made, first.train, first.val, device="cpu")
    victims.save(victim, made, first.runs / "victim.safetensors")
    without_training_set = "\n".join(
        line for line in PARAMETERS.splitlines() if not line.startswith(("train_csv", "n_train"))
    )
    lab = opened(tmp_path, monkeypatch, without_training_set)
    assert torch.equal(lab.clean_logits, victims.predict(victim.model, first.val))
    assert lab.victim.key == victim.key and "train" not in vars(lab)
    assert "victim: mean per-image AP" in repr(lab)


def test_what_shapes_a_result_is_recorded_and_where_it_ran_is_not(tmp_path, monkeypatch):
    lab = opened(tmp_path, monkeypatch, tables="abc")
    assert lab.parameters == {
        **{"profile": "tiny", "dataset": "emoji", "train_csv": None, "val_csv": None},
        **{"data_root": None, "data_options": {}, "n_train": 8, "n_val": 6, "size": 32},
        **{"seed": 3, "tables": "abc"},
    }
    assert lab.device == "cpu" and lab.root == tmp_path


def test_a_notebook_elsewhere_is_found_in_the_workspace_or_named(tmp_path, monkeypatch):
    opened(tmp_path, monkeypatch)
    monkeypatch.chdir(tmp_path)
    variables = {"workspace": str(tmp_path), "profile": "tiny", "dataset": "emoji"}
    with pytest.raises(ValueError, match="04_yours"):
        open_lab("04_yours", variables)
    with pytest.raises(ValueError, match=r"variables: .*'seed'"):
        open_lab("04_mine", variables)


def test_results_of_several_methods_are_one_table_or_the_notebook_is_named(tmp_path):
    lab = Lab(tmp_path, "tiny", "08_tables", {})
    for name, notebook in (("tkmia", "06_attack_many_images"), ("gmla", "07_baselines")):
        with pytest.raises(ValueError, match=notebook):
            lab.results([name])
        save_results(pd.DataFrame({"method": [name]}), lab.runs / f"attack-{name}.parquet")
    assert lab.results(["gmla", "tkmia"])["method"].tolist() == ["gmla", "tkmia"]


def test_arguments_of_a_half_leave_out_what_is_not_given_and_options_win():
    given = {"dataset": "voc", "data_root": "voc", "val_csv": None, "size": 96, "seed": 0}
    given["data_options"] = {"size": 64, "resize": "crop"}
    assert data_arguments(given, "val") == {
        **{"dataset": "voc", "split": "val", "root": "voc", "size": 64, "seed": 0},
        **{"resize": "crop"},
    }


def test_paths_start_from_the_notebooks_folder(tmp_path):
    given = {"val_csv": "../mine/val.csv", "train_csv": None, "data_options": {"images": "photos"}}
    found = located(given, tmp_path / "notebooks")
    assert found["val_csv"] == str(tmp_path / "mine" / "val.csv") and found["train_csv"] is None
    assert found["data_options"] == {"images": str(tmp_path / "notebooks" / "photos")}
    assert given["data_options"] == {"images": "photos"}


@pytest.mark.parametrize("variables", [None, {}, {"workspace": None}])
def test_variables_without_a_workspace_are_refused(variables):
    with pytest.raises(ValueError, match=r"^variables: .*workspace"):
        open_lab("02_lemma", variables)


@pytest.mark.parametrize("methods", [[], "tkmia"])
def test_results_of_no_method_are_refused(methods, tmp_path):
    with pytest.raises(ValueError, match=r"^methods: "):
        Lab(tmp_path, "smoke", "08_tables_and_figures", {}).results(methods)
