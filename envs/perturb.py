"""What a change of one agent's action truly does: recorded episodes are replayed in the simulator and left for a step.

The true changes of the next state, with chance held fixed, against which a world model's are measured. Needs an
environment that can go back (`RestorableEnv`).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from envs.base import EnvError, RestorableEnv, StepResult, check_step
from worldmodel.shapes import check_shape
from worldmodel.types import EnvSpec, Trajectory


def perturb_one_agent(action: Tensor, spec: EnvSpec, *, perturbation_std: float, generator: torch.Generator) -> Tensor:
    """The recorded joint actions, and N variants of each in which one agent acts a little differently.

    Args:
        action: [B,N,A] recorded, in [-1, 1].
        spec: says which entries are padding; those are zero in every variant.
        perturbation_std: of the normal noise added to the agent's action, which is then clipped to [-1, 1]; above 0.
        generator: draws the noise.

    Returns:
        [B,1+N,N,A]: variant 0 is `action`; variant 1+i differs from it in agent i's row only.
    """
    check_shape("action", action, "B N A", N=spec.num_agents, A=spec.action_dim)
    if not perturbation_std > 0:
        raise ValueError(f"perturbation_std = {perturbation_std}: expected a number above 0")
    noise = torch.randn(action.shape, generator=generator, device=generator.device).to(action.device)
    mask = spec.action_mask().to(action.device)
    perturbed = (action + perturbation_std * noise).clamp(-1.0, 1.0) * mask
    own = torch.eye(spec.num_agents, dtype=torch.bool, device=action.device)[..., None]  # [variant N, agent N, 1]
    variants = torch.where(own, perturbed[:, None], action[:, None])
    return torch.cat([action[:, None], variants], dim=1)


def try_actions(
    env: RestorableEnv,
    trajectories: Sequence[Trajectory],
    *,
    episode: Tensor,
    start: Tensor,
    actions: Tensor,
) -> Tensor:
    """The next states that `env` reaches under each of several joint actions, from moments of recorded episodes.

    Each episode is replayed once, from its seed and with its actions, up to its last moment asked for; every variant
    is tried for one step from the same snapshot, so that whatever chance there is is the same for all.

    Args:
        env: the recorded task. It is left in the middle of an episode.
        trajectories: whole episodes, with the seeds they were reset with.
        episode: [B] which of `trajectories`.
        start: [B] env steps of the episode before the step that is varied.
        actions: [B,V,N,A] the variants; the first one is the recorded action.

    Returns:
        [B,V,S] float32, in the environment's units.

    Raises:
        EnvError: when the environment does not repeat a recording bit for bit.
        ValueError: when a moment lies outside its episode, or a first variant is not the recorded action.
    """
    spec = env.spec
    sizes = check_shape("actions", actions, "B V N A", N=spec.num_agents, A=spec.action_dim)
    _check_places(trajectories, episode, start, actions)
    result = torch.empty(sizes["B"], sizes["V"], spec.state_dim)
    for index in episode.unique().tolist():
        rows = torch.nonzero(episode == index)[:, 0]
        rows = rows[torch.argsort(start[rows])]
        replay = _Replay(env, trajectories[index], index)
        for row in rows.tolist():
            replay.advance(int(start[row]))
            result[row] = replay.branch(actions[row].numpy())
    return result


class _Replay:
    """One recorded episode under way in the simulator."""

    def __init__(self, env: RestorableEnv, trajectory: Trajectory, index: int) -> None:
        self._env = env
        self._index = index
        self._seed = trajectory.seed
        self._action = trajectory.action.numpy()
        self._state = trajectory.state.numpy()
        self._step = 0
        self._compare(env.reset(self._seed).state)

    def advance(self, step: int) -> None:
        """Go on with the recorded actions until `step` of them have been taken."""
        while self._step < step:
            result = self._take(self._action[self._step])
            self._step += 1
            self._compare(result.state)
            if (result.terminated or result.truncated) and self._step < len(self._action):
                raise self._not_repeated(f"it ended, though the recorded one has {len(self._action)} steps")

    def branch(self, actions: np.ndarray) -> Tensor:
        """[V,S]: the next state under each of `actions` [V,N,A]; the replay stands where it stood."""
        snapshot = self._env.snapshot()
        reached = []
        for variant, action in enumerate(actions):
            state = self._take(action).state
            if variant == 0:
                self._compare(state, ahead=1)
            reached.append(state.copy())
            self._env.restore(snapshot)
        return torch.from_numpy(np.stack(reached))

    def _take(self, action: np.ndarray) -> StepResult:
        where = f"{self._step + 1} steps into recorded episode {self._index}"
        return check_step(self._env.spec, self._env.step(action), where)

    def _compare(self, state: np.ndarray, ahead: int = 0) -> None:
        recorded = self._state[self._step + ahead]
        if state.shape != recorded.shape:
            raise self._not_repeated(f"state has shape {list(state.shape)}, it was {list(recorded.shape)}")
        differs = np.flatnonzero(state != recorded)
        if len(differs):
            at = int(differs[0])
            raise self._not_repeated(f"state[{at}] is {state[at]!r}, it was {recorded[at]!r}", ahead)

    def _not_repeated(self, difference: str, ahead: int = 0) -> EnvError:
        versions = ", ".join(f"{name} {version}" for name, version in self._env.spec.versions) or "no versions given"
        return EnvError(
            f"environment {self._env.spec.env_id} does not repeat the recording: {self._step + ahead} steps into "
            f"episode {self._index} (seed {self._seed}), {difference}. True changes can be measured only with the "
            f"simulator that recorded the data (now: {versions})"
        )


def _check_places(trajectories: Sequence[Trajectory], episode: Tensor, start: Tensor, actions: Tensor) -> None:
    rows = zip(episode.tolist(), start.tolist(), strict=True)
    for row, (index, step) in enumerate(rows):
        if not 0 <= index < len(trajectories) or not 0 <= step < trajectories[index].length:
            raise ValueError(f"row {row}: there is no step {step} in episode {index} of {len(trajectories)} episodes")
        if not trajectories[index].is_start:
            raise ValueError(f"episode {index} begins in its middle; only whole episodes can be replayed")
        if not torch.equal(actions[row, 0], trajectories[index].action[step]):
            raise ValueError(f"row {row}: the first variant is not the action recorded at step {step} of {index}")
