"""The judge itself: it knows the measures, reads files as they are, and imports nothing judged."""

import ast
from pathlib import Path

import numpy as np
import pytest
import recheck
import references
import torch
from PIL import Image

from tkmia_utils.measures import MEASURES
from tkmia_utils.topk import in_top_k


@pytest.mark.parametrize("module", [recheck, references], ids=lambda module: module.__name__)
def test_the_judge_imports_nothing_of_the_package(module):
    tree = ast.parse(Path(module.__file__).read_text())
    names = [a.name for node in ast.walk(tree) if isinstance(node, ast.Import) for a in node.names]
    names += [node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    assert names and not [name for name in names if "tkmia" in name]


@pytest.mark.parametrize("ties", [False, True])
def test_the_judge_agrees_with_the_measures_and_the_top_k(ties):
    generator = torch.Generator().manual_seed(3)
    for _ in range(40):
        n, c = 10, int(torch.randint(2, 12, (1,), generator=generator))
        k = torch.randint(1, c, (n,), generator=generator)
        clean, scores = torch.randn(2, n, c, generator=generator)
        if ties:
            clean, scores = (clean * 2).round(), (scores * 2).round()
        labels = torch.rand(n, c, generator=generator) < 0.5
        labels[:, 0] = True
        specified = labels & (torch.rand(n, c, generator=generator) < 0.5)
        before, after = (
            {name: measure(x, labels, k) for name, measure in MEASURES.items()}
            for x in (clean, scores)
        )
        out = (specified & ~in_top_k(scores, k)).sum(-1)
        for i in range(n):
            for delta in range(1, c):
                told = recheck.verdict(
                    clean[i], scores[i], labels[i], specified[i], int(k[i]), delta
                )
                assert told.excluded == (int(out[i]) >= delta)
            for name in MEASURES:
                assert told.before[name] == pytest.approx(float(before[name][i]), abs=1e-12)
                assert told.after[name] == pytest.approx(float(after[name][i]), abs=1e-12)
                fell = float(after[name][i]) < float(before[name][i]) - 1e-12
                assert (name in told.fell()) == fell


def test_a_verdict_by_hand():
    labels, specified = [1, 1, 1, 0, 0], [1, 0, 0, 0, 0]
    clean = [5, 4, 1, 3, 2]  # hits 1 1 0
    told = recheck.verdict(clean, [0, 4, 3, 2, 1], map_bool(labels), map_bool(specified), 3)
    assert told.kept() and told.before["P@k"] == pytest.approx(2 / 3) == told.after["P@k"]
    # a tie with the third of the others leaves the specified label in
    told = recheck.verdict(clean, [2, 4, 3, 2, 1], map_bool(labels), map_bool(specified), 3)
    assert not told.excluded
    told = recheck.verdict(clean, [0, 4, 2, 3, 1], map_bool(labels), map_bool(specified), 3)
    assert told.excluded and told.fell() == ["AP@k", "NDCG@k"] and told.kept(["TkAcc", "P@k"])
    assert not told.fell(tolerance=0.2)


def map_bool(row):
    return [bool(entry) for entry in row]


def test_files_are_judged_as_they_are_read_back(tmp_path):
    """A victim of three labels whose scores are the means of the colours."""
    pixels = np.zeros((2, 4, 4, 3), dtype=np.uint8)
    pixels[0] = 200, 100, 50
    pixels[1] = 101, 200, 100  # one grey level between the first and the third
    paths = [tmp_path / f"{i}.png" for i in range(2)]
    for path, picture in zip(paths, pixels, strict=True):
        Image.fromarray(picture).save(path)
    assert np.array_equal(
        recheck.read_png(paths[0])[:, 0, 0], np.array([200, 100, 50], np.float32) / 255
    )

    def model(x):
        assert x.dtype == torch.float32 and x.shape == (1, 3, 4, 4)
        return x.mean((2, 3))

    clean = np.array([[3.0, 2.0, 1.0]] * 2)
    labels, specified = np.array([[True, True, False]] * 2), np.array([[True, False, False]] * 2)
    told = recheck.from_files(model, paths, clean, labels, specified, 1)
    assert [one.excluded for one in told] == [False, True] and told[1].kept()
    told = recheck.from_files(model, paths, clean, labels, specified, [1, 2])
    assert [one.excluded for one in told] == [False, False]


def test_other_kinds_of_file_are_refused(tmp_path):
    Image.new("RGB", (4, 4)).save(tmp_path / "lossy.jpg")
    Image.new("RGBA", (4, 4)).save(tmp_path / "alpha.png")
    for name in ("lossy.jpg", "alpha.png"):
        with pytest.raises(ValueError, match=name):
            recheck.read_png(tmp_path / name)
