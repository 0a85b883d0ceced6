"""Promises of long work: chunks that are never done twice, and an honest search."""

import shutil
from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from test_protocol import CLASSES, TYPES, world  # noqa: F401  (a fixture)

from tkmia_utils import campaign, protocol
from tkmia_utils.victims import Victim


@pytest.fixture
def setting(world):  # noqa: F811
    model, data, logits = world
    cells = protocol.study(TYPES, [1, 2], [(2, 2, 1), (3, 2)])
    queue = protocol.line_up(cells, data, logits, TYPES, n=6)
    return Victim(model, [], "toy-victim", CLASSES), data, logits, cells, queue


CALL = dict(method="tkmia", limits=[5, 60], lr=1e-2, slots=4)


def test_chunks_change_no_number(setting, tmp_path):
    victim, data, _, _, queue = setting
    whole = campaign.run(victim, queue, data, folder=tmp_path / "a", **CALL)
    parts = campaign.run(victim, queue, data, folder=tmp_path / "b", chunk=5, **CALL)
    keys = ["max_iter", "cell", "image"]
    assert len(list((tmp_path / "b").iterdir())) > 1
    ordered = [frame.sort_values(keys).reset_index(drop=True) for frame in (whole, parts)]
    assert ordered[0].equals(ordered[1])


def test_a_killed_run_goes_on_with_the_chunk_it_had_not_saved(setting, tmp_path, monkeypatch):
    victim, data, _, _, queue = setting
    wanted = campaign.run(victim, queue, data, folder=tmp_path / "a", chunk=5, **CALL)
    attacked, real = [], protocol.run

    def interrupted(model, part, *args, **kwargs):
        if len(attacked) == 2:
            raise KeyboardInterrupt
        attacked.append(part)
        return real(model, part, *args, **kwargs)

    monkeypatch.setattr(protocol, "run", interrupted)
    with pytest.raises(KeyboardInterrupt):
        campaign.run(victim, queue, data, folder=tmp_path / "b", chunk=5, **CALL)
    assert len(list((tmp_path / "b").iterdir())) == 2
    calls = []
    monkeypatch.setattr(
        protocol, "run", lambda m, p, *a, **k: calls.append(p) or real(m, p, *a, **k)
    )
    again = campaign.run(victim, queue, data, folder=tmp_path / "b", chunk=5, **CALL)
    assert again.equals(wanted)
    assert sum(len(part.k) for part in calls) == len(queue.k) - 10


def test_another_setting_is_other_work(setting, tmp_path):
    victim, data, _, _, queue = setting
    for change in ({}, {"lr": 2e-2}, {"limits": [60]}, {"method": "gmla"}, {"slots": 3}):
        campaign.run(victim, queue, data, folder=tmp_path, **{**CALL, **change})
    other = Victim(victim.model, [], "another-victim", CLASSES)
    campaign.run(other, queue, data, folder=tmp_path, **CALL)
    assert len(list(tmp_path.iterdir())) == 6


def test_two_trainings_of_one_recipe_are_two_victims(setting, tmp_path):
    victim, data, _, _, queue = setting
    campaign.run(victim, queue, data, folder=tmp_path, **CALL)
    model = deepcopy(victim.model)
    model[1].bias.data[0] += 1e-6
    campaign.run(replace(victim, model=model), queue, data, folder=tmp_path, **CALL)
    campaign.run(
        replace(victim, model=deepcopy(victim.model)), queue, data, folder=tmp_path, **CALL
    )
    assert len(list(tmp_path.iterdir())) == 2


def test_weights_of_any_type_have_a_hash():
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))
    found = {campaign.weights(model)}
    assert campaign.weights(deepcopy(model)) in found
    assert campaign.weights(deepcopy(model).to(memory_format=torch.channels_last)) in found
    found |= {campaign.weights(deepcopy(model).to(kind)) for kind in (torch.half, torch.bfloat16)}
    model[1].num_batches_tracked += 1
    assert len(found | {campaign.weights(model)}) == 4


def test_a_plan_covers_the_queue_and_reads_no_image(setting):
    victim, data, _, _, queue = setting
    plan = campaign.shards(victim, queue, replace(data, load=None), chunk=5, **CALL)
    assert [i for shard in plan for i in shard.rows] == list(range(len(queue.k)))
    assert len({shard.id for shard in plan}) == len(plan)
    assert plan == campaign.shards(victim, queue, data, chunk=5, **CALL)
    assert torch.cat([shard.of(queue).index for shard in plan]).equal(queue.index)


def test_a_shard_is_done_once_and_alone(setting, tmp_path, monkeypatch):
    victim, data, _, _, queue = setting
    whole = campaign.run(victim, queue, data, folder=tmp_path / "a", chunk=5, **CALL)
    plan = campaign.shards(victim, queue, data, chunk=5, **CALL)
    for shard in reversed(plan):
        path = campaign.do(shard, victim, queue, data, folder=tmp_path / "b")
        assert path.read_bytes() == (tmp_path / "a" / shard.file).read_bytes()
    monkeypatch.setattr(protocol, "run", None)
    assert campaign.do(plan[0], victim, queue, data, folder=tmp_path / "b").is_file()
    assert campaign.merge(plan, tmp_path / "b").equals(whole)
    path.unlink()
    with pytest.raises(ValueError, match=path.name):
        campaign.merge(plan, tmp_path / "b")


def test_threads_belong_to_a_shard_and_are_set_back(setting, tmp_path, monkeypatch):
    victim, data, _, _, queue = setting
    before, real, used = torch.get_num_threads(), protocol.run, []

    def noted(*args, **kwargs):
        used.append(torch.get_num_threads())
        return real(*args, **kwargs)

    monkeypatch.setattr(protocol, "run", noted)
    for threads in (None, before, before + 1):
        campaign.run(victim, queue, data, folder=tmp_path, threads=threads, **CALL)
    assert used == [before, before + 1] and torch.get_num_threads() == before
    beside_gpu = campaign.shards(victim, queue, data, place="cuda", **CALL)
    assert {shard.threads for shard in beside_gpu} == {1}


BAD = {
    "chunk": (dict(chunk=0), "chunk: expected an int >= 1, got 0"),
    "threads": (dict(threads=True), "threads: expected an int >= 1, got True"),
    "limits": (dict(limits=[]), "limits"),
    "settings": (dict(alpha=torch.tensor(1e-4)), "settings: expected plain values"),
}


@pytest.mark.parametrize(("change", "message"), BAD.values(), ids=BAD.keys())
def test_what_cannot_be_planned_is_refused(setting, tmp_path, change, message):
    victim, data, _, _, queue = setting
    with pytest.raises(ValueError, match=message):
        campaign.run(victim, queue, data, folder=tmp_path, **{**CALL, **change})
    with pytest.raises(ValueError, match="queue"):
        campaign.run(victim, queue.rows([]), data, folder=tmp_path, **CALL)


def test_delta_relaxes_success(setting, tmp_path):
    victim, data, _, _, queue = setting
    rows = campaign.run(victim, queue, data, folder=tmp_path, **CALL)
    relaxed = rows[rows["cell"] == "k=2, |S|=2, δ=1"]
    assert set(relaxed["delta"]) == {1} and set(relaxed["s"]) == {2}
    strict = rows[rows["cell"] == "k=3, |S|=2"]
    assert set(strict["delta"]) == {2}


def test_the_search_runs_every_setting_and_follows_its_rule(setting):
    victim, data, logits, cells, queue = setting
    tuning = protocol.line_up(cells, data, logits, TYPES, n=2, without=queue.index)
    assert not set(tuning.index.tolist()) & set(queue.index.tolist())
    best, grid = campaign.search(
        victim,
        tuning,
        data,
        method="tkmia",
        lrs=[1e-4, 1e-2, 3e-2],
        alphas=[1e-4, 1e-1],
        max_iter=20,
    )
    assert len(grid) == 6 and set(grid["n"]) == {len(tuning.k)}
    assert grid["success"].nunique() > 1
    near = grid[grid["success"] >= grid["success"].max() - 0.01]
    line = near.loc[near["APer"].idxmin()]
    assert best == {"lr": line["lr"], "alpha": line["alpha"]}
    alone, _ = protocol.run(victim.model, tuning, data, max_iter=20, slots=16, **best)
    assert alone["success"].mean() == pytest.approx(line["success"])
    won = torch.tensor(alone[alone["success"]]["l2_paper"].to_numpy())
    assert float(won.double().mean()) == pytest.approx(line["APer"], rel=1e-5)


def test_a_method_without_rates_has_nothing_to_search(setting):
    victim, data, _, _, queue = setting
    best, grid = campaign.search(
        victim, queue, data, method="kfool", lrs=[1e-3], alphas=[1e-4], max_iter=5
    )
    assert best == {} and grid.empty
    with pytest.raises(ValueError, match="lrs"):
        campaign.search(victim, queue, data, method="tkmia", lrs=[], alphas=[1e-4], max_iter=5)


def test_other_code_is_other_work(setting, tmp_path, monkeypatch):
    victim, data, _, _, queue = setting
    package = tmp_path / "package"
    shutil.copytree(campaign.PACKAGE, package)
    monkeypatch.setattr(campaign, "PACKAGE", package)
    for module in ("losses.py", "figures.py", "methods/tkmia.py"):
        campaign.run(victim, queue, data, folder=tmp_path / "chunks", **CALL)
        (package / module).write_text((package / module).read_text() + "# changed\n")
    campaign.run(victim, queue, data, folder=tmp_path / "chunks", **CALL)
    assert len(list((tmp_path / "chunks").iterdir())) == 3  # figures draw, they decide no row
