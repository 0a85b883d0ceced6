"""Promises of a result: it reads in six lines, goes into a table, and comes back from the disk."""

import subprocess
import sys
from dataclasses import fields, replace

import matplotlib.pyplot as plt
import pytest
import torch
from safetensors.torch import save_file
from sweeps import attack
from test_engine import net, task

from tkmia_utils import AttackResult, AttackWarning
from tkmia_utils.engine.result_file import FORMAT
from tkmia_utils.measures import MEASURES, delta_l
from tkmia_utils.tensor_file import read_tensors, write_tensors


def images_and_result(**call):
    model = net()
    images, labels, specified = task(model, 8, k=3, m=2, side=16, classes=10)
    settings = dict(lr=0.1, max_iter=torch.arange(8) * 4, slots=4) | call
    return images, attack(model, images, labels, specified, 3, **settings)


def equal(a: object, b: object) -> None:
    """Equal to the bit, field by field; NaN is equal to NaN."""
    assert type(a) is type(b)
    if isinstance(a, torch.Tensor):
        assert a.dtype == b.dtype and a.shape == b.shape
        assert a.contiguous().numpy().tobytes() == b.contiguous().numpy().tobytes()
    elif isinstance(a, dict):
        assert a.keys() == b.keys()
        for key in a:
            equal(a[key], b[key])
    elif hasattr(a, "__dataclass_fields__"):
        for f in fields(a):
            equal(getattr(a, f.name), getattr(b, f.name))
    else:
        assert a == b


def test_printed_it_is_a_summary_of_six_lines_and_no_tensor():
    _, result = images_and_result()
    text = repr(result)
    assert str(result) == text and len(text.splitlines()) == 6 and "tensor" not in text
    won = int(result.success.sum())
    assert 0 < won < 8 and f"tkmia on 8 images, {won} succeeded ({won / 8:.1%})" in text
    assert f"success: {won}, limit: {8 - won}" in text
    middle = result.l2[result.success].sort().values[(won - 1) // 2]
    assert f"{float(middle):.3g} in [0, 1] pixels" in text
    assert f"{2 * float(middle):.3g} in [-1, 1] pixels" in text
    frame = result.to_frame()
    for name in MEASURES:
        assert f"{name} {frame[f'Delta {name}'].mean():.3g}" in text


@pytest.mark.parametrize("call", [{"max_iter": 0}, {"keep_images": False}, {"record": True}])
def test_a_result_of_any_kind_can_be_printed(call):
    _, result = images_and_result(**call)
    assert len(repr(result).splitlines()) == 6
    bare = replace(result, spec=None)
    assert len(repr(bare).splitlines()) == 4 and "measures" not in repr(bare)
    sick = replace(result, adversarial_logits=torch.full_like(result.clean_logits, torch.nan))
    assert "nan" in repr(sick)


def test_successes_of_unchanged_images_are_told_apart():
    model = net()
    images, labels, specified = task(model, 4, k=3, m=1, side=16, classes=10)
    order = model(images).argsort(descending=True)
    hidden = torch.zeros_like(labels).scatter_(1, order[:, 6:7], True)
    specified = torch.where(torch.tensor([1, 0, 1, 0])[:, None] > 0, hidden, specified)
    with pytest.warns(AttackWarning, match="2 of 4"):
        result = attack(model, images, labels | hidden, specified, 3, lr=0.05)
    assert result.untouched.tolist() == [True, False, True, False]
    assert "2 of them unchanged" in repr(result)


def test_a_frame_has_one_row_an_image_and_says_what_the_measures_say():
    _, result = images_and_result()
    frame = result.to_frame(ids=[f"image {i}" for i in range(8)])
    assert frame["image"].tolist() == [f"image {i}" for i in range(8)]
    assert frame["success"].tolist() == result.success.tolist()
    assert frame["reason"].tolist() == list(result.reasons)
    assert frame["max_iter"].tolist() == [i * 4 for i in range(8)]
    assert set(frame["k"]) == {3} and set(frame["s"]) == {2} and set(frame["method"]) == {"tkmia"}
    spec = result.spec
    for name, measure in MEASURES.items():
        fall = measure(result.clean_logits, spec.labels, 3)
        fall = fall - measure(result.adversarial_logits, spec.labels, 3)
        assert frame[f"Delta {name}"].tolist() == fall.tolist()
    gone = delta_l(result.adversarial_logits, spec.specified, 3, before=result.clean_logits)
    assert frame["delta_l"].tolist() == gone.tolist()
    assert "Delta TkAcc" not in replace(result, spec=None).to_frame()
    with pytest.raises(ValueError, match=r"^ids: "):
        result.to_frame(ids=["one"])


def test_an_image_whose_logits_are_not_finite_has_no_measures():
    _, result = images_and_result()
    logits = result.adversarial_logits.clone()
    logits[2, 0] = torch.nan
    frame = replace(result, adversarial_logits=logits).to_frame()
    missing = frame["Delta NDCG@k"].isna()
    assert missing.tolist() == [i == 2 for i in range(8)]


@pytest.mark.parametrize(
    "call",
    [{}, {"keep_images": False}, {"record": True}, {"snapshots": [0, 5]}, {"method": "kfool"}],
    ids=str,
)
def test_saved_and_loaded_it_is_equal_to_the_bit(call, tmp_path):
    _, result = images_and_result(**call)
    path = result.save(tmp_path / "deep" / "r.safetensors")
    equal(AttackResult.load(path), result)
    assert [p.name for p in path.parent.iterdir()] == ["r.safetensors"]


def test_what_a_snapshot_answers_can_be_saved_too(tmp_path):
    _, result = images_and_result(snapshots=[3])
    then = result.at(3)
    assert then.spec.max_iter.max() == 3
    equal(AttackResult.load(then.save(tmp_path / "r")), then)
    bare = replace(result, spec=None)
    equal(AttackResult.load(bare.save(tmp_path / "r")), bare)


@pytest.mark.parametrize("harm", ["cut", "emptied", "flipped", "gone", "foreign", "pickled"])
def test_a_broken_or_foreign_file_is_refused_by_name(harm, tmp_path):
    _, result = images_and_result()
    path = result.save(tmp_path / "r.safetensors")
    whole = path.read_bytes()
    if harm == "foreign":
        save_file({"success": torch.zeros(2)}, path)
    elif harm == "pickled":
        torch.save({"success": torch.zeros(2)}, path)
    elif harm == "gone":
        path.unlink()
    else:
        flipped = whole[:-5] + bytes([whole[-5] ^ 1]) + whole[-4:]
        path.write_bytes({"cut": whole[:-7], "emptied": b"", "flipped": flipped}[harm])
    with pytest.raises(ValueError, match=r"^path: .*r\.safetensors"):
        AttackResult.load(path)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("success", torch.ones(2, dtype=torch.bool)),
        ("success", torch.ones(8)),
        ("l2", torch.tensor(0.0)),
        ("adversarial_logits", torch.zeros(8, 3)),
        ("reasons", torch.full((8,), -1)),
        ("reasons", torch.ones(3, dtype=torch.int64)),
        ("spec k", torch.ones(3, dtype=torch.int64)),
        ("header", "[" * 100_000),
        ("header", '{"method": 3, "k_max": 3, "trace": false, "snapshots": []}'),
    ],
)
def test_a_file_whose_fields_do_not_fit_together_is_refused(name, value, tmp_path):
    """It is whole, but another program wrote it."""
    _, result = images_and_result()
    path = result.save(tmp_path / "r.safetensors")
    tensors, metadata = read_tensors(path, kind=FORMAT)
    held = metadata if isinstance(value, str) else tensors
    held[name] = value
    write_tensors(path, tensors, kind=FORMAT, metadata=metadata)
    with pytest.raises(ValueError, match=r"^path: .*r\.safetensors"):
        AttackResult.load(path)


def test_a_header_that_was_changed_is_noticed(tmp_path):
    _, result = images_and_result()
    path = result.save(tmp_path / "r.safetensors")
    whole = path.read_bytes()
    assert whole.count(b"tkmia\\") == 1  # the method, in the header's JSON
    path.write_bytes(whole.replace(b"tkmia\\", b"kfool\\"))
    with pytest.raises(ValueError, match=r"^path: .*bytes"):
        AttackResult.load(path)


def test_a_save_that_is_interrupted_leaves_the_file_as_it_was(tmp_path, monkeypatch):
    _, result = images_and_result()
    path = result.save(tmp_path / "r.safetensors")

    def half(tensors, temporary, metadata):
        temporary.write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr("tkmia_utils.tensor_file.save_file", half)
    with pytest.raises(KeyboardInterrupt):
        result.save(path)
    equal(AttackResult.load(path), result)
    assert [p.name for p in tmp_path.iterdir()] == ["r.safetensors"]


def test_what_the_caller_does_to_his_labels_later_does_not_change_a_result():
    model = net()
    images, labels, specified = task(model, 4, k=3, m=2, side=16, classes=10)
    result = attack(model, images, labels, specified, 3, lr=0.05)
    before = repr(result)
    labels.logical_not_()
    specified.logical_not_()
    assert repr(result) == before


def test_a_plot_shows_three_images_and_two_lists():
    images, result = images_and_result()
    failed = int((~result.success).nonzero()[0])
    for i in (failed, 7):
        fig = result.plot(i, images[i], classes=[f"thing {c}" for c in range(10)])
        texts = [text.get_text() for ax in fig.axes for text in ax.texts]
        titles = [ax.get_title() for ax in fig.axes]
        first = int(result.clean_logits[i].argmax())
        assert sum(len(ax.images) for ax in fig.axes) == 3
        assert any(text.startswith("1. ") and f"thing {first}" in text for text in texts)
        assert ("FAILED" in "".join(titles)) == (not result.success[i])
        plt.close(fig)


def test_a_plot_refuses_what_it_cannot_draw():
    images, result = images_and_result()
    for name, call in (
        ("i", (8, images[0], {})),
        ("image", (0, images[:1], {})),
        ("classes", (0, images[0], {"classes": ["one"]})),
        ("factor", (0, images[0], {"factor": 0.0})),
    ):
        with pytest.raises(ValueError, match=rf"^{name}: "):
            result.plot(*call[:2], **call[2])
    with pytest.raises(ValueError, match=r"^result: "):
        replace(result, adversarial=None).plot(0, images[0])


def test_an_attack_does_not_wait_for_tables_and_figures_to_load():
    code = "import sys, tkmia_utils; print({'pandas', 'matplotlib'} & set(sys.modules))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "set()"
