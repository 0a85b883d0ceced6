"""Promises of the training loop: every option trains, a kill costs nothing, bad input is named."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tkmia_utils import victims
from tkmia_utils.data import MultiLabelDataset
from tkmia_utils.victims import training
from tkmia_utils.victims.recipes import RECIPES, Recipe, recipe

CLASSES = ("red", "green", "blue")
SMALL = Recipe(widths=(8, 8, 8, 8, 8), epochs=3, batch=16)


def colours(n: int = 64, seed: int = 0, split: str = "train", size: int = 16) -> MultiLabelDataset:
    """Noise with a brighter channel for every label: learnt in no time."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.rand(n, 3, generator=generator) < 0.5
    noise = torch.randint(0, 120, (n, 3, size, size), generator=generator)
    pixels = (noise + 100 * labels[:, :, None, None]).to(torch.uint8)
    return MultiLabelDataset(
        name="colours", split=split, classes=CLASSES, labels=labels,
        ids=tuple(f"{split}-{i}" for i in range(n)), load=pixels.__getitem__, card="noise",
        size=size,
    )  # fmt: skip


def fit(made: Recipe, **options):
    return training.fit(made, colours(), colours(seed=1, split="val"), device="cpu", **options)


def weights(model) -> list[torch.Tensor]:
    return [value.clone() for value in model.state_dict().values()]


def equal(a, b) -> bool:
    return all(torch.equal(x, y) for x, y in zip(weights(a), weights(b), strict=True))


@pytest.mark.parametrize(
    "changes",
    [
        {"optimiser": "sgd", "lr": 0.05, "schedule": "constant"},
        {"optimiser": "adam", "lr": 4e-3, "schedule": "constant"},
        {"augment": "crop", "ema": 0.9},
        {"augment": "none", "channels_last": True},
        {"augment": "mirror", "amp": True, "accumulate": 4},
    ],
    ids=lambda c: "-".join(map(str, c)),
)
def test_every_option_trains(changes):
    model, history = fit(replace(SMALL, epochs=6, **changes))
    assert history[-1]["loss"] < history[0]["loss"]
    assert history[-1]["image_ap"] > 0.75
    assert not model.training


def test_the_asymmetric_loss_trains():
    pytest.importorskip("timm")
    _, history = fit(replace(SMALL, epochs=6, loss="asymmetric"))
    assert history[-1]["loss"] < history[0]["loss"]


def test_accumulating_a_batch_in_parts_is_the_batch_without_normalisation():
    def model_of(parts):
        torch.manual_seed(0)
        model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 16 * 16, 3))
        made = replace(SMALL, accumulate=parts, augment="none")
        run = training._Training(made, model, training._Team(1, 0, torch.device("cpu")), 4)
        loss = training._loss("bce")
        train = colours()
        for i in range(0, 64, 16):
            pixels = torch.stack([train.load(j) for j in range(i, i + 16)])
            run.advance(pixels, train.labels[i : i + 16].float(), loss)
        return model

    for a, b in zip(weights(model_of(1)), weights(model_of(4)), strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)


def test_workers_change_no_bit():
    assert equal(fit(SMALL)[0], fit(SMALL, workers=2)[0])


def test_a_frozen_normalisation_keeps_its_statistics_and_a_trained_one_does_not():
    start = training.build("small", 3, widths=SMALL.widths).state_dict()
    for frozen in (True, False):
        model, _ = fit(replace(SMALL, freeze_norm=frozen))
        kept = [torch.equal(v, start[k]) for k, v in model.state_dict().items() if "running" in k]
        assert all(kept) if frozen else not any(kept)


def test_the_head_alone_is_trained_on_features_computed_once():
    made = replace(SMALL, epochs=0, head_epochs=20)
    model, history = fit(made)
    with torch.random.fork_rng():
        torch.manual_seed(made.seed)
        untouched = training.build("small", 3, widths=SMALL.widths)
    assert torch.equal(model[1].weight, untouched[1].weight)
    assert not torch.equal(model[-1].weight, untouched[-1].weight)
    assert [entry["epoch"] for entry in history] == [0] and history[0]["image_ap"] > 0.75


class Killed(Exception):
    pass


def test_training_interrupted_at_any_step_and_resumed_equals_training_without(
    tmp_path, monkeypatch
):
    made = replace(SMALL, ema=0.9, augment="crop", head_epochs=2)
    whole, history = fit(made)
    advance = training._Training.advance
    for stop in range(12):  # three epochs of four steps

        def dying(self, *given, stop=stop):
            if self.step == stop and not (tmp_path / "died").exists():
                (tmp_path / "died").touch()
                raise Killed
            advance(self, *given)

        monkeypatch.setattr(training._Training, "advance", dying)
        (tmp_path / "died").unlink(missing_ok=True)
        with pytest.raises(Killed):
            fit(made, checkpoint=tmp_path / "c.pt", checkpoint_every=3)
        assert (tmp_path / "c.pt").exists() == (stop >= 3)
        model, again = fit(made, checkpoint=tmp_path / "c.pt", checkpoint_every=3)
        assert equal(model, whole) and again == history
        assert not (tmp_path / "c.pt").exists()


def test_dropout_is_resumed_too(tmp_path, monkeypatch):
    def dropping(arch, classes, **_):
        return torch.nn.Sequential(
            torch.nn.Flatten(), torch.nn.Dropout(0.5), torch.nn.Linear(3 * 16 * 16, classes)
        )

    monkeypatch.setattr(training, "build", dropping)
    whole, _ = fit(SMALL)
    seen = []
    with pytest.raises(Killed):
        fit(SMALL, checkpoint=tmp_path / "c.pt", report=lambda e: seen.append(e) or stop(seen))
    model, _ = fit(SMALL, checkpoint=tmp_path / "c.pt")
    assert equal(model, whole)


def stop(seen):
    if len(seen) == 2:
        raise Killed


SCRIPT = """
    import sys, time
    sys.path.insert(0, {tests!r})
    import torch; torch.set_num_threads(1)
    import test_training as t
    from tkmia_utils import victims
    print("go", flush=True)
    victims.load_or_train(t.LONG, t.colours(), t.colours(seed=1, split="val"),
                          cache={cache!r}, device="cpu")
"""
LONG = replace(SMALL, epochs=60, ema=0.9)


def test_a_training_that_was_killed_goes_on_to_the_same_victim(tmp_path):
    """A real SIGKILL, wherever it falls; started again until it is through."""
    sets = colours(), colours(seed=1, split="val")
    whole = victims.load_or_train(LONG, *sets, cache=tmp_path / "a", device="cpu")
    script = textwrap.dedent(SCRIPT).format(
        tests=str(Path(__file__).parent), cache=str(tmp_path / "b")
    )
    kills = 0
    for wait in (0.3, 0.9, 0.6, None):
        run = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
        run.stdout.readline()
        if wait is not None:
            time.sleep(wait)
            run.send_signal(signal.SIGKILL)
        kills += run.wait() == -signal.SIGKILL
        run.stdout.close()
    assert kills  # or nothing was tried
    (file,) = (tmp_path / "b").glob("*.safetensors")
    resumed = victims.load(file, device="cpu")
    for a, b in zip(weights(resumed.model), weights(whole.model), strict=True):
        torch.testing.assert_close(a, b)
    assert len(resumed.history) == len(whole.history)
    assert not list((tmp_path / "b").glob("*checkpoint*"))


def test_a_broken_checkpoint_or_one_of_another_training_is_refused(tmp_path):
    path = tmp_path / "c.pt"
    path.write_bytes(b"half a checkpoint")
    with pytest.raises(ValueError, match=r"checkpoint: .*cannot be read.*delete it"):
        fit(SMALL, checkpoint=path)
    path.unlink()
    with pytest.raises(Killed):
        fit(SMALL, checkpoint=path, report=lambda e: (_ for _ in ()).throw(Killed()))
    with pytest.raises(ValueError, match="of another training"):
        fit(replace(SMALL, lr=1e-2), checkpoint=path)


TEAM = """
    import sys
    sys.path.insert(0, {tests!r})
    import torch; torch.set_num_threads(1)
    from torch import distributed
    distributed.init_process_group("gloo")
    from dataclasses import replace
    import test_training as t
    from tkmia_utils.victims import training
    model, history = training.fit(
        replace(t.SMALL, freeze_norm=True, augment="crop"), t.colours(),
        t.colours(n=33, seed=1, split="val"), device="cpu",
    )
    if distributed.get_rank() == 0:
        torch.save((model.state_dict(), history), {out!r})
    distributed.destroy_process_group()
"""


def test_two_processes_train_what_one_trains(tmp_path):
    out = str(tmp_path / "team.pt")
    script = tmp_path / "team.py"
    script.write_text(textwrap.dedent(TEAM).format(tests=str(Path(__file__).parent), out=out))
    command = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run(
        [sys.executable, *command, str(script)],
        check=True,
        env=environment,
        capture_output=True,
        timeout=300,
    )
    together, history = torch.load(out, weights_only=True)
    model, alone = training.fit(
        replace(SMALL, freeze_norm=True, augment="crop"), colours(),
        colours(n=33, seed=1, split="val"), device="cpu",
    )  # fmt: skip
    for name, value in model.state_dict().items():
        torch.testing.assert_close(together[name], value, atol=1e-4, rtol=1e-3)
    for ours, theirs in zip(history, alone, strict=True):
        assert ours == pytest.approx(theirs, abs=1e-3)


def test_a_recipe_that_cannot_be_is_refused():
    for bad in (
        {"optimiser": "lion"}, {"schedule": "step"}, {"loss": "mse"}, {"augment": "mixup"},
        {"epochs": -1}, {"epochs": 0}, {"batch": 0}, {"accumulate": 3}, {"ema": 1.0}, {"lr": 0.0},
    ):  # fmt: skip
        with pytest.raises(ValueError, match=next(iter(bad))):
            replace(SMALL, **bad)
    with pytest.raises(ValueError, match="recipe: expected one of small"):
        recipe("resnet")
    with pytest.raises(ValueError, match="setting"):
        recipe("small", epoch=3)
    assert recipe("voc", epochs=2, lr=None).epochs == 2


@pytest.mark.parametrize(
    ("name", "arch", "optimiser", "batch"),
    [("voc", "resnet50", "sgd", 32), ("coco", "resnet101", "adam", 128),
     ("nus", "resnet101", "adam", 64)],
)  # fmt: skip
def test_the_papers_recipes_are_table_5(name, arch, optimiser, batch):
    made = RECIPES[name]
    assert (made.arch, made.optimiser, made.batch) == (arch, optimiser, batch)
    assert (made.lr, made.weight_decay, made.weights, made.loss) == (1e-4, 1e-4, "imagenet", "bce")


def test_a_victim_of_another_architecture_is_saved_and_loaded_with_its_normalisation(tmp_path):
    made = Recipe(arch="resnet18", epochs=1, batch=16, lr=1e-3, channels_last=True)
    sets = colours(n=32, size=32), colours(n=16, seed=1, split="val", size=32)
    first = victims.load_or_train(made, *sets, cache=tmp_path, device="cpu")
    again = victims.load_or_train(made, *sets, cache=tmp_path, device="cpu")
    assert torch.equal(victims.predict(first.model, sets[1]), victims.predict(again.model, sets[1]))
    assert again.model[0].std.shape == (3, 1, 1)
    assert again.key != victims.fingerprint(replace(made, arch="resnet34"), sets[0])


def test_where_weights_lie_does_not_name_a_victim_but_what_they_are_does(tmp_path):
    keys = []
    for name, content in (("a.pth", b"one"), ("b.pth", b"one"), ("c.pth", b"two")):
        (tmp_path / name).write_bytes(content)
        keys.append(victims.fingerprint(recipe("voc", weights=str(tmp_path / name)), colours()))
    assert keys[0] == keys[1] != keys[2]
    one, other = (victims.fingerprint(recipe("voc", weights=w), colours())
                  for w in ("imagenet", "download"))  # fmt: skip
    assert one == other
