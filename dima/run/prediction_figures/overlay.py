"""Several models in one figure: their errors per step, and the gains of their actions."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.figure import Figure

from dima.run.prediction_figures.curves import (
    ROW_HEIGHT,
    Series,
    baseline_series,
    draw_errors,
    draw_table,
    table_rows,
)
from dima.run.prediction_figures.gains import bars_height, draw_gain_bars, lies_down
from dima.run.prediction_figures.style import (
    BASELINE_LOOKS,
    BASELINES_OF,
    FIELD_NAMES,
    FLOOR_LOOK,
    RC,
    WIDTH,
    Look,
    head,
    model_looks,
    save,
)


def plot_overlay(predictions: Mapping[str, dict[str, Any]], path: Path) -> Figure:
    """State errors (observations, where a model has no state), E at the last two marks, and gains of several models.

    Each model shows the order of its own configuration, or the one with the smallest error where that was not
    predicted. `persistence` is common to all; `linear` (it reads as many steps as the model) and the floor (the model's
    decoder) are each model's own, in its colour, unless all are equal. `no_action` is left out.

    Raises:
        ValueError: when the predictions are of different tasks or data, whose units do not compare.
    """
    _require_comparable(predictions)
    entries = {f"{label} ({own_order(each)})": _own_entry(each) for label, each in predictions.items()}
    looks = model_looks(list(entries))
    first = next(iter(predictions.values()))
    fields = [field for field in ("state", "obs") if all(entry[field] for entry in entries.values())]
    references = {label: (each, looks[name]) for (label, each), name in zip(predictions.items(), entries, strict=True)}
    columns = {
        FIELD_NAMES[field]: [Series(name, entry[field], looks[name]) for name, entry in entries.items()]
        + _references(references, field)
        for field in fields
    }
    panel_name, panel_series = next(iter(columns.items()))
    gains = {label: entry for label, entry in entries.items() if entry["action_gain"] is not None}
    marks = sorted(set.intersection(*(set(each["marks"]) for each in predictions.values())))
    lying = lies_down(gains)
    labels = {one.label for series in columns.values() for one in series}
    heights = [max(2.4, bars_height(gains) if lying else 0.0), ROW_HEIGHT * table_rows(labels)]
    with rc_context(RC):
        figure = Figure(figsize=(WIDTH, sum(heights) + 1.1), layout="constrained")
        grid = figure.add_gridspec(2, 2 if gains else 1, height_ratios=heights)
        axes = figure.add_subplot(grid[0, 0])
        draw_errors(axes, panel_series, marks, panel_name)
        if gains:
            draw_gain_bars(figure.add_subplot(grid[0, 1]), gains, looks, lying=lying)
        note = "Bands, brackets and lines on bars: 95 % bootstrap intervals."
        draw_table(figure.add_subplot(grid[1, :]), columns, marks, note)
        head(figure, first["env"], [axes])
        save(figure, path)
    return figure


def own_order(prediction: dict[str, Any]) -> str:
    """The order of the model's configuration, or the best one at the last mark where that was not predicted."""
    orders, chosen = prediction["orders"], prediction["options"].get("order")
    if chosen in orders:
        return chosen
    field, mark = "state" if all(order["state"] for order in orders.values()) else "obs", str(prediction["marks"][-1])
    return min(orders, key=lambda name: orders[name][field]["cumulative"][mark])


def _references(predictions: Mapping[str, tuple[dict[str, Any], Look]], field: str) -> list[Series]:
    """What the models of `predictions` (record and look, by label) are held against in one field."""
    baselines = {label: record[BASELINES_OF[field]] for label, (record, _) in predictions.items()}
    looks = {label: look for label, (_, look) in predictions.items()}
    linear = {label: curves["linear"] for label, curves in baselines.items()}
    series = baseline_series(next(iter(baselines.values())), ["persistence"])
    series += _common_or_own(Series("linear", {}, BASELINE_LOOKS["linear"], is_baseline=True), linear, looks)
    if field == "obs":
        floors = {label: record["floor"]["obs"] for label, (record, _) in predictions.items()}
        series += _common_or_own(Series("floor", {}, FLOOR_LOOK), floors, looks)
    return series


def _common_or_own(
    template: Series, curves: Mapping[str, dict[str, Any] | None], looks: Mapping[str, Look]
) -> list[Series]:
    """`template` with the curve that all models share, or with each model's own, named after it and in its colour."""
    measured = {label: curve for label, curve in curves.items() if curve is not None}
    values = list(measured.values())
    if len(measured) == len(curves) and all(curve == values[0] for curve in values):
        return [dataclasses.replace(template, curve=values[0])]
    return [
        Series(
            f"{template.label} of {label}",
            curve,
            dataclasses.replace(template.look, color=looks[label].color),
            template.is_baseline,
        )
        for label, curve in measured.items()
    ]


def _own_entry(prediction: dict[str, Any]) -> dict[str, Any]:
    return prediction["orders"][own_order(prediction)]


def _require_comparable(predictions: Mapping[str, dict[str, Any]]) -> None:
    if not predictions:
        raise ValueError("no predictions to overlay: name at least one")
    for what, values in {
        "tasks": {each["env"] for each in predictions.values()},
        "data": {each["data"]["fingerprint"] for each in predictions.values()},
    }.items():
        if len(values) > 1:
            raise ValueError(f"predictions of different {what} do not compare: {', '.join(sorted(values))}")
