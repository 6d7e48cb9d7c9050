"""A hidden mode that nobody sees: the law of the state, given all that agents have observed, is a known mixture.

For the inference of states. The state at each step is s = spread * mu_j + L c + std * xi, with a context c that all
agents observe and a mode j that none does; context, mode and noise xi are drawn anew at every step.
"""

from __future__ import annotations

import copy
import dataclasses

import numpy as np

from envs.base import EnvError, Observed, StepResult
from envs.toy.system import Mixture, with_agent_id
from worldmodel.config import Config
from worldmodel.types import EnvSpec

REWARD_WIDTH = 0.25
"""How far from a mode's target, in units of the action, the reward falls to exp(-1/2)."""
TARGET_LIMIT = 0.8
"""Targets lie in [-0.8, 0.8]^N, so that an action a little off on the outer side is possible."""
CANDIDATES = 256
"""Random points out of which centres and targets are chosen far from each other; a guess that suffices for 8 modes."""
STARTS = 16
"""Candidates from which that choice is begun; the best one counts."""


@dataclasses.dataclass(frozen=True)
class MixtureConfig(Config):
    """A context that is seen and a mode that is not."""

    num_agents: int
    state_dim: int
    """S, at least 2."""
    num_modes: int
    """J, at least 2."""
    separation: float
    """Smallest distance between two modes' centres in units of `std`; from 5 on modes hardly overlap."""
    weights: tuple[float, ...] | None
    """In proportion to the modes' probabilities; null: 1, 2, ..., J, so that no two modes are alike."""
    std: float
    """Standard deviation within a mode, in each coordinate of the state."""
    context_size: int
    """C; the context is uniform in [-1, 1]^C."""
    context_gain: float
    """Length of every column of L: how far one entry of the context, at 1, moves the state."""
    layout_seed: int
    """Draws centres, targets and L; not the seed of an episode."""
    episode_steps: int

    def validate(self) -> None:
        """Refuse sizes that are too small, weights that do not fit and modes without distance or spread."""
        for name, least in (("num_agents", 1), ("context_size", 1), ("episode_steps", 1), ("layout_seed", 0)):
            self.require(getattr(self, name) >= least, name, f"at least {least}")
        self.require(self.state_dim >= 2, "state_dim", "at least 2")
        self.require(self.num_modes >= 2, "num_modes", "at least 2")
        self.require(self.separation > 0, "separation", "above 0")
        self.require(self.std > 0, "std", "above 0")
        self.require(self.context_gain >= 0, "context_gain", "at least 0")
        fits = self.weights is None or (len(self.weights) == self.num_modes and min(self.weights) > 0)
        self.require(fits, "weights", f"null or num_modes = {self.num_modes} numbers above 0")

    def build(self) -> MixtureEnv:
        """The environment that plays this law."""
        return MixtureEnv(MixtureSystem(self))

    def state_law(self, history: np.ndarray) -> Mixture:
        """The exact law of the state now, given observations `history` [B,m+1,N,O] of which the last is of now.

        Draws are independent over time, so only the last counts. Mean [J,B,S], weight [J].
        """
        return MixtureSystem(self).law_of_obs(history[:, -1])


class MixtureSystem:
    """The law and the reward as formulas. Actions [..., N, 1] in [-1, 1]; where "..." stands, any axes may come."""

    def __init__(self, config: MixtureConfig) -> None:
        self._config = config
        draw = np.random.default_rng(config.layout_seed)
        shape = (CANDIDATES, config.state_dim)
        directions = draw.standard_normal(shape)
        centres = _far_apart(directions / np.linalg.norm(directions, axis=1, keepdims=True), config.num_modes)
        self.centres = centres * config.separation * config.std / _smallest_distance(centres)
        """[J,S] of the modes, at context 0, on a sphere around 0."""
        self.targets = _far_apart(
            draw.uniform(-TARGET_LIMIT, TARGET_LIMIT, (CANDIDATES, config.num_agents)), config.num_modes
        )
        """[J,N] the joint action that earns 1 in each mode."""
        gain = draw.standard_normal((config.state_dim, config.context_size))
        self.context_gain = config.context_gain * gain / np.linalg.norm(gain, axis=0)
        """L [S,C]."""
        proportions = np.array(config.weights or range(1, config.num_modes + 1), np.float64)
        self.weight = proportions / proportions.sum()
        """[J] probabilities of the modes."""
        self._spec = EnvSpec(
            env_id=f"toy/mixture-{config.num_agents}x1",
            num_agents=config.num_agents,
            state_dim=config.state_dim,
            obs_sizes=(config.context_size,) * config.num_agents,
            action_sizes=(1,) * config.num_agents,
            episode_steps=config.episode_steps,
            appends_agent_id=True,
        )

    @property
    def spec(self) -> EnvSpec:
        """Sizes and name."""
        return self._spec

    def law(self, context: np.ndarray) -> Mixture:
        """p(s | c) for `context` [..., C]: weight [J], mean [J,...,S]."""
        middle = context @ self.context_gain.T
        centres = self.centres.reshape(len(self.weight), *(1,) * (middle.ndim - 1), -1)
        return Mixture(self.weight.copy(), centres + middle, self._config.std)

    def law_of_obs(self, obs: np.ndarray) -> Mixture:
        """p(s | o) for observations `obs` [..., N, O] of one moment: that of the context which they all show."""
        return self.law(np.asarray(obs[..., 0, : self._config.context_size], np.float64))

    def draw(self, generator: np.random.Generator) -> tuple[np.ndarray, int, np.ndarray]:
        """A context [C], the mode and the state [S]; the context is exact in float32, as it is observed."""
        context = generator.uniform(-1.0, 1.0, self._config.context_size).astype(np.float32).astype(np.float64)
        mode = int(generator.choice(len(self.weight), p=self.weight))
        law = self.law(context)
        return context, mode, law.mean[mode] + law.std * generator.standard_normal(self._config.state_dim)

    def observe(self, context: np.ndarray) -> np.ndarray:
        """`context` [..., C], the same for every agent, and the agents' ids: [..., N, O]."""
        agents = self._config.num_agents
        return with_agent_id(np.repeat(context[..., None, :], agents, axis=-2))

    def nearest_mode(self, state: np.ndarray, context: np.ndarray) -> np.ndarray:
        """Index [...] of the mode whose centre is nearest to `state` [..., S] at `context` [..., C]."""
        return np.linalg.norm(state - self.law(context).mean, axis=-1).argmin(axis=0)

    def reward(self, mode: np.ndarray | int, action: np.ndarray) -> np.ndarray:
        """exp(-|a - g_j|^2 / (2 * 0.25^2)) in (0, 1] for the mode j [...] and `action` [..., N, 1]."""
        return _closeness(action[..., 0] - self.targets[mode])

    def expected_rewards(self) -> dict[str, float]:
        """Mean reward per step of simple policies, in closed form; k(d) = exp(-|d|^2 / (2 * 0.25^2)).

        `mode_known`: 1, for who knows the state, as far as modes do not overlap.
        `modes_averaged`: sum_j w_j k(g_mean - g_j), the action of a mean state.
        `mode_sampled`: sum_ij w_i w_j k(g_i - g_j), one draw from the law for the whole team; about sum_j w_j^2.
        `mode_sampled_apart`: sum_j w_j prod_n sum_i w_i k(g_in - g_jn), where every agent draws for itself.
        `likeliest_mode`: sum_j w_j k(g_top - g_j), always the target of the largest weight.
        """
        pairs = self.targets[:, None] - self.targets[None]  # [J,J,N]
        between, own = _closeness(pairs), _closeness(pairs[..., None])
        average = self.weight @ self.targets
        apart = np.einsum("i,ijn->jn", self.weight, own).prod(axis=-1)
        return {
            "mode_known": 1.0,
            "modes_averaged": float(self.weight @ _closeness(average - self.targets)),
            "mode_sampled": float(self.weight @ between @ self.weight),
            "mode_sampled_apart": float(self.weight @ apart),
            "likeliest_mode": float(self.weight @ between[self.weight.argmax()]),
        }


@dataclasses.dataclass(frozen=True)
class MixtureSnapshot:
    """A moment of an episode. `generator`: None before the first reset and after an episode's end."""

    mode: int
    step_count: int
    generator: np.random.Generator | None


class MixtureEnv:
    """Plays a `MixtureSystem`; actions are scored against the mode of the state in which they are taken.

    The global state is s alone, without the context: observations are no function of the state, so no decoder of a
    world model can learn them. Actions have no effect on what comes next. Never terminates.
    """

    def __init__(self, system: MixtureSystem) -> None:
        self.system = system
        self._mode = 0
        self._step_count = 0
        self._generator: np.random.Generator | None = None

    @property
    def spec(self) -> EnvSpec:
        """Sizes and name."""
        return self.system.spec

    def reset(self, seed: int) -> Observed:
        """Begin an episode whose chance is drawn from `seed`."""
        self._generator = np.random.default_rng(seed)
        self._step_count = 0
        return self._arrive(self._generator)

    def step(self, action: np.ndarray) -> StepResult:
        """Score `action` [N,1], clipped to [-1, 1], against the mode of now, then draw the next moment."""
        if self._generator is None:
            raise EnvError(f"environment {self.spec.env_id}: step() before reset(), or after the episode's end")
        reward = float(self.system.reward(self._mode, np.clip(np.asarray(action, np.float64), -1.0, 1.0)))
        observed = self._arrive(self._generator)
        self._step_count += 1
        truncated = self._step_count >= self.spec.episode_steps
        if truncated:
            self._generator = None
        return StepResult(*observed, reward, False, truncated, {})

    def snapshot(self) -> MixtureSnapshot:
        """The mode, the step and the generator: the chance to come is part of what comes back."""
        return MixtureSnapshot(self._mode, self._step_count, copy.deepcopy(self._generator))

    def restore(self, snapshot: MixtureSnapshot) -> None:
        """Go back to `snapshot`; the same moments are drawn again."""
        self._mode, self._step_count = snapshot.mode, snapshot.step_count
        self._generator = copy.deepcopy(snapshot.generator)

    def render(self) -> np.ndarray:
        """Refused: a mixture of formulas has no picture."""
        raise EnvError(f"environment {self.spec.env_id} has no picture to render")

    def close(self) -> None:
        """Nothing to free."""

    def _arrive(self, generator: np.random.Generator) -> Observed:
        context, self._mode, state = self.system.draw(generator)
        return Observed(self.system.observe(context).astype(np.float32), state.astype(np.float32))


def _closeness(difference: np.ndarray) -> np.ndarray:
    """k along the last axis."""
    return np.exp(-np.square(difference).sum(axis=-1) / (2 * REWARD_WIDTH**2))


def _smallest_distance(points: np.ndarray) -> float:
    distance = np.linalg.norm(points[:, None] - points[None], axis=-1)
    return float(distance[np.triu_indices(len(points), 1)].min())


def _far_apart(candidates: np.ndarray, number: int) -> np.ndarray:
    """`number` of the `candidates`, each next one farthest from those before it; the best of `STARTS` beginnings."""
    distance = np.linalg.norm(candidates[:, None] - candidates[None], axis=-1)
    choices: list[np.ndarray] = []
    for start in range(STARTS):
        chosen = [start]
        while len(chosen) < number:
            chosen.append(int(distance[chosen].min(axis=0).argmax()))
        choices.append(candidates[chosen])
    return max(choices, key=_smallest_distance)
