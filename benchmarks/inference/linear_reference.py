"""What is attainable on the linear task of the control study: with the state, without memory, and with inference.

    python benchmarks/inference/linear_reference.py OUT.json

`toy/linear` with one coordinate of four seen by each of two agents. The law is known, so that nothing is learned here:
`state` is the optimal feedback of the whole state (Riccati), `obs` the best pair of gains on the present observations
that a grid finds (no linear policy without memory can do better), `inferred` the feedback of `state` on states
regressed on an agent's own last four observations. Actions are clamped as the environment does it.
"""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

from envs.toy.linear import LinearConfig, LinearSystem

EPISODES, STEPS, HISTORY = 400, 50, 3
GAINS = np.linspace(-3.0, 3.0, 61)
TASK = LinearConfig(
    num_agents=2,
    state_dim=4,
    action_dim=1,
    obs_size=1,
    memory=0.98,
    gain=0.2,
    noise_std=0.02,
    action_cost=0.1,
    terminate_beyond=None,
    episode_steps=STEPS,
    system_seed=1,
)
Policy = Callable[[np.ndarray], np.ndarray]
"""The last HISTORY + 1 states [H,R,S], the present one last, to the joint action [R,N]."""


class Task:
    """The linear team with its matrices laid open, and episodes that all policies share."""

    def __init__(self) -> None:
        system = LinearSystem(TASK)
        unit, still = np.eye(TASK.state_dim), np.zeros((1, TASK.num_agents, 1))
        self.transition = system.predictive_mean(unit, np.repeat(still, TASK.state_dim, 0)).T  # A [S,S]
        pushes = [np.eye(TASK.num_agents)[[agent], :, None] for agent in range(TASK.num_agents)]
        zero = np.zeros((1, TASK.state_dim))
        self.gain = np.concatenate([system.predictive_mean(zero, push) for push in pushes]).T  # B [S,N]
        observed = [system.observe(row[None])[0, :, 0] for row in unit]  # of each coordinate, what each agent sees
        self.seen = np.argmax(np.stack(observed), axis=0)  # [N] the coordinate of each agent
        rng = np.random.default_rng(0)
        shape = (EPISODES, TASK.state_dim)
        stationary = TASK.noise_std / np.sqrt(1 - TASK.memory**2)
        self.first = rng.standard_normal(shape) + stationary * rng.standard_normal(shape)
        self.noise = TASK.noise_std * rng.standard_normal((STEPS, *shape))

    def play(self, policy: Policy, explore: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
        """(returns [R], histories [STEPS,H,R,S])."""
        rng = np.random.default_rng(1)
        history = np.stack([self.first] * (HISTORY + 1))
        returns, seen = np.zeros(EPISODES), []
        for noise in self.noise:
            seen.append(history)
            action = policy(history) + explore * rng.standard_normal((EPISODES, TASK.num_agents))
            action = np.clip(action, -1.0, 1.0)
            following = history[-1] @ self.transition.T + action @ self.gain.T + noise
            returns -= (following**2).mean(axis=1) + TASK.action_cost * (action**2).mean(axis=1)
            history = np.concatenate([history[1:], following[None]])
        return returns, np.stack(seen)


def optimal_feedback(task: Task) -> np.ndarray:
    """K [N,S] of a = -K s, from the Riccati equation."""
    cost = np.eye(TASK.state_dim) / TASK.state_dim
    effort = TASK.action_cost * np.eye(TASK.num_agents) / TASK.num_agents
    a, b, value = task.transition, task.gain, cost
    feedback = np.zeros((TASK.num_agents, TASK.state_dim))
    for _ in range(5000):
        feedback = np.linalg.solve(effort + b.T @ value @ b, b.T @ value @ a)
        value = cost + a.T @ value @ (a - b @ feedback)
    return feedback


def regress(task: Task, feedback: np.ndarray) -> list[np.ndarray]:
    """For each agent the weights [H,S] from its own history to the state, on episodes of the optimal policy."""
    _, histories = task.play(lambda history: -history[-1] @ feedback.T, explore=0.1)
    target = histories[:, -1].reshape(-1, TASK.state_dim)
    weights = []
    for coordinate in task.seen:
        own = np.moveaxis(histories[..., coordinate], 1, -1).reshape(-1, HISTORY + 1)
        weights.append(np.linalg.lstsq(own, target, rcond=None)[0])
    return weights


def main() -> None:
    """Play all and write their mean returns."""
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    task = Task()
    feedback = optimal_feedback(task)
    weights = regress(task, feedback)

    def inferred(history: np.ndarray) -> np.ndarray:
        states = [history[..., c].T @ w for c, w in zip(task.seen, weights, strict=True)]
        return -np.stack([state @ row for state, row in zip(states, feedback, strict=True)], axis=1)

    best = max(
        itertools.product(GAINS, repeat=2),
        key=lambda pair: task.play(lambda history: history[-1][:, task.seen] * np.array(pair))[0].mean(),
    )
    policies: dict[str, Policy] = {
        "state": lambda history: -history[-1] @ feedback.T,
        "inferred from own history": inferred,
        "obs": lambda history: history[-1][:, task.seen] * np.array(best),
        "no action": lambda history: np.zeros((EPISODES, TASK.num_agents)),
    }
    returns = {name: task.play(policy)[0] for name, policy in policies.items()}
    record = {name: {"mean": r.mean(), "standard_error": r.std() / EPISODES**0.5} for name, r in returns.items()}
    Path(sys.argv[1]).write_text(json.dumps(record, indent=1) + "\n")
    print(json.dumps(record, indent=1))


if __name__ == "__main__":
    main()
