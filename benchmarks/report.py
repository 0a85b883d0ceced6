"""What the benchmark found, as a table and a figure, beside the goals it was given."""

import os
from collections.abc import Mapping
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
import torch

from tkmia_utils import workspace
from tkmia_utils.report import figures

GOALS = {
    ("floor", "ResNet-50, 224 px"): "<= 1.05",
    ("floor", "embedded, 96 px"): "<= 1.10",
    ("loop", "embedded, 96 px"): ">= 5",
    ("loop", "ResNet-50, 224 px"): ">= 2.5",
    ("work", "slots with refill"): "<= 1.05",
}


def verdict(row: Mapping[str, object]) -> str:
    """Goal and whether it holds."""
    goal = GOALS.get((str(row["benchmark"]), str(row["case"])))
    if goal is None:
        return ""
    sign, bound = goal.split()
    value, limit = float(str(row["value"])), float(bound)
    holds = value <= limit if sign == "<=" else value >= limit
    return f"{goal}: {'holds' if holds else 'missed'}"


def draw(table: pd.DataFrame) -> plt.Figure:
    """Ratios beside their goals, how time grows, and the memory a queue takes."""
    figures.style()
    fig, axes = plt.subplots(1, 5, figsize=(19, 3.6), width_ratios=[1.6, 1, 1, 1, 1])
    bounds = {key: float(goal.split()[1]) for key, goal in GOALS.items()}
    keys = list(zip(table["benchmark"], table["case"], strict=True))
    part = table[[key in bounds for key in keys]]
    names = [f"{row.benchmark}: {row.case}" for row in part.itertuples()]
    goals = [bounds[key] for key in keys if key in bounds]
    axes[0].plot(goals, names, "|", markersize=18, color="0.5", label="goal")
    axes[0].plot(part["value"], names, "o", label="measured")
    axes[0].set(title="Ratios and goals", xlabel="ratio", xscale="log")
    axes[0].set_xticks([1, 2, 4], ["1", "2", "4"])
    axes[0].minorticks_off()
    axes[0].legend()
    for ax, what in zip(axes[1:], ("images", "classes", "k", "queue, peak MB"), strict=True):
        part = table[table["case"] == what]
        sns.lineplot(part, x="size", y="value", marker="o", ax=ax)
        unit = "MB at most" if "MB" in what else "seconds"
        ax.set(title=what.removesuffix(", peak MB"), xlabel=what.split(",")[0], ylabel=unit)
        ax.set_ylim(bottom=0)
        if len(part) and what in ("classes", "queue, peak MB"):
            ax.set_xscale("log")
    return fig


def write(table: pd.DataFrame, folder: Path) -> str:
    """Write ``bench.md``, ``bench.csv`` and, where growth was timed, ``bench.png``.

    Parameters
    ----------
    table : pandas.DataFrame
        One line a comparison: benchmark, case, value and what is to be shown.
    folder : Path
        Where the files go.

    Returns
    -------
    str
        What ``bench.md`` says.
    """
    table = table.assign(goal=table.apply(verdict, axis=1))
    shown = table.drop(columns="value").astype(object).fillna("")
    head = f"{os.cpu_count()} cores, {torch.get_num_threads()} threads, torch {torch.__version__}"
    text = f"{shown.to_markdown(index=False)}\n\nMedians and quartiles. {head}.\n"
    workspace.write_text(folder / "bench.md", text)
    workspace.write_text(folder / "bench.csv", table.to_csv(index=False))
    if (table["benchmark"] == "growth").any():
        fig = draw(table)
        workspace.write_atomically(folder / "bench.png", lambda t: fig.savefig(t, dpi=150))
        plt.close(fig)
    return text
