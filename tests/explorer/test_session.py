"""Promises of new attacks: what is asked is checked, and an attack can be cancelled."""

import threading

import pytest
import toys

from tkmia_utils.explorer.session import Cancelled, Job, Session
from tkmia_utils.explorer.widget import Explorer, first_pair

WISH = {
    "image": "first", "hide": ["cup"], "k": 2, "method": "tkmia", "stop": "excluded", "bits": 8,
    "max_iter": 40,
}  # fmt: skip
SECONDS = 30


def test_a_session_records_what_was_asked():
    seen = []
    made = toys.toy_session().run(WISH, seen.append)
    assert made == toys.toy_recording(0, "tkmia", 2)
    assert seen == list(range(len(made["l2"])))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("image", "fourth"), ("hide", []), ("hide", ["nobody"]), ("hide", "cup"), ("k", 2.5),
        ("k", 6), ("k", None), ("method", "fgsm"), ("stop", "never"), ("bits", 4),
        ("max_iter", 0), ("max_iter", 10**6), ("max_iter", True),
        ("hide", ["boat"]),  # not in the image
        ("hide", ["person", "dog", "car", "cup"]),  # leaves no other relevant label
    ],
)  # fmt: skip
def test_a_wish_that_cannot_be_granted_is_refused_by_name(name, value):
    names = {"max_iter": "steps", "hide": "(hide|specified)"}
    with pytest.raises(ValueError, match=f"^{names.get(name, name)}:"):
        toys.toy_session().run(WISH | {name: value}, lambda step: None)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("labels", {"labels": toys.labels()[:2]}),
        ("names", {"names": ("same", "same", "other")}),
        ("classes", {"classes": ("one",)}),
    ],
)
def test_parts_that_do_not_belong_together_are_refused(name, change):
    given = {
        "model": toys.Toy(), "images": toys.images(), "labels": toys.labels(),
        "names": toys.NAMES, "classes": toys.CLASSES,
    }  # fmt: skip
    with pytest.raises(ValueError, match=f"^{name}:"):
        Session(**given | change)


def test_a_job_ends_before_the_next_step_when_it_is_cancelled():
    ends, steps, begun = [], [], threading.Event()

    def stepped(step):
        steps.append(step)
        if step == 3:
            begun.set()

    session = toys.toy_session(seconds=0.02)
    wish = WISH | {"max_iter": 500, "method": "tkmia_min"}
    job = Job(lambda watch: session.run(wish, watch), step=stepped, done=ends.append)
    assert begun.wait(SECONDS)
    job.cancel()
    assert job.wait(SECONDS)
    assert isinstance(ends[0], Cancelled) and len(ends) == 1 and steps[-1] < 499


def test_a_cancelled_attack_leaves_the_explorer_ready_for_the_next():
    explorer = Explorer(toys.toy_recordings()[:2], toys.toy_session(seconds=0.02))
    explorer.attack(WISH | {"max_iter": 500, "method": "tkmia_min"})
    assert explorer.state == "running"
    explorer.attack(WISH)  # one at a time
    explorer.cancel()
    assert explorer.job.wait(SECONDS)
    assert (explorer.state, len(explorer.recordings)) == ("idle", 2)
    assert "Cancelled" in explorer.message
    explorer.cancel()  # of nothing: nothing
    explorer._asked(None, {"do": "attack", "wish": WISH | {"k": 3}}, [])
    assert explorer.job.wait(SECONDS)
    assert explorer.state == "idle" and "success" in explorer.message
    assert [one["k"] for one in explorer.recordings] == [2, 2, 3]


def test_a_wish_that_fails_is_told_and_leaves_the_explorer_ready():
    explorer = Explorer([], toys.toy_session())
    explorer.attack(WISH | {"hide": []})
    assert explorer.job.wait(SECONDS)
    assert explorer.state == "idle" and explorer.message.startswith("Not possible: hide:")


def test_without_a_session_nothing_is_offered():
    explorer = Explorer(toys.toy_recordings()[:1])
    explorer.attack(WISH)
    assert explorer.offer == {} and explorer.state == "idle" and explorer.job is None


def test_what_is_offered_are_images_with_their_labels():
    offer = Explorer([], toys.toy_session()).offer
    assert [one["name"] for one in offer["images"]] == list(toys.NAMES)
    for one, row in zip(offer["images"], toys.labels(), strict=True):
        assert one["labels"] == [toys.CLASSES[c] for c in row.nonzero().flatten()]


def test_the_explorer_opens_with_two_attacks_that_end_differently():
    made = toys.toy_recordings()
    assert first_pair([]) == ["", ""]
    assert first_pair(made[:1]) == [made[0]["id"], ""]
    assert first_pair([made[0], made[3]]) == [made[0]["id"], ""]  # another k
    falls = {one["id"]: one["measures"]["P@k"][-1] for one in made}
    first, second = first_pair(made)
    assert falls[first] != falls[second]
