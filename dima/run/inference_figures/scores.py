"""Errors, energy score and coverage of every run and baseline, grouped by what they read."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from dima.run.figure_style import NOTE_COLOR, RC, SMALL, WIDTH, save
from dima.run.infer_tables import grouped
from dima.run.inference_figures.looks import BASELINE_COLOR, describe, run_looks

_ROW = 0.2
"""Inches of a row."""

_MARKS = {"error_mean": ("o", "mean of the draws"), "error_draw": ("D", "one draw")}
_LEVEL_MARKS = {"50": "v", "90": "^"}


def plot_scores(record: dict[str, Any], path: Path) -> Figure:
    """Panels squared error, energy score and coverage; a row an inferencer, 95 % intervals as lines."""
    rows = _rows(record)
    with rc_context(RC):
        figure = Figure(figsize=(WIDTH, 1.35 + _ROW * len(rows)), layout="constrained")
        errors, energy, coverage = figure.subplots(1, 3, sharey=True)
        for place, (_, entry, color) in enumerate(rows):
            if entry is None:
                for axes in (errors, energy, coverage):
                    axes.axhline(place, color="0.9", linewidth=0.6, zorder=0)
            elif entry["scores"] is None:
                _say_no_state(errors, place)
            else:
                _draw_row(errors, energy, coverage, place, entry, color)
        errors.set_yticks(range(len(rows)), [name for name, _, _ in rows])
        for label, (_, entry, color) in zip(errors.get_yticklabels(), rows, strict=True):
            label.set_color("black" if entry is None else color)
            label.set_style("italic" if entry is None else "normal")
        errors.set(xlabel="squared error\n(variances of the data)", ylim=(len(rows) - 0.5, -0.5))
        energy.set_xlabel("energy score\n(standard deviations)")
        _draw_nominal(coverage, record)
        for axes in (errors, energy):
            axes.set_xlim(left=min(0.0, axes.get_xlim()[0]))
        for axes in (errors, energy, coverage):
            axes.tick_params(axis="y", length=0)
        how = f"{record['samples']} draws; 95 % intervals over {record['bootstrap']['by']}"
        figure.suptitle(f"{describe(record)}, {how}", fontsize=8)
        figure.legend(handles=_keys(), loc="outside lower center", ncols=4, fontsize=SMALL)
        save(figure, path)
    return figure


def _say_no_state(axes: Axes, place: int) -> None:
    look: Any = {"va": "center", "fontsize": SMALL, "color": NOTE_COLOR}
    axes.text(0.02, place, "infers no state", transform=axes.get_yaxis_transform(), **look)


def _rows(record: Mapping[str, Any]) -> list[tuple[str, Any, str]]:
    """(name, entry or None for a heading, colour) from the top."""
    looks, rows = run_looks(record), []
    for reads, entries in grouped(record).items():
        rows.append((reads, None, "black"))
        for name, entry in entries.items():
            rows.append((name, entry, looks[name].color if name in looks else BASELINE_COLOR))
    return rows


def _draw_row(errors: Axes, energy: Axes, coverage: Axes, place: int, entry: Mapping[str, Any], color: str) -> None:
    scores = entry["scores"]
    for name, (marker, _) in _MARKS.items():
        _draw_estimate(errors, scores[name], place, color, marker)
    _draw_estimate(energy, scores["energy_score"], place, color, "s")
    for level, covered in scores["coverage"].items():
        _draw_estimate(coverage, covered, place, color, _LEVEL_MARKS[level], scale=100)


def _draw_estimate(
    axes: Axes, estimate: Mapping[str, Any], place: float, color: str, marker: str, scale: float = 1
) -> None:
    low, high = (scale * end for end in estimate["ci95"])
    axes.hlines(place, low, high, color=color, linewidth=1)
    fill = "white" if marker == "D" else color
    axes.plot([scale * estimate["value"]], [place], marker, color=color, markerfacecolor=fill, clip_on=False, zorder=3)


def _draw_nominal(axes: Axes, record: Mapping[str, Any]) -> None:
    for level in record["attainable_coverage"].values():
        axes.axvline(100 * level, color="0.3", linewidth=0.7, linestyle=(0, (4, 2)), zorder=0)
    axes.set(xlabel="truth inside the central\n50 % and 90 % interval (%)", xlim=(-3, 103), xticks=[0, 50, 90])


def _keys() -> list[Line2D]:
    def key(marker: str, label: str) -> Line2D:
        fill = "white" if marker == "D" else "0.3"
        return Line2D([], [], color="0.3", marker=marker, markerfacecolor=fill, linestyle="", label=label)

    return [
        *(key(marker, f"error of {label}") for marker, label in _MARKS.values()),
        *(key(marker, f"{level} % interval") for level, marker in _LEVEL_MARKS.items()),
    ]
