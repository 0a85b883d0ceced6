"""What the paper claims about its tables, compared with what the tables say.

:data:`CLAIMS` lists the claims; every verdict is computed from the numbers by the rule next to the
quotation.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pandas as pd

from tkmia_utils.paper.audit import UNSOUND
from tkmia_utils.paper.tables import (
    CHANGES,
    MEASURES,
    METHODS,
    RIVALS,
    SETTING,
    wide,
    winners,
    without,
)

HOLDS, PARTLY, FAILS = "holds", "in part", "does not hold"
Answer = tuple[str, str]  # what the tables say in words, and the verdict


@dataclass(frozen=True)
class Tables:
    """Some of the paper's tables: their results, and who leads in them (:func:`paper.winners`)."""

    results: pd.DataFrame
    lead: pd.DataFrame

    def some(self, names: str) -> "Tables":
        """Those named, e.g. "3, 16-20"; or "all"."""
        if names == "all":
            return self
        spans = [part.split("-") for part in names.split(", ")]
        numbers = [n for span in spans for n in range(int(span[0]), int(span[-1]) + 1)]
        return Tables(*(t[t["table"].isin(numbers)] for t in (self.results, self.lead)))


Check = Callable[[Tables], Answer]


def drop_unsound(results: pd.DataFrame, errata: pd.DataFrame) -> pd.DataFrame:
    """Results without the values that a check of :data:`audit.UNSOUND` throws out."""
    bad = errata["how_checked"].map(lambda checks: bool(set(checks.split("; ")) & set(UNSOUND)))
    return without(results, errata[bad])


def record(lead: pd.DataFrame, measures: Sequence[str]) -> dict[str, int]:
    """Count TkMIA's verdicts over some measures of :func:`paper.winners`."""
    part = lead[lead["measure"].isin(measures)]
    return {name: int((part["verdict"] == name).sum()) for name in ("first", "tied", "behind")}


def _counted(measures: Sequence[str], rule: Callable[[dict[str, int]], str]) -> Check:
    """A check that counts where TkMIA is first, tied and behind."""

    def check(tables: Tables) -> Answer:
        count = record(tables.lead, measures)
        text = f"first {count['first']}, tied {count['tied']}, behind {count['behind']}"
        return text, rule(count)

    return check


def _most(count: dict[str, int]) -> str:
    """Holds if TkMIA is first in more than half; in part if first or tied."""
    half = sum(count.values()) / 2
    if count["first"] > half:
        return HOLDS
    return PARTLY if count["first"] + count["tied"] > half else FAILS


def _always(count: dict[str, int]) -> str:
    """Holds if never behind; in part if first in more than half."""
    if not count["behind"]:
        return HOLDS
    return PARTLY if count["first"] > sum(count.values()) / 2 else FAILS


def _admitted(count: dict[str, int]) -> str:
    """For a claim not to be the best: holds if TkMIA is behind in more than half."""
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


def _kfool(tables: Tables) -> Answer:
    part = wide(tables.results).set_index([*SETTING, "method"])
    ours, theirs = (part.xs(name, level="method") for name in ("TkMIA", "kFool"))
    more = (theirs["delta_l"] > ours["delta_l"]).sum()
    norms = (theirs["APer"] / ours["APer"]).dropna()
    text = f"Delta l of kFool larger in {more} of {len(ours)} settings; its APer "
    text += f"{norms.min():.1f} to {norms.max():.0f} times TkMIA's"
    return text, HOLDS if more > len(ours) / 2 and norms.min() > 1 else PARTLY if more else FAILS


def _smaller(tables: Tables) -> Answer:
    part = wide(tables.results).set_index([*SETTING, "method"])
    ours, theirs = (part.xs(name, level="method") for name in ("TkMIA", "TkML-AP-U"))
    norm = (theirs["APer"] < ours["APer"]).groupby("dataset").sum()
    change = (theirs["NDCG@k"] > ours["NDCG@k"]).sum()
    text = "APer of TkML-AP-U smaller: " + ", ".join(f"{d} {n}" for d, n in norm.items())
    text += f"; its Delta NDCG larger in {change} of {len(ours)}"
    return text, HOLDS if norm.min() > 0 else PARTLY if norm.sum() else FAILS


def _grows(tables: Tables) -> Answer:
    steps = growth(tables.results, "APer")
    up = (steps["rise"] > 0).groupby(steps["method"]).agg(["sum", "size"]).loc[list(METHODS)]
    table = steps.pivot(index=["dataset", "type", "k"], columns="method", values="rise").dropna()
    least = (table["TkMIA"] < table[list(RIVALS)].min(axis=1)).sum()
    text = "steps in k with rising APer: "
    text += ", ".join(f"{m} {row['sum']}/{row['size']}" for m, row in up.iterrows())
    text += f"; TkMIA's rise is the least in {least} of {len(table)}"
    everywhere = (up.loc[list(RIVALS), "sum"] == up.loc[list(RIVALS), "size"]).all()
    return text, HOLDS if everywhere and least == len(table) else PARTLY


def _traffic(tables: Tables) -> Answer:
    steps = growth(tables.results[tables.results["type"] == "Traffic"], "APer")
    found = steps.groupby("method")["rise"].sum().round(4)
    printed = {"ML-CW-U": 0.7295, "kFool": 5.4391, "TkML-AP-U": 0.6772, "TkMIA": 0.0934}
    text = ", ".join(f"{m} {found[m]:.4f}" for m in METHODS)
    return text, HOLDS if all(abs(found[m] - printed[m]) < 1e-4 for m in METHODS) else FAILS


def _decreasing(tables: Tables) -> Answer:
    steps = growth(tables.results, "APer", datasets=["VOC"])
    steps = steps[(steps["method"] == "TkMIA") & (steps["type"] != "Person")]
    text, falls = [], []
    for name, part in steps.groupby("type", sort=False):
        values = [part["from"].iloc[0], *part["to"]]
        text.append(
            f"{name} " + ", ".join(f"{v:.2f}" for v in values) + f" (n = {part['n'].iloc[-1]})"
        )
        falls.append((part["rise"] < 0).all())
    return "k = 1, 2, 3: " + "; ".join(text), HOLDS if all(falls) else FAILS


def _falls_with_k(tables: Tables) -> Answer:
    steps = pd.concat([growth(tables.results, name) for name in CHANGES])
    share = (steps["rise"] < 0).groupby(steps["method"]).mean().loc[list(METHODS)]
    text = "steps in k with a smaller change: " + ", ".join(
        f"{m} {x:.0%}" for m, x in share.items()
    )
    return text, HOLDS if share.min() > 0.5 else PARTLY if share.max() > 0.5 else FAILS


def _unseen(tables: Tables) -> Answer:
    rows = wide(tables.results)
    rows = rows[rows["method"] == "TkMIA"]
    parts = []
    for scheme, part in rows.groupby("scheme"):
        spans = (f"{name} {part[name].median():.2f}" for name in ("TkAcc", "NDCG@k"))
        parts.append(f"{scheme}: median Delta {', '.join(spans)}")
    none = (rows[["TkAcc", "NDCG@k"]].abs().max(axis=1) < 0.05).sum()
    text = "; ".join(parts) + f"; both below 0.05 in {none} of {len(rows)} settings"
    return text, HOLDS if none == len(rows) else PARTLY if none else FAILS


@dataclass(frozen=True)
class Claim:
    """A sentence of the paper and the check that answers it.

    Attributes
    ----------
    where : str
        Section.
    quote : str
        Its words.
    tables : str
        The tables it speaks of, e.g. "3, 16-20", or "all".
    check : callable
        Given these tables: what they say in words, and the verdict.
    """

    where: str
    quote: str
    tables: str
    check: Check


CLAIMS = (
    Claim("Abstract", "superiority of our proposed method", "all", _counted(MEASURES, _most)),
    Claim(
        "Sec. 5.2",
        "In most cases, TkMIA outperforms other comparison methods",
        "1, 2",
        _counted(MEASURES, _most),
    ),
    Claim(
        "Sec. 5.2",
        "a smaller change in each metric while perturbing more specified categories in S",
        "1, 2",
        _counted((*CHANGES, "delta_l"), _always),
    ),
    Claim(
        "Sec. 5.2",
        "TkMIA could achieve both visual and measure imperceptibility",
        "all",
        _unseen,
    ),
    Claim(
        "Sec. 5.2",
        "our perturbation performs better than other baselines [in the measures]",
        "3, 4",
        _counted(CHANGES, _always),
    ),
    Claim(
        "Sec. 5.2",
        "kFool perturbs more labels while paying a huge effort",
        "3, 4",
        _kfool,
    ),
    Claim(
        "Sec. 5.2",
        "TkML-AP-U generates a relatively smaller perturbation but only obtains the sub-optimal "
        "metric change results",
        "3, 4",
        _smaller,
    ),
    Claim(
        "C.1",
        "our method completely outperforms the other comparison methods",
        "13-15",
        _counted(MEASURES, _always),
    ),
    Claim("C.1", "we obtain a larger Delta l", "13-15", _counted(("delta_l",), _most)),
    Claim(
        "C.1",
        "all methods generate larger perturbations with increasing the k value while the increase "
        "in our average perturbation norm is smaller",
        "1, 2, 13-15",
        _grows,
    ),
    Claim(
        "C.1",
        "[Traffic, k from 2 to 5:] increase 0.7295, 5.4391, and 0.6772, respectively. Our TkMIA "
        "only produces 0.0934",
        "14",
        _traffic,
    ),
    Claim(
        "C.1",
        "For some types (Vehicles, Animals, Household types of VOC), its APer even produces a "
        "decreasing trend",
        "15",
        _decreasing,
    ),
    Claim(
        "C.1",
        "most changes in measures for all methods get smaller as the k value increases",
        "1, 2, 13-15",
        _falls_with_k,
    ),
    Claim(
        "C.2",
        "From the results on VOC and COCO, we could more intuitively find the superiority",
        "3, 16-20",
        _counted(MEASURES, _most),
    ),
    Claim(
        "C.2",
        "on NUS ... the Delta l and APer values of our perturbation are not the best",
        "4, 21-23",
        _counted(("delta_l", "APer"), _admitted),
    ),
    Claim(
        "C.2",
        "kFool usually presents a better average attack effectiveness while generating an obvious "
        "perturbation",
        "4, 21-23",
        _kfool,
    ),
)


def check_claims(results: pd.DataFrame, errata: pd.DataFrame) -> pd.DataFrame:
    """Ask the tables about each of :data:`CLAIMS`, as printed and without the unsound values.

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
    clean = drop_unsound(results, errata)
    both = [Tables(table, winners(table)) for table in (results, clean)]
    lines = []
    for claim in CLAIMS:
        (printed, _), (audited, verdict) = (claim.check(t.some(claim.tables)) for t in both)
        lines.append((claim.where, claim.quote, claim.tables, printed, audited, verdict))
    return pd.DataFrame(
        lines, columns=["where", "claim", "tables", "printed", "audited", "verdict"]
    )
