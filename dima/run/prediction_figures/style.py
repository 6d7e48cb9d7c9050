"""What all figures share: size, type, one fixed colour an order, how a file is written.

The colours are Okabe and Ito's, which people with any common colour blindness tell apart; the markers tell them apart
in grey as well.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from worldmodel.atomic import write_whole_binary

WIDTH = 7.2
"""Inches: the text width of a two-column paper."""

MAX_HEIGHT = 9.2
"""Inches: the text height of a page."""

RC: Any = {
    "font.size": 8,
    "axes.labelsize": 8,
    "axes.titlesize": 8,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "lines.linewidth": 1.3,
    "lines.markersize": 3.6,
    "legend.frameon": False,
    "legend.handlelength": 2.4,
    "pdf.fonttype": 42,  # letters stay letters, which journals ask for
    "svg.fonttype": "none",
    "svg.hashsalt": "prediction",
}

SMALL = 6.5
"""Points: notes and tables."""

NOTE_COLOR = "0.35"

_LETTER = 0.058
"""Inches of a letter in the legend, on average."""

_LETTERS_A_LINE = 100
"""Letters of the line above a figure that fit into its width."""

_DPI = 160


@dataclass(frozen=True)
class Look:
    """How one curve, bar or histogram is drawn."""

    color: str
    marker: str = ""
    linestyle: Any = "-"


_LOOKS = (
    Look("#0072B2", "o"),
    Look("#D55E00", "s"),
    Look("#009E73", "^"),
    Look("#CC79A7", "D"),
    Look("#56B4E9", "v"),
    Look("#E69F00", "P"),
    Look("#332288", "X"),
    Look("#882255", "h"),
)

_FIXED = {"descending": 0, "ascending": 1, "cycle": 2, "random": 3, "any": 0}
"""Which look an order has in every figure."""

BASELINE_LOOKS = {
    "persistence": Look("0.58", linestyle=(0, (5, 2))),
    "no_action": Look("0.25", linestyle=(0, (2.5, 1.5))),
    "linear": Look("0.45", linestyle=(0, (6, 1.5, 1, 1.5))),
}

FLOOR_LOOK = Look("black", linestyle=":")

FIELD_NAMES = {"state": "state", "obs": "observation", "reward": "reward"}

BASELINES_OF = {"state": "baselines", "obs": "baselines_obs", "reward": "baselines_reward"}
"""Under which key of prediction.json the baselines of a field are."""


def order_looks(orders: Sequence[str]) -> dict[str, Look]:
    """A look for each order: the named orders always have the same, lists of agents take what is left."""
    free = [look for index, look in enumerate(_LOOKS) if index not in _FIXED.values()]
    others = [order for order in orders if order not in _FIXED]
    return {order: _LOOKS[_FIXED[order]] if order in _FIXED else _nth(free, others.index(order)) for order in orders}


def model_looks(labels: Sequence[str]) -> dict[str, Look]:
    """A look for each of several models; beyond eight, the colours come again with broken lines."""
    return {label: _nth(_LOOKS, index) for index, label in enumerate(labels)}


def _nth(looks: Sequence[Look], index: int) -> Look:
    styles = ("-", "--", "-.", ":")
    look = looks[index % len(looks)]
    return Look(look.color, look.marker, styles[index // len(looks) % len(styles)])


def describe(prediction: dict[str, Any]) -> str:
    """Task, model and its options, for the line above a figure."""
    said = {key: value for key, value in prediction["options"].items() if key != "order" and value is not None}
    options = [f"{key.replace('_', ' ')} {value}" for key, value in said.items()]
    text = f"{prediction['env']}, {prediction['model']}" + (f" ({', '.join(options)})" if options else "")
    return textwrap.fill(text, _LETTERS_A_LINE)


def head(figure: Figure, title: str, panels: Sequence[Axes]) -> None:
    """`title` above everything and below it one legend for all `panels`, each label once."""
    handles: dict[str, Any] = {}
    for axes in panels:
        handles |= dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
    longest = max(map(len, handles))
    rows = math.ceil(len(handles) / min(5, max(1, int(WIDTH / (0.75 + _LETTER * longest)))))
    figure.legend(
        handles.values(),
        handles.keys(),
        title=title,
        title_fontsize=8,
        loc="outside upper center",
        ncols=math.ceil(len(handles) / rows),
        columnspacing=1.4,
    )


def save(figure: Figure, path: Path) -> None:
    """Write `figure` to `path`, whole or not at all; the suffix (.png, .pdf, .svg) chooses the format.

    Raises:
        ValueError: when matplotlib cannot write such a file.
    """
    kind = path.suffix.removeprefix(".")
    write_whole_binary(path, lambda file: figure.savefig(file, dpi=_DPI, format=kind))
