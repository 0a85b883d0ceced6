"""Promises of the replication: intervals that know victims, and verdicts that can go either way."""

import numpy as np
import pandas as pd
import pytest
from test_protocol import CLASSES, TYPES, world  # noqa: F401  (a fixture)

from tkmia_utils.experiments import replication
from tkmia_utils.experiments.replication import Statement, by_image, hierarchical, judged
from tkmia_utils.victims.store import Victim


def drawn(rng, victims, images, *, between, within, mean=0.0):
    own = mean + between * rng.standard_normal(victims)
    return [list((v + within * rng.standard_normal(images))[:, None]) for v in own]


@pytest.mark.parametrize("statistic", [np.mean, np.median])
def test_the_interval_covers_what_victims_and_images_vary(statistic):
    """Of many studies about 95 % cover the truth; the images of one victim alone cover far less."""
    rng, hits, alone = np.random.default_rng(0), 0, 0
    for study in range(60):
        groups = drawn(rng, 12, 40, between=0.5, within=1.0, mean=3.0)
        for own in (groups, groups[:1]):
            low, high = np.percentile(
                hierarchical(own, statistic=statistic, resamples=300, seed=study), [2.5, 97.5]
            )
            hits, alone = (hits + (low < 3 < high), alone) if len(own) > 1 else (
                hits, alone + (low < 3 < high),
            )  # fmt: skip
    assert hits >= 0.85 * 60 and alone <= 0.7 * 60


def test_without_spread_between_victims_it_is_the_bootstrap_over_images():
    rng = np.random.default_rng(1)
    values = rng.standard_normal(50)
    one = [list(values[:, None])]
    spread = hierarchical(one, statistic=np.mean, resamples=4000, seed=0).std()
    assert spread == pytest.approx(values.std() / np.sqrt(50), rel=0.1)
    four = hierarchical(one * 4, statistic=np.mean, resamples=4000, seed=0).std()
    assert four == pytest.approx(spread / 2, rel=0.1)


def test_the_rows_of_one_image_are_drawn_together():
    values = np.random.default_rng(2).standard_normal(30)
    once = hierarchical([list(values[:, None])], statistic=np.mean, resamples=3000, seed=0)
    often = hierarchical(
        [[np.full(5, v) for v in values]], statistic=np.mean, resamples=3000, seed=0
    )
    assert often.std() == pytest.approx(once.std(), rel=0.1)


def table(gains, n=40):
    """Norms of two methods on n images; in victim v the second is `gains[v]` longer."""
    rng, lines = np.random.default_rng(3), []
    for victim, gain in enumerate(gains):
        for image in range(n):
            norm = 1 + 0.1 * rng.random()
            for method, l2 in (("a", norm), ("b", norm + gain)):
                lines.append({"victim": f"v{victim}", "cell": "c", "image": f"{image}",
                              "method": method, "success": True, "l2": l2})  # fmt: skip
    return pd.DataFrame(lines)


@pytest.mark.parametrize(
    ("gains", "verdict", "votes"),
    [
        ((0.2, 0.3, 0.2, 0.3, 0.25), replication.HOLDS, 5),
        ((0.4, 0.4, 0.5, 0.4, -0.02), replication.MEAN, 4),
        ((0.4, -0.4, 0.3, -0.3, 0.1), replication.OPEN, 3),
        ((-0.2, -0.3, -0.2, -0.3, -0.2), replication.REVERSED, 0),
    ],
)
@pytest.mark.parametrize("statistic", [np.mean, np.median])
def test_a_verdict_follows_the_interval_and_every_victim(gains, verdict, votes, statistic):
    shorter = Statement(
        "a is shorter", "08", lambda w: w["l2", "b"] - w["l2", "a"], statistic=statistic
    )
    (line,) = judged(
        table(gains), [shorter], nets={f"v{i}": "net" for i in range(5)}, resamples=500
    ).to_dict("records")
    assert (line["verdict"], line["for"], line["victims"]) == (verdict, votes, 5)
    assert line["value"] == pytest.approx(np.mean(gains)) and line["low"] < line["high"]


def test_the_value_of_every_net_is_told():
    nets = {"v0": "a", "v1": "b", "v2": "b"}
    shorter = Statement("a is shorter", "08", lambda w: w["l2", "b"] - w["l2", "a"])
    (line,) = judged(table((0.2, 0.5, 0.7)), [shorter], nets=nets, resamples=5).to_dict("records")
    assert (line["a"], line["b"]) == (pytest.approx(0.2), pytest.approx(0.6))


def test_the_spread_of_victims_is_told_from_that_of_seeds_and_images():
    rng, lines = np.random.default_rng(4), []
    for net, mean in (("a", 0.2), ("b", 0.8)):
        for seed in range(40):
            value = mean + 0.05 * rng.standard_normal()
            lines.append({"victim": f"{net} {seed}", "method": "m", "q": value,
                          "q low": value - 0.0196, "q high": value + 0.0196})  # fmt: skip
    shares = pd.DataFrame(lines)
    nets = {name: name[0] for name in shares["victim"]}
    (line,) = replication.spreads(shares, nets, "q").to_dict("records")
    assert line["images"] == pytest.approx(0.01) and line["same net"] == pytest.approx(
        0.05, rel=0.2
    )
    assert line["all"] == pytest.approx(0.3, rel=0.1)
    assert (line["lowest"], line["highest"]) == (shares["q"].min(), shares["q"].max())


def test_rows_of_which_a_sentence_says_nothing_do_not_count():
    rows = table((0.2, 0.2))
    rows.loc[(rows["victim"] == "v1") & (rows["image"] != "0"), "l2"] = np.nan
    groups = by_image(replication.wide(rows)["l2", "a"], ["v1", "v0", "v7"])
    assert {victim: len(images) for victim, images in groups.items()} == {"v1": 1, "v0": 40}
    silent = Statement("no row says it", "08", lambda w: w["l2", "a"] * np.nan)
    (line,) = judged(rows, [silent], nets={"v0": "a", "v1": "b"}, resamples=3).to_dict("records")
    assert line["verdict"] == replication.OPEN and line["victims"] == 0 and np.isnan(line["value"])
    with pytest.raises(ValueError, match=r"^groups: "):
        hierarchical([], statistic=np.mean, resamples=3, seed=0)


def test_one_victim_is_attacked_in_several_ways(world, tmp_path, monkeypatch):  # noqa: F811
    model, data, _ = world
    monkeypatch.setattr(replication.datasets, "types_of", lambda _: TYPES)
    victim = Victim(model, [], "toy", CLASSES)
    runs = {
        "tkmia": {"method": "tkmia", "max_iter": 40, "lr": 1e-2},
        "strict": {"method": "tkmia_min", "max_iter": 10, "stop": "imperceptible", "bits": 8},
    }
    call = dict(ks=[1, 2], pairs=[(2, 2)], n=4, seed=0, folder=tmp_path)
    rows = replication.attacked(victim, data, runs, **call)
    assert list(rows.columns) == list(replication.KEPT)
    sizes = rows.groupby("method").size()
    assert sizes["tkmia"] == sizes["strict"] > 4
    strict = rows[rows["method"] == "strict"]
    won = strict[strict["success"].astype(bool)]
    assert len(won) and won[replication.BOTH].all()
    assert replication.attacked(victim, data, runs, **call).equals(rows)


def test_the_sentences_of_the_notebooks_can_be_true_and_false():
    rng, lines = np.random.default_rng(0), []
    methods = ["tkmia", *replication.RIVALS, replication.OURS]
    for victim, image in np.ndindex(3, 30):
        for method in methods:
            better = {"tkmia": 1, replication.OURS: 2}.get(method, 0)
            lines.append({
                "victim": victim, "cell": "c", "image": f"{image}", "method": method,
                "success": rng.random() < 0.6 + 0.4 * bool(better), "l2": 3 - better,
                replication.UNSEEN: rng.random() < 0.3 + 0.4 * bool(better),
                replication.SURVIVES: better == 2, replication.BOTH: better == 2, "iterations": 1,
            })  # fmt: skip
    rows = pd.DataFrame(lines)
    said, nets = replication.statements({"kfool": "kFool"}), {0: "a", 1: "b", 2: "b"}
    assert any("kFool" in one.said for one in said) and len({one.said for one in said}) == len(said)
    assert set(judged(rows, said, nets=nets, resamples=200)["verdict"]) == {replication.HOLDS}
    swapped = rows.assign(method=rows["method"].map(
        dict(zip(methods, ["gmla", "tkmia", "tkmia_min", "kfool", "ml_cw_u", "tkml_ap_u"],
                 strict=True))))  # fmt: skip
    verdicts = judged(swapped, said, nets=nets, resamples=200)["verdict"]
    assert replication.REVERSED in set(verdicts) and (verdicts != replication.HOLDS).any()
