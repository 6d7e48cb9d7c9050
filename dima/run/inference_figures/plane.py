"""True and inferred states in their common t-SNE plane: cells coloured by time, and surfaces of density.

As Figures 5 and 11 of "GlobeDiff: State Diffusion Process for Partial Observability in Multi-Agent Systems".
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colormaps, rc_context
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import PolyCollection
from matplotlib.colors import Normalize, PowerNorm
from matplotlib.figure import Figure
from numpy.typing import NDArray

from dima.run.figure_style import RC, WIDTH, save
from dima.run.inference_figures.looks import describe, run_looks

_COLORS = "cividis"
"""Even in lightness, and the same to people with common colour blindness."""

_MOST_COLUMNS = 4
_GRID = 60
"""Lines of the density surfaces along each axis."""

Points = NDArray[np.float64]


def plot_embedding(record: dict[str, Any], path: Path) -> Figure | None:
    """Voronoi cells of the true states, and of those that each agent (a row) infers by each run (a column).

    Inference is right where a panel looks like the first one. None, with no file, where nothing was embedded.
    """
    embedding = record["embedding"]
    if embedding is None:
        return None
    labels, agents, looks = list(embedding["runs"]), embedding["agents"], run_looks(record)
    window, times = _window(embedding), Normalize(min(embedding["step"]), max(embedding["step"]))
    colors = colormaps[_COLORS](times(np.array(embedding["step"])))
    with rc_context(RC):
        side = min(1.75, 2 * WIDTH / (1 + len(labels)))
        size = (max(WIDTH / 2, 0.9 + side * (1 + len(labels))), 0.55 + 0.93 * side * len(agents))
        figure = Figure(figsize=size, layout="constrained")
        panels = figure.subplots(len(agents), 1 + len(labels), squeeze=False)
        _draw_cells(panels[0, 0], np.array(embedding["truth"]), colors, window)
        panels[0, 0].set_title("true states")
        for axes in panels[1:, 0]:
            axes.axis("off")
        for column, label in enumerate(labels, start=1):
            panels[0, column].set_title(label, color=looks[label].color)
            for row, agent in enumerate(agents):
                _draw_cells(panels[row, column], np.array(embedding["runs"][label][row]), colors, window)
                if column == 1:
                    panels[row, column].set_ylabel(f"inferred by agent {agent}")
        scale = ScalarMappable(times, _COLORS)
        figure.colorbar(scale, ax=panels, label="step of the episode", shrink=min(1.0, 1.6 / len(agents)), aspect=25)
        kept = len(embedding["step"])
        figure.suptitle(f"{describe(record)}; {kept} of them and one draw each, in one t-SNE plane", fontsize=8)
        save(figure, path)
    return figure


def plot_density(record: dict[str, Any], path: Path) -> Figure | None:
    """Surfaces of the density of true states, and of those that all agents infer by each run, over the same plane.

    Gaussian kernels of one width for all. None, with no file, where nothing was embedded.
    """
    embedding = record["embedding"]
    if embedding is None:
        return None
    looks, window = run_looks(record), _window(embedding)
    truth = np.array(embedding["truth"])
    # Half of Scott's width, which is meant for one Gaussian and would melt modes into each other.
    width = 0.5 * float(truth.std(axis=0).mean()) * len(truth) ** (-1 / 6)
    clouds = {"true states": truth} | {label: np.concatenate(runs) for label, runs in embedding["runs"].items()}
    surfaces = {name: kernel_density(np.array(cloud), window, width) for name, cloud in clouds.items()}
    top = max(float(surface.max()) for surface in surfaces.values())
    rows = math.ceil(len(surfaces) / _MOST_COLUMNS)
    columns = math.ceil(len(surfaces) / rows)
    with rc_context(RC):
        figure = Figure(figsize=(max(WIDTH / 2, 2.1 * columns), 0.35 + 1.9 * rows), layout="constrained")
        for place, (name, surface) in enumerate(surfaces.items()):
            axes: Any = figure.add_subplot(rows, columns, place + 1, projection="3d")
            _draw_surface(axes, surface / top, window)
            axes.set_title(name, color=looks[name].color if name in looks else "black", pad=0)
        figure.suptitle(
            f"{describe(record)};\ndensity over their t-SNE plane, relative to the highest peak", fontsize=8
        )
        save(figure, path)
    return figure


def voronoi_cells(points: Points, window: tuple[float, float, float, float]) -> list[Points]:
    """The corners [corners,2] of the cell of each of `points` [P,2]; all are finite, and reach beyond `window`.

    Equal points share one cell: the first of them has it, the others have none ([0,2]).
    """
    from scipy.spatial import Voronoi

    unique, first = np.unique(points, axis=0, return_index=True)
    low, high = np.array(window[::2]), np.array(window[1::2])
    middle, reach = (low + high) / 2, 10 * (high - low)
    far = middle + reach * np.array([[-1, 0], [1, 0], [0, -1], [0, 1]])
    diagram = Voronoi(np.concatenate([unique, far]))
    cells = [np.empty((0, 2)) for _ in points]
    for number, region in enumerate(diagram.point_region[: len(unique)]):
        cells[first[number]] = diagram.vertices[diagram.regions[region]]
    return cells


def kernel_density(points: Points, window: tuple[float, float, float, float], width: float) -> Points:
    """Density of `points` [P,2] by Gaussian kernels of this width, on a grid over `window`: [y, x], integral 1."""
    x, y = np.linspace(window[0], window[1], _GRID), np.linspace(window[2], window[3], _GRID)
    across, along = (np.exp(-0.5 * ((axis[:, None] - points[:, i]) / width) ** 2) for i, axis in enumerate((x, y)))
    return along @ across.T / (len(points) * 2 * np.pi * width**2)


def _window(embedding: dict[str, Any]) -> tuple[float, float, float, float]:
    """(left, right, low, high) of a square that holds every point of every panel."""
    clouds = [embedding["truth"], *(cloud for run in embedding["runs"].values() for cloud in run)]
    points = np.concatenate([np.array(cloud) for cloud in clouds])
    low, high = points.min(axis=0), points.max(axis=0)
    (x, y), half = (low + high) / 2, 0.53 * float((high - low).max()) + 1e-9
    return (x - half, x + half, y - half, y + half)


def _draw_cells(axes: Axes, points: Points, colors: Points, window: tuple[float, float, float, float]) -> None:
    cells = voronoi_cells(points, window)
    shown = [number for number, cell in enumerate(cells) if len(cell)]
    look = {"facecolors": colors[shown], "edgecolors": "white", "linewidths": 0.25}
    axes.add_collection(PolyCollection([cells[number] for number in shown], **look))
    axes.plot(points[:, 0], points[:, 1], ".", color="black", markersize=2.0, markeredgewidth=0)
    axes.set(xlim=window[:2], ylim=window[2:], xticks=[], yticks=[], aspect="equal")
    for spine in axes.spines.values():
        spine.set_visible(True)


def _draw_surface(axes: Any, height: Points, window: tuple[float, float, float, float]) -> None:
    x, y = np.meshgrid(*(np.linspace(window[i], window[i + 1], _GRID) for i in (0, 2)))
    fine = {"rcount": _GRID, "ccount": _GRID, "linewidth": 0, "antialiased": False}
    # The square root of the height, so that low ground shows its form too.
    axes.plot_surface(x, y, height, cmap=_COLORS, norm=PowerNorm(0.5, 0, 1), **fine)
    axes.set(zlim=(0, 1), xticks=[], yticks=[], zticks=[0, 0.5, 1], xlabel="t-SNE 1", ylabel="t-SNE 2")
    axes.xaxis.labelpad = axes.yaxis.labelpad = -12
    axes.tick_params(axis="z", pad=-1)
    axes.view_init(elev=38, azim=-60)
    axes.set_box_aspect((1, 1, 0.55), zoom=0.95)
