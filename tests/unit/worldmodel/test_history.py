"""What an agent remembers, against lists that are kept by hand."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from worldmodel.contract.random_data import random_segment
from worldmodel.history import begin_history, extend_history, infer_for_agents, segment_history
from worldmodel.inference.given import Oracle
from worldmodel.types import EnvSpec

SPEC = EnvSpec("test", 2, 3, (4, 4), (1, 1), 50)
BATCH = 3


def observed(seed: int) -> Tensor:
    return torch.randn(BATCH, 2, 4, generator=torch.Generator().manual_seed(seed))


def filled(seen: list[Tensor], steps: int) -> Tensor:
    """The last m+1 of what one row saw [m+1,N,O]; its first observation stands before an episode's start."""
    return torch.stack(([seen[0]] * steps + seen)[-(steps + 1) :])


@pytest.mark.parametrize("steps", [0, 1, 3])
def test_histories_are_those_of_a_list_that_is_emptied_at_episode_starts(steps: int) -> None:
    starts = {0: [0, 1, 2], 2: [1], 5: [0, 1], 6: [0]}
    first = observed(0)
    history = begin_history(first, steps)
    lists: list[list[Tensor]] = [[row] for row in first]
    for step in range(9):
        obs = observed(step)
        is_first = torch.tensor([row in starts.get(step, []) for row in range(BATCH)])
        before = history.clone()
        extended = extend_history(history, obs, is_first)
        assert torch.equal(history, before), "a history is not changed, a new one is made"
        history = extended
        for row in range(BATCH):
            lists[row] = [obs[row]] if is_first[row] else [*lists[row], obs[row]]
            assert torch.equal(history[row], filled(lists[row], steps))


def test_a_new_history_is_no_view_of_the_observations() -> None:
    obs = observed(0)
    history = begin_history(obs, 2)
    history[:, 0] = 0
    assert torch.equal(obs, observed(0))


@pytest.mark.parametrize("steps", [0, 1, 3])
def test_a_segments_history_repeats_the_first_real_observation(steps: int) -> None:
    length = steps + 1
    missing = torch.arange(length)  # of the transitions before the one that starts from the state to infer
    valid = torch.arange(length) >= missing[:, None]
    segment = random_segment(SPEC, length, length, torch.Generator().manual_seed(0), valid)
    history = segment_history(segment, steps)
    assert history.shape == (length, steps + 1, 2, 4)
    for row in range(length):
        seen = [segment.obs[row, t] for t in range(int(missing[row]), steps + 1)]
        assert torch.equal(history[row], filled(seen, steps))


def test_every_agent_asks_for_itself_with_the_true_state_of_its_own_row() -> None:
    history, state = begin_history(observed(0), 0), torch.randn(BATCH, 3)
    inferred = infer_for_agents(Oracle(SPEC), history, state, num_samples=4, generator=torch.Generator())
    assert inferred.shape == (4, BATCH, 2, 3)
    assert torch.equal(inferred, state[None, :, None].expand(4, -1, 2, -1))


class Reporting:
    """Answers with who asked, the row's mark and the number of the draw."""

    auxiliary = "own"
    history_steps = 0

    def infer(self, history: Tensor, *, num_samples: int, agent: Tensor, **_: object) -> Tensor:
        draw = torch.arange(float(num_samples))[:, None].expand(-1, len(agent))
        mark = history[:, -1, 0, 0].expand(num_samples, -1)
        return torch.stack([draw, mark, agent.float().expand(num_samples, -1)], dim=-1)


def test_draws_rows_and_agents_are_not_mixed_up() -> None:
    obs = torch.zeros(BATCH, 2, 4)
    obs[:, 0, 0] = torch.arange(BATCH)
    inferred = infer_for_agents(
        Reporting(),  # type: ignore[arg-type]
        begin_history(obs, 0),
        torch.zeros(BATCH, 3),
        num_samples=4,
        generator=torch.Generator(),
    )
    for draw in range(4):
        for row in range(BATCH):
            for agent in range(2):
                assert inferred[draw, row, agent].tolist() == [draw, row, agent]
