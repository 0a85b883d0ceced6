"""What the paper's text says of its tables, beside what the tables say: claim by claim.

Every verdict is a rule over the numbers, stated with it; nothing is typed in but the quotations.
"""

from collections.abc import Callable, Sequence

import pandas as pd

from tkmia_utils.paper.audit import UNSOUND
from tkmia_utils.paper.tables import CHANGES, METHODS, RIVALS, SETTING, wide, winners, without

FIRST_SCHEME, SECOND_SCHEME = (1, 2, 13, 14, 15), (3, 4, *range(16, 24))
HOLDS, PARTLY, FAILS = "holds", "in part", "does not hold"


def drop_unsound(results: pd.DataFrame, errata: pd.DataFrame) -> pd.DataFrame:
    """Results without the values that a check of :data:`audit.UNSOUND` throws out."""
    bad = errata["how_checked"].map(lambda told: bool(set(told.split("; ")) & set(UNSOUND)))
    return without(results, errata[bad])


def record(lead: pd.DataFrame, tables: Sequence[int], measures: Sequence[str]) -> dict[str, int]:
    """Count TkMIA's verdicts over some tables and measures of :func:`paper.winners`."""
    part = lead[lead["table"].isin(tables) & lead["measure"].isin(measures)]
    return {name: int((part["verdict"] == name).sum()) for name in ("first", "tied", "behind")}


def _words(count: dict[str, int]) -> str:
    return f"first {count['first']}, tied {count['tied']}, behind {count['behind']}"


def _most(count: dict[str, int]) -> str:
    """Holds if TkMIA is first in more than half; in part if first or tied."""
    half = sum(count.values()) / 2
    if count["first"] > half:
        return HOLDS
    return PARTLY if count["first"] + count["tied"] > half else FAILS


def _always(count: dict[str, int]) -> str:
    """Holds if never behind; in part if first in more than half all the same."""
    if not count["behind"]:
        return HOLDS
    return PARTLY if count["first"] > sum(count.values()) / 2 else FAILS


def _admitted(count: dict[str, int]) -> str:
    """Of a claim not to be the best: holds if TkMIA is behind in more than half."""
    return HOLDS if count["behind"] > sum(count.values()) / 2 else FAILS


def growth(results: pd.DataFrame, measure: str, *, datasets: Sequence[str] = ()) -> pd.DataFrame:
    """How a measure changes from one k to the next in S1, one row a type, method and step.

    Returns
    -------
    pandas.DataFrame
        Columns ``table, dataset, type, method, k, next, from, to, n`` (of the larger k), ``rise``.
    """
    rows = wide(results[results["scheme"] == "S1"])
    lines = []
    for (dataset, name, method), part in rows.groupby(["dataset", "type", "method"], sort=False):
        if datasets and dataset not in datasets:
            continue
        part = part.sort_values("k").dropna(subset=measure)
        for (_, old), (_, new) in zip(
            part.iloc[:-1].iterrows(), part.iloc[1:].iterrows(), strict=True
        ):
            lines.append(
                {"table": new["table"], "dataset": dataset, "type": name, "method": method}
                | {"k": old["k"], "next": new["k"], "from": old[measure], "to": new[measure]}
                | {"n": new["n"], "rise": round(new[measure] - old[measure], 4)}
            )
    return pd.DataFrame(lines)


def _kfool(rows: pd.DataFrame, tables: Sequence[int]) -> tuple[str, str]:
    part = rows[rows["table"].isin(tables)].set_index([*SETTING, "method"])
    ours, theirs = (part.xs(name, level="method") for name in ("TkMIA", "kFool"))
    more = (theirs["delta_l"] > ours["delta_l"]).sum()
    norms = (theirs["APer"] / ours["APer"]).dropna()
    text = f"Delta l of kFool larger in {more} of {len(ours)} settings; its APer "
    text += f"{norms.min():.1f} to {norms.max():.0f} times TkMIA's"
    return text, HOLDS if more > len(ours) / 2 and norms.min() > 1 else PARTLY if more else FAILS


def _smaller(rows: pd.DataFrame, tables: Sequence[int]) -> tuple[str, str]:
    part = rows[rows["table"].isin(tables)].set_index([*SETTING, "method"])
    ours, theirs = (part.xs(name, level="method") for name in ("TkMIA", "TkML-AP-U"))
    norm = (theirs["APer"] < ours["APer"]).groupby("dataset").sum()
    change = (theirs["NDCG@k"] > ours["NDCG@k"]).sum()
    text = "APer of TkML-AP-U smaller: " + ", ".join(f"{d} {n}" for d, n in norm.items())
    text += f"; its Delta NDCG larger in {change} of {len(ours)}"
    return text, HOLDS if norm.min() > 0 else PARTLY if norm.sum() else FAILS


def _grows(results: pd.DataFrame) -> tuple[str, str]:
    steps = growth(results, "APer")
    up = (steps["rise"] > 0).groupby(steps["method"]).agg(["sum", "size"]).loc[list(METHODS)]
    table = steps.pivot(index=["dataset", "type", "k"], columns="method", values="rise").dropna()
    least = (table["TkMIA"] < table[list(RIVALS)].min(axis=1)).sum()
    text = "steps in k with rising APer: "
    text += ", ".join(f"{m} {row['sum']}/{row['size']}" for m, row in up.iterrows())
    text += f"; TkMIA's rise is the least in {least} of {len(table)}"
    everywhere = (up.loc[list(RIVALS), "sum"] == up.loc[list(RIVALS), "size"]).all()
    return text, HOLDS if everywhere and least == len(table) else PARTLY


def _traffic(results: pd.DataFrame) -> tuple[str, str]:
    steps = growth(results[results["type"] == "Traffic"], "APer")
    found = steps.groupby("method")["rise"].sum().round(4)
    said = {"ML-CW-U": 0.7295, "kFool": 5.4391, "TkML-AP-U": 0.6772, "TkMIA": 0.0934}
    text = ", ".join(f"{m} {found[m]:.4f}" for m in METHODS)
    return text, HOLDS if all(abs(found[m] - said[m]) < 1e-4 for m in METHODS) else FAILS


def _decreasing(results: pd.DataFrame) -> tuple[str, str]:
    steps = growth(results, "APer", datasets=["VOC"])
    steps = steps[(steps["method"] == "TkMIA") & (steps["type"] != "Person")]
    text, falls = [], []
    for name, part in steps.groupby("type", sort=False):
        values = [part["from"].iloc[0], *part["to"]]
        text.append(
            f"{name} " + ", ".join(f"{v:.2f}" for v in values) + f" (n = {part['n'].iloc[-1]})"
        )
        falls.append((part["rise"] < 0).all())
    return "k = 1, 2, 3: " + "; ".join(text), HOLDS if all(falls) else FAILS


def _falls_with_k(results: pd.DataFrame) -> tuple[str, str]:
    steps = pd.concat([growth(results, name) for name in CHANGES])
    share = (steps["rise"] < 0).groupby(steps["method"]).mean().loc[list(METHODS)]
    text = "steps in k with a smaller change: " + ", ".join(
        f"{m} {x:.0%}" for m, x in share.items()
    )
    return text, HOLDS if share.min() > 0.5 else PARTLY if share.max() > 0.5 else FAILS


def _unseen(results: pd.DataFrame) -> tuple[str, str]:
    rows = wide(results)
    rows = rows[rows["method"] == "TkMIA"]
    parts = []
    for scheme, part in rows.groupby("scheme"):
        spans = (f"{name} {part[name].median():.2f}" for name in ("TkAcc", "NDCG@k"))
        parts.append(f"{scheme}: median Delta {', '.join(spans)}")
    none = (rows[["TkAcc", "NDCG@k"]].abs().max(axis=1) < 0.05).sum()
    text = "; ".join(parts) + f"; both below 0.05 in {none} of {len(rows)} settings"
    return text, HOLDS if none == len(rows) else PARTLY if none else FAILS


def check_claims(results: pd.DataFrame, errata: pd.DataFrame) -> pd.DataFrame:
    """Ask the tables about each claim, as printed and without the values that cannot stand.

    Parameters
    ----------
    results, errata : pandas.DataFrame
        From :func:`tkmia_utils.paper.tables.load`.

    Returns
    -------
    pandas.DataFrame
        Columns ``where, claim`` (quoted), ``tables, printed`` (what the tables say), ``audited``
        (the same after :func:`drop_unsound`) and ``verdict`` (after the audit): "holds", "in part"
        or "does not hold".
    """
    c1, c2 = FIRST_SCHEME, SECOND_SCHEME
    voc_coco, nus = (16, 17, 3, 18, 19, 20), (4, 21, 22, 23)

    clean = drop_unsound(results, errata)
    leads = {id(table): winners(table) for table in (results, clean)}

    def compare(
        tables: Sequence[int], measures: Sequence[str], rule: Callable[[dict[str, int]], str]
    ) -> Callable[[pd.DataFrame], tuple[str, str]]:
        def ask(table: pd.DataFrame) -> tuple[str, str]:
            count = record(leads[id(table)], tables, measures)
            return _words(count), rule(count)

        return ask

    cost = ("delta_l", "APer")
    asked = [
        (
            "Abstract",
            "superiority of our proposed method",
            "all",
            compare(c1 + c2, (*CHANGES, *cost), _most),
        ),
        (
            "Sec. 5.2",
            "In most cases, TkMIA outperforms other comparison methods",
            "1, 2",
            compare((1, 2), (*CHANGES, *cost), _most),
        ),
        (
            "Sec. 5.2",
            "a smaller change in each metric while perturbing more specified categories in S",
            "1, 2",
            compare((1, 2), (*CHANGES, "delta_l"), _always),
        ),
        (
            "Sec. 5.2",
            "TkMIA could achieve both visual and measure imperceptibility",
            "all",
            _unseen,
        ),
        (
            "Sec. 5.2",
            "our perturbation performs better than other baselines [in the measures]",
            "3, 4",
            compare((3, 4), CHANGES, _always),
        ),
        (
            "Sec. 5.2",
            "kFool perturbs more labels while paying a huge effort",
            "3, 4",
            lambda t: _kfool(wide(t), (3, 4)),
        ),
        (
            "Sec. 5.2",
            (
                "TkML-AP-U generates a relatively smaller perturbation but only obtains the "
                "sub-optimal metric change results"
            ),
            "3, 4",
            lambda t: _smaller(wide(t), (3, 4)),
        ),
        (
            "C.1",
            "our method completely outperforms the other comparison methods",
            "13-15",
            compare((13, 14, 15), (*CHANGES, *cost), _always),
        ),
        ("C.1", "we obtain a larger Delta l", "13-15", compare((13, 14, 15), ("delta_l",), _most)),
        (
            "C.1",
            (
                "all methods generate larger perturbations with increasing the k value while the "
                "increase in our average perturbation norm is smaller"
            ),
            "1, 2, 13-15",
            _grows,
        ),
        (
            "C.1",
            (
                "[Traffic, k from 2 to 5:] increase 0.7295, 5.4391, and 0.6772, respectively. Our "
                "TkMIA only produces 0.0934"
            ),
            "14",
            _traffic,
        ),
        (
            "C.1",
            (
                "For some types (Vehicles, Animals, Household types of VOC), its APer even "
                "produces a decreasing trend"
            ),
            "15",
            _decreasing,
        ),
        (
            "C.1",
            "most changes in measures for all methods get smaller as the k value increases",
            "1, 2, 13-15",
            _falls_with_k,
        ),
        (
            "C.2",
            "From the results on VOC and COCO, we could more intuitively find the superiority",
            "3, 16-20",
            compare(voc_coco, (*CHANGES, *cost), _most),
        ),
        (
            "C.2",
            "on NUS ... the Delta l and APer values of our perturbation are not the best",
            "4, 21-23",
            compare(nus, cost, _admitted),
        ),
        (
            "C.2",
            (
                "kFool usually presents a better average attack effectiveness while generating an "
                "obvious perturbation"
            ),
            "4, 21-23",
            lambda t: _kfool(wide(t), nus),
        ),
    ]
    lines = []
    for where, quote, tables, ask in asked:
        (printed, _), (audited, verdict) = ask(results), ask(clean)
        lines.append((where, quote, tables, printed, audited, verdict))
    return pd.DataFrame(
        lines, columns=["where", "claim", "tables", "printed", "audited", "verdict"]
    )
