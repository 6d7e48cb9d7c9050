"""What a learned world model must beat: nothing changes, and everything is linear.

Both keep the `WorldModel` contract, so they are measured by the same code, and are fitted in closed form on the data
that the model was trained on. They draw nothing: all samples of a forecast are equal.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Self

import torch
from torch import Tensor, nn

from worldmodel.evaluation.least_squares import LeastSquares
from worldmodel.evaluation.segments import require_whole_episodes
from worldmodel.normalize import CONSTANT_STD, RunningNormalizer
from worldmodel.protocol import TrainablePart
from worldmodel.types import AgentView, EnvSpec, Prediction, Segment, TensorStruct, Trajectory, Transition


@dataclasses.dataclass(frozen=True)
class BaselineState(TensorStruct):
    """The carry of both baselines."""

    state: Tensor
    """[B,K+1,S] the last states, zeros where the episode had not begun; in the units in which the model keeps them."""
    past_action: Tensor
    """[B,K,N,A] the joint actions between them."""
    obs: Tensor
    """[B,N,O] local observations now, in the environment's units."""


class _Baseline(nn.Module):
    """What both have in common: no trainable part, a carry of the last states, and views of the present."""

    decentralized = True

    def __init__(self, spec: EnvSpec, context_length: int) -> None:
        super().__init__()
        self.spec = spec
        self.context_length = context_length
        self.actor_dim = spec.obs_dim
        self.critic_dim = spec.state_dim

    def parts(self) -> Mapping[str, TrainablePart]:
        """Nothing is trained: `fit` has done it."""
        return {}

    def update_statistics(self, trajectory: Trajectory) -> None:
        """Nothing: what was fitted stays."""

    def start(self, context: Segment, *, generator: torch.Generator) -> BaselineState:
        """The last states of `context` and the actions between them; draws nothing."""
        state = self._keep(context.state) * context.state_valid()[:, :, None]
        return BaselineState(state, context.action * context.valid[:, :, None, None], context.obs[:, -1])

    def observe(self, state: BaselineState, transition: Transition, *, generator: torch.Generator) -> BaselineState:
        """Append the real step; without a global state the ones before are kept."""
        keep = ~transition.is_first[:, None, None]
        kept = state.state * keep
        if transition.state is not None:
            kept = _append(kept, self._keep(transition.state))
        past = _append(state.past_action * keep[..., None], transition.action * keep)
        return BaselineState(kept, past, transition.obs)

    def view(self, state: BaselineState) -> AgentView:
        """Actors see their own observation, the critic the global state."""
        return AgentView(actor=state.obs, critic=state.state[:, -1], state=state.state[:, -1])

    def _keep(self, state: Tensor) -> Tensor:
        """States [*,S] of the environment in the units of the carry."""
        return state


class PersistenceModel(_Baseline):
    """Predicts that states and observations stay as they are.

    What a step earns and whether it terminates is not known from staying put: they are the means over the data.
    """

    mean_reward: Tensor
    continuation: Tensor

    def __init__(self, spec: EnvSpec, context_length: int) -> None:
        """Before `fit`: no reward, and episodes that never terminate."""
        super().__init__(spec, context_length)
        self.register_buffer("mean_reward", torch.zeros(()))
        self.register_buffer("continuation", torch.ones(()))

    @classmethod
    def fit(cls, trajectories: Sequence[Trajectory], spec: EnvSpec, context_length: int) -> Self:
        """The model whose reward and termination are those of an average step of `trajectories`.

        Args:
            trajectories: whole episodes.
            spec: of their environment.
            context_length: K of the contexts it will be given; it reads their last state only.

        Raises:
            ValueError: when there is no episode, or one disagrees with `spec`.
            FloatingPointError: when a value is not finite.
        """
        _check(trajectories, spec)
        model = cls(spec, context_length)
        model.mean_reward.copy_(_mean([trajectory.reward for trajectory in trajectories]))
        model.continuation.copy_(1 - _mean([trajectory.terminated for trajectory in trajectories]))
        return model

    def step(
        self, state: BaselineState, action: Tensor, *, generator: torch.Generator
    ) -> tuple[BaselineState, Prediction]:
        """The same state and observations again."""
        now = state.state[:, -1]
        following = BaselineState(_append(state.state, now), _append(state.past_action, action), state.obs)
        reward, continuation = (value.expand(now.shape[0]).clone() for value in (self.mean_reward, self.continuation))
        return following, Prediction(state.obs, now, reward, continuation)


class LinearModel(_Baseline):
    """Ridge regressions: the state's change and the reward from K+1 states and joint actions, obs from the new state.

    States are standardised, so that missing ones, which are zeros, stand for the mean. Predictions are kept within the
    range of the data, dimension by dimension: an unstable fit would overflow within a long forecast, and its error
    would say nothing. Terminations come at the data's base rate.
    """

    step_weight: Tensor
    obs_weight: Tensor
    low: Tensor
    high: Tensor
    continuation: Tensor

    def __init__(self, spec: EnvSpec, context_length: int) -> None:
        """Before `fit`: all weights and ranges are zero."""
        super().__init__(spec, context_length)
        joint_obs = spec.num_agents * spec.obs_dim
        features = (context_length + 1) * (spec.state_dim + spec.num_agents * spec.action_dim) + 1
        self.state_norm = RunningNormalizer(spec.state_dim, std_floor=CONSTANT_STD)
        self.register_buffer("step_weight", torch.zeros(features, spec.state_dim + 1))
        self.register_buffer("obs_weight", torch.zeros(spec.state_dim + 1, joint_obs))
        # Of the standardised state [S], the reward [1] and the joint observation [N*O], in this order.
        self._sizes = (spec.state_dim, 1, joint_obs)
        self.register_buffer("low", torch.zeros(sum(self._sizes)))
        self.register_buffer("high", torch.zeros(sum(self._sizes)))
        self.register_buffer("continuation", torch.ones(()))

    @classmethod
    @torch.no_grad()
    def fit(
        cls, trajectories: Sequence[Trajectory], spec: EnvSpec, context_length: int, *, ridge: float = 1e-6
    ) -> Self:
        """The regressions in closed form, computed in float64.

        Args:
            trajectories: whole episodes, on the CPU.
            spec: of their environment.
            context_length: K: how many states and joint actions before the present ones are regressed on.
            ridge: penalty on squared weights, per transition and in units of standardised states; above 0, because
                dimensions may be constant or copies of each other.

        Raises:
            ValueError: when there is no episode, one disagrees with `spec`, or `ridge` is not above 0.
            FloatingPointError: when a value is not finite.
        """
        _check(trajectories, spec)
        model = cls(spec, context_length)
        for trajectory in trajectories:
            model.state_norm.update(trajectory.state)
        step = LeastSquares(model.step_weight.shape[0], spec.state_dim + 1)
        obs = LeastSquares(spec.state_dim + 1, model.obs_weight.shape[1])
        for trajectory in trajectories:
            z = model.state_norm.normalize(trajectory.state)
            features = _features(_windows(z, context_length)[:-1], _windows(trajectory.action, context_length))
            step.add(features, torch.cat([z.diff(dim=0), trajectory.reward[:, None]], dim=1))
            obs.add(_features(z), trajectory.obs.flatten(1))
        model.step_weight.copy_(step.solve(ridge))
        model.obs_weight.copy_(obs.solve(ridge))
        model._set_ranges(trajectories)
        model.continuation.copy_(1 - _mean([trajectory.terminated for trajectory in trajectories]))
        return model

    @torch.no_grad()
    def step(
        self, state: BaselineState, action: Tensor, *, generator: torch.Generator
    ) -> tuple[BaselineState, Prediction]:
        """The regressions' predictions."""
        actions = torch.cat([state.past_action, action[:, None]], dim=1)
        change, reward = (_features(state.state, actions) @ self.step_weight).split(self._sizes[:2], dim=1)
        low_z, low_reward, low_obs = self.low.split(self._sizes)
        high_z, high_reward, high_obs = self.high.split(self._sizes)
        z = (state.state[:, -1] + change).clamp(low_z, high_z)
        reward = reward.clamp(low_reward, high_reward)[:, 0]
        obs = (_features(z) @ self.obs_weight).clamp(low_obs, high_obs)
        obs = obs.unflatten(1, (self.spec.num_agents, self.spec.obs_dim))
        following = BaselineState(_append(state.state, z), actions[:, 1:], obs)
        continuation = self.continuation.expand(z.shape[0]).clone()
        return following, Prediction(obs, self.state_norm.denormalize(z), reward, continuation)

    def _keep(self, state: Tensor) -> Tensor:
        return self.state_norm.normalize(state)

    def _set_ranges(self, trajectories: Sequence[Trajectory]) -> None:
        """Smallest and largest value of every predicted number in the data."""
        extremes = []
        for trajectory in trajectories:
            z = self.state_norm.normalize(trajectory.state)
            columns = (z, trajectory.reward[:, None], trajectory.obs.flatten(1))
            extremes.append([torch.cat(list(side)) for side in zip(*(c.aminmax(dim=0) for c in columns), strict=True)])
        low, high = zip(*extremes, strict=True)
        self.low.copy_(torch.stack(low).amin(dim=0))
        self.high.copy_(torch.stack(high).amax(dim=0))


def _check(trajectories: Sequence[Trajectory], spec: EnvSpec) -> None:
    require_whole_episodes(trajectories)
    for trajectory in trajectories:
        trajectory.validate(spec)


def _mean(rows: list[Tensor]) -> Tensor:
    """Mean over all steps of all episodes, float64."""
    return torch.cat(rows).double().mean()


def _append(last: Tensor, newest: Tensor) -> Tensor:
    """`last` [B,L,...] with `newest` [B,...] behind it and its oldest entry gone; L may be 0."""
    return torch.cat([last, newest[:, None]], dim=1)[:, 1:]


def _windows(rows: Tensor, context_length: int) -> Tensor:
    """[T,K+1,...]: each of `rows` [T,...] behind the K before it, zeros where there are none."""
    padded = torch.cat([rows.new_zeros(context_length, *rows.shape[1:]), rows])
    return padded.unfold(0, context_length + 1, 1).movedim(-1, 1)


def _features(*inputs: Tensor) -> Tensor:
    """[B,P] everything in `inputs` [B,...] side by side, and a one."""
    return torch.cat([tensor.flatten(1) for tensor in (*inputs, torch.ones_like(inputs[0].flatten(1)[:, :1]))], dim=1)
