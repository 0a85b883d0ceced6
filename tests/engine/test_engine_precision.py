"""Promises of the faster arithmetics: fp32 eager has the last word, and pays only when asked."""

import pytest
import torch
from sweeps import Shared, attack
from test_engine import linear_victim, net, same, task
from torch import nn

from tkmia_utils.engine.forward import tf32
from tkmia_utils.topk import in_top_k

CALL = dict(lr=0.05, slots=4, max_iter=60)


def world(n=9):
    model = net()
    return model, *task(model, n, k=3, m=2, side=16, classes=10)


def met(result, specified, k=3, delta=2):
    return (specified & ~in_top_k(result.adversarial_logits, k)).sum(-1) >= delta


class Two(nn.Module):
    """One net in fp32 eager and, under autocast, whatever `fast` makes of its logits."""

    def __init__(self, fast=lambda logits, x, call: logits) -> None:
        super().__init__()
        self.body, self.fast, self.calls, self.looks = net(), fast, 0, 0

    def forward(self, x):
        if not torch.is_autocast_enabled("cpu"):
            self.looks += 1
            return self.body(x)
        self.calls += 1
        with torch.autocast("cpu", enabled=False):
            return self.fast(self.body(x), x, self.calls)


@pytest.mark.parametrize("method", ["tkmia", "kfool", "gmla"])
def test_bf16_returns_fp32_logits_that_tell_the_truth(method):
    model, images, labels, specified = world()
    call = CALL | {"max_iter": torch.arange(9) * 5, "method": method}
    call["lr"] = {"gmla": 0.5}.get(method, 0.05)
    result = attack(model, images, labels, specified, 3, precision="bf16", **call)
    assert result.success.any() and not result.success.all()
    assert torch.equal(result.success, met(result, specified))
    assert result.adversarial_logits.dtype == torch.float32
    exact = model(result.adversarial).detach()
    torch.testing.assert_close(result.adversarial_logits, exact, atol=1e-5, rtol=0)
    torch.testing.assert_close(result.clean_logits, model(images).detach(), atol=1e-5, rtol=0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = model(result.adversarial).detach().float()
    assert (rough - exact).abs().max() > 1e-4  # else this test could not fail


def test_a_claim_that_fp32_refutes_goes_on():
    plain, images, labels, specified = world()
    wanted = attack(plain, images, labels, specified, 3, **CALL)

    def boast(logits, x, call):  # every image, at every iteration, has made it
        return logits - 100 * specified_of(x).float()

    def specified_of(x):
        return specified[[int((images - row).abs().sum((1, 2, 3)).argmin()) for row in x.detach()]]

    found = attack(
        Two(boast).eval(), images, labels, specified, 3, precision="bf16",
        method="ml_cw_u", **CALL,
    )  # fmt: skip
    honest = attack(plain, images, labels, specified, 3, method="ml_cw_u", **CALL)
    assert honest.success.any() and (found.iterations > 0).all()
    assert torch.equal(found.success, met(found, specified))
    model = Two(lambda logits, x, call: logits if call % 2 else logits * 1e-9).eval()
    exact = attack(model, images, labels, specified, 3, precision="bf16", **CALL)
    assert wanted.success.any() and torch.equal(exact.success, met(exact, specified))


def test_equal_arithmetics_give_equal_bits():
    plain, images, labels, specified = world()
    call = CALL | {"snapshots": [0, 7]}
    wanted = attack(plain, images, labels, specified, 3, **call)
    found = attack(Two().eval(), images, labels, specified, 3, precision="bf16", **call)
    same(wanted, found)
    for limit in (0, 7):
        same(wanted.at(limit), found.at(limit)) if wanted.at(limit).success.all() else None
        assert torch.equal(wanted.at(limit).adversarial_logits, found.at(limit).adversarial_logits)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_bad_logits_of_the_fast_arithmetic_alone_are_no_failure(bad):
    _, images, labels, specified = world(4)

    def sometimes(logits, x, call):
        return logits + (bad if call == 3 else 0)

    found = attack(Two(sometimes).eval(), images, labels, specified, 3, precision="bf16", **CALL)
    assert set(found.reasons) <= {"success", "limit"} and found.success.any()


def test_the_second_look_is_taken_only_when_it_is_asked_for():
    plain, images, labels, specified = world(4)
    call = CALL | {"lr": 1e-7, "max_iter": 20, "precision": "bf16"}
    model = Two().eval()
    attack(model, images, labels, specified, 3, **call)
    assert model.calls == 21 and model.looks == 2  # on entering and at the limit
    model = Two().eval()
    given = plain(images).detach()
    found = attack(model, images, labels, specified, 3, clean_logits=given, **call)
    assert model.looks == 1 and torch.equal(found.clean_logits, given)


def test_an_image_with_a_bad_gradient_still_has_fp32_logits():
    plain, images, labels, specified = world(4)

    def poison(logits, x, call):
        slope = torch.where(x[:, :1, 0, 0] > 0.9, torch.nan, 1.0)
        logits = logits + 0.1
        logits.register_hook(lambda gradient: gradient * slope)
        return logits

    images = images.clone()
    images[1, 0, 0, 0] = 0.95
    found = attack(Two(poison).eval(), images, labels, specified, 3, precision="bf16", **CALL)
    assert found.reasons[1] == "gradient not finite" and "success" in found.reasons
    torch.testing.assert_close(
        found.adversarial_logits, plain(found.adversarial).detach(), atol=1e-5, rtol=0
    )


@pytest.mark.parametrize("method", ["tkmia", "kfool"])
def test_in_bf16_neither_order_nor_neighbours_nor_checks_change_a_bit(method):
    model, images, labels, specified = world()
    call = CALL | {"precision": "bf16", "method": method}
    whole = attack(model, images, labels, specified, 3, **call)
    order = torch.randperm(9, generator=torch.Generator().manual_seed(3))
    same(whole, attack(model, images[order], labels[order], specified[order], 3, **call), order)
    same(whole, attack(model, images, labels, specified, 3, check_every=4, **call))
    same(whole, attack(model, images, labels, specified, 3, snapshots=[1, 9, 20], **call))


def test_in_bf16_one_long_run_answers_for_shorter_limits():
    model, images, labels, specified = world()
    call = CALL | {"precision": "bf16", "lr": 0.02}
    whole = attack(model, images, labels, specified, 3, snapshots=list(range(60)), **call)
    for limit in range(0, 60, 3):
        short = attack(model, images, labels, specified, 3, **call | {"max_iter": limit})
        seen = whole.at(limit)
        for name in ("success", "iterations", "adversarial_logits", "l2", "l2_paper"):
            assert torch.equal(getattr(seen, name), getattr(short, name)), (limit, name)
        assert seen.reasons == short.reasons


class Looking(nn.Module):
    """A net that notes, for itself and all its copies, how what it is shown lies in memory."""

    def __init__(self, seen: list) -> None:
        super().__init__()
        self.body, self.seen = net(), Shared(seen)

    def forward(self, x):
        last = x.is_contiguous(memory_format=torch.channels_last)
        self.seen.value.append((torch.is_grad_enabled(), last))
        return self.body(x)


@pytest.mark.parametrize("call", [{}, {"precision": "bf16"}, {"keep_images": False}], ids=str)
def test_channels_last_changes_nothing_but_the_layout(call):
    model, images, labels, specified = world()
    seen = []
    call = CALL | call
    wanted = attack(model, images, labels, specified, 3, **call)
    looking = Looking(seen).eval()
    found = attack(looking, images, labels, specified, 3, channels_last=True, **call)
    # what attacks is the copy; what has the last word is the victim, as it is
    assert {grad: last for grad, last in seen} == {True: True, False: False}
    assert found.success.all() and wanted.success.all()
    if (
        call.get("precision") == "bf16"
    ):  # its convolutions round by layout, so the paths part a little
        assert (found.iterations - wanted.iterations).abs().max() <= 3
        torch.testing.assert_close(found.l2, wanted.l2, rtol=0.05, atol=0)
        torch.testing.assert_close(
            found.adversarial_logits, model(found.adversarial).detach(), atol=1e-5, rtol=0
        )
        return
    assert torch.equal(found.iterations, wanted.iterations)
    for name in ("l2", "adversarial_logits") + ("adversarial",) * ("keep_images" not in call):
        a, b = getattr(found, name), getattr(wanted, name)
        assert a.is_contiguous()
        torch.testing.assert_close(a, b, atol=1e-5, rtol=0)


def test_fp32_means_fp32_and_tf32_changes_nothing_without_cuda():
    model, images, labels, specified = world()
    wanted = attack(model, images, labels, specified, 3, **CALL)
    same(wanted, attack(model, images, labels, specified, 3, precision="tf32", **CALL))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        same(wanted, attack(model, images, labels, specified, 3, **CALL))


@pytest.mark.parametrize("way", ["untouched", "old", "new"])
def test_tf32_is_allowed_for_a_while_and_flags_are_put_back(way):
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    cuda = torch.device("cuda")

    def look():
        return [part.fp32_precision for part in (matmul, cudnn.conv, cudnn.rnn)]

    begun = look()
    try:
        if way == "old":
            matmul.allow_tf32 = cudnn.allow_tf32 = True
        if way == "new":
            cudnn.conv.fp32_precision = "ieee"
        before = look()
        with pytest.raises(RuntimeError, match="inside"), tf32(True, cuda):
            assert look() == ["tf32"] * 3 and matmul.allow_tf32 and cudnn.allow_tf32
            with tf32(False, cuda):
                assert look() == ["ieee"] * 3 and not matmul.allow_tf32 and not cudnn.allow_tf32
            assert look() == ["tf32"] * 3
            raise RuntimeError("inside")
        assert look() == before
        with tf32(True, torch.device("cpu")):
            assert look() == before
    finally:
        matmul.allow_tf32, cudnn.allow_tf32 = False, True
        for part, value in zip((matmul, cudnn.conv, cudnn.rnn), begun, strict=True):
            part.fp32_precision = value


def test_a_compiled_victim_gives_the_same_successes():
    try:
        torch.compile(lambda x: x + 1, dynamic=False)(torch.zeros(2))
    except Exception as error:
        pytest.skip(f"no compiler works here: {type(error).__name__}")
    model = linear_victim()
    images, labels, specified = task(model, 6)
    grads = [p.requires_grad for p in model.parameters()]
    wanted = attack(model, images, labels, specified, 2, **CALL)
    found = attack(model, images, labels, specified, 2, compile=True, **CALL)
    assert wanted.success.any() and torch.equal(wanted.iterations, found.iterations)
    torch.testing.assert_close(found.adversarial, wanted.adversarial, atol=1e-5, rtol=0)
    assert [p.requires_grad for p in model.parameters()] == grads
    assert all(p.grad is None for p in model.parameters())


def test_a_victim_that_does_not_compile_is_refused(monkeypatch):
    def no_compiler(model, **options):
        def run(x):
            raise RuntimeError("no C++ compiler\nand more")

        return run

    model, images, labels, specified = world()
    monkeypatch.setattr(torch, "compile", no_compiler)
    with pytest.raises(ValueError, match=r"^compile: .*RuntimeError: no C\+\+ compiler\)"):
        attack(model, images, labels, specified, 3, compile=True, **CALL)


def test_a_compiled_victim_is_a_frozen_copy_and_is_looked_at_again(monkeypatch):
    model, images, labels, specified = world()
    compiled = []

    def boastful(copy, *, dynamic):
        assert not dynamic and not any(p.requires_grad for p in copy.parameters())
        compiled.append(copy)
        return lambda x: coarse(copy(x))

    def coarse(logits):  # it claims too early, or too late, with the right gradient
        return logits + ((2 * logits).round() / 2 - logits).detach()

    monkeypatch.setattr(torch, "compile", boastful)
    found = attack(model, images, labels, specified, 3, compile=True, **CALL)
    assert compiled[0] is not model and all(p.requires_grad for p in model.parameters())
    assert found.success.any() and torch.equal(found.success, met(found, specified))


@pytest.mark.parametrize("method", ["kfool", "gmla"])
def test_clean_logits_that_are_given_are_returned_and_used(method):
    model, images, labels, specified = world()
    images = images.clone()
    bare = attack(model, images, labels, specified, 3, method=method, **CALL)
    call = CALL | {"method": method, "keep_images": True}
    given = attack(
        model, images, labels, specified, 3, clean_logits=bare.clean_logits.double(), **call
    )
    same(bare, given)
    other = attack(model, images, labels, specified, 3, clean_logits=-bare.clean_logits, **call)
    assert torch.equal(other.clean_logits, -bare.clean_logits)
    assert not torch.equal(other.adversarial, bare.adversarial)
