"""RESULTS/TABLES.md from RESULTS/cells/*.json: errors, gains, what joint buys, and what data, updates and steps buy.

python benchmarks/prediction/tables.py RESULTS
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import fmean

from measured_cells import Estimate, MeasuredCell, asked_cells, by_reveal, effects, errors_at, standard

from worldmodel.atomic import write_whole

MARKS = (15, 20)
MANY_AGENTS = 8

HEAD = """# Tables

Written by `tables.py` from `cells/`. E is the error summed over so many imagined steps, in standard deviations of each
dimension in the dataset, averaged over the dimensions that vary, and over the segments: the expected error of one draw.
Brackets: 95 % bootstrap interval over the held-out segments; with several seeds, the mean of theirs. Behind a slash:
each seed. All cells of a dataset meet the same segments. A difference between two models has the interval of
independent errors, which is too wide, since the same segments are hard for both. It says nothing of other seeds.
`two-phase` is progressive on the ladder that shows all agents above a noise of 2 and keeps the noise meanwhile.
"""


def main() -> None:
    """Write the tables of the folder that the command line names."""
    results, cells = asked_cells(__doc__)
    sections = [HEAD]
    for dataset in dict.fromkeys(cell.dataset for cell in cells):
        sections += _dataset(cells, dataset)
    write_whole(results / "TABLES.md", "\n".join(sections))
    print(results / "TABLES.md")


def _dataset(cells: Sequence[MeasuredCell], dataset: str) -> list[str]:
    mine = [cell for cell in cells if cell.dataset == dataset]
    first = mine[0].prediction
    data = f"{first['data']['episodes']} held-out episodes with {first['data']['steps']} steps"
    about = f"data `{first['data']['fingerprint']}`, {data}, {first['segments']} segments, {first['samples']} samples"
    sections = [f"## {dataset} ({first['env']})\n\n{about}.\n"]
    mains = standard(cells, dataset)
    if mains:
        marks = [mark for mark in MARKS if mark in first["marks"]] or first["marks"][-1:]
        for mark in marks:
            sections.append(_errors(mains, mains[0].field, mark))
        sections += [_against_joint(mains, mark) for mark in marks]
        sections += [_gains(mains), _errors(mains, "obs", marks[0]), _fits(mains)]
    for effect in effects(cells, dataset):
        mark = MARKS[0] if MARKS[0] in first["marks"] else first["marks"][-1]
        rows = [
            [effect.value(group[0]), group[0].reveal, *_order_errors(group, orders := _orders(mine), mark)]
            for group in _by_value(effect.cells, effect.names)
        ]
        title = f"E_{mark} by {', '.join(name.removeprefix('world_model.') for name in effect.names)}"
        sections.append(_table(title, ["", "reveal", *orders], rows))
    return [section for section in sections if section]


def _errors(cells: Sequence[MeasuredCell], field: str, mark: int) -> str:
    """Reveal by order; below it the baselines that are no such model, and for observations the floor."""
    orders = _orders(cells)
    rows: list[list[str]] = []
    for name, group in by_reveal(cells).items():
        hidden = errors_at([cell.baseline("no_action", field) for cell in group], mark)
        rows.append([name, *_order_errors(group, orders, mark, field), _spell(hidden)])
    for baseline in ("linear", "persistence"):  # neither knows the model's seed
        rows.append([baseline, _spell(errors_at([cells[0].baseline(baseline, field)], mark))])
    floors = [cell.prediction["floor"]["obs"] for cell in cells]
    if field == "obs" and None not in floors:
        floor = errors_at(floors, mark)
        rows.append(["true states, decoded", _spell(Estimate(floor.mean, floor.low, floor.high, ()))])
    named = {"state": "state", "obs": "observation, after decoding"}[field]
    return _table(f"E_{mark} of the {named}", ["reveal", *orders, "current actions hidden"], rows)


def _order_errors(
    cells: Sequence[MeasuredCell], orders: Sequence[str], mark: int, field: str | None = None
) -> list[str]:
    known = [order for order in orders if all(order in cell.orders for cell in cells)]
    return [
        _spell(errors_at([cell.curve(order, field) for cell in cells], mark)) if order in known else "-"
        for order in orders
    ]


def _against_joint(cells: Sequence[MeasuredCell], mark: int) -> str:
    """How much more error each reveal makes than `joint` in the same order; negative: less."""
    groups, orders = by_reveal(cells), _orders(cells)
    if "joint" not in groups or len(groups) < 2:
        return ""
    rows: list[list[str]] = []
    for name, group in groups.items():
        if name == "joint":
            continue
        seeds = {cell.seed for cell in group} & {cell.seed for cell in groups["joint"]}
        ours, joint = ([cell for cell in each if cell.seed in seeds] for each in (group, groups["joint"]))
        row: list[str] = []
        for order in orders if seeds else ():
            reference = errors_at([cell.curve(order) for cell in joint], mark)
            difference = errors_at([cell.curve(order) for cell in ours], mark).minus(reference)
            row.append(f"{_spell(difference)} ({difference.mean / reference.mean:+.0%})")
        rows.append([name, *row])
    return _table(f"E_{mark} less that of joint (in brackets: relative to joint)", ["reveal", *orders], rows)


def _gains(cells: Sequence[MeasuredCell]) -> str:
    """The regression of the model's change on the true one, by agent: 1 is right; means over seeds."""
    measured = [cell for cell in cells if all(order["action_gain"] is not None for order in cell.orders.values())]
    if not measured:
        return ""
    num_agents = measured[0].record["fitted"]["num_agents"]
    agents = range(num_agents) if num_agents <= MANY_AGENTS else range(0)
    rows: list[list[str]] = []
    for name, group in by_reveal(measured).items():
        for order in _orders(group):
            records = [cell.orders[order] for cell in group]
            gains = [fmean(record["action_gain"][agent] for record in records) for agent in range(num_agents)]
            explained = [fmean(record["action_gain_r2"]) for record in records]
            bounds = [
                tuple(fmean(record["action_gain_ci95"][agent][end] for record in records) for end in (0, 1))
                for agent in agents
            ]
            each = [
                f"{gains[agent]:.2f} [{low:.2f}, {high:.2f}]" for agent, (low, high) in zip(agents, bounds, strict=True)
            ]
            rows.append([name, order, *each, f"{min(gains):.2f}", f"{max(gains):.2f}", f"{fmean(explained):.2f}"])
    heading = [
        "reveal",
        "order",
        *(f"agent {agent + 1}" for agent in agents),
        "smallest",
        "largest",
        "variance explained",
    ]
    return _table("Action gains (1: right)", heading, rows)


def _fits(cells: Sequence[MeasuredCell]) -> str:
    rows: list[list[str]] = []
    for name, group in by_reveal(cells).items():
        fitted, costs = group[0].record["fitted"], [cell.record["cost"] for cell in group]
        losses = [cell.record["fitted"]["held_out_loss"] for cell in group]
        named = [part for part in fitted["parameters"] if all(part in loss for loss in losses)]
        rows.append(
            [
                name,
                f"{fitted['training_steps']:,}",
                ", ".join(f"{part} {count:,}" for part, count in fitted["updates"].items()),
                f"{sum(fitted['parameters'].values()):,}",
                ", ".join(f"{part} {fmean(loss[part] for loss in losses):.4f}" for part in named),
                f"{fmean(cost['fit']['cpu_s'] for cost in costs):.0f} s",
                f"{fmean(cost['predict']['cpu_s'] for cost in costs):.0f} s",
            ]
        )
    heading = ["reveal", "transitions", "updates", "parameters", "held-out loss", "CPU time, fit", "predict"]
    return _table("Fits", heading, rows)


def _by_value(cells: Iterable[MeasuredCell], names: Sequence[str]) -> list[list[MeasuredCell]]:
    """Cells that differ in their seed only."""
    groups: dict[tuple[str, ...], list[MeasuredCell]] = {}
    for cell in cells:
        groups.setdefault((cell.reveal, *(str(cell.setting.get(name)) for name in names)), []).append(cell)
    return list(groups.values())


def _orders(cells: Sequence[MeasuredCell]) -> list[str]:
    return list(dict.fromkeys(order for cell in cells for order in cell.orders))


def _spell(estimate: Estimate) -> str:
    seeds = " / " + ", ".join(f"{value:.2f}" for value in estimate.values) if len(estimate.values) > 1 else ""
    return f"{estimate.mean:.2f} [{estimate.low:.2f}, {estimate.high:.2f}]{seeds}"


def _table(title: str, heading: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; rows that are short are filled up."""
    lines = [heading, ["---"] * len(heading), *([*row, *[""] * (len(heading) - len(row))] for row in rows)]
    return f"### {title}\n\n" + "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


if __name__ == "__main__":
    main()
