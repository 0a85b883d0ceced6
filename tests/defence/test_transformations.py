"""Promises of transformations of the input, and of what leads an attack through them."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from tkmia_utils.defence import transformations
from tkmia_utils.defence.jpeg import jpeg, near_jpeg
from tkmia_utils.defence.transformations import (
    TRANSFORMATIONS,
    TREATMENTS,
    Defended,
    Transformation,
    random_resize,
)
from tkmia_utils.exact import on_grid

PICTURES = torch.rand((4, 3, 32, 32), generator=torch.Generator().manual_seed(0))
# smooth pictures, as a JPEG likes them
SMOOTH = nn.functional.interpolate(PICTURES[..., :4, :4], (32, 32), mode="bilinear")
RANDOM = TRANSFORMATIONS["random resize"]


class Sums(nn.Module):
    """Two logits: a weighted sum of all pixels, and its negative."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(1)
        self.register_buffer("weights", torch.randn((3, 32, 32), generator=generator))
        self.eval()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        total = (x * self.weights).sum((1, 2, 3))
        return torch.stack([total, -total], 1)


def given(transformation: Transformation, images: torch.Tensor) -> tuple:
    some = torch.rand((len(images), 3), generator=torch.Generator().manual_seed(2))
    return (images, some) if transformation.random else (images,)


@pytest.mark.parametrize("name", TREATMENTS)
def test_a_change_gives_back_images_in_the_box_and_near_the_smooth_original(name):
    changed = TREATMENTS[name](SMOOTH)
    assert changed.shape == SMOOTH.shape and changed.dtype == torch.float32
    assert 0 <= changed.min() and changed.max() <= 1
    assert 0 < (changed - SMOOTH).abs().mean() < 0.05


def test_a_png_is_on_the_lattice_and_idempotent():
    once = on_grid(PICTURES)
    assert torch.equal((once * 255).round() / 255, once)
    assert torch.equal(on_grid(once), once)


def test_a_jpeg_of_lower_quality_is_further_away():
    good, poor = ((jpeg(quality)(PICTURES) - PICTURES).norm() for quality in (90, 75))
    assert good < poor


def test_a_shift_moves_by_one_pixel():
    moved = transformations.shifted(PICTURES)
    assert torch.equal(moved[..., 1:], on_grid(PICTURES)[..., :-1])


@pytest.mark.parametrize("transformation", TRANSFORMATIONS.values(), ids=lambda t: t.name)
def test_the_model_sees_the_real_transformation_whether_or_not_a_gradient_is_taken(transformation):
    defended = Defended(Sums(), transformation)
    with_graph = PICTURES.clone().requires_grad_()
    seen = defended.seen(with_graph)
    assert torch.equal(seen.detach(), defended.seen(PICTURES))
    numbers = (defended.numbers(PICTURES, 0),) if transformation.random else ()
    assert torch.equal(seen.detach(), transformation.real(PICTURES, *numbers))
    assert torch.equal(defended(PICTURES), Sums()(seen.detach()))


@pytest.mark.parametrize("transformation", TRANSFORMATIONS.values(), ids=lambda t: t.name)
def test_the_stand_in_is_near_and_carries_a_gradient(transformation):
    some = given(transformation, SMOOTH)
    real, near = transformation.real(*some), transformation.stand_in(*some)
    assert near.shape == real.shape
    assert (near - real).abs().mean() < 0.01
    x = PICTURES.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(Defended(Sums(), transformation)(x)[:, 0].sum(), x)
    assert gradient.isfinite().all() and gradient.flatten(1).norm(dim=1).min() > 1


def test_a_rounding_is_skipped_on_the_way_back():
    x = PICTURES.clone().requires_grad_()
    model = Sums()
    (gradient,) = torch.autograd.grad(Defended(model, TRANSFORMATIONS["PNG"])(x)[:, 0].sum(), x)
    torch.testing.assert_close(gradient, model.weights.expand_as(x))


def test_the_gradient_of_a_shift_is_that_of_the_moved_pixels():
    x = PICTURES.clone().requires_grad_()
    model = Sums()
    defended = Defended(model, TRANSFORMATIONS["one pixel of shift"])
    (gradient,) = torch.autograd.grad(defended(x)[:, 0].sum(), x)
    torch.testing.assert_close(
        gradient[..., 1:-1], model.weights[..., 2:].expand_as(gradient[..., 1:-1])
    )
    assert (gradient[..., -1] == 0).all()  # it leaves the image


@pytest.mark.parametrize("side", [32, 29])
def test_near_jpeg_is_nearer_to_the_file_than_the_image_is(side):
    images = PICTURES[..., :side, :side]
    file = jpeg(75)(images)
    assert (near_jpeg(75)(images) - file).norm() < 0.4 * (images - file).norm()


def test_what_jpeg_drops_has_hardly_any_gradient():
    """A pattern of single pixels is dropped, a change of the whole block is kept."""
    sign = torch.ones(32, 32)
    sign[::2] *= -1
    sign[:, ::2] *= -1
    x = torch.full((1, 3, 32, 32), 0.5).requires_grad_()
    moved = x + 0.004 * sign
    made = near_jpeg(75)(moved)
    (fine,) = torch.autograd.grad((made * sign).sum(), x, retain_graph=True)
    assert (fine * sign).mean() < 0.05  # 1 without the file
    x = torch.full((1, 3, 32, 32), 0.52).requires_grad_()
    (coarse,) = torch.autograd.grad(near_jpeg(75)(x).sum(), x)
    assert coarse.mean() > 0.1


@pytest.mark.parametrize("transformation", TRANSFORMATIONS.values(), ids=lambda t: t.name)
@pytest.mark.parametrize("keyed", transformations.KEYS)
def test_a_row_does_not_depend_on_its_place_or_its_neighbours(transformation, keyed):
    defended = Defended(Sums(), transformation, draws=2, keyed=keyed)
    order = torch.tensor([2, 0, 3, 1])
    for draw in range(defended.draws):
        assert torch.equal(
            defended.seen(PICTURES, draw)[order], defended.seen(PICTURES[order], draw)
        )
    other = PICTURES.clone()
    other[1:] = 0.3
    assert torch.equal(defended.seen(other)[0], defended.seen(PICTURES)[0])


def test_draws_by_content_change_with_a_pixel_and_not_with_the_day():
    defended = Defended(Sums(), RANDOM, draws=2, seed=3, keyed="content")
    numbers = defended.numbers(PICTURES, 0)
    again = Defended(Sums(), RANDOM, draws=2, seed=3, keyed="content")
    assert torch.equal(again.numbers(PICTURES, 0), numbers)
    assert len(numbers.unique(dim=0)) == len(PICTURES)
    moved = PICTURES.clone()
    moved[0, 0, 0, 0] += 1 / 255
    changed = (defended.numbers(moved, 0) != numbers).any(1)
    assert changed.tolist() == [True, False, False, False]
    other = Defended(Sums(), RANDOM, draws=2, seed=4, keyed="content")
    assert (other.numbers(PICTURES, 0) != numbers).any(1).all()
    assert (defended.numbers(PICTURES, 1) != numbers).any(1).all()


def test_draws_by_seed_are_the_same_for_all_images():
    defended = Defended(Sums(), RANDOM, draws=3)
    assert len(defended.numbers(PICTURES, 2).unique(dim=0)) == 1
    assert 0 <= defended.numbers(PICTURES, 1).min() and defended.numbers(PICTURES, 1).max() < 1


def test_logits_are_the_mean_over_the_draws():
    defended = Defended(Sums(), RANDOM, draws=3, seed=5)
    each = torch.stack([Sums()(defended.seen(PICTURES, draw)) for draw in range(3)])
    torch.testing.assert_close(defended(PICTURES), each.mean(0))
    assert Defended(Sums(), TRANSFORMATIONS["resized"], draws=9).draws == 1


def test_a_random_resize_keeps_the_image_at_full_size_and_else_puts_it_on_grey():
    whole = random_resize(SMOOTH, torch.tensor([[1.0, 0.3, 0.8]]).expand(4, -1))
    torch.testing.assert_close(whole, SMOOTH, rtol=0, atol=1e-5)
    black = torch.zeros_like(SMOOTH)
    small = random_resize(black, torch.tensor([[0.0, 0.0, 1.0]]).expand(4, -1))  # lower left
    assert small[:, :, -8:, :8].abs().max() < 1e-6
    assert (small[:, :, 0, -1] == transformations.GREY).all()


def test_two_defences_are_told_apart_by_what_they_say_of_themselves():
    """The engine refuses a checkpoint of another model by this text."""
    texts = {
        repr(Defended(Sums(), RANDOM, draws=draws, seed=seed, keyed=keyed))
        for draws in (1, 2)
        for seed in (0, 1)
        for keyed in transformations.KEYS
    } | {repr(Defended(Sums(), TRANSFORMATIONS[name])) for name in ("resized", "blurred")}
    assert len(texts) == 10


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"draws": 0}, "draws"),
        ({"draws": True}, "draws"),
        ({"seed": 0.5}, "seed"),
        ({"keyed": "place"}, "keyed"),
    ],
)
def test_a_setting_out_of_range_is_refused_by_name(settings, name):
    with pytest.raises(ValueError, match=f"^{name}: "):
        Defended(Sums(), RANDOM, **settings)


def test_a_model_in_training_and_a_negative_number_are_refused():
    with pytest.raises(ValueError, match=r"^model: "):
        Defended(nn.Sequential(Sums()).train(), RANDOM)
    with pytest.raises(ValueError, match=r"^numbers: "):
        replace(RANDOM, numbers=-1)
