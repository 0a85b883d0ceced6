"""Promises of the plan for long queues: measured parts, and arithmetic that can be checked."""

import time
from dataclasses import replace

import pytest
import torch

from tkmia_utils.data import MultiLabelDataset
from tkmia_utils.experiments import protocol
from tkmia_utils.pipeline import runner
from tkmia_utils.pipeline.scale import Driver, measured, reach


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


DRIVER = Driver(read=200.0, sent=2000.0, image_bytes=150_000.0, row_bytes=500.0)


def value(table, start):
    (line,) = table[table["what"].str.startswith(start)]["value"]
    return float(line.replace(",", "").split()[0])


def test_few_actors_wait_for_nobody_and_many_for_the_driver():
    few = reach(DRIVER, images=1_000_000, workers=100, each=2.0)
    assert value(few, "images a second that the actors") == 50
    assert value(few, "hours until") == value(few, "hours if") == pytest.approx(5.56, abs=0.01)
    assert value(few, "actors from which") == round(DRIVER.images * 2)
    many = reach(DRIVER, images=1_000_000, workers=1000, each=2.0)
    assert value(many, "hours until") == pytest.approx(1e6 / DRIVER.images / 3600, abs=0.01)
    assert value(many, "hours until") > 2 * value(many, "hours if")
    assert value(many, "MB a second") == pytest.approx(DRIVER.images * 0.15, abs=0.1)
    assert value(many, "KB a second") == 250


def test_a_driver_that_reads_slowly_is_measured_to_do_so():
    queue, data = tiny_queue()
    quick = measured(queue, data, seconds=0.1)

    def slow(i):
        time.sleep(0.02)
        return data.load(i)

    late = measured(queue, replace(data, load=slow), seconds=0.1)
    assert late.read <= 50 < quick.read and late.images < quick.images
    assert quick.image_bytes == pytest.approx(3 * data.size**2, rel=0.1)
    assert 0 < quick.row_bytes < 2000


def test_a_queue_without_a_plan_is_refused(capsys):
    assert runner.main(["--images", "1000"]) == 2
    assert "--images, --seconds: say them with --plan PROFILE" in capsys.readouterr().err


@pytest.mark.parametrize("change", [{"images": 0}, {"workers": -1}, {"each": 0.0}])
def test_numbers_that_cannot_be_are_refused(change):
    name = {"each": "seconds"}.get(*change, *change)
    with pytest.raises(ValueError, match=rf"^{name}: "):
        reach(DRIVER, **{"images": 10, "workers": 1, "each": 1.0, **change})
