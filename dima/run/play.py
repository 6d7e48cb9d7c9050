"""`dima play`: a video of a real episode, acted by the policy of a saved run."""

from __future__ import annotations

import dataclasses
import importlib
from pathlib import Path

import numpy as np
from omegaconf import DictConfig

from dima.run.console import announce, say
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
            "episode seed": seed,
            "video": file,
        },
    )
    frames, return_ = _film(run, seed, settings.deterministic)
    out.mkdir(parents=True, exist_ok=True)
    _write_video(file, frames, settings.fps)
    say(f"episode return {return_:.1f} over {len(frames) - 1} env steps")
    say(f"wrote {file}")


def _write_video(file: Path, frames: list[np.ndarray], fps: int) -> None:
    """Encode `frames` [height, width, 3] as H.264; the file appears when it is whole."""
    import imageio_ffmpeg

    height, width = frames[0].shape[:2]
    beside = file.with_name(f".{file.name}")
    # The codec wants even sizes; anything coarser would make imageio rescale the pictures.
    writer = imageio_ffmpeg.write_frames(str(beside), (width, height), fps=fps, macro_block_size=2)
    writer.send(None)
    for frame in frames:
        writer.send(np.ascontiguousarray(frame))
    writer.close()
    beside.replace(file)


def _film(run: SavedRun, seed: int, deterministic: bool) -> tuple[list[np.ndarray], float]:
    """A picture after the reset and after every step, and the episode's return."""
    env = run.settings.env_config.build()
    generator = run.learner.randomness.fresh("evaluate")
    agent = PolicyAgent(run.learner.model, run.learner.mappo.policy, generator, deterministic=deterministic)
    frames: list[np.ndarray] = []
    try:
        returns = play_episodes([env], agent, [seed], on_step=lambda: frames.append(env.render()))
    finally:
        env.close()
    return frames, returns[0]
