"""Promises of files: what is saved is what was attacked, and it is checked."""

import pytest
import torch
from PIL import Image
from recheck import from_files
from test_stop import K, run, world

from tkmia_utils import AttackResult
from tkmia_utils.engine import png
from tkmia_utils.engine.png import read_png, save_png


def test_a_saved_success_is_one_when_read_by_other_code(tmp_path):
    model, _images, labels, specified = world()
    result = run("tkmia_min", stop="imperceptible", bits=8)
    paths = result.save_png(tmp_path / "new" / "folder")
    assert [path.name for path in paths[:2]] == ["0000.png", "0001.png"]
    assert torch.equal(read_png(paths), result.adversarial)
    found = from_files(
        model, paths, result.clean_logits.double().numpy(), labels.numpy(), specified.numpy(), K
    )
    assert result.success.all() and all(v.excluded and not v.fell() for v in found)


def test_a_file_that_lies_is_told(tmp_path, monkeypatch):
    def darker(path, writer):
        writer(path)
        Image.open(path).point(lambda v: v // 2).save(path)
        return path

    monkeypatch.setattr(png, "write_atomically", darker)
    with pytest.raises(OSError, match=r"a\.png: does not give back"):
        save_png(torch.rand(1, 3, 4, 4), [tmp_path / "a.png"])


def test_names_are_plain_and_different(tmp_path):
    result = run("tkmia", bits=8)
    for ids in (["a"] * 12, ["../a", *map(str, range(11))], ["a"], ["", *map(str, range(11))]):
        with pytest.raises(ValueError, match="ids: expected"):
            result.save_png(tmp_path, ids=ids)
    assert not list(tmp_path.iterdir())
    gone = run("tkmia", keep_images=False)
    with pytest.raises(ValueError, match="adversarial: the images were not kept"):
        gone.save_png(tmp_path)


def test_images_that_cannot_be_files_are_refused(tmp_path):
    for bad in (torch.full((1, 3, 2, 2), 1.5), torch.full((1, 3, 2, 2), torch.nan)):
        with pytest.raises(ValueError, match="images: expected values in"):
            save_png(bad, [tmp_path / "a.png"])
    with pytest.raises(ValueError, match="paths: expected one for each"):
        save_png(torch.rand(2, 3, 2, 2), [tmp_path / "a.png"])
    (tmp_path / "text.png").write_text("no image")
    with pytest.raises(ValueError, match=r"text\.png cannot be read"):
        read_png([tmp_path / "text.png"])
    with pytest.raises(ValueError, match="paths: expected at least one"):
        read_png([])


def test_a_result_with_bits_and_files_comes_back_from_the_disk(tmp_path):
    result = run("tkmia_min", stop="refilled", bits=8, files=True, snapshots=[5])
    again = AttackResult.load(result.save(tmp_path / "r.safetensors"))
    assert (again.stop, again.bits, again.passes) == (result.stop, 8, 1)
    assert torch.equal(again.png_logits, result.png_logits)
    assert torch.equal(again.at(5).success, result.at(5).success)
