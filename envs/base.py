"""What an environment offers, and the check at its border: only finite numbers of the right shape and type get in.

Collectors, evaluation and `dima check-env` know environments through `MultiAgentEnv` only. Knows no simulator.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np

from envs.errors import EnvError
from worldmodel.types import EnvSpec

__all__ = [
    "EnvConfig",
    "EnvError",
    "MultiAgentEnv",
    "Observed",
    "RestorableEnv",
    "ScriptedEnv",
    "StepResult",
    "check_observed",
    "check_step",
]


class Observed(NamedTuple):
    """What is known after a reset: `obs` float32 [N,O] and `state` float32 [S]."""

    obs: np.ndarray
    state: np.ndarray


class StepResult(NamedTuple):
    """What is known after a step.

    `obs` float32 [N,O], `state` float32 [S], `reward` the team's, per env step, unscaled; `terminated`: the task itself
    ended; `truncated`: only the time ran out (both may hold); `info`: numbers worth logging.
    """

    obs: np.ndarray
    state: np.ndarray
    reward: float
    terminated: bool
    truncated: bool
    info: dict[str, float]


class MultiAgentEnv(Protocol):
    """A cooperative environment with continuous actions. An episode is a deterministic function of (seed, actions)."""

    @property
    def spec(self) -> EnvSpec:
        """Sizes, name and versions; never changes."""
        ...

    def reset(self, seed: int) -> Observed:
        """Begin an episode; whatever is random in it is drawn from `seed`."""
        ...

    def step(self, action: np.ndarray) -> StepResult:
        """Take one env step with `action` [N,A] in [-1, 1]; entries outside are clipped, padded entries ignored."""
        ...

    def render(self) -> np.ndarray:
        """The current picture, uint8 [height, width, 3]. Raises `EnvError` where there is none."""
        ...

    def close(self) -> None:
        """Free what the environment holds."""
        ...


@runtime_checkable
class RestorableEnv(MultiAgentEnv, Protocol):
    """An environment that can go back to a moment of an episode: what other actions would have done can be tried.

    Optional; `isinstance(env, RestorableEnv)` asks for it.
    """

    def snapshot(self) -> Any:
        """All that decides what comes next, as an opaque value that later steps and resets leave alone."""
        ...

    def restore(self, snapshot: Any) -> None:
        """Go back to a `snapshot` that this environment gave, as often as wanted, also after the episode's end.

        What follows `restore` is, for the same actions, what followed `snapshot`, to the bit, chance included.
        """
        ...


@runtime_checkable
class ScriptedEnv(MultiAgentEnv, Protocol):
    """An environment that knows a hand-written policy for its task.

    Optional; `isinstance(env, ScriptedEnv)` asks for it.
    """

    def scripted_action(self, noise: float, rng: np.random.Generator) -> np.ndarray:
        """The script's action [N,A] in [-1, 1] for this moment of the episode; it may see more than agents do.

        Args:
            noise: standard deviation of normal noise on every entry, before clipping; 0: none.
            rng: where the noise is drawn from.
        """
        ...


@runtime_checkable
class EnvConfig(Protocol):
    """What `env._target_` names: a frozen, picklable config that builds its environment."""

    def build(self) -> MultiAgentEnv:
        """A fresh environment, ready for `reset`."""
        ...


def check_observed(spec: EnvSpec, observed: Observed, where: str) -> Observed:
    """Return `observed` unless it breaks the contract.

    Args:
        spec: what the environment promised.
        observed: what it gave.
        where: for the message, e.g. "after reset(seed=3)".

    Raises:
        EnvError: when a shape, a type or a value is wrong.
    """
    _check_array(spec, "obs", observed.obs, (spec.num_agents, spec.obs_dim), "[N, O]", where)
    _check_array(spec, "state", observed.state, (spec.state_dim,), "[S]", where)
    return observed


def check_step(spec: EnvSpec, result: StepResult, where: str) -> StepResult:
    """Return `result` unless it breaks the contract; arguments and errors as `check_observed`."""
    check_observed(spec, Observed(result.obs, result.state), where)
    if not isinstance(result.reward, (float, np.floating)):
        raise _error(spec, where, "reward", _describe(result.reward), "one float, the team's reward", _REWARD)
    if not np.isfinite(result.reward):
        raise _error(spec, where, "reward", f"the value {result.reward}", "a finite number", _FINITE)
    for name in ("terminated", "truncated"):
        value = getattr(result, name)
        if not isinstance(value, (bool, np.bool_)):
            raise _error(spec, where, name, _describe(value), "one bool", "one flag for the whole team")
    return result


_FINITE = (
    "look for divisions by zero, roots and logarithms of negative numbers and simulations that blow up; end the "
    "episode (terminated) before the numbers do"
)
_SHAPE = "return as many numbers at every step as the spec says; fill what an agent lacks with zeros"
_DTYPE = "return array.astype(np.float32)"
_REWARD = "return the mean of the agents' rewards as one float"


def _check_array(spec: EnvSpec, name: str, got: Any, shape: tuple[int, ...], letters: str, where: str) -> None:
    if not isinstance(got, np.ndarray):
        raise _error(spec, where, name, _describe(got), f"a NumPy array {letters} of float32", _DTYPE)
    if got.shape != shape:
        raise _error(spec, where, name, f"shape {list(got.shape)}", f"{letters} = {list(shape)}", _SHAPE)
    if got.dtype != np.float32:
        raise _error(spec, where, name, f"dtype {got.dtype}", "float32", _DTYPE)
    finite = np.isfinite(got)
    if not finite.all():
        index = tuple(int(i) for i in np.argwhere(~finite)[0])
        raise _error(spec, where, f"{name}{list(index)}", f"the value {got[index]}", "a finite number", _FINITE)


def _describe(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return f"an array of dtype {value.dtype} and shape {list(value.shape)}"
    return f"{value!r} ({type(value).__name__})"


def _error(spec: EnvSpec, where: str, field: str, got: str, expected: str, advice: str) -> EnvError:
    return EnvError(f"environment {spec.env_id}, {where}: {field} has {got}; expected {expected}", advice)
