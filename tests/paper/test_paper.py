"""The paper's tables as data: transcription, schema, checks, errata, and ours beside them."""

import itertools
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from tkmia_utils import measures, paper
from tkmia_utils.paper import audit, claims, comparison, polytope
from tkmia_utils.paper import figures as paper_figures

ROOT = Path(__file__).parents[2]
SECOND = ROOT / "tests" / "paper" / "paper_second.csv"
# settings of each results table, as its layout has them: types x ks, or pairs (k, |S|)
SETTINGS = {
    **{1: 3, 2: 3, 3: 3, 4: 3, 13: 9, 14: 9, 15: 12, 16: 2, 17: 2},
    **{18: 8, 19: 5, 20: 5, 21: 6, 22: 3, 23: 3},
}


@pytest.fixture(scope="module")
def results() -> pd.DataFrame:
    return paper.load("results", ROOT)


@pytest.fixture(scope="module")
def samples() -> pd.DataFrame:
    return paper.load("samples", ROOT)


@pytest.fixture(scope="module")
def errata() -> pd.DataFrame:
    return paper.load("errata", ROOT)


@pytest.fixture(scope="module")
def failures(results, samples) -> pd.DataFrame:
    return audit.failures(results, samples)


def text(name: str) -> pd.DataFrame:
    return pd.read_csv(ROOT / "data" / "paper" / f"{name}.csv", dtype=str, keep_default_na=False)


# --- transcription ---------------------------------------------------------------------------


def test_every_table_has_every_method_and_measure_of_every_setting(results):
    whole = len(paper.METHODS) * len(paper.MEASURES)
    counts = results.groupby("table").size()
    assert counts.to_dict() == {table: n * whole for table, n in SETTINGS.items()}
    per_setting = results.groupby(paper.SETTING, dropna=False).size()
    assert (per_setting == whole).all()


def test_every_missing_cell_is_accounted_for(results):
    lost = results[results["value"].isna()]
    assert lost["note"].str.match(r"ocr: \S").all()
    assert set(lost["table"]) <= {20, 23} and len(lost) < 0.01 * len(results)


def test_the_other_tables_are_there_too(samples):
    assert samples.groupby("table").size().to_dict() == {9: 12, 10: 12, 11: 12, 12: 16}
    assert len(paper.load("victims", ROOT)) == 3
    types = paper.load("types", ROOT)
    assert types.groupby("table").size().to_dict() == {6: 20, 7: 27, 8: 50}
    assert set(types["type"]) >= set(samples["type"]) - {""}


def test_sizes_beside_the_results_are_those_of_the_sample_tables(results, samples):
    keys = ["dataset", "scheme", "type", "k", "s"]
    said = samples.assign(s=samples["s"].where(samples["scheme"] == "S2", -1.0))
    have = results.assign(s=results["s"].astype(float).fillna(-1.0))
    both = have.merge(said[[*keys, "n"]], on=keys, how="left", suffixes=("", " said"))
    assert (both["n"].fillna(-1) == both["n said"].fillna(-1)).all()


def test_a_second_transcription_agrees_cell_by_cell():
    second = pd.read_csv(SECOND, dtype=str, keep_default_na=False)
    sizes, values = second[second["method"] == ""], second[second["method"] != ""]
    assert set(second["table"].astype(int)) == {1, 2, 9, 10, 12, 14, 15, 18, 21}
    keys = ["table", "dataset", "type", "k", "s"]
    first = text("results")
    first = first[first["table"].isin(values["table"])]
    keyed = [*keys, "method", "measure"]
    both = first.merge(values, on=keyed, how="outer", suffixes=("", " 2"), indicator=True)
    assert (both["_merge"] == "both").all()
    # left empty by the second as damaged, read all the same by the first, which says how
    told = (both["note 2"] == "ocr") & both["note"].str.startswith("read")
    assert (both.loc[told, "value 2"] == "").all() and told.sum() == 5
    assert (both.loc[~told, "value"] == both.loc[~told, "value 2"]).all()
    first = text("samples")
    first = first[first["table"].isin(sizes["table"])]
    both = first.merge(sizes, on=keys, how="outer", indicator=True)
    assert (both["_merge"] == "both").all() and (both["n"] == both["value"]).all()


def test_differences_the_text_prints_can_be_added_up_again(results):
    steps = claims.growth(results[results["type"] == "Traffic"], "APer")
    rise = steps.groupby("method")["rise"].sum().round(4).to_dict()
    said = {"ML-CW-U": 0.7295, "kFool": 5.4391, "TkML-AP-U": 0.6772, "TkMIA": 0.0934}
    assert rise == said


def test_who_leads_is_who_has_the_best_number(results):
    lead = paper.winners(results).fillna({"s": -1, "delta": -1})
    table = (
        paper.wide(results)
        .fillna({"s": -1, "delta": -1})
        .set_index([*paper.SETTING, "method"])
        .sort_index()
    )
    for _, row in lead.iterrows():
        sign = 1 if row["measure"] == "delta_l" else -1
        line = sign * table.loc[tuple(row[paper.SETTING]), row["measure"]]
        ahead = line["TkMIA"] - max(line[name] for name in paper.RIVALS)
        assert row["lead"] == pytest.approx(ahead)
        expected = "tied" if abs(ahead) < 1.5e-4 else "first" if ahead > 0 else "behind"
        assert row["verdict"] == expected
        assert line[row["rival"]] == max(line[name] for name in paper.RIVALS)
    assert set(lead["verdict"]) == {"first", "tied", "behind"}


# --- schema ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("value", "0.5x", "value: expected a number, got '0.5x'"),
        ("value", "inf", "value: expected a number"),
        ("value", "", "a note that begins with ocr"),
        ("note", "ocr: gone", "value: expected nothing"),
        ("method", "TkMIA(Ours)", "method: expected one of"),
        ("measure", "F1", "measure: expected one of"),
        ("k", "2.5", "k: expected a whole number"),
        ("k", "", "k: expected a number"),
        ("n", "0", "n: expected a whole number >= 1"),
        ("n", "", "n: expected a number"),
        ("type", "", "type: expected a type in S1 alone"),
    ],
)
def test_a_bad_line_is_refused_by_line_and_column(column, value, message):
    bad = text("results")
    bad.loc[3, column] = value
    with pytest.raises(ValueError, match="line 5") as error:
        paper.check(bad, "results", where="x.csv")
    assert "x.csv" in str(error.value) and message in str(error.value)


def test_a_cell_that_stands_twice_is_refused():
    twice = text("results")
    with pytest.raises(ValueError, match="no second row"):
        paper.check(pd.concat([twice, twice.iloc[[7]]], ignore_index=True), "results")


def test_other_columns_and_other_names_are_refused(tmp_path):
    with pytest.raises(ValueError, match="columns"):
        paper.check(text("results").drop(columns="note"), "results")
    with pytest.raises(ValueError, match="name"):
        paper.load("figures", ROOT)
    (tmp_path / "data" / "paper").mkdir(parents=True)
    with pytest.raises(ValueError, match="there is no"):
        paper.load("results", tmp_path)


def test_the_tables_are_found_from_a_workspace_that_has_none(tmp_path):
    assert paper.folder(tmp_path) == paper.folder() == paper.folder(ROOT).resolve()


def test_the_fingerprint_follows_the_files(tmp_path):
    folder = tmp_path / "data" / "paper"
    folder.mkdir(parents=True)
    for name in paper.SCHEMAS:
        source = ROOT / "data" / "paper" / f"{name}.csv"
        (folder / source.name).write_bytes(source.read_bytes())
    before = paper.fingerprint(tmp_path)
    assert before == paper.fingerprint(ROOT)
    (folder / "errata.csv").write_text("table\n")
    assert paper.fingerprint(tmp_path) != before


# --- checks ----------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [7, 63, 213, 1000])
def test_every_true_mean_fits_its_n_rounded_or_cut(n):
    mean = np.arange(n + 1) / n
    assert audit.fits(np.round(mean, 4), n).all()
    assert audit.fits(np.floor(mean * 1e4) / 1e4, n).all()
    assert audit.fits(-np.round(mean, 4), n).all()


def test_power_is_the_share_of_wrong_numbers_that_pass():
    for n in (11, 60, 700):
        by_hand = 0
        for value in range(10_000):
            whole = [m for m in range(n + 1) if -5e-5 <= m / n - value / 1e4 + 1e-9]
            by_hand += any(m / n - value / 1e4 <= 1e-4 + 1e-9 for m in whole[:1])
        assert audit.power(n) == pytest.approx(by_hand / 10_000, abs=2e-4)
    assert audit.power(2) < audit.power(100) < audit.power(5000) == 1


@pytest.mark.parametrize("k", [1, 2, 3, 5])
def test_the_patterns_are_the_measures_of_this_package(k):
    labels = torch.zeros(2**k, 2 * k + 3, dtype=torch.bool)
    labels[:, k:] = True  # more than k relevant labels outside the list
    for row, hits in enumerate(itertools.product([False, True], repeat=k)):
        labels[row, :k] = torch.tensor(hits)
    scores = -torch.arange(2.0 * k + 3).expand(2**k, -1)
    ours = [
        measures.topk_accuracy(scores, labels, k),
        measures.precision_at_k(scores, labels, k),
        measures.average_precision_at_k(scores, labels, k),
        measures.ndcg_at_k(scores, labels, k),
    ]
    expected = torch.stack([column.double() for column in ours], dim=1).numpy()
    np.testing.assert_allclose(polytope.patterns(k), expected, atol=1e-6)


@pytest.mark.parametrize("k", [1, 2, 3, 5])
def test_what_real_lists_give_is_possible_and_what_they_cannot_is_not(k):
    rng = np.random.default_rng(k)
    points = polytope.patterns(k)
    clean = rng.integers(len(points), size=40)
    changes = np.stack(
        [(points[clean] - points[rng.integers(len(points), size=40)]).mean(0) for _ in range(3)]
    )
    assert polytope.violation(np.round(changes, 4), k) == 0
    changes[1, 3] += 0.9 if k == 1 else 0.5
    assert polytope.violation(np.round(changes, 4), k) > 0.01
    changes[1, 3] = np.nan
    assert polytope.violation(np.round(changes, 4), k) == 0


def planted(results: pd.DataFrame, table: int, cell: str, value: float) -> pd.DataFrame:
    at = (results["table"] == table) & (results.apply(paper.cell, axis=1) == cell)
    assert at.sum() == 1
    return results.assign(value=results["value"].mask(at, value))


@pytest.mark.parametrize(
    ("check", "table", "cell", "value"),
    [
        ("counts", 15, "Animals, k=2, TkMIA, TkAcc", 0.1666),
        ("ranges", 15, "Animals, k=2, TkMIA, delta_l", 1.2),
        ("ranges", 18, "k=3, |S|=3, TkMIA, P@k", 1.2166),
        ("equal_at_one", 15, "Person, k=1, TkMIA", None),
        ("lists", 15, "Vehicles, k=2, TkMIA", None),
        ("repeats", 1, "Person, k=5, kFool", None),
        ("falling", 19, "k=3, |S|=2, TkML-AP-U, APer", 1.2),
    ],
)
def test_a_planted_error_is_found_where_it_was_planted(
    results, samples, failures, check, table, cell, value
):
    already = failures[(failures["check"] == check) & (failures["table"] == str(table))]
    assert cell not in set(already["cell"])
    if value is None:  # an error between the numbers of a row
        names = {"equal_at_one": "NDCG@k", "lists": "NDCG@k", "repeats": "TkAcc"}
        values = {"equal_at_one": 0.1282, "lists": 0.1595, "repeats": 0.2514}
        bad = planted(results, table, f"{cell}, {names[check]}", values[check])
    else:
        bad = planted(results, table, cell, value)
    found = audit.CHECKS[check](bad, samples)
    assert cell in set(found.loc[found["table"] == str(table), "cell"])


def test_a_wrong_sample_size_is_found_and_the_right_one_named(results, samples):
    at = (samples["dataset"] == "NUS") & (samples["type"] == "Landscape") & (samples["k"] == 5)
    wrong = samples.assign(n=samples["n"].mask(at, samples["n"] + 4))
    found = audit.sample_sizes(results, wrong)
    line = found[found["cell"] == "Landscape, k=5"]
    assert line["likely"].tolist() == [int(samples.loc[at, "n"].iloc[0])]


def test_rows_that_changed_places_are_strangers(results):
    """Two settings of Table 22 swapped for one method: both resemble the other's earlier row."""
    later = results.copy()
    one, other = (
        (results["table"] == 22) & (results["s"] == s) & (results["k"] == 3)
        & (results["method"] == "kFool")
        for s in (2, 3)
    )  # fmt: skip
    later.loc[one, "value"], later.loc[other, "value"] = (
        results.loc[other, "value"].to_numpy(),
        results.loc[one, "value"].to_numpy(),
    )
    found = set(audit.swapped_rows(later)["cell"]) - set(audit.swapped_rows(results)["cell"])
    assert {"k=3, |S|=2, kFool", "k=3, |S|=3, kFool"} == found


def test_tables_without_errors_pass_every_check(samples):
    """Means of random lists, printed with four digits: no check may find anything impossible."""
    rng = np.random.default_rng(0)
    lines = []
    for name, k, n in (("Animals", 2, 45), ("Household", 2, 28), ("Person", 3, 59)):
        points = polytope.patterns(k)
        clean = rng.integers(len(points), size=n)
        for method in paper.METHODS:
            attacked = rng.integers(len(points), size=n)
            values = [*(points[clean] - points[attacked]).mean(0), rng.integers(n + 1) / n, 1.5]
            for measure, value in zip(paper.MEASURES, values, strict=True):
                front = ("15", "VOC", "S1", name, str(k), "", "", "300", method, measure)
                lines.append([*front, f"{value:.4f}", str(n), ""])
    made = pd.DataFrame(lines, columns=list(paper.SCHEMAS["results"]))
    made = paper.check(made, "results")
    few = samples[(samples["table"] == 9)]
    found = audit.failures(made, few)
    assert found[found["verdict"] == "impossible"].empty, found.to_string()


# --- errata ----------------------------------------------------------------------------------


def same(one: str, other: str) -> bool:
    return one == other or one.startswith(f"{other}, ") or other.startswith(f"{one}, ")


def matches(erratum: pd.Series, failure: pd.Series) -> bool:
    told = failure["check"] in erratum["how_checked"].split("; ")
    return told and erratum["table"] == failure["table"] and same(erratum["cell"], failure["cell"])


def test_every_failure_of_a_check_stands_in_the_errata(errata, failures):
    for _, failure in failures.iterrows():
        assert any(matches(row, failure) for _, row in errata.iterrows()), failure.to_dict()


def test_every_erratum_that_names_a_check_is_found_by_it(errata, failures, results):
    behind = paper.winners(results)
    behind = behind[behind["verdict"] == "behind"].assign(method="TkMIA")
    behind = {(str(r["table"]), paper.cell(r)) for _, r in behind.iterrows()}
    for _, row in errata.iterrows():
        ways = row["how_checked"].split("; ")
        for way in ways:
            if way in audit.CHECKS:
                mine = failures[failures["check"] == way]
                assert any(matches(row, failure) for _, failure in mine.iterrows()), dict(row)
            elif way == "winners":
                assert (row["table"], row["cell"]) in behind
            else:
                assert way in ("by reading", "notebook 09 computes it"), way


def test_the_errata_known_before_are_found_by_the_checks_themselves(failures):
    found = set(zip(failures["check"], failures["table"], failures["cell"], strict=True))
    for known in [
        ("sample_sizes", "9", "Animals, k=1"),
        ("sample_sizes", "10", "Daily necessities, k=5"),
        ("orphans", "12", "k=3, |S|=3"),
        ("ranges", "16", "k=3, |S|=2, TkML-AP-U, TkAcc"),
        ("lists", "16", "k=3, |S|=2, TkML-AP-U"),
        ("counts", "18", "k=10, |S|=2, TkML-AP-U, TkAcc"),
        ("repeats", "18", "k=10, |S|=2, TkML-AP-U"),
        ("ranges", "19", "k=10, |S|=2, TkMIA, delta_l"),
        ("strangers", "19", "k=10, |S|=2, TkMIA"),
        ("strangers", "19", "k=10, |S|=3, TkMIA"),
        ("counts", "14", "Traffic, k=3, ML-CW-U, TkAcc"),
        ("counts", "14", "Animals, k=3, TkML-AP-U, TkAcc"),
    ]:
        assert known in found


def test_likely_readings_pass_the_checks_that_the_printed_ones_fail():
    rotated = np.array([[0.0909, 0.0909, 0.1666, 0.1493]])
    assert polytope.violation(rotated, 3) == 0 and audit.fits([0.0909, 1.4545], 11).all()
    assert audit.fits([0.3450, 2.0710], 1000).all() and audit.fits([0.4514, 2.0145], 206).all()
    assert audit.fits(0.1087, 206 * 5) and not audit.fits(0.1087, 21 * 10)


def test_the_numbers_of_the_errata_are_those_of_the_checks(errata, results, failures):
    line = errata[errata["cell"] == "Eq. (9)"].iloc[0]
    count = len(audit.lists(results, precision="P@k"))
    assert f"{count} of the {len(paper.wide(results))} rows are impossible" in line["why"]
    assert f"with P@i {(failures['check'] == 'lists').sum()}" in line["why"]


def test_the_readme_counts_what_there_is(results, samples, errata):
    told = (ROOT / "data" / "paper" / "README.md").read_text()
    second = pd.read_csv(SECOND, dtype=str, keep_default_na=False)
    for name, count in (
        ("results", len(results)),
        ("samples", len(samples)),
        ("types", len(paper.load("types", ROOT))),
        ("errata", len(errata)),
    ):
        (line,) = [x for x in told.splitlines() if x.startswith(f"| `{name}.csv`")]
        assert line.endswith(f"| {count:,} |")
    values, sizes = (
        int(x) for x in ((second["method"] != "").sum(), (second["method"] == "").sum())
    )
    assert f"{values} results and {sizes} sample sizes" in " ".join(told.split())
    read, lost = results["note"].str.startswith("read").sum(), results["value"].isna().sum()
    assert f"{read + lost} cells lie in damaged places: {read} could be read" in told


# --- claims ----------------------------------------------------------------------------------


def test_every_claim_gets_a_verdict_that_follows_the_numbers(results, errata):
    verdicts = claims.check_claims(results, errata)
    assert set(verdicts["verdict"]) <= {claims.HOLDS, claims.PARTLY, claims.FAILS}
    assert (verdicts["audited"] != "").all()
    worse = results["method"].eq("TkMIA") & results["measure"].ne("delta_l")
    bad = results.assign(value=results["value"].mask(worse, results["value"].abs() * 50 + 50))
    turned = claims.check_claims(bad, errata).set_index("claim")["verdict"]
    assert turned["superiority of our proposed method"] == claims.FAILS
    assert turned["our method completely outperforms the other comparison methods"] == claims.FAILS


def test_the_audit_sets_aside_only_what_a_check_throws_out(results, errata):
    sound = claims.drop_unsound(results, errata)
    gone = results["value"].notna() & sound["value"].isna()
    names = set(results[gone].apply(paper.cell, axis=1).str.rsplit(", ", n=1).str[0])
    assert "k=10, |S|=2, TkMIA" in names and "Vehicles, k=1, kFool" not in names
    assert gone.sum() < 0.05 * len(results)


# --- ours beside theirs ----------------------------------------------------------------------


def saved(dataset: str = "emoji", n: int = 60) -> pd.DataFrame:
    """Made-up results: TkMIA moves half as much as the others and needs half the norm."""
    rng = np.random.default_rng(1)
    frames = []
    for method in (*paper.NAMES, "gmla"):
        scale = 0.5 if method == "tkmia" else 1.0
        for scheme, kind, k, s, delta in (("S1", "Animals", 2, 1, 1), ("S2", "", 3, 2, 2)):
            rows = {
                "dataset": dataset, "scheme": scheme, "type": kind, "k": k, "s": s,
                "delta": delta, "method": method, "image": [f"i{j}" for j in range(n)],
                "success": rng.random(n) < 0.8, "l2_paper": scale * (1 + 0.1 * rng.random(n)),
                "l2": 1.0, "iterations": 3, "delta_l": 1.0,
                "cell": "Animals, k=2" if kind else "k=3, |S|=2",
            }  # fmt: skip
            for name in ("TkAcc", "P@k", "AP@k", "NDCG@k"):
                rows[f"Delta {name}"] = scale * (0.5 + 0.1 * rng.random(n))
            frames += [pd.DataFrame(rows).assign(max_iter=limit) for limit in (50, 100)]
    return pd.concat(frames, ignore_index=True)


def test_a_ratio_is_that_of_the_means_over_the_right_rows():
    rows = comparison.with_paper_names(saved())
    rows = rows[(rows["max_iter"] == 100) & (rows["scheme"] == "S1")]
    for quantity, column, won in (("APer", "l2_paper", True), ("mAP@k", "Delta AP@k", False)):
        kept = rows[rows["success"]] if won else rows
        means = kept.groupby("method")[column].mean()
        got = comparison.ratio(rows, quantity, "kFool", resamples=200)
        assert got["ratio"] == pytest.approx(means["TkMIA"] / means["kFool"])
        assert got["low"] < got["ratio"] < got["high"] and got["n"] == 60


def test_an_interval_does_not_shrink_when_an_image_stands_twice():
    rows = comparison.with_paper_names(saved())
    rows = rows[(rows["max_iter"] == 100) & (rows["scheme"] == "S1")]
    once = comparison.ratio(rows, "P@k", "kFool", resamples=300)
    twice = comparison.ratio(pd.concat([rows, rows]), "P@k", "kFool", resamples=300)
    assert twice["high"] - twice["low"] == pytest.approx(once["high"] - once["low"])


def test_every_table_has_its_counterpart_of_the_same_scheme(results):
    table = comparison.ratios(results, saved(), differs="emoji", resamples=50)
    assert set(table["table"]) == set(SETTINGS)
    assert set(table["order"]) <= {"same", "other", "open", "unknown"}
    assert table["differs"].str.startswith("emoji; limit 100").all()
    assert (table["high"] < 1).all()
    wrong = (table["order"] == "other") != (table["theirs"] > 1)
    assert not wrong[table["theirs"].notna()].any()


def test_settings_are_matched_by_type_and_k_or_by_k_s_and_delta(results):
    pairs = comparison.matched(results, saved(), resamples=20)
    first = pairs[pairs["scheme"] == "S1"]
    assert first[["table", "type", "k"]].to_numpy().tolist() == [[15, "Animals", 2]]
    second = pairs[pairs["scheme"] == "S2"]
    assert {(k, s, d) for k, s, d in second[["k", "s", "delta"]].to_numpy()} == {(3, 2, 2)}
    by_hand = paper.wide(results).query("table == 15 and type == 'Animals' and k == 2")
    norms = by_hand.set_index("method")["APer"]
    assert first["theirs"].iloc[0] == pytest.approx(norms["TkMIA"] / norms["TkML-AP-U"])


def test_absolute_values_stand_side_by_side_on_the_papers_data_alone(results):
    with pytest.raises(ValueError, match="absolute"):
        comparison.absolute(results, saved("emoji"))
    table = comparison.absolute(results, saved("voc"), differs="small", resamples=20)
    assert set(table["dataset"]) == {"VOC"} and set(table["table"]) == {15, 16, 17}
    assert set(table["method"]) == set(paper.METHODS)
    limits = table.set_index("max_iter")["differs"]
    assert limits[100].str.contains("limit 100 in both").all()
    assert limits[300].str.contains("limit 100, theirs 300").all()


def test_results_without_tkmia_are_refused():
    rows = saved()
    with pytest.raises(ValueError, match="tkmia"):
        comparison.with_paper_names(rows[rows["method"] != "tkmia"])


# --- figures ---------------------------------------------------------------------------------


def test_the_figures_show_every_setting_and_method(results):
    lead = paper.winners(results)
    fig = paper_figures.leads(lead)
    shown = sum(len(c.get_offsets()) for ax in fig.axes for c in ax.collections)
    assert shown == len(lead)
    fig = paper_figures.norm_by_k(results)
    lines = paper.wide(results).query("scheme == 'S1'")
    assert (
        sum(len(ax.get_lines()) for ax in fig.axes)
        == lines.groupby(["dataset", "type", "method"]).ngroups
    )
    flags = results["table"].eq(16) & results["method"].eq("kFool")
    fig = paper_figures.change_by_norm(results, flags)
    assert sum(len(c.get_offsets()) for ax in fig.axes for c in ax.collections) == 2
    table = comparison.ratios(results, saved(), resamples=20)
    assert len(paper_figures.beside(table[table["quantity"] == "APer"]).axes) == len(paper.RIVALS)
