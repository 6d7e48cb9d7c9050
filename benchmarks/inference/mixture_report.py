"""The mixture study as tables and a figure, from its results alone.

    python benchmarks/inference/mixture_report.py RESULTS.jsonl FOLDER

Writes FOLDER/MIXTURE.md and FOLDER/mixture.png. Cells that are not there are left out; nothing is filled in.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from mixture_cells import Cell

from dima.run.figure_style import RC

Row = dict[str, Any]
COLORS = {2: "#0072B2", 4: "#D55E00", 8: "#009E73"}
HEADER = (
    "| {} | nearest-mode error / perfect sampler | weights off by, points | between modes | updates | CPU s |\n"
    "|---|---:|---:|---:|---:|---:|\n"
)


def main() -> None:
    """Write both."""
    results, folder = Path(sys.argv[1]), Path(sys.argv[2])
    rows = [json.loads(line) for line in results.read_text().splitlines()]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "MIXTURE.md").write_text(tables(rows))
    draw(rows, folder / "mixture.png")
    print(tables(rows))


def same(row: Row, **changes: Any) -> bool:
    """Whether `row` is a cell with these values, and those of the first cell everywhere else."""
    cell = Cell(**changes)
    return all(_plain(row[name]) == _plain(getattr(cell, name)) for name in vars(cell))


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def varied(rows: list[Row], names: Iterable[str], **changes: Any) -> list[Row]:
    """The rows that differ from the first cell in `changes`, and beyond that in nothing but `names`."""
    free = tuple(names)
    found = [row for row in rows if same(row, **changes, **{name: _tuple(row[name]) for name in free})]
    return sorted(found, key=lambda row: [row[name] for name in free])


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def tables(rows: list[Row]) -> str:
    """Every table as markdown."""
    text = [
        "20 000 observations, one sample each, against the law that the data were drawn from. K = 5, KL weight 0.08, VP"
        " schedule, 4 modes, 4 dimensions, 10 standard deviations between the nearest modes, unless said otherwise."
        " One seed a cell, unless said otherwise. `between`: farther from every mode than 999 in 1 000 of a perfect"
        " sampler's samples.\n"
    ]
    grid = varied(rows, ("num_modes", "state_dim", "separation", "updates"))
    text += _table("Modes, dimensions, separation (K = 5)", "modes, dimensions, separation", grid, _size)
    twenty = varied(rows, ("num_modes", "state_dim"), num_denoising_steps=20)
    text += _table("K = 20", "modes, dimensions, separation", twenty, _size)
    steps = varied(rows, ("num_denoising_steps",))
    text += _table("Steps", "K", steps, lambda row: str(row["num_denoising_steps"]))
    kinds = varied(rows, ("kind", "num_modes"))
    without = varied(rows, ("num_modes",), latent_dim=0)
    text += _table("Other inferencers", "kind, modes", kinds + without, _kind)
    kl = varied(rows, ("kl_weight",), num_modes=8, ema_decay=0.0)
    wide = varied(rows, ("kl_weight",), state_dim=8)
    text += _table("KL weight, 4 modes, 8 dimensions", "KL weight", wide, lambda row: str(row["kl_weight"]))
    text += _table("KL weight, 8 modes, no average of the weights", "KL weight", kl, lambda row: str(row["kl_weight"]))
    options = [
        row for name in ("schedule", "sampling_noise", "kl_weight", "latent_dim") for row in varied(rows, (name,))
    ]
    text += _table("Options, 4 modes", "cell", _unique(options), lambda row: _named(row))
    seeds = varied(rows, ("seed",), num_modes=8)
    text += _table("Seeds, 8 modes", "seed", seeds, lambda row: str(row["seed"]))
    return "\n".join(text)


def _unique(rows: list[Row]) -> list[Row]:
    return list({row["name"]: row for row in rows}.values())


def _size(row: Row) -> str:
    return f"{row['num_modes']}, {row['state_dim']}, {row['separation']:g}"


def _kind(row: Row) -> str:
    kind = row["kind"] if row["kind"] != "globediff" or row["latent_dim"] else "globediff without the latent"
    return f"{kind}, {row['num_modes']}"


def _named(row: Row) -> str:
    return "the first cell" if row["name"] == "base" else row["name"]


def _table(title: str, first: str, rows: list[Row], label: Callable[[Row], str]) -> list[str]:
    lines = [
        f"| {label(row)} | {row['ratio']:.2f} | {row['weight_error']:.1f} | {100 * row['between']:.1f} % |"
        f" {row['updates']} | {row['cpu_seconds']:.0f} |"
        for row in rows
    ]
    return [f"## {title}\n\n{HEADER.format(first)}" + "\n".join(lines) + "\n"] if rows else []


def draw(rows: list[Row], out: Path) -> None:
    """Error by steps, by separation, by KL weight, by kind."""
    with plt.rc_context(RC):
        figure, axes = plt.subplots(1, 4, figsize=(7.2, 2.3), layout="constrained", sharey=True)
        steps = sorted(varied(rows, ("num_denoising_steps",)), key=lambda row: row["num_denoising_steps"])
        _line(axes[0], [(row["num_denoising_steps"], row["ratio"]) for row in steps], "4 modes", COLORS[4])
        axes[0].set_xlabel("denoising steps K")
        grid = varied(rows, ("num_modes", "state_dim", "separation", "updates"))
        for modes, color in COLORS.items():
            for dim, style in ((4, "-"), (8, ":")):
                mine = [r for r in grid if (r["num_modes"], r["state_dim"]) == (modes, dim)]
                # Sorted by updates: where a size was learned twice, the longer one is drawn.
                pairs = sorted({row["separation"]: row["ratio"] for row in mine}.items())
                _line(axes[1], pairs, f"{modes} modes, {dim} dim.", color, style)
        axes[1].set_xlabel("separation / standard deviation")
        kl = varied(rows, ("kl_weight",), num_modes=8, ema_decay=0.0)
        _line(axes[2], sorted((row["kl_weight"], row["ratio"]) for row in kl), "8 modes", COLORS[8])
        axes[2].set_xlabel("KL weight")
        _kinds(axes[3], rows)
        axes[0].set_yscale("log")
        axes[0].set_ylabel("error / perfect sampler's")
        for each in axes[:3]:
            each.axhline(1.0, color="0.5", linewidth=0.6)
            each.axhline(1.5, color="0.5", linewidth=0.6, linestyle="--")
            if each.lines[2:]:
                each.legend(fontsize=5.5)
        figure.savefig(out, dpi=160)


def _line(axes: Axes, pairs: list[tuple[float, float]], label: str, color: str, style: str = "-") -> None:
    if pairs:
        axes.plot(*zip(*pairs, strict=True), style, marker="o", color=color, label=label)


def _kinds(axes: Axes, rows: list[Row]) -> None:
    """Bars of every inferencer, for each number of modes."""
    named = [("globediff", {}), ("no latent", {"latent_dim": 0}), ("vae", {"kind": "vae"}), ("mlp", {"kind": "mlp"})]
    for i, (_, changes) in enumerate(named):
        for j, (modes, color) in enumerate(COLORS.items()):
            found = [row["ratio"] for row in rows if same(row, num_modes=modes, **changes)]
            if found:
                axes.bar(i + 0.25 * (j - 1), found[0], 0.22, color=color)
    axes.axhline(1.0, color="0.5", linewidth=0.6)
    axes.axhline(1.5, color="0.5", linewidth=0.6, linestyle="--")
    axes.set_xticks(range(len(named)), [name for name, _ in named], rotation=30)
    axes.set_xlabel("inferencer")


if __name__ == "__main__":
    main()
