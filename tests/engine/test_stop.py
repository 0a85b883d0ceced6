"""Promises of stops, 8 bits and best iterates: what is called a success is one."""

import json

import pytest
import torch
from recheck import verdict
from sweeps import attack
from test_engine import net, task

from tkmia_utils import AttackResult
from tkmia_utils.attacks import ATTACKS
from tkmia_utils.condition import STOPS, Stop, condition, holds
from tkmia_utils.engine.result_file import FORMAT
from tkmia_utils.measures import MEASURES, precision_at_k
from tkmia_utils.monitor.watches import WATCHES
from tkmia_utils.tensor_file import read_tensors, write_tensors

K = 3
SETTINGS = {
    "tkmia_min": {"max_iter": 40},
    "kfool": {"overshoot": 0.02, "max_iter": 60},
    "fgsm": {"step": 2 / 255, "max_iter": 60},
    "pgd": {"step": 2 / 255, "radius": 0.3, "max_iter": 60},
}
LEVELS = torch.arange(256).float() / 255
WATCHED = Stop(measures=tuple(MEASURES), gap=1.0, below=3)


def world(n=12, *, on_grid=True):
    model = net()
    images, labels, specified = task(model, n, k=K, m=2, side=16, classes=10)
    if on_grid:
        images = (images * 255).round() / 255
    labels |= torch.rand(labels.shape, generator=torch.Generator().manual_seed(5)) < 0.2
    return model, images, labels, specified


def run(method, *, of=None, **call):
    settings = {"lr": 0.3, "max_iter": 150} | SETTINGS.get(method, {}) | call
    return attack(*(of or world()), K, method=method, slots=4, **settings)


class Cut(Exception):
    """A model that breaks."""


def breaks_at(model, call):
    """The model, which breaks at its call of that number and never again."""
    calls = 0

    def fragile(x):
        nonlocal calls
        calls += 1
        if calls == call:
            raise Cut
        return model(x)

    return fragile


@pytest.mark.parametrize("bits", [None, 8])
@pytest.mark.parametrize("stop", list(STOPS))
@pytest.mark.parametrize("method", list(ATTACKS))
def test_every_success_of_every_method_is_one_by_an_independent_recheck(method, stop, bits):
    model, images, labels, specified = world()
    result = run(method, stop=stop, bits=bits)
    with torch.no_grad():
        after = model(result.adversarial).double().numpy()
        clean = model(images).double().numpy()
    for i, won in enumerate(result.success.tolist()):
        sets = (labels[i].tolist(), specified[i].tolist(), K)
        found = verdict(
            result.clean_logits[i].tolist(), result.adversarial_logits[i].tolist(), *sets
        )
        kept = found.excluded and found.kept(STOPS[stop].measures, 1e-9)
        assert won == kept, (i, won, result.reasons[i])
    assert abs(after - result.adversarial_logits.numpy()).max() < 1e-4
    assert abs(clean - result.clean_logits.numpy()).max() < 1e-4
    if method == "tkmia_min":  # the others may fail on a strict stop; it may not
        assert result.success.all()
    if stop == "excluded" and method != "fgsm":
        assert result.success.any()


def test_a_stricter_stop_goes_on_where_a_measure_has_fallen():
    plain, strict = (run("tkmia", stop=stop) for stop in ("excluded", "imperceptible"))
    unseen = plain.outcomes()["no measure fell"]
    assert 0 < unseen.sum() < len(plain), "the world is to have both kinds"
    assert strict.success.all() and strict.outcomes()["no measure fell"].all()
    same = unseen & plain.success
    assert torch.equal(plain.adversarial[same], strict.adversarial[same])
    assert (strict.iterations[~same] > plain.iterations[~same]).all()


def test_refilled_keeps_precision_and_may_lose_another_measure():
    result = run("tkmia", stop="refilled")
    falls = result.to_frame()
    assert result.success.all() and (falls["Delta P@k"] <= 0).all()
    assert result.stop == Stop(measures=("P@k",)) == STOPS["refilled"]


def test_a_stop_of_ones_own_names_its_measures_and_a_tolerance():
    stop = Stop(measures=("NDCG@k",), tolerance=0.5)
    result = run("tkmia", stop=stop)
    frame = result.to_frame()
    assert result.success.all() and (frame["Delta NDCG@k"] <= 0.5 + 1e-9).all()
    assert (frame["Delta NDCG@k"] > 1e-9).any(), "the tolerance is to be of use"


@pytest.mark.parametrize("method", ["tkmia", "gmla", "tkmia_min", "kfool"])
def test_with_eight_bits_images_are_grey_levels_and_the_file_says_the_same(method):
    result = run(method, bits=8, files=True)
    assert torch.isin(result.adversarial, LEVELS).all()
    torch.testing.assert_close(result.png_logits, result.adversarial_logits, atol=0, rtol=0)
    frame = result.to_frame()
    assert (frame["survives PNG"] == frame["success"]).all() and result.success.any()
    assert result.bits == 8


def test_without_bits_a_file_may_take_a_success_back_and_the_table_says_so():
    model, _images, labels, specified = world()
    few = run("tkmia", lr=0.02, max_iter=400, files=True)
    with torch.no_grad():
        rounded = model((few.adversarial * 255).round() / 255)
    torch.testing.assert_close(few.png_logits, rounded, atol=1e-5, rtol=1e-5)
    asked = condition(few.clean_logits, labels, specified, K, stop="excluded")
    frame = few.to_frame()
    survives = few.success & holds(few.png_logits, asked)
    assert frame["survives PNG"].tolist() == survives.double().tolist()
    assert frame["survives PNG"].sum() < few.success.sum()
    both = frame["PNG and no measure fell"]
    assert (both <= frame["survives PNG"]).all()
    fall = precision_at_k(few.clean_logits, labels, K) - precision_at_k(few.png_logits, labels, K)
    assert not ((both == 1) & (fall.numpy() > 1e-9)).any()


def test_files_are_not_looked_at_unless_asked_for():
    result = run("tkmia")
    assert result.png_logits is None and "survives PNG" not in result.to_frame()


def test_logits_of_files_do_not_depend_on_how_many_images_there_are():
    whole = run("tkmia", files=True)
    model, images, labels, specified = world()
    some = run("tkmia", of=(model, images[:7], labels[:7], specified[:7]), files=True)
    torch.testing.assert_close(some.png_logits, whole.png_logits[:7], atol=0, rtol=0)
    bare = run("tkmia", files=True, keep_images=False)
    torch.testing.assert_close(bare.png_logits, whole.png_logits, atol=0, rtol=0)


def test_an_anytime_attack_keeps_the_success_of_least_norm():
    _model, images, labels, specified = world()
    limits = [5, 10, 20]
    result = run("tkmia_min", stop="imperceptible", snapshots=limits, record=True)
    asked = condition(result.clean_logits, labels, specified, K)
    for i in range(len(images)):
        steps = int(result.iterations[i]) + 1
        traced, norms = result.trace.logits[i, :steps], result.trace.l2[i, :steps]
        one = [t[i : i + 1].expand(steps, *t.shape[1:]) for t in vars(asked).values()]
        met = holds(traced, type(asked)(*one))
        assert float(result.l2[i]) == float(norms[met].min())
        for limit in limits:
            best = norms[: limit + 1][met[: limit + 1]]
            at = result.at(limit)
            assert bool(at.success[i]) == bool(len(best))
            if len(best):
                assert float(at.l2[i]) == float(best.min())
    shorter = run("tkmia_min", stop="imperceptible", max_iter=10)
    assert torch.equal(shorter.l2, result.at(10).l2), "no schedule depends on the limit"


def test_what_no_scores_can_meet_is_said_at_once():
    model, images, labels, _ = world()
    labels = torch.zeros_like(labels)
    order = model(images).argsort(descending=True)
    labels.scatter_(1, order[:, :K], True)  # the whole top k is relevant, and nothing else is
    specified = torch.zeros_like(labels).scatter_(1, order[:, :1], True)
    result = run("tkmia", of=(model, images, labels, specified), stop="refilled")
    assert set(result.reasons) == {"infeasible"} and not result.success.any()
    assert (result.iterations == 0).all() and (result.l2 == 0).all()
    plain = run("tkmia", of=(model, images, labels, specified))
    assert plain.success.any() and "infeasible" not in plain.reasons


def test_known_clean_logits_change_nothing():
    _model, _images, _labels, _specified = world()
    first = run("tkmia_min", stop="imperceptible")
    again = run("tkmia_min", stop="imperceptible", clean_logits=first.clean_logits)
    for name in ("adversarial", "l2", "success"):
        assert torch.equal(getattr(first, name), getattr(again, name))


def test_backward_passes_are_counted_by_iteration():
    iterations = {}
    for method, passes in (("tkmia", 1), ("gmla", 2), ("kfool", K + 1), ("tkmia_min", 1)):
        result = run(method)
        assert result.passes == passes
        assert torch.equal(result.backward, result.iterations * passes)
        iterations[method] = result.iterations
    assert iterations["tkmia_min"].max() == SETTINGS["tkmia_min"]["max_iter"]


@pytest.mark.parametrize("method", ["tkmia", "tkmia_min"])
@pytest.mark.parametrize("bits", [None, 8])
def test_the_results_of_a_row_do_not_depend_on_its_place(method, bits):
    model, images, labels, specified = world()
    call = dict(stop="imperceptible", bits=bits)
    whole = run(method, **call)
    at = torch.tensor([7, 2, 11, 4, 0])
    part = run(method, of=(model, images[at], labels[at], specified[at]), **call)
    for name in ("adversarial", "l2", "iterations", "adversarial_logits"):
        assert torch.equal(getattr(whole, name)[at], getattr(part, name)), name


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ({"stop": "perfect"}, "stop: expected one of"),
        ({"stop": None}, "stop: expected one of"),
        ({"bits": 4}, "bits: expected one of None, 8"),
        ({"files": 1}, "files: expected True or False"),
    ],
)
def test_bad_stops_bits_and_files_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        run("tkmia", **call)


def test_a_checkpoint_carries_best_iterates_and_files(tmp_path):
    model, *sets = world()
    whole = run("tkmia_min", stop="imperceptible", bits=8, files=True, snapshots=[5])
    fragile = breaks_at(model, 60)

    call = dict(stop="imperceptible", bits=8, files=True, snapshots=[5])
    call |= dict(checkpoint=tmp_path / "state", checkpoint_every=7)
    with pytest.raises(Cut):
        run("tkmia_min", of=(fragile, *sets), **call)
    assert (tmp_path / "state").is_file()
    again = run("tkmia_min", of=(fragile, *sets), **call)
    for name in ("adversarial", "l2", "png_logits", "success", "adversarial_logits"):
        assert torch.equal(getattr(again, name), getattr(whole, name)), name
    assert torch.equal(again.snapshots[5].l2, whole.snapshots[5].l2)


def test_every_measure_may_stand_in_a_stop():
    assert STOPS["imperceptible"].measures == tuple(MEASURES)


@pytest.mark.parametrize("bits", [None, 8])
def test_who_knows_the_label_free_watches_can_keep_them_quiet(bits):
    _model, _images, labels, specified = world()
    result = run("tkmia_min", stop=WATCHED, bits=bits, max_iter=60)
    assert result.success.all() and result.outcomes()["no measure fell"].all()
    clean, after = (WATCHES["gap"].value(x, None, K)
                    for x in (result.clean_logits, result.adversarial_logits))  # fmt: skip
    assert (after >= clean).all() and (clean > 0).any()
    near = WATCHES["near miss"].value(result.adversarial_logits, None, K)
    assert (near[specified] == 0).all()
    quick = run("tkmia_min", stop="imperceptible", bits=bits, max_iter=60)
    loud = WATCHES["near miss"].value(quick.adversarial_logits, None, K)
    assert (loud[specified] > 0).any(), "without it the labels stop just below the list"
    assert (quick.l2 < result.l2).all(), "and the norm is smaller"
    asks = condition(result.clean_logits, labels, specified, K, stop=WATCHED)
    assert holds(result.adversarial_logits, asks).all()


@pytest.mark.parametrize("method", ["tkmia", "gmla", "pgd"])
@pytest.mark.parametrize("stop", [Stop(gap=0.5), Stop(below=2), WATCHED], ids=str)
def test_every_method_goes_on_until_gap_and_depth_hold(method, stop):
    _model, _images, labels, specified = world()
    result = run(method, stop=stop)
    asks = condition(result.clean_logits, labels, specified, K, stop=stop)
    assert torch.equal(result.success, holds(result.adversarial_logits, asks))
    plain = run(method, stop=Stop(measures=stop.measures))
    both = result.success & plain.success
    assert (result.iterations[both] >= plain.iterations[both]).all()


def test_more_labels_than_there_are_cannot_be_above_the_hidden_ones():
    deepest = 10 - 2 - K  # of ten classes two are hidden
    for below, reasons in ((deepest, {"success", "limit"}), (deepest + 1, {"infeasible"})):
        for stop in (Stop(below=below), Stop(gap=0.5, below=below)):
            result = run("tkmia_min", stop=stop, max_iter=10)
            assert set(result.reasons) <= reasons
    assert not result.success.any() and (result.iterations == 0).all()


def test_a_gap_of_zero_changes_no_bit_and_a_queue_keeps_each_image_its_own():
    one = run("tkmia_min", stop=Stop(measures=tuple(MEASURES), gap=0.0, below=0))
    two = run("tkmia_min", stop="imperceptible")
    assert torch.equal(one.adversarial, two.adversarial) and one.stop == two.stop
    model, images, labels, specified = world()
    whole = run("tkmia_min", stop=WATCHED)  # 12 images through 4 slots
    at = torch.tensor([9, 2, 11, 4, 0])
    part = run("tkmia_min", of=(model, images[at], labels[at], specified[at]), stop=WATCHED)
    again = run("tkmia_min", stop=WATCHED, clean_logits=whole.clean_logits)
    for name in ("adversarial", "l2", "success", "adversarial_logits"):
        assert torch.equal(getattr(whole, name)[at], getattr(part, name)), name
        assert torch.equal(getattr(whole, name), getattr(again, name)), name


@pytest.mark.parametrize("stop", [WATCHED, Stop(below=2)], ids=str)
def test_a_checkpoint_and_a_file_carry_gap_and_depth(tmp_path, stop):
    model, *sets = world()
    whole = run("tkmia_min", stop=stop)
    fragile = breaks_at(model, 50)

    call = dict(checkpoint=tmp_path / "state", checkpoint_every=7)
    with pytest.raises(Cut):
        run("tkmia_min", of=(fragile, *sets), stop=stop, **call)
    other = Stop(measures=stop.measures, gap=stop.gap, below=stop.below + 1)
    with pytest.raises(ValueError, match="other arguments: stop"):
        run("tkmia_min", of=(fragile, *sets), stop=other, **call)
    again = run("tkmia_min", of=(fragile, *sets), stop=stop, **call)
    for name in ("adversarial", "l2", "success", "adversarial_logits"):
        assert torch.equal(getattr(again, name), getattr(whole, name)), name
    loaded = AttackResult.load(whole.save(tmp_path / "result.safetensors"))
    assert loaded.stop == stop and torch.equal(loaded.adversarial, whole.adversarial)


def test_a_file_from_before_gap_and_depth_is_read_as_it_was(tmp_path):
    result = run("tkmia", stop="refilled", max_iter=3)
    path = result.save(tmp_path / "result.safetensors")
    tensors, metadata = read_tensors(path, kind=FORMAT)
    assert json.loads(metadata["header"])["stop"] == [["P@k"], 0.0]  # what was written then
    assert AttackResult.load(path).stop == STOPS["refilled"]
    header = json.dumps(json.loads(metadata["header"]) | {"stop": [["P@k"], 0.0, 1.0]})
    write_tensors(path, tensors, kind=FORMAT, metadata={"header": header})
    with pytest.raises(ValueError, match="not a whole, saved AttackResult"):
        AttackResult.load(path)
