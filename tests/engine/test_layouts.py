"""Promises of the faster layouts: the same function, chosen by trial, checked on the victim."""

import copy

import pytest
import torch
import torchvision
from sweeps import Shared, attack
from test_engine import net, same, task
from torch import nn

from tkmia_utils import Runtime
from tkmia_utils.engine import claims, trial
from tkmia_utils.engine.checkpoint import Checkpoint
from tkmia_utils.engine.folding import Layout, fold

BOTH = {"fold": True, "channels_last": True}
LONG = {"slots": 4, "lr": 0.05, "max_iter": 120}


@pytest.fixture(autouse=True)
def however_quick(monkeypatch):
    """Toys are tried as well."""
    monkeypatch.setattr(trial, "TINY", 0.0)


def lively(model):
    """In evaluation mode, with statistics that are not those of birth."""
    generator = torch.Generator().manual_seed(5)
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            for tensor in (module.weight.data, module.running_var):
                tensor.copy_(0.5 + torch.rand(tensor.shape, generator=generator))
            for tensor in (module.bias.data, module.running_mean):
                tensor.copy_(torch.randn(tensor.shape, generator=generator) / 2)
    return model.eval()


def normed(seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return lively(
            nn.Sequential(
                nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU(),
                nn.Conv2d(8, 16, 3, 2, 1), nn.BatchNorm2d(16), nn.ReLU(),
                nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(64, 10),
            )
        )  # fmt: skip


def world(model, n=20):
    with torch.no_grad():  # no label is ahead on all images
        noise = torch.rand(64, 3, 16, 16, generator=torch.Generator().manual_seed(9))
        model[-1].bias -= model(0.5 + 0.3 * (noise - 0.5)).mean(0)
    return model, *task(model, n, k=3, m=2, side=16, classes=10)


class Twice(nn.Module):
    """One convolution for two normalisations, which no weights of its own can stand for."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.one, self.two = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.BatchNorm2d(8)

    def forward(self, x):
        return (self.one(self.conv(x)) - self.two(self.conv(x))).flatten(1)[:, :10]


class Overheard(nn.Module):
    """The output of the convolution is read a second time, past the normalisation."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)

    def forward(self, x):
        y = self.conv(x)
        return (self.norm(y) + y).flatten(1)[:, :10]


@pytest.mark.parametrize(
    ("build", "norms"),
    [(lambda: torchvision.models.resnet18(), 20), (lambda: torchvision.models.mobilenet_v2(), 52)],
)
def test_a_folded_copy_computes_the_same_and_leaves_the_model_alone(build, norms):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = lively(build())
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    fast = Layout(fold=True, channels_last=True).of(model, images)
    assert sum(isinstance(m, nn.BatchNorm2d) for m in model.modules()) == norms
    assert not any(isinstance(m, nn.BatchNorm2d) for m in fast.modules())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not any(module._forward_hooks for module in [*model.modules(), *fast.modules()])
    laid = images.contiguous(memory_format=torch.channels_last)
    assert trial.alike(trial._pass(model, images), trial._pass(fast, laid))


def test_timms_normalisation_keeps_its_activation():
    timm = pytest.importorskip("timm")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = lively(timm.create_model("tf_efficientnet_lite0", num_classes=10))
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    fast = copy.deepcopy(model)
    assert fold(fast, images) == 49
    assert trial.alike(trial._pass(model, images), trial._pass(fast, images))


def test_a_convolution_that_is_called_twice_is_not_folded():
    model = lively(Twice())
    assert fold(copy.deepcopy(model), torch.rand(2, 3, 8, 8)) == 0


def test_a_copy_that_computes_something_else_is_never_chosen(monkeypatch):
    monkeypatch.setattr(trial, "_gain", lambda *_: 100.0)
    model, images = lively(Overheard()), torch.rand(2, 3, 8, 8)
    folded = Layout(fold=True).of(model, images)
    assert not trial.alike(trial._pass(model, images), trial._pass(folded, images))
    call = {"fold": None, "rows": 1000, "passes": 1e5}
    assert trial.choose(model, images, channels_last=False, **call)[0].plain
    assert trial.choose(model, images, channels_last=None, **call)[0] == Layout(False, True)


@pytest.mark.parametrize("gain", [1.0, 2.0])
def test_a_copy_is_chosen_if_it_pays_and_the_result_says_so(gain, monkeypatch):
    asked = []
    monkeypatch.setattr(trial, "_gain", lambda *_: asked.append(1) or gain)
    given = world(normed())
    result = attack(*given, 3, **LONG)
    assert result.trial.layout == (Layout(True, True) if gain > 1 else Layout())
    assert str(result.trial) in str(result) and (f"{gain:.2f} times" in str(result)) == (gain > 1)
    many = len(asked)
    assert attack(*given, 3, **LONG).trial is result.trial  # tried once
    assert len(asked) == many
    assert attack(*given, 3, **LONG | {"fold": False, "channels_last": False}).trial is None


def test_short_attacks_functions_and_records_are_run_as_they_are(monkeypatch):
    monkeypatch.setattr(trial, "_gain", lambda *_: pytest.fail("was tried"))
    model, *given = world(normed())
    short = [{"max_iter": 5}, {"slots": 20}, {"record": True}]
    for call in short:
        assert attack(model, *given, 3, **LONG | call).trial is None
    assert attack(lambda x: model(x), *given, 3, **LONG).trial is None
    with pytest.raises(ValueError, match=r"^fold, channels_last: .*function"):
        attack(lambda x: model(x), *given, 3, fold=True, **LONG)


@pytest.mark.parametrize("method", ["tkmia", "kfool", "gmla", "tkmia_min"])
@pytest.mark.parametrize("stop", ["excluded", "imperceptible"])
def test_what_a_fast_copy_says_is_what_the_victim_itself_says(method, stop):
    model, images, labels, specified = world(normed())
    call = LONG | {"method": method, "stop": stop, "max_iter": torch.arange(20) * 2}
    call["lr"] = {"gmla": 0.5}.get(method, 0.05)
    plain = attack(model, images, labels, specified, 3, **call, fold=False, channels_last=False)
    fast = attack(model, images, labels, specified, 3, **call, **BOTH)
    assert not plain.success.all()
    assert plain.success.any() or (method, stop) == ("kfool", "imperceptible")
    assert (plain.success == fast.success).double().mean() >= 0.9
    for given, said in ((images, fast.clean_logits), (fast.adversarial, fast.adversarial_logits)):
        with torch.no_grad():
            alone = torch.cat([model(part) for part in given.split(4)])
        assert torch.equal(alone, said)
    order = torch.randperm(20, generator=torch.Generator().manual_seed(3))
    mixed = {**call, "max_iter": call["max_iter"][order]}
    again = attack(model, images[order], labels[order], specified[order], 3, **mixed, **BOTH)
    same(fast, again, order)


class Liar(nn.Module):
    """Its copies take the labels of every image that has moved for hidden."""

    def __init__(self, body, clean, specified) -> None:
        super().__init__()
        self.body, self.honest, self.known = body, True, Shared((clean, specified))

    def __deepcopy__(self, memo):
        other = Liar(copy.deepcopy(self.body, memo), *self.known.value).eval()
        other.honest = False
        return other

    def forward(self, x):
        logits = self.body(x)
        clean, specified = self.known.value
        if self.honest:
            return logits
        away = (x.detach()[:, None] - clean[None]).abs().sum((2, 3, 4))
        moved = (away.amin(1) > 0).float()[:, None]
        return logits - 100 * moved * specified[away.argmin(1)].float()


@pytest.mark.parametrize("method", ["tkmia", "tkmia_min"])
def test_images_whose_success_the_victim_denies_are_attacked_again_on_the_victim(method, tmp_path):
    body = normed()
    _, images, labels, specified = world(body)
    call = LONG | {"method": method, "snapshots": [3], "files": True}
    plain = attack(body, images, labels, specified, 3, fold=False, channels_last=False, **call)
    model = Liar(body, images, specified).eval()
    found = attack(
        model, images, labels, specified, 3, channels_last=True, fold=False,
        checkpoint=tmp_path / "state", checkpoint_every=1, **call,
    )  # fmt: skip
    assert plain.success.any()
    same(plain, found)
    assert torch.equal(plain.png_logits, found.png_logits)
    assert torch.equal(plain.at(3).success, found.at(3).success)
    assert not list(tmp_path.iterdir())


def test_an_attack_that_goes_on_keeps_the_layout_it_was_begun_with(tmp_path, monkeypatch):
    gains = iter([2.0, 1.0])
    monkeypatch.setattr(trial, "_gain", lambda *_: next(gains))
    model, *given = world(normed())
    call = LONG | {"checkpoint": tmp_path / "state", "checkpoint_every": 1}
    whole = attack(model, *given, 3, **LONG, **BOTH)

    class Cut(Exception):
        pass

    def cut(module, inputs, output):
        cut.left -= 1
        if not cut.left:
            raise Cut

    cut.left = 16
    hook = torch.nn.modules.module.register_module_forward_hook(
        lambda m, i, o: cut(m, i, o) if isinstance(m, nn.Linear) else None
    )
    with pytest.raises(Cut):
        attack(model, *given, 3, **call)
    hook.remove()
    trial._TRIALS.clear()
    same(whole, attack(model, *given, 3, **call))
    assert next(gains, None) == 1.0  # nothing was tried again


def test_a_model_without_batch_normalisation_is_not_said_to_be_folded(monkeypatch):
    monkeypatch.setattr(trial, "_gain", lambda *_: 2.0)
    call = {"fold": None, "channels_last": None, "rows": 1000, "passes": 1e5}
    assert trial.choose(net(), torch.rand(2, 3, 16, 16), **call)[0] == Layout(False, True)


def test_the_runtime_leaves_the_layout_open():
    assert Runtime().fold is None and Runtime().channels_last is None


def test_only_a_full_queue_of_passes_that_take_time_is_long(monkeypatch):
    model = net()
    images = torch.rand(4, 3, 16, 16)
    ask = {"fold": None, "channels_last": None}
    assert trial.choose(model, images, rows=15, passes=1e6, **ask)[1] is None
    assert trial.choose(model, images, rows=16, passes=199, **ask)[1] is None
    assert trial.choose(model, images, rows=16, passes=200, **ask)[1] is not None
    monkeypatch.setattr(trial, "TINY", 10.0)
    assert trial.choose(net(), images, rows=16, passes=200, **ask)[1] is None


@pytest.mark.parametrize("fast", [{"channels_last": True}, {"precision": "bf16"}], ids=str)
def test_a_killed_run_still_knows_what_the_measures_were(fast, tmp_path, monkeypatch):
    """The clean logits of images at work come back with them; else each would be judged blindly."""
    model, *given = world(normed())
    call = {**LONG, "fold": False, "stop": "imperceptible", **fast}
    whole = attack(model, *given, 3, **call)
    assert whole.success.any()
    judged, real = [], claims.ClaimCheck._judge

    def noted(self, rows, logits):
        judged.append(self.known[rows])
        real(self, rows, logits)

    monkeypatch.setattr(claims.ClaimCheck, "_judge", noted)
    save, saves = Checkpoint.save, []

    def killed(self, *state):
        save(self, *state)
        saves.append(1)
        if len(saves) == 6:
            raise KeyboardInterrupt

    monkeypatch.setattr(Checkpoint, "save", killed)
    call |= {"checkpoint": tmp_path / "state", "checkpoint_every": 1}
    with pytest.raises(KeyboardInterrupt):
        attack(model, *given, 3, **call)
    judged.clear()
    again = attack(model, *given, 3, **call)
    assert judged and all(logits.isfinite().all() for logits in judged)
    same(whole, again)
