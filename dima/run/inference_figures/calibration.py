"""Are the draws as spread as the truth: bands along an episode, and the truth's rank among the draws."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from dima.run.figure_style import MAX_HEIGHT, RC, SMALL, WIDTH, Look, save
from dima.run.inference_figures.looks import describe, drawing, run_looks

_BARS = 13
"""Bars of a rank histogram at most; neighbouring ranks are counted together."""

_MOST_AGENTS = 4
"""Agents that have a panel of their own."""


def plot_fan(record: dict[str, Any], path: Path) -> Figure | None:
    """Truth against the 50 % and 90 % bands and the median of the draws: a column a run, a row a dimension.

    None, with no file, where no run draws states.
    """
    fan, labels, looks = record["fan"], drawing(record), run_looks(record)
    if fan is None or not labels:
        return None
    with rc_context(RC):
        size = (max(WIDTH / 2, min(1.0 + 2.1 * len(labels), 2 * WIDTH)), min(1.1 + 1.35 * len(fan["dims"]), MAX_HEIGHT))
        figure = Figure(figsize=size, layout="constrained")
        panels = figure.subplots(len(fan["dims"]), len(labels), sharex=True, sharey="row", squeeze=False)
        for column, label in enumerate(labels):
            panels[0, column].set_title(label, color=looks[label].color)
            panels[-1, column].set_xlabel("step of the episode")
            panels[-1, column].xaxis.set_major_locator(MaxNLocator(4, integer=True))
            for row in range(len(fan["dims"])):
                _draw_bands(panels[row, column], fan, row, label, looks[label])
        for row, (name, dim) in enumerate(fan["dims"].items()):
            panels[row, 0].set_ylabel(f"{name}: state[{dim}]")
        figure.align_ylabels(panels[:, 0])
        figure.supylabel("environment's own units", fontsize=8)
        where = f"held-out episode {fan['episode']}, inferred by agent {fan['agent']}"
        text = "truth (black), median and central 50 % and 90 % of the draws"
        figure.suptitle(f"{record['env']}, {where}\n{text}", fontsize=8)
        save(figure, path)
    return figure


def plot_ranks(record: dict[str, Any], path: Path) -> Figure | None:
    """Histograms of the truth's rank among the draws, a row an agent, a column a run; flat where draws are honest.

    The band holds 95 % of the counts of a uniform rank. None, with no file, where no run draws states.
    """
    labels, looks = drawing(record), run_looks(record)
    if not labels:
        return None
    agents = min(record["agents"], _MOST_AGENTS)
    with rc_context(RC):
        size = (max(WIDTH / 2, min(0.6 + 1.75 * len(labels), 2 * WIDTH)), 1.1 + 1.2 * agents)
        figure = Figure(figsize=size, layout="constrained")
        panels = figure.subplots(agents, len(labels), sharex=True, sharey=True, squeeze=False)
        for column, label in enumerate(labels):
            panels[0, column].set_title(label, color=looks[label].color, pad=12)
            for agent in range(agents):
                ranks = record["runs"][label]["by_agent"][agent]["ranks"]
                _draw_ranks(panels[agent, column], ranks, looks[label])
        for agent in range(agents):
            panels[agent, 0].set_ylabel(f"agent {agent + 1}\ntimes expected")
        figure.supxlabel(f"rank of the true state among {record['samples']} draws", fontsize=8)
        figure.suptitle(describe(record), fontsize=8)
        save(figure, path)
    return figure


def _draw_bands(axes: Axes, fan: dict[str, Any], row: int, label: str, look: Look) -> None:
    quantiles = np.array(fan["runs"][label][row]).T  # [quantiles][steps]
    steps = fan["start"] + np.arange(quantiles.shape[1])
    for low, alpha in ((0, 0.22), (1, 0.4)):
        axes.fill_between(steps, quantiles[low], quantiles[-1 - low], color=look.color, alpha=alpha, linewidth=0)
    axes.plot(steps, quantiles[len(quantiles) // 2], color=look.color, linewidth=0.9)
    axes.plot(steps, fan["truth"][row], color="black", linewidth=0.9)


def _draw_ranks(axes: Axes, ranks: dict[str, Any], look: Look) -> None:
    """Counts relative to those of a uniform rank, so that bars of unequal width compare."""
    counts = ranks["histogram"]
    total, edges = sum(counts), bar_edges(len(counts))
    widths = np.diff(edges)
    expected = total * widths / len(counts)
    heights = np.add.reduceat(counts, edges[:-1]) / expected
    axes.bar(edges[:-1], heights, 0.92 * widths, align="edge", color=look.color, zorder=2)
    half = float(np.max(1.96 * np.sqrt(expected * (1 - widths / len(counts))) / expected))
    axes.axhspan(max(1 - half, 0), 1 + half, color="0.5", alpha=0.25, linewidth=0, zorder=1)
    axes.axhline(1, color="0.15", linewidth=0.9, linestyle=(0, (4, 2)), zorder=3)
    axes.set_xticks([0.5, len(counts) / 2, len(counts) - 0.5], ["0", str((len(counts) - 1) // 2), str(len(counts) - 1)])
    p_value = ranks["p_value"]
    text = "p < 0.001" if p_value < 0.001 else f"p = {p_value:.3f}"
    axes.text(1, 1.0, text, transform=axes.transAxes, ha="right", va="bottom", fontsize=SMALL)


def bar_edges(num_ranks: int) -> Any:
    """Where the bars of a histogram of so many ranks begin and end: of equal width where that divides, else nearly."""
    most = min(num_ranks, _BARS)
    even = (number for number in range(most, math.ceil(most / 2) - 1, -1) if num_ranks % number == 0)
    bars = next(even, most)
    return np.arange(bars + 1) * num_ranks // bars
