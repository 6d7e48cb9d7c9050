"""What is wrong with an environment, in its author's words: `dima check-env env=...`.

Plays a few episodes with random actions and compares them with each other; each finding says what to do about it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Literal

import numpy as np

from envs.base import EnvConfig, MultiAgentEnv
from envs.play import Played, play, random_actions

SHORT_STEPS = 40
"""Env steps of an episode that is only compared with another."""
LONGEST_STEPS = 2000
"""Env steps after which a longer `episode_steps` is taken on trust."""
SEEDS = (0, 1, 2)


@dataclasses.dataclass(frozen=True)
class Finding:
    """One thing that is wrong, or doubtful."""

    check: str
    """Which check found it, in a word or two."""
    severity: Literal["error", "warning"]
    """`error`: training on it would go wrong or stop; `warning`: it may be meant so."""
    problem: str
    advice: str

    def __str__(self) -> str:
        return f"{self.severity} ({self.check}): {self.problem}. {self.advice}."


def check_env(config: EnvConfig) -> list[Finding]:
    """Everything found wrong with the environment that `config` builds; empty when nothing is.

    Checks: it builds; shapes, types and finiteness of all it returns; its end at `episode_steps`, termination kept
    apart from truncation; the same seed and actions repeat an episode, also in a second instance; seeds differ; state
    and reward change; every agent's actions matter; the action range and padding; returned arrays stay as they are.
    """
    try:
        env, twin = config.build(), config.build()
    # An environment may raise anything whatever, and to report it is what this function is for; so too below.
    except Exception as error:
        return [_from_exception("build", error)]
    try:
        whole = [_play(env, seed, None) for seed in SEEDS]
    except Exception as error:
        return [_from_exception("contract", error)]
    findings = [*_ends(env, whole), *_movement(env, whole)]
    checks: Sequence[Callable[[MultiAgentEnv, MultiAgentEnv], Iterator[Finding]]] = (
        _determinism,
        _seeds,
        _influence,
        _action_range,
        _aliasing,
    )
    for check in checks:
        try:
            findings += check(env, twin)
        except Exception as error:
            findings.append(_from_exception(check.__name__.strip("_").replace("_", " "), error))
    env.close()
    twin.close()
    return findings


def _from_exception(check: str, error: Exception) -> Finding:
    if isinstance(error, ValueError):  # EnvError and ConfigError say what was got and what was expected
        advice = getattr(error, "advice", "") or "Mend what the message names; the contract is envs.base.MultiAgentEnv"
        return Finding(check, "error", str(error), advice[0].upper() + advice[1:])
    problem = f"the environment raised {type(error).__name__}: {error}"
    return Finding(check, "error", problem, "It must build, reset and step with any action in [-1, 1] without raising")


def _play(env: MultiAgentEnv, seed: int, actions: np.ndarray | None) -> Played:
    """An episode with `actions`, or to its end with random ones."""
    if actions is None:
        actions = random_actions(env.spec, min(env.spec.episode_steps + 1, LONGEST_STEPS), seed)
    return play(env, seed, actions)


def _ends(env: MultiAgentEnv, whole: list[Played]) -> Iterator[Finding]:
    limit, lengths = env.spec.episode_steps, [episode.length for episode in whole]
    if max(lengths) > limit:
        yield Finding(
            "episode end",
            "error",
            f"an episode goes on after episode_steps = {limit}",
            "Truncate it there, or correct episode_steps: models and schedules rely on it",
        )
    for episode in whole:
        if episode.truncated and episode.length < limit:
            yield Finding(
                "episode end",
                "error",
                f"an episode is truncated after {episode.length} steps, but episode_steps is {limit}",
                f"Set episode_steps to {episode.length}; if the task itself ended, report it as terminated",
            )
            return
    same_length = len(set(lengths)) == 1 and all(episode.terminated and not episode.truncated for episode in whole)
    if same_length:
        yield Finding(
            "termination",
            "error" if lengths[0] == limit else "warning",
            f"every episode, whatever the seed and the actions, terminates after {lengths[0]} steps",
            "This looks like a time limit: report it as truncated, or the values of all states are learned too low",
        )


def _movement(env: MultiAgentEnv, whole: list[Played]) -> Iterator[Finding]:
    for name in ("state", "obs"):
        if all((getattr(episode, name) == getattr(episode, name)[0]).all() for episode in whole):
            yield Finding(
                "movement",
                "error",
                f"the {name} is the same at every step",
                f"Compute the {name} after each step, from where the environment is then",
            )
    if len(np.unique(np.concatenate([episode.reward for episode in whole]))) == 1:
        yield Finding(
            "movement",
            "warning",
            f"the reward was {whole[0].reward[0]} at every step of {len(whole)} episodes",
            "Nothing can be learned from a constant reward; if it is sparse, random actions may just never have met it",
        )


def _determinism(env: MultiAgentEnv, twin: MultiAgentEnv) -> Iterator[Finding]:
    actions = random_actions(env.spec, SHORT_STEPS, 0)
    first = play(env, SEEDS[0], actions)
    play(env, SEEDS[1], actions[: SHORT_STEPS // 2])
    for other, instance in ((env, "a second time"), (twin, "in a second instance of the environment")):
        difference = first.difference(play(other, SEEDS[0], actions))
        if difference:
            yield Finding(
                "determinism",
                "error",
                f"the episode with seed {SEEDS[0]}, played {instance} with the same actions, differs: {difference}",
                "Draw all chance from a generator made in reset(seed) and reset everything there; a saved run cannot "
                "be resumed otherwise",
            )
            return


def _seeds(env: MultiAgentEnv, twin: MultiAgentEnv) -> Iterator[Finding]:
    actions = random_actions(env.spec, SHORT_STEPS, 0)
    episodes = [play(env, seed, actions) for seed in SEEDS]
    if all(episodes[0].difference(episode) is None for episode in episodes[1:]):
        yield Finding(
            "seeds",
            "warning",
            f"the seeds {', '.join(map(str, SEEDS))} give the same episode",
            "If chance is meant to play a part, use the seed that reset is given; otherwise evaluating on several "
            "episodes measures one",
        )


def _influence(env: MultiAgentEnv, twin: MultiAgentEnv) -> Iterator[Finding]:
    actions = random_actions(env.spec, SHORT_STEPS, 0)
    before = play(env, SEEDS[0], actions)
    idle = []
    for agent in range(env.spec.num_agents):
        changed = actions.copy()
        changed[:, agent] = -changed[:, agent]
        if before.difference(play(env, SEEDS[0], changed)) is None:
            idle.append(agent)
    if idle:
        yield Finding(
            "influence",
            "error" if len(idle) == env.spec.num_agents else "warning",
            f"the actions of agents {idle} change neither state, observation nor reward within {SHORT_STEPS} steps",
            "Check how step() hands each agent's row of the action to what it moves",
        )


def _action_range(env: MultiAgentEnv, twin: MultiAgentEnv) -> Iterator[Finding]:
    spec = env.spec
    mask = spec.action_mask().numpy()
    extreme = np.sign(random_actions(spec, SHORT_STEPS, 0))
    at_bounds = play(env, SEEDS[0], extreme)
    difference = at_bounds.difference(play(env, SEEDS[0], extreme * 3.0))
    if difference:
        yield Finding(
            "action range",
            "error",
            f"actions of +-3 do not act like +-1: {difference}",
            "Clip each action to [-1, 1] in step() before scaling it",
        )
    if not mask.all():
        difference = at_bounds.difference(play(env, SEEDS[0], np.where(mask, extreme, 0.5).astype(np.float32)))
        if difference:
            yield Finding(
                "action range",
                "error",
                f"padded entries of the action, which no agent controls, have an effect: {difference}",
                "Read only the first action_sizes[i] entries of agent i's row",
            )


def _aliasing(env: MultiAgentEnv, twin: MultiAgentEnv) -> Iterator[Finding]:
    actions = random_actions(env.spec, 2, 0)
    before = actions.copy()
    observed = env.reset(SEEDS[0])
    kept = (observed.obs.copy(), observed.state.copy())
    result = env.step(actions[0])
    same = all(np.array_equal(a, b) for a, b in zip(kept, observed, strict=True))
    if same and not (result.terminated or result.truncated):
        kept = (result.obs.copy(), result.state.copy())
        env.step(actions[1])
        same = np.array_equal(kept[0], result.obs) and np.array_equal(kept[1], result.state)
    if not same:
        yield Finding(
            "aliasing",
            "error",
            "arrays that were returned earlier change when the environment steps on",
            "Return copies, not the environment's own buffers",
        )
    if not np.array_equal(before, actions):
        yield Finding("aliasing", "error", "step() writes into the action it is given", "Work on a copy of the action")
