"""True and inferred states in one plane: a t-SNE embedding that all of them share, so that pictures can be compared."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from dima.run.infer_inputs import InferTask

MOST_AGENTS = 3
"""Agents whose inferred states are embedded: the first ones."""

_FEWEST = 10
"""Moments below which there is nothing to see."""


def describe_embedding(
    draws: Mapping[str, Tensor], task: InferTask, most_points: int, seed: int
) -> dict[str, Any] | None:
    """Embed the true states and one inferred state [B,N,S] of each run and agent, all at once.

    Args:
        draws: by label [B,N,S].
        task: where the true states are from.
        most_points: evenly spaced moments are left out until there are no more points than this.
        seed: of t-SNE.

    Returns:
        The record's `embedding`; None where too few moments would be left, or no run infers a state.
    """
    num_agents = min(task.spec.num_agents, MOST_AGENTS)
    total = task.moments.num_moments
    kept = min(total, most_points // (1 + num_agents * len(draws)))
    if kept < _FEWEST or not draws:
        return None
    index = torch.arange(kept) * total // kept
    inferred = [each[index][:, agent] for each in draws.values() for agent in range(num_agents)]
    points = torch.cat([task.units.normalize(states) for states in (task.moments.state[index], *inferred)])
    perplexity = min(30.0, (len(points) - 1) / 3)
    groups = iter(_embed(points, perplexity, seed).split(kept))
    return {
        "perplexity": perplexity,
        "agents": list(range(1, num_agents + 1)),
        "episode": task.moments.episode[index].tolist(),
        "step": task.moments.step[index].tolist(),
        "truth": next(groups).tolist(),
        "runs": {label: [next(groups).tolist() for _ in range(num_agents)] for label in draws},
    }


def _embed(points: Tensor, perplexity: float, seed: int) -> Tensor:
    """[P,L] in standard deviations to [P,2]."""
    from sklearn.manifold import TSNE  # slow to import

    start = "pca" if points.shape[1] >= 2 else "random"
    method = TSNE(n_components=2, perplexity=perplexity, init=start, random_state=seed % 2**32, n_jobs=1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the libraries beneath it, about themselves
        plane = method.fit_transform(points.float().numpy())
    return torch.from_numpy(plane).double()
