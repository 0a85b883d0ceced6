"""The notebooks themselves, headless: the embedded default and a folder of pictures."""

import csv
import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
import yaml
from PIL import Image

from tkmia_utils import data, pipeline, results

ROOT = Path(__file__).parents[1]
SMOKE = ROOT / "tkmia_utils" / "profiles" / "smoke.yaml"

pytestmark = pytest.mark.notebook


@pytest.fixture(scope="module")
def workshop(tmp_path_factory) -> Path:
    """A folder with the notebooks and nothing else."""
    root = tmp_path_factory.mktemp("workshop")
    shutil.copytree(ROOT / "notebooks", root / "notebooks", ignore=shutil.ignore_patterns(".*"))
    return root


def listed(root: Path, profile: str) -> dict:
    return json.loads((root / "figures" / profile / "manifest.json").read_text())


def test_every_notebook_runs_and_lists_what_it_made(workshop):
    assert pipeline.main(["--profile", "smoke", "--root", str(workshop)]) == 0
    made = listed(workshop, "smoke")
    steps = yaml.safe_load((SMOKE.parent / "quick.yaml").read_text())["notebooks"]
    assert {entry["notebook"] for entry in made.values()} == {s["notebook"] for s in steps}
    assert results.stale(workshop, "smoke") == []
    rows = results.load_results(workshop / "runs" / "smoke" / "attack-tkmia.parquet")
    assert set(rows["scheme"]) == {"S1", "S2"} and rows["success"].any()
    table = pd.read_csv(workshop / "figures" / "smoke" / "08_numbers_S2.csv")
    assert set(table["method"]) == {"tkmia", "tkml_ap_u", "ml_cw_u", "kfool", "gmla"}


def test_a_second_run_has_nothing_to_do(workshop, capsys):
    assert pipeline.main(["--profile", "smoke", "--root", str(workshop)]) == 0
    told = capsys.readouterr()
    assert (told.out + told.err).count("up to date") == 9


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
        "notebooks": [{"notebook": "06_attack_loop", "parameters": {"lrs": [0.1]}}],
        "common": {
            "dataset": "folder",
            "train_csv": str(paths["train"]),
            "val_csv": str(paths["val"]),
        },
    }
    profile.write_text(yaml.safe_dump(text))
    only = ["03_data", "04_victim", "05_attack_step_by_step", "06_attack_loop"]
    assert pipeline.main(["--profile", str(profile), "--root", str(workshop), "--only", *only]) == 0
    rows = results.load_results(workshop / "runs" / "pictures" / "attack-tkmia.parquet")
    assert set(rows["dataset"]) == {"folder"} and rows["success"].any()
