"""State inferencers by name or by the run of `dima fit` that learned them, and what a manifest says of them."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import torch

from dima.run.fit_settings import FitSettings
from dima.run.folder import RunFolder
from dima.run.inference_config import describe_inference
from dima.run.parameters import load_weights
from dima.run.saved_run import load_or_offer, parse_checkpoint
from dima.run.settings import load_config, read_settings
from worldmodel.config import ConfigError
from worldmodel.dataset import differing_field, read_spec
from worldmodel.inference.given import JointConfig, OracleConfig
from worldmodel.types import EnvSpec

GIVEN = {"oracle": OracleConfig, "joint": JointConfig}
"""What needs no run."""


@dataclasses.dataclass(frozen=True)
class SavedInference:
    """A state inferencer as one checkpoint left it, or one that needs none."""

    name: str
    """`oracle`, `joint`, or the configuration group that was fitted."""
    inference: Any
    """A `StateInference`."""
    path: Path | None
    """The run of `dima fit`."""
    settings: FitSettings | None
    """What that run was told."""
    step: int
    """Updates."""
    manifest: dict[str, Any]
    """Of that run."""

    def describe(self) -> dict[str, Any]:
        """What manifests and scores keep: the kind, what it reads, and where it comes from."""
        source = {"run": None if self.path is None else str(self.path), "checkpoint": self.step}
        return {**describe_inference(self.name, self.inference), **source}


def open_inference(
    source: str,
    spec: EnvSpec,
    device: torch.device,
    command: str,
    checkpoint: int | str = "latest",
    *,
    key: str = "inference",
) -> SavedInference:
    """The inferencer that `source` names, for environments of `spec`.

    Args:
        source: `oracle`, `joint`, or a run folder of `dima fit inference=...`.
        spec: of the environment where states are to be inferred.
        device: where its networks go.
        command: for messages, e.g. `evaluate run=RUN`.
        checkpoint: `latest`, or a number of updates.
        key: what the command calls `source`.

    Raises:
        ConfigError: when the run learned something else, or on another task.
        RunFolderError, CheckpointError: when there is no such run, or it is damaged.
    """
    if source in GIVEN:
        return SavedInference(source, GIVEN[source]().build(spec), None, None, 0, {})
    folder = RunFolder.open(Path(source))
    settings = read_settings(load_config(folder.config_file))
    if not isinstance(settings, FitSettings) or settings.inference is None:
        raise ConfigError(
            f"{key} = {source!r} is a run that learned no state inference; expected a run of"
            f" dima fit inference=globediff (or vae, mlp), or one of {', '.join(GIVEN)}"
        )
    manifest = folder.read_manifest()
    _require_same_task(f"{key} = {source!r}", folder.path, manifest, spec)
    loaded = load_or_offer(folder, parse_checkpoint(checkpoint), f"dima {command} {key}={source}", (settings.learner,))
    inference = settings.inference.build(spec)
    load_weights(lambda: inference.load_state_dict(loaded.components[settings.learner]))
    inference.to(device)
    inference.train(False)
    name = manifest["inference"]["kind"]
    return SavedInference(name, inference, folder.path, settings, loaded.env_steps, manifest)


def _require_same_task(said: str, path: Path, manifest: dict[str, Any], spec: EnvSpec) -> None:
    there = read_spec(manifest, path)
    name = differing_field(there, spec)
    if name is not None:
        raise ConfigError(
            f"{said} was fitted on another task: {name} is {getattr(there, name)!r} there, {getattr(spec, name)!r} here"
        )
