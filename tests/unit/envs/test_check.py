"""`check_env` finds what is wrong with deliberately broken environments, and nothing in a sound one."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from envs.base import MultiAgentEnv, Observed, StepResult
from envs.check import Finding, check_env
from envs.toy.counter import CounterConfig
from tests.support.toy_systems import linear_config
from worldmodel.types import EnvSpec

LINEAR = linear_config(num_agents=2, state_dim=3, episode_steps=30)


class Sound:
    """A sound environment; each broken one below differs from it in one thing."""

    def __init__(self) -> None:
        self.env = LINEAR.build()

    @property
    def spec(self) -> EnvSpec:
        return self.env.spec

    def reset(self, seed: int) -> Observed:
        return self.env.reset(seed)

    def step(self, action: np.ndarray) -> StepResult:
        return self.env.step(action)

    def render(self) -> np.ndarray:
        return self.env.render()

    def close(self) -> None:
        self.env.close()


@dataclasses.dataclass(frozen=True)
class Make:
    """A config of the plainest kind."""

    build: Callable[[], MultiAgentEnv]


class BecomesNan(Sound):
    def step(self, action: np.ndarray) -> StepResult:
        result = super().step(action)
        if result.reward < -1.0:
            result.state[1] = np.nan
        return result


class WrongShape(Sound):
    def step(self, action: np.ndarray) -> StepResult:
        result = super().step(action)
        return result._replace(obs=result.obs[:, :-1])


class WrongType(Sound):
    def reset(self, seed: int) -> Observed:
        observed = super().reset(seed)
        return observed._replace(state=observed.state.astype(np.float64))


class RewardPerAgent(Sound):
    def step(self, action: np.ndarray) -> StepResult:
        result = super().step(action)
        return result._replace(reward=np.full(2, result.reward))  # type: ignore[arg-type]


class UnseededChance(Sound):
    def step(self, action: np.ndarray) -> StepResult:
        result = super().step(action)
        return result._replace(reward=result.reward + float(np.random.default_rng().normal()))


class RemembersEpisodes(Sound):
    """Something survives a reset."""

    def __init__(self) -> None:
        super().__init__()
        self.worn = np.float32(0)

    def step(self, action: np.ndarray) -> StepResult:
        self.worn += np.float32(0.01)
        result = super().step(action)
        return result._replace(state=result.state + self.worn)


class IgnoresSeed(Sound):
    def reset(self, seed: int) -> Observed:
        return super().reset(0)


class FrozenState(Sound):
    def reset(self, seed: int) -> Observed:
        self.first = super().reset(seed)
        return self.first

    def step(self, action: np.ndarray) -> StepResult:
        return super().step(action)._replace(state=self.first.state)


class ConstantReward(Sound):
    def step(self, action: np.ndarray) -> StepResult:
        return super().step(action)._replace(reward=1.0)


class NeverEnds(Sound):
    def __init__(self) -> None:
        self.env = dataclasses.replace(LINEAR, episode_steps=10_000).build()

    @property
    def spec(self) -> EnvSpec:
        return dataclasses.replace(self.env.spec, episode_steps=30)


class EndsEarly(Sound):
    @property
    def spec(self) -> EnvSpec:
        return dataclasses.replace(self.env.spec, episode_steps=50)


class TimeLimitAsTermination(Sound):
    def step(self, action: np.ndarray) -> StepResult:
        result = super().step(action)
        return result._replace(terminated=result.truncated, truncated=False)


class DoesNotClip(Sound):
    def step(self, action: np.ndarray) -> StepResult:
        result = super().step(action)
        return result._replace(reward=result.reward - float(np.abs(action).sum()))


class ReadsPadding(Sound):
    """Says that agent 1 has one action, but uses two."""

    @property
    def spec(self) -> EnvSpec:
        return dataclasses.replace(self.env.spec, action_sizes=(2, 1))


class IgnoresAgent(Sound):
    def step(self, action: np.ndarray) -> StepResult:
        return super().step(action * np.array([[1.0], [0.0]]))


class IgnoresActions(Sound):
    def step(self, action: np.ndarray) -> StepResult:
        return super().step(np.zeros_like(action))


class ReturnsItsBuffer(Sound):
    def __init__(self) -> None:
        super().__init__()
        self.buffer = np.zeros(3, np.float32)

    def reset(self, seed: int) -> Observed:
        observed = super().reset(seed)
        self.buffer[:] = observed.state
        return observed._replace(state=self.buffer)

    def step(self, action: np.ndarray) -> StepResult:
        result = super().step(action)
        self.buffer[:] = result.state
        return result._replace(state=self.buffer)


class WritesIntoAction(Sound):
    def step(self, action: np.ndarray) -> StepResult:
        result = super().step(action.copy())
        action *= 0.5
        return result


class CrashesAtBounds(Sound):
    def step(self, action: np.ndarray) -> StepResult:
        if np.abs(action).max() >= 1.0:
            raise KeyError("joint limit")
        return super().step(action)


class CannotBeBuilt(Sound):
    def __init__(self) -> None:
        raise ImportError("no module named simulator")


BROKEN: list[tuple[type[Sound], str, str, str]] = [
    (BecomesNan, "contract", "error", r"state[1] has the value nan; expected a finite number"),
    (WrongShape, "contract", "error", "obs has shape [2, 3]; expected [N, O] = [2, 4]"),
    (WrongType, "contract", "error", "after reset(seed=0): state has dtype float64; expected float32"),
    (RewardPerAgent, "contract", "error", "reward has an array of dtype float64 and shape [2]"),
    (UnseededChance, "determinism", "error", "played a second time with the same actions, differs: reward at step 0"),
    (RemembersEpisodes, "determinism", "error", "differs: state[0] at step 1 is"),
    (IgnoresSeed, "seeds", "warning", "the seeds 0, 1, 2 give the same episode"),
    (FrozenState, "movement", "error", "the state is the same at every step"),
    (ConstantReward, "movement", "warning", "the reward was 1.0 at every step of 3 episodes"),
    (NeverEnds, "episode end", "error", "an episode goes on after episode_steps = 30"),
    (EndsEarly, "episode end", "error", "truncated after 30 steps, but episode_steps is 50"),
    (TimeLimitAsTermination, "termination", "error", "whatever the seed and the actions, terminates after 30 steps"),
    (DoesNotClip, "action range", "error", "actions of +-3 do not act like +-1: reward at step 0"),
    (ReadsPadding, "action range", "error", "padded entries of the action, which no agent controls, have an effect"),
    (IgnoresAgent, "influence", "warning", "the actions of agents [1] change neither"),
    (IgnoresActions, "influence", "error", "the actions of agents [0, 1] change neither"),
    (ReturnsItsBuffer, "aliasing", "error", "arrays that were returned earlier change"),
    (WritesIntoAction, "aliasing", "error", "step() writes into the action it is given"),
    (CrashesAtBounds, "action range", "error", "the environment raised KeyError: 'joint limit'"),
    (CannotBeBuilt, "build", "error", "the environment raised ImportError: no module named simulator"),
]


@pytest.mark.parametrize("config", [LINEAR, Make(Sound), CounterConfig(2, 3, 7)])
def test_nothing_is_found_in_a_sound_environment(config: Any) -> None:
    assert check_env(config) == []


@pytest.mark.parametrize(("env", "check", "severity", "problem"), BROKEN)
def test_what_is_broken_is_found_and_explained(env: type[Sound], check: str, severity: str, problem: str) -> None:
    findings = check_env(Make(env))
    hits = [finding for finding in findings if finding.check == check]
    assert len(hits) == 1, findings
    assert hits[0].severity == severity
    assert problem in hits[0].problem
    assert len(hits[0].advice) > 10


def test_a_finding_reads_as_a_sentence() -> None:
    finding = Finding("seeds", "warning", "all seeds are one", "Use the seed")
    assert str(finding) == "warning (seeds): all seeds are one. Use the seed."
