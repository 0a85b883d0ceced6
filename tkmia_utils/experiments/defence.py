"""What a defence is worth: judged by an attack that knows it, and by what it costs."""

import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn

from tkmia_utils.data import MultiLabelDataset
from tkmia_utils.defence.smoothing import Smoothing, vote_shares, votes
from tkmia_utils.defence.transformations import Change, Defended, Transformation, same
from tkmia_utils.engine.advice import AttackWarning
from tkmia_utils.engine.outcome import excluded
from tkmia_utils.experiments import protocol, transfer
from tkmia_utils.experiments.intervals import Statistic, summarise
from tkmia_utils.experiments.protocol import Cell, Queue
from tkmia_utils.victims import evaluate, predict
from tkmia_utils.victims.prediction import logits_of

UNAWARE, IDENTITY, ADAPTIVE = "unaware", "identity gradient", "adaptive"
ATTACKERS = (UNAWARE, IDENTITY, ADAPTIVE)
"""Who attacks: one who does not know the defence, one who takes the gradient as if it were not
there, and one who goes through it by its stand-in."""
NEVER = 1e9  # stands for an infinite norm where a mean of two must not be NaN


def clean_quality(
    model: nn.Module, transformations: Mapping[str, Transformation], data: MultiLabelDataset
) -> pd.Series:
    """Class mAP on clean images behind each transformation; a random one is drawn once an image.

    Parameters
    ----------
    model : torch.nn.Module
        In evaluation mode.
    transformations : mapping of str to Transformation
        By name.
    data : MultiLabelDataset
        Held out.

    Returns
    -------
    pandas.Series
        By name, with "none" first.
    """
    models = {"none": model} | {
        name: Defended(model, change, keyed="content") for name, change in transformations.items()
    }
    found = {
        name: evaluate(predict(behind, data), data.labels)["class_map"]
        for name, behind in models.items()
    }
    return pd.Series(found, name="class mAP")


def attacked_model(
    model: nn.Module, transformation: Transformation, attacker: str, *, draws: int = 1
) -> nn.Module:
    """What an attacker of a defended model differentiates.

    Parameters
    ----------
    model : torch.nn.Module
        Without the defence.
    transformation : Transformation
        The defence.
    attacker : str
        One of :data:`ATTACKERS`.
    draws : int
        Of a random transformation, in each forward pass: the same ones every time, so that one
        step's gradient still holds at the next.

    Raises
    ------
    ValueError
        An unknown attacker.
    """
    if attacker not in ATTACKERS:
        raise ValueError(f"attacker: expected one of {', '.join(ATTACKERS)}, got {attacker!r}")
    if attacker == UNAWARE:
        return model
    if attacker == IDENTITY:
        transformation = replace(transformation, stand_in=_itself)
    return Defended(model, transformation, draws=draws)


def _itself(images: torch.Tensor, *numbers: torch.Tensor) -> torch.Tensor:
    return images


def fresh_changes(
    transformation: Transformation, n: int, *, trials: int, seed: int
) -> list[Change]:
    """The real transformation of n images, drawn anew a number of times.

    Within a trial an image and its attacked version get the same draw, so that what the measures
    lose is the attack's doing.

    Parameters
    ----------
    transformation : Transformation
        One that does not draw gives a single change.
    n : int
        Images of a batch that the changes will be given, in their order.
    trials : int
        How often to draw.
    seed : int
        Of the numbers, which are none of :class:`Defended`'s.

    Returns
    -------
    list of callable
        From ``(n, 3, H, W)`` to the same shape.
    """
    if not transformation.random:
        return [transformation.real]
    source = np.random.Generator(np.random.Philox(key=[seed, trials]))
    drawn = source.random((trials, n, transformation.numbers), dtype=np.float32)

    def change(numbers: torch.Tensor) -> Change:
        return lambda images: transformation.real(images, numbers)

    return [change(numbers) for numbers in torch.from_numpy(drawn)]


def attack_through(
    model: nn.Module,
    transformations: Mapping[str, Transformation],
    queue: Queue,
    data: MultiLabelDataset,
    *,
    attackers: Sequence[str] = ATTACKERS,
    draws: int = 8,
    trials: int = 10,
    confidence: float = 4.0,
    seed: int = 0,
    **settings: Any,
) -> pd.DataFrame:
    """Attack every defended model in several ways, and judge behind the real defence.

    Parameters
    ----------
    model : torch.nn.Module
        Without a defence, in evaluation mode.
    transformations : mapping of str to Transformation
        The defences by name.
    queue, data
        As for :func:`tkmia_utils.experiments.protocol.run`.
    attackers : sequence of str
        Of :data:`ATTACKERS`. The identity's gradient is tried where the transformation is not
        random and has another stand-in.
    draws : int
        Of a random transformation, in each of the attacker's forward passes.
    trials : int
        Fresh draws, none of them the attacker's, by which a random transformation is judged.
    confidence : float
        Margin in logits that the adaptive attack on a random transformation aims at: where the
        mean over the draws is just over the border, many a draw is not.
    seed : int
        Of the fresh draws.
    **settings
        Of every attack, for instance ``max_iter=30``; by default "tkmia_min" with the strict stop
        and 8 bits.

    Returns
    -------
    pandas.DataFrame
        ``cell, image, shown, hidden, kept`` as :func:`tkmia_utils.experiments.transfer.judge`, one
        row an image, defence, attacker and trial; with ``defence, attacker, trial``, ``l2`` (the
        norm in [0, 1] pixels) and ``norm`` (the same where the attack kept its promise, else inf).
    """
    settings = {"method": "tkmia_min", "stop": "imperceptible", "bits": 8, **settings}
    clean, frames = data.images(queue.index), []
    known: dict[str, torch.Tensor] = {}
    for name, transformation in transformations.items():
        changes = fresh_changes(transformation, len(clean), trials=trials, seed=seed)
        originals = [change(clean) for change in changes]
        for attacker in attackers:
            if attacker == IDENTITY and (transformation.random or transformation.stand_in is same):
                continue
            images = known.get(attacker)
            if images is None:
                target = attacked_model(model, transformation, attacker, draws=draws)
                margin = confidence if attacker == ADAPTIVE and transformation.random else None
                options = settings if margin is None else {**settings, "confidence": margin}
                images = _adversarial(target, queue, data, **options)
            if attacker == UNAWARE:  # whatever the defence is
                known[attacker] = images
            l2 = (images - clean).double().flatten(1).norm(dim=1).numpy()
            for trial, (change, original) in enumerate(zip(changes, originals, strict=True)):
                rows = transfer.judge(model, original, change(images), queue, data)
                rows = rows.assign(defence=name, attacker=attacker, trial=trial, l2=l2)
                frames.append(rows.assign(norm=rows["l2"].where(rows["kept"], np.inf)))
    return pd.concat(frames, ignore_index=True)


def _adversarial(
    model: nn.Module, queue: Queue, data: MultiLabelDataset, **settings: Any
) -> torch.Tensor:
    """Attack, without a warning about what a defence hides by itself: it is left out later."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*succeed unchanged", AttackWarning)
        images = protocol.run(model, queue, data, **settings)[1].adversarial
    assert images is not None, "kept unless the runtime says otherwise"
    return images


def summary(
    rows: pd.DataFrame,
    by: Sequence[str],
    *,
    shares: Sequence[str] = (),
    norms: Sequence[str] = (),
    **drawn: int,
) -> pd.DataFrame:
    """Mean shares and median norms of groups of rows, with intervals; a norm may be infinite.

    Parameters
    ----------
    rows : pandas.DataFrame
        One row an image (column ``image``) and run.
    by, shares, norms : sequence of str
        Columns: of the group, of what is averaged, and of what a median is taken of. An infinite
        norm is one above all others: if most are, so is the median.
    **drawn
        ``resamples`` and ``seed`` of the bootstrap.

    Returns
    -------
    pandas.DataFrame
        As :func:`tkmia_utils.experiments.intervals.summarise`.
    """
    finite = rows.assign(**{name: rows[name].clip(upper=NEVER) for name in norms})
    wanted: dict[str, Statistic] = dict.fromkeys(shares, np.mean)
    wanted |= dict.fromkeys(norms, np.median)
    table = summarise(finite, by, wanted, **drawn)
    for name in (f"{name}{end}" for name in norms for end in ("", " low", " high")):
        table[name] = table[name].mask(table[name] > NEVER / 1e6, np.inf)
    return table


def shown_by_all(
    models: Mapping[str, nn.Module], queue: Queue, data: MultiLabelDataset, *, n: int
) -> Queue:
    """Keep what every model shows on the clean image, so that none is judged by another's choice.

    Parameters
    ----------
    models : mapping of str to torch.nn.Module
        In evaluation mode.
    queue, data
        As for :func:`tkmia_utils.experiments.protocol.run`.
    n : int
        Most images a cell, the first ones.

    Returns
    -------
    Queue
        Rows of `queue`, in its order.

    Raises
    ------
    ValueError
        No row is left.
    """
    clean = data.images(queue.index)
    asked = (queue.specified, queue.k, queue.delta)
    hidden = torch.stack([excluded(logits_of(m, clean), *asked) for m in models.values()])
    rows = (~hidden.any(0)).nonzero().flatten().tolist()
    taken: Counter[Cell] = Counter()
    kept = []
    for row in rows:
        cell = queue.cells[row]
        taken[cell] += 1
        kept += [row] if taken[cell] <= n else []
    if not kept:
        raise ValueError("queue: there is no image on which every model shows S")
    return queue.rows(kept)


def least_norms(
    models: Mapping[str, nn.Module],
    queue: Queue,
    data: MultiLabelDataset,
    runs: Mapping[str, Mapping[str, Any]],
    **settings: Any,
) -> pd.DataFrame:
    """Attack several models on the same images in several ways.

    Parameters
    ----------
    models : mapping of str to torch.nn.Module
        By name, in evaluation mode.
    queue, data
        As for :func:`tkmia_utils.experiments.protocol.run`.
    runs : mapping of str to mapping
        By name, the settings of that run alone.
    **settings
        Of every run.

    Returns
    -------
    pandas.DataFrame
        ``model, run, cell, image, k``, ``shown`` (fewer than delta of S are out on the clean image)
        and ``norm``: L2 in [0, 1] pixels, inf for a failure, 0 where S is not shown at all.
    """
    frames = []
    for name, model in models.items():
        for run, own in runs.items():
            rows, result = protocol.run(model, queue, data, **{**settings, **own})
            clean = result.clean_logits
            shown = ~excluded(clean, queue.specified, queue.k, queue.delta).numpy()
            norm = rows["l2"].where(rows["success"], np.inf).where(shown, 0.0)
            kept = rows[["cell", "image", "k"]]
            frames.append(kept.assign(model=name, run=run, shown=shown, norm=norm))
    return pd.concat(frames, ignore_index=True)


def transferred_norms(
    source: nn.Module,
    target: nn.Module,
    queue: Queue,
    data: MultiLabelDataset,
    confidences: Sequence[float],
    **settings: Any,
) -> pd.DataFrame:
    """Attack one model, and ask another about the images: does it fall to what it never met?

    Parameters
    ----------
    source, target : torch.nn.Module
        Who is attacked, and who is asked.
    queue, data
        As for :func:`tkmia_utils.experiments.protocol.run`.
    confidences : sequence of float
        Margins in logits that the attack aims at. Of an image's attempts that hold on the target
        the one of least norm counts.
    **settings
        Of every attack; by default "tkmia_min" with the strict stop.

    Returns
    -------
    pandas.DataFrame
        ``cell, image, shown, norm`` as :func:`least_norms` has them, one row an image.
    """
    settings = {"method": "tkmia_min", "stop": "imperceptible", **settings}
    clean = data.images(queue.index)
    best = np.full(len(clean), np.inf)
    for confidence in confidences:
        images = _adversarial(source, queue, data, **settings, confidence=confidence)
        rows = transfer.judge(target, clean, images, queue, data)
        l2 = (images - clean).double().flatten(1).norm(dim=1).numpy()
        best = np.minimum(best, np.where(rows["kept"], l2, np.inf))
    norm = pd.Series(best).where(rows["shown"], 0.0)
    return rows[["cell", "image", "shown"]].assign(norm=norm)


def smoothed_quality(
    model: nn.Module, data: MultiLabelDataset, smoothing: Smoothing, k: int
) -> float:
    """Class mAP of the smoothed classifier on clean images, whose scores are its vote shares.

    Parameters
    ----------
    model : torch.nn.Module
        The base model, in evaluation mode.
    data : MultiLabelDataset
        Held out.
    smoothing : Smoothing
        Its sigma, draws and seed.
    k : int
        Labels a vote.
    """
    scores = [
        vote_shares(votes(model, data.images([i]), ids=[data.ids[i]], k=k, smoothing=smoothing))
        for i in range(len(data))
    ]
    return evaluate(torch.cat(scores).float(), data.labels)["class_map"]
