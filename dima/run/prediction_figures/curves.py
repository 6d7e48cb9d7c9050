"""One panel of errors against the step, and the table of cumulated errors below panels."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from dima.run.prediction_figures.style import BASELINE_LOOKS, FLOOR_LOOK, NOTE_COLOR, SMALL, Look

UNIT = "standard deviations"

_ROOM = 1.15
"""How far a panel reaches beyond the highest thing in it."""

_BASELINE_REACH = 2.0
"""A baseline may stretch a panel to so many times the curves of interest; beyond, it leaves the panel."""


@dataclass(frozen=True)
class Series:
    """One line of a panel and of the table."""

    label: str
    curve: dict[str, Any]
    """A CURVE of prediction.json."""
    look: Look
    is_baseline: bool = False


def baseline_series(curves: dict[str, Any], names: Sequence[str] = tuple(BASELINE_LOOKS)) -> list[Series]:
    """The baselines `names` of one field."""
    return [Series(name.replace("_", " "), curves[name], BASELINE_LOOKS[name], is_baseline=True) for name in names]


def floor_series(curve: dict[str, Any] | None) -> list[Series]:
    """The floor, if it was measured."""
    return [] if curve is None else [Series("floor", curve, FLOOR_LOOK)]


def draw_errors(axes: Axes, series: Sequence[Series], marks: Sequence[int], name: str) -> None:
    """Draw e_t of every series, with a 95 % band around those that are no baselines."""
    for one in series:
        _draw_line(axes, one, marks)
    horizon = max(len(one.curve["e"]) for one in series)
    axes.set(
        xlabel="step",
        ylabel=f"{name} error per step\n({UNIT})",
        xlim=(1 - 0.02 * horizon, 1.02 * horizon) if horizon > 1 else (0.5, 1.5),
        ylim=(0, panel_top(series)),
        xticks=_spaced(marks, horizon),
    )
    _note_leavers(axes, series)


def panel_top(series: Sequence[Series]) -> float:
    """The upper end of a panel: room for the curves of interest, and for the baselines that are not far above them."""
    highest = max(high for one in series if not one.is_baseline for _, high in one.curve["e_ci95"])
    baselines = [max(one.curve["e"]) for one in series if one.is_baseline]
    near = [height for height in baselines if height <= _BASELINE_REACH * highest]
    return _ROOM * max([highest, *near]) or 1.0


def _draw_line(axes: Axes, one: Series, marks: Sequence[int]) -> None:
    errors, look = one.curve["e"], one.look
    steps = np.arange(1, len(errors) + 1)
    single = len(errors) == 1
    axes.plot(
        steps,
        errors,
        label=one.label,
        color=look.color,
        linestyle=look.linestyle,
        marker=look.marker or ("_" if single else ""),
        markevery=[mark - 1 for mark in marks if mark <= len(errors)],
        linewidth=1.0 if one.is_baseline else None,
        zorder=2 if one.is_baseline else 3,
    )
    if one.is_baseline:
        return
    low, high = np.array(one.curve["e_ci95"]).T
    if single:
        axes.vlines(steps, low, high, color=look.color, linewidth=1)
    else:
        axes.fill_between(steps, low, high, color=look.color, alpha=0.18, linewidth=0)


def _note_leavers(axes: Axes, series: Sequence[Series]) -> None:
    """Point at where curves leave through the top, and say above the panel how high they go."""
    top = axes.get_ylim()[1]
    notes: list[str] = []
    for one in series:
        errors = np.array(one.curve["e"])
        if errors.max() <= top:
            continue
        first = int(np.argmax(errors > top))
        step = first + 1.0
        if first > 0:
            step -= (errors[first] - top) / (errors[first] - errors[first - 1])
        axes.plot([step], [top], marker=6, color=one.look.color, markersize=4, clip_on=False, label="_leaves")
        notes.append(f"\N{UPWARDS ARROW} {one.label}: {spell(errors.max())} at step {int(errors.argmax()) + 1}")
    if notes:
        place = {"transform": axes.transAxes, "ha": "right", "va": "bottom", "linespacing": 1.1}
        axes.text(1, 1.03, "\n".join(notes), fontsize=SMALL, color=NOTE_COLOR, **place)


def _spaced(marks: Sequence[int], horizon: int) -> list[int]:
    """The marks that have room for a number beside the later ones, and the last step."""
    ticks = [horizon]
    for mark in sorted(marks, reverse=True):
        if ticks[-1] - mark >= horizon / 12:
            ticks.append(mark)
    return sorted(ticks)


def spell(value: float, like: float | None = None) -> str:
    """`value` with about three digits, or with as many as `like` would have."""
    size = abs(value if like is None else like)
    if size >= 10_000 or 0 < size < 0.001:
        return f"{value:.1e}"
    digits = 0 if size >= 100 else 1 if size >= 10 else 2 if size >= 0.1 else 3
    return f"{value:.{digits}f}"


def spell_interval(mean: float, interval: Sequence[float]) -> str:
    """A number and its interval, as `4.71 [4.52, 4.90]`."""
    return f"{spell(mean)} [{spell(interval[0], mean)}, {spell(interval[1], mean)}]"


def draw_table(axes: Axes, columns: Mapping[str, Sequence[Series]], marks: Sequence[int], note: str) -> None:
    """Cumulated errors at the last two marks: a row a series, a pair of columns a field, and a note below."""
    shown = [str(mark) for mark in marks[-2:]]
    rows = {one.label: one.look for series in columns.values() for one in series}
    lefts = _column_lefts(rows, len(columns) * len(shown))
    bottom = len(rows) + 2
    axes.set(xlim=(0, 1), ylim=(table_rows(rows), 0))
    axes.axis("off")

    def write(left: float, row: float, text: str, **style: Any) -> None:
        axes.text(left, row + 0.5, text, va="center", fontsize=SMALL, **style)

    for row, (label, look) in enumerate(rows.items()):
        write(0, row + 2, label, color=look.color, fontweight="bold")
    for field, (name, series) in enumerate(columns.items()):
        own = lefts[field * len(shown) :]
        write(own[0], 0, name, fontweight="bold")
        axes.plot([own[0], own[len(shown)] - 0.01], [1, 1], color="0.6", linewidth=0.4)
        for mark, left in zip(shown, own, strict=False):
            write(left, 1, rf"$E_{{{mark}}}$")
            for one in series:
                if mark in one.curve["cumulative"]:
                    text = spell_interval(one.curve["cumulative"][mark], one.curve["ci95"][mark])
                    write(left, list(rows).index(one.label) + 2, text)
    for height, width in ((0, 0.8), (2, 0.5), (bottom, 0.8)):
        axes.plot([0, lefts[-1]], [height, height], color="black", linewidth=width, clip_on=False)
    axes.text(0, bottom + 0.4, note, va="top", fontsize=SMALL, color=NOTE_COLOR)


def _column_lefts(labels: Iterable[str], num_columns: int) -> list[float]:
    """Left edges of the columns of figures and the right edge of the last, as shares of the width."""
    first = min(max(len(label) for label in labels) * 0.0095 + 0.015, 0.45)
    pitch = min((1 - first) / num_columns, 0.2)
    return [first + column * pitch for column in range(num_columns + 1)]


def table_rows(labels: Collection[str]) -> float:
    """The height of a table of `labels` with its head and a note of two lines, in rows."""
    return len(labels) + 4.2


ROW_HEIGHT = 0.135
"""Inches of a row of the table."""
