"""Promises of the runtime: how an attack is run is said once, and checked where it is said."""

from dataclasses import FrozenInstanceError, fields

import numpy as np
import pytest
import torch
from test_engine import net, same, task

from tkmia_utils import Runtime, attack
from tkmia_utils.engine.runtime import split_settings


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("device", "cudaa"),
        ("device", None),
        ("slots", 0),
        ("slots", 2.0),
        ("slots", True),
        ("check_every", None),
        ("checkpoint_every", 0),
        ("precision", "fp16"),
        ("compile", "yes"),
        ("channels_last", 1),
        ("fold", "yes"),
        ("keep_images", 1),
        ("checkpoint", 3),
        ("progress", "bar"),
    ],
)
def test_a_setting_that_cannot_be_is_refused_by_name(name, value):
    with pytest.raises(ValueError, match=rf"^{name}: "):
        Runtime(**{name: value})


def test_it_cannot_be_changed_afterwards():
    with pytest.raises(FrozenInstanceError):
        Runtime().slots = 3


@pytest.mark.parametrize("name", [f.name for f in fields(Runtime)])
def test_a_setting_given_to_the_attack_itself_says_where_it_belongs(name):
    model = net()
    data = task(model, 2, k=2, side=16, classes=10)
    value = getattr(Runtime(), name)
    with pytest.raises(ValueError, match=rf"^{name}: .*runtime=Runtime\({name}="):
        attack(model, *data, 2, **{name: value})


def test_anything_else_is_no_runtime():
    model = net()
    with pytest.raises(ValueError, match=r"^runtime: "):
        attack(model, *task(model, 2, k=2, side=16, classes=10), 2, runtime={"slots": 3})


@pytest.mark.parametrize("kind", [torch.float64, torch.float16])
def test_a_model_whose_weights_are_not_float32_is_refused_with_a_way_out(kind):
    data = task(net(), 2, k=2, side=16, classes=10)
    with pytest.raises(ValueError, match=rf"^model: .*{kind}.*model\.float\(\)"):
        attack(net().to(kind), *data, 2)


def test_a_model_of_another_kind_that_takes_float32_all_the_same_is_let_through():
    class Cast(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.body = net().double()

        def forward(self, x):
            return self.body(x.double()).float()

    model = Cast().eval()
    images, labels, specified = task(net(), 2, k=2, side=16, classes=10)
    assert len(attack(model, images, labels, specified, 2, max_iter=2)) == 2


def test_a_device_that_is_not_there_is_refused_for_a_function_too():
    model = net()
    data = task(model, 2, k=2, side=16, classes=10)
    with pytest.raises(ValueError, match=r"^device: "):
        attack(lambda x: model(x), *data, 2, runtime=Runtime(device="cuda:99"))


def test_inference_mode_is_named_as_the_reason_why_there_is_no_gradient():
    model = net()
    data = task(model, 2, k=2, side=16, classes=10)
    with torch.inference_mode(), pytest.raises(ValueError, match=r"^model: .*inference_mode"):
        attack(model, *data, 2)


def test_the_defaults_are_those_of_an_attack_without_a_runtime():
    model = net()
    data = task(model, 6, k=2, side=16, classes=10)
    call = dict(lr=0.05, max_iter=20)
    runtime = Runtime(device=torch.device("cpu"), slots=6)
    same(attack(model, *data, 2, **call), attack(model, *data, 2, **call, runtime=runtime))


def test_settings_are_sorted_into_the_runtimes_and_the_others():
    mixed = {"lr": 0.1, "slots": 3, "variant": "paper", "precision": "bf16"}
    assert split_settings(mixed) == (
        {"slots": 3, "precision": "bf16"},
        {"lr": 0.1, "variant": "paper"},
    )


def test_an_integer_of_numpy_is_refused_in_a_way_that_tells_it_from_an_int():
    model = net()
    data = task(model, 2, k=2, side=16, classes=10)
    with pytest.raises(ValueError, match=r"^k: .*np\.int64\(2\)"):
        attack(model, *data, np.int64(2))
