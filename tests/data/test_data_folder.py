"""Promises of the folder with a CSV: your own photos."""

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tkmia_utils import data
from tkmia_utils.data.folder import folder
from tkmia_utils.data.image_files import decode

SAMPLES = Path(__file__).parents[3] / "shared" / "samples" / "photos18"


def paint(path, colour="red", size=(12, 8)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)


@pytest.fixture
def photos(tmp_path):
    """Writes a CSV beside three small photos and gives its path."""
    for name in ("a.png", "b.png", "in/c.png"):
        paint(tmp_path / name)

    def write(*rows, header="image,labels"):
        path = tmp_path / "list.csv"
        path.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
        return path

    return write


def test_labels_ids_and_classes_are_those_of_the_csv(photos):
    found = folder(photos("b.png,dog;cat", "a.png,dog", "in/c.png,"), size=8)
    assert found.classes == ("cat", "dog")
    assert found.ids == ("b.png", "a.png", "in/c.png")
    assert found.labels.tolist() == [[True, True], [False, True], [False, False]]
    assert found.images([2]).shape == (1, 3, 8, 8)


def test_quotes_spaces_blank_lines_and_a_byte_order_mark_are_tolerated(photos):
    path = photos(
        ' a.png , "dog ; potted plant"', "", '"b.png", dog;;dog', header=" image , labels ,note"
    )
    path.write_text("\ufeff" + path.read_text().replace("plant\"", "plant\",x").replace(
        "dog;;dog", "dog;;dog,\"y, z\""))  # fmt: skip
    found = folder(path, size=8)
    assert found.classes == ("dog", "potted plant")
    assert found.labels.tolist() == [[True, True], [True, False]]


def test_separator_and_class_order_are_parameters(photos):
    found = folder(photos("a.png,dog|cat"), size=8, separator="|", classes=["dog", "cat", "cow"])
    assert found.classes == ("dog", "cat", "cow")
    assert found.labels.tolist() == [[True, True, False]]


def test_images_may_lie_in_another_folder(photos, tmp_path):
    found = folder(photos("c.png,dog"), tmp_path / "in", size=8)
    assert found.images([0]).shape == (1, 3, 8, 8)


def test_loading_at_once_or_later_gives_the_same_pixels(photos):
    path = photos("a.png,dog", "b.png,cat")
    now, later = folder(path, size=8), folder(path, size=8, preload=False)
    assert torch.equal(now.images([1, 0]), later.images([1, 0]))


def test_the_door_gives_the_folder(photos):
    path = photos("a.png,dog|cat")
    loaded = data.load("folder", "train", csv=path, size=8, separator="|")
    assert loaded.split == "train"
    assert torch.equal(loaded.images([0]), folder(path, size=8, separator="|").images([0]))


# what is refused


@pytest.mark.parametrize(
    ("header", "row", "said"),
    [
        ("file,labels", "a.png,dog", "line 1.*'image'"),
        ("image,label", "a.png,dog", "line 1.*'labels'"),
        ("image,labels", "a.png,dog,cat", "line 3: expected 2 fields, got 3"),
        ("image,labels", "a.png", "line 3: expected 2 fields, got 1"),
        ("image,labels", ",dog", "line 3: the image's name is empty"),
        ("image,labels", "b.png,dog", "line 3: image 'b.png' was named before, in line 2"),
        ("image,labels", "./b.png,dog", "line 3: image 'b.png' was named before, in line 2"),
        ("image,labels", "a.png,cow", "line 3: label 'cow' of 'a.png' is not in classes"),
        ("image,labels", "gone.png,dog", "line 3: no such image: .*gone.png"),
        ("image,labels", 'a.png,"dog', "cannot be read as a CSV"),
    ],
)
def test_a_wrong_row_is_refused_with_its_line(photos, header, row, said):
    with pytest.raises(ValueError, match=said):
        folder(photos("b.png,dog", row, header=header), size=8, classes=["dog"])


def test_a_csv_that_is_not_there_or_empty_or_not_utf8_is_refused(photos, tmp_path):
    with pytest.raises(ValueError, match=r"^csv: no such file"):
        folder(tmp_path / "other.csv")
    with pytest.raises(ValueError, match="names no image"):
        folder(photos())
    with pytest.raises(ValueError, match="names no label"):
        folder(photos("a.png,"))
    path = tmp_path / "latin.csv"
    path.write_bytes("image,labels\na.png,k\xe4se\n".encode("latin-1"))
    with pytest.raises(ValueError, match="UTF-8"):
        folder(path)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("size", {"size": 0}),
        ("on_error", {"on_error": "ignore"}),
        ("separator", {"separator": " "}),
        ("classes", {"classes": "dog"}),
        ("classes", {"classes": ["dog", "dog"]}),
    ],
)
def test_a_wrong_argument_is_refused_by_name(photos, name, change):
    with pytest.raises(ValueError, match=f"^{name}:"):
        folder(photos("a.png,dog"), **{"size": 8, **change})


# images that cannot be read


@pytest.fixture
def broken(photos, tmp_path):
    """A CSV of one good, one missing, one cut and one foreign file."""
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "cut.jpg")
    content = (tmp_path / "cut.jpg").read_bytes()
    (tmp_path / "cut.jpg").write_bytes(content[: len(content) // 2])
    (tmp_path / "text.png").write_text("not an image")
    return photos("gone.png,cow", "cut.jpg,dog", "a.png,cat", "text.png,dog")


@pytest.mark.parametrize("preload", [True, False])
def test_broken_images_are_left_out_and_named_in_one_warning(broken, preload):
    with pytest.warns(UserWarning, match="left out") as caught:
        found = folder(broken, size=8, on_error="skip", preload=preload)
    assert len(caught) == 1
    for name in ("gone.png", "cut.jpg", "text.png"):
        assert name in str(caught[0].message)
    assert found.ids == ("a.png",)
    assert found.classes == ("cat", "cow", "dog")
    assert found.labels.tolist() == [[True, False, False]]
    assert found.images([0]).shape == (1, 3, 8, 8)


def test_a_corrupt_image_is_named_with_its_line(photos, tmp_path):
    (tmp_path / "b.png").write_bytes((tmp_path / "b.png").read_bytes()[:40])
    path = photos("a.png,dog", "b.png,dog")
    with pytest.raises(ValueError, match=r"line 3: .*b\.png: cannot be read"):
        folder(path, size=8)
    later = folder(path, size=8, preload=False)
    with pytest.raises(ValueError, match=r"b\.png: cannot be read"):
        later.images([1])


def test_nothing_left_is_an_error_even_when_skipping(photos):
    with pytest.raises(ValueError, match=r"none is left.*gone\.png"):
        folder(photos("gone.png,dog"), size=8, on_error="skip")


def test_sound_photos_raise_no_warning(photos):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        folder(photos("a.png,dog"), size=8, on_error="skip")


# pixels


def test_the_whole_image_is_squashed(tmp_path):
    wide = np.zeros((10, 80, 3), dtype=np.uint8)
    wide[:, :40, 0] = 255
    wide[:, 40:, 2] = 255
    Image.fromarray(wide).save(tmp_path / "wide.png")
    image = decode(tmp_path / "wide.png", 8)
    assert image[:, 4, 0].tolist() == [255, 0, 0]
    assert image[:, 4, 7].tolist() == [0, 0, 255]


def test_shrinking_does_not_alias(tmp_path):
    rows, columns = np.indices((64, 64))
    fine = ((rows + columns) % 2 * 255).astype(np.uint8)
    Image.fromarray(fine).save(tmp_path / "fine.png")
    image = decode(tmp_path / "fine.png", 8).float()
    assert (image - 127.5).abs().max() < 8


def test_a_photo_is_turned_as_its_exif_data_says(tmp_path):
    lying = Image.new("RGB", (32, 32), "red")
    lying.paste("blue", (0, 0, 16, 32))  # left half
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise: left comes on top
    lying.save(tmp_path / "turned.jpg", exif=exif, quality=95)
    image = decode(tmp_path / "turned.jpg", 8).int()
    assert (image[2, :3] > 200).all()
    assert (image[0, -3:] > 200).all()


@pytest.mark.parametrize("mode", ["L", "LA", "P", "RGBA", "CMYK", "1"])
def test_every_eight_bit_mode_becomes_rgb(tmp_path, mode):
    path = tmp_path / ("x.tif" if mode == "CMYK" else "x.png")
    Image.new(mode, (9, 9)).save(path)
    assert decode(path, 4).shape == (3, 4, 4)


def test_transparent_pixels_become_white(tmp_path):
    Image.new("RGBA", (9, 9), (0, 0, 0, 0)).save(tmp_path / "clear.png")
    assert (decode(tmp_path / "clear.png", 4) == 255).all()


def test_more_than_eight_bits_a_channel_are_refused_not_clipped(tmp_path):
    Image.fromarray(np.full((4, 4), 30_000, dtype=np.uint16)).save(tmp_path / "deep.png")
    with pytest.raises(ValueError, match="eight bits"):
        decode(tmp_path / "deep.png", 4)


@pytest.mark.skipif(not SAMPLES.is_dir(), reason=f"no real photos at {SAMPLES}")
def test_real_photos_load_with_the_training_classes():
    train = data.load("folder", "train", csv=SAMPLES / "train.csv", size=32)
    val = data.load("folder", "val", csv=SAMPLES / "val.csv", size=32, classes=train.classes)
    assert len(train.classes) == 18
    assert val.classes == train.classes
    assert val.labels.sum(1).min() >= 1
    assert val.images(range(40)).flatten(1).std(1).min() > 0.02
    assert "motorcycle" in data.types_of(val)["Vehicles"]
