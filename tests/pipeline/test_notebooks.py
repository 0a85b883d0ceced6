"""The notebooks themselves, headless: the embedded default and a folder of pictures."""

import csv
import json
from pathlib import Path

import pandas as pd
import pytest
import yaml
from PIL import Image

from tkmia_utils import data, workspace
from tkmia_utils.pipeline import runner

ROOT = Path(__file__).parents[2]
SAMPLES = ROOT.parent / "shared" / "samples"
SMOKE = ROOT / "tkmia_utils" / "pipeline" / "profiles" / "smoke.yaml"

pytestmark = pytest.mark.notebook


def listed(root: Path, profile: str) -> dict:
    return json.loads((root / "runs" / profile / "figures" / "manifest.json").read_text())


def listed_notebooks() -> list[str]:
    steps = yaml.safe_load((SMOKE.parent / "quick.yaml").read_text())["notebooks"]
    return [step["notebook"] for step in steps]


def test_every_notebook_runs_and_lists_what_it_made(workshop):
    assert runner.main(["--profile", "smoke", "--root", str(workshop), "--update"]) == 0
    made = listed(workshop, "smoke")
    assert {entry["notebook"] for entry in made.values()} == set(listed_notebooks())
    assert workspace.stale(workshop, "smoke") == []
    rows = workspace.load_results(workshop / "runs" / "smoke" / "attack-tkmia.parquet")
    assert set(rows["scheme"]) == {"S1", "S2"} and rows["success"].any()
    table = pd.read_csv(workshop / "runs" / "smoke" / "figures" / "08_numbers_S2.csv")
    assert set(table["method"]) == {"tkmia", "tkml_ap_u", "ml_cw_u", "kfool", "gmla"}


def test_a_second_run_has_nothing_to_do(workshop, capsys):
    assert runner.main(["--profile", "smoke", "--root", str(workshop)]) == 0
    told = capsys.readouterr()
    assert (told.out + told.err).count("up to date") == len(listed_notebooks())


def test_the_same_notebooks_run_on_a_folder_of_pictures(workshop, tmp_path):
    """Pictures as files with a CSV take the place of the default by parameters alone."""
    paths = {}
    for split, n in (("train", 128), ("val", 120)):
        made = data.load("emoji", split, n=n, size=64, seed=7, cache=tmp_path)
        paths[split] = tmp_path / f"{split}.csv"
        with open(paths[split], "w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["image", "labels"])
            for i in range(n):
                name = f"{made.ids[i]}.png"
                Image.fromarray(made.load(i).permute(1, 2, 0).numpy()).save(tmp_path / name)
                names = [made.classes[c] for c in made.labels[i].nonzero().flatten().tolist()]
                writer.writerow([name, ";".join(names)])
    profile = tmp_path / "pictures.yaml"
    text = {
        "name": "pictures",
        "note": "generated pictures, read as files",
        "extends": str(SMOKE),
        "notebooks": [{"notebook": "06_attack_many_images", "parameters": {"lrs": [0.1]}}],
        "common": {
            "dataset": "folder",
            "train_csv": str(paths["train"]),
            "val_csv": str(paths["val"]),
        },
    }
    profile.write_text(yaml.safe_dump(text))
    only = ["03_data", "04_victim", "05_attack_step_by_step", "06_attack_many_images"]
    assert runner.main(["--profile", str(profile), "--root", str(workshop), "--only", *only]) == 0
    rows = workspace.load_results(workshop / "runs" / "pictures" / "attack-tkmia.parquet")
    assert set(rows["dataset"]) == {"folder"} and rows["success"].any()


@pytest.mark.skipif(not SAMPLES.is_dir(), reason=f"no real photos at {SAMPLES}")
def test_the_whole_voc_profile_runs_on_real_photos_in_a_smoke_size(workshop, tmp_path):
    """The profile itself, notebooks 03 to 12, a ResNet-50; fewer images, pixels and iterations."""
    sizes = {
        **{"n": 2, "n_tune": 1, "limits": [3, 6], "lrs": [0.01], "alphas": [0.0001]},
        **{"ks": [1], "pairs": [[1, 1, 1]], "rule": "paper"},
    }
    primer = {"k": 1, "look": 3, "radii": [1.0, 2.0], "steps": 2, "budgets": [0.5], "alphas": [9]}
    changes = {"weights": "scratch", "epochs": 1, "batch": 20}
    few = {**{name: sizes[name] for name in ("ks", "pairs", "rule")}, "n": 1, "resamples": 20}
    text = {
        "name": "voc-smoke",
        "extends": "voc",
        "time_limit": 1800,
        "common": {"data_root": str(SAMPLES / "voc2012"), "size": 64},
        "notebooks": [
            {"notebook": "04_victim", "parameters": {"changes": changes, "workers": 0}},
            {"notebook": "04b_primer", "parameters": primer | {"max_iter": 4}},
            {"notebook": "05_attack_step_by_step", "parameters": {"k": 1, "max_iter": 6}},
            {"notebook": "06_attack_many_images", "parameters": sizes},
            {"notebook": "07_baselines", "parameters": {**sizes, "n_variants": 2}},
            {
                "notebook": "08_tables_and_figures",
                "parameters": {"limit": 6, "least": 1, "resamples": 20},
            },
            {
                "notebook": "10_imperceptible",
                "parameters": {**few, "n_all": 2, "max_iter": 4},
            },
            {
                "notebook": "11_minimal_norm",
                "parameters": {
                    **{**few, "budgets": [2, 4], "confidences": [0.0, 1.0]},
                    "other_seed": {**changes, "seed": 1},
                    "other_net": {},
                },
            },
            {
                "notebook": "12_monitor",
                "parameters": {
                    **{"k": 1, "others": [], "pairs": [[1, 1, 1]], "rule": "paper", "n": 4},
                    **{"max_iter": 4, "calibration": 10, "arls": [20, 40], "within": 20},
                    **{"streams": 10, "null_streams": 10},
                },
            },
        ],
    }
    profile = tmp_path / "voc-smoke.yaml"
    profile.write_text(yaml.safe_dump(text))
    # a ResNet-50 after one epoch on 40 photos shows no label that 13 could defend
    steps = [n for n in listed_notebooks() if "02" < n[:2] < "13"]
    assert runner.main(["--profile", str(profile), "--root", str(workshop), "--only", *steps]) == 0
    for method in ("tkmia", "tkml_ap_u", "ml_cw_u", "kfool", "gmla"):
        path = workshop / "runs" / "voc-smoke" / f"attack-{method}.parquet"
        rows = workspace.load_results(path)
        assert set(rows["dataset"]) == {"voc"} and len(rows)
    quality = pd.read_csv(workshop / "runs" / "voc-smoke" / "figures" / "04_quality.csv")
    assert quality["images"].tolist() == [40]
