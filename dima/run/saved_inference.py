"""State inferencers by name or by the run of `dima fit` that learned them, and what a manifest says of them."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import torch

from dima.run.fit_settings import FitSettings
from dima.run.folder import RunFolder
from dima.run.held_out import differing_option
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

    @property
    def fingerprint(self) -> str | None:
        """Of the dataset that it was fitted on; None where it was fitted on none."""
        return self.manifest.get("data", {}).get("fingerprint")

    def describe(self) -> dict[str, Any]:
        """What manifests and scores keep: the kind, what it reads, and where it comes from."""
        source = {"run": None if self.path is None else str(self.path), "checkpoint": self.step}
        return {**describe_inference(self.name, self.inference), **source}


def open_inference(
    source: str,
    spec: EnvSpec,
    env: Any,
    device: torch.device,
    checkpoint: int | str = "latest",
    *,
    key: str = "inference",
    command: str | None = None,
) -> SavedInference:
    """The inferencer that `source` names, for the environment `env` with the sizes `spec`.

    Args:
        source: `oracle`, `joint`, or a run folder of `dima fit inference=...`.
        spec: of the environment where states are to be inferred.
        env: its config; of no use where `source` is no run.
        device: where its networks go.
        checkpoint: `latest`, or a number of updates.
        key: what the command calls `source`.
        command: how to ask for an older checkpoint where the newest is damaged, if the command that asks can be told
            one; None: `dima fit` goes on from it.

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
    said = f"{key} = {source!r} was fitted on another task"
    _require_same_sizes(said, folder.path, manifest, spec)
    _require_same_options(said, settings.env, env)
    repair = command or f"dima fit resume={source}"
    loaded = load_or_offer(folder, parse_checkpoint(checkpoint), repair, (settings.learner,))
    inference = settings.inference.build(spec)
    load_weights(lambda: inference.load_state_dict(loaded.components[settings.learner]))
    inference.to(device)
    inference.train(False)
    name = manifest["inference"]["kind"]
    return SavedInference(name, inference, folder.path, settings, loaded.env_steps, manifest)


def _require_same_sizes(said: str, path: Path, manifest: dict[str, Any], spec: EnvSpec) -> None:
    there = read_spec(manifest, path)
    name = differing_field(there, spec)
    if name is not None:
        raise ConfigError(f"{said}: {name} is {getattr(there, name)!r} there, {getattr(spec, name)!r} here")


def _require_same_options(said: str, there: Any, here: Any) -> None:
    option = differing_option(there, here)
    if option is not None:
        name, theirs, ours = option
        raise ConfigError(
            f"{said}: {name} is {theirs} there, {ours} here; fit one to data of this task (dima collect, dima fit)"
        )
