"""Promises of the second look: a mean over copies, the same for an image wherever it stands."""

import pytest
import torch
from torch import nn

from tkmia_utils.defence.jpeg import jpeg
from tkmia_utils.defence.second_look import COPIES, MeanScores, mirror, mirrored, second_scores
from tkmia_utils.defence.transformations import TRANSFORMATIONS, Transformation
from tkmia_utils.exact import on_grid

PICTURES = torch.rand((5, 3, 16, 16), generator=torch.Generator().manual_seed(0))
TWO = (Transformation("negative", lambda x: 1 - x, lambda x: 1 - x), COPIES[1])


class Net(nn.Module):
    """Four logits, by a layer that is not linear; the same to the bit in every batch."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(1)
        self.register_buffer("weights", torch.randn((4, 3, 16, 16), generator=generator) / 9)
        self.eval()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.stack([(x * w).flatten(1).sum(1).tanh() for w in self.weights], 1)


def test_second_scores_are_the_mean_over_a_compressed_and_a_mirrored_copy():
    net = Net()
    by_hand = (net(jpeg(75)(PICTURES)) + net(on_grid(PICTURES).flip(-1))) / 2
    assert torch.equal(second_scores(net, PICTURES), by_hand)
    other = (net(1 - PICTURES) + net(on_grid(PICTURES).flip(-1))) / 2
    assert torch.equal(second_scores(net, PICTURES, copies=TWO), other)
    found = second_scores(net, PICTURES)
    assert found.dtype == torch.float32 and not found.requires_grad


def test_who_also_looks_at_the_image_itself_takes_the_mean_with_it():
    net = Net()
    three = 2 * second_scores(net, PICTURES) + net(PICTURES)
    assert torch.allclose(MeanScores(net, itself=True)(PICTURES), three / 3)
    assert len(MeanScores(net, itself=True).views) == 3 and len(MeanScores(net).views) == 2


@pytest.mark.parametrize("batch", [1, 2, 64])
def test_a_row_does_not_depend_on_its_place_in_the_batch(batch):
    whole = second_scores(Net(), PICTURES)
    assert torch.equal(second_scores(Net(), PICTURES, batch=batch), whole)
    assert torch.equal(second_scores(Net(), PICTURES.flip(0), batch=batch).flip(0), whole)


def test_the_gradient_is_the_mean_of_those_through_all_copies():
    net, x = Net(), on_grid(PICTURES)  # mirrored is exact there
    x = x.requires_grad_()
    MeanScores(net, TWO, itself=True)(x)[:, 1].sum().backward()
    y = on_grid(PICTURES).requires_grad_()
    ((net(y) + net(1 - y) + net(y.flip(-1))) / 3)[:, 1].sum().backward()
    assert torch.allclose(x.grad, y.grad, atol=1e-7) and (x.grad != 0).all()
    z = PICTURES.clone().requires_grad_()
    MeanScores(net)(z)[:, 1].sum().backward()  # past the rounding of JPEG as well
    assert torch.isfinite(z.grad).all() and (z.grad.flatten(1).norm(dim=1) > 0).all()


def test_a_step_along_the_gradient_raises_the_second_score():
    net = Net()
    x = PICTURES.clone().requires_grad_()
    MeanScores(net)(x)[:, 0].sum().backward()
    moved = (PICTURES + 0.1 * x.grad.sign()).clamp(0, 1)
    assert (second_scores(net, moved)[:, 0] > second_scores(net, PICTURES)[:, 0]).all()


def test_a_mirror_exchanges_left_and_right_of_the_8_bit_image():
    assert torch.equal(mirror(mirror(PICTURES)), PICTURES)
    assert torch.equal(mirrored(PICTURES)[..., 0], on_grid(PICTURES)[..., -1])


@pytest.mark.parametrize("copies", [(), [*COPIES, TRANSFORMATIONS["random resize"]]])
def test_copies_that_are_none_or_drawn_at_random_are_refused(copies):
    with pytest.raises(ValueError, match=r"^copies: "):
        second_scores(Net(), PICTURES, copies=copies)


def test_a_model_in_training_mode_is_refused():
    with pytest.raises(ValueError, match=r"^model: "):
        MeanScores(Net().train(), itself=True)
    assert not any(module.training for module in MeanScores(Net(), itself=True).modules())
