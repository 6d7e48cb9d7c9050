"""Which entries of a joint observation carry information, and how to put together one that was predicted.

Padding is exactly zero and an appended agent id is known; neither has to be learned.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from worldmodel.types import EnvSpec


class ObservationLayout(nn.Module):
    """Translates between joint observations [*,N,O] and their P entries that are to be predicted [*,P]."""

    predicted: Tensor
    constant: Tensor
    index: Tensor

    def __init__(self, spec: EnvSpec) -> None:
        """The layout of `spec`'s observations."""
        super().__init__()
        predicted = spec.obs_mask()
        constant = torch.zeros(spec.num_agents, spec.obs_dim)
        if spec.appends_agent_id:
            predicted[:, -spec.num_agents :] = False
            constant[:, -spec.num_agents :] = torch.eye(spec.num_agents)
        self.num_predicted = int(predicted.sum())
        self.register_buffer("predicted", predicted, persistent=False)
        self.register_buffer("constant", constant, persistent=False)
        self.register_buffer("index", predicted.flatten().nonzero()[:, 0], persistent=False)

    def pack(self, obs: Tensor) -> Tensor:
        """[*,N*O] -> [*,P]."""
        return obs.index_select(-1, self.index)

    def spread(self, packed: Tensor) -> Tensor:
        """[*,P] -> [*,N*O], zeros in all other places."""
        rows = packed.flatten(0, -2)
        spread = rows.new_zeros(rows.shape[0], self.predicted.numel()).index_copy(1, self.index, rows)
        return spread.unflatten(0, packed.shape[:-1])

    def complete(self, obs: Tensor) -> Tensor:
        """[*,N*O] -> [*,N,O] with padding and agent ids as the environment gives them."""
        return torch.where(self.predicted, obs.unflatten(-1, self.predicted.shape), self.constant)
