"""`dima export`: a saved policy with all that it needs to act, as one file that plain torch loads and runs."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig
from torch import nn
from torch.export import Dim

from dima.run.actor_view import actor_view
from dima.run.console import announce, say
from dima.run.execution import choose_belief
from dima.run.execution_facts import announce_execution, hears_others
from dima.run.hydra_app import run_app
from dima.run.saved_run import SavedRun, open_run
from dima.run.settings import read_settings
from imagination.belief import Combine
from imagination.execution import ExecutionPath
from worldmodel.config import Config, ConfigError
from worldmodel.types import EnvSpec

FORMAT = 1
METADATA = "metadata.json"


@dataclasses.dataclass(frozen=True)
class ExportSettings(Config):
    """Everything that `dima export` is told."""

    run: str
    """The run folder."""
    checkpoint: int | str
    """`latest`, or the env steps of a checkpoint."""
    inference: str | None
    """How states are inferred for a policy that is fed with them: a run of `dima fit`; null: the run's own."""
    combine: Combine | None
    """What becomes of several samples' actions; null: as the run says."""
    samples: int | None
    """Draws an agent and step; null: as the run says."""
    deterministic: bool
    """The distribution's mean as the action, or a draw from it."""
    agent: int | None
    """The one agent that the file acts for, from what it alone observes, counted from 0; null: the whole team."""
    compile: bool
    """Into machine code for this kind of processor (needs a C++ compiler here, none where the file is used)."""
    out: str
    """The file, ending in .pt2."""

    def validate(self) -> None:
        """Refuse another kind of file, and an oracle."""
        self.require(self.out.endswith(".pt2"), "out", "a file name that ends in .pt2")
        self.require(self.inference != "oracle", "inference", "a run of dima fit: nobody knows the true state outside")


def main() -> None:
    """Run the command with the arguments in `sys.argv`."""
    run_app("export", export)


def export(config: DictConfig) -> None:
    """Write the file that `config` asks for."""
    settings: ExportSettings = read_settings(config)
    out = Path(settings.out)
    if out.exists():
        raise ConfigError(f"out = {settings.out!r} is there already; choose another name, or remove it")
    if settings.compile:
        _require_compiler()
    run = open_run(settings.run, settings.checkpoint, "cpu", None, "export")
    belief, facts = choose_belief(run, settings.inference, settings.combine, settings.samples)
    policy, spec = run.learner.mappo.policy, run.learner.spec
    if policy.input.uses_state and belief is None:
        raise ConfigError(
            f"the policy of {settings.run} is fed with the true state, which nobody knows outside a simulator;"
            " say how it is inferred: inference=RUN of dima fit"
        )
    needs_view = policy.input.kind != "state"
    view = actor_view(run.learner.model, spec) if needs_view else nn.Identity()
    path = ExecutionPath(policy, view, belief, settings.deterministic, settings.agent)
    about = describe(path, run, spec, facts, settings.compile)
    if path.agent is not None and about["reads"] != "own":
        raise ConfigError(
            f"agent = {path.agent} cannot act alone: its action depends on the others' observations; say agent=null"
        )
    announce("export", {"task": spec.env_id, "run": settings.run, **announce_execution(facts), "file": out})
    save_path(path, spec, about, out, settings.compile)
    inputs = ", ".join(f"{name} {shape}" for name, shape in about["inputs"].items())
    say(f"wrote {out}: {inputs} -> action {about['action']}")


def describe(
    path: ExecutionPath, run: SavedRun, spec: EnvSpec, facts: dict[str, Any], compiled: bool
) -> dict[str, Any]:
    """What the file says of itself."""
    agents = [spec.num_agents] if path.agent is None else []
    inputs: dict[str, list[Any]] = {"history": ["B", path.history_steps + 1, *agents, spec.obs_dim]}
    if path.noise.total:
        inputs["noise"] = ["B", path.noise.total]
    state = facts["state"] if isinstance(facts["state"], dict) else {}
    hears = hears_others(facts["actor_input"], run.learner.model, facts["state"])
    return {
        "format": FORMAT,
        "env_id": spec.env_id,
        "env_versions": dict(spec.versions),
        "num_agents": spec.num_agents,
        "agent": path.agent,
        "obs_sizes": list(spec.obs_sizes),
        "appends_agent_id": spec.appends_agent_id,
        "action_sizes": list(spec.action_sizes),
        "state_dim": spec.state_dim,
        "inputs": inputs,
        "action": ["B", *agents, spec.action_dim],
        "history_steps": path.history_steps,
        "noise_sizes": {"inference": path.noise.inference, "action": path.noise.action},
        "actor_input": facts["actor_input"],
        "reads": "joint" if hears else "own",
        "inference": state.get("kind"),
        "auxiliary": state.get("auxiliary"),
        "combine": state.get("combine"),
        "samples": state.get("samples"),
        "deterministic": path.deterministic,
        "compiled": compiled,
        "dtype": "float32",
        "env_steps": run.env_steps,
        "versions": {"torch": torch.__version__, "dima": metadata.version("dima")},
    }


def save_path(path: ExecutionPath, spec: EnvSpec, about: dict[str, Any], out: Path, compiled: bool = False) -> None:
    """Trace `path` for any number of rows and write it to `out`, whole or not at all; `compiled`: as machine code."""
    path.train(False)
    path.requires_grad_(False)
    batch = Dim("batch", min=1, max=2**20)
    rows = 3
    arguments = [torch.zeros(rows, *about["inputs"]["history"][1:])]
    if path.noise.total:
        arguments.append(torch.zeros(rows, path.noise.total))
    shapes = ({0: batch},) * len(arguments)
    program = torch.export.export(path, tuple(arguments), dynamic_shapes=shapes)
    out.parent.mkdir(parents=True, exist_ok=True)
    beside = out.with_name(f".{out.stem}.unfinished.pt2")
    try:
        _write(program, json.dumps(about, indent=1), beside, compiled)
        beside.replace(out)
    finally:
        beside.unlink(missing_ok=True)


def _write(program: torch.export.ExportedProgram, about: str, file: Path, compiled: bool) -> None:
    if not compiled:
        torch.export.save(program, file, extra_files={METADATA: about})
        return
    from torch import _inductor

    configs = {"aot_inductor.metadata": {METADATA: about}}
    _inductor.aoti_compile_and_package(program, package_path=str(file), inductor_configs=configs)


def _require_compiler() -> None:
    compiler = os.environ.get("CXX", "clang++" if sys.platform == "darwin" else "g++")
    if shutil.which(compiler) is None:
        raise ConfigError(
            f"compile = true needs a C++ compiler and {compiler!r} is not there; install one, name it in CXX,"
            " or export without compile=true: that file does the same, slower"
        )
