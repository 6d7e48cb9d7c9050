"""Figures of inference hold the numbers of the record, and are not blank."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib.image
import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from dima.run.infer_tables import grouped, print_inference
from dima.run.inference_figures import plot_density, plot_embedding, plot_fan, plot_ranks, plot_scores
from dima.run.inference_figures.calibration import bar_edges
from dima.run.inference_figures.plane import kernel_density, voronoi_cells
from tests.support.inference_record import inference_record

WINDOW = (-4.0, 4.0, -4.0, 4.0)


def whole(figure: Figure | None, path: Path) -> Figure:
    """The figure, whose file is a picture with something in it."""
    assert figure is not None
    assert float(np.std(matplotlib.image.imread(path))) > 0.03
    return figure


def titled(figure: Figure, title: str) -> Axes:
    (axes,) = (axes for axes in figure.axes if axes.get_title() == title)
    return axes


def test_scores_stand_in_groups_of_what_is_read(tmp_path: Path) -> None:
    record = inference_record()
    figure = whole(plot_scores(record, tmp_path / "a.png"), tmp_path / "a.png")
    errors = figure.axes[0]
    names = [label.get_text() for label in errors.get_yticklabels()]
    assert names == [
        "own observation", "globediff", "mlp", "(linear)", "the true state", "oracle",
        "all agents' observations", "joint", "yardsticks", "(mean)", "(exact law)",
    ]  # fmt: skip
    marks: list[Line2D] = [line for line in errors.get_lines() if line.get_ydata()[0] == names.index("mlp")]  # type: ignore[index]
    assert sorted(float(np.ravel(mark.get_xdata())[0]) for mark in marks) == pytest.approx([0.6, 1.2])
    assert [text.get_text() for text in errors.texts] == ["infers no state"]


def test_the_table_compares_like_with_like(capsys: pytest.CaptureFixture[str]) -> None:
    record = inference_record()
    assert list(grouped(record)) == ["own observation", "the true state", "all agents' observations", "yardsticks"]
    print_inference(record)
    shown = capsys.readouterr().out
    for text in ("globediff", "(linear)", "0.400 [0.36, 0.44]", "40 %", "80 %", "1.50", "joint: infers no state"):
        assert text in shown
    assert "globediff: latent of 0.300 [0.27, 0.33] nats" in shown


def test_every_run_and_agent_has_its_cells_in_the_same_window(tmp_path: Path) -> None:
    figure = whole(plot_embedding(inference_record(), tmp_path / "a.png"), tmp_path / "a.png")
    panels = [axes for axes in figure.axes if any(isinstance(c, PolyCollection) for c in axes.collections)]
    assert [axes.get_title() for axes in panels if axes.get_title()] == ["true states", "globediff", "mlp", "oracle"]
    assert len(panels) == 1 + 3 * 2
    assert len({(axes.get_xlim(), axes.get_ylim()) for axes in panels}) == 1


def test_cells_are_nearest_neighbours_and_finite() -> None:
    points = np.random.default_rng(0).normal(size=(30, 2))
    cells = voronoi_cells(points, WINDOW)
    assert all(np.isfinite(cell).all() and len(cell) >= 3 for cell in cells)
    for point, cell in zip(points, cells, strict=True):
        for place in 0.01 * cell + 0.99 * cell.mean(axis=0):
            assert np.linalg.norm(points - place, axis=1).argmin() == np.linalg.norm(points - point, axis=1).argmin()


def test_equal_points_share_a_cell() -> None:
    points = np.array([[0.0, 0.0], [1.0, 1.0], [0.0, 0.0]])
    assert [len(cell) > 0 for cell in voronoi_cells(points, WINDOW)].count(True) == 2


def test_densities_are_those_of_a_naive_loop_and_integrate_to_one() -> None:
    points = np.random.default_rng(0).normal(size=(20, 2))
    density = kernel_density(points, WINDOW, 0.3)
    axis = np.linspace(-4, 4, len(density))
    expected = sum(np.exp(-((axis[10] - x) ** 2 + (axis[25] - y) ** 2) / (2 * 0.3**2)) for x, y in points)
    assert density[25, 10] == pytest.approx(expected / (20 * 2 * np.pi * 0.3**2))
    assert float(density.sum()) * (axis[1] - axis[0]) ** 2 == pytest.approx(1, abs=0.01)


def test_density_has_a_surface_for_the_truth_and_every_run(tmp_path: Path) -> None:
    figure = whole(plot_density(inference_record(), tmp_path / "a.png"), tmp_path / "a.png")
    assert [axes.get_title() for axes in figure.axes] == ["true states", "globediff", "mlp", "oracle"]
    assert all(axes.name == "3d" for axes in figure.axes)


def test_fans_show_truth_median_and_bands(tmp_path: Path) -> None:
    record = inference_record()
    figure = whole(plot_fan(record, tmp_path / "a.png"), tmp_path / "a.png")
    assert len(figure.axes) == 3 * 2, "none for the oracle, whose draws are the truth"
    top = titled(figure, "globediff")
    assert top.get_ylabel() == "worst: state[3]"
    median, truth = top.get_lines()
    assert np.asarray(truth.get_ydata()).tolist() == record["fan"]["truth"][0]
    assert np.asarray(median.get_ydata()).tolist() == [step[2] for step in record["fan"]["runs"]["globediff"][0]]
    assert np.asarray(truth.get_xdata()).tolist() == list(range(5, 25))
    assert len(top.collections) == 2


def test_ranks_have_a_panel_for_every_run_that_draws_and_agent(tmp_path: Path) -> None:
    figure = whole(plot_ranks(inference_record(), tmp_path / "a.png"), tmp_path / "a.png")
    assert len(figure.axes) == 2 * 2
    heights: list[float] = [bar.get_height() for bar in figure.axes[0].patches if bar.get_width() < 2]  # type: ignore[attr-defined]
    assert heights[:3] == pytest.approx([2 * 9 / 12, 0.0, 9 / 12])


@pytest.mark.parametrize(("ranks", "bars"), [(3, 3), (9, 9), (65, 13), (33, 11), (17, 13), (257, 13)])
def test_neighbouring_ranks_are_counted_together(ranks: int, bars: int) -> None:
    edges = bar_edges(ranks)
    assert (len(edges) - 1, edges[0], edges[-1]) == (bars, 0, ranks)
    assert np.ptp(np.diff(edges)) <= 1


def test_what_was_not_measured_is_not_drawn(tmp_path: Path) -> None:
    record: dict[str, Any] = inference_record()
    record.update(embedding=None, fan=None, runs={"joint": record["runs"]["joint"]})
    for plot in (plot_density, plot_embedding, plot_fan, plot_ranks):
        assert plot(record, tmp_path / "a.png") is None
    known = inference_record()
    known["runs"] = {"oracle": known["runs"]["oracle"]}
    assert plot_fan(known, tmp_path / "a.png") is None
    assert plot_ranks(known, tmp_path / "a.png") is None
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("suffix", [".pdf", ".svg"])
def test_other_formats(suffix: str, tmp_path: Path) -> None:
    plot_scores(inference_record(), tmp_path / f"a{suffix}")
    assert (tmp_path / f"a{suffix}").stat().st_size > 1000
