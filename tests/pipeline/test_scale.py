"""Promises of the plan for long queues: measured parts, and arithmetic that can be checked."""

import time
from dataclasses import replace

import pytest
import torch
from PIL import Image

from tkmia_utils.data import MultiLabelDataset
from tkmia_utils.data.image_files import ImageFiles
from tkmia_utils.experiments import protocol
from tkmia_utils.experiments.sending import lend, pack
from tkmia_utils.pipeline import runner
from tkmia_utils.pipeline.scale import Driver, Handing, measured, reach


def tiny_queue():
    """Ninety rows on thirty images of noise."""
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (30, 3, 64, 64), generator=generator, dtype=torch.uint8)
    labels = torch.ones(30, 8, dtype=torch.bool)
    labels[:, 6:] = False
    data = MultiLabelDataset(
        name="toy", split="val", classes=tuple("abcdefgh"), labels=labels,
        ids=tuple(f"i{n}" for n in range(30)), load=pixels.__getitem__, card="toy", size=64,
    )  # fmt: skip
    cells = protocol.list_cells([], [1, 2, 3], [(1, 1), (2, 1), (3, 1)])
    return protocol.build_queue(cells, data, torch.rand(30, 8), {}, n=30, rule="paper"), data


DRIVER = Driver(
    hashed=1000.0, paths=Handing(4000.0, 600.0), pixels=Handing(200.0, 150_500.0),
    saved=1e6, merged=1e5,
)  # fmt: skip
OWN, LENT = "the driver reads them", "actors read the files"


def value(table, start, column):
    (line,) = table[table["what"].str.startswith(start)][column]
    return float(line.replace(",", "").split()[0])


def test_few_actors_wait_for_nobody_and_many_for_a_driver_that_reads():
    few = reach(DRIVER, images=1_000_000, workers=100, each=2.0, chunk=100)
    for column in (OWN, LENT):
        assert value(few, "images a second that the actors", column) == 50
        assert value(few, "hours until", column) == value(few, "hours if", column) == 5.56
    many = reach(DRIVER, images=1_000_000, workers=1000, each=2.0, chunk=100)
    most = 1 / (1 / 200 + 1 / 1e6)
    assert value(many, "actors from which", OWN) == round(2 * most)
    assert value(many, "hours until", OWN) == pytest.approx(1e6 / most / 3600, abs=0.01)
    assert value(many, "hours until", OWN) > 2 * value(many, "hours if", OWN)
    assert value(many, "MB a second", OWN) == pytest.approx(most * 0.1505, abs=0.1)
    assert value(many, "MB a second", LENT) == pytest.approx(500 * 600 / 1e6)
    assert value(many, "hours until", LENT) == value(many, "hours if", LENT)
    assert value(many, "minutes to hash", LENT) == 16.7
    assert value(many, "minutes to read the results", LENT) == 0.2
    idle = reach(DRIVER, images=1_000_000, workers=1000, each=2.0, chunk=2000)  # 500 shards
    assert value(idle, "images a second that the actors", LENT) == 250


def test_a_driver_that_reads_slowly_is_measured_to_do_so():
    queue, data = tiny_queue()
    quick = measured(queue, data, seconds=0.1)

    def slow(i):
        time.sleep(0.02)
        return data.load(i)

    late = measured(queue, replace(data, load=slow), seconds=0.1)
    assert late.pixels.images <= 50 < quick.pixels.images
    pixels = 3 * data.size**2
    assert pixels < quick.pixels.size < 1.3 * pixels
    assert quick.paths is None
    assert list(reach(quick, images=10, workers=1, each=1.0)) == ["what", OWN]
    for rate in (quick.hashed, quick.saved, quick.merged):
        assert rate > 0


def test_of_files_the_paths_are_handed_out_without_being_read(tmp_path, monkeypatch):
    queue, data = tiny_queue()
    paths = []
    for i, name in enumerate(data.ids):
        paths.append(tmp_path / f"{name}.png")
        Image.fromarray(data.load(i).permute(1, 2, 0).numpy()).save(paths[-1])
    shown = replace(data, load=ImageFiles(tuple(paths), data.size))
    found = measured(queue, shown, seconds=0.1)
    assert found.paths.size < 3000 < found.pixels.size
    part = queue.rows(range(5))
    monkeypatch.setattr(ImageFiles, "__call__", None)
    own, sent = lend(part, shown, [])
    assert [sent.ids[i] for i in own.index] == [data.ids[i] for i in part.index]
    with pytest.raises(ValueError, match="i0"):
        pack(part, shown, [])


def test_a_queue_without_a_plan_is_refused(capsys):
    assert runner.main(["--images", "1000"]) == 2
    assert "--images, --seconds: say them with --plan PROFILE" in capsys.readouterr().err


@pytest.mark.parametrize("change", [{"images": 0}, {"workers": -1}, {"each": 0.0}])
def test_numbers_that_cannot_be_are_refused(change):
    name = {"each": "seconds"}.get(*change, *change)
    with pytest.raises(ValueError, match=rf"^{name}: "):
        reach(DRIVER, **{"images": 10, "workers": 1, "each": 1.0, **change})
