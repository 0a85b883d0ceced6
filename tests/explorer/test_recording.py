"""Promises of recordings: they are the attack itself, step by step, and JSON."""

import json

import pytest
import torch
import toys

from tkmia_utils import Runtime, attack
from tkmia_utils.engine import result as engine_result
from tkmia_utils.explorer import recording
from tkmia_utils.measures import MEASURES
from tkmia_utils.topk import in_top_k

RUNS = [
    {"method": "tkmia", "bits": 8},
    {"method": "tkmia", "bits": None},
    {"method": "ml_cw_u", "bits": 8, "max_iter": 3},
    {"method": "tkmia_min", "stop": "imperceptible", "bits": 8},
    {"method": "tkmia_min", "stop": "imperceptible", "bits": None},
]


def plain(settings: dict) -> engine_result.AttackResult:
    """The same attack, without anybody who looks on."""
    settings = {"max_iter": 40, "lr": 0.01} | settings
    return attack(
        toys.Toy(), toys.images()[:1], toys.labels()[:1], toys.specified(0)[None], 2,
        record=True, runtime=Runtime(slots=1), **settings,
    )  # fmt: skip


@pytest.mark.parametrize("settings", RUNS, ids=str)
def test_a_recording_is_the_attack_itself(settings):
    result, made = plain(settings), toys.toy_recording(0, k=2, **settings)
    steps = int(result.iterations) + 1
    logits = result.trace.logits[0, :steps]
    assert torch.tensor(made["logits"]).allclose(logits, rtol=1e-5, atol=1e-6)
    assert made["reason"] == result.reasons[0] and made["success"] == bool(result.success)
    assert made["l2"] == pytest.approx(result.trace.l2[0, :steps].tolist(), rel=1e-5)
    assert made["l2_paper"][made["result"]] == pytest.approx(float(2 * result.l2), rel=1e-5)
    assert (torch.tensor(made["ranks"]) <= 2).equal(in_top_k(logits, 2))
    for name, function in MEASURES.items():
        wanted = function(logits, toys.labels()[:1].expand(steps, -1), 2)
        assert made["measures"][name] == pytest.approx(wanted.tolist(), rel=1e-5)


@pytest.mark.parametrize("settings", RUNS, ids=str)
def test_the_picture_of_the_result_is_the_image_that_the_attack_gives_back(settings):
    result, made = plain(settings), toys.toy_recording(0, k=2, **settings)
    image, perturbation = recording.picture(made, made["result"])
    tolerance = {"rtol": 0, "atol": 1e-6 if settings["bits"] else 0.5 / 255 + 1e-6}
    assert image.allclose(result.adversarial[0], **tolerance)
    first, nothing = recording.picture(made, 0)
    assert first.allclose(toys.images()[0], rtol=0, atol=0.5 / 255 + 1e-6)
    assert nothing.unique().tolist() == pytest.approx([128 / 255])
    change = (perturbation - 0.5) / made["factor"]
    seen = (perturbation > 0) & (perturbation < 1)  # the rest is cut
    start = first if settings["bits"] else toys.images()[0]
    wanted = (result.adversarial[0] - start)[seen]
    assert change[seen].allclose(wanted, rtol=0, atol=0.6 / 255 / made["factor"] + 1e-6)


def test_pictures_are_kept_of_few_steps_and_of_those_that_count():
    made = toys.toy_recording(0, "tkmia_min", stop="imperceptible", max_iter=60, most=5)
    kept = [shown["step"] for shown in made["pictures"]]
    assert len(made["l2"]) == 61 and len(kept) <= 5
    assert {0, 60, made["result"]} <= set(kept) and kept == sorted(kept)
    other = next(step for step in range(61) if step not in kept)
    with pytest.raises(ValueError, match=r"^step:"):
        recording.picture(made, other)


def test_a_recording_is_json_without_nan_and_small(tmp_path):
    made = toys.toy_recordings()
    file = recording.save(made, tmp_path / "explorer.json")
    assert recording.load(file) == made
    json.loads(file.read_text(), parse_constant=pytest.fail)
    assert file.stat().st_size < 200_000


def test_of_two_recordings_with_the_same_settings_the_later_one_counts():
    first, second = (toys.toy_recording(max_iter=n) for n in (2, 30))
    assert recording.checked([first, second]) == [second]


@pytest.mark.parametrize("wrong", [{}, "text", [{"id": "one"}], [3]], ids=str)
def test_what_is_no_list_of_recordings_is_refused(wrong, tmp_path):
    with pytest.raises(ValueError, match=r"^recordings:"):
        recording.checked(wrong)
    with pytest.raises(ValueError, match=r"^path:"):
        recording.load(tmp_path / "nowhere.json")


def test_results_that_cannot_be_shown_are_refused():
    result, image = plain({}), toys.images()[0]
    frames = [image] * (int(result.iterations) + 1)
    asked = {"image_name": "first", "classes": toys.CLASSES}
    unrecorded = attack(
        toys.Toy(), toys.images()[:1], toys.labels()[:1], toys.specified(0)[None], 2, lr=0.01
    )
    for wrong, name in (
        ((unrecorded, frames, image, asked), "result"),
        ((result, frames[:-1], image, asked), "frames"),
        ((result, frames, image, asked | {"most": 2}), "most"),
        ((result, frames, image, asked | {"classes": ("one",)}), "classes"),
    ):
        *given, words = wrong
        with pytest.raises(ValueError, match=f"^{name}:"):
            recording.recording(*given, **words)


def test_an_attack_that_breaks_off_is_shown_as_far_as_it_came():
    """Logits that are not finite have no ranks; the steps before have."""

    class Breaking(toys.Toy):
        looks = 0

        def forward(self, x):
            self.looks += 1
            return super().forward(x) * (torch.nan if self.looks > 2 else 1)

    made = recording.record(
        Breaking(), toys.images()[0], toys.labels()[0], toys.specified(0), 2,
        image_name="first", classes=toys.CLASSES, max_iter=9,
    )  # fmt: skip
    assert made["reason"] == "logits not finite" and len(made["l2"]) == 2
    assert made["advice"] and made["result"] == 1
    json.dumps(made, allow_nan=False)


def test_who_watches_changes_neither_the_model_nor_its_mode():
    model = toys.Toy()
    recording.Watched(model, lambda x: None)
    assert not model.training
    model.train()
    with pytest.raises(ValueError, match="training"):
        recording.record(
            model, toys.images()[0], toys.labels()[0], toys.specified(0), 2,
            image_name="first", classes=toys.CLASSES,
        )  # fmt: skip
    assert model.training
