"""RESULTS/MODELS.md and RESULTS/models.png from RESULTS/cells/*.json: different world models on the same data.

    python benchmarks/prediction/compare_models.py RESULTS

Written for plans/world_models.yaml: a group of the plan is a model, whatever its nature. Figure: for every task E_15
and the action gains of each model, beside the baselines.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from measured_cells import Estimate, MeasuredCell, asked_cells, errors_at

from dima.run.prediction_figures.style import BASELINE_LOOKS, RC, WIDTH, save
from worldmodel.atomic import write_whole

MARKS = (15, 20)
LONG = "15"
"""Imagined steps behind which calibration is read."""

COLORS = ("#882255", "#0072B2", "#E69F00", "#117733", "#56B4E9", "#D55E00")

HEAD = """# World models on the same data

Written by `compare_models.py` from `cells/`. E: error summed over so many imagined steps, in standard deviations of the
data, averaged over dimensions and segments (expected error of one draw); brackets: 95 % bootstrap interval over
held-out segments, with several seeds the mean of theirs. Gain: how far an agent's action moves the imagined state along
the way it moves the simulator's (1 is right), smallest and largest agent. Spread over error: of the draws at step 15,
1 is calibrated, 0 is sure of itself; energy score: lower is better. Training: processor seconds of `dima fit` (empty:
not measured). Imagined steps/s: within `dima predict`, on one thread, all draws of all segments in one batch.
"""
_COLUMNS = (
    "model",
    "E_15",
    "E_20",
    "gains",
    "spread / error",
    "energy score",
    "parameters",
    "training, s",
    "imagined steps/s",
)


def main() -> None:
    """Write both for the folder that the command line names."""
    results, cells = asked_cells(__doc__)
    tasks = {name: _by_model(cells, name) for name in dict.fromkeys(cell.dataset for cell in cells)}
    write_whole(results / "MODELS.md", "\n".join([HEAD, *(_table(name, models) for name, models in tasks.items())]))
    with matplotlib.rc_context(RC):
        save(_plot(tasks), results / "models.png")
    print(results / "MODELS.md")
    print(results / "models.png")


def _by_model(cells: Iterable[MeasuredCell], dataset: str) -> dict[str, list[MeasuredCell]]:
    """The cells of a dataset by model, the smallest error first."""
    models: dict[str, list[MeasuredCell]] = {}
    for cell in cells:
        if cell.dataset == dataset:
            models.setdefault(cell.group, []).append(cell)
    return dict(sorted(models.items(), key=lambda item: _error(item[1], MARKS[0]).mean))


def _error(cells: Sequence[MeasuredCell], mark: int) -> Estimate:
    return errors_at([cell.curve(_order(cell)) for cell in cells], mark)


def _order(cell: MeasuredCell) -> str:
    """The order that stands for a cell: its only one, or the first of those it was told."""
    return next(iter(cell.orders))


def _gains(cells: Sequence[MeasuredCell]) -> list[Estimate]:
    """Each agent's action gain."""
    measured = [cell.orders[_order(cell)] for cell in cells]
    agents = range(len(measured[0]["action_gain"]))
    return [
        Estimate.over_seeds(
            [each["action_gain"][agent] for each in measured], [each["action_gain_ci95"][agent] for each in measured]
        )
        for agent in agents
    ]


def _table(dataset: str, models: dict[str, list[MeasuredCell]]) -> str:
    first = next(iter(models.values()))[0].prediction
    about = f"Data `{first['data']['fingerprint']}`, {first['segments']} segments, {first['samples']} draws of each."
    lines = [f"## {dataset}", "", about, "", _row(_COLUMNS), "|---|" + "---:|" * (len(_COLUMNS) - 1)]
    lines += [_row(_describe(name, cells)) for name, cells in models.items()]
    any_cell = next(iter(models.values()))[0]
    for name in ("linear", "persistence", "no_action"):
        curve = any_cell.baseline(name)
        lines.append(_row([f"({name})", *(f"{curve['cumulative'][str(mark)]:.2f}" for mark in MARKS), *[""] * 6]))
    return "\n".join(lines) + "\n"


def _describe(name: str, cells: Sequence[MeasuredCell]) -> list[str]:
    spreads = [cell.orders[_order(cell)]["spread"][cell.field] for cell in cells]
    runtimes = [cell.prediction["runtime"] for cell in cells]
    gains = sorted(_gains(cells), key=lambda gain: gain.mean)
    return [
        name if len(cells) == 1 else f"{name} ({len(cells)} seeds)",
        *(_spell(_error(cells, mark)) for mark in MARKS),
        f"{_spell(gains[0])} to {_spell(gains[-1])}",
        f"{fmean(spread['spread_skill'][LONG] for spread in spreads):.2f}",
        f"{fmean(spread['energy_score'][LONG] for spread in spreads):.2f}",
        f"{sum(cells[0].record['fitted']['parameters'].values()):,}",
        _spell_cost([cell.record["cost"]["fit"]["cpu_s"] for cell in cells]),
        f"{fmean(each['imagined_steps'] / each['predict_s'] for each in runtimes):,.0f}",
    ]


def _row(fields: Iterable[str]) -> str:
    return f"| {' | '.join(fields)} |"


def _spell(estimate: Estimate) -> str:
    return f"{estimate.mean:.2f} [{estimate.low:.2f}, {estimate.high:.2f}]"


def _spell_cost(seconds: Sequence[float]) -> str:
    """Nothing where a fit was made elsewhere and its cost is not known."""
    return f"{fmean(seconds):.0f}" if all(seconds) else ""


def _plot(tasks: dict[str, dict[str, list[MeasuredCell]]]) -> Figure:
    names = list(dict.fromkeys(name for models in tasks.values() for name in sorted(models)))
    colors = dict(zip(names, COLORS, strict=False))
    figure, grid = plt.subplots(
        2, len(tasks), figsize=(WIDTH, 4.0), layout="constrained", squeeze=False, sharex=True, sharey="row"
    )
    for column, (task, models) in enumerate(tasks.items()):
        _bars(grid[0][column], models, names, colors)
        _dots(grid[1][column], models, names, colors)
        grid[0][column].set_title(task)
        grid[1][column].set_xticks(range(len(names)), names, rotation=30)
    grid[0][0].set_ylabel(f"E_{MARKS[0]} / standard deviation")
    grid[1][0].set_ylabel("action gain of each agent")
    return figure


def _bars(axes: Axes, models: dict[str, list[MeasuredCell]], names: list[str], colors: Mapping[str, str]) -> None:
    for place, name in enumerate(names):
        if name in models:
            error = _error(models[name], MARKS[0])
            ends = [[error.mean - error.low], [error.high - error.mean]]
            axes.bar(place, error.mean, 0.7, yerr=ends, color=colors[name], capsize=2)
    cell = next(iter(models.values()))[0]
    for name in ("linear", "persistence"):
        look = BASELINE_LOOKS[name]
        level = cell.baseline(name)["cumulative"][str(MARKS[0])]
        axes.axhline(level, color=look.color, linestyle="--", linewidth=0.8)
        axes.text(len(names) - 0.5, level, name, ha="right", va="bottom", fontsize=6, color=look.color)


def _dots(axes: Axes, models: dict[str, list[MeasuredCell]], names: list[str], colors: Mapping[str, str]) -> None:
    axes.axhline(1.0, color="0.5", linewidth=0.6)
    for place, name in enumerate(names):
        for agent, gain in enumerate(_gains(models[name]) if name in models else []):
            ends = [[gain.mean - gain.low], [gain.high - gain.mean]]
            axes.errorbar(place + 0.1 * agent - 0.2, gain.mean, yerr=ends, fmt="o", markersize=3, color=colors[name])


if __name__ == "__main__":
    main()
