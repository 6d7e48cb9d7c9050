"""What a person sees while a run goes on: what it is about to do, how far it is, and how it came out."""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress
from rich.table import Table
from rich.text import Text

_LINE_EVERY_S = 15.0
"""Seconds between progress lines where the output is not a terminal (a log file should stay readable)."""


def say(text: str = "") -> None:
    """Print one line for the person in front."""
    print(text, flush=True)


def warn(text: str) -> None:
    """Print one line that something is not as asked for, without stopping."""
    print(f"warning: {text}", file=sys.stderr, flush=True)


def announce(command: str, facts: Mapping[str, Any]) -> None:
    """Print what a command is about to do, one fact a line."""
    say(f"dima {command}")
    width = max(len(name) for name in facts)
    for name, value in facts.items():
        say(f"  {name:<{width}}  {value}")


class Progress:
    """A bar with env steps, return, imagined steps per second and time left; plain lines where there is no terminal."""

    def __init__(self, first: int, total: int, counted: str = "env steps") -> None:
        """Begin at `first` of `total`; the bar appears with the first row, when nothing can go wrong unseen.

        `counted`: what is counted, in words; rows hold the number under that name, with underscores.
        """
        self._total = total
        self._first = first
        self._counted = counted
        self._began = time.monotonic()
        self._last_line = self._began
        self._count = first
        self._figures: dict[str, str] = {}
        self._is_terminal = sys.stdout.isatty()
        self._bar: RichProgress | None = None

    def show(self, row: Mapping[str, float]) -> None:
        """Take in one row of metrics."""
        count = int(row[self._counted.replace(" ", "_")])
        for name, label, form in _FIGURES:
            if name in row:
                self._figures[label] = form.format(row[name])
        if self._is_terminal:
            self._bar = self._bar or _open_bar(self._first, self._total, self._counted)
            text = "  ".join(f"{label} {value}" for label, value in self._figures.items())
            self._bar.update(self._bar.task_ids[0], completed=count, figures=text)
        elif "eval/return_mean" in row or time.monotonic() - self._last_line >= _LINE_EVERY_S:
            self._last_line = time.monotonic()
            figures = "".join(f", {label} {value}" for label, value in self._figures.items())
            say(f"{count}/{self._total} {self._counted}{figures}, {self._left(count)} left")

    def advance(self) -> None:
        """Count one more, without figures."""
        self._count += 1
        self.show({self._counted.replace(" ", "_"): self._count})

    def close(self) -> None:
        """Leave the bar as it stands."""
        if self._bar is not None:
            self._bar.stop()

    def _left(self, count: int) -> str:
        advanced = count - self._first
        if advanced <= 0:
            return "unknown time"
        seconds = (self._total - count) * (time.monotonic() - self._began) / advanced
        return f"{int(seconds // 60)}:{int(seconds % 60):02d}"


class StepCounter:
    """Progress of episodes that are played outside training: called after every step of `num_envs` environments."""

    def __init__(self, num_envs: int, total: int) -> None:
        """`total` env steps at most; episodes may end earlier."""
        self._num_envs = num_envs
        self._total = total
        self._env_steps = -num_envs  # the first call comes after the resets
        self._progress = Progress(0, total)

    def __call__(self) -> None:
        """Count one step of every environment."""
        self._env_steps += self._num_envs
        self._progress.show({"env_steps": min(self._env_steps, self._total)})

    def close(self) -> None:
        """Leave the bar as it stands."""
        self._progress.close()


_FIGURES = (
    ("episode/return", "return", "{:.1f}"),
    ("eval/return_mean", "evaluation", "{:.1f}"),
    ("imagination/steps_per_s", "imagined steps/s", "{:.0f}"),
    ("world_model/loss", "loss", "{:.4f}"),
    ("held_out/loss", "held out", "{:.4f}"),
)


class _StepsColumn(ProgressColumn):
    def render(self, task: Task) -> Text:
        """How many so far and in all."""
        return Text(f"{int(task.completed)}/{int(task.total or 0)} {task.description}")


def _open_bar(first: int, total: int, counted: str) -> RichProgress:
    bar = RichProgress(BarColumn(20), _StepsColumn(), TextColumn("{task.fields[figures]}"), TimeRemainingColumn())
    bar.add_task(counted, total=total, completed=first, figures="")
    bar.start()
    return bar


def print_scores(rows: Sequence[tuple[str, Sequence[float]]]) -> None:
    """Print a table of episode returns: mean, spread and extremes of each named row."""
    table = Table(title="episode return")
    for heading in ("policy", "mean", "std", "min", "max", "episodes"):
        table.add_column(heading, justify="left" if heading == "policy" else "right")
    for name, returns in rows:
        figures = (statistics.fmean(returns), statistics.pstdev(returns), min(returns), max(returns))
        table.add_row(name, *(f"{figure:.1f}" for figure in figures), str(len(returns)))
    Console(width=None if sys.stdout.isatty() else 100).print(table)
