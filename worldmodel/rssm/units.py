"""Between the environment's units and the networks': the model's running statistics in one place."""

from __future__ import annotations

from torch import Tensor, nn

from worldmodel.normalize import RunningNormalizer, absorb
from worldmodel.observation_layout import ObservationLayout
from worldmodel.types import EnvSpec, Trajectory


class Units(nn.Module):
    """Normalises states [*,S], observations [*,N,O] and rewards [*] by running statistics, and back.

    Args:
        spec: gives the layout of the observations.
        std_floor: smallest standard deviation to divide by.
        freeze_after: rows after which the statistics stay as they are; None: never.
    """

    def __init__(self, spec: EnvSpec, std_floor: float, freeze_after: int | None) -> None:
        super().__init__()
        self.state = RunningNormalizer(spec.state_dim, std_floor=std_floor, freeze_after=freeze_after)
        joint_dim = spec.num_agents * spec.obs_dim
        self.obs = RunningNormalizer(joint_dim, std_floor=std_floor, freeze_after=freeze_after)
        self.reward = RunningNormalizer(1, std_floor=std_floor, freeze_after=freeze_after)
        self.layout = ObservationLayout(spec, self.obs)

    def update(self, trajectory: Trajectory) -> None:
        """Absorb the trajectory's states, observations and rewards. Mutates the statistics."""
        absorb(trajectory, state=self.state, obs=self.obs, reward=self.reward)

    def normalize_reward(self, reward: Tensor) -> Tensor:
        """Rewards [*] with mean 0 and std 1."""
        return self.reward.normalize(reward[..., None])[..., 0]

    def env_reward(self, reward: Tensor) -> Tensor:
        """Normalised rewards [*] in the environment's units."""
        return self.reward.denormalize(reward[..., None])[..., 0]
