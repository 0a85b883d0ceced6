"""The README's numbers are those of the committed tables."""

from pathlib import Path

import pandas as pd
import pytest

from tkmia_utils.pipeline.profile import load_profile, resolve

ROOT = Path(__file__).parents[1]
RECORD = ROOT / "figures" / "quick"
NAMES = {"tkml_ap_u": "TkML-AP-U", "ml_cw_u": "ML-CW-U", "kfool": "kFool", "gmla": "GMLA"}


def readme() -> str:
    return " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())


def test_the_first_screens_sentence_is_what_the_tables_say():
    overall = pd.read_csv(RECORD / "07_overall.csv")
    last = overall[overall["cell"] == overall["cell"].iloc[-1]].set_index("method")
    unmoved = pd.read_csv(RECORD / "07_unmoved.csv").set_index("method")["no measure moved"]
    mean = {
        column: last[column].str.split().str[0].astype(float) for column in ("success", "Delta P@k")
    }
    fall = mean["Delta P@k"]
    others = ", ".join(f"{name} {fall[key]:.2f}" for key, name in NAMES.items())
    sentence = (
        f"Over the {last.loc['tkmia', 'n']} attacks of the quick profile TkMIA hides what it "
        f"should in {mean['success']['tkmia']:.0%}; no measure moves in {unmoved['tkmia']:.0%} of "
        f"these, and P@k falls by {fall['tkmia']:.2f} on average ({others})"
    )
    assert sentence in readme(), f"the README should say: {sentence}"


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
    unmoved = pd.read_csv(RECORD / "07_unmoved.csv").set_index("method")["no measure moved"]
    assert success["tkmia"] > 0.9 and unmoved["tkmia"] > 0.5 and fall.idxmin() == "tkmia"


@pytest.mark.parametrize(("profile", "limit"), [("quick", 100), ("photos", None), ("full", 500)])
def test_the_sizes_in_the_table_of_profiles_are_those_of_the_profiles(profile, limit):
    given = resolve(load_profile(profile), ROOT, {})["06_attack_many_images"]
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    (line,) = [s for s in lines if s.startswith("|") and f"`{profile}`" in s.split("|")[1]]
    assert f"{given['n']} images a cell" in line
    if limit is not None:
        assert max(given["limits"]) == limit and f"{limit} iterations" in line
