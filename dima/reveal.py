"""Which agents' actions each noise level may see: the order of the agents, and how much of it is revealed.

`one` is the paper: a noise level sees one agent's current action. `cumulative` and `progressive` keep every action
once revealed, so that the last levels see the whole joint action; `joint` and `none` are the two ablations. A ladder of
two phases reveals all agents in its first one.
"""

from __future__ import annotations

import itertools
from typing import Literal

import torch
from torch import Tensor, nn

from worldmodel.config import ConfigError

Reveal = Literal["one", "cumulative", "progressive", "joint", "none"]
Order = Literal["descending", "ascending", "random", "cycle"] | tuple[int, ...]


def conditioning_order(order: Order, num_agents: int, num_steps: int) -> tuple[int, ...] | None:
    """The agent (0-based) of each denoising step, from the highest noise to the lowest; None for `random`.

    `ascending` and `descending` are blocks of consecutive steps, e.g. (0, 0, 1, 1) for two agents and four steps;
    `cycle` goes round all agents before it comes back, e.g. (0, 1, 0, 1). A list names agents from 1, as the paper
    does. DIMA, Appendix E.2.

    Raises:
        ConfigError: when a list has the wrong length or leaves an agent out, or there are fewer steps than agents.
    """
    if num_steps < num_agents:
        raise ConfigError(
            f"num_denoising_steps = {num_steps} for {num_agents} agents: expected at least one step an agent,"
            " or some agents' actions would never be seen (reveal=joint has no such limit)"
        )
    ascending = tuple(step * num_agents // num_steps for step in range(num_steps))
    if order == "ascending":
        return ascending
    if order == "descending":
        return tuple(num_agents - 1 - agent for agent in ascending)
    if order == "cycle":
        return tuple(step % num_agents for step in range(num_steps))
    if order == "random":
        return None
    agents = tuple(agent - 1 for agent in order)
    if len(agents) != num_steps or set(agents) != set(range(num_agents)):
        raise ConfigError(
            f"order = {list(order)}: expected {num_steps} agent numbers, with each of 1..{num_agents} among them"
        )
    return agents


def _places(num_steps: int, num_agents: int, num_reveal_steps: int | None) -> list[int]:
    """How far along the order each step is, from 0: a place a step, or the agents evenly over the reveal steps."""
    if num_reveal_steps is None:
        return list(range(num_steps))
    shown = [-(-num_agents * (step + 1) // num_reveal_steps) for step in range(num_steps)]
    return [min(count, num_agents) - 1 for count in shown]


def _repetitions(masks: Tensor) -> tuple[Tensor, Tensor]:
    """The steps [M] that bring a new mask, and for each step [J] which of those masks it has.

    Where actions stay shown, which steps repeat a mask depends on how many agents are shown, not on who they are.
    """
    rows = [tuple(row) for row in masks.tolist()]
    distinct = list(dict.fromkeys(rows))
    return torch.tensor([rows.index(row) for row in distinct]), torch.tensor([distinct.index(row) for row in rows])


class ActionReveal(nn.Module):
    """Turns `reveal` and `order` into masks over agents, for training and for each denoising step."""

    masks: Tensor
    num_shown: Tensor
    places: Tensor
    sigmas: Tensor
    firsts: Tensor
    repeats: Tensor

    def __init__(
        self,
        reveal: Reveal,
        order: Order,
        num_agents: int,
        sigmas: tuple[float, ...],
        num_reveal_steps: int | None = None,
    ) -> None:
        """Precompute the masks of a fixed order.

        Args:
            reveal: how much a noise level sees.
            order: the sequence of agents; `random` draws balanced permutations anew at each call.
            num_agents: N.
            sigmas: the sampler's ladder, the final 0 included (J + 1 numbers for J steps).
            num_reveal_steps: by which step everybody is shown, `order` naming each agent once; several agents a step
                where there are more agents than steps. None: `order` is of all J steps.

        Raises:
            ConfigError: when the order does not fit, or `num_reveal_steps` is given to a reveal that never shows all.
        """
        super().__init__()
        self.reveal = reveal
        self.num_agents = num_agents
        self.num_steps = len(sigmas) - 1
        everyone = reveal in ("joint", "none")
        if reveal == "one" and num_reveal_steps is not None:
            raise ConfigError(
                "reveal = one with sampler.reveal_sigma: expected reveal=progressive or cumulative, which end with"
                " everybody shown, or sampler.reveal_sigma=null"
            )
        self.order_length = self.num_steps if num_reveal_steps is None else num_agents
        places = _places(self.num_steps, num_agents, num_reveal_steps)
        self.register_buffer("places", torch.tensor(places), persistent=False)
        self.agents = None if everyone else conditioning_order(order, num_agents, self.order_length)
        representative = self.agents or tuple(step % num_agents for step in range(self.order_length))
        masks = self._masks_of(torch.tensor(representative))
        # Buffers follow the module to its device, but are no state: they are derived from the configuration.
        self.register_buffer("masks", masks, persistent=False)
        self.register_buffer("num_shown", masks.sum(dim=1), persistent=False)
        self.register_buffer("sigmas", torch.tensor(sigmas), persistent=False)
        self._random = not everyone and self.agents is None
        firsts, repeats = _repetitions(masks)
        self.register_buffer("firsts", firsts, persistent=False)
        self.register_buffer("repeats", repeats, persistent=False)
        counts = [0, *masks.sum(dim=1).tolist()]
        # For each step, whether it shows more agents than the one before; the same for every order that may be drawn.
        self.grows = tuple(now > before for before, now in itertools.pairwise(counts))

    def _masks_of(self, agents: Tensor) -> Tensor:
        """[J,N] bool masks for the agent ids of one order, `order_length` of them."""
        if self.reveal in ("joint", "none"):
            full = torch.ones if self.reveal == "joint" else torch.zeros
            return full(self.num_steps, self.num_agents, dtype=torch.bool, device=agents.device)
        shown = torch.nn.functional.one_hot(agents, self.num_agents)
        if self.reveal != "one":
            shown = shown.cumsum(dim=0)
        return shown[self.places] > 0

    def sampling_masks(self, generator: torch.Generator) -> Tensor:
        """[J,N] bool: the agents that each denoising step may see; draws only where the order is `random`."""
        if not self._random:
            return self.masks
        rounds = -(-self.order_length // self.num_agents)
        noise = torch.rand(rounds, self.num_agents, generator=generator, device=generator.device)
        # Whole permutations one after the other: balanced, and everybody is shown within the first N steps.
        return self._masks_of(noise.argsort(dim=1).flatten()[: self.order_length])

    def distinct_masks(self, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """The masks [M,N] bool of `sampling_masks` without repetitions, and which of them each step obeys, [J].

        An embedding of actions is wanted once a mask. M is known before any order is drawn.
        """
        masks = self.sampling_masks(generator)
        if self._random and self.reveal == "one":
            # Which steps share an agent is up to the draw: all agents' masks in turn, and the step's agent.
            everyone = torch.eye(self.num_agents, dtype=torch.bool, device=masks.device)
            return everyone, masks.int().argmax(dim=1)
        return masks[self.firsts], self.repeats

    def training_masks(self, sigma: Tensor, generator: torch.Generator) -> Tensor:
        """[B,N] bool: the agents that a training sample at noise level `sigma` [B] may see.

        `one`: one agent, uniform (DIMA, Algorithm 1). `cumulative`: a uniformly random number of agents.
        `progressive`: as many agents as the sampler shows at the nearest level (in log sigma). Which agents is random.
        """
        batch = sigma.shape[0]
        if self.reveal == "joint" or self.reveal == "none":
            return self.masks[:1].expand(batch, -1)
        rank = torch.rand(batch, self.num_agents, generator=generator, device=generator.device).argsort(dim=1)
        if self.reveal == "one":
            return rank == 0
        if self.reveal == "cumulative":
            shown = torch.randint(1, self.num_agents + 1, (batch,), generator=generator, device=generator.device)
        else:
            nearest = (sigma[:, None] / self.sigmas[:-1]).log().abs().argmin(dim=1)
            shown = self.num_shown[nearest]
        return rank < shown[:, None]
