"""The same experiment on several victims: which statements hold over victims, not images alone.

An interval over the images of one victim says nothing of another victim: another seed, another
architecture or another processor's rounding trains other weights. Here the same attacks are run on
several victims, and a statement is judged by a hierarchical bootstrap: victims are drawn with
replacement, and of each the images.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tkmia_utils import data as datasets
from tkmia_utils.data import MultiLabelDataset
from tkmia_utils.engine.outcome import BOTH, SURVIVES, UNSEEN
from tkmia_utils.experiments import campaign, protocol
from tkmia_utils.experiments.campaign import Campaign
from tkmia_utils.experiments.intervals import Statistic
from tkmia_utils.experiments.lab import Lab
from tkmia_utils.victims.prediction import evaluate, predict
from tkmia_utils.victims.recipes import recipe
from tkmia_utils.victims.store import Victim, load_or_train

KEPT = ("method", "cell", "image", "success", UNSEEN, SURVIVES, BOTH, "l2", "iterations")
ROW = ["victim", "cell", "image"]
FOUND = ("value", "low", "high", "one low", "one high", "lowest", "highest")
HOLDS, MEAN, OPEN, REVERSED = "holds", "holds on average", "not shown", "the reverse holds"


def attacked(
    victim: Victim,
    val: MultiLabelDataset,
    runs: Mapping[str, Mapping[str, Any]],
    *,
    ks: Sequence[int],
    pairs: Sequence[Sequence[int]],
    n: int,
    seed: int,
    folder: str | Path,
) -> pd.DataFrame:
    """Attack one victim in several ways, on images chosen by its own clean logits.

    Parameters
    ----------
    victim, val
        Who is attacked, and the held-out images.
    runs : mapping of str to mapping
        By name: ``method``, ``max_iter`` and further settings of :class:`Campaign`.
    ks, pairs, n, seed
        The cells of the paper's tables, as in notebook 06.
    folder : str or Path
        For the files of the shards: a killed run goes on.

    Returns
    -------
    pandas.DataFrame
        One row an attack: the columns :data:`KEPT`, with the run's name for the method.
    """
    types = datasets.types_of(val)
    logits = predict(victim.model, val)
    cells = protocol.list_cells(list(types), ks, pairs)
    queue = protocol.build_queue(cells, val, logits, types, n=n, seed=seed)
    frames = []
    for name, own in runs.items():
        settings = {key: own[key] for key in own if key not in ("method", "max_iter")}
        rows = campaign.run(
            Campaign(
                victim, queue, val, own["method"], folder=folder, limits=[own["max_iter"]],
                settings=settings,
            )
        )  # fmt: skip
        frames.append(rows.assign(method=name)[list(KEPT)])
    return pd.concat(frames, ignore_index=True)


@dataclass(frozen=True)
class Statement:
    """A sentence about attacks that more than one victim should bear out.

    Attributes
    ----------
    said : str
        The sentence.
    notebook : str
        Where it stands.
    value : callable
        From a table with a column for every method (see :func:`wide`) to one number a row, NaN
        where the sentence says nothing of it; larger speaks for the sentence.
    least : float
        The sentence holds where the statistic is above that.
    statistic : callable
        Of the rows of a victim: the mean, or the median.
    """

    said: str
    notebook: str
    value: Callable[[pd.DataFrame], pd.Series]
    least: float = 0.0
    statistic: Statistic = np.mean


def wide(rows: pd.DataFrame) -> pd.DataFrame:
    """One row an attacked image of a victim; columns (quantity, method)."""
    table = rows.set_index([*ROW, "method"]).unstack("method")
    return table.astype({c: float for c in table.columns}).sort_index()


def judged(
    rows: pd.DataFrame,
    statements: Sequence[Statement],
    *,
    nets: Mapping[str, str],
    resamples: int = 2000,
    seed: int = 0,
) -> pd.DataFrame:
    """Judge statements over victims.

    Parameters
    ----------
    rows : pandas.DataFrame
        :func:`attacked` of every victim, with a column ``victim``.
    statements : sequence of Statement
        What is said.
    nets : mapping of str to str
        Victim to architecture.
    resamples, seed : int
        Of the bootstrap.

    Returns
    -------
    pandas.DataFrame
        A line a statement: ``statement, notebook, value, low, high`` (over victims and images),
        ``one low, one high`` (over the images of the first victim, what an interval of one victim
        would have said), ``lowest, highest`` (of the victims' own values), the mean of these for
        every net, ``least`` (what the value is to exceed), ``victims`` (how many there are),
        ``for`` (of how many the own value is above it) and the ``verdict``: "holds" if the
        interval lies above it and so does every victim's own value, "holds on average" if the
        interval does, "the reverse holds" if the interval lies below, else "not shown".
    """
    table, lines, order = wide(rows), [], list(rows["victim"].unique())
    for statement in statements:
        values = statement.value(table)
        seen = by_image(values, order)
        groups = list(seen.values())
        if not groups:  # a run so small that it says nothing of this
            lines.append(
                {"statement": statement.said, "notebook": statement.notebook,
                 **dict.fromkeys((*FOUND, *dict.fromkeys(nets.values())), np.nan),
                 "least": statement.least, "victims": 0, "for": 0, "verdict": OPEN}
            )  # fmt: skip
            continue
        drawn = {"statistic": statement.statistic, "resamples": resamples, "seed": seed}
        draws, first = hierarchical(groups, **drawn), hierarchical(groups[:1], **drawn)
        own = [float(statement.statistic(np.concatenate(images))) for images in groups]
        low, high = np.percentile(draws, [2.5, 97.5])
        above = [value > statement.least for value in own]
        verdict = OPEN
        if low > statement.least:
            verdict = HOLDS if all(above) else MEAN
        elif high < statement.least:
            verdict = REVERSED
        lines.append(
            {"statement": statement.said, "notebook": statement.notebook,
             "value": float(np.mean(own)), "low": low, "high": high,
             **dict(zip(("one low", "one high"), np.percentile(first, [2.5, 97.5]), strict=True)),
             "lowest": min(own), "highest": max(own),
             **_by_net(dict(zip(seen, own, strict=True)), nets),
             "least": statement.least, "victims": len(groups), "for": sum(above),
             "verdict": verdict}
        )  # fmt: skip
    return pd.DataFrame(lines)


def by_image(values: pd.Series, order: Sequence[str]) -> dict[str, list[np.ndarray]]:
    """Values of the victims that have some, in that order; the rows of an image are together."""
    parts = dict(iter(values.dropna().groupby(level="victim")))
    return {
        victim: [v.to_numpy() for _, v in parts[victim].groupby(level="image")]
        for victim in order
        if victim in parts
    }


def _by_net(own: Mapping[str, float], nets: Mapping[str, str]) -> dict[str, float]:
    """Mean of the victims' own values, for every net; NaN for one without a victim."""
    found = pd.Series(own).groupby(nets).mean()
    return {net: float(found.get(net, np.nan)) for net in dict.fromkeys(nets.values())}


def hierarchical(
    groups: Sequence[Sequence[np.ndarray]], *, statistic: Statistic, resamples: int, seed: int
) -> np.ndarray:
    """Resampled means over victims of a statistic over the rows of each.

    Victims are drawn with replacement, and for each draw its images anew; so the spread holds that
    between victims and that between images.

    Parameters
    ----------
    groups : sequence of sequences of numpy.ndarray
        Of every victim, of every image, the values of its rows.
    statistic : callable
        From an array to a number.
    resamples, seed : int
        Of the bootstrap.

    Returns
    -------
    numpy.ndarray
        float64 ``(resamples,)``.
    """
    if not groups:
        raise ValueError("groups: expected at least one victim with a value")
    rng = np.random.default_rng([seed, len(groups)])
    chosen = rng.integers(0, len(groups), (resamples, len(groups)))
    found = np.empty(chosen.shape)
    for victim, images in enumerate(groups):
        places = np.argwhere(chosen == victim)
        counts = rng.multinomial(len(images), np.full(len(images), 1 / len(images)), len(places))
        rows, sizes = np.concatenate(images), [len(image) for image in images]
        owner = np.repeat(np.arange(len(images)), sizes)
        if statistic is np.mean:  # the same as below, in one product
            own = (counts[:, owner] @ rows) / (counts @ sizes)
        else:
            own = [statistic(np.repeat(rows, count[owner])) for count in counts]
        found[tuple(places.T)] = own
    return found.mean(1)


RIVALS = ("tkml_ap_u", "ml_cw_u", "kfool", "gmla")
OURS = "tkmia_min"


def statements(names: Mapping[str, str]) -> list[Statement]:
    """What notebooks 08 to 11 say of the methods, as sentences that victims can contradict.

    Parameters
    ----------
    names : mapping of str to str
        What the methods are called in words.

    Returns
    -------
    list of Statement
    """
    said = []
    for rival in RIVALS:
        name = names.get(rival, rival)
        said += [
            Statement(
                f"TkMIA hides the labels on more images than {name}", "08",
                _more("success", "tkmia", rival),
            ),
            Statement(
                f"TkMIA hides them and leaves every measure on more images than {name}", "08",
                _more(UNSEEN, "tkmia", rival),
            ),
            Statement(
                f"where both hide them, TkMIA's norm is smaller than {name}'s", "08",
                _shorter("tkmia", rival), statistic=np.median,
            ),
        ]  # fmt: skip
    said += [
        Statement("of TkMIA's successes more than a quarter are lost in the saved PNG", "10",
                  _lost("tkmia"), least=0.25),
        Statement("TkMIA-min keeps the whole promise in the PNG on more than 95 % of images", "10",
                  lambda w: w[BOTH, OURS], least=0.95),
        Statement("TkMIA-min's norm is smaller than TkMIA's, though it promises more", "11",
                  _shorter(OURS, "tkmia"), statistic=np.median),
    ]  # fmt: skip
    return said


def _more(quantity: str, one: str, other: str) -> Callable[[pd.DataFrame], pd.Series]:
    return lambda w: w[quantity, one] - w[quantity, other]


def log_ratio(one: pd.Series, other: pd.Series) -> pd.Series:
    """``log(one / other)``, of norms that are both known and above 0."""
    both = (one > 0) & (other > 0)
    return np.log((one / other).where(both))


def _shorter(one: str, other: str) -> Callable[[pd.DataFrame], pd.Series]:
    """Log ratio of norms, where both succeed and have moved."""

    def value(w: pd.DataFrame) -> pd.Series:
        won = w["success", one] * w["success", other] > 0
        return log_ratio(w["l2", other], w["l2", one]).where(won)

    return value


def _lost(method: str) -> Callable[[pd.DataFrame], pd.Series]:
    """Of a method's successes, whether the file loses them."""
    return lambda w: (1 - w[SURVIVES, method]).where(w["success", method] > 0)


def spreads(shares: pd.DataFrame, nets: Mapping[str, str], quantity: str) -> pd.DataFrame:
    """How far victims differ, beside how far samples of images do.

    Parameters
    ----------
    shares : pandas.DataFrame
        :func:`tkmia_utils.experiments.intervals.summarise` by victim and method.
    nets : mapping of str to str
        Victim to architecture.
    quantity : str
        The column that was summarised.

    Returns
    -------
    pandas.DataFrame
        A line a method: ``lowest, highest`` victim, and standard deviations: ``all`` victims,
        victims of the ``same net`` about their mean, and over the ``images`` of one victim.
    """
    value, net = shares[quantity], shares["victim"].map(nets)
    within = (shares[f"{quantity} high"] - shares[f"{quantity} low"]) / (2 * 1.96)
    own = value - value.groupby([net, shares["method"]]).transform("mean")
    lines = []
    for method, at in shares.groupby("method", sort=False).groups.items():
        free = len(at) - net[at].nunique()  # one is used up by the mean of each net
        same = float(np.sqrt((own[at] ** 2).sum() / free)) if free else np.nan
        lines.append(
            {"method": method, "lowest": value[at].min(), "highest": value[at].max(),
             "all": value[at].std(), "same net": same, "images": within[at].mean()}
        )  # fmt: skip
    return pd.DataFrame(lines)


def replicate(
    lab: Lab,
    nets: Mapping[str, Mapping[str, Any]],
    seeds: Sequence[int],
    runs: Mapping[str, Mapping[str, Any]],
    *,
    beside: Callable[[Victim], pd.DataFrame],
    **cells: Any,
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Train every architecture with every seed, and attack each of these victims.

    Parameters
    ----------
    lab : Lab
        The data, and where victims and shards are kept: a killed run goes on.
    nets : mapping of str to mapping
        By name, changes of the recipe "small"; ``seeds`` among them are that net's own.
    seeds : sequence of int
        Of weights, order of images and augmentation, and of the choice of labels.
    runs, **cells
        As for :func:`attacked`.
    beside : callable
        What else is found out about each, for instance
        :func:`tkmia_utils.experiments.owners.owners_side`.

    Returns
    -------
    rows : pandas.DataFrame
        :func:`attacked` of each, with the column ``victim``, "small 0" and the like.
    victims : pandas.DataFrame
        ``victim, net, seed, parameters, class_map, image_ap``.
    found : pandas.DataFrame
        `beside` of each, likewise with ``victim``.
    """
    frames, others, told = [], [], []
    for net, changes in nets.items():
        own = {name: value for name, value in changes.items() if name != "seeds"}
        for seed in changes.get("seeds", seeds):
            name = f"{net} {seed}"
            made = recipe("small", **{**own, "seed": seed})
            victim = load_or_train(made, lab.train, lab.val, cache=lab.cache, device=lab.device)
            quality = evaluate(predict(victim.model, lab.val), lab.val.labels)
            size = sum(p.numel() for p in victim.model.parameters())
            told.append(
                {"victim": name, "net": net, "seed": seed, "parameters": size, **quality}
            )  # fmt: skip
            rows = attacked(
                victim, lab.val, runs, seed=seed, folder=lab.runs / "chunks" / name, **cells
            )
            frames.append(rows.assign(victim=name))
            others.append(beside(victim).assign(victim=name))
    rows, found = (pd.concat(parts, ignore_index=True) for parts in (frames, others))
    return rows, pd.DataFrame(told), found
