"""Promises of the victims: trained once, loaded the same, never half written."""

import os
from dataclasses import replace

import pytest
import torch
from colours import CLASSES, colours
from PIL import Image
from sklearn.metrics import average_precision_score

from tkmia_utils import victims
from tkmia_utils.data import folder
from tkmia_utils.victims import backbones

RECIPE = victims.Recipe(widths=(8, 8, 8, 8, 8), epochs=4, batch=16)


@pytest.fixture(scope="module")
def trained():
    return victims.train(RECIPE, colours(), colours(seed=1, split="val"), device="cpu")


def test_training_learns_and_records_every_epoch(trained):
    assert [entry["epoch"] for entry in trained.history] == [1, 2, 3, 4]
    assert trained.history[-1]["class_map"] > 0.9
    assert trained.history[-1]["loss"] < trained.history[0]["loss"]
    assert not trained.model.training and trained.classes == CLASSES


def test_training_again_gives_the_same_victim_and_leaves_the_random_state(trained):
    before = torch.random.get_rng_state()
    again = victims.train(RECIPE, colours(), colours(seed=1, split="val"), device="cpu")
    assert torch.equal(torch.random.get_rng_state(), before)
    for a, b in zip(trained.model.parameters(), again.model.parameters(), strict=True):
        torch.testing.assert_close(a, b)


def test_folding_the_normalisation_changes_no_logit():
    torch.manual_seed(0)
    model = backbones.small_net(3, (8, 16, 8, 8, 8), normed=True)
    for _ in range(3):
        model(torch.rand(16, 3, 32, 32))  # so that the running statistics are not the trivial ones
    x = torch.rand(4, 3, 32, 32)
    torch.testing.assert_close(backbones.fused(model)(x), model.eval()(x), atol=1e-5, rtol=1e-5)
    assert not [m for m in backbones.fused(model) if isinstance(m, torch.nn.BatchNorm2d)]


def test_a_saved_victim_loads_with_the_same_logits(trained, tmp_path):
    path = tmp_path / "victim.safetensors"
    victims.save(trained, RECIPE, path)
    loaded = victims.load(path, device="cpu")
    data = colours(seed=1, split="val")
    torch.testing.assert_close(
        victims.predict(loaded.model, data), victims.predict(trained.model, data), atol=0, rtol=0
    )
    assert (loaded.history, loaded.key, loaded.classes) == (
        trained.history, trained.key, CLASSES,
    )  # fmt: skip


def test_load_or_train_trains_once(tmp_path, monkeypatch):
    sets = colours(), colours(seed=1, split="val")
    first = victims.load_or_train(RECIPE, *sets, cache=tmp_path, device="cpu")
    monkeypatch.setattr(
        "tkmia_utils.victims.store.train", lambda *a, **k: pytest.fail("trained again")
    )
    second = victims.load_or_train(RECIPE, *sets, cache=tmp_path, device="cpu")
    assert first.key == second.key and len(list(tmp_path.iterdir())) == 1


def test_another_recipe_or_other_data_is_another_victim():
    keys = {
        victims.fingerprint(RECIPE, colours()),
        victims.fingerprint(victims.Recipe(epochs=5), colours()),
        victims.fingerprint(RECIPE, colours(seed=5)),
        victims.fingerprint(RECIPE, colours(n=80)),
    }
    assert len(keys) == 4


def test_a_replaced_training_photo_trains_again_and_a_held_out_one_does_not(tmp_path, monkeypatch):
    known = colours()
    lines = [";".join(c for c, y in zip(CLASSES, row, strict=True) if y) for row in known.labels]
    for split in ("train", "val"):
        (tmp_path / split).mkdir()
        for i in range(len(known)):
            photo = Image.fromarray(known.load(i).permute(1, 2, 0).numpy())
            photo.save(tmp_path / split / f"{i}.png")
        rows = ["image,labels", *(f"{i}.png,{line}" for i, line in enumerate(lines))]
        (tmp_path / split / "list.csv").write_text("\n".join(rows))
    made, real = [], victims.train
    monkeypatch.setattr(
        "tkmia_utils.victims.store.train", lambda *a, **k: made.append(1) or real(*a, **k)
    )

    def trained():
        cache = tmp_path / "cache"
        options = dict(size=16, classes=CLASSES, cache=cache)
        sets = [folder(tmp_path / s / "list.csv", split=s, **options) for s in ("train", "val")]
        victims.load_or_train(replace(RECIPE, epochs=1), *sets, cache=cache, device="cpu")
        return len(made)

    assert trained() == 1
    other = Image.new("RGB", (16, 16), "red")
    other.save(tmp_path / "val" / "3.png")
    os.utime(tmp_path / "train" / "3.png")
    assert trained() == 1
    other.save(tmp_path / "train" / "3.png")
    assert trained() == 2


def test_a_half_written_victim_is_refused_by_name(trained, tmp_path):
    path = tmp_path / "victim.safetensors"
    victims.save(trained, RECIPE, path)
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(ValueError, match="not a whole victim"):
        victims.load(path)
    with pytest.raises(ValueError, match="04_victim"):
        victims.load(tmp_path / "absent.safetensors")


def test_class_map_is_scikit_learns(trained):
    data = colours(seed=1, split="val")
    logits = victims.predict(trained.model, data)
    wanted = average_precision_score(data.labels.numpy(), logits.numpy(), average="macro")
    assert victims.evaluate(logits, data.labels)["class_map"] == pytest.approx(wanted)


def test_predictions_do_not_depend_on_the_batch(trained):
    data = colours(n=21, seed=1)
    torch.testing.assert_close(
        victims.predict(trained.model, data, batch=4),
        victims.predict(trained.model, data, batch=21),
    )


def test_unusable_sets_are_refused():
    with pytest.raises(ValueError, match="held_out"):
        other = colours(split="val")
        object.__setattr__(other, "classes", ("a", "b", "c"))
        victims.train(RECIPE, colours(), other)
    with pytest.raises(ValueError, match="data"):
        victims.train(RECIPE, colours(n=8), colours(split="val"))
