"""Trains the victim of a profile on all GPUs of a machine, for notebook 04 to find.

``torchrun --nproc-per-node 4 -m tkmia_utils.pipeline.train_victim --profile voc`` starts one
process a GPU; without ``torchrun`` it is one process. Killed and started again, it goes on from its
last checkpoint.
"""

import argparse
import os
import sys
from datetime import timedelta
from pathlib import Path

import torch
from torch import distributed

from tkmia_utils import victims
from tkmia_utils.experiments.lab import Lab, located
from tkmia_utils.pipeline import profile as plan

NOTEBOOK = "04_victim"


def train_profile(
    profile: str, root: str = ".", settings: dict[str, str] | None = None, *, workers: int = 0
) -> victims.Victim:
    """Train, or load, the victim that notebook 04 of a profile asks for.

    Parameters
    ----------
    profile : str
        As for the pipeline, whose ``--set`` are the `settings`.
    root : str
        Folder that holds ``notebooks/`` and ``cache/``.
    workers : int
        Processes a GPU that decode images.

    Returns
    -------
    Victim
        Also saved in ``cache/``, under the name that the notebook looks for.

    Raises
    ------
    ValueError
        A bad profile or setting, or data that cannot be read.
    """
    resolved = plan.resolve(plan.load_profile(profile), root, settings)
    plan.check_known(NOTEBOOK, resolved, f"profile {profile}", "a notebook of it")
    # paths start from the notebook's folder
    given = located(resolved[NOTEBOOK], Path(root) / "notebooks")
    lab = Lab(root, profile, NOTEBOOK, given)
    recipe = victims.recipe(given["recipe"], **given["changes"], seed=given["seed"])
    return victims.load_or_train(
        recipe, lab.train, lab.val, cache=lab.cache, device=given["device"],
        report=print, progress=True, workers=workers,
    )  # fmt: skip


def main(arguments: list[str] | None = None) -> int:
    """Command line; returns 0, or 2 for a bad call."""
    parser = argparse.ArgumentParser(
        prog="python -m tkmia_utils.pipeline.train_victim", description=__doc__
    )
    parser.add_argument("--profile", default="quick", help="a name, or a path that ends in .yaml")
    parser.add_argument("--set", nargs="+", default=[], action="extend", metavar="NAME=VALUE")
    parser.add_argument("--root", default=".", help="the folder that holds notebooks/")
    parser.add_argument("--workers", type=int, default=0, help="processes a GPU that decode images")
    given = parser.parse_args(arguments)
    together = "RANK" in os.environ  # set by torchrun
    if together:
        gpus = torch.cuda.is_available()
        if gpus:
            torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        distributed.init_process_group("nccl" if gpus else "gloo", timeout=timedelta(hours=2))
    try:
        settings = dict(item.split("=", 1) for item in given.set)
        victim = train_profile(given.profile, given.root, settings, workers=given.workers)
        print(f"victim {victim.key}: {victim.history[-1] if victim.history else 'untrained'}")
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    finally:
        if together:
            distributed.destroy_process_group()
    return 0


if __name__ == "__main__":
    sys.exit(main())
