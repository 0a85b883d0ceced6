"""Promises of the command that trains a profile's victim, alone or together."""

import os
import subprocess
import sys

import pytest

from tkmia_utils import victims
from tkmia_utils.data import load
from tkmia_utils.pipeline import profile, train_victim

SMALL = ["n_train=64", "n_val=32", "size=48", "changes={epochs: 1, batch: 32}"]


@pytest.fixture
def root(tmp_path):
    (tmp_path / "notebooks").symlink_to(profile.PROFILES.parents[2] / "notebooks")
    return tmp_path


def test_the_victim_lies_where_notebook_04_looks_for_it(root, capsys):
    assert train_victim.main(["--profile", "smoke", "--root", str(root), "--set", *SMALL]) == 0
    assert "victim" in capsys.readouterr().out
    made = victims.recipe("small", epochs=1, batch=32, seed=0)
    scenes = load("emoji", "train", n=64, size=48, cache=root / "cache")
    key = victims.fingerprint(made, scenes)
    assert (root / "cache" / f"victim-{key}.safetensors").is_file()


def test_a_bad_profile_or_setting_is_refused(root, capsys):
    assert train_victim.main(["--profile", "vok", "--root", str(root)]) == 2
    assert "did you mean" in capsys.readouterr().err
    assert (
        train_victim.main(["--profile", "smoke", "--root", str(root), "--set", "recipe=resnet"])
        == 2
    )
    assert "recipe: expected one of" in capsys.readouterr().err


def test_two_processes_leave_one_victim(root):
    load("emoji", "train", n=64, size=48, cache=root / "cache")  # composed once, not twice
    load("emoji", "val", n=32, size=48, cache=root / "cache")
    run = ["torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m"]
    call = [
        "tkmia_utils.pipeline.train_victim",
        "--profile",
        "smoke",
        "--root",
        str(root),
        "--set",
        *SMALL,
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-m", *run, *call], env=environment, capture_output=True, text=True,
        timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (file,) = (root / "cache").glob("victim-*.safetensors")
    assert victims.load(file, device="cpu").history[0]["epoch"] == 1
