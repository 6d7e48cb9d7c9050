"""How much of what an agent's action truly does a world model passes on, measured under common noise.

Change one agent's action a little, in the real environment and in the model, chance held fixed in both, and regress the
model's change of the next state on the true one.

- A gain of 1: the model moves the state as far as the truth does, on average over moments and dimensions.
- A gain of 0: the action does not reach the state. Whatever comes of it later is the same for every action, so PPO can
  learn in imagination what the action itself costs, and nothing about what it is good for.
- Between 0 and 1: the way is right and too short. Normalised advantages forgive a factor that all agents share, but the
  effect sinks in the model's noise, is weighed wrongly against costs, and credit goes to the agents with larger gains.
- Above 1 the effect is exaggerated, and learned policies are too careful; below 0 PPO learns the opposite.

The gain alone does not say that each change is right. `r2`, the share of the true changes' energy that the model
explains, is 1 for a perfect model, 0 for one that ignores actions, and negative where no change at all would have been
nearer. A gain of 1 with a low r2: right on average, and wrong each time.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from worldmodel.evaluation.curves import Bootstrap, interval95
from worldmodel.evaluation.units import Units
from worldmodel.protocol import WorldModel
from worldmodel.shapes import check_shape
from worldmodel.types import Segment


@torch.no_grad()
def model_changes(
    model: WorldModel[Any],
    context: Segment,
    actions: Tensor,
    *,
    num_samples: int,
    generator: torch.Generator,
    batch_rows: int = 4096,
) -> Tensor:
    """By how much the model's next state changes with each agent's action, M times for each of B moments.

    The generator is set back before every joint action, so that all 1+N of them meet the same noise, whatever the
    model draws: sampling noise, orders of agents, latent states.

    Args:
        model: used in evaluation mode, and left in the mode it was in; it lives on the generator's device.
        context: [B,K] what precedes; its last state is the moment.
        actions: [B,1+N,N,A] the joint action to compare with, then one with agent i's action changed for each i.
        num_samples: M, at least 1.
        generator: source of all noise.
        batch_rows: rows imagined side by side; at least the M of one moment are.

    Returns:
        [B,M,N,S] in the environment's units, on the device of `actions`.

    Raises:
        ValueError: for a model that predicts no global state, or when shapes disagree.
        FloatingPointError: naming moment, sample and agent, when a prediction is not finite.
    """
    agents = actions.shape[-2]
    sizes = check_shape("actions", actions, f"B {1 + agents} N A")
    check_shape("context.state", context.state, "B K+1 S", B=sizes["B"], K=model.context_length)
    if num_samples < 1:
        raise ValueError(f"num_samples = {num_samples}: expected at least 1")
    chunk = max(1, batch_rows // num_samples)
    was_training = model.training
    model.train(False)
    try:
        changes = [
            _changes_of_chunk(model, context, actions, slice(first, first + chunk), num_samples, generator)
            for first in range(0, sizes["B"], chunk)
        ]
    finally:
        model.train(was_training)
    changed = torch.cat(changes).to(actions.device)
    if not bool(torch.isfinite(changed).all()):
        moment, sample, agent, dim = torch.nonzero(~torch.isfinite(changed))[0].tolist()
        raise FloatingPointError(
            f"{type(model).__name__}: the change of state[{dim}] with the action of agent {agent} is not finite at"
            f" moment {moment}, sample {sample}"
        )
    return changed


def _changes_of_chunk(
    model: WorldModel[Any],
    context: Segment,
    actions: Tensor,
    chunk: slice,
    num_samples: int,
    generator: torch.Generator,
) -> Tensor:
    """[b,M,N,S] for the moments `chunk`: one batch of moments x samples, a moment's samples side by side."""
    device = generator.device
    rows = context[chunk].to(device).map(lambda tensor: tensor.repeat_interleave(num_samples, dim=0))
    joint = actions[chunk].to(device).repeat_interleave(num_samples, dim=0)
    carry = model.start(rows, generator=generator)
    noise = generator.get_state()
    reached: list[Tensor] = []
    for variant in range(joint.shape[1]):
        generator.set_state(noise)
        _, prediction = model.step(carry, joint[:, variant], generator=generator)
        if prediction.state is None:
            raise ValueError(
                f"{type(model).__name__} predicts no global state: action gains compare changes of the state and"
                " cannot be measured for it"
            )
        reached.append(prediction.state)
    changed = torch.stack(reached[1:], dim=1) - reached[0][:, None]
    return changed.unflatten(0, (-1, num_samples))


def describe_gain(model_change: Tensor, true_change: Tensor, units: Units, bootstrap: Bootstrap) -> dict[str, Any]:
    """Regress the model's changes on the true ones, agent by agent, without an intercept.

    Every moment, sample and dimension that varies is one point, in standard deviations of the data.

    Args:
        model_change: [B,M,N,S] from `model_changes`.
        true_change: [B,N,S] what the same changes of action truly did.
        units: of the S dimensions.
        bootstrap: over the B moments.

    Returns:
        One entry an agent: `action_gain`, sum(model * true) / sum(true^2); its 95 % interval over moments
        `action_gain_ci95`; `action_gain_r2`, 1 - sum((model - true)^2) / sum(true^2).

    Raises:
        ValueError: when shapes disagree, no dimension varies, or an agent's change of action truly changed nothing.
        FloatingPointError: when a change is not finite.
    """
    sizes = check_shape("model_change", model_change, "B M N S", S=units.dim, B=bootstrap.weights.shape[1])
    check_shape("true_change", true_change, "B N S", **{letter: sizes[letter] for letter in "BNS"})
    modelled = units.normalize(model_change)
    true = units.normalize(true_change)
    # [B,N], summed over dimensions and averaged over samples
    energy = true.square().sum(dim=-1)
    product = (modelled * true[:, None]).sum(dim=-1).mean(dim=1)
    missed = (modelled - true[:, None]).square().sum(dim=-1).mean(dim=1)
    if not bool(torch.isfinite(product).all() and torch.isfinite(energy).all()):
        raise FloatingPointError("describe_gain: a change of the state is not finite")
    still = torch.nonzero(energy.sum(dim=0) == 0)[:, 0].tolist()
    if still:
        raise ValueError(
            f"changing the action of agents {still} changed the true next state at none of {sizes['B']} moments:"
            " they have no gain; perturb more, or at more moments"
        )
    weights = bootstrap.weights.to(energy.device)
    return {
        "action_gain": (product.sum(dim=0) / energy.sum(dim=0)).tolist(),
        "action_gain_ci95": interval95((weights @ product) / (weights @ energy)),
        "action_gain_r2": (1 - missed.sum(dim=0) / energy.sum(dim=0)).tolist(),
    }
