"""What a run measured: `metrics.jsonl` always, TensorBoard and wandb as mirrors by configuration.

A mirror is imported only when it is switched on, and nothing that goes wrong in one ever stops a run: it is reported
once and left alone from then on.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, Protocol

from dima.run.wandb_mirror import WandbMirror, WandbOptions
from worldmodel.config import Config

Row = dict[str, float | int]


@dataclasses.dataclass(frozen=True)
class TrackingConfig(Config):
    """Where metrics are mirrored to."""

    tensorboard: bool
    """Write TensorBoard event files into the run folder."""
    wandb: Literal["off", "offline", "online"]
    """Send metrics to Weights & Biases; `offline` keeps them in the run folder for a later `wandb sync`."""
    wandb_project: str
    """Project name at Weights & Biases."""
    wandb_entity: str | None
    """User or team at Weights & Biases; null is the account's default."""
    wandb_timeout_s: float
    """Longest wait, in seconds, for the Weights & Biases server at the start and at the end of a run."""

    def validate(self) -> None:
        """Refuse a wait that is not positive."""
        self.require(self.wandb_timeout_s > 0, "wandb_timeout_s", "a number of seconds above 0")


class Mirror(Protocol):
    """A second place that metrics are written to."""

    def write(self, row: Row) -> None:
        """Take one row."""
        ...

    def close(self) -> None:
        """Finish writing."""
        ...


class Tracker:
    """Appends rows to `metrics.jsonl`, one JSON object a line, and hands them to the mirrors."""

    def __init__(self, path: Path, mirrors: Mapping[str, Callable[[], Mirror]], warn: Callable[[str], None]) -> None:
        """Open `path` for appending; `mirrors` maps a name to what opens it, `warn` is told once when one breaks.

        Raises:
            ModuleNotFoundError: when the package that a mirror needs is not installed.
        """
        self._file = path.open("ab", buffering=0)  # unbuffered: a row is one write, whole or not there
        self._warn = warn
        self._mirrors: dict[str, Mirror] = {}
        for name, open_mirror in mirrors.items():
            try:
                self._mirrors[name] = open_mirror()
            except ModuleNotFoundError:
                self._file.close()
                raise
            except Exception as error:  # a mirror never stops a run, whatever it raises
                self._give_up(name, error)

    def write(self, row: Row) -> None:
        """Append one row in a single write, then mirror it."""
        self._file.write(f"{json.dumps(row)}\n".encode())
        for name, mirror in list(self._mirrors.items()):
            try:
                mirror.write(row)
            except Exception as error:  # as above
                self._give_up(name, error)

    def close(self) -> None:
        """Close the file and every mirror."""
        self._file.close()
        for name, mirror in list(self._mirrors.items()):
            try:
                mirror.close()
            except Exception as error:  # as above
                self._give_up(name, error)

    def _give_up(self, name: str, error: Exception) -> None:
        self._mirrors.pop(name, None)
        text = " ".join(str(error).split()) or type(error).__name__
        self._warn(f"{name} is off for the rest of this run ({text}); metrics.jsonl goes on")


class TensorBoardMirror:
    """Event files under `directory`, for `tensorboard --logdir`."""

    def __init__(self, directory: Path) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(directory))

    def write(self, row: Row) -> None:
        """One scalar for each name, over env steps."""
        for name, value in row.items():
            self._writer.add_scalar(name, value, row["env_steps"])

    def close(self) -> None:
        """Flush to the disk."""
        self._writer.close()


def open_tracker(
    config: TrackingConfig, directory: Path, run_config: Mapping[str, Any], warn: Callable[[str], None]
) -> Tracker:
    """The tracker of the run folder `directory`; `run_config` is shown beside the metrics where a mirror can."""
    mirrors: dict[str, Callable[[], Mirror]] = {}
    if config.tensorboard:
        mirrors["tensorboard"] = lambda: TensorBoardMirror(directory / "tensorboard")
    if config.wandb != "off":
        mirrors["wandb"] = lambda: _open_wandb(config, directory, run_config)
    return Tracker(directory / "metrics.jsonl", mirrors, warn)


def _open_wandb(config: TrackingConfig, directory: Path, run_config: Mapping[str, Any]) -> Mirror:
    options = WandbOptions(
        mode="offline" if config.wandb == "offline" else "online",
        project=config.wandb_project,
        entity=config.wandb_entity,
        name=directory.name,
        directory=str(directory),
        timeout_s=config.wandb_timeout_s,
        run_config=dict(run_config),
    )
    return WandbMirror(options)
