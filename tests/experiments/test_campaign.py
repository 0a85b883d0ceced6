"""Promises of long work: chunks that are never done twice, and an honest search."""

import json
import os
import shutil
from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from PIL import Image
from test_protocol import CLASSES, TYPES, world  # noqa: F401  (a fixture)

from tkmia_utils import Runtime
from tkmia_utils.data import folder
from tkmia_utils.engine import trial
from tkmia_utils.engine.checkpoint import digest
from tkmia_utils.experiments import campaign, protocol
from tkmia_utils.experiments.campaign import Campaign
from tkmia_utils.experiments.tuning import search
from tkmia_utils.victims.store import Victim


@pytest.fixture(autouse=True)
def without_trials(monkeypatch):
    """A toy is run as it is, however slow the machine."""
    monkeypatch.setattr(trial, "TINY", float("inf"))


@pytest.fixture
def setting(world):  # noqa: F811
    model, data, logits = world
    cells = protocol.list_cells(TYPES, [1, 2], [(2, 2, 1), (3, 2)])
    queue = protocol.build_queue(cells, data, logits, TYPES, n=6)
    return Victim(model, [], "toy-victim", CLASSES), data, logits, cells, queue


CALL = dict(method="tkmia", limits=[5, 60], slots=4, settings={"lr": 1e-2})


def run(victim, queue, data, **call):
    return campaign.run(Campaign(victim, queue, data, **call))


def cut(victim, queue, data, **call):
    """The shards of a campaign, which do not depend on its folder."""
    return campaign.shards(Campaign(victim, queue, data, folder="", **call))


def test_chunks_change_no_number(setting, tmp_path):
    victim, data, _, _, queue = setting
    whole = run(victim, queue, data, folder=tmp_path / "a", **CALL)
    parts = run(victim, queue, data, folder=tmp_path / "b", chunk=5, **CALL)
    keys = ["max_iter", "cell", "image"]
    assert len(list((tmp_path / "b").iterdir())) > 1
    ordered = [frame.sort_values(keys).reset_index(drop=True) for frame in (whole, parts)]
    assert ordered[0].equals(ordered[1])


def test_a_killed_run_goes_on_with_the_chunk_it_had_not_saved(setting, tmp_path, monkeypatch):
    victim, data, _, _, queue = setting
    wanted = run(victim, queue, data, folder=tmp_path / "a", chunk=5, **CALL)
    attacked, real = [], protocol.run

    def interrupted(model, part, *args, **kwargs):
        if len(attacked) == 2:
            raise KeyboardInterrupt
        attacked.append(part)
        return real(model, part, *args, **kwargs)

    monkeypatch.setattr(protocol, "run", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(victim, queue, data, folder=tmp_path / "b", chunk=5, **CALL)
    assert len(list((tmp_path / "b").glob("*.parquet"))) == 2
    calls = []
    monkeypatch.setattr(
        protocol, "run", lambda m, p, *a, **k: calls.append(p) or real(m, p, *a, **k)
    )
    again = run(victim, queue, data, folder=tmp_path / "b", chunk=5, **CALL)
    assert again.equals(wanted)
    assert sum(len(part.k) for part in calls) == len(queue.k) - 10


def test_another_setting_is_other_work(setting, tmp_path):
    victim, data, _, _, queue = setting
    for change in (
        {},
        {"settings": {"lr": 2e-2}},
        {"limits": [60]},
        {"method": "gmla"},
        {"slots": 3},
    ):
        run(victim, queue, data, folder=tmp_path, **{**CALL, **change})
    other = Victim(victim.model, [], "another-victim", CLASSES)
    run(other, queue, data, folder=tmp_path, **CALL)
    assert len(list(tmp_path.glob("*.parquet"))) == 6


def test_two_trainings_of_one_recipe_are_two_victims(setting, tmp_path):
    victim, data, _, _, queue = setting
    run(victim, queue, data, folder=tmp_path, **CALL)
    model = deepcopy(victim.model)
    model[1].bias.data[0] += 1e-6
    run(replace(victim, model=model), queue, data, folder=tmp_path, **CALL)
    run(replace(victim, model=deepcopy(victim.model)), queue, data, folder=tmp_path, **CALL)
    assert len(list(tmp_path.glob("*.parquet"))) == 2


def test_weights_of_any_type_have_a_hash():
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))
    found = {digest(model.state_dict())}
    assert digest(deepcopy(model).state_dict()) in found
    assert digest(deepcopy(model).to(memory_format=torch.channels_last).state_dict()) in found
    found |= {
        digest(deepcopy(model).to(kind).state_dict()) for kind in (torch.half, torch.bfloat16)
    }
    model[1].num_batches_tracked += 1
    assert len(found | {digest(model.state_dict())}) == 4


def test_a_plan_covers_the_queue_and_decodes_no_image(setting):
    victim, data, _, _, queue = setting
    data = replace(data, digest=lambda index: [f"pixels {i}" for i in index])
    plan = cut(victim, queue, replace(data, load=None), chunk=5, **CALL)
    assert [i for shard in plan for i in shard.rows] == list(range(len(queue.k)))
    assert len({shard.id for shard in plan}) == len(plan)
    assert plan == cut(victim, queue, data, chunk=5, **CALL)
    assert torch.cat([shard.of(queue).index for shard in plan]).equal(queue.index)


def test_a_shard_is_done_once_and_alone(setting, tmp_path, monkeypatch):
    victim, data, _, _, queue = setting
    wanted = run(victim, queue, data, folder=tmp_path / "a", chunk=5, **CALL)
    whole = Campaign(victim, queue, data, folder=tmp_path / "b", chunk=5, **CALL)
    plan = campaign.shards(whole)
    for shard in reversed(plan):
        path = campaign.run_shard(whole, shard)
        assert path.read_bytes() == (tmp_path / "a" / shard.file).read_bytes()
    monkeypatch.setattr(protocol, "run", None)
    assert campaign.run_shard(whole, plan[0]).is_file()
    assert campaign.merge(plan, tmp_path / "b").equals(wanted)
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
        run(victim, queue, data, folder=tmp_path, threads=threads, **CALL)
    assert used == [before, before + 1] and torch.get_num_threads() == before
    beside_gpu = cut(victim, queue, data, place="cuda", **CALL)
    assert {shard.threads for shard in beside_gpu} == {1}


BAD = {
    "chunk": (dict(chunk=0), "chunk: expected an int >= 1, got 0"),
    "threads": (dict(threads=True), "threads: expected an int >= 1, got True"),
    "limits": (dict(limits=[]), "limits"),
    "settings": (dict(settings={"alpha": torch.tensor(1e-4)}), "settings: expected plain values"),
}


@pytest.mark.parametrize(("change", "message"), BAD.values(), ids=BAD.keys())
def test_what_cannot_be_planned_is_refused(setting, tmp_path, change, message):
    victim, data, _, _, queue = setting
    with pytest.raises(ValueError, match=message):
        run(victim, queue, data, folder=tmp_path, **{**CALL, **change})
    with pytest.raises(ValueError, match="queue"):
        run(victim, queue.rows([]), data, folder=tmp_path, **CALL)


def test_delta_relaxes_success(setting, tmp_path):
    victim, data, _, _, queue = setting
    rows = run(victim, queue, data, folder=tmp_path, **CALL)
    relaxed = rows[rows["cell"] == "k=2, |S|=2, δ=1"]
    assert set(relaxed["delta"]) == {1} and set(relaxed["s"]) == {2}
    strict = rows[rows["cell"] == "k=3, |S|=2"]
    assert set(strict["delta"]) == {2}


def test_the_search_runs_every_setting_and_follows_its_rule(setting):
    victim, data, logits, cells, queue = setting
    tuning = protocol.build_queue(cells, data, logits, TYPES, n=2, without=queue.index)
    assert not set(tuning.index.tolist()) & set(queue.index.tolist())
    best, grid = search(
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
    runtime = Runtime(slots=16)
    alone, _ = protocol.run(victim.model, tuning, data, max_iter=20, runtime=runtime, **best)
    assert alone["success"].mean() == pytest.approx(line["success"])
    won = torch.tensor(alone[alone["success"]]["l2_paper"].to_numpy())
    assert float(won.double().mean()) == pytest.approx(line["APer"], rel=1e-5)


def test_a_method_without_rates_has_nothing_to_search(setting):
    victim, data, _, _, queue = setting
    best, grid = search(victim, queue, data, method="kfool", lrs=[1e-3], alphas=[1e-4], max_iter=5)
    assert best == {} and grid.empty
    with pytest.raises(ValueError, match="lrs"):
        search(victim, queue, data, method="tkmia", lrs=[], alphas=[1e-4], max_iter=5)


def test_other_code_is_other_work(setting, tmp_path, monkeypatch):
    victim, data, _, _, queue = setting
    package = tmp_path / "package"
    shutil.copytree(campaign.PACKAGE, package)
    monkeypatch.setattr(campaign, "PACKAGE", package)

    def shard():
        return cut(victim, queue, data, **CALL)[0].id

    def changed(module, text):
        path = package / module
        old = path.read_text()
        path.write_text(old + text)
        found = shard()
        path.write_text(old)
        return found

    first = shard()
    # figures draw, training makes weights that have their own hash: they decide no row
    for module in ("report/figures.py", "victims/training.py", "data/emoji.py"):
        assert changed(module, "x = 1\n") == first
    for module in (
        "losses.py",
        "validation.py",
        "attacks/tkmia.py",
        "experiments/campaign.py",
        "data/folder.py",
    ):
        assert changed(module, "x = 1\n") != first
        assert changed(module, "\n\n# said again\n") == first


def test_a_module_that_has_moved_is_not_passed_over(tmp_path, monkeypatch):
    package = tmp_path / "package"
    shutil.copytree(campaign.PACKAGE, package)
    monkeypatch.setattr(campaign, "PACKAGE", package)
    assert len(campaign.deciding_code_hash()) == 64
    for module in ("engine/loop.py", "topk.py", "data/voc.py"):
        (package / module).rename(package / "away.py")
        with pytest.raises(ValueError, match="modules: there is no module 'tkmia_utils"):
            campaign.deciding_code_hash()
        (package / "away.py").rename(package / module)


def test_a_replaced_photo_redoes_the_shards_that_hold_it_and_no_other(setting, tmp_path):
    victim, data, _, _, queue = setting
    for i, name in enumerate(data.ids):
        pixels = data.load(i).permute(1, 2, 0).numpy()
        Image.fromarray(pixels).save(tmp_path / f"{name}.png", compress_level=0)
    rows = [";".join(c for c, y in zip(CLASSES, line, strict=True) if y) for line in data.labels]
    lines = ["image,labels", *(f"{i}.png,{row}" for i, row in zip(data.ids, rows, strict=True))]
    (tmp_path / "list.csv").write_text("\n".join(lines))

    def done():
        photos = folder(tmp_path / "list.csv", size=4, classes=CLASSES, cache=tmp_path / "cache")
        run(victim, queue, photos, folder=tmp_path / "shards", chunk=5, **CALL)
        return {path.name for path in (tmp_path / "shards").iterdir()}

    first = done()
    at = int(queue.index[7])
    path = tmp_path / f"{data.ids[at]}.png"
    os.utime(path, (1e9, 1e9))
    assert done() == first
    size = path.stat().st_size
    Image.fromarray(255 - data.load(at).permute(1, 2, 0).numpy()).save(path, compress_level=0)
    assert path.stat().st_size == size
    holds = sum(at in part.tolist() for part in queue.index.split(5))
    assert 0 < holds < len(first)
    assert len(done() - first) == holds


def test_the_layout_is_tried_once_and_kept_beside_the_shards(setting, tmp_path, monkeypatch):
    victim, data, _, _, queue = setting
    gains = iter([2.0])
    monkeypatch.setattr(trial, "TINY", 0.0)
    monkeypatch.setattr(trial, "_gain", lambda *_: next(gains))
    call = {**CALL, "limits": [5, 400]}
    first = run(victim, queue, data, folder=tmp_path, **call)
    (kept,) = tmp_path.glob("layout-*.json")
    assert json.loads(kept.read_text())["channels_last"] is True
    trial._TRIALS.clear()  # another process goes on
    shards = sorted(path.name for path in tmp_path.glob("*.parquet"))
    again = run(victim, queue, data, folder=tmp_path, **call)
    assert again.equals(first) and shards == sorted(p.name for p in tmp_path.glob("*.parquet"))
    plain = run(victim, queue, data, folder=tmp_path / "plain", **{
        **call, "settings": {**CALL["settings"], "fold": False, "channels_last": False},
    })  # fmt: skip
    assert plain.success.any() and plain.success.equals(first.success)
    assert len(list((tmp_path / "plain").iterdir())) == 1
