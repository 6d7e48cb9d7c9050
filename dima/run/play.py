"""`dima play`: a video of a real episode, acted by the policy of a saved run or by the environment's own script."""

from __future__ import annotations

import dataclasses
import importlib
from pathlib import Path
from typing import Any, Self

import numpy as np
from omegaconf import DictConfig, OmegaConf

from dima.run.behaviour import build_scripted
from dima.run.console import StepCounter, announce, say
from dima.run.evaluation import play_episodes
from dima.run.execution import choose_belief
from dima.run.execution_facts import announce_execution, state_label
from dima.run.hydra_app import run_app
from dima.run.runtime import DeviceChoice, derive_seeds
from dima.run.saved_run import open_run
from dima.run.settings import read_settings
from envs.base import EnvConfig, MultiAgentEnv
from envs.scripted_agent import ScriptedAgent
from envs.vector import SeparateEnvs
from imagination.agent import PolicyAgent
from imagination.belief import Combine
from worldmodel.config import Config, ConfigError
from worldmodel.protocol import Agent


@dataclasses.dataclass(frozen=True)
class PlaySettings(Config):
    """Everything that `dima play` is told."""

    behaviour: str
    """Who acts, said as `policy=...`: `run` (that of `run=DIR`, in the run's environment) or `scripted`."""
    run: str | None
    """The run folder; null with `policy=scripted`."""
    checkpoint: int | str
    """`latest`, or the env steps of a checkpoint."""
    seed: int | None
    """Of the episode; null: the first that training evaluated on, 0 for a script."""
    deterministic: bool
    """The distribution's mean as the action, or a draw from it."""
    fps: int
    """Pictures, that is env steps, per second of video."""
    device: DeviceChoice
    """Where the networks live."""
    num_threads: int | None
    """CPU threads of torch; null: as in training."""
    out: str | None
    """The folder that the video is written into; null: RUN/play, or play/ENV for a script."""
    env: Any = None
    """With `policy=scripted`: an `EnvConfig`."""
    inference: str | None = None
    """How states are inferred for a policy that is fed with them: a run of `dima fit`, or `oracle`; null: the run's own
    inferencer, or else the true state."""
    combine: Combine | None = None
    """What becomes of several samples' actions; null: as the run says."""
    samples: int | None = None
    """Draws an agent and step; null: as the run says."""

    def validate(self) -> None:
        """Refuse a still, and a script without an environment or beside a run."""
        self.require(self.behaviour in ("run", "scripted"), "behaviour", "run or scripted, said as policy=...")
        if self.behaviour == "run":
            self.require(self.run is not None, "run", "a run's folder")
            if self.env is not None:
                raise ConfigError("env: a run is played in its own environment; with policy=scripted choose one")
            return
        for name in ("run", "inference", "combine", "samples"):
            value = getattr(self, name)
            if value is not None:
                raise ConfigError(
                    f"{name} = {value!r}: of no use with policy=scripted, which plays an environment's script"
                )
        if not isinstance(self.env, EnvConfig):
            raise ConfigError("env has no value; give one with policy=scripted: env=bidexhands-mujoco/pen")


def main() -> None:
    """Run the command with the arguments in `sys.argv`."""
    run_app("play", play)


def play(config: DictConfig) -> None:
    """Play and film the episode that `config` asks for.

    Raises:
        ModuleNotFoundError: when imageio-ffmpeg is not installed.
        EnvError: when the environment cannot be drawn on this machine; says what to install.
    """
    importlib.import_module("imageio_ffmpeg")  # before an episode is played for nothing
    if config.behaviour == "scripted" and OmegaConf.is_missing(config, "run"):
        config.run = None
    settings: PlaySettings = read_settings(config)
    film = _script(settings) if settings.behaviour == "scripted" else _run(settings)
    announce("play", {**film.description, "episode seed": film.seed, "video": film.file})
    film.file.parent.mkdir(parents=True, exist_ok=True)
    try:
        with _Video(film.file, settings.fps) as video:
            return_ = _shoot(film, video)
    finally:
        film.env.close()
    say(f"episode return {return_:.1f} over {video.num_frames - 1} env steps")
    say(f"wrote {film.file}")


@dataclasses.dataclass(frozen=True)
class _Film:
    """One episode to play and film."""

    env: MultiAgentEnv
    agent: Agent[Any]
    seed: int
    file: Path
    description: dict[str, object]


def _slug(label: str) -> str:
    """`globediff, votes of 8` as the end of a file's name, so that films of one policy stand side by side."""
    return "".join(f"-{word}" for word in label.replace(",", "").split())


def _run(settings: PlaySettings) -> _Film:
    """The policy of a run, in the run's environment, acting on what it acts on in `dima evaluate`."""
    assert settings.run is not None
    run = open_run(settings.run, settings.checkpoint, settings.device, settings.num_threads, "play")
    seed = derive_seeds(run.settings.seed, "evaluate", 1)[0] if settings.seed is None else settings.seed
    belief, execution = choose_belief(run, settings.inference, settings.combine, settings.samples)
    out = Path(settings.out) if settings.out else run.folder.path / "play"
    description = {
        "task": run.learner.spec.env_id,
        "run": f"{settings.run}, after {run.env_steps} env steps",
        "parameters": run.learner.describe_parameters(),
        **announce_execution(execution),
        "device": run.learner.device,
    }
    generator = run.learner.randomness.fresh("evaluate")
    model, policy = run.learner.model, run.learner.mappo.policy
    agent = PolicyAgent(model, policy, generator, deterministic=settings.deterministic, belief=belief)
    file = out / f"step{run.env_steps}-seed{seed}{_slug(state_label(execution))}.mp4"
    return _Film(run.settings.env_config.build(), agent, seed, file, description)


def _script(settings: PlaySettings) -> _Film:
    """The script of an environment, without noise."""
    env = build_scripted(settings.env)
    seed = settings.seed or 0
    agent = ScriptedAgent(env, noise=0.0, rng=np.random.default_rng(seed))
    out = Path(settings.out) if settings.out else Path("play") / env.spec.env_id
    return _Film(env, agent, seed, out / f"scripted-seed{seed}.mp4", {"task": env.spec.env_id, "policy": "scripted"})


class _Video:
    """Encodes pictures [height, width, 3] as H.264 while they come; the file appears whole, or not at all."""

    def __init__(self, file: Path, fps: int) -> None:
        self.num_frames = 0
        self._file = file
        self._beside = file.with_name(f".{file.name}")
        self._fps = fps
        self._writer: Any = None

    def add(self, frame: np.ndarray) -> None:
        """Append one picture; the first one sets the size."""
        if self._writer is None:
            import imageio_ffmpeg

            height, width = frame.shape[:2]
            # The codec wants even sizes; anything coarser would make imageio rescale the pictures.
            self._writer = imageio_ffmpeg.write_frames(
                str(self._beside), (width, height), fps=self._fps, macro_block_size=2
            )
            self._writer.send(None)
        self._writer.send(np.ascontiguousarray(frame))
        self.num_frames += 1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, traceback: object) -> None:
        if self._writer is not None:
            self._writer.close()
        if kind is None:
            self._beside.replace(self._file)
        else:
            self._beside.unlink(missing_ok=True)


def _shoot(film: _Film, video: _Video) -> float:
    """A picture after the reset and after every step; returns the episode's return."""
    progress = StepCounter(1, film.env.spec.episode_steps)

    def on_step() -> None:
        video.add(film.env.render())
        progress()

    try:
        return play_episodes(SeparateEnvs([film.env]), film.agent, [film.seed], on_step)[0]
    finally:
        progress.close()
