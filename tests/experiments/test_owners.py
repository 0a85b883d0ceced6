"""Promises of the owner's side over victims: places can be counted, and sentences can fail."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from tkmia_utils.data import MultiLabelDataset
from tkmia_utils.experiments import defence, owners, replication
from tkmia_utils.victims.store import Victim

SIDE, CLASSES = 16, tuple("abcdefgh")
TYPES = {"first": ("a", "b"), "last": ("h",)}
ASKED = owners.Owner(
    k=2, n=3, max_iter=20, calibration=30, hardening={"epochs": 1, "steps": 1, "batch": 16}
)


@pytest.fixture(scope="module")
def found():
    """The owner's side of a small victim of noise."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(4), nn.Flatten(),
            nn.Linear(128, len(CLASSES)),
        ).eval()  # fmt: skip
        for parameter in model.parameters():
            parameter.data *= 3
        pixels = torch.randint(0, 256, (80, 3, SIDE, SIDE), dtype=torch.uint8)
    logits = model(pixels / 255).detach()
    labels = torch.zeros_like(logits, dtype=torch.bool).scatter_(1, logits.topk(5).indices, True)
    val = MultiLabelDataset(
        name="toy", split="val", classes=CLASSES, labels=labels, card="toy", size=SIDE,
        ids=tuple(f"i{n}" for n in range(80)), load=pixels.__getitem__,
    )  # fmt: skip
    lab = SimpleNamespace(val=val, train=val, cache=None, device="cpu")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(owners.datasets, "types_of", lambda _: TYPES)
        return owners.owners_side(Victim(model, [], "toy", CLASSES), lab, ASKED)


def test_every_image_has_one_row_a_method(found):
    assert not found.duplicated(["cell", "image", "method"]).any()
    sizes = found.groupby("method").size()
    assert set(sizes.index) == {
        "tkmia", "tkmia_min", "plain", "hardened", "JPEG 75, unaware", "JPEG 75, adaptive",
        "PNG, unaware", "PNG, adaptive",
    }  # fmt: skip
    assert sizes.nunique() == 1 and sizes.iloc[0] > 4


def test_a_place_is_the_share_of_clean_images_as_suspicious_or_more(found):
    least = 1 / (1 + ASKED.calibration)
    for watch in owners.WATCHES:
        place = found[f"place {watch}"].dropna()
        assert len(place) and place.between(least, 1).all()
        assert np.allclose(place / least, (place / least).round())
        assert found.loc[place.index, "method"].isin(["tkmia", "tkmia_min"]).all()


def test_who_knows_the_compression_keeps_at_least_as_much(found):
    kept = found.groupby("method")["kept"].mean()
    assert kept["JPEG 75, adaptive"] >= kept["JPEG 75, unaware"]
    norms = found.set_index("method")["norm"].drop(["tkmia", "tkmia_min"]).dropna()
    assert (norms > 0).all() and (norms <= defence.NEVER).all()


def told(better: bool) -> pd.DataFrame:
    """Rows in which every sentence is true, or none."""
    rng, lines = np.random.default_rng(0), []
    for victim, image in np.ndindex(4, 30):
        row = {"victim": f"v{victim}", "cell": "c", "image": f"{image}"}
        seen, other = (0.01, 0.5) if better else (0.9, 0.01)
        for run in ("tkmia", "tkmia_min"):
            lines.append(row | {"method": run, "place second look": seen, "place NDCG@k": other})
        more, less = 2 + rng.random(), 1 + 0.1 * rng.random()
        high, low = (more, less) if better else (less, more)
        for method, norm, kept in (
            ("JPEG 75, unaware", 1.0, not better), ("JPEG 75, adaptive", high, better),
            ("PNG, adaptive", low, True), ("hardened", high, np.nan), ("plain", low, np.nan),
        ):  # fmt: skip
            lines.append(row | {"method": method, "norm": norm, "kept": float(kept)})
    return pd.DataFrame(lines)


@pytest.mark.parametrize("better", [True, False])
def test_the_sentences_of_notebooks_12_and_13_can_be_true_and_false(better):
    said = owners.statements({"tkmia_min": "TkMIA-min"})
    assert len({one.said for one in said}) == len(said) and {one.notebook for one in said} == {
        "12",
        "13",
    }
    nets = {f"v{i}": "net" for i in range(4)}
    verdicts = replication.judged(told(better), said, nets=nets, resamples=100)["verdict"]
    assert set(verdicts) == {replication.HOLDS if better else replication.REVERSED}
