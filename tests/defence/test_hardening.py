"""Promises of hardening: a copy is trained, once, within the ball it was told, and it helps."""

import copy
from dataclasses import replace

import pytest
import torch
from colours import CLASSES, colours
from torch import nn
from torch.nn import functional

from tkmia_utils import victims
from tkmia_utils.defence import hardening
from tkmia_utils.defence.hardening import Hardening, harden, perturbed
from tkmia_utils.victims import Victim

NOISY = Hardening(radius=0.0, noise=0.2, epochs=2, batch=16)
ATTACKED = Hardening(radius=0.5, epochs=2, batch=16)


TRAIN, HELD_OUT = colours(), colours(seed=1, split="val")


def net() -> nn.Sequential:
    """With batch normalisation that has seen something, and dropout."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.5),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3),
        )  # fmt: skip
        for _ in range(3):
            model(TRAIN.images(range(16)))
    return model.eval()


@pytest.fixture
def victim():
    return Victim(net(), [], "a victim", CLASSES)


def hardened(victim: Victim, settings: Hardening, **options) -> Victim:
    return harden(victim, TRAIN, HELD_OUT, settings, device="cpu", **options)


def same_weights(one: nn.Module, other: nn.Module) -> bool:
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("settings", [NOISY, ATTACKED, replace(ATTACKED, noise=0.1, loss="bce")])
def test_a_copy_is_trained_and_the_model_given_stays(victim, settings):
    for p in victim.model.parameters():
        p.requires_grad_(False)
    before = copy.deepcopy(victim.model)
    found = hardened(victim, settings)
    assert same_weights(victim.model, before)
    assert not any(p.requires_grad for p in victim.model.parameters())
    assert all(p.grad is None for p in victim.model.parameters())
    changed = zip(found.model.parameters(), before.parameters(), strict=True)
    assert all(not torch.equal(a, b) for a, b in changed)
    assert found.classes == CLASSES and not found.model.training
    assert all(torch.isfinite(p).all() for p in found.model.parameters())


def test_statistics_of_batch_normalisation_stay(victim):
    found = hardened(victim, ATTACKED).model
    for name, value in found.named_buffers():
        assert torch.equal(value, victim.model.get_buffer(name))


def test_the_same_settings_give_the_same_victim_and_leave_the_random_state(victim):
    settings = replace(ATTACKED, noise=0.1, steps=2)
    first = hardened(victim, settings)
    torch.rand(3)
    before = torch.random.get_rng_state()
    again = hardened(victim, settings)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert first.key == again.key
    for a, b in zip(first.model.parameters(), again.model.parameters(), strict=True):
        torch.testing.assert_close(a, b)


def test_every_epoch_is_recorded_and_reported(victim):
    told = []
    found = hardened(victim, NOISY, report=told.append)
    assert found.history == told and [entry["epoch"] for entry in told] == [1, 2]
    assert all(entry.keys() >= {"loss", "class_map", "image_ap"} for entry in told)


def test_a_hardened_victim_is_trained_once_and_loads_with_the_same_logits(
    victim, tmp_path, monkeypatch
):
    first = hardened(victim, ATTACKED, cache=tmp_path)
    monkeypatch.setattr(hardening, "_fit", lambda *a, **k: pytest.fail("trained again"))
    second = hardened(victim, ATTACKED, cache=tmp_path)
    assert (first.key, first.history) == (second.key, second.history)
    assert [path.name for path in tmp_path.iterdir()] == [f"hardened-{first.key}.safetensors"]
    images = HELD_OUT.images(range(8))
    assert torch.equal(first.model(images), second.model(images))


def test_a_small_net_of_ours_is_hardened_and_loaded_as_any_other(tmp_path):
    recipe = victims.Recipe(widths=(8, 8, 8, 8, 8), epochs=1, batch=16)
    trained = victims.train(recipe, TRAIN, HELD_OUT, device="cpu")
    first, second = (hardened(trained, ATTACKED, cache=tmp_path) for _ in range(2))
    assert same_weights(first.model, second.model)
    assert not same_weights(first.model, trained.model)


def test_a_broken_file_is_refused_by_name(victim, tmp_path):
    hardened(victim, NOISY, cache=tmp_path)
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ValueError, match=rf"^cache: .*{path.name}"):
        hardened(victim, NOISY, cache=tmp_path)


def test_other_settings_weights_or_data_are_another_victim(victim, monkeypatch):
    monkeypatch.setattr(hardening, "_fit", lambda *a, **k: [])
    other = Victim(copy.deepcopy(victim.model), [], victim.key, CLASSES)
    with torch.no_grad():
        other.model[-1].bias[0] += 1
    keys = [
        hardened(victim, ATTACKED).key,
        hardened(victim, replace(ATTACKED, radius=0.6)).key,
        hardened(victim, replace(ATTACKED, seed=1)).key,
        hardened(other, ATTACKED).key,
        harden(victim, colours(seed=5), HELD_OUT, ATTACKED, device="cpu").key,
    ]
    assert len(set(keys)) == len(keys)
    assert hardened(victim, ATTACKED).key == keys[0]


@pytest.mark.parametrize(
    "name, value",
    [
        ("radius", -1.0), ("radius", float("nan")), ("noise", float("inf")),
        ("noise", "0.1"), ("steps", 0), ("steps", 1.5), ("epochs", 0), ("epochs", True),
        ("batch", 0), ("lr", 0.0), ("lr", -1), ("seed", -1), ("loss", "hinge"),
    ],
)  # fmt: skip
def test_bad_settings_are_refused_by_name(name, value):
    with pytest.raises(ValueError, match=f"^{name}: expected"):
        Hardening(**{name: value})


def test_sets_that_do_not_fit_are_refused_by_name(victim):
    other = replace(TRAIN, classes=("cyan", "magenta", "yellow"))
    with pytest.raises(ValueError, match=r"^train: "):
        harden(victim, other, HELD_OUT, ATTACKED, device="cpu")
    with pytest.raises(ValueError, match=r"^held_out: "):
        harden(victim, TRAIN, other, ATTACKED, device="cpu")
    with pytest.raises(ValueError, match=r"^train: expected at least a batch of 200, got 96"):
        hardened(victim, replace(ATTACKED, batch=200))


@pytest.mark.parametrize("loss", ["ranking", "bce"])
@pytest.mark.parametrize("steps", [1, 3])
def test_the_inner_attack_stays_in_its_ball_and_spares_the_weights(victim, loss, steps):
    settings = Hardening(radius=0.3, steps=steps, loss=loss)
    images = TRAIN.images(range(8))
    asked = {"generator": torch.Generator().manual_seed(0)}
    moved = perturbed(victim.model, images, TRAIN.labels[:8], settings, **asked)
    norms = (moved - images).flatten(1).norm(dim=1)
    assert (norms <= 0.3 * 1.001).all() and (norms > 0.1).all()
    assert not moved.requires_grad and all(p.grad is None for p in victim.model.parameters())
    assert all(p.requires_grad for p in victim.model.parameters())


def test_weights_can_be_trained_again_after_an_inner_attack_that_failed(victim):
    short = TRAIN.labels[:4]  # for eight images
    with pytest.raises((RuntimeError, ValueError)):
        perturbed(
            victim.model, TRAIN.images(range(8)), short,
            Hardening(loss="bce"), generator=torch.Generator(),
        )  # fmt: skip
    assert all(p.requires_grad for p in victim.model.parameters())


def test_the_ranking_attack_swaps_relevant_labels_and_the_other_raises_the_loss():
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 3, bias=False))
    with torch.no_grad():
        model[1].weight.copy_(torch.eye(3).repeat_interleave(4, 1))
    images = torch.full((1, 3, 2, 2), 0.5)
    labels = torch.tensor([[True, True, False]])
    settings = Hardening(radius=0.4)
    moved = perturbed(model, images, labels, settings, generator=torch.Generator().manual_seed(0))
    change = (model(moved) - model(images))[0]
    assert change[0] * change[1] < 0 and change[2].abs() < 1e-5
    again = perturbed(model, images, labels, replace(settings, loss="bce"),
                      generator=torch.Generator())  # fmt: skip
    loss = functional.binary_cross_entropy_with_logits
    assert loss(model(again), labels.float()) > loss(model(images), labels.float()) + 0.01


def test_an_image_with_one_relevant_label_or_none_can_be_attacked(victim):
    labels = torch.tensor([[False, True, False], [False, False, False]])
    images = TRAIN.images(range(2))
    moved = perturbed(victim.model, images, labels, ATTACKED, generator=torch.Generator())
    assert torch.isfinite(moved).all() and not torch.equal(moved, images)


@pytest.mark.parametrize("weights", ["noise", "attack"])
def test_fine_tuning_lowers_the_loss_that_it_is_for(weights):
    """From the same trained net, longer than it was trained: by a wide margin."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(768, 3))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model[1].reset_parameters()
        with torch.no_grad():
            model[1].weight.mul_(30)  # sees much that is not there
    victim = Victim(model.eval(), [], "linear", CLASSES)
    noise = weights == "noise"
    settings = Hardening(
        radius=0.0 if noise else 1.0, noise=0.3 if noise else 0.0,
        loss="bce", epochs=20, batch=16, lr=0.02,
    )  # fmt: skip
    found = hardened(victim, settings)
    images, labels = HELD_OUT.images(range(96)), HELD_OUT.labels

    @torch.no_grad()
    def loss(model: nn.Module) -> float:
        generator = torch.Generator().manual_seed(0)
        x = images + settings.noise * torch.randn(images.shape, generator=generator)
        if settings.radius:
            x = perturbed(model, x, labels, settings, generator=generator)
        return float(functional.binary_cross_entropy_with_logits(model(x), labels.float()))

    assert loss(found.model) < 0.5 * loss(victim.model)
