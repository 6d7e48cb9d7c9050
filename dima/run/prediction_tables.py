"""What `dima predict` says in the terminal, and the differences between what was measured on the same segments."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

from dima.run.console import say
from dima.run.prediction import FIELDS, Task
from worldmodel.evaluation.curves import StepErrors, describe_difference

_TITLES = {
    "state": "state: cumulated error, in standard deviations of the data",
    "obs": "observations: the same, after decoding",
    "reward": "reward: the same",
}
_BASELINES = {"state": "baselines", "obs": "baselines_obs", "reward": "baselines_reward"}


def describe_pairs(errors: Mapping[str, Mapping[str, StepErrors]], task: Task) -> dict[str, Any]:
    """For every pair, `later - earlier`: by field the paired difference of the cumulated errors at the marks."""
    pairs: dict[str, Any] = {}
    for (first, a), (second, b) in itertools.combinations(errors.items(), 2):
        pairs[f"{second} - {first}"] = {
            field: describe_difference(b[field], a[field], task.bootstrap, task.marks)
            if field in a and field in b
            else None
            for field in FIELDS
        }
    return pairs


def print_prediction(label: str, record: Mapping[str, Any]) -> None:
    """The cumulated errors of every order, baseline and floor with their intervals, and the action gains."""
    console = Console(width=None if sys.stdout.isatty() else 120)
    for field in ("state", "obs"):
        if all(order[field] for order in record["orders"].values()):
            console.print(_error_table(f"{label}, {_TITLES[field]}", field, record))
    if all(order["action_gain"] is not None for order in record["orders"].values()):
        console.print(_gain_table(f"{label}, effect of each agent's action on the next state (1 = right)", record))
    elif record["action_gain"]["note"]:
        say(f"no action gains: {record['action_gain']['note']}")


def _error_table(title: str, field: str, record: Mapping[str, Any]) -> Table:
    table = Table(title=title, title_justify="left")
    marks = [str(mark) for mark in record["marks"]]
    for heading in ("", *(f"E_{mark}" for mark in marks)):
        table.add_column(heading, justify="right" if heading else "left")
    curves = {name: order[field] for name, order in record["orders"].items()}
    curves |= {f"({name})": curve for name, curve in record[_BASELINES[field]].items()}
    if field == "obs" and record["floor"]["obs"] is not None:
        curves["(floor: true states decoded)"] = record["floor"]["obs"]
    for name, curve in curves.items():
        table.add_row(name, *(_with_interval(curve["cumulative"][mark], curve["ci95"][mark]) for mark in marks))
    return table


def _gain_table(title: str, record: Mapping[str, Any]) -> Table:
    table = Table(title=title, title_justify="left")
    num_agents = len(next(iter(record["orders"].values()))["action_gain"])
    for heading in ("", *(f"agent {agent + 1}" for agent in range(num_agents)), "share explained"):
        table.add_column(heading, justify="right" if heading else "left")
    for name, order in record["orders"].items():
        gains = [_with_interval(*each) for each in zip(order["action_gain"], order["action_gain_ci95"], strict=True)]
        table.add_row(name, *gains, " ".join(f"{r2:.2f}" for r2 in order["action_gain_r2"]))
    return table


def _with_interval(value: float, interval: list[float]) -> str:
    return f"{value:.2f} [{interval[0]:.2f}, {interval[1]:.2f}]"
