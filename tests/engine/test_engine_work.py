"""Promises about the work an attack does: none that is wasted, and all of it visible."""

import time

import pytest
import torch
from sweeps import attack
from test_engine import net, same, task
from torch.utils._python_dispatch import TorchDispatchMode

from tkmia_utils.attacks.tkmia import TkMIA as Descent
from tkmia_utils.engine import loop


class Operations(TorchDispatchMode):
    """Notes every operation with its arguments and its result."""

    def __init__(self) -> None:
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        self.seen.append((function, args, result))
        return result


def test_weights_get_no_gradient_and_frozen_weights_do_as_well():
    model = net()
    images, labels, specified = task(model, 3, k=3, m=2, side=16, classes=10)
    with Operations() as operations:
        result = attack(model, images, labels, specified, 3, lr=0.05)
    assert all(p.requires_grad and p.grad is None for p in model.parameters())
    aten = torch.ops.aten
    masks = [a[-1] for f, a, _ in operations.seen if f == aten.convolution_backward.default]
    assert masks and all(list(mask) == [True, False, False] for mask in masks)  # input alone
    products = [r.shape for f, _, r in operations.seen if f == aten.mm.default]
    weight = model[-1].weight.shape
    assert products and not {weight, weight[::-1]} & set(products)
    same(result, attack(model.requires_grad_(False), images, labels, specified, 3, lr=0.05))


@pytest.mark.parametrize(("ci", "shown"), [("", True), ("true", False)])
def test_a_bar_shows_success_rate_and_speed_but_not_in_ci(ci, shown, monkeypatch, capsys):
    monkeypatch.setenv("CI", ci)
    victim = net()
    images, labels, specified = task(victim, 4, k=3, m=2, side=16, classes=10)
    call = dict(lr=0.05, slots=2, max_iter=3)

    def model(x):  # long enough for a bar, which is drawn twice a second, to be drawn again
        time.sleep(0.3)
        return victim(x)

    attack(model, images, labels, specified, 3, **call)
    assert capsys.readouterr() == ("", "")
    attack(model, images, labels, specified, 3, progress=True, **call)
    text = capsys.readouterr().err
    assert all((part in text) == shown for part in ("/4 ", "success=", "image-iterations/s"))


def test_each_iteration_is_one_forward_pass_of_all_slots_until_the_last_has_left():
    body = net()
    images, labels, specified = task(body, 9, k=3, m=2, side=16, classes=10)
    sizes = []

    def model(x):
        sizes.append(len(x))
        return body(x)

    limit = torch.tensor([5, 1, 0, 3, 9, 2, 2, 2, 7])
    attack(model, images, labels, specified, 3, lr=1e-7, max_iter=limit, slots=1)
    assert sizes == [1] * int((limit + 1).sum())
    sizes.clear()
    attack(model, images, labels, specified, 3, lr=1e-7, max_iter=limit, slots=4)
    assert set(sizes) == {4} and len(sizes) < (limit + 1).sum() / 2


def test_a_method_may_hand_back_what_it_was_given():
    class Idle:
        """It never moves, and its state shares memory with everything."""

        def begin(self, images):
            zero = images.new_zeros(1).expand(len(images))
            return {"x": images, "same": images, "zero": zero}

        def image(self, images, state):
            return state["x"]

        def norm(self, images, adversarial, state):
            return state["zero"] + (adversarial - images).flatten(1).norm(dim=1)

        def step(self, point, state):
            return {**state, "x": point.images}

    model = net()
    images, labels, specified = task(model, 7, k=3, m=2, side=16, classes=10)
    result = attack(model, images, labels, specified, 3, method=Idle(), slots=3, max_iter=4)
    assert torch.equal(result.adversarial, images) and not result.l2_paper.any()
    assert result.iterations.tolist() == [4] * 7


def test_the_state_may_hold_whole_numbers_and_flags():
    class Counting(Descent):
        def begin(self, images):
            n = len(images)
            count, ever = torch.zeros(n, dtype=torch.int64), torch.zeros(n, 2, dtype=torch.bool)
            return {**super().begin(images), "count": count, "ever": ever}

        def step(self, point, state):
            moved = super().step(point, state)
            return {**moved, "count": state["count"] + 1, "ever": ~state["ever"]}

    model = net()
    data = task(model, 7, k=3, m=2, side=16, classes=10)
    call = dict(lr=0.05, slots=3)
    same(attack(model, *data, 3, **call), attack(model, *data, 3, method=Counting(), **call))


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("more", [{}, {"record": True}, {"channels_last": True}], ids=str)
def test_hard_images_go_first_where_they_are_known_and_no_bit_changes(streamed, more, monkeypatch):
    model = net()
    images, labels, specified = task(model, 24, k=3, m=2, side=16, classes=10)
    call = dict(lr=0.02, slots=4, max_iter=80, **more)
    bare = attack(model, images, labels, specified, 3, **call)
    hardest = int(bare.iterations.argmax())
    rest = [i for i in range(24) if i != hardest]
    order = torch.tensor([*rest, hardest])  # as bad as can be for who goes through in order

    class Counting(torch.nn.Module):
        def forward(self, x):
            passes.append(len(x))
            return model(x)

    work, source = {}, images[order]
    for hardest_first in (False, True):
        passes = []
        if not hardest_first:
            monkeypatch.setattr(loop, "hardest_first", lambda queue, logits: None)
        result = attack(
            Counting().eval(), Shown(source) if streamed else source, labels[order],
            specified[order], 3, clean_logits=bare.clean_logits[order], **call,
        )  # fmt: skip
        monkeypatch.undo()
        work[hardest_first] = len(passes)
        for name in ("adversarial", "success", "iterations", "l2", "adversarial_logits"):
            assert torch.equal(getattr(result, name), getattr(bare, name)[order]), name
        if more.get("record"):
            for i, wanted in zip(order.tolist(), range(24), strict=True):
                pair = (result.trace.logits[wanted], bare.trace.logits[i])
                assert torch.equal(*(logits.nan_to_num() for logits in pair))
    assert work[True] < work[False]


class Shown:
    """Images by position."""

    def __init__(self, images: torch.Tensor) -> None:
        self.pixels = images

    def __len__(self) -> int:
        return len(self.pixels)

    def images(self, index: torch.Tensor) -> torch.Tensor:
        return self.pixels[index]
