"""Promises about a run beside a record: what is counted, what is named, what is said."""

import json
from pathlib import Path

import pandas as pd
import pytest

from tkmia_utils.pipeline import compare, compare_report, runner
from tkmia_utils.pipeline.compare import Folder

NUMBERS = pd.DataFrame(
    {
        "scheme": ["S1", "S1", "S2"],
        "cell": ["k=1", "k=1", "k=2, |S|=2"],
        "method": ["tkmia", "kfool", "tkmia"],
        "n": [50, 50, 50],
        "APer": [1.0, 2.0, 3.0],
        "APer low": [0.9, 1.8, 2.5],
        "APer high": [1.1, 2.2, 3.5],
    }
)
VERDICTS = pd.DataFrame(
    {
        "scheme": ["S1", "S1", "S1"],
        "cell": ["k=1", "k=2", "k=1"],
        "n": [50, 50, 50],
        "quantity": ["APer", "APer", "Delta P@k"],
        "rival": ["kfool", "gmla", "gmla"],
        "difference": [-0.2, 0.0, -0.1],
        "low": [-0.3, -0.1, -0.2],
        "high": [-0.1, 0.1, -0.05],
        "verdict": ["first", "tied", "first"],
    }
)
PLAIN = pd.DataFrame({"k": [1, 2, 3], "TkAcc": [0.5, 0.4, 0.3], "said": ["a", "b", "c"]})
READING = pd.DataFrame({"cell": ["a", "b"], "APer": ["0.50 [0.40, 0.60]", "–"]})


def tables():
    named = {"08_numbers_S1": NUMBERS, "08_verdicts": VERDICTS, "04_clean": PLAIN}
    return {name: table.copy() for name, table in {**named, "07_overall": READING}.items()}


def folder(named, **more):
    return Folder(named, more.get("about", {}), more.get("made", {}))


def beside(run, record=None):
    return compare.compare(folder(run), folder(tables() if record is None else record))


def test_equal_tables_are_equal_in_every_number_cell_and_verdict():
    found = beside(tables())
    assert len(found.numbers) == 3 + 3 + 1 and found.numbers["equal"].all()
    assert found.numbers["inside"].all() and found.numbers["overlapping"].all()
    assert set(found.cells["state"]) == {"equal"} and found.notes == ()
    assert len(found.verdicts) == 3
    said = compare_report.sentence(found)
    assert said.startswith("3 of 3 verdicts are as in the record (none changed to behind)")
    assert "7 of 7 numbers (100 %) lie in the record's intervals and 7 are equal" in said


def test_rows_are_matched_by_what_names_them_not_by_order():
    run = {name: table[::-1].reset_index(drop=True) for name, table in tables().items()}
    found = beside(run)
    assert found.numbers["equal"].all() and set(found.cells["state"]) == {"equal"}
    assert found.notes == ()


def test_a_shifted_number_is_inside_overlapping_or_neither():
    run = tables()
    for name in ("APer", "APer low", "APer high"):
        run["08_numbers_S1"][name] += [0.05, 0.3, 5.0]
    numbers = beside(run).numbers.set_index(["table", "row"]).loc["08_numbers_S1"]
    assert numbers["inside"].tolist() == [True, False, False]
    assert numbers["overlapping"].tolist() == [True, True, False]
    assert not numbers["equal"].any()
    (inside, _) = compare_report.by_table(beside(run))
    line = inside.set_index("table").loc["08_numbers_S1"]
    assert (line["numbers"], line["inside"], line["overlapping"]) == (3, 1, 2)
    assert line["largest difference"] == "5 (S2 · k=2, |S|=2 · tkmia · APer)"
    assert "5 of 7 numbers (71 %)" in compare_report.sentence(beside(run))


def test_an_interval_in_a_table_for_reading_is_read():
    run = tables()
    run["07_overall"].loc[0, "APer"] = "0.70 [0.55, 0.80]"
    row = beside(run).numbers.query("table == '07_overall' and row == 'a'").iloc[0]
    assert (row["run"], row["record"], row["low"], row["high"]) == (0.7, 0.5, 0.4, 0.6)
    assert not row["inside"] and row["overlapping"]


def test_cells_without_an_interval_are_equal_close_or_different():
    run = tables()
    run["04_clean"]["TkAcc"] = [0.5, 0.4001, 0.2]
    run["04_clean"].loc[1, "said"] = "z"
    found = beside(run)
    cells = found.cells[found.cells["table"] == "04_clean"]
    assert cells["state"].tolist() == ["equal", "close", "different", "equal", "different", "equal"]
    line = compare_report.by_table(found)[1].set_index("table").loc["04_clean"]
    assert (line["equal"], line["close"], line["different"]) == (3, 1, 2)
    assert line["largest difference"] == "0.1 (3 · TkAcc)"


def test_a_number_that_is_missing_on_one_side_is_neither_inside_nor_equal():
    run = tables()
    run["08_numbers_S1"].loc[0, ["APer", "APer low", "APer high"]] = float("nan")
    run["04_clean"].loc[0, "TkAcc"] = float("nan")
    found = beside(run)
    assert found.numbers["inside"].sum() == len(found.numbers) - 1
    assert found.cells["state"].tolist().count("different") == 1
    assert beside(run, run).numbers["equal"].all()


def test_a_verdict_turned_to_behind_is_named():
    run = tables()
    run["08_verdicts"]["verdict"] = ["behind", "first", "first"]
    found = beside(run)
    said = compare_report.sentence(found)
    assert said.startswith("1 of 3 verdicts are as in the record (changed to behind: S1 · k=1 · ")
    for text in (compare_report.short(found), compare_report.report(found)):
        assert "| S1 · k=1 · APer | behind | first" in text
        assert "| S1 · k=2 · APer | first  | tied" in text


def test_missing_tables_rows_and_columns_are_said():
    run = tables()
    del run["04_clean"]
    run["09_new"] = PLAIN
    run["08_numbers_S1"] = run["08_numbers_S1"].iloc[1:].drop(columns="n")
    run["07_overall"] = run["07_overall"].rename(columns={"APer": "other"})
    found = beside(run)
    assert set(found.notes) == {
        "table only in the run: 09_new",
        "table only in the record: 04_clean",
        "08_numbers_S1: column only in the record: n",
        "08_numbers_S1: row only in the record: S1 · k=1 · tkmia",
        "07_overall: column only in the run: other; other low; other high",
        "07_overall: column only in the record: APer; APer low; APer high",
    }
    assert all(note in compare_report.report(found) for note in found.notes)
    assert len(found.numbers) == 2 + 3
    assert "not all could be compared" in compare_report.sentence(found)
    del run["08_verdicts"]
    assert compare_report.sentence(beside(run)).startswith("There are no verdicts to compare, 2 of")


def test_rows_that_nothing_names_are_matched_by_order():
    table = pd.DataFrame({"x": [0.5, 0.25], "y": ["a", "a"]})
    found = beside({"t": table}, {"t": table[::-1].reset_index(drop=True)})
    assert found.notes[0] == "t: no column names its rows: matched by their order"
    assert found.cells["state"].tolist() == ["different", "different", "equal", "equal"]


def test_tables_that_only_say_the_numbers_again_count_once():
    run = {**tables(), "08_table_S1": READING}
    assert len(beside(run, run).numbers) == len(beside(tables()).numbers)


def test_other_settings_and_both_machines_are_told():
    about = {"machine": {"cpu": "One", "capability": "AVX2"}, "versions": {"torch": "2.0"}}
    made = [{"04_victim": {"n": n, "seed": 0}} for n in (4, 50)]
    found = compare.compare(
        folder(tables(), about=about, made=made[0]), folder(tables(), made=made[1])
    )
    assert found.settings.to_dict("list") == {"what": ["n"], "run": ["4"], "record": ["50"]}
    said = compare_report.sentence(found)
    assert "other settings (n)" in said
    assert said.endswith("this run: One, AVX2, torch 2.0; record: machine not recorded.")


@pytest.mark.parametrize(
    ("some", "shown"), [(0, "0 %"), (1, "1 %"), (999, "99 %"), (1000, "100 %")]
)
def test_a_share_is_whole_only_where_it_is(some, shown):
    assert compare_report._percent(some, 1000) == shown


def written(path, named, *, listed=True):
    path.mkdir(parents=True)
    for name, table in named.items():
        table.to_csv(path / f"{name}.csv", index=False)
    (path / "manifest.json").write_text(json.dumps({}) if listed else "{")
    return path


def told(root, *more):
    return runner.main(["--root", str(root), "--compare", "mine", *more])


def test_the_command_prints_saves_and_says_what_it_cannot_compare(tmp_path, capsys):
    assert told(tmp_path) == 2
    assert "there is no run of mine" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()
    run = written(tmp_path / "runs" / "mine" / "figures", tables())
    assert told(tmp_path) == 2
    assert "there is no table in" in capsys.readouterr().err
    (run / "broken.csv").write_text("")
    other = written(tmp_path / "other", tables())
    assert told(tmp_path, "--with", str(other)) == 0
    said = capsys.readouterr().out
    assert "3 of 3 verdicts" in said and "unreadable in the run: broken" in said
    saved = Path(tmp_path / "runs" / "mine" / "compare.md").read_text()
    assert "3 of 3 verdicts" in saved and r"k=2, \|S\|=2" not in saved
    bad = written(tmp_path / "bad", tables(), listed=False)
    assert told(tmp_path, "--with", str(bad)) == 2
    assert "has no readable manifest" in capsys.readouterr().err


def test_the_committed_record_lies_within_itself():
    record = Path(__file__).parents[2] / "figures" / "quick"
    found = compare.folders(record, record)
    assert found.notes == () and found.numbers["equal"].all() and len(found.verdicts) == 75
