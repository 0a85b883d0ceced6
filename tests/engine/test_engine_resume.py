"""Promises of the checkpoint: a run killed anywhere goes on to the same bits."""

import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from sweeps import Shared, attack
from test_engine import net, task

from tkmia_utils.attacks.tkmia import TkMIA
from tkmia_utils.engine import loop

CALL = dict(lr=0.2, slots=3, max_iter=9, snapshots=[2, 5])
FIELDS = (
    "adversarial", "success", "iterations", "l2", "l2_paper", "clean_logits", "adversarial_logits",
    "png_logits",
)  # fmt: skip


class Interrupted(Exception):
    pass


class Fragile(torch.nn.Module):
    """A net that, with its copies, is cut off at one call of many."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.shared = net(), Shared({"calls": 0, "cut": None})

    def forward(self, x):
        self.calls += 1
        if self.calls == self.cut:
            raise Interrupted
        return self.body(x)

    calls = property(
        lambda self: self.shared.value["calls"],
        lambda self, value: self.shared.value.update(calls=value),
    )
    cut = property(
        lambda self: self.shared.value["cut"],
        lambda self, value: self.shared.value.update(cut=value),
    )


class Shelf:
    def __init__(self, images):
        self.pixels = images

    def __len__(self):
        return len(self.pixels)

    def images(self, index):
        return self.pixels[index]


def world(n=8):
    model = Fragile().eval()
    images, labels, specified = task(model, n, k=3, m=2, side=16, classes=10)
    model.calls = 0
    return model, images, labels, specified


def identical(a, b):
    for name in FIELDS:
        x, y = getattr(a, name), getattr(b, name)
        assert (x is None and y is None) or torch.equal(x, y), name
    assert a.reasons == b.reasons and a.snapshots.keys() == b.snapshots.keys()
    for limit in a.snapshots:
        for name, value in vars(a.snapshots[limit]).items():
            other = getattr(b.snapshots[limit], name)
            torch.testing.assert_close(value, other, rtol=0, atol=0, equal_nan=True)


def whole_and_calls(world, **call):
    model, *data = world
    whole = attack(model, *data, 3, **CALL | call)
    calls, model.calls = model.calls, 0
    return whole, calls


def cut_at(model, i, run):
    model.calls, model.cut = 0, i
    with pytest.raises(Interrupted):
        run()
    model.cut = None


@pytest.mark.parametrize(
    "call",
    [
        {},
        {"checkpoint_every": 4},
        {"check_every": 3, "checkpoint_every": 2},
        {"variant": "paper", "lr": 5.0},
        {"method": "kfool"},
        {"keep_images": False},
        {"precision": "bf16"},
        {"channels_last": True},
        {"method": "tkmia_min", "stop": "imperceptible", "channels_last": True},
    ],
    ids=str,
)
def test_cut_off_at_any_iteration_it_goes_on_to_the_same_bits(call, tmp_path):
    model, *data = world()
    call = {"checkpoint_every": 1, **call}
    whole, calls = whole_and_calls((model, *data), **call)
    assert calls > 15 and whole.success.any()
    path = tmp_path / "state"
    for i in range(1, calls + 1):
        call["checkpoint"] = path
        cut_at(model, i, lambda: attack(model, *data, 3, **CALL | call))
        model.calls = 0
        identical(whole, attack(model, *data, 3, **CALL | call))
        assert not list(tmp_path.iterdir())
        if i > 12 and call["checkpoint_every"] == 1 and len(call) == 2:
            assert model.calls == calls - i + 1  # it went on, and did not begin anew


def test_a_run_that_takes_hard_images_first_goes_on_to_the_same_bits(tmp_path):
    model, images, *sets = world()
    call = CALL | {"clean_logits": model.body(images).detach(), "checkpoint": tmp_path / "state"}
    whole, model.calls = attack(model, images, *sets, 3, **call), 0
    identical(whole, attack(model, images, *sets, 3, **call))
    calls, call["checkpoint_every"] = model.calls, 1
    for source in (images, Shelf(images)):
        for i in range(1, calls + 1, 3):
            cut_at(model, i, lambda source=source: attack(model, source, *sets, 3, **call))
            model.calls = 0
            identical(whole, attack(model, source, *sets, 3, **call))
            assert model.calls == calls - max(i - 1, 0)  # it went on, and did not begin anew


def test_a_checkpoint_of_another_order_is_refused(tmp_path, monkeypatch):
    model, images, *sets = world()
    call = CALL | {"clean_logits": model.body(images).detach(), "checkpoint": tmp_path / "state"}
    call["checkpoint_every"] = 1
    with monkeypatch.context() as before:
        before.setattr(loop, "hardest_first", lambda queue, logits: torch.arange(len(logits)))
        cut_at(model, 8, lambda: attack(model, images, *sets, 3, **call))
    with pytest.raises(ValueError, match=r"^checkpoint: .*: order; "):
        attack(model, images, *sets, 3, **call)


def test_a_run_may_be_cut_off_again_and_again(tmp_path):
    model, *data = world()
    whole, calls = whole_and_calls((model, *data))
    call = CALL | {"checkpoint": str(tmp_path / "deep" / "state"), "checkpoint_every": 1}
    for _ in range((calls - 1) // 3):
        cut_at(model, 4, lambda: attack(model, *data, 3, **call))
    model.calls = 0
    identical(whole, attack(model, *data, 3, **call))
    assert model.calls == calls - 3 * ((calls - 1) // 3)


def test_a_source_goes_on_where_it_was_and_must_hold_the_same_images(tmp_path):
    model, images, *sets = world()
    whole, calls = whole_and_calls((model, images, *sets))
    call = CALL | {"checkpoint": tmp_path / "state", "checkpoint_every": 1}
    source = Shelf(images)
    for i in (5, calls // 2):
        cut_at(model, i, lambda: attack(model, source, *sets, 3, **call))
    state = load_file(tmp_path / "state")
    at_work = int(state["queue_index"].max())
    changed = images.clone()
    changed[at_work] = 1 - changed[at_work]
    with pytest.raises(ValueError, match=r"^checkpoint: .*images"):
        attack(model, Shelf(changed), *sets, 3, **call)
    identical(whole, attack(model, source, *sets, 3, **call))


def test_the_rows_already_finished_are_written_once(tmp_path):
    model, *data = world(20)
    call = CALL | {"checkpoint": tmp_path / "state", "checkpoint_every": 2, "max_iter": 4}
    _, calls = whole_and_calls((model, *data), max_iter=4)
    cut_at(model, calls, lambda: attack(model, *data, 3, **call))
    parts = sorted(tmp_path.glob("state.part*"))
    rows = [load_file(part)["queue_index"] for part in parts]
    assert len(parts) > 2 and len(torch.cat(rows)) == len(torch.cat(rows).unique())
    assert load_file(tmp_path / "state")["clean"].shape == (3, 3, 16, 16)


def others():
    """Name of an argument, and what to change in a call that was cut off."""
    return [
        ("k", {"k": 2}),
        ("max_iter", {"max_iter": 8}),
        ("lr", {"lr": 0.04}),
        ("method", {"method": "gmla"}),
        ("method", {"scores": "sigmoid"}),
        ("slots", {"slots": 4}),
        ("snapshots", {"snapshots": [2]}),
        ("keep_images", {"keep_images": False}),
        ("precision", {"precision": "bf16"}),
        ("channels_last", {"channels_last": True}),
        ("index", {"index": torch.arange(8).flip(0)}),
        ("clean_logits", {"clean_logits": torch.zeros(8, 10)}),
    ]


@pytest.mark.parametrize(("name", "change"), others())
def test_a_checkpoint_of_another_call_is_refused_and_kept(name, change, tmp_path):
    model, images, labels, specified = world()
    sound = CALL | dict(
        images=images, labels=labels, specified=specified, k=3,
        checkpoint=tmp_path / "state", checkpoint_every=1,
    )  # fmt: skip
    cut_at(model, 6, lambda: attack(model, **sound))
    with pytest.raises(ValueError, match=rf"^checkpoint: .*state.* other arguments: {name};"):
        attack(model, **sound | change)
    attack(model, **sound)


def test_other_images_labels_or_weights_are_another_call(tmp_path):
    model, images, labels, specified = world()
    call = CALL | {"checkpoint": tmp_path / "state", "checkpoint_every": 1}
    cut_at(model, 6, lambda: attack(model, images, labels, specified, 3, **call))
    more, weight = labels.clone(), model.body[0].weight
    more[7] = True
    more[7, 0] = specified[7, 0]
    with pytest.raises(ValueError, match=r"^checkpoint: .*: images;"):
        attack(model, images.flip(0), labels, specified, 3, **call)
    with pytest.raises(ValueError, match=r"^checkpoint: .*: labels;"):
        attack(model, images, more, specified, 3, **call)
    weight.data[0, 0, 0, 0] += 1e-6
    with pytest.raises(ValueError, match=r"^checkpoint: .*: model;"):
        attack(model, images, labels, specified, 3, **call)


@pytest.mark.parametrize("name", ["state", "state.part1"])
@pytest.mark.parametrize("harm", ["cut", "emptied", "flipped", "gone", "foreign"])
def test_a_broken_file_is_named(name, harm, tmp_path):
    model, *data = world()
    call = CALL | {"checkpoint": tmp_path / "state", "checkpoint_every": 1}
    _, calls = whole_and_calls((model, *data))
    cut_at(model, calls - 1, lambda: attack(model, *data, 3, **call))
    path = tmp_path / name
    whole = path.read_bytes()
    if harm == "foreign":
        save_file({"x": torch.zeros(2)}, path)
    elif harm == "gone":
        path.unlink()
    else:
        flipped = whole[:-5] + bytes([whole[-5] ^ 1]) + whole[-4:]
        path.write_bytes({"cut": whole[:-7], "emptied": b"", "flipped": flipped}[harm])
    if (name, harm) == ("state", "gone"):  # then there is nothing to go on from
        attack(model, *data, 3, **call)
        assert not list(tmp_path.iterdir())
        return
    with pytest.raises(ValueError, match=rf"^checkpoint: .*{name} is broken"):
        attack(model, *data, 3, **call)


RUN = """
import sys, torch
from safetensors.torch import save_file
from sweeps import Shared, attack
from test_engine import net, task
from tkmia_utils.attacks.tkmia import TkMIA

torch.set_num_threads(1)
body = net()
data = task(body, 48, k=3, m=2, side=16, classes=10)
call = dict(lr=0.05, slots=4, max_iter=40, snapshots=[7])

class Told(torch.nn.Module):
    def forward(self, x):
        print("+", flush=True)
        return body(x)

found = attack(Told().eval(), *data, 3, checkpoint=sys.argv[1], checkpoint_every=2, **call)
wanted = attack(body, *data, 3, **call)
fields = ("adversarial", "iterations", "l2", "l2_paper", "clean_logits", "adversarial_logits")
save_file(
    {f"{name} {which}": getattr(r, name) for name in fields
     for which, r in (("found", found), ("wanted", wanted))}, sys.argv[2],
)
"""


def test_killed_at_random_times_it_ends_at_the_same_bits(tmp_path):
    state, out, chance = tmp_path / "run" / "state", tmp_path / "out", random.Random(5)
    command = [sys.executable, "-c", RUN, str(state), str(out)]
    steps = []
    for _ in range(3):
        process = subprocess.Popen(command, stdout=subprocess.PIPE, cwd=Path(__file__).parent)
        count = chance.randrange(15, 50)
        for _ in range(count):
            assert process.stdout.readline() == b"+\n"
        try:  # some way into whatever comes next: an iteration, a write
            process.wait(chance.uniform(0, 0.01))
        except subprocess.TimeoutExpired:
            pass
        process.send_signal(signal.SIGKILL)
        steps.append(count)
        assert process.wait() == -signal.SIGKILL and state.exists()
    last = subprocess.run(command, capture_output=True, check=True, cwd=Path(__file__).parent)
    found = load_file(out)
    assert not list(state.parent.iterdir())
    for name in (name for name in found if name.endswith("found")):
        assert torch.equal(found[name], found[name.replace("found", "wanted")]), name
    assert found["iterations wanted"].unique().numel() > 3
    assert len(last.stdout.splitlines()) < found["iterations wanted"].sum()


def test_a_trace_is_not_kept(tmp_path):
    model, *data = world()
    with pytest.raises(ValueError, match=r"^checkpoint: .*record"):
        attack(model, *data, 3, checkpoint=tmp_path / "state", record=True)


def test_a_state_that_shares_memory_is_taken_up_as_well(tmp_path):
    class Lazy(TkMIA):
        def begin(self, images):
            zero = images.new_zeros(1).expand(len(images))
            return {**super().begin(images), "zero": zero, "again": zero}

        def step(self, point, state):
            shared = {"zero": state["zero"] + 1, "again": state["zero"]}
            return {**super().step(point, state), **shared}

    model, *data = world()
    whole, calls = whole_and_calls((model, *data))
    call = CALL | {"checkpoint": tmp_path / "state", "checkpoint_every": 1, "method": Lazy()}
    cut_at(model, calls // 2, lambda: attack(model, *data, 3, **call))
    identical(whole, attack(model, *data, 3, **call))
