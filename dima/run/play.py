"""`dima play`: a video of a real episode, acted by the policy of a saved run."""

from __future__ import annotations

import dataclasses
import importlib
from pathlib import Path
from typing import Any, Self

import numpy as np
from omegaconf import DictConfig

from dima.run.console import StepCounter, announce, say
from dima.run.evaluation import play_episodes
from dima.run.hydra_app import run_app
from dima.run.runtime import DeviceChoice, derive_seeds
from dima.run.saved_run import SavedRun, open_run
from dima.run.settings import read_settings
from imagination.agent import PolicyAgent
from worldmodel.config import Config


@dataclasses.dataclass(frozen=True)
class PlaySettings(Config):
    """Everything that `dima play` is told."""

    run: str
    """The run folder."""
    checkpoint: int | str
    """`latest`, or the env steps of a checkpoint."""
    seed: int | None
    """Of the episode; null: the first that training evaluated on."""
    deterministic: bool
    """The distribution's mean as the action, or a draw from it."""
    fps: int
    """Pictures, that is env steps, per second of video."""
    device: DeviceChoice
    """Where the networks live."""
    num_threads: int | None
    """CPU threads of torch; null: as in training."""
    out: str | None
    """The folder that the video is written into; null: RUN/play."""

    def validate(self) -> None:
        """Refuse a still."""
        self.require(self.fps >= 1, "fps", "at least 1")
        self.require(self.seed is None or self.seed >= 0, "seed", "at least 0, or null")


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
    settings: PlaySettings = read_settings(config)
    run = open_run(settings.run, settings.checkpoint, settings.device, settings.num_threads, "play")
    seed = derive_seeds(run.settings.seed, "evaluate", 1)[0] if settings.seed is None else settings.seed
    out = Path(settings.out) if settings.out else run.folder.path / "play"
    file = out / f"step{run.env_steps}-seed{seed}.mp4"
    announce(
        "play",
        {
            "task": run.learner.spec.env_id,
            "run": f"{settings.run}, after {run.env_steps} env steps",
            "parameters": run.learner.describe_parameters(),
            "device": run.learner.device,
            "episode seed": seed,
            "video": file,
        },
    )
    out.mkdir(parents=True, exist_ok=True)
    with _Video(file, settings.fps) as video:
        return_ = _film(run, seed, settings.deterministic, video)
    say(f"episode return {return_:.1f} over {video.num_frames - 1} env steps")
    say(f"wrote {file}")


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


def _film(run: SavedRun, seed: int, deterministic: bool, video: _Video) -> float:
    """A picture after the reset and after every step; returns the episode's return."""
    env = run.settings.env_config.build()
    generator = run.learner.randomness.fresh("evaluate")
    agent = PolicyAgent(run.learner.model, run.learner.mappo.policy, generator, deterministic=deterministic)
    progress = StepCounter(1, env.spec.episode_steps)

    def on_step() -> None:
        video.add(env.render())
        progress()

    try:
        return play_episodes([env], agent, [seed], on_step)[0]
    finally:
        progress.close()
        env.close()
