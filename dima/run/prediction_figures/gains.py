"""How much of each agent's true effect a model predicts: bars per agent, grouped by order or by model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dima.run.prediction_figures.curves import spell
from dima.run.prediction_figures.style import (
    MAX_HEIGHT,
    RC,
    SMALL,
    WIDTH,
    Look,
    describe,
    head,
    order_looks,
    save,
)

MANY_AGENTS = 12
"""Above so many agents the bars lie down, and the figure grows with them."""

GROUP = 0.82
"""Share of an agent's place that its bars fill."""

_GAIN_RANGE, _R2_RANGE = (-1.0, 2.5), (-1.0, 1.0)
"""Bars that go further are cut and their value is written beside them."""

_QUANTITIES = {"action_gain": "action gain", "action_gain_r2": "share explained, $r^2$"}


def plot_gains(prediction: dict[str, Any], path: Path) -> Figure | None:
    """Gains with their 95 % intervals beside r^2; None, with no file, when no order's gains were measured."""
    gains = {name: order for name, order in prediction["orders"].items() if order["action_gain"] is not None}
    if not gains:
        return None
    lying = lies_down(gains)
    height = min(1.2 + bars_height(gains), MAX_HEIGHT) if lying else 2.6
    with rc_context(RC):
        figure = Figure(figsize=(WIDTH, height), layout="constrained")
        first, second = figure.subplots(1, 2)
        looks = order_looks(list(gains))
        draw_gain_bars(first, gains, looks, lying=lying)
        draw_gain_bars(second, gains, looks, "action_gain_r2", lying=lying)
        head(figure, describe(prediction), [first])
        save(figure, path)
    return figure


def lies_down(gains: Mapping[str, dict[str, Any]]) -> bool:
    """Whether the bars of `gains` are so many that they have to lie down."""
    return any(len(entry["action_gain"]) > MANY_AGENTS for entry in gains.values())


def bars_height(gains: Mapping[str, dict[str, Any]]) -> float:
    """Inches that the lying bars of `gains` want."""
    num_agents = max((len(entry["action_gain"]) for entry in gains.values()), default=0)
    return min(0.055 * num_agents * (len(gains) + 0.5), MAX_HEIGHT - 1.2)


def draw_gain_bars(
    axes: Axes,
    gains: Mapping[str, dict[str, Any]],
    looks: Mapping[str, Look],
    quantity: str = "action_gain",
    *,
    lying: bool = False,
) -> None:
    """One bar for each agent and each of `gains` (entries of `orders` in prediction.json), with lines at 0 and 1."""
    num_agents = max(len(entry["action_gain"]) for entry in gains.values())
    width = GROUP / len(gains)
    low, high = _value_range(gains, quantity)
    for index, (label, entry) in enumerate(gains.items()):
        values = np.array(entry[quantity])
        centers = np.arange(1, len(values) + 1) + (index - (len(gains) - 1) / 2) * width
        bar = axes.barh if lying else axes.bar
        bar(centers, values, 0.9 * width, color=looks[label].color, label=label, zorder=2)
        if quantity == "action_gain":
            _draw_intervals(axes, centers, np.array(entry["action_gain_ci95"]), lying)
        _note_cut_bars(axes, centers, values, (low, high), lying)
    draw_reference = axes.axvline if lying else axes.axhline
    draw_reference(1, color="0.3", linewidth=0.8, linestyle=(0, (4, 2)), zorder=1)
    draw_reference(0, color="0.3", linewidth=0.6, zorder=3)
    name = _QUANTITIES[quantity] + (" (1 = right)" if quantity == "action_gain" else "")
    ticks = _agent_ticks(num_agents)
    if lying:
        axes.set(xlabel=name, ylabel="agent", yticks=ticks, xlim=(low, high), ylim=(num_agents + 0.5, 0.5))
    else:
        axes.set(xlabel="agent", ylabel=name, xticks=ticks, ylim=(low, high), xlim=(0.5, num_agents + 0.5))


def _value_range(gains: Mapping[str, dict[str, Any]], quantity: str) -> tuple[float, float]:
    """Room for every bar and interval, within what a figure can show."""
    ends = [value for entry in gains.values() for value in entry[quantity]]
    if quantity == "action_gain":
        ends += [end for entry in gains.values() for interval in entry["action_gain_ci95"] for end in interval]
    least, most = _GAIN_RANGE if quantity == "action_gain" else _R2_RANGE
    low, high = max(min(0.0, *ends), least), min(max(1.0, *ends), most)
    room = 0.06 * (high - low)
    return low - room if low < 0 else 0.0, high + room


def _draw_intervals(axes: Axes, centers: np.ndarray, intervals: np.ndarray, lying: bool) -> None:
    lines = axes.hlines if lying else axes.vlines
    lines(centers, intervals[:, 0], intervals[:, 1], color="0.15", linewidth=0.8, zorder=4)


def _note_cut_bars(
    axes: Axes, centers: np.ndarray, values: np.ndarray, limits: tuple[float, float], lying: bool
) -> None:
    for center, value in zip(centers, values, strict=True):
        if limits[0] <= value <= limits[1]:
            continue
        low = value < limits[0]
        edge = limits[0] if low else limits[1]
        text = axes.text(*((edge, center) if lying else (center, edge)), f" {spell(value)} ", fontsize=SMALL, zorder=5)
        if lying:
            text.set(ha="left" if low else "right", va="center")
        else:
            text.set(ha="center", va="bottom" if low else "top", rotation=90)


def _agent_ticks(num_agents: int) -> list[int]:
    """Agents that are numbered: all up to 20, else every fourth, from 1 as in the paper."""
    return list(range(1, num_agents + 1)) if num_agents <= 20 else [1, *range(4, num_agents + 1, 4)]
