"""Promises of the readers of VOC, COCO and NUS-WIDE, on generated layouts and on real samples."""

import io
import json
import re
import warnings
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tkmia_utils import Runtime, data, victims
from tkmia_utils.data import coco, nus, voc
from tkmia_utils.data.image_files import decode
from tkmia_utils.experiments import protocol
from tkmia_utils.topk import in_top_k

SAMPLES = Path(__file__).parents[3] / "shared" / "samples"
needs_samples = pytest.mark.skipif(not SAMPLES.is_dir(), reason=f"no real photos at {SAMPLES}")


def write(path, content=""):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content, encoding="utf-8")


@cache
def jpeg(grey):
    buffer = io.BytesIO()
    Image.new("RGB", (12, 8), (grey, grey, grey)).save(buffer, "JPEG")
    return buffer.getvalue()


def paint(path, n):
    """The n-th photo of a layout: plain, and unlike its neighbours."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(jpeg(40 * n % 256))


def named(found):
    """Id to the names of the labels."""
    rows = zip(found.ids, found.labels.tolist(), strict=True)
    return {i: {c for c, on in zip(found.classes, row, strict=True) if on} for i, row in rows}


def annotate(*objects):
    blocks = (
        f"<object><part><name>head</name></part><name>{name}</name>"
        f"<difficult>{hard}</difficult></object>"
        for name, hard in objects
    )
    return f"<annotation>{''.join(blocks)}</annotation>"


@pytest.fixture
def voc_root(tmp_path):
    base = tmp_path / "VOCdevkit" / "VOC2012"
    shown = {"2": [("dog", 0), ("dog", 1)], "1": [("cat", 1)], "3": [("tvmonitor", 0), ("dog", 1)]}
    write(base / "ImageSets/Main/val.txt", "".join(f"{i} \n" for i in shown))
    for n, (i, objects) in enumerate(shown.items()):
        write(base / f"Annotations/{i}.xml", annotate(*objects))
        paint(base / f"JPEGImages/{i}.jpg", n)
    return tmp_path


@pytest.fixture
def coco_root(tmp_path):
    """Writes one layout, of a release and with any change, and gives its root."""

    def make(year="2014", **change):
        prefix = "COCO_val2014_" if year == "2014" else ""
        names = {18: "dog", 90: "toothbrush", 1: "person"}
        files = {i: f"{prefix}{i:012}.jpg" for i in (7, 3, 5)}
        content = {
            # in no order, so that a reader by position would be caught
            "categories": [{"id": i, "name": n} for i, n in names.items()],
            "images": [{"id": i, "file_name": name} for i, name in files.items()],
            "annotations": [
                {"image_id": i, "category_id": c, "iscrowd": c == 1, "segmentation": [[1, 2, 3]]}
                for i, c in ((3, 90), (7, 1), (3, 18), (3, 18))
            ],
            **change,
        }
        write(tmp_path / f"annotations/instances_val{year}.json", json.dumps(content))
        for n, name in enumerate(files.values()):
            paint(tmp_path / f"val{year}" / name, n)
        return tmp_path

    return make


def write_nus(root, rows):  # half -> [(name, set of concepts)]
    write(root / "Concepts81.txt", "\r\n".join(nus.CLASSES))
    for half, images in rows.items():
        lines = [name.replace("/", "\\") for name, _ in images]
        write(root / f"ImageList/{half}Imagelist.txt", "\r\n".join(lines) + "\r\n")
        for c in nus.CLASSES:
            bits = "".join(f"{int(c in shown)}\n" for _, shown in images)
            write(root / f"Groundtruth/TrainTestLabels/Labels_{c}_{half}.txt", bits)
        for n, (name, _) in enumerate(images):
            paint(root / "Flickr" / name, n)
    return root


NUS_ROWS = {
    "Train": [("a/1.jpg", {"zebra"}), ("a/2.jpg", set()), ("b/3.jpg", {"airport", "sky"})],
    "Test": [("b/4.jpg", {"sky"}), ("b/5.jpg", set()), ("b/6.jpg", {"cow", "tree"})],
}
PHOTO = {"voc": "VOCdevkit/VOC2012/JPEGImages/{}.jpg", "coco": "val2014/{}", "nus": "Flickr/{}"}


@pytest.fixture
def nus_root(tmp_path):
    return write_nus(tmp_path, NUS_ROWS)


@pytest.fixture
def root_of(voc_root, coco_root, nus_root):
    return {"voc": voc_root, "coco": coco_root(), "nus": nus_root}


# labels


def test_voc_labels_are_the_objects_not_their_parts(voc_root):
    found = voc.voc(voc_root, "val", size=8, difficult="keep")
    assert found.ids == ("2", "1", "3")
    assert named(found) == {"2": {"dog"}, "1": {"cat"}, "3": {"tvmonitor", "dog"}}


def test_difficult_objects_are_dropped_and_the_image_keeps_its_easy_labels(voc_root):
    found = voc.voc(voc_root, "val", size=8)
    assert named(found) == {"2": {"dog"}, "1": set(), "3": {"tvmonitor"}}
    assert "difficult" in found.card


@pytest.mark.parametrize("year", ["2014", "2017"])
def test_coco_labels_go_by_category_name_in_both_releases(coco_root, year):
    found = coco.coco(coco_root(year), "val", year=year, size=8)
    shown = [v for _, v in sorted(named(found).items())]
    assert shown == [{"dog", "toothbrush"}, {"person"}]
    assert all(i.startswith("COCO_val2014_") == (year == "2014") for i in found.ids)
    assert found.images([0, 1]).shape == (2, 3, 8, 8)
    every = coco.coco(coco_root(year), "val", year=year, size=8, unlabelled="keep")
    assert [len(shown) for shown in named(every).values()] == [1, 2, 0]


def test_nus_labels_go_by_file_name_and_unlabelled_images_are_left_out(nus_root):
    train, val = (nus.nus(nus_root, split, size=8) for split in ("train", "val"))
    assert named(train) == {"a/1.jpg": {"zebra"}, "b/3.jpg": {"airport", "sky"}}
    assert named(val) == {"b/4.jpg": {"sky"}, "b/6.jpg": {"cow", "tree"}}


def test_class_lists_are_of_the_right_length_and_types_use_their_names():
    for room, count in ((voc, 20), (coco, 80), (nus, 81)):
        members = [name for names in room.TYPES.values() for name in names]
        assert len(set(room.CLASSES)) == len(room.CLASSES) == count
        assert len(set(members)) == len(members)
        assert set(members) <= set(room.CLASSES)
    assert list(nus.CLASSES) == sorted(nus.CLASSES)


def test_types_and_default_size_are_the_papers_for_each_data_set(root_of):
    for name, room, size in (("voc", voc, 300), ("coco", coco, 448), ("nus", nus, 224)):
        found = data.load(name, "val", root=root_of[name])
        assert data.types_of(found) == room.TYPES
        assert found.size == size


def test_the_papers_division_is_random_complete_and_keyed_by_the_image(tmp_path):
    def ids(split, seed=0):
        options = {"partition": "paper", "seed": seed}
        return set(data.load("nus", split, root=tmp_path, **options).ids)

    rows = [(f"a/{i}.jpg", {"sky"}) for i in range(1000)]
    write_nus(tmp_path, {"Train": rows[:300], "Test": rows[300:]})
    train, val = ids("train"), ids("val")
    assert not train & val
    assert len(train | val) == 1000
    # six standard deviations of a binomial around the paper's share
    share = nus.PAPER_SPLIT[0] / sum(nus.PAPER_SPLIT)
    assert abs(len(train) - 1000 * share) < 6 * (1000 * share * (1 - share)) ** 0.5
    assert ids("train", seed=1) != train
    write_nus(tmp_path, {"Train": rows[:20:2], "Test": rows[20::2]})
    assert ids("train") == {name for name, _ in rows[::2]} & train


# pixels


@pytest.mark.parametrize("name", ["voc", "coco", "nus"])
def test_preloaded_pixels_are_those_read_later(root_of, name):
    later = data.load(name, "val", root=root_of[name], size=8)
    now = data.load(name, "val", root=root_of[name], size=8, preload=True)
    assert torch.equal(now.images([1, 0]), later.images([1, 0]))
    assert not torch.equal(now.load(0), now.load(1))


@pytest.mark.parametrize("name", ["voc", "coco", "nus"])
def test_a_fingerprint_follows_the_bytes_of_the_photos_it_lists(root_of, tmp_path, name):
    options = dict(root=root_of[name], size=8, cache=tmp_path / "cache")
    found = data.load(name, "val", **options)
    first, before = data.fingerprint(name, "val", **options), found.digests(range(len(found)))
    assert first == found.fingerprint() == data.fingerprint(name, "val", **options)
    assert first != data.fingerprint(name, "val", **{**options, "size": 9})
    ends = {"voc": f"VOC2012/JPEGImages/{found.ids[1]}.jpg"}.get(name, f"/{found.ids[1]}")
    (path,) = (p for p in root_of[name].rglob("*.jpg") if p.as_posix().endswith(ends))
    path.write_bytes(path.read_bytes() + b"more")
    assert data.fingerprint(name, "val", **options) != first
    after = found.digests(range(len(found)))
    assert [a != b for a, b in zip(after, before, strict=True)].count(True) == 1
    assert found.subset([1]).digests([0]) == [after[1]]


def test_crop_keeps_the_centre_and_squash_the_whole(voc_root):
    striped = np.zeros((40, 80, 3), dtype=np.uint8)
    striped[:, 20:60] = 255  # the central square is white, what is beside it black
    path = voc_root / "VOCdevkit/VOC2012/JPEGImages/2.jpg"
    Image.fromarray(striped).save(path, quality=95)
    whole = voc.voc(voc_root, "val", size=8)
    centre = voc.voc(voc_root, "val", size=8, resize="crop")
    assert torch.equal(whole.load(0), decode(path, 8))
    assert whole.load(0)[:, :, [0, 7]].max() < 30
    assert centre.load(0).min() > 225
    assert torch.equal(whole.labels, centre.labels)
    assert whole.card != centre.card


# files that are missing or broken


@pytest.mark.parametrize("name", ["voc", "coco", "nus"])
def test_an_empty_root_is_answered_with_files_source_and_place(name, tmp_path):
    with pytest.raises(ValueError, match=r"^root: \d+ files? missing.*archive.*root is the") as e:
        data.load(name, "train", root=tmp_path)
    assert str(tmp_path) in str(e.value)


def test_all_missing_files_are_counted_in_one_message(nus_root):
    for path in (nus_root / "Groundtruth/TrainTestLabels").glob("*_Train.txt"):
        path.unlink()
    (nus_root / "Concepts81.txt").unlink()
    with pytest.raises(ValueError, match=r"82 files missing: .*Concepts81\.txt.*Labels_airport"):
        nus.nus(nus_root, "train")


@pytest.mark.parametrize("name", ["voc", "coco", "nus"])
def test_missing_photos_are_an_error_or_left_out_by_name(root_of, name):
    root = root_of[name]
    whole = data.load(name, "val", root=root, size=8)
    gone = root / PHOTO[name].format(whole.ids[0])
    gone.unlink()
    with pytest.raises(ValueError, match=rf"1 file missing: .*{gone.name}"):
        data.load(name, "val", root=root)
    with pytest.warns(UserWarning, match=rf"left out: 1 .*{gone.name}") as caught:
        rest = data.load(name, "val", root=root, size=8, on_error="skip")
    expected = {i: shown for i, shown in named(whole).items() if i != whole.ids[0]}
    assert len(caught) == 1 and named(rest) == expected
    assert torch.equal(rest.images([0]), whole.images([1]))
    for i in rest.ids:
        (root / PHOTO[name].format(i)).unlink()
    with pytest.raises(ValueError, match=r"^root:"):
        data.load(name, "val", root=root, on_error="skip")


def test_nus_photos_and_concept_list_may_lie_elsewhere(nus_root, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("photos") / "mine"
    (nus_root / "Flickr").rename(elsewhere)
    (nus_root / "ConceptsList").mkdir()
    (nus_root / "Concepts81.txt").rename(nus_root / "ConceptsList" / "Concepts81.txt")
    assert nus.nus(nus_root, "val", size=8, images=elsewhere).images([0, 1]).shape == (2, 3, 8, 8)


def test_a_corrupt_photo_is_named(voc_root):
    path = voc_root / "VOCdevkit/VOC2012/JPEGImages/1.jpg"
    path.write_bytes(path.read_bytes()[:100])
    for resize in ("squash", "crop"):
        with pytest.raises(ValueError, match=r"1\.jpg: cannot be read"):
            voc.voc(voc_root, "val", size=8, resize=resize).images([1])


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "cannot be read as XML"),
        ("<annotation><object>", "cannot be read as XML"),
        ("<annotation></annotation>", "at least one object"),
        (annotate(("unicorn", 0)), "unknown class 'unicorn'"),
        ("<annotation><object><difficult>0</difficult></object></annotation>", "unknown class ''"),
    ],
)
def test_a_wrong_annotation_is_refused_by_file(voc_root, content, said):
    write(voc_root / "VOCdevkit/VOC2012/Annotations/3.xml", content)
    with pytest.raises(ValueError, match=rf"3\.xml: .*{said}"):
        voc.voc(voc_root, "val")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"categories": [{"id": 1, "name": "unicorn"}]}, "unknown class 'unicorn'"),
        ({"categories": [{"id": 1, "name": "person"}]}, "category (90|18), not listed"),
        ({"annotations": [{"image_id": 8, "category_id": 1}]}, "image 8, which is not listed"),
        ({"annotations": [{"image_id": 7}]}, "KeyError: 'category_id'"),
        ({"images": [{"id": 7, "file_name": "a"}, {"id": 3, "file_name": "a"}]}, "different ids"),
        ({"images": 3}, "TypeError"),
        ({"images": "cut short"}, "JSONDecodeError"),
    ],
)
def test_wrong_instances_are_refused_by_file(coco_root, change, said):
    root = coco_root(**change)
    path = root / "annotations/instances_val2014.json"
    path.write_text(path.read_text().partition("cut short")[0])
    with pytest.raises(ValueError, match=rf"{path.name}: .*{said}"):
        coco.coco(root, "val")


@pytest.mark.parametrize("content", ["1\n0\n", "1\n0\n1\n0\n", "1\n0\n2\n", ""])
def test_a_label_file_that_does_not_fit_the_list_is_refused_by_name(nus_root, content):
    write(nus_root / "Groundtruth/TrainTestLabels/Labels_sky_Train.txt", content)
    with pytest.raises(ValueError, match=r"Labels_sky_Train\.txt: expected 3 lines of 0 or 1"):
        nus.nus(nus_root, "train")


@pytest.mark.parametrize("concepts", [nus.CLASSES[:-1], (*nus.CLASSES, "sky"), ("cow",)])
def test_another_concept_list_is_refused(nus_root, concepts):
    write(nus_root / "Concepts81.txt", "\n".join(concepts))
    with pytest.raises(ValueError, match=r"Concepts81\.txt: expected NUS-WIDE's 81"):
        nus.nus(nus_root, "train")


def test_a_list_without_images_is_refused(voc_root):
    write(voc_root / "VOCdevkit/VOC2012/ImageSets/Main/val.txt")
    with pytest.raises(ValueError, match="list no image"):
        voc.voc(voc_root, "val")


WRONG = {
    "voc": {"split": "test", "year": "2013", "difficult": "no", "resize": "pad", "size": 0,
            "on_error": "ignore", "unlabelled": "keep", "images": "photos"},
    "coco": {"year": "2012", "unlabelled": "some"},
    "nus": {"partition": "x", "seed": "0", "csv": "a.csv", "root": None, "classes": ("cow", "sky")},
    "emoji": {"root": "photos", "resize": "crop"},
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "option", "value"), [(n, o, v) for n, given in WRONG.items() for o, v in given.items()]
)
def test_a_wrong_option_is_refused_by_name(root_of, name, option, value):
    root = {} if name == "emoji" else {"root": root_of[name]}
    with pytest.raises(ValueError, match=f"^{option}:"):
        data.load(**{"dataset": name, "split": "val", **root, option: value})


def test_a_sound_layout_raises_no_warning(root_of):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for name, root in root_of.items():
            data.load(name, "val", root=root, size=8, on_error="skip")


@needs_samples
@pytest.mark.parametrize("split", ["train", "val"])
def test_real_voc_labels_agree_with_the_xml(split):
    root = SAMPLES / "voc2012"
    found = data.load("voc", split, root=root, size=32, difficult="keep")
    easy = data.load("voc", split, root=root, size=32)  # as the released code
    for i, shown in named(found).items():
        text = (root / f"VOCdevkit/VOC2012/Annotations/{i}.xml").read_text()
        text = re.sub(r"<part>.*?</part>", "", text, flags=re.S)
        objects = re.findall(r"<object>.*?</object>", text, flags=re.S)
        names = [re.search(r"<name>(\w+)</name>", o).group(1) for o in objects]
        assert shown == set(names)
        hard = ["<difficult>1</difficult>" in o for o in objects]
        assert named(easy)[i] == {c for c, h in zip(names, hard, strict=True) if not h}
    assert len(found) == {"train": 60, "val": 40}[split]
    assert found.images(range(8)).flatten(1).std(1).min() > 0.02


@needs_samples
@pytest.mark.parametrize("split", ["train", "val"])
def test_real_coco_labels_agree_with_the_json(split):
    root = SAMPLES / "coco"
    content = json.loads((root / f"annotations/instances_{split}2017.json").read_text())
    found = data.load("coco", split, root=root, year="2017", size=32)
    official = sorted(content["categories"], key=lambda category: category["id"])
    assert list(found.classes) == [category["name"] for category in official]
    column = {category["id"]: c for c, category in enumerate(official)}
    file = {image["id"]: image["file_name"] for image in content["images"]}
    wanted = {(file[a["image_id"]], column[a["category_id"]]) for a in content["annotations"]}
    assert {(found.ids[i], c) for i, c in found.labels.nonzero().tolist()} == wanted
    assert len(found) == {"train": 80, "val": 79}[split]
    assert found.images(range(8)).flatten(1).std(1).min() > 0.02


@needs_samples
def test_real_nus_labels_come_out_in_their_81_columns(tmp_path):
    bits, rows = {}, {}
    for half in ("Train", "Test"):
        lines = (SAMPLES / "nus_wide" / f"{half.lower()}.txt").read_text().splitlines()
        table = [line.split() for line in lines]
        bits[half] = np.array([row[1:] for row in table]) == "1"
        rows[half] = [
            (row[0], {nus.CLASSES[c] for c in np.flatnonzero(b)})
            for row, b in zip(table, bits[half], strict=True)
        ]
    write_nus(tmp_path, rows)
    for half, split in (("Train", "train"), ("Test", "val")):
        found = data.load("nus", split, root=tmp_path, size=8)
        seen = bits[half].any(1)
        assert found.labels.shape == (seen.sum(), 81)
        assert torch.equal(found.labels, torch.from_numpy(bits[half][seen]))
        assert found.ids == tuple(n for (n, _), s in zip(rows[half], seen, strict=True) if s)
        assert found.images(range(4)).shape == (4, 3, 8, 8)


@needs_samples
@pytest.mark.parametrize("name", ["tkmia", "tkml_ap_u", "ml_cw_u", "kfool", "gmla"])
def test_a_resnet_trained_on_real_photos_is_attacked_by_every_method(real_victim, name):
    victim, val = real_victim
    logits = victims.predict(victim.model, val)
    queue = protocol.build_queue([protocol.Cell("S2", 1, m=1)], val, logits, {}, n=3)
    rows, result = protocol.run(
        victim.model, queue, val, method=name, max_iter=8, runtime=Runtime(slots=3)
    )
    assert len(rows) == 3
    torch.testing.assert_close(result.clean_logits, logits[queue.index], atol=1e-4, rtol=1e-4)
    assert (result.l2[result.iterations > 0] > 0).all() and result.iterations.max() > 0
    outside = (queue.specified & ~in_top_k(result.adversarial_logits, queue.k)).any(-1)
    assert torch.equal(outside, result.success)


@pytest.fixture(scope="module")
def real_victim():
    root = SAMPLES / "voc2012"
    train, val = (data.load("voc", split, root=root, size=96) for split in ("train", "val"))
    made = victims.recipe("voc", weights="scratch", epochs=3, batch=20, lr=1e-2)
    victim = victims.train(made, train, val, device="cpu")
    assert victim.history[-1]["loss"] < victim.history[0]["loss"]
    return victim, val
