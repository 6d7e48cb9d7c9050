"""A world whose law is known: agents push a point, s' = s + PUSH * sum of their actions, reward = -|s'|^2.

It keeps the whole `WorldModel` contract, so what learns in it can learn in any other. Tests get it through fixtures.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
import yaml
from torch import Tensor, nn

from imagination.critic import CriticConfig
from imagination.mappo import MappoConfig
from imagination.policy import PolicyConfig
from worldmodel.protocol import TrainablePart
from worldmodel.types import AgentView, EnvSpec, Prediction, Segment, TensorStruct, Trajectory, Transition

PUSH = 0.25
PAPER = Path(__file__).parents[3] / "configs" / "policy" / "mappo.yaml"


@dataclasses.dataclass(frozen=True)
class PointState(TensorStruct):
    """Where the point is [B,2] and how many steps were imagined [B]."""

    state: Tensor
    step: Tensor


class PointWorld(nn.Module):
    """All agents see the point and who they are; an agent with one action moves it along the first axis only."""

    context_length = 1
    decentralized = False

    def __init__(self, spec: EnvSpec, ends_at_step: int | None = None) -> None:
        super().__init__()
        self.num_agents = spec.num_agents
        self.actor_dim = spec.state_dim + spec.num_agents
        self.critic_dim = spec.state_dim
        self.ends_at_step = ends_at_step
        self.dropout = nn.Dropout(0.5)
        self.largest_action = 0.0

    def parts(self) -> Mapping[str, TrainablePart]:
        return {}

    def update_statistics(self, trajectory: Trajectory) -> None:
        pass

    def start(self, context: Segment, *, generator: torch.Generator) -> PointState:
        return PointState(context.state[:, -1], torch.zeros(context.state.shape[0]))

    def step(self, state: PointState, action: Tensor, *, generator: torch.Generator) -> tuple[PointState, Prediction]:
        self.largest_action = max(self.largest_action, action.abs().max().item())
        moved = PointState(self.dropout(state.state + PUSH * action.sum(dim=1)), state.step + 1)
        continuation = (state.step != (-1 if self.ends_at_step is None else self.ends_at_step)).float()
        reward = -moved.state.square().sum(dim=1)
        return moved, Prediction(self.view(moved).actor, moved.state, reward, continuation)

    def observe(self, state: PointState, transition: Transition, *, generator: torch.Generator) -> PointState:
        # Dead reckoning, so that a wrong last action shows; only an episode's first state is looked at.
        assert transition.state is not None
        reckoned = state.state + PUSH * transition.action.sum(dim=1)
        seen = torch.where(transition.is_first[:, None], transition.state, reckoned)
        return PointState(seen, torch.where(transition.is_first, 0.0, state.step + 1))

    def view(self, state: PointState) -> AgentView:
        batch = state.state.shape[0]
        point = state.state[:, None].expand(-1, self.num_agents, -1)
        who = torch.eye(self.num_agents).expand(batch, -1, -1)
        return AgentView(actor=torch.cat([point, who], dim=-1), critic=state.state)


@pytest.fixture
def point_spec() -> EnvSpec:
    """Two agents; the second one has a single action."""
    return EnvSpec("point", 2, 2, (2, 2), (2, 1), 15, appends_agent_id=True)


@pytest.fixture
def point_world(point_spec: EnvSpec) -> PointWorld:
    return PointWorld(point_spec)


@pytest.fixture
def ending_world(point_spec: EnvSpec) -> PointWorld:
    """Predicts for certain that every episode terminates at the third imagined step."""
    return PointWorld(point_spec, ends_at_step=2)


@pytest.fixture
def starts(point_spec: EnvSpec) -> Callable[[int, int], Segment]:
    """`starts(batch, seed)`: contexts that end anywhere in [-1, 1]^2."""

    def draw(batch: int, seed: int) -> Segment:
        state = torch.rand(batch, 2, generator=torch.Generator().manual_seed(seed)) * 2 - 1
        obs = torch.zeros(batch, point_spec.num_agents, point_spec.obs_dim)
        return Segment.from_first(obs, state, point_spec.action_dim, context_length=1)

    return draw


def _paper(group: str) -> dict[str, object]:
    return {key: value for key, value in yaml.safe_load(PAPER.read_text())[group].items() if key != "_target_"}


@pytest.fixture
def policy_config() -> Callable[..., PolicyConfig]:
    """The paper's values, with changes."""
    return lambda **changes: PolicyConfig(**{**_paper("policy"), **changes})  # type: ignore[arg-type]


@pytest.fixture
def critic_config() -> Callable[..., CriticConfig]:
    """The paper's values, with changes."""
    return lambda **changes: CriticConfig(**{**_paper("critic"), **changes})  # type: ignore[arg-type]


@pytest.fixture
def mappo_config() -> Callable[..., MappoConfig]:
    """The paper's values, with changes."""
    return lambda **changes: MappoConfig(**{**_paper("mappo"), **changes})  # type: ignore[arg-type]
