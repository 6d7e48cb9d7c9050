"""The linear toy environment for tests: one configuration, and what a test changes of it."""

from __future__ import annotations

from typing import Any

from envs.toy.linear import LinearConfig


def linear_config(**changes: Any) -> LinearConfig:
    """Three agents on a state of four numbers that only ends with time, but for `changes`."""
    values = {
        "num_agents": 3,
        "state_dim": 4,
        "action_dim": 2,
        "obs_size": 2,
        "memory": 0.8,
        "gain": 0.5,
        "noise_std": 0.2,
        "action_cost": 0.1,
        "terminate_beyond": None,
        "episode_steps": 20,
        "system_seed": 0,
    }
    return LinearConfig(**(values | changes))


def small_linear_config() -> LinearConfig:
    """Two agents with one action each on a state of three numbers: what a model can learn in seconds."""
    return linear_config(num_agents=2, state_dim=3, action_dim=1, noise_std=0.1, episode_steps=50)
