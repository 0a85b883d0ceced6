"""Promises of the attack and its engine."""

import itertools
import random

import numpy as np
import pytest
import torch
from scipy.optimize import LinearConstraint, minimize
from sweeps import attack
from torch import nn

from tkmia_utils import AttackResult
from tkmia_utils.topk import in_top_k

C, SIDE = 6, 6


def linear_victim(seed: int = 0) -> nn.Sequential:
    generator = torch.Generator().manual_seed(seed)
    layer = nn.Linear(3 * SIDE * SIDE, C)
    layer.weight.data = torch.randn(layer.weight.shape, generator=generator) / 4
    layer.bias.data = torch.randn(C, generator=generator)
    return nn.Sequential(nn.Flatten(), layer).eval()


def net(seed: int = 0, classes: int = 10) -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = nn.Sequential(
            nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 16, 3, 2, 1), nn.ReLU(),
            nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(64, classes),
        ).eval()  # fmt: skip
        for parameter in model.parameters():  # livelier than at birth, so that it can be attacked
            parameter.data *= 3
        return model


def task(model, n=8, *, k=2, m=1, seed=1, side=SIDE, classes=C, spread=0.3):
    """Images whose k + m highest labels are relevant, the m highest of them specified."""
    generator = torch.Generator().manual_seed(seed)
    images = 0.5 + spread * (torch.rand(n, 3, side, side, generator=generator) - 0.5)
    order = model(images).detach().argsort(descending=True)
    labels = torch.zeros(n, classes, dtype=torch.bool).scatter_(1, order[:, : k + m], True)
    specified = torch.zeros(n, classes, dtype=torch.bool).scatter_(1, order[:, :m], True)
    return images, labels, specified


def minimal_norm(model, image, specified: int, k: int) -> float:
    """Norm of the least perturbation with k labels above the specified one: a programme a set."""
    weight, bias = (p.detach().double().numpy() for p in model[1].parameters())
    clean = weight @ image.flatten().double().numpy() + bias
    best = np.inf
    others = [c for c in range(C) if c != specified]
    for above in itertools.combinations(others, k):
        a = weight[list(above)] - weight[specified]
        gap = clean[list(above)] - clean[specified]
        found = minimize(
            lambda d: d @ d, np.linalg.lstsq(a, -gap, rcond=None)[0], jac=lambda d: 2 * d,
            constraints=LinearConstraint(a, lb=-gap),
            method="SLSQP",
        )  # fmt: skip
        if found.success:
            best = min(best, float(np.sqrt(found.fun)))
    return best


def same(a: AttackResult, b: AttackResult, rows=slice(None)) -> None:
    """Equal to the bit."""
    for name in ("adversarial", "success", "iterations", "clean_logits", "adversarial_logits"):
        assert torch.equal(getattr(a, name)[rows], getattr(b, name)), name


@pytest.mark.parametrize("k", [1, 2, 3])
def test_on_a_linear_victim_the_attack_is_within_half_of_the_least_perturbation(k):
    model = linear_victim()
    images, labels, specified = task(model, 8, k=k)
    result = attack(model, images, labels, specified, k, lr=1e-4, max_iter=3000)
    assert result.success.all()
    for i in range(len(images)):
        least = minimal_norm(model, images[i], int(specified[i].nonzero()), k)
        assert 0.999 * least <= float(result.l2[i]) <= 1.5 * least


@pytest.mark.parametrize("batch", [1, 3, 8])
def test_results_do_not_depend_on_the_batch_size(batch):
    model = linear_victim()
    images, labels, specified = task(model, 8)
    whole = attack(model, images, labels, specified, 2, slots=5)
    for i in range(0, 8, batch):
        part = slice(i, i + batch)
        result = attack(model, images[part], labels[part], specified[part], 2, slots=batch)
        assert torch.equal(result.iterations, whole.iterations[part])
        torch.testing.assert_close(result.adversarial, whole.adversarial[part], atol=1e-6, rtol=0)


@pytest.mark.parametrize("slots", [2, 4])
def test_at_fixed_slots_neither_order_nor_neighbours_change_a_bit(slots):
    model = net()
    images, labels, specified = task(model, 9, k=3, m=2, side=16, classes=10)
    whole = attack(model, images, labels, specified, 3, lr=0.05, slots=slots)
    assert 0 < whole.iterations.float().mean() and whole.success.any()
    order = torch.randperm(9, generator=torch.Generator().manual_seed(3))
    shuffled = attack(
        model, images[order], labels[order], specified[order], 3, lr=0.05, slots=slots
    )
    same(whole, shuffled, order)
    alone = attack(model, images[4:5], labels[4:5], specified[4:5], 3, lr=0.05, slots=slots)
    same(whole, alone, slice(4, 5))


def test_asking_for_finished_images_less_often_changes_nothing():
    model = net()
    images, labels, specified = task(model, 6, k=3, m=2, side=16, classes=10)
    often = attack(model, images, labels, specified, 3, lr=0.05, slots=3)
    same(often, attack(model, images, labels, specified, 3, lr=0.05, slots=3, check_every=7))


def test_the_limit_changes_nothing_for_images_that_succeed_before_it():
    model = net()
    images, labels, specified = task(model, 12, k=3, m=2, side=16, classes=10)
    long = attack(model, images, labels, specified, 3, lr=0.02, max_iter=200, slots=4)
    limit = int(long.iterations.float().quantile(0.5))
    short = attack(model, images, labels, specified, 3, lr=0.02, max_iter=limit, slots=4)
    early = long.success & (long.iterations <= limit)
    assert early.any() and not early.all()
    assert torch.equal(short.success, early)
    assert torch.equal(short.adversarial[early], long.adversarial[early])
    assert set(short.iterations[~early].tolist()) == {limit}
    assert {short.reasons[i] for i in (~early).nonzero().flatten()} == {"limit"}


def test_settings_may_differ_from_image_to_image():
    model = net()
    images, labels, specified = task(model, 4, k=3, m=2, side=16, classes=10)
    k, lr = torch.tensor([1, 2, 3, 3]), torch.tensor([0.1, 0.02, 0.05, 0.05])
    delta, limit = torch.tensor([2, 1, 1, 2]), torch.tensor([50, 60, 70, 80])
    together = attack(
        model, images, labels, specified, k, lr=lr, delta=delta, max_iter=limit, slots=2
    )
    for i in range(4):
        alone = attack(
            model, images[i : i + 1], labels[i : i + 1], specified[i : i + 1], int(k[i]),
            lr=float(lr[i]), delta=int(delta[i]), max_iter=int(limit[i]), slots=2,
        )  # fmt: skip
        same(together, alone, slice(i, i + 1))


def test_what_is_returned_succeeds_at_its_first_success():
    model = net()
    images, labels, specified = task(model, 8, k=3, m=2, side=16, classes=10)
    result = attack(model, images, labels, specified, 3, lr=0.05, record=True)
    assert result.success.any()
    assert result.adversarial.min() >= 0 and result.adversarial.max() <= 1
    torch.testing.assert_close(
        model(result.adversarial).detach(), result.adversarial_logits, atol=1e-5, rtol=0
    )
    torch.testing.assert_close(result.l2_paper, 2 * result.l2)
    for i, end in enumerate(result.iterations.tolist()):
        path = result.trace.logits[i, : end + 1]
        hidden = (specified[i] & ~in_top_k(path, 3)).sum(-1) == specified[i].sum()
        assert hidden[-1] == result.success[i] and not hidden[:-1].any()
        assert torch.equal(path[0], result.clean_logits[i])
        assert result.trace.logits[i, end + 1 :].isnan().all()
        torch.testing.assert_close(result.trace.l2[i, end], result.l2[i], atol=1e-6, rtol=1e-4)


def test_an_image_that_already_meets_the_condition_is_returned_untouched():
    model = net()
    images, labels, specified = task(model, 3, k=3, m=1, side=16, classes=10)
    lowest = model(images).detach().argmin(-1, keepdim=True)
    labels = labels.scatter(1, lowest, True)
    hidden = torch.zeros_like(specified).scatter_(1, lowest, True)
    result = attack(model, images, labels, hidden, 3)
    assert result.success.all() and not result.iterations.any()
    assert torch.equal(result.adversarial, images)


def test_images_stay_in_the_pixel_box():
    model = linear_victim()
    images, labels, specified = task(model, 4)
    images = images.clone()
    images[:, 0] = 0.0
    images[:, 1] = 1.0
    labels[:], specified[:] = False, False
    order = model(images).detach().argsort(descending=True)
    labels.scatter_(1, order[:, :4], True)
    specified.scatter_(1, order[:, :1], True)
    result = attack(model, images, labels, specified, 2, lr=0.1)
    assert result.adversarial.min() >= 0 and result.adversarial.max() <= 1
    assert (result.l2 > 0).all()


class Poisoned(nn.Module):
    """A net whose logits, or whose gradient, are NaN for images with a certain first pixel."""

    MARK = 0.953125

    def __init__(self, *, gradient: bool) -> None:
        super().__init__()
        self.body, self.gradient = net(), gradient

    def forward(self, x):
        bad = (x[:, 0, 0, 0] == self.MARK).reshape(-1, 1)
        logits = self.body(x)
        if not self.gradient:
            return torch.where(bad, torch.nan, logits)
        slope = torch.where(bad, torch.nan, 1.0)
        logits = logits * 1.0
        logits.register_hook(lambda gradient: gradient * slope)
        return logits


@pytest.mark.parametrize("method", ["tkmia", "kfool", "gmla"])
@pytest.mark.parametrize("check_every", [1, 5])
@pytest.mark.parametrize("gradient", [True, False])
def test_a_poisoned_image_fails_with_a_reason_and_leaves_its_neighbours_alone(
    gradient, check_every, method
):
    healthy, model = net(), Poisoned(gradient=gradient).eval()
    images, labels, specified = task(healthy, 5, k=3, m=2, side=16, classes=10)
    call = dict(lr=0.5 if method == "gmla" else 0.05, slots=3, method=method)
    clean = attack(model, images, labels, specified, 3, **call)
    assert clean.success.all()
    images = images.clone()
    images[2, 0, 0, 0] = Poisoned.MARK
    result = attack(model, images, labels, specified, 3, check_every=check_every, **call)
    wanted = "gradient not finite" if gradient else "logits not finite"
    assert result.reasons[2] == wanted and not result.success[2]
    assert torch.equal(result.adversarial[2], images[2]) and not result.iterations[2]
    assert result.adversarial_logits[2].isfinite().all() == gradient
    others = torch.tensor([0, 1, 3, 4])
    for name in ("adversarial", "success", "iterations", "l2", "adversarial_logits"):
        assert torch.equal(getattr(result, name)[others], getattr(clean, name)[others]), name


def test_model_and_random_state_are_left_as_they_were():
    model = net()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    model[0].weight.grad = torch.ones_like(model[0].weight)
    flags = [p.requires_grad for p in model.parameters()]
    torch_state, python_state = torch.random.get_rng_state(), random.getstate()
    images, labels, specified = task(model, 3, k=3, m=2, side=16, classes=10)
    given = images.clone()
    attack(model, images, labels, specified, 3, lr=0.05)
    assert torch.equal(images, given)
    assert all(torch.equal(v, before[key]) for key, v in model.state_dict().items())
    assert [p.requires_grad for p in model.parameters()] == flags and not model.training
    assert torch.equal(model[0].weight.grad, torch.ones_like(model[0].weight))
    assert all(p.grad is None for p in list(model.parameters())[1:])
    assert torch.equal(torch.random.get_rng_state(), torch_state)
    assert random.getstate() == python_state


def refusals():
    """Name of the argument, and what to change in a sound call."""
    nan = torch.full((2, 3, 16, 16), 0.5)
    nan[1, 0, 0, 0] = torch.nan
    empty = torch.zeros(2, 10, dtype=torch.bool)
    full = ~empty
    few = empty.clone()
    few[:, 0] = True
    return [
        ("images", {"images": torch.rand(2, 16, 16)}),
        ("images", {"images": torch.rand(2, 1, 16, 16)}),
        ("images", {"images": torch.rand(0, 3, 16, 16)}),
        ("images", {"images": torch.zeros(2, 3, 16, 16, dtype=torch.uint8)}),
        ("images", {"images": torch.full((2, 3, 16, 16), 1.01)}),
        ("images", {"images": torch.full((2, 3, 16, 16), -0.01)}),
        ("images", {"images": nan}),
        ("images", {"images": np.zeros((2, 3, 16, 16))}),
        ("labels", {"labels": full.float()}),
        ("labels", {"labels": full[:1]}),
        ("labels", {"labels": full[0]}),
        ("labels", {"labels": empty, "specified": empty}),
        ("specified", {"specified": few.long()}),
        ("specified", {"specified": few[:, :5]}),
        ("specified", {"specified": empty}),
        ("specified", {"labels": few, "specified": few.flip(1)}),
        ("specified", {"labels": few, "specified": few}),
        ("k", {"k": 0}),
        ("k", {"k": 10}),
        ("k", {"k": 2.0}),
        ("k", {"k": torch.tensor([1, 2, 3])}),
        ("k", {"k": torch.tensor([1, 10])}),
        ("method", {"method": "deepfool"}),
        ("scores", {"scores": "softmax"}),
        ("stepsize", {"stepsize": 1.0}),
        ("max_iter", {"max_iter": -1}),
        ("max_iter", {"max_iter": 2.5}),
        ("max_iter", {"max_iter": 2**70}),
        ("lr", {"lr": 0.0}),
        ("lr", {"lr": torch.tensor(True)}),
        ("lr", {"lr": torch.tensor(1j)}),
        ("lr", {"lr": 1e300}),
        ("lr", {"lr": float("nan")}),
        ("alpha", {"alpha": -1.0}),
        ("momentum", {"momentum": 1.0}),
        ("delta", {"delta": 0}),
        ("delta", {"delta": 2}),
        ("slots", {"slots": 0}),
        ("check_every", {"check_every": 0}),
        ("snapshots", {"snapshots": [1.5]}),
        ("device", {"device": "meta"}),
        ("device", {"device": "cudaa"}),
        ("device", {"device": None}),
        ("method", {"method": 3}),
        ("method", {"method": None}),
        ("snapshots", {"snapshots": 5}),
        ("slots", {"slots": True}),
        ("images", {"images": [0.5]}),
        ("index", {"index": [0, 1]}),
        ("index", {"index": torch.tensor([0.0, 1.0])}),
        ("index", {"index": torch.tensor([[0, 1]])}),
        ("index", {"index": torch.tensor([0, 2])}),
        ("index", {"index": torch.tensor([-1, 0])}),
        ("labels", {"index": torch.tensor([0, 1, 1])}),
        ("clean_logits", {"clean_logits": torch.zeros(2, 9)}),
        ("clean_logits", {"clean_logits": torch.zeros(2, 10, dtype=torch.int64)}),
        ("precision", {"precision": "fp16"}),
        ("compile", {"compile": "yes"}),
        ("channels_last", {"channels_last": 1}),
        ("fold", {"fold": "yes"}),
        ("keep_images", {"keep_images": 1}),
        ("record", {"record": 1}),
        ("progress", {"progress": "bar"}),
        ("checkpoint", {"checkpoint": 3}),
        ("checkpoint_every", {"checkpoint_every": 0}),
        ("model", {"model": net().train()}),
        ("model", {"model": net(classes=7)}),
        ("model", {"model": "resnet"}),
        ("model", {"model": lambda x: torch.zeros(len(x), 10)}),
    ]


@pytest.mark.parametrize(("name", "change"), refusals())
def test_bad_input_is_refused_by_name(name, change):
    labels = torch.zeros(2, 10, dtype=torch.bool)
    labels[:, :4] = True
    specified = torch.zeros_like(labels)
    specified[:, 0] = True
    sound = {
        "model": net(), "images": torch.full((2, 3, 16, 16), 0.5),
        "labels": labels, "specified": specified, "k": 2,
    }  # fmt: skip
    attack(**sound)
    with pytest.raises(ValueError, match=rf"^{name}: "):
        attack(**{**sound, **change})


@pytest.mark.parametrize("method", ["tkmia", "kfool"])
@pytest.mark.parametrize("check_every", [1, 4])
def test_one_long_run_answers_for_shorter_limits(method, check_every):
    model = net()
    images, labels, specified = task(model, 10, k=3, m=2, side=16, classes=10)
    call = dict(lr=0.02, slots=4, check_every=check_every, method=method)
    if method == "kfool":
        model = nn.Sequential(model, nn.Tanh()).eval()  # bent, so that it takes some iterations
    whole = attack(model, images, labels, specified, 3, max_iter=80, snapshots=[0, 3, 30], **call)
    for limit in (0, 3, 30):
        short, seen = (
            attack(model, images, labels, specified, 3, max_iter=limit, **call),
            whole.at(limit),
        )
        for name in (
            "success",
            "iterations",
            "adversarial_logits",
            "clean_logits",
            "l2",
            "l2_paper",
        ):
            assert torch.equal(getattr(seen, name), getattr(short, name)), name
        assert seen.reasons == short.reasons
        won = short.success
        assert torch.equal(seen.adversarial[won], short.adversarial[won])
        assert (~won).any() == seen.adversarial.isnan().any()
    with pytest.raises(ValueError, match="limit"):
        whole.at(31)
