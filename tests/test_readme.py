"""The README's numbers are those of the committed tables."""

from pathlib import Path

import pandas as pd
import pytest

from tkmia_utils.pipeline.profile import load_profile, resolve

ROOT = Path(__file__).parents[1]
RECORD = ROOT / "figures" / "quick"
PHOTOS = ROOT / "figures" / "photos"
NAMES = {
    "tkmia": "TkMIA, the paper's attack",
    "tkml_ap_u": "TkML-AP-U",
    "ml_cw_u": "ML-CW-U",
    "kfool": "kFool",
    "gmla": "GMLA",
    "tkmia_min": "**tkmia_min**, ours",
}


def readme() -> str:
    return " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())


def promise_table(record: Path = RECORD) -> list[str]:
    """The first screen's table, from a committed one: shares, and the norm beside TkMIA's."""
    table = pd.read_csv(record / "10_all.csv")
    shares = ["success", "no measure fell", "survives PNG", "PNG and no measure fell"]
    lines = [
        "| method | hidden | hidden, none lower | in the PNG | in the PNG, none lower | norm |"
    ]
    lines.append("|---|---|---|---|---|---|")
    for _, row in table.iterrows():
        cells = [f"{float(row[name].split()[0]):.2f}" for name in shares]
        lines.append(f"| {NAMES[row['method']]} | {' | '.join(cells)} | {float(row['norm']):.2f} |")
    return lines


def test_the_first_screens_table_is_what_the_record_says():
    table = pd.read_csv(RECORD / "10_all.csv").set_index("method")
    attacks = pd.read_csv(RECORD / "07_promise.csv").set_index("method")
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    wanted = "\n".join(promise_table())
    assert wanted in text, f"the README should say:\n{wanted}"
    assert set(table["n"]) == set(attacks["n"]) and f"{table['n'].iloc[0]} attacks" in readme()
    for method in attacks.index:  # the same attacks, from two notebooks
        for name in ("no measure fell", "survives PNG"):
            assert float(table.loc[method, name].split()[0]) == pytest.approx(
                attacks.loc[method, name], abs=0.006
            )


def test_the_table_of_real_photos_is_what_their_record_says():
    wanted = "\n".join(promise_table(PHOTOS))
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert wanted in text, f"the README should say:\n{wanted}"
    attacks = pd.read_csv(PHOTOS / "10_all.csv")["n"]
    assert attacks.nunique() == 1 and f"{attacks.iloc[0]} attacks on real photos" in readme()
    table = pd.read_csv(PHOTOS / "10_all.csv").set_index("method")
    assert set(table.index[table["norm"] < 1]) == {"tkml_ap_u", "kfool", "gmla", "tkmia_min"}
    assert "TkML-AP-U, kFool and GMLA need a smaller norm than TkMIA where both succeed" in readme()
    kept = table["PNG and no measure fell"].str.split().str[0].astype(float)
    assert kept["tkml_ap_u"] >= kept["tkmia"] and "in the PNG its lead is gone" in readme()
    quality = pd.read_csv(PHOTOS / "04_quality.csv").iloc[0]
    assert f"class mAP {quality['class mAP']:.2f} there" in readme()


def test_no_photo_and_no_path_is_in_the_record_of_the_photos():
    kept = sorted(path for path in PHOTOS.iterdir())
    assert {path.suffix for path in kept} <= {".csv", ".md", ".json"} and len(kept) > 10
    for path in kept:
        text = path.read_text(encoding="utf-8")
        for part in (".jpg", '.png"', "/home", "/work", "shared/samples"):
            assert part not in text, (path, part)


def test_the_image_first_shown_loses_its_label_and_keeps_its_measures():
    table = pd.read_csv(RECORD / "05_two_images.csv")
    first = table[table["image"] == table["image"].iloc[0]]
    assert set(first["kind"]) == {"every measure stays"}
    assert (first["before"] == first["after"]).all()
    assert "the four measures above the list are what they were" in readme()


def test_the_first_line_holds_in_the_record():
    """Blind while the measures move little, and on many images not at all."""
    assert "move little, and on many images not at all" in readme()
    overall = pd.read_csv(RECORD / "07_overall.csv")
    last = overall[overall["cell"] == overall["cell"].iloc[-1]].set_index("method")
    fall, success = (
        last[name].str.split().str[0].astype(float) for name in ("Delta P@k", "success")
    )
    kept = pd.read_csv(RECORD / "07_promise.csv").set_index("method")["no measure fell"]
    assert success["tkmia"] > 0.9 and kept["tkmia"] > 0.5 and fall.idxmin() == "tkmia"


@pytest.mark.parametrize(("profile", "limit"), [("quick", 100), ("photos", None), ("full", 500)])
def test_the_sizes_in_the_table_of_profiles_are_those_of_the_profiles(profile, limit):
    given = resolve(load_profile(profile), ROOT, {})["06_attack_many_images"]
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    (line,) = [s for s in lines if s.startswith("|") and f"`{profile}`" in s.split("|")[1]]
    assert f"{given['n']} images a cell" in line
    if limit is not None:
        assert max(given["limits"]) == limit and f"{limit} iterations" in line


def test_what_the_readme_says_of_other_victims_is_what_the_record_says():
    table = pd.read_csv(RECORD / "15_between.csv").set_index("method")
    text = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    ends = {name: [f"{table.loc[name, end]:.2f}" for end in ("lowest", "highest")]
            for name in ("tkmia", "tkmia_min")}  # fmt: skip
    said = "the second column of TkMIA goes from {} to {} and that of tkmia_min from {} to {};"
    assert said.format(*ends["tkmia"], *ends["tkmia_min"]) in text
    attacks = pd.read_parquet(ROOT / "data" / "victims" / "attacks.parquet")
    norms = attacks[attacks["success"].astype(bool) & (attacks["l2"] > 0)].pivot_table(
        index=["victim", "cell", "image"], columns="method", values="l2"
    )
    ratio = (norms["tkmia_min"] / norms["tkmia"]).groupby("victim").median()
    smaller = {name for name in ratio.index if ratio[name] < 1}
    assert smaller == {name for name in ratio.index if name.startswith("small")}
    assert "below TkMIA's on the five small nets and above it on the ShuffleNets" in text
    victims = (
        pd.read_csv(RECORD / "15_quality.csv")
        .groupby("net")
        .agg({"class_map": ["size", "max", "min"]})
    )
    sizes = victims["class_map"]["size"]
    assert (sizes["small"], sizes["shufflenet"]) == (5, 3) and "On eight, five small nets" in text
    best = victims["class_map"]["max"]["shufflenet"]
    assert best < victims["class_map"]["min"]["small"]
