"""What `dima infer` says in the terminal: one table, grouped by what is read at execution."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

from dima.run.console import say


def print_inference(record: Mapping[str, Any]) -> None:
    """Errors, energy score, coverage, modes and latency of every run and baseline, with their intervals."""
    table = Table(title=_title(record), title_justify="left")
    has_modes = record["law"] is not None
    headings = ["", "error of mean", "error of a draw", "energy score", "in 50 %", "in 90 %"]
    headings += ["nearest mode", "weights off"] if has_modes else []
    for heading in [*headings, "ms/decision"]:
        table.add_column(heading, justify="right" if heading else "left", no_wrap=True)
    for reads, rows in grouped(record).items():
        table.add_section()
        table.add_row(f"[bold]{reads}[/bold]")
        for name, entry in rows.items():
            table.add_row(f"  {name}", *_quality(entry, has_modes), _latency(entry))
    Console(width=None if sys.stdout.isatty() else 180).print(table)
    _print_latents(record)
    for label, run in record["runs"].items():
        if run["note"] is not None:
            say(f"{label}: {run['note']}")


def grouped(record: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Runs by what they read, with the regression that reads the same in brackets; what reads nothing comes last."""
    groups: dict[str, dict[str, Any]] = {}
    for label, run in record["runs"].items():
        reads = "the true state" if run["kind"] == "oracle" else run["reads"]  # older records: an own observation
        groups.setdefault(reads, {})[label] = run
    for name, baseline in record["baselines"].items():
        reads = baseline["reads"] or "yardsticks"
        short = "linear" if baseline["reads"] else name
        groups.setdefault(reads, {})[f"({short})"] = baseline
    last = groups.pop("yardsticks")
    return {**groups, "yardsticks": last}


def _title(record: Mapping[str, Any]) -> str:
    return (
        f"{record['env']}: {record['states']} moments of {record['data']['episodes']} held-out episodes, "
        f"{record['samples']} draws each; errors in squared standard deviations of the data"
    )


def _quality(entry: Mapping[str, Any], has_modes: bool) -> list[str]:
    scores, modes = entry["scores"], entry["modes"]
    if scores is None:
        return ["-"] * (7 if has_modes else 5)
    shown = [scores["error_mean"], scores["error_draw"], scores["energy_score"]]
    cells = [_with_interval(each) for each in shown]
    cells += [f"{100 * covered['value']:.0f} %" for covered in scores["coverage"].values()]
    if has_modes:
        cells += [f"{modes['nearest_error']['value']:.3g}", f"{modes['weight_error']['value']:.2f}"]
    return cells


def _latency(entry: Mapping[str, Any]) -> str:
    latency = entry.get("latency")
    return "-" if latency is None else f"{latency['one']['wall_ms']:.2f}"


def _with_interval(estimate: Mapping[str, Any]) -> str:
    value, (low, high) = estimate["value"], estimate["ci95"]
    if value == 0 or abs(value) >= 0.1:
        return f"{value:.3f} [{low:.2f}, {high:.2f}]"
    form = ".4f" if abs(value) >= 0.001 else ".1e"
    return f"{value:{form}} [{low:{form}}, {high:{form}}]"


def _print_latents(record: Mapping[str, Any]) -> None:
    for label, run in record["runs"].items():
        latent = run["latent"]
        if latent is not None:
            prior, posterior = latent["error_prior"]["value"], latent["error_posterior"]["value"]
            errors = f"training error {prior:.3f} with z from the prior, {posterior:.3f} from the posterior"
            say(f"{label}: latent of {_with_interval(latent['kl'])} nats; {errors}")
