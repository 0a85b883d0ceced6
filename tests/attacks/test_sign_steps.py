"""FGSM and PGD are what their papers say, on the loss of S."""

import pytest
import torch
from sweeps import attack
from test_engine import net, same, task
from torch.nn.functional import binary_cross_entropy_with_logits as bce

from tkmia_utils.attacks.sign_steps import FGSM, PGD

GREY = 1 / 255
METHODS = [FGSM, PGD]
NEAR = 1e-6  # float32 pixels, of 0 to 1


def world(n=6, k=3):
    model = net()
    images, labels, specified = task(model, n, k=k, m=2, side=16, classes=10)
    images[:, :, :2], images[:, :, -2:] = 0.0, 1.0  # pixels at both ends of the box
    return model, images, labels, specified


def sign(model, images, specified):
    """Of the loss's gradient, by autograd through the loss itself."""
    x = images.clone().requires_grad_()
    f = model(x)
    loss = (bce(f, torch.zeros_like(f), reduction="none") * specified).sum()
    return torch.autograd.grad(loss, x)[0].sign()


@pytest.mark.parametrize("method", METHODS)
def test_so_many_steps_equal_a_literal_transcription(method):
    model, images, labels, specified = world()
    steps, step, radius = 5, 2 * GREY, 6 * GREY
    options = {"step": step} | ({"radius": radius} if method is PGD else {})
    result = attack(
        model, images, labels, specified, 8, method=method(**options), max_iter=steps, slots=3
    )  # fmt: skip
    assert not result.success.any() and (result.iterations == steps).all()
    first, wanted = sign(model, images, specified), images
    for t in range(1, steps + 1):
        if method is FGSM:
            wanted = (images - t * step * first).clamp(0, 1)
        else:
            wanted = wanted - step * sign(model, wanted, specified)
            wanted = wanted.clamp(images - radius, images + radius).clamp(0, 1)
    # a pixel whose gradient is all but zero may have either sign
    apart = (result.adversarial - wanted).abs() > NEAR
    assert apart.double().mean() < 1e-3


def test_the_radius_of_fgsm_grows_by_a_step_an_iteration():
    model, images, labels, specified = world()
    for steps in (1, 2, 7):
        moved = attack(
            model, images, labels, specified, 8, method=FGSM(step=GREY), max_iter=steps
        ).adversarial - images  # fmt: skip
        inside = moved[:, :, 2:-2]  # away from the ends of the box
        still = inside.abs() < NEAR
        assert (((inside.abs() - steps * GREY).abs() < NEAR) | still).all()
        assert still.double().mean() < 0.5 and moved.abs().max() <= steps * GREY + NEAR


@pytest.mark.parametrize("k", [1, 2])
def test_fgsm_stops_at_the_least_radius_that_succeeds(k):
    model, images, labels, specified = world(k=k)
    result = attack(model, images, labels, specified, k, method=FGSM(), max_iter=60)
    direction, won = sign(model, images, specified), 0
    for i in result.success.nonzero().flatten().tolist():
        for t in range(int(result.iterations[i]) + 1):
            x = (images[i] - t * GREY * direction[i]).clamp(0, 1)
            f = model(x[None])[0].detach()
            above = (f[None] > f[specified[i]][:, None]).sum(-1)
            assert bool((above >= k).all()) == (t == result.iterations[i])
        won += int(result.iterations[i]) > 0
    assert won >= 2


@pytest.mark.parametrize("radius", [GREY / 2, 4 * GREY, 1.0])
def test_pgd_stays_in_its_ball_and_in_the_box(radius):
    model, images, labels, specified = world()
    result = attack(
        model, images, labels, specified, 8, method=PGD(step=GREY, radius=radius), max_iter=12
    )
    moved = (result.adversarial - images).abs()
    assert moved.max() <= radius + NEAR and moved.max() >= min(radius, 8 * GREY) - NEAR
    assert result.adversarial.min() >= 0 and result.adversarial.max() <= 1


@pytest.mark.parametrize("k", [1, 3])
@pytest.mark.parametrize("method", [FGSM(), PGD(radius=0.2)], ids=["fgsm", "pgd"])
def test_it_hides_the_labels_of_a_small_victim(method, k):
    model, images, labels, specified = world(n=12, k=k)
    before = model(images).detach()
    result = attack(model, images, labels, specified, k, method=method, max_iter=60)
    # one straight line is too little for two labels out of three places
    assert result.success.all() or (k == 3 and isinstance(method, FGSM) and result.success.any())
    after = model(result.adversarial).detach()
    excluded = ((after[:, None] > after[..., None]).sum(-1) >= k) | ~specified
    assert torch.equal(excluded.all(-1), result.success)
    assert (after[specified] < before[specified]).double().mean() > 0.8
    distance = (result.adversarial - images).flatten(1).norm(dim=1)
    assert torch.allclose(result.l2, distance, rtol=1e-5)


@pytest.mark.parametrize("method", METHODS)
def test_results_do_not_depend_on_the_neighbours_or_on_the_settings_of_descent(method):
    model, images, labels, specified = world(n=7, k=1)
    options = {"radius": 0.1} if method is PGD else {}
    call = {"method": method(**options), "max_iter": 25}
    together = attack(model, images, labels, specified, 1, slots=3, **call)
    again = attack(
        model, images, labels, specified, 1, slots=3, lr=1.0, alpha=1.0, momentum=0.0, **call
    )
    same(together, again)
    turned = torch.tensor([5, 2, 6, 0, 4, 1, 3])
    other = attack(model, images[turned], labels[turned], specified[turned], 1, slots=3, **call)
    same(together, other, turned)
    assert len(set(together.iterations.tolist())) > 1  # slots of different ages did mix


@pytest.mark.parametrize("method", METHODS)
def test_a_pixel_without_gradient_does_not_move_and_nan_ends_the_image(method):
    class Half(torch.nn.Module):
        """Sees the upper half alone; NaN gradient (and sound logits) for an image of zeros."""

        def forward(self, x):
            f = (x[:, :, :4] * torch.linspace(-1, 2, 32).reshape(4, 8)).sum((2, 3))
            return f + x.sum((1, 2, 3))[:, None].sqrt() * 0.0

    labels = torch.tensor([[True, True, False]] * 2)
    specified = torch.tensor([[True, False, False]] * 2)
    images = torch.full((2, 3, 8, 8), 0.5)
    images[1] = 0.0
    result = attack(Half().eval(), images, labels, specified, 2, method=method(), max_iter=3)
    assert (result.adversarial[0, :, 4:] == 0.5).all()
    assert (result.adversarial[0, 0, :4] != 0.5).all()
    assert result.reasons[1] == "gradient not finite" and (result.adversarial[1] == 0).all()


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("value", [0, -GREY, 1.5, float("nan"), float("inf"), True, "1", None])
def test_options_that_cannot_be_are_refused(method, value):
    with pytest.raises(ValueError, match=r"^step: expected"):
        method(step=value)
    if method is PGD:
        with pytest.raises(ValueError, match=r"^radius: expected"):
            method(radius=value)


def test_the_steps_of_an_eight_bit_image_are_the_default():
    assert FGSM().step_size == PGD().step_size == GREY and PGD().radius == 8 * GREY
    assert not FGSM.uses_lr and not PGD.uses_lr
