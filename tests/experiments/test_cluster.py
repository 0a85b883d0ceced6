"""Promises of campaigns on a cluster: the same bytes as here, whatever dies meanwhile."""

import ast
import io
import os
import signal
import subprocess
import sys
import threading
import time
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch
from PIL import Image
from torch import nn

from tkmia_utils.data import MultiLabelDataset
from tkmia_utils.data.image_files import ImageFiles
from tkmia_utils.experiments import campaign, cluster, protocol, sending
from tkmia_utils.experiments.campaign import Campaign
from tkmia_utils.victims.store import Victim

os.environ.update(
    RAY_USAGE_STATS_ENABLED="0",
    RAY_DISABLE_IMPORT_WARNING="1",
    RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO="0",
)
ray = pytest.importorskip("ray")
ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # actors cannot import a test
CALL = dict(method="tkmia", limits=[5, 40], slots=4, chunk=6, threads=1, settings={"lr": 1e-2})
NODE = dict(num_cpus=1, object_store_memory=80 * 2**20)


def tiny_world() -> tuple[Victim, protocol.Queue, MultiLabelDataset]:
    """A convolutional victim, and a queue of 60 images labelled by its own highest classes."""
    generator = torch.Generator().manual_seed(0)
    model = nn.Sequential(
        *(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(4)),
        *(nn.Flatten(), nn.Linear(128, 8)),
    ).eval()
    for parameter in model.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator)
    pixels = torch.randint(0, 256, (80, 3, 12, 12), generator=generator, dtype=torch.uint8)
    logits = model(pixels / 255).detach()
    labels = torch.zeros_like(logits, dtype=torch.bool).scatter_(1, logits.topk(5).indices, True)
    unpicklable = threading.Lock()

    def load(i: int) -> torch.Tensor:
        with unpicklable:
            return pixels[i]

    data = MultiLabelDataset(
        name="toy", split="val", classes=tuple("abcdefgh"), labels=labels,
        ids=tuple(f"i{n}" for n in range(80)), load=load, card="toy", size=12,
    )  # fmt: skip
    cells = protocol.list_cells([], [], [(2, 2), (3, 2)])
    queue = protocol.build_queue(cells, data, logits, {}, n=30)
    return Victim(model, [], "tiny", data.classes), queue, data


def planned(
    victim: Victim, queue: protocol.Queue, data: MultiLabelDataset, folder: Path
) -> Campaign:
    # no trial: the driver's own passes would meet the hooks that are meant for the actors
    settings = {**CALL["settings"], "fold": False, "channels_last": False}
    return Campaign(victim, queue, data, folder=folder, **{**CALL, "settings": settings})


def watched(victim: Victim, hook) -> Victim:
    """The same victim, who calls `hook` with the images before every pass."""
    model = deepcopy(victim.model)
    model.register_forward_pre_hook(lambda _, images: hook(images[0]))
    return replace(victim, model=model)


def whole(frame: pd.DataFrame) -> bytes:
    return frame.to_parquet()


def on_disk(world, folder: Path, seen_at: Path | None = None):
    """The same world with a PNG an image; its paths are in `folder` or where that is seen."""
    victim, queue, data = world
    folder.mkdir()
    for i, name in enumerate(data.ids):
        Image.fromarray(data.load(i).permute(1, 2, 0).numpy()).save(folder / f"{name}.png")
    paths = tuple((seen_at or folder) / f"{name}.png" for name in data.ids)
    return victim, queue, replace(data, load=ImageFiles(paths, data.size))


def rows_of(table: bytes) -> pd.DataFrame:
    return pd.read_parquet(io.BytesIO(table))


def files(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}


@pytest.fixture(scope="module")
def world():
    return tiny_world()


@pytest.fixture(scope="module")
def local(world, tmp_path_factory):
    """A local run: its folder, and its table as bytes."""
    folder = tmp_path_factory.mktemp("local")
    return folder, whole(campaign.run(planned(*world, folder)))


# a driver that dies after three files, on a cluster of its own
KILLED = """
import os, signal, sys, test_cluster

written = []

def on_shard(path):
    written.append(path)
    if len(written) == 3:
        os.kill(os.getpid(), signal.SIGKILL)

test_cluster.cluster.run(
    test_cluster.planned(*test_cluster.tiny_world(), sys.argv[1]), engine="ray", workers=1,
    on_shard=on_shard,
)
"""


@pytest.fixture(scope="module")
def nodes():
    """Node machines of one CPU each, in this one; call it for as many as are needed."""
    from ray.cluster_utils import Cluster

    # a dead node is noticed within seconds
    quick = {"health_check_initial_delay_ms": 0, "health_check_period_ms": 500}
    spare = {"include_dashboard": False, "include_log_monitor": False, "no_monitor": True}
    head = {**NODE, **spare, "_system_config": quick}
    for tries_left in (2, 1, 0):
        try:
            machines = Cluster(initialize_head=True, head_node_args=head)
            break
        except Exception as error:  # the half minute that Ray allows a node may not do under load
            if not tries_left or "timed out during startup" not in str(error):
                raise
    ray.init(machines.address, log_to_driver=False, logging_level="ERROR")

    def grown(many: int) -> Cluster:
        for _ in range(many - 1 - len(machines.worker_nodes)):
            machines.add_node(wait=False, **NODE)
        machines.wait_for_nodes(timeout=120)
        return machines

    yield grown
    ray.shutdown()
    machines.shutdown()


def assert_same(folder: Path, rows: pd.DataFrame, local: tuple[Path, bytes]) -> None:
    assert whole(rows) == local[1]
    wanted = {path.name: path.read_bytes() for path in local[0].iterdir()}
    assert len(wanted) == 10
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == wanted


@pytest.mark.parametrize("many", [2, 3])
def test_several_nodes_give_the_bytes_of_a_local_run(world, local, nodes, tmp_path, many):
    nodes(3)  # of one CPU each, so that every actor is on a node of its own
    rows = cluster.run(planned(*world, tmp_path), engine="ray", workers=many)
    assert_same(tmp_path, rows, local)
    assert ray.is_initialized()  # as it was found


def test_three_nodes_that_see_the_files_read_them_themselves(
    world, local, nodes, tmp_path, monkeypatch
):
    nodes(3)
    shown = on_disk(world, tmp_path / "images")
    reads = []
    monkeypatch.setattr(ImageFiles, "__call__", lambda self, i: reads.append(i))  # of the driver
    rows = cluster.run(planned(*shown, tmp_path / "shards"), engine="ray", workers=3)
    pd.testing.assert_frame_equal(rows, rows_of(local[1]))
    assert not reads


@pytest.mark.skipif(not Path("/proc/self/cwd").exists(), reason="needs Linux's /proc")
def test_nodes_that_do_not_see_the_files_are_sent_the_pixels(
    world, local, nodes, tmp_path, monkeypatch
):
    nodes(2)
    # a path that leads every process to a folder of its own
    shown = on_disk(world, tmp_path / "images", Path("/proc/self/cwd"))
    monkeypatch.chdir(tmp_path / "images")
    reads, read = [], ImageFiles.__call__

    def counted(self, i):
        reads.append(self.paths[i].name)
        return read(self, i)

    monkeypatch.setattr(ImageFiles, "__call__", counted)
    rows = cluster.run(planned(*shown, tmp_path / "shards"), engine="ray", workers=2)
    pd.testing.assert_frame_equal(rows, rows_of(local[1]))
    assert len(reads) >= len(set(rows.image))


def test_a_shard_of_files_says_what_an_actor_would_not_read_alike(world, tmp_path):
    _, queue, data = on_disk(world, tmp_path / "images")
    part = queue.rows(range(4))
    at = torch.unique(part.index)
    digests = data.digests(at)
    _, lent = sending.lend(part, data, digests)
    assert isinstance(lent.load, ImageFiles) and not sending.changed(digests, lent)
    assert all(path.is_absolute() for path in lent.load.paths)
    blocked = tmp_path / "file" / "inside"  # no folder: not to be read, rather than missing
    blocked.parent.write_text("a file")
    elsewhere = replace(lent, load=replace(lent.load, paths=(blocked,) * len(lent)))
    assert sending.changed(digests, elsewhere) == list(lent.ids)
    held = replace(data, load=data.load.preloaded())
    for path in data.load.paths:
        path.unlink()
    _, sent = sending.lend(part, held, held.digests(at))
    assert not isinstance(sent.load, ImageFiles)  # as pixels, which a local run would take too
    assert torch.equal(sent.images(range(len(sent))), held.images(at))


def test_a_file_that_changes_during_the_run_fails_its_shard_alone(world, nodes, tmp_path):
    nodes(1)
    victim, queue, data = on_disk(world, tmp_path / "images")
    queue = queue.rows(range(30))  # no image twice
    late, other = (data.load.paths[queue.index[row]] for row in (27, 2))

    def on_shard(_):
        late.write_bytes(other.read_bytes())

    with pytest.raises(cluster.ShardError, match=f"'{late.stem}': its file is not") as caught:
        cluster.run(
            planned(victim, queue, data, tmp_path / "shards"), engine="ray", workers=1,
            on_shard=on_shard,
        )  # fmt: skip
    assert len(caught.value.failures) == 1 and len(files(tmp_path / "shards")) == 4


def test_a_node_that_dies_changes_no_byte(world, local, nodes, tmp_path):
    victim, queue, data = world
    machines, caught, lost = nodes(3), tmp_path / "caught", []
    doomed = next(iter(machines.worker_nodes))
    name = doomed.node_id

    def hook(_):
        if ray.get_runtime_context().get_node_id() == name:
            caught.touch()
            threading.Event().wait()  # for the end
        while not caught.exists():
            time.sleep(0.01)

    def on_shard(path):
        if not lost:
            lost.append(path)
            machines.remove_node(doomed, allow_graceful=False)

    rows = cluster.run(
        planned(watched(victim, hook), queue, data, tmp_path / "a"), engine="ray",
        on_shard=on_shard,
    )  # fmt: skip
    assert lost and whole(rows) == local[1]


def test_shards_that_fail_are_named_and_the_rest_is_done(world, nodes, tmp_path, monkeypatch):
    nodes(1)
    monkeypatch.setattr(cluster, "RETRIES", 0)
    victim, queue, data = world
    queue = queue.rows(range(30))  # no image twice
    broken, black, white = (data.ids[queue.index[row]] for row in (8, 14, 26))
    why = {
        broken: f"ValueError: image '{broken}': cannot be read",
        black: "ArithmeticError: cannot see",
        white: "its actor died 1 time",
    }

    def load(i):
        if data.ids[i] == broken:
            raise OSError("cannot be read")
        return data.load(i) * (data.ids[i] != black) | 255 * (data.ids[i] == white)

    def hook(images):
        if (images.flatten(1).amax(1) == 0).any():
            raise ArithmeticError("cannot see")
        if (images.flatten(1).amin(1) == 1).any():
            os._exit(1)

    other = replace(data, load=load)
    with pytest.raises(cluster.ShardError) as caught:
        cluster.run(planned(watched(victim, hook), queue, other, tmp_path), engine="ray", workers=1)
    plan = campaign.shards(planned(victim, queue, other, tmp_path))
    images = {s.id: [data.ids[i] for i in s.of(queue).index.tolist()] for s in plan}
    hit = [shard for shard in plan if set(why) & set(images[shard.id])]
    failures = caught.value.failures
    assert [failure.shard for failure in failures] == [shard.id for shard in hit]
    for failure in failures:
        assert failure.images == tuple(dict.fromkeys(images[failure.shard]))
        assert any(why[image] in failure.cause for image in set(why) & set(failure.images))
        for part in (failure.shard, failure.images[0], failure.cause, "tkmia"):
            assert part in str(caught.value)
    assert {reason for reason in why.values() if reason in str(caught.value)} == set(why.values())
    assert set(files(tmp_path)) == {shard.file for shard in plan if shard not in hit}


def test_a_killed_driver_goes_on_with_what_it_had_not_saved(
    world, local, nodes, tmp_path, monkeypatch, capsys
):
    home, folder = tmp_path / "home", tmp_path / "shards"
    around = {**os.environ, "HOME": str(home), "PYTHONPATH": os.pathsep.join(sys.path)}
    driver = subprocess.run([sys.executable, "-c", KILLED, str(folder)], env=around)
    assert driver.returncode == -signal.SIGKILL
    before, written = files(folder), []
    assert len(before) == 3
    nodes(1)
    monkeypatch.setenv("CI", "")
    rows = cluster.run(
        planned(*world, folder), engine="ray", workers=1, on_shard=written.append, progress=True,
    )  # fmt: skip
    assert len(written) == 7 and before.items() <= files(folder).items()
    assert_same(folder, rows, local)
    assert "60/60" in capsys.readouterr().err


def test_a_node_with_other_code_is_refused(world, nodes, tmp_path, monkeypatch):
    nodes(1)
    monkeypatch.setattr(campaign, "deciding_code_hash", lambda: "other")
    with pytest.raises(RuntimeError, match="other code"):
        cluster.run(planned(*world, tmp_path), engine="ray", workers=1)
    assert not files(tmp_path)


def test_what_is_on_disk_needs_no_cluster(world, local, monkeypatch):
    folder, wanted = local
    monkeypatch.setattr(ray, "init", None)
    for engine in cluster.ENGINES:
        assert whole(cluster.run(planned(*world, folder), engine=engine)) == wanted


BAD = {
    "engine": (dict(engine="dask"), "engine: expected one of local, ray"),
    "local address": (dict(engine="local", address="auto"), "address"),
    "workers": (dict(engine="ray", workers=0), "workers"),
    "no cpu": (dict(engine="ray", num_cpus=0), "num_cpus: expected a number above 0"),
    "gpu": (dict(engine="ray", num_gpus=-1), "num_gpus: expected a number"),
    "too many": (dict(engine="ray", num_cpus=64), "no node of the cluster has 64 CPUs"),
}


@pytest.mark.parametrize(("arguments", "message"), BAD.values(), ids=BAD.keys())
def test_what_cannot_be_is_refused(world, nodes, tmp_path, arguments, message):
    nodes(1)
    with pytest.raises(ValueError, match=message):
        cluster.run(planned(*world, tmp_path), **arguments)


def test_without_ray_the_error_says_what_to_install(world, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ValueError, match=r"pip install '.\[cluster\]'"):
        cluster.run(planned(*world, tmp_path), engine="ray")


def test_no_other_module_imports_ray_and_this_one_only_when_it_is_needed():
    for path in sorted(campaign.PACKAGE.rglob("*.py")):
        tree = ast.parse(path.read_text())
        found = []
        for node in ast.walk(tree):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            found += [node for name in names if name.split(".")[0] == "ray"]
        assert not found or path.name == "cluster.py", path
        assert not set(found) & set(tree.body), f"{path}: at import"
