"""Error per step of every order, beside the baselines and the floor."""

from __future__ import annotations

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
    floor_series,
    table_rows,
)
from dima.run.prediction_figures.style import BASELINES_OF, FIELD_NAMES, RC, WIDTH, describe, head, order_looks, save


def plot_errors(prediction: dict[str, Any], path: Path) -> Figure:
    """Panels state, observation and reward (no state panel for models without a state), and E at the last two marks.

    Baselines that are far above everything leave their panel and are named above it.
    """
    fields = [field for field in FIELD_NAMES if all(order[field] for order in prediction["orders"].values())]
    columns = {FIELD_NAMES[field]: _series(prediction, field) for field in fields}
    labels = {one.label for series in columns.values() for one in series}
    heights = [2.3, ROW_HEIGHT * table_rows(labels)]
    with rc_context(RC):
        figure = Figure(figsize=(WIDTH, sum(heights) + 1.0), layout="constrained")
        grid = figure.add_gridspec(2, len(fields), height_ratios=heights)
        panels = [figure.add_subplot(grid[0, column]) for column in range(len(fields))]
        for axes, (name, series) in zip(panels, columns.items(), strict=True):
            draw_errors(axes, series, prediction["marks"], name)
        draw_table(figure.add_subplot(grid[1, :]), columns, prediction["marks"], _note(prediction))
        head(figure, describe(prediction), panels)
        save(figure, path)
    return figure


def _series(prediction: dict[str, Any], field: str) -> list[Series]:
    looks = order_looks(list(prediction["orders"]))
    orders = [Series(name, order[field], looks[name]) for name, order in prediction["orders"].items()]
    floor = floor_series(prediction["floor"]["obs"]) if field == "obs" else []
    return orders + baseline_series(prediction[BASELINES_OF[field]]) + floor


def _note(prediction: dict[str, Any]) -> str:
    segments, samples = prediction["segments"], prediction["samples"]
    source = "one a segment" if samples == 1 else f"mean over {samples} a segment"
    return (
        f"Mean absolute error of an imagined trajectory ({source}).\n"
        f"Bands and brackets: 95 % bootstrap intervals; {segments} segments."
    )
