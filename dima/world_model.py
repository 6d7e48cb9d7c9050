"""DIMA whole: denoiser, state decoder, and reward and termination model, assembled into the `WorldModel` contract.

"Revisiting Multi-Agent World Modeling from a Diffusion-Inspired Perspective" (arXiv 2505.20922). Where the paper and
its published code differ, an option says which is meant; `configs/preset/` holds both.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from dima.conditioning import ActionEncoderKind
from dima.decoder import DecoderConfig, StateDecoder
from dima.denoiser import Denoiser, DenoiserConfig
from dima.reveal import ActionReveal, Order, Reveal
from dima.reward_termination import RewardTerminationConfig, RewardTerminationModel
from dima.sampler import ConditionedDenoiser, SamplerConfig, sample_next_state
from dima.schedule import default_num_denoising_steps
from dima.target import StateTarget, Target
from worldmodel.causal_transformer import KeyValueCache
from worldmodel.config import Config
from worldmodel.normalize import CHANGE_FLOOR, RunningNormalizer, absorb
from worldmodel.observation_layout import NormalizedObs
from worldmodel.protocol import Precision, TrainablePart
from worldmodel.shapes import check_shape
from worldmodel.types import AgentView, EnvSpec, Prediction, Segment, TensorStruct, Trajectory, Transition


@dataclasses.dataclass(frozen=True)
class DimaConfig(Config):
    """Every option of the DIMA world model."""

    reveal: Reveal
    """Which agents' current actions a noise level may see: one (the paper), cumulative, progressive, joint, none."""
    order: Order
    """The agents along the noise levels: descending, ascending, cycle, random, or a list of agent numbers from 1."""
    num_denoising_steps: int | None
    """Noise levels per imagined step; null: twice the agents up to two agents, else the agents (Table 4)."""
    action_encoder: ActionEncoderKind
    """How joint actions are embedded: small, or perceiver (the published code's)."""
    target: Target
    """What is denoised: the next state (the paper), or how the state changes."""
    sigma_data: float
    """Standard deviation of the state in the denoiser's units (Appendix B: 0.5)."""
    sigma_offset_noise: float
    """Extra noise per element in training, and in the preconditioners always (published code: 0.3; 0: none)."""
    state_std_floor: float
    """Smallest standard deviation to normalise by, in the environment's units: of a dimension of states, of their
    changes and of observations, and of the reward."""
    state_clip: float
    """Bound on a sampled state, in standard deviations; far outside the data, it only stops a run-away rollout."""
    freeze_normalizers_after: int | None
    """Env steps after which the running statistics stay as they are; null: never."""
    normalize_obs: bool
    """Show actors observations normalised by running statistics (the published code shows them as they come)."""
    critic_input: Literal["state", "state_action"]
    """`state`: V(s) (Appendix C). `state_action`: also the last joint action (published code)."""
    first_obs: Literal["decoded", "real"]
    """What an imagined rollout starts with: an observation decoded like all later ones (published code), or the real
    one (Algorithm 1)."""
    sampler: SamplerConfig
    """The reverse process."""
    denoiser: DenoiserConfig
    """The diffusion model."""
    decoder: DecoderConfig
    """Global state to local observations."""
    reward_termination: RewardTerminationConfig
    """The reward and termination transformer."""

    def validate(self) -> None:
        """Check ranges."""
        self.require(self.sigma_data > 0, "sigma_data", "a number above 0")
        self.require(self.sigma_offset_noise >= 0, "sigma_offset_noise", "at least 0")
        self.require(self.state_std_floor > 0, "state_std_floor", "a number above 0")
        self.require(self.state_clip > 0, "state_clip", "a number above 0")
        steps = self.num_denoising_steps
        self.require(steps is None or steps >= 1, "num_denoising_steps", "null or at least 1")

    def build_reveal(self, num_agents: int) -> ActionReveal:
        """The sampler's noise levels, and which of the agents' actions each may see.

        Raises:
            ConfigError: when order, reveal and number of denoising steps do not fit the number of agents.
        """
        num_steps = self.num_denoising_steps or default_num_denoising_steps(num_agents)
        ladder, reveal_steps = self.sampler.ladder(num_steps), self.sampler.num_reveal_steps(num_steps)
        return ActionReveal(self.reveal, self.order, num_agents, ladder, reveal_steps)

    def build(self, spec: EnvSpec) -> DimaWorldModel:
        """The model for an environment, its weights drawn from torch's default generator."""
        return DimaWorldModel(self, spec)


@dataclasses.dataclass(frozen=True)
class DimaState(TensorStruct):
    """What a rollout carries: normalised states, past actions, the observation, and the transformer's cache."""

    z: Tensor
    """[B,K+1,S] the last states, mean 0 and std 1, zeros where the episode had not begun."""
    past_action: Tensor
    """[B,K,N,A] the joint actions between them."""
    last_action: Tensor
    """[B,N,A] the joint action that led here; zeros at an episode's start."""
    obs: Tensor
    """[B,N,O] local observations now, in the environment's units."""
    cache: KeyValueCache
    """Keys and values of the imagined steps so far."""


class RewardStep(Protocol):
    """What a rollout asks of the reward and termination model."""

    def initial_cache(self, batch_size: int, device: torch.device | str, dtype: torch.dtype) -> KeyValueCache:
        """The memory of rollouts that have not yet begun."""
        ...

    def step(self, cache: KeyValueCache, z: Tensor, action: Tensor) -> tuple[KeyValueCache, Tensor, Tensor]:
        """As `RewardTerminationModel.step`."""
        ...


class Imagining(NamedTuple):
    """What a rollout calls."""

    denoiser: ConditionedDenoiser
    reward_termination: RewardStep


class DimaWorldModel(nn.Module):
    """The `WorldModel` of the paper. Decentralised: an actor sees its own observation only."""

    decentralized = True

    def __init__(self, config: DimaConfig, spec: EnvSpec) -> None:
        """Build all parts for the sizes of `spec`.

        Raises:
            ConfigError: when order, reveal and number of denoising steps do not fit the number of agents.
        """
        super().__init__()
        self.config = config
        self.spec = spec
        self.context_length = config.denoiser.context_states - 1
        self.actor_dim = spec.obs_dim
        joint_action = spec.num_agents * spec.action_dim if config.critic_input == "state_action" else 0
        self.critic_dim = spec.state_dim + joint_action
        floor, freeze = config.state_std_floor, config.freeze_normalizers_after
        self.state_norm = RunningNormalizer(spec.state_dim, std_floor=floor, freeze_after=freeze)
        self.change_norm = RunningNormalizer(spec.state_dim, std_floor=floor * CHANGE_FLOOR, freeze_after=freeze)
        self.obs_norm = RunningNormalizer(spec.num_agents * spec.obs_dim, std_floor=floor, freeze_after=freeze)
        self.reward_norm = RunningNormalizer(1, std_floor=floor, freeze_after=freeze)
        self.reveal = config.build_reveal(spec.num_agents)
        self.target = StateTarget(config.target, config.sigma_data, self.state_norm, self.change_norm)
        self.decoder = StateDecoder(config.decoder, spec, self.state_norm, self.obs_norm)
        self.denoiser = Denoiser(
            config.denoiser,
            spec,
            self.state_norm,
            self.target,
            self.reveal,
            action_encoder=config.action_encoder,
            sigma_data=config.sigma_data,
            sigma_offset_noise=config.sigma_offset_noise,
        )
        self.reward_termination = RewardTerminationModel(
            config.reward_termination, spec, self.state_norm, self.reward_norm
        )
        # What a rollout calls: the parts themselves, or their twins (`accelerated`). A tuple, as it owns none of them.
        self._imagining = Imagining(self.denoiser, self.reward_termination)

    def parts(self) -> Mapping[str, TrainablePart]:
        """The three parts, in the order of Algorithm 1."""
        return {
            "decoder": self.decoder,
            "denoiser": self.denoiser,
            "reward_termination": self.reward_termination,
        }

    def update_statistics(self, trajectory: Trajectory) -> None:
        """Absorb the trajectory's states, observations and rewards into the running statistics."""
        absorb(trajectory, state=self.state_norm, change=self.change_norm, obs=self.obs_norm, reward=self.reward_norm)

    @torch.no_grad()
    def start(self, context: Segment, *, generator: torch.Generator) -> DimaState:
        """The carry for B rollouts from `context` (K transitions); draws nothing.

        Raises:
            ValueError: when the context's shapes do not fit the environment.
        """
        spec = self.spec
        sizes = {"N": spec.num_agents, "A": spec.action_dim, "S": spec.state_dim, "O": spec.obs_dim}
        check_shape("context.action", context.action, "B K N A", K=self.context_length, **sizes)
        check_shape("context.state", context.state, "B K+1 S", K=self.context_length, **sizes)
        z = self.state_norm.normalize(context.state) * context.state_valid()[:, :, None]
        past = context.action * context.valid[:, :, None, None]
        obs = self.decoder.decode(z[:, -1]) if self.config.first_obs == "decoded" else context.obs[:, -1]
        last = past[:, -1] if self.context_length else past.new_zeros(z.shape[0], spec.num_agents, spec.action_dim)
        cache = self._imagining.reward_termination.initial_cache(z.shape[0], z.device, z.dtype)
        return DimaState(z, past, last, obs, cache)

    @torch.no_grad()
    def step(self, state: DimaState, action: Tensor, *, generator: torch.Generator) -> tuple[DimaState, Prediction]:
        """One imagined transition: the reward from what is known before it, then the next state and what agents see."""
        denoiser, reward_termination = self._imagining
        cache, reward, continuation = reward_termination.step(state.cache, state.z[:, -1], action)
        context = self.config.sigma_data * state.z
        with denoiser.frozen():
            sampled = sample_next_state(
                denoiser, self.reveal, self.config.sampler, context, state.past_action, action, generator
            )
        bound = self.config.state_clip
        z_next = (self.target.decode(context[:, -1], sampled) / self.config.sigma_data).clamp(-bound, bound)
        obs = self.decoder.decode(z_next)
        following = DimaState(
            z=torch.cat([state.z[:, 1:], z_next[:, None]], dim=1),
            past_action=torch.cat([state.past_action[:, 1:], action[:, None]], dim=1)
            if self.context_length
            else state.past_action,
            last_action=action,
            obs=obs,
            cache=cache,
        )
        return following, Prediction(obs, self.state_norm.denormalize(z_next), reward, continuation)

    @torch.no_grad()
    def observe(self, state: DimaState, transition: Transition, *, generator: torch.Generator) -> DimaState:
        """Absorb one real step. The actor's view is the real observation; states are kept where they are given.

        The transformer's cache holds imagined steps only, so a real one empties it.
        """
        keep = ~transition.is_first[:, None, None]
        z = state.z * keep
        if transition.state is not None:
            newest = self.state_norm.normalize(transition.state)
            z = torch.cat([z[:, 1:], newest[:, None]], dim=1)
        action = transition.action * keep
        past = torch.cat([state.past_action[:, 1:] * keep[..., None], action[:, None]], dim=1)
        past = past[:, -self.context_length :] if self.context_length else state.past_action
        cache = state.cache
        if cache.length > 0:
            cache = self._imagining.reward_termination.initial_cache(z.shape[0], z.device, z.dtype)
        return DimaState(z, past, last_action=action, obs=transition.obs, cache=cache)

    def view(self, state: DimaState) -> AgentView:
        """Actors see their own observation, the critic the global state (and, as an option, the last joint action)."""
        obs = self.decoder.layout.normalize(state.obs) if self.config.normalize_obs else state.obs
        critic = self.config.sigma_data * state.z[:, -1]
        if self.config.critic_input == "state_action":
            critic = torch.cat([critic, state.last_action.flatten(1)], dim=1)
        return AgentView(actor=obs, critic=critic, state=self.state_norm.denormalize(state.z[:, -1]))

    @property
    def actor_view(self) -> nn.Module:
        """A fresh module [B,N,O] -> [B,N,F]: what actors see of present observations, for `dima export`."""
        return NormalizedObs(self.decoder.layout, self.obs_norm) if self.config.normalize_obs else nn.Identity()

    @torch.no_grad()
    def decode_states(self, state: Tensor) -> Tensor:
        """Observations [B,N,O] for global states [B,S], both in the environment's units; learns nothing."""
        return self.decoder.decode(self.state_norm.normalize(state))

    def with_order(self, order: str | tuple[int, ...]) -> DimaWorldModel:
        """The same weights, sampled with the agents in another order (`DimaConfig.order`).

        With reveal joint or none every order gives the same samples.

        Raises:
            ConfigError: when there is no such order for this number of agents and noise levels.
        """
        return self._sampled_as(order=order)

    def without_actions(self) -> DimaWorldModel:
        """The same weights, sampled with every agent's current action hidden; past actions stay visible."""
        return self._sampled_as(reveal="none")

    def with_sampling(self, num_denoising_steps: int | None = None, solver: str | None = None) -> DimaWorldModel:
        """The same weights, sampled with another number of noise levels or another solver; None: as it is.

        Raises:
            ConfigError: when there is no such solver, or the order does not fit the number of noise levels.
        """
        changes: dict[str, Any] = {}
        if num_denoising_steps is not None:
            changes["num_denoising_steps"] = num_denoising_steps
        if solver is not None:
            changes["sampler"] = dataclasses.replace(self.config.sampler, solver=solver)
        return self._sampled_as(**changes)

    def accelerated(self, precision: Precision = "float32", *, compiled: bool = False) -> DimaWorldModel:
        """This model as it is now, made to imagine fast: same numbers up to rounding, weights rearranged once.

        Large weights are copied, small ones shared: after training ask anew. `precision` is that of the networks'
        weights and activations while imagining; `compiled` puts the U-Net through torch.compile.
        """
        # Here, because the twins are made from the parts above and nothing else needs them.
        from dima.fast.denoiser import PackedDenoiser
        from dima.fast.reward_termination import PackedRewardTermination

        dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
        model = copy.copy(self)
        with torch.no_grad():
            denoiser = PackedDenoiser(self.denoiser, dtype, compiled=compiled)
            model._imagining = Imagining(denoiser, PackedRewardTermination(self.reward_termination, dtype))
        return model

    def _sampled_as(self, **changes: Any) -> DimaWorldModel:
        """A model of this one's own parameters and buffers, none copied, whose sampler obeys `changes` of the config.

        It is for imagining, on the device where this model is now: its parts are this model's, and go on being trained
        as this model's config says.
        """
        config = dataclasses.replace(self.config, **changes)
        reveal = config.build_reveal(self.spec.num_agents).to(self.reveal.sigmas.device)
        model = copy.copy(self)
        # A shallow copy shares the table of submodules as well; entering the new schedule there would change both.
        model._modules = dict(self._modules)
        model.config, model.reveal = config, reveal
        return model
