"""What the figures of all commands share: size, type, colours, the legend, how a file is written.

The colours are Okabe and Ito's, which people with any common colour blindness tell apart; the markers tell them apart
in grey as well. Knows nothing of what is drawn.
"""

from __future__ import annotations

import math
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

_DPI = 160


@dataclass(frozen=True)
class Look:
    """How one curve, bar or histogram is drawn."""

    color: str
    marker: str = ""
    linestyle: Any = "-"


LOOKS = (
    Look("#0072B2", "o"),
    Look("#D55E00", "s"),
    Look("#009E73", "^"),
    Look("#CC79A7", "D"),
    Look("#56B4E9", "v"),
    Look("#E69F00", "P"),
    Look("#332288", "X"),
    Look("#882255", "h"),
)
"""In the order in which they are given out."""


def model_looks(labels: Sequence[str]) -> dict[str, Look]:
    """A look for each of several models; beyond eight, the colours come again with broken lines."""
    return {label: nth_look(LOOKS, index) for index, label in enumerate(labels)}


def nth_look(looks: Sequence[Look], index: int) -> Look:
    """The look number `index`; beyond the last, they come again with other lines."""
    styles = ("-", "--", "-.", ":")
    look = looks[index % len(looks)]
    return Look(look.color, look.marker, styles[index // len(looks) % len(styles)])


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
