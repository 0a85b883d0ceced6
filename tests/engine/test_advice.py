"""Promises of the warnings: they come where an attack is none, and only there."""

import warnings
from dataclasses import replace

import pytest
import torch
from sweeps import attack
from test_engine import net, task
from torch import nn

from tkmia_utils import AttackWarning
from tkmia_utils.attacks.tkmia import TkMIA
from tkmia_utils.engine.advice import advice, share_of_least
from tkmia_utils.topk import in_top_k

CALL = dict(lr=0.05, max_iter=60)


def world(n=8, m=2):
    model = net()
    return model, *task(model, n, k=3, m=m, side=16, classes=10)


def said(*data, **call) -> list[str]:
    """Warnings of an attack."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        attack(*data, **{**CALL, **call})
    assert all(issubclass(w.category, AttackWarning) for w in caught)
    assert all(w.filename == warnings_come_from for w in caught)
    return [str(w.message).partition(": ")[2] for w in caught]


warnings_come_from = attack.__code__.co_filename


@pytest.mark.parametrize("method", ["tkmia", "ml_cw_u", "kfool"])
def test_an_attack_that_works_is_left_alone(method):
    assert said(*world(), 3, method=method, max_iter=200) == []


def test_no_step_asked_for_is_nothing_to_warn_of():
    assert said(*world(), 3, max_iter=0) == []


def with_hidden(rows):
    """The world, where S of some rows lies below the clean top k."""
    model, images, labels, specified = world(m=1)
    low = torch.zeros_like(labels).scatter_(1, model(images).argsort()[:, 1:2], True)
    rows = torch.tensor([i in rows for i in range(8)])[:, None]
    return model, images, labels | (low & rows), torch.where(rows, low, specified)


def test_a_success_that_was_one_from_the_start_is_told():
    (text,) = said(*with_hidden({0, 3, 4}), 3)
    assert text.startswith("3 of 8 images succeed unchanged") and "choose_specified" in text
    assert said(*with_hidden(set()), 3) == []


def test_some_of_s_outside_the_top_k_is_nothing_to_warn_of_while_delta_of_it_is_inside():
    model, images, labels, specified = with_hidden({0, 3, 4})
    specified = specified | torch.zeros_like(specified).scatter_(
        1, model(images).argmax(1, keepdim=True), True
    )
    assert said(model, images, labels, specified, 3, max_iter=200) == []
    (text,) = said(model, images, labels, specified, 3, delta=1)
    assert text.startswith("3 of 8 images succeed unchanged")


class Saturated(nn.Module):
    """A net whose dark images give logits a million times as large, and a sigmoid at its end."""

    def __init__(self) -> None:
        super().__init__()
        self.body = net()

    def forward(self, x):
        shift = torch.arange(10.0) * 40 + 200  # past what a sigmoid in fp32 tells from 1
        dark = (x[:, :, 0, 0].sum(1) == 0)[:, None]
        return torch.sigmoid(torch.where(dark, shift + 0 * self.body(x), self.body(x) / 100))


def test_a_gradient_that_is_exactly_zero_is_told():
    model, images, labels, specified = Saturated().eval(), *world(m=1)[1:]
    images = images.clone()
    images[[2, 5], :, 0, 0] = 0
    with torch.no_grad():
        order = model(images).argsort(descending=True, stable=True)
    labels = torch.zeros_like(labels).scatter_(1, order[:, :5], True)
    specified = torch.zeros_like(labels).scatter_(1, order[:, :1], True)
    dead = [text for text in said(model, images, labels, specified, 3) if "did not move" in text]
    assert len(dead) == 1 and dead[0].startswith("2 of 8 images did not move at all")
    assert "sigmoid" in dead[0]
    assert not any("did not move" in text for text in said(*world(), 3, lr=1e-6, max_iter=3))


def test_the_paler_image_of_the_released_variant_does_not_hide_a_dead_gradient():
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 10)).eval()
    model[1].weight.data.zero_()  # there is a gradient, and it is 0
    model[1].bias.data = torch.arange(10.0)
    _, images, labels, specified = world()
    labels = torch.zeros_like(labels).index_fill_(1, torch.arange(4, 10), True)
    specified = torch.zeros_like(labels).index_fill_(1, torch.tensor([9]), True)
    for variant in ("default", "paper", "released"):
        (text,) = said(model, images, labels, specified, 3, variant=variant, max_iter=5)
        assert text.startswith("8 of 8 images did not move at all"), variant


def test_steps_that_lead_nowhere_are_told_with_an_lr_that_works():
    model, images, labels, specified = world()
    (text,) = said(model, images, labels, specified, 3, lr=1e-4, max_iter=20)
    assert text.startswith("0 of 8 images succeeded, and ") and "in 20 steps" in text
    lr = float(text.split("Try lr=")[1].split(",")[0])
    assert said(model, images, labels, specified, 3, lr=lr, max_iter=20) == []
    assert attack(model, images, labels, specified, 3, lr=lr, max_iter=20).success.any()


def test_what_is_not_finite_is_told():
    model, images, labels, specified = world()
    images[[1, 4], :, 0, 0] = 0

    def ill(x):
        dark = (x[:, :, 0, 0].sum(1) == 0)[:, None]
        return torch.where(dark, torch.nan, model(x))

    (text,) = said(ill, images, labels, specified, 3, max_iter=200)
    assert text.startswith("2 of 8 images ended as failures because the logits had NaN")


def test_a_model_that_seems_to_return_probabilities_is_told_where_nothing_succeeds():
    model, images, labels, specified = world()
    (text,) = said(lambda x: model(x).sigmoid(), images, labels, specified, 3, lr=1e-4, max_iter=5)
    assert "in [0, 1]: if they are probabilities" in text
    (text,) = said(model, images, labels, specified, 3, lr=1e-4, max_iter=5)
    assert "probabilities" not in text


def test_who_has_no_lr_is_not_told_to_raise_it():
    class Small(TkMIA):
        uses_lr = False

    (text,) = said(*world(), 3, method=Small(), lr=1e-4, max_iter=20)
    assert "Try a larger max_iter" in text and "lr=" not in text


def test_an_lr_that_is_too_large_is_not_told_to_grow():
    # it jumps between the corners of the box and fails, but it moves
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 256, 10), nn.Hardtanh(-1, 1)).eval()
    images, labels, specified = task(model, 8, k=3, m=2, side=16, classes=10)
    result = attack(model, images, labels, specified, 3, lr=1e6, max_iter=5)
    assert not any("images succeeded, and" in text for text in advice(result))


def test_the_share_is_a_bound_that_no_success_can_break():
    model, images, labels, specified = world(40, m=1)
    for lr in (0.01, 0.03, 0.1):
        result = attack(model, images, labels, specified, 3, lr=lr, max_iter=100)
        short = replace(result, success=torch.zeros_like(result.success))
        assert (share_of_least(short, short.spec)[result.success] >= 1).all()
    # and it is met: the specified label falls by half the gap, the others rise by as much
    spec, clean = result.spec, result.clean_logits
    place4 = clean.sort(descending=True).values[:, 3:4]
    gap = torch.where(specified, clean - place4, 0.0).amax(1, keepdim=True)
    after = torch.where(specified, clean - 0.501 * gap, clean + 0.501 * gap)
    assert (specified & ~in_top_k(after, spec.k)).any(1).all()
    moved = replace(short, adversarial_logits=after)
    torch.testing.assert_close(
        share_of_least(moved, spec), torch.full((40,), 1.002), atol=1e-3, rtol=0
    )


def test_an_alpha_that_holds_the_images_back_is_named():
    (told,) = said(*world(), 3, lr=1e-4, max_iter=60, alpha=3e3)
    assert "Try a smaller alpha" in told and "lr=" not in told
    (told,) = said(*world(), 3, lr=1e-7, max_iter=60, alpha=1e-4)
    assert "smaller alpha" not in told and "lr=" in told
