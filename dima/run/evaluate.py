"""`dima evaluate`: real episodes with the policy of a saved run, scored like the evaluations of its training."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

from omegaconf import DictConfig

from dima.run.console import StepCounter, announce, print_scores, say
from dima.run.evaluation import Evaluator
from dima.run.execution import choose_belief
from dima.run.execution_facts import announce_execution, state_label
from dima.run.folder import RunFolder, new_path
from dima.run.hydra_app import run_app
from dima.run.runtime import DeviceChoice, derive_seeds, fresh_generator
from dima.run.saved_run import SavedRun, open_run
from dima.run.settings import read_settings
from imagination.agent import PolicyAgent
from imagination.belief import Belief, Combine
from worldmodel.atomic import write_whole
from worldmodel.config import Config


@dataclasses.dataclass(frozen=True)
class EvaluateSettings(Config):
    """Everything that `dima evaluate` is told."""

    run: str
    """The run folder."""
    checkpoint: int | str
    """`latest`, or the env steps of a checkpoint."""
    episodes: int
    """How many, each with a seed of its own."""
    seed: int | None
    """What the episodes' seeds and all noise of acting are derived from; null: the run's seed, with which training
    evaluated, on the first ones."""
    deterministic: bool
    """The distribution's mean as the action, or a draw from it."""
    device: DeviceChoice
    """Where the networks live."""
    num_threads: int | None
    """CPU threads of torch; null: as in training."""
    out: str | None
    """The folder that scores.json is written into; null: a new one under RUN/evaluate/."""
    inference: str | None = None
    """How states are inferred for a policy that is fed with them: a run of `dima fit`, or `oracle`; null: the run's own
    inferencer, or else the true state."""
    combine: Combine | None = None
    """What becomes of several samples' actions; null: as the run says."""
    samples: int | None = None
    """Draws an agent and step; null: as the run says."""

    def validate(self) -> None:
        """Refuse no episodes."""
        self.require(self.episodes >= 1, "episodes", "at least 1")
        self.require(self.seed is None or self.seed >= 0, "seed", "at least 0, or null")


def main() -> None:
    """Run the command with the arguments in `sys.argv`."""
    run_app("evaluate", evaluate)


def evaluate(config: DictConfig) -> None:
    """Play the episodes that `config` asks for and write their returns."""
    settings: EvaluateSettings = read_settings(config)
    run = open_run(settings.run, settings.checkpoint, settings.device, settings.num_threads, "evaluate")
    seed = run.settings.seed if settings.seed is None else settings.seed
    seeds = derive_seeds(seed, "evaluate", settings.episodes)
    belief, execution = choose_belief(run, settings.inference, settings.combine, settings.samples)
    out = Path(settings.out) if settings.out else new_path(run.folder.path / "evaluate", str(run.env_steps))
    announce(
        "evaluate",
        {
            "task": run.learner.spec.env_id,
            "run": f"{settings.run}, after {run.env_steps} env steps",
            "episodes": f"{len(seeds)}, {'deterministic' if settings.deterministic else 'sampled'} actions",
            "parameters": run.learner.describe_parameters(),
            **announce_execution(execution),
            "device": run.learner.device,
            "folder": out,
        },
    )
    folder = RunFolder.create(out, resumable=False)
    try:
        returns = _play(run, seed, seeds, settings.deterministic, belief)
    except BaseException:
        folder.remove()
        raise
    scores = {
        "env": run.learner.spec.env_id,
        "versions": dict(run.learner.spec.versions),
        "seed": seed,
        "run": settings.run,
        "deterministic": settings.deterministic,
        "execution": execution,
        "episode_seeds": seeds,
        "evaluations": [{"env_steps": run.env_steps, "returns": returns}],
    }
    write_whole(out / "scores.json", json.dumps(scores, indent=1) + "\n")
    label = state_label(execution)
    print_scores([(f"policy after {run.env_steps} env steps" + (f", {label}" if label else ""), returns)])
    say(f"wrote {out / 'scores.json'}")


def _play(run: SavedRun, seed: int, seeds: list[int], deterministic: bool, belief: Belief | None) -> list[float]:
    """The return of an episode for each of `seeds`; noise of inference and actions comes from `seed`."""
    evaluator = Evaluator(run.settings.env_config, seeds, run.settings.trainer.eval_episodes)
    generator = fresh_generator(seed, "evaluate", run.learner.device)
    model, policy = run.learner.model, run.learner.mappo.policy
    agent = PolicyAgent(model, policy, generator, deterministic=deterministic, belief=belief)
    progress = StepCounter(evaluator.num_envs, len(seeds) * run.learner.spec.episode_steps)
    try:
        return evaluator.play(agent, progress)
    finally:
        progress.close()
        evaluator.close()
