"""Promises of the plan: it counts what a run then does, and says when it is only a bound."""

import pytest
import torch

from tkmia_utils import Runtime, victims
from tkmia_utils.data import load, types_of
from tkmia_utils.experiments import examples, protocol
from tkmia_utils.pipeline import cost, runner
from tkmia_utils.pipeline import profile as plan
from tkmia_utils.pipeline.cost import Pilot, makespan


def stepwise(needed, slots):
    """The queue played through, one iteration at a time."""
    waiting, working, steps = list(needed), [], 0
    while waiting or working:
        while waiting and len(working) < slots:
            working.append(waiting.pop(0))
        working = [left - 1 for left in working if left > 1]
        steps += 1
    return steps


@pytest.mark.parametrize("slots", [1, 2, 3, 16])
def test_the_makespan_is_that_of_slots_refilled_in_order(slots):
    generator = torch.Generator().manual_seed(slots)
    for n in (1, 2, 7, 40):
        needed = torch.randint(1, 30, (n,), generator=generator).tolist()
        assert makespan(needed, slots) == stepwise(needed, slots)
    assert makespan([], slots) == 0


def test_a_pilot_stands_for_more_rows_than_it_has():
    pilot = Pilot((2, 4), 0.5, 1)
    assert pilot.cost(6) == (18, 9.0)
    assert pilot.cost(0) == (0, 0.0)


@pytest.fixture(scope="module")
def workshop(tmp_path_factory):
    """A small victim on few scenes, and a profile that attacks with it."""
    root = tmp_path_factory.mktemp("plan")
    (root / "notebooks").symlink_to(plan.PROFILES.parents[2] / "notebooks")
    return root


def study(root, **more):
    settings = {"n_train": "96", "n_val": "80", "size": "48", "n": "3", "limits": "[4, 8]", **more}
    profile = plan.load_profile("smoke")
    return {
        name: values
        for name, values in plan.resolve(profile, root, settings).items()
        if name in ("03_data", "04_victim", "06_attack_many_images", "07_baselines")
    }


def test_without_a_victim_or_a_committed_run_every_image_counts_with_its_limit(workshop):
    parameters = study(workshop, lrs="[0.001]")
    table, note = cost.estimate(parameters, "smoke", workshop, start=1.0)
    assert "No victim is trained" in note
    assert (table["minutes"] > 0).all() and (table["GB"] > 0).all()
    val = load("emoji", "val", n=80, size=48, cache=workshop / "cache")
    given = parameters["06_attack_many_images"]
    cells = protocol.list_cells(["Vehicles", "Animals", "Household", "Person"],
                           given["ks"], given["pairs"])  # fmt: skip
    none = torch.zeros(80, 20)
    queue = protocol.build_queue(cells, val, none, types_of(val), n=3, rule="paper")
    most = (len(queue.k) + len(cells)) * 9  # eight iterations and the verdict on the last
    assert table.loc["06_attack_many_images", "image-iterations"] == most
    assert f"{table['image-iterations'].iloc[:-1].sum():,} image-iterations" in note
    assert table.loc["all", "minutes"] == pytest.approx(table["minutes"].iloc[:-1].sum())


def test_with_a_trained_victim_the_image_iterations_are_those_of_a_run(workshop):
    parameters = study(workshop, lrs="[0.001]")
    train, val = (load("emoji", split, n=n, size=48, cache=workshop / "cache")
                  for split, n in (("train", 96), ("val", 80)))  # fmt: skip
    made = victims.recipe("small", epochs=2, seed=0)
    victim = victims.train(made, train, val, device="cpu")
    folder = workshop / "runs" / "smoke"
    folder.mkdir(parents=True, exist_ok=True)
    victims.save(victim, made, folder / "victim.safetensors")
    table, note = cost.estimate(parameters, "smoke", workshop, start=1.0)
    assert "the victim is trained" in note
    given = parameters["06_attack_many_images"]
    types = types_of(val)
    cells = protocol.list_cells(list(types), given["ks"], given["pairs"])
    logits = victims.predict(victim.model, val)
    queue = protocol.build_queue(cells, val, logits, types, n=3, seed=0)
    rows, _ = protocol.run(victim.model, queue, val, max_iter=8)
    shown, _ = protocol.run(
        victim.model,
        queue.rows(examples.median_positions(rows)),
        val,
        max_iter=8,
        runtime=Runtime(slots=16),
    )
    really = sum(int((frame["iterations"] + 1).sum()) for frame in (rows, shown))
    planned = table.loc["06_attack_many_images", "image-iterations"]
    assert really / 1.5 <= planned <= really * 1.5
    (folder / "victim.safetensors").unlink()


def test_the_command_line_prints_a_table_and_runs_nothing(workshop, capsys):
    call = ["--plan", "smoke", "--root", str(workshop), "--only", "03_data",
            "--set", "n_train=64", "n_val=64", "size=48"]  # fmt: skip
    assert runner.main(call) == 0
    told = capsys.readouterr().out
    assert "| 03_data" in told and "minutes" in told and "GB" in told
    assert not (workshop / "runs" / "smoke" / "run.json").exists()


def test_an_unknown_profile_is_refused(capsys):
    assert runner.main(["--plan", "vok"]) == 2
    assert "did you mean 'voc'" in capsys.readouterr().err


def test_what_a_committed_run_says_is_read_from_its_tables(tmp_path):
    table = (
        'method,success,iterations\nkfool,0.9 [0 1],5 [1 9]\nkfool,"0.250 [0, 1]","7.7 [6, 9]"\n'
    )
    (tmp_path / "07_overall.csv").write_text(table)
    hundred = cost.recorded(tmp_path)["kfool"](50)
    assert sorted(set(hundred)) == [9, 51] and hundred.count(9) == 25
    assert cost.recorded(tmp_path / "absent") == {}
