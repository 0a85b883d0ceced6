"""Promises of the queue that streams: the images may be anywhere, and never all in memory."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch
from sweeps import attack
from test_engine import net, same, task

from tkmia_utils.data import MultiLabelDataset
from tkmia_utils.engine.images import ImageSource, Reader, positions


class Shelf:
    """Images behind a function; remembers what was read, and by whom."""

    def __init__(self, images: torch.Tensor) -> None:
        self.pixels, self.read, self.threads = images, [], set()

    def __len__(self) -> int:
        return len(self.pixels)

    def images(self, index: torch.Tensor) -> torch.Tensor:
        assert index.dtype == torch.int64
        self.read += index.tolist()
        self.threads.add(threading.current_thread().name)
        return self.pixels[index].clone()


def world(n=11):
    model = net()
    return model, *task(model, n, k=3, m=2, side=16, classes=10)


CALL = dict(lr=0.05, slots=3, max_iter=60)


@pytest.mark.parametrize("method", ["tkmia", "kfool"])
def test_a_source_gives_the_bits_of_the_tensor_it_holds(method):
    model, images, labels, specified = world()
    wanted = attack(model, images, labels, specified, 3, method=method, **CALL)
    shelf = Shelf(images)
    found = attack(model, shelf, labels, specified, 3, method=method, **CALL)
    same(wanted, found)
    assert torch.equal(wanted.l2, found.l2) and torch.equal(wanted.l2_paper, found.l2_paper)
    assert sorted(shelf.read) == sorted([0, *range(11)])  # the first tells the shape


def test_a_data_set_is_a_source():
    model, images, labels, specified = world()
    pixels = (images * 255).round().byte()
    data = MultiLabelDataset(
        name="shelf", split="val", classes=tuple("abcdefghij"), labels=labels,
        ids=tuple(map(str, range(11))), load=lambda i: pixels[i], card="noise", size=16,
    )  # fmt: skip
    assert isinstance(data, ImageSource)
    at = torch.tensor([7, 2, 2, 5])
    found = attack(model, data, labels[at], specified[at], 3, index=at, **CALL)
    same(attack(model, data.images(at), labels[at], specified[at], 3, **CALL), found)


@pytest.mark.parametrize("streamed", [True, False])
def test_rows_may_share_an_image(streamed):
    model, images, labels, specified = world()
    at = torch.tensor([4, 4, 4, 0, 10, 0])
    lr = torch.tensor([0.1, 0.05, 0.02, 0.05, 0.05, 0.05])
    call = dict(lr=lr, slots=3, max_iter=60)
    wanted = attack(model, images[at], labels[at], specified[at], 3, **call)
    source = Shelf(images) if streamed else images
    found = attack(model, source, labels[at], specified[at], 3, index=at, **call)
    same(wanted, found)
    assert len(set(found.iterations[:3].tolist())) > 1


def test_images_are_read_only_as_slots_fall_free():
    model, images, labels, specified = world(40)
    shelf, calls = Shelf(images), []

    class Interrupted(torch.nn.Module):
        def forward(self, x):
            calls.append(len(shelf.read))
            if len(calls) == 10:
                raise KeyboardInterrupt
            return model(x)

    with pytest.raises(KeyboardInterrupt):  # nobody leaves before that
        attack(Interrupted().eval(), shelf, labels, specified, 3, lr=1e-6, slots=4)
    assert 1 + 4 <= len(shelf.read) <= 1 + 4 + 4 and max(shelf.read) < 8
    assert shelf.threads == {"MainThread", "images_0"}


def test_the_reader_holds_no_more_ready_than_it_was_told():
    images = torch.rand(30, 3, 4, 4)
    shelf = Shelf(images)
    with Reader(shelf, positions(shelf, None), ahead=6) as reader:
        taken = []
        for n in (1, 4, 2, 9, 1, 1, 12):
            taken.append(reader.take(n))
            assert len(shelf.read) - 1 <= sum(map(len, taken)) + 6
        assert torch.equal(torch.cat(taken), images)
        reader.go_to(30)


@pytest.mark.parametrize("method", ["tkmia", "kfool"])
def test_without_images_everything_else_is_the_same(method):
    model, images, labels, specified = world()
    call = dict(lr=0.02, slots=3, max_iter=60, snapshots=[5], method=method)
    kept = attack(model, images, labels, specified, 3, **call)
    bare = attack(model, images, labels, specified, 3, keep_images=False, **call)
    assert bare.adversarial is None and bare.at(5).adversarial is None
    names = ("success", "iterations", "l2", "l2_paper", "clean_logits", "adversarial_logits")
    for a, b in ((kept, bare), (kept.at(5), bare.at(5))):
        assert all(torch.equal(getattr(a, name), getattr(b, name)) for name in names)
        assert a.reasons == b.reasons


def test_images_are_checked_as_they_are_read():
    model, images, labels, specified = world()

    def refuse(change, text):
        shelf = Shelf(images.clone())
        change(shelf)
        with pytest.raises(ValueError, match=rf"^images: .*{text}.*source"):
            attack(model, shelf, labels, specified, 3, **CALL)
        assert 9 in shelf.read

    def set_pixel(value):
        return lambda shelf: shelf.pixels[9, 0, 0, 0].fill_(value)

    def replies(reply):
        def change(shelf):
            read = shelf.images
            shelf.images = lambda at: reply(read(at)) if 9 in at.tolist() else read(at)

        return change

    refuse(set_pixel(1.5), "in \\[0, 1\\]")
    refuse(set_pixel(torch.nan), "NaN")
    refuse(replies(lambda x: (255 * x).byte()), "float32")
    refuse(replies(lambda x: x[..., :8]), "shape")
    refuse(replies(lambda x: x[:0]), "shape")


def test_an_error_of_the_source_is_not_swallowed():
    model, images, labels, specified = world()
    shelf = Shelf(images)

    def images_of(at):
        if 7 in at.tolist():
            raise OSError("the disk is gone")
        return images[at]

    shelf.images = images_of
    before = threading.active_count()
    with pytest.raises(OSError, match="disk"):
        attack(model, shelf, labels, specified, 3, **CALL)
    assert threading.active_count() == before


QUEUE = r"""
import re, torch
from tkmia_utils import Runtime, attack

torch.set_num_threads(1)
side, classes = 32, 4
weight = torch.randn(classes, 3 * side * side, generator=torch.Generator().manual_seed(0))
model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * side * side, classes)).eval()
model[1].weight.data = weight

class Noise:
    def __init__(self, n): self.n = n
    def __len__(self): return self.n
    def images(self, index):
        seeds = [torch.Generator().manual_seed(i) for i in index.tolist()]
        return torch.stack([torch.rand(3, side, side, generator=seed) for seed in seeds])

def peak(n):
    labels = torch.ones(n, classes, dtype=torch.bool)
    labels[:, 3] = False
    specified = torch.zeros_like(labels)
    specified[:, 0] = True
    result = attack(model, Noise(n), labels, specified, 2, lr=0.1, max_iter=2,
                    runtime=Runtime(slots=64, keep_images=False))
    assert result.l2.isfinite().all() and len(result.l2) == n
    # not getrusage, which starts with what the parent held
    return int(re.search(r"VmHWM:\s*(\d+) kB", open("/proc/self/status").read())[1]) / 1024

print(peak(500), peak(10_000))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="/proc is of Linux")
def test_memory_is_flat_over_a_queue_of_ten_thousand_images():
    out = subprocess.run(
        [sys.executable, "-c", QUEUE],
        capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2],
        # every tensor in pages of its own: what is held counts, not the holes of glibc's heap
        env=os.environ | {"MALLOC_MMAP_THRESHOLD_": "16384"},
    ).stdout  # fmt: skip
    few, many = map(float, out.split())
    images = 10_000 * 3 * 32 * 32 * 4 / 2**20
    assert many - few < images / 10  # megabytes
