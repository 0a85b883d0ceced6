"""The owner's side of a victim, image by image: what her watches see, what a defence gives her.

One number each of many attacked images, so that statements of notebooks 12 and 13 can be judged
over several victims (:mod:`tkmia_utils.experiments.replication`).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import torch

from tkmia_utils import data as datasets
from tkmia_utils.defence.hardening import Hardening, harden
from tkmia_utils.defence.second_look import MeanScores
from tkmia_utils.defence.transformations import TRANSFORMATIONS
from tkmia_utils.experiments import defence, game, protocol, watching
from tkmia_utils.experiments.lab import Lab
from tkmia_utils.experiments.protocol import Queue
from tkmia_utils.experiments.replication import Statement, log_ratio
from tkmia_utils.monitor.conformal import smoothed
from tkmia_utils.victims.prediction import predict
from tkmia_utils.victims.store import Victim

WATCHES = ("NDCG@k", "second look")
CHANGED = "JPEG 75"
LOW = 0.05
"""A clean image is in this part of the clean ones as often."""
STRICT = {"method": "tkmia_min", "stop": "imperceptible", "bits": 8}


@dataclass(frozen=True)
class Owner:
    """What is done for the owner of each victim.

    Attributes
    ----------
    k, n : int
        Of the top k; most images a cell. The cells are S1 at every type, and S2 with one label; of
        each the first images whose S is in the top k of victim and hardened victim.
    max_iter : int
        Most iterations of TkMIA-min; TkMIA has three times as many.
    calibration : int
        Clean images that attacked ones are compared with.
    hardening : mapping
        Settings of :class:`~tkmia_utils.defence.hardening.Hardening`.
    seed : int
        Of S2's labels and of the clean images.
    """

    k: int = 3
    n: int = 20
    max_iter: int = 30
    calibration: int = 500
    hardening: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0


def owners_side(victim: Victim, lab: Lab, owner: Owner) -> pd.DataFrame:
    """What watches see of attacks on one victim, and what defences make of them.

    Parameters
    ----------
    victim : Victim
        Who is attacked.
    lab : Lab
        The data, and the cache for the hardened victim.
    owner : Owner
        What is done.

    Returns
    -------
    pandas.DataFrame
        ``cell, image, method``, and of the methods that have it: ``place NDCG@k``, ``place second
        look`` (the share of clean images that are as suspicious or more, NaN if S is not hidden),
        ``kept`` and ``norm`` (of the whole promise; L2 in [0, 1] pixels, :data:`.defence.NEVER` for
        a failure, NaN where the clean image does not show S behind a transformation).
    """
    val, types = lab.val, datasets.types_of(lab.val)
    cells = protocol.list_cells(list(types), [owner.k], [(owner.k, 1)])
    logits = predict(victim.model, val)
    many = protocol.build_queue(cells, val, logits, types, n=2 * owner.n, seed=owner.seed)
    settings = Hardening(**owner.hardening)
    hard = harden(victim, lab.train, val, settings, cache=lab.cache, device=lab.device)
    models = {"plain": victim.model, "hardened": hard.model}
    queue = defence.shown_by_all(models, many, val, n=owner.n)
    run = {"direct": {**STRICT, "max_iter": owner.max_iter}}
    direct = defence.least_norms(models, queue, val, run)
    direct["norm"] = direct["norm"].clip(upper=defence.NEVER)
    frames = [
        places(victim, lab, queue, owner),
        behind(victim, lab, queue, owner),
        direct.rename(columns={"model": "method"})[["cell", "image", "method", "norm"]],
    ]
    return pd.concat(frames, ignore_index=True)


def places(victim: Victim, lab: Lab, queue: Queue, owner: Owner) -> pd.DataFrame:
    """Where watches put attacked images among clean ones: conformal p-values, ties as if lower."""
    second = MeanScores(victim.model)
    rng = np.random.default_rng(owner.seed)
    free = np.setdiff1d(np.arange(len(lab.val)), queue.index)
    at = torch.from_numpy(rng.permutation(free)[: owner.calibration])
    clean = watching.look_at_all(victim.model, second, lab.val.subset(at))
    attackers = {
        "tkmia": {"method": "tkmia", "max_iter": 3 * owner.max_iter},
        "tkmia_min": {**STRICT, "max_iter": owner.max_iter},
    }
    rows, sent = game.attack_all(victim.model, queue, lab.val, attackers)
    frames = []
    for name, one in sent.items():
        found = rows.loc[rows["run"] == name, ["cell", "image"]].assign(method=name)
        seen = watching.look(victim.model, second, one.images, queue.labels)
        for watch in WATCHES:
            known, value = (sight.values(watch, owner.k, [])[:, 0] for sight in (clean, seen))
            known = np.sort(known[~np.isnan(known)])
            less, more = (np.searchsorted(known, value, side=side) for side in ("left", "right"))
            place = smoothed(less, more - less, len(known), np.ones(len(value)))
            found[f"place {watch}"] = np.where(one.hidden.numpy(), place, np.nan)
        frames.append(found)
    return pd.concat(frames, ignore_index=True)


def behind(victim: Victim, lab: Lab, queue: Queue, owner: Owner) -> pd.DataFrame:
    """What is left of an attack behind a transformation, and what it costs who knows that."""
    named = {name: TRANSFORMATIONS[name] for name in ("PNG", CHANGED)}
    attackers = (defence.UNAWARE, defence.ADAPTIVE)
    rows = defence.attack_through(
        victim.model, named, queue, lab.val, attackers=attackers, max_iter=owner.max_iter
    )
    method = rows["defence"] + ", " + rows["attacker"]
    found = rows[["cell", "image"]].assign(method=method)
    found["kept"] = rows["kept"].astype(float).where(rows["shown"])
    found["norm"] = rows["norm"].clip(upper=defence.NEVER).where(rows["shown"])
    return found


def statements(names: Mapping[str, str]) -> list[Statement]:
    """What notebooks 12 and 13 say of watches and defences, as sentences victims can contradict.

    Parameters
    ----------
    names : mapping of str to str
        What the methods are called in words.
    """
    said = [
        Statement(
            f"the second look puts images attacked by {names.get(run, run)} into its lowest "
            "twentieth more often than clean ones", "12", _low("second look", run), least=LOW,
        )
        for run in ("tkmia", "tkmia_min")
    ]  # fmt: skip
    least = names.get("tkmia_min", "tkmia_min")
    said.append(
        Statement(
            f"of images attacked by {least} the second look puts more there than NDCG@k does", "12",
            lambda w: _low("second look", "tkmia_min")(w) - _low("NDCG@k", "tkmia_min")(w),
        )
    )  # fmt: skip
    unaware, adaptive, bare = (
        f"{CHANGED}, {defence.UNAWARE}", f"{CHANGED}, {defence.ADAPTIVE}",
        f"PNG, {defence.ADAPTIVE}",
    )  # fmt: skip
    return [
        *said,
        Statement(f"{CHANGED} undoes more than half of the attacks made without it", "13",
                  lambda w: 1 - w["kept", unaware], least=0.5),
        Statement(f"{least} keeps the promise there more often if made through it", "13",
                  lambda w: w["kept", adaptive] - w["kept", unaware]),
        Statement(f"made through {CHANGED}, {least} needs a larger norm than without it", "13",
                  _longer(adaptive, bare), statistic=np.median),
        Statement(f"against a hardened victim {least} needs a larger norm", "13",
                  _longer("hardened", "plain"), statistic=np.median),
    ]  # fmt: skip


def _low(watch: str, run: str) -> Callable[[pd.DataFrame], pd.Series]:
    def value(w: pd.DataFrame) -> pd.Series:
        place = w[f"place {watch}", run]
        return (place <= LOW).astype(float).where(place.notna())

    return value


def _longer(one: str, other: str) -> Callable[[pd.DataFrame], pd.Series]:
    return lambda w: log_ratio(w["norm", one], w["norm", other])
