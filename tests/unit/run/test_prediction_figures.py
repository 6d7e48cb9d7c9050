"""Figures hold the numbers of the record: read back from what matplotlib was told to draw."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PolyCollection
from matplotlib.colors import to_hex
from matplotlib.container import BarContainer
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.text import Text

from dima.run.prediction_figures import plot_errors, plot_fan, plot_gains, plot_overlay, plot_ranks
from dima.run.prediction_figures.style import order_looks
from tests.support.prediction_record import ALL_ORDERS, prediction_record

BASELINES = ("persistence", "no action", "linear")


def lines(axes: Axes) -> dict[str, Line2D]:
    """The labelled curves of a panel."""
    return {str(line.get_label()): line for line in axes.get_lines() if not str(line.get_label()).startswith("_")}


def xdata(line: Line2D) -> list[float]:
    return np.asarray(line.get_xdata()).tolist()


def ydata(line: Line2D) -> list[float]:
    return np.asarray(line.get_ydata()).tolist()


def bars_by_label(axes: Axes) -> dict[str, list[Rectangle]]:
    """The bars of a panel, by the label of their group."""
    return {
        str(container.get_label()): list(container.patches)
        for container in axes.containers
        if isinstance(container, BarContainer)
    }


def heights(bars: list[Rectangle]) -> list[float]:
    return [bar.get_height() for bar in bars]


def panels(figure: Figure) -> list[Axes]:
    """The axes that show curves or bars; the table has no frame."""
    return [axes for axes in figure.axes if axes.axison]


def drawn_texts(figure: Figure) -> Iterator[Text]:
    """Everything written on the page; ticks beyond an axis' limits are artists, but not drawn."""
    yield from figure.texts
    for legend in figure.legends:
        yield from [legend.get_title(), *legend.get_texts()]
    for axes in figure.axes:
        yield from [axes.title, *axes.texts]
        for axis in [axes.xaxis, axes.yaxis] if axes.axison else []:
            yield axis.label
            low, high = sorted(axis.get_view_interval())
            yield from [tick.label1 for tick in axis.get_major_ticks() if low <= tick.get_loc() <= high]


def overlapping_texts(figure: Figure) -> Iterator[tuple[str, str]]:
    """Pairs of texts that lie on each other, and texts that leave the page (with `page`)."""
    figure.draw_without_rendering()
    visible = [text for text in drawn_texts(figure) if text.get_visible() and text.get_text().strip()]
    boxes = [(text.get_text(), text.get_window_extent().padded(-1)) for text in visible]
    for index, (name, box) in enumerate(boxes):
        if not (figure.bbox.x0 <= box.x0 and box.x1 <= figure.bbox.x1 and box.y0 >= 0 and box.y1 <= figure.bbox.y1):
            yield name, "page"
        yield from [(name, other) for other, second in boxes[:index] if box.overlaps(second)]


def test_curves_are_the_records(tmp_path: Path) -> None:
    record = prediction_record()
    figure = plot_errors(record, tmp_path / "errors.png")
    assert (tmp_path / "errors.png").read_bytes().startswith(b"\x89PNG")
    sources = {"state": "baselines", "obs": "baselines_obs", "reward": "baselines_reward"}
    for axes, (field, baselines) in zip(panels(figure), sources.items(), strict=True):
        drawn = lines(axes)
        assert set(drawn) == {*ALL_ORDERS, *BASELINES, *(["floor"] if field == "obs" else [])}
        for order in ALL_ORDERS:
            assert ydata(drawn[order]) == record["orders"][order][field]["e"]
            assert xdata(drawn[order]) == list(range(1, 21))
        for name in BASELINES:
            assert ydata(drawn[name]) == record[baselines][name.replace(" ", "_")]["e"]
            assert drawn[name].is_dashed()
        name = "observation" if field == "obs" else field
        assert axes.get_ylabel() == f"{name} error per step\n(standard deviations)"
        assert axes.get_xlabel() == "step"
    assert lines(panels(figure)[1])["floor"].get_linestyle() == ":"


def test_bands_are_the_records_intervals(tmp_path: Path) -> None:
    record = prediction_record(orders=["cycle"])
    axes = panels(plot_errors(record, tmp_path / "errors.png"))[0]
    (band,) = [artist for artist in axes.collections if isinstance(artist, PolyCollection)]
    points = {tuple(point) for point in np.asarray(band.get_paths()[0].vertices).tolist()}
    for step, (low, high) in enumerate(record["orders"]["cycle"]["state"]["e_ci95"], start=1):
        assert {(step, low), (step, high)} <= points


def test_the_table_holds_the_cumulated_errors(tmp_path: Path) -> None:
    record = prediction_record(orders=["random"])
    curve = record["orders"]["random"]["reward"]
    curve["cumulative"] |= {"15": 4.711, "20": 123.4}
    curve["ci95"] |= {"15": [4.52, 4.901], "20": [99.6, 140.0]}
    figure = plot_errors(record, tmp_path / "errors.png")
    written = [text.get_text() for text in drawn_texts(figure)]
    assert "4.71 [4.52, 4.90]" in written
    assert "123 [100, 140]" in written
    assert written.count("$E_{15}$") == written.count("$E_{20}$") == 3


def test_an_order_always_has_its_colour(tmp_path: Path) -> None:
    some = lines(panels(plot_errors(prediction_record(orders=["1,2,2,1", "random"]), tmp_path / "errors.png"))[0])
    looks = order_looks(ALL_ORDERS)
    assert len({look.color for look in looks.values()}) == len({look.marker for look in looks.values()}) == 4
    assert some["random"].get_color() == looks["random"].color
    assert some["1,2,2,1"].get_color() not in [look.color for look in looks.values()]


def test_a_huge_baseline_leaves_the_panel_and_is_named(tmp_path: Path) -> None:
    record = prediction_record(linear_growth=0.5)
    axes = panels(plot_errors(record, tmp_path / "errors.png"))[0]
    top = axes.get_ylim()[1]
    highest = max(high for order in record["orders"].values() for _, high in order["state"]["e_ci95"])
    near = max(record["baselines"]["no_action"]["e"])
    linear = record["baselines"]["linear"]["e"]
    assert near < 2 * highest < max(record["baselines"]["persistence"]["e"]) < max(linear)
    assert top == pytest.approx(1.15 * near)
    (note,) = [text.get_text() for text in axes.texts]
    persistence, exploded = note.splitlines()
    assert persistence.startswith("\N{UPWARDS ARROW} persistence: ")
    assert exploded == f"\N{UPWARDS ARROW} linear: {linear[-1]:.0f} at step 20"
    (mark,) = [
        line
        for line in axes.get_lines()
        if line.get_label() == "_leaves" and line.get_color() == lines(axes)["linear"].get_color()
    ]
    assert ydata(mark) == [top]
    assert np.interp(xdata(mark)[0], range(1, 21), linear) == pytest.approx(top)


def test_nothing_is_noted_where_all_fits(tmp_path: Path) -> None:
    record = prediction_record(level=0.3, orders=["descending"])
    record["baselines"]["persistence"] = record["baselines"]["no_action"]
    assert not panels(plot_errors(record, tmp_path / "errors.png"))[0].texts


def test_one_step_is_a_point_with_its_interval(tmp_path: Path) -> None:
    record = prediction_record(horizon=1, orders=["any"])
    axes = panels(plot_errors(record, tmp_path / "errors.png"))[0]
    curve = record["orders"]["any"]["state"]
    assert lines(axes)["any"].get_marker() == "o"
    (interval,) = [artist for artist in axes.collections if isinstance(artist, LineCollection)]
    np.testing.assert_allclose(interval.get_segments()[0][:, 1], curve["e_ci95"][0])


def test_a_model_without_a_state_has_no_state_panel(tmp_path: Path) -> None:
    figure = plot_errors(prediction_record(with_state=False, orders=["any"]), tmp_path / "errors.png")
    assert [axes.get_ylabel().split()[0] for axes in panels(figure)] == ["observation", "reward"]
    assert all("floor" not in lines(axes) for axes in panels(figure))


@pytest.mark.parametrize("num_agents", [1, 13])
def test_a_bar_for_every_agent_and_order(num_agents: int, tmp_path: Path) -> None:
    record = prediction_record(num_agents=num_agents)
    figure = plot_gains(record, tmp_path / "gains.png")
    assert figure is not None
    lying = num_agents > 12
    for axes, key in zip(figure.axes, ("action_gain", "action_gain_r2"), strict=True):
        bars = bars_by_label(axes)
        assert set(bars) == set(ALL_ORDERS)
        for order, group in bars.items():
            sizes = [bar.get_width() for bar in group] if lying else heights(group)
            assert sizes == record["orders"][order][key]
        ends = [xdata(line) if lying else ydata(line) for line in axes.get_lines()]
        assert ends == [[1, 1], [0, 0]]
    intervals = [artist for artist in figure.axes[0].collections if isinstance(artist, LineCollection)]
    for order, artist in zip(ALL_ORDERS, intervals, strict=True):
        ends = np.array(artist.get_segments())[:, :, 0 if lying else 1]
        np.testing.assert_allclose(ends, record["orders"][order]["action_gain_ci95"])


def test_a_bar_that_leaves_the_panel_has_its_value(tmp_path: Path) -> None:
    record = prediction_record()
    record["orders"]["cycle"]["action_gain"][1] = 7.3
    record["orders"]["random"]["action_gain_r2"][0] = -14.2
    figure = plot_gains(record, tmp_path / "gains.png")
    assert figure is not None
    assert [[text.get_text().strip() for text in axes.texts] for axes in figure.axes] == [["7.30"], ["-14.2"]]
    assert figure.axes[0].get_ylim()[1] < 3


def test_the_fan_is_the_records(tmp_path: Path) -> None:
    orders = ("random", "cycle")
    record = prediction_record(samples=3, orders=orders)
    figure = plot_fan(record, tmp_path / "fan.png")
    assert figure is not None
    grid = np.array(figure.axes).reshape(4, 2)
    for row, dim in enumerate(record["fan"]["dims"]):
        assert grid[row, 0].get_ylabel() == f"state[{dim}]"
        for column, order in enumerate(orders):
            *imagined, truth = grid[row, column].get_lines()
            assert to_hex(truth.get_color()) == "#000000"
            assert ydata(truth) == record["fan"]["truth"][row]
            assert [ydata(line) for line in imagined] == record["fan"]["orders"][order][row]


def test_a_fan_that_explodes_does_not_hide_the_truth(tmp_path: Path) -> None:
    record = prediction_record(orders=["cycle"])
    record["fan"]["orders"]["cycle"][0][0][-1] = 1e6
    figure = plot_fan(record, tmp_path / "fan.png")
    assert figure is not None
    low, high = figure.axes[0].get_ylim()
    truth = record["fan"]["truth"][0]
    assert low < min(truth)
    assert high <= (max(truth) + 3.0) * 1.5


def test_ranks_are_the_records(tmp_path: Path) -> None:
    record = prediction_record(orders=["cycle", "random"], samples=7)
    record["orders"]["random"]["spread"]["state"]["ranks"]["20"]["p_value"] = 1e-9
    figure = plot_ranks(record, tmp_path / "ranks.png")
    assert figure is not None
    grid = np.array(figure.axes).reshape(2, 4)
    for row, order in enumerate(("cycle", "random")):
        for column, mark in enumerate(("1", "5", "15", "20")):
            axes, ranks = grid[row, column], record["orders"][order]["spread"]["state"]["ranks"][mark]
            (bars,) = bars_by_label(axes).values()
            assert heights(bars) == ranks["histogram"]
            assert [bar.get_x() + bar.get_width() / 2 for bar in bars] == pytest.approx(list(range(8)))
            (uniform,) = axes.get_lines()
            assert ydata(uniform) == [sum(ranks["histogram"]) / 8] * 2
            (p_value,) = [text.get_text() for text in axes.texts]
            assert p_value == ("p < 0.001" if ranks["p_value"] < 0.001 else f"p = {ranks['p_value']:.3f}")


def test_ranks_of_observations_where_there_is_no_state(tmp_path: Path) -> None:
    record = prediction_record(orders=["any"], with_state=False)
    figure = plot_ranks(record, tmp_path / "ranks.png")
    assert figure is not None
    (bars,) = bars_by_label(figure.axes[0]).values()
    assert heights(bars) == record["orders"]["any"]["spread"]["obs"]["ranks"]["1"]["histogram"]
    assert "rank of the true observation among 10 samples" in [text.get_text() for text in drawn_texts(figure)]


def test_what_was_not_measured_is_not_drawn(tmp_path: Path) -> None:
    file = tmp_path / "none.png"
    assert plot_gains(prediction_record(with_gains=False), file) is None
    assert plot_fan(prediction_record(with_state=False), file) is None
    assert plot_ranks(prediction_record(samples=1), file) is None
    assert not file.exists()


def test_models_show_their_own_order_or_the_best(tmp_path: Path) -> None:
    own = prediction_record(num_agents=3)
    own["options"]["order"] = "cycle"
    best = prediction_record(num_agents=3, seed=1)
    best["options"] = {}
    listed = prediction_record(orders=["cycle", "1,2,3,1"], num_agents=3)
    listed["options"]["order"] = "1,2,3,1"
    figure = plot_overlay({"a": own, "b": best, "c": listed}, tmp_path / "overlay.png")
    errors, gains = panels(figure)
    totals = {name: order["state"]["cumulative"]["20"] for name, order in best["orders"].items()}
    expected = {
        "a (cycle)": own["orders"]["cycle"],
        f"b ({min(totals, key=totals.__getitem__)})": best["orders"][min(totals, key=totals.__getitem__)],
        "c (1,2,3,1)": listed["orders"]["1,2,3,1"],
    }
    drawn = lines(errors)
    assert set(drawn) == {*expected, "persistence", "linear of a", "linear of b", "linear of c"}
    bars = bars_by_label(gains)
    for label, order in expected.items():
        assert ydata(drawn[label]) == order["state"]["e"]
        assert heights(bars[label]) == order["action_gain"]
        assert to_hex(bars[label][0].get_facecolor()) == to_hex(drawn[label].get_color())


def test_models_of_different_horizons_and_kinds(tmp_path: Path) -> None:
    models = {"long": prediction_record(horizon=30), "blind": prediction_record(with_state=False, with_gains=False)}
    figure = plot_overlay(models, tmp_path / "overlay.png")
    errors, gains = panels(figure)
    assert errors.get_ylabel().startswith("observation")
    drawn = lines(errors)
    assert {label: len(ydata(line)) for label, line in drawn.items()}["long (descending)"] == 30
    assert {label for label in drawn if "floor" in label} == {"floor of long"}  # the other decodes no states
    assert list(bars_by_label(gains)) == ["long (descending)"]


def test_each_model_is_held_against_its_own_floor_and_linear_model(tmp_path: Path) -> None:
    """Both depend on the model: on its decoder and on the length of its context."""
    models = {"a": prediction_record(), "b": prediction_record(seed=1)}
    for record in models.values():  # shown by observations, where there are floors
        for order in record["orders"].values():
            order["state"] = None
    drawn = lines(panels(plot_overlay(models, tmp_path / "own.png"))[0])
    for label, record in models.items():
        color = drawn[f"{label} (descending)"].get_color()
        for name, curve in (("linear", record["baselines_obs"]["linear"]), ("floor", record["floor"]["obs"])):
            assert ydata(drawn[f"{name} of {label}"]) == curve["e"]
            assert drawn[f"{name} of {label}"].get_color() == color
    models["b"]["baselines_obs"], models["b"]["floor"] = models["a"]["baselines_obs"], models["a"]["floor"]
    drawn = lines(panels(plot_overlay(models, tmp_path / "common.png"))[0])
    assert {label for label in drawn if " (" not in label} == {"persistence", "linear", "floor"}


def test_predictions_that_do_not_compare_are_refused(tmp_path: Path) -> None:
    one, other = prediction_record(), prediction_record()
    other["data"]["fingerprint"] = "0000"
    with pytest.raises(ValueError, match="different data do not compare: 0000, 5f1e"):
        plot_overlay({"a": one, "b": other}, tmp_path / "overlay.png")
    with pytest.raises(ValueError, match="different tasks"):
        plot_overlay({"a": one, "b": prediction_record(num_agents=3)}, tmp_path / "overlay.png")
    with pytest.raises(ValueError, match="at least one"):
        plot_overlay({}, tmp_path / "overlay.png")
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(("suffix", "start"), [(".pdf", b"%PDF"), (".svg", b"<?xml")])
def test_the_suffix_chooses_the_format(suffix: str, start: bytes, tmp_path: Path) -> None:
    file = tmp_path / f"gains{suffix}"
    plot_gains(prediction_record(), file)
    assert file.read_bytes().startswith(start)
    assert list(tmp_path.iterdir()) == [file]


def test_no_text_lies_on_another_or_off_the_page(tmp_path: Path) -> None:
    file = tmp_path / "figure.png"
    exploding = prediction_record(linear_growth=0.3)
    seeds = {f"progressive, seed {seed}": prediction_record(seed=seed) for seed in range(6)}
    figures = [
        plot_errors(exploding, file),
        plot_gains(prediction_record(num_agents=12), file),
        plot_fan(prediction_record(orders=["any"]), file),
        plot_ranks(prediction_record(orders=["any", "cycle"]), file),
        plot_overlay(seeds, file),
    ]
    for figure in figures:
        assert figure is not None
        assert list(overlapping_texts(figure)) == []
