"""What every world model must keep, as functions that raise an AssertionError saying what is wrong.

Each takes a `Subject`: a model that can be built anew, and the environment it is built for. Put a model of your own
through `CHECKS`. The carry of a model is opaque: what counts is what the model shows and predicts from it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn

from tests.support.random_data import (
    random_action,
    random_segment,
    random_state,
    random_trajectory,
    random_transition,
    stir,
)
from worldmodel.protocol import TrainablePart, WorldModel
from worldmodel.shapes import check_shape
from worldmodel.types import AgentView, EnvSpec, Prediction, Segment, TensorStruct, Transition

BATCH = 5


@dataclasses.dataclass(frozen=True)
class Subject:
    """A model under test."""

    build: Callable[[], WorldModel[Any]]
    """A freshly initialised model, its weights drawn from torch's default generator."""
    spec: EnvSpec
    stochastic: bool = True
    """False for a model that predicts the same whatever it draws."""
    dead_parameters: tuple[str, ...] = ()
    """Names of parameters that this configuration leaves without a gradient, on purpose."""

    def model(self, seed: int = 0) -> WorldModel[Any]:
        """A model that looks trained, in evaluation mode: no parameter is zero, and it has seen an episode."""
        torch.manual_seed(seed)
        model = self.build()
        stir(cast("nn.Module", model), seed)
        model.update_statistics(random_trajectory(self.spec, 30, seeded(seed)))
        model.train(False)
        return model


def seeded(seed: int) -> torch.Generator:
    """A generator of its own."""
    return torch.Generator().manual_seed(seed)


def make_context(model: WorldModel[Any], spec: EnvSpec, seed: int = 1, batch: int = BATCH) -> Segment:
    """K transitions a row; row i lacks the first i of them, as at the start of an episode."""
    length = model.context_length
    missing = torch.arange(batch).clamp(max=length)
    valid = torch.arange(length) >= missing[:, None]
    return random_segment(spec, batch, length, seeded(seed), valid)


def make_actions(spec: EnvSpec, steps: int, seed: int = 2, batch: int = BATCH) -> list[Tensor]:
    """Joint actions [B,N,A] of `steps` steps."""
    g = seeded(seed)
    return [random_action(spec, batch, g) for _ in range(steps)]


def make_transition(spec: EnvSpec, seed: int = 3, *, first: bool = False, batch: int = BATCH) -> Transition:
    """One real step in every row."""
    return random_transition(spec, batch, seeded(seed), torch.full((batch,), first))


@torch.no_grad()
def roll_out(model: WorldModel[Any], state: Any, actions: list[Tensor], seed: int = 4) -> dict[str, Tensor]:
    """All that is seen and predicted on the way, by name, the present view included."""
    g = seeded(seed)
    seen = dict(named("view", model.view(state)))
    for i, action in enumerate(actions):
        state, prediction = model.step(state, action, generator=g)
        seen |= named(f"prediction {i + 1}", prediction)
        seen |= named(f"view {i + 1}", model.view(state))
    return seen


def named(what: str, record: TensorStruct) -> Iterator[tuple[str, Tensor]]:
    """(name, tensor) of every tensor in `record`."""
    return ((f"{what}: {name}", tensor) for name, tensor in record.tensors())


def first_difference(one: Mapping[str, Tensor], other: Mapping[str, Tensor], rows: Any = slice(None)) -> str | None:
    """The name of the first tensor that is not the same in `rows`, to the bit; None if all are."""
    assert one.keys() == other.keys(), f"one call gives {list(one)}, the next {list(other)}"
    return next((name for name in one if not torch.equal(one[name][rows], other[name][rows])), None)


def start(model: WorldModel[Any], spec: EnvSpec, seed: int = 1, batch: int = BATCH) -> Any:
    """The carry for random contexts."""
    return model.start(make_context(model, spec, seed, batch), generator=seeded(5))


def check_shapes(subject: Subject) -> None:
    """Everything has the shapes of the contract, in float32, for one row and for several."""
    model, spec = subject.model(), subject.spec
    assert model.context_length >= 0, f"context_length = {model.context_length}: expected at least 0"
    for batch in (1, BATCH):
        state = start(model, spec, batch=batch)
        _check_view(model, spec, model.view(state), "start", batch)
        state, prediction = model.step(state, make_actions(spec, 1, batch=batch)[0], generator=seeded(0))
        _check_prediction(spec, prediction, batch)
        _check_view(model, spec, model.view(state), "step", batch)
        transition = make_transition(spec, batch=batch)
        for seen in (transition, dataclasses.replace(transition, state=None)):
            state = model.observe(state, seen, generator=seeded(0))
            _check_view(model, spec, model.view(state), "observe", batch)
        assert isinstance(state, TensorStruct), f"the carry is a {type(state).__name__}: expected a TensorStruct"


def _check_view(model: WorldModel[Any], spec: EnvSpec, view: AgentView, after: str, batch: int) -> None:
    sizes = {"B": batch, "N": spec.num_agents, "F": model.actor_dim, "C": model.critic_dim}
    for name, pattern in (("actor", "B N F"), ("critic", "B C")):
        _check_tensor(f"view after {after}: {name}", getattr(view, name), pattern, sizes)


def _check_prediction(spec: EnvSpec, prediction: Prediction, batch: int) -> None:
    sizes = {"B": batch, "N": spec.num_agents, "O": spec.obs_dim, "S": spec.state_dim}
    for name, pattern in (("obs", "B N O"), ("state", "B S"), ("reward", "B"), ("continuation", "B")):
        if name != "state" or prediction.state is not None:
            _check_tensor(f"prediction: {name}", getattr(prediction, name), pattern, sizes)
    inside = (prediction.continuation >= 0) & (prediction.continuation <= 1)
    assert inside.all(), f"prediction: continuation = {prediction.continuation}: expected probabilities in [0, 1]"


def _check_tensor(name: str, tensor: Tensor, pattern: str, sizes: dict[str, int]) -> None:
    try:
        check_shape(name, tensor, pattern, **sizes)
    except ValueError as error:
        raise AssertionError(str(error)) from error
    assert tensor.dtype == torch.float32, f"{name} is {tensor.dtype}: expected torch.float32"


def check_finite(subject: Subject) -> None:
    """A long rollout under extreme actions, from the middle and the start of episodes, has no NaN or infinity."""
    model, spec = subject.model(), subject.spec
    mask = spec.action_mask()
    actions = [sign * mask.expand(BATCH, -1, -1).float() for sign in (1.0, -1.0) * 10]
    for name, tensor in roll_out(model, start(model, spec), actions).items():
        assert torch.isfinite(tensor).all(), f"{name} is not finite"


def check_generator(subject: Subject) -> None:
    """The same seed gives the same rollout, another seed another one; torch's own generator is left alone."""
    model, spec = subject.model(), subject.spec
    actions, transition = make_actions(spec, 3), make_transition(spec)

    def play(seed: int, global_seed: int) -> dict[str, Tensor]:
        torch.manual_seed(global_seed)
        before = torch.get_rng_state()
        state = model.start(make_context(model, spec), generator=seeded(seed))
        seen = roll_out(model, state, actions, seed)
        observed = model.observe(state, transition, generator=seeded(seed))
        seen |= {f"after observe, {name}": value for name, value in roll_out(model, observed, actions, seed).items()}
        assert torch.equal(before, torch.get_rng_state()), "torch's default generator was drawn from"
        return seen

    first = play(1, 1)
    difference = first_difference(first, play(1, 2))
    assert difference is None, f"the same seed gives another {difference}"
    if subject.stochastic:
        assert first_difference(first, play(2, 1)) is not None, "another seed gives the same rollout: it is not used"


def check_rows_independent(subject: Subject) -> None:
    """What happens in a row does not depend, to the bit, on what the other rows hold."""
    model, spec = subject.model(), subject.spec
    row = 1

    def mixed(one: Any, other: Any) -> Any:
        """`one` in `row`, `other` elsewhere."""
        here = torch.arange(BATCH) == row
        rows = dict(other.tensors())
        pairs = {name: _where(here, tensor, rows[name]) for name, tensor in one.tensors()}
        return dataclasses.replace(one, **pairs)

    def play(context: Segment, actions: list[Tensor], transition: Transition) -> dict[str, Tensor]:
        state = model.start(context, generator=seeded(6))
        seen = roll_out(model, state, actions)
        observed = model.observe(state, transition, generator=seeded(7))
        return seen | {f"after observe, {name}": value for name, value in roll_out(model, observed, actions).items()}

    context, actions, transition = make_context(model, spec), make_actions(spec, 3), make_transition(spec)
    other_actions = [
        _where(torch.arange(BATCH) == row, a, b) for a, b in zip(actions, make_actions(spec, 3, 12), strict=True)
    ]
    one = play(context, actions, transition)
    other = play(
        mixed(context, make_context(model, spec, 11)), other_actions, mixed(transition, make_transition(spec, 13))
    )
    difference = first_difference(one, other, [row])
    assert difference is None, f"{difference} of one row depends on the other rows"
    assert first_difference(one, other, [0]) is not None, "another context, action and observation change nothing"


def _where(rows: Tensor, one: Tensor, other: Tensor) -> Tensor:
    return torch.where(rows.view(-1, *[1] * (one.dim() - 1)), one, other)


def check_indexing(subject: Subject) -> None:
    """Rows of the carry can be picked by slice, index or mask, show what they showed, and go on."""
    model, spec = subject.model(), subject.spec
    actions = make_actions(spec, 2)
    state, _ = model.step(start(model, spec), actions[0], generator=seeded(0))
    whole = dict(named("view", model.view(state)))
    picks: dict[str, Any] = {
        "state[:2]": slice(2),
        "state[[3, 0]]": torch.tensor([3, 0]),
        "state[mask]": torch.arange(BATCH) == 2,
    }
    for name, pick in picks.items():
        picked = state[pick]
        difference = first_difference(
            dict(named("view", model.view(picked))), {key: value[pick] for key, value in whole.items()}
        )
        assert difference is None, f"{name}: {difference} is not that of the rows picked"
        action = actions[1][pick]
        following, prediction = model.step(picked, action, generator=seeded(0))
        _check_prediction(spec, prediction, len(action))
        _check_view(model, spec, model.view(following), f"step from {name}", len(action))
        following = model.observe(picked, make_transition(spec)[pick], generator=seeded(0))
        _check_view(model, spec, model.view(following), f"observe from {name}", len(action))


def check_inputs_untouched(subject: Subject) -> None:
    """Contexts, actions, real steps and training data are as they were after every call."""
    model, spec = subject.model(), subject.spec
    context, action, transition = make_context(model, spec), make_actions(spec, 1)[0], make_transition(spec)
    trajectory = random_trajectory(spec, 9, seeded(8))
    inputs = {
        **dict(named("context", context)),
        "action": action,
        **dict(named("transition", transition)),
        **dict(named("trajectory", trajectory)),
    }
    segments = {name: _training_segment(part, spec) for name, part in model.parts().items()}
    for name, segment in segments.items():
        inputs |= named(f"segment of {name}", segment)
    before = {name: tensor.clone() for name, tensor in inputs.items()}

    state = model.start(context, generator=seeded(0))
    model.step(state, action, generator=seeded(0))
    model.observe(state, transition, generator=seeded(0))
    model.view(state)
    model.update_statistics(trajectory)
    for name, part in model.parts().items():
        part(segments[name], seeded(0))

    difference = first_difference(before, inputs)
    assert difference is None, f"{difference} was changed in place"


def check_nothing_hidden(subject: Subject) -> None:
    """The same carry, action and seed give the same step, whatever else the model was asked in between."""
    model, spec = subject.model(), subject.spec
    actions, others = make_actions(spec, 2), make_actions(spec, 2, 12)
    state = start(model, spec)
    first = roll_out(model, state, actions)
    half, _ = model.step(state, actions[0], generator=seeded(0))
    from_half = roll_out(model, half, actions)

    elsewhere = start(model, spec, seed=14)
    roll_out(model, elsewhere, others, seed=15)
    roll_out(model, state, others, seed=16)
    roll_out(model, half[:2], [action[:2] for action in others], seed=17)
    model.observe(half, make_transition(spec, first=True), generator=seeded(18))

    # The later carry first: repeating the earlier one would write again what it had written before.
    difference = first_difference(from_half, roll_out(model, half, actions))
    assert difference is None, f"{difference} of a branched rollout is another after other calls"
    difference = first_difference(first, roll_out(model, state, actions))
    assert difference is None, f"{difference} is another after other calls: something is kept between calls"
    difference = first_difference(first, roll_out(model, state.map(torch.clone), actions))
    assert difference is None, f"{difference} is another from a copy of the carry"


def check_save_and_load(subject: Subject) -> None:
    """A model built anew that loads the state dict does the same as the saved one; the state dict is tensors alone."""
    model, spec = subject.model(seed=0), subject.spec
    loaded = subject.model(seed=1)
    actions = make_actions(spec, 3)

    def play(played: WorldModel[Any]) -> dict[str, Tensor]:
        state = start(played, spec)
        observed = played.observe(state, make_transition(spec), generator=seeded(0))
        seen = roll_out(played, state, actions)
        return seen | {f"after observe, {name}": value for name, value in roll_out(played, observed, actions).items()}

    expected = play(model)
    assert first_difference(expected, play(loaded)) is not None, "models of different weights do the same"
    saved = model.state_dict()
    for name, value in saved.items():
        assert isinstance(value, Tensor), f"state_dict()[{name!r}] is a {type(value).__name__}: expected a Tensor"
    loaded.load_state_dict({name: value.clone() for name, value in saved.items()})
    difference = first_difference(expected, play(loaded))
    assert difference is None, f"{difference} is another after save and load: something is not in the state dict"


def _training_segment(part: TrainablePart, spec: EnvSpec, batch: int = 16) -> Segment:
    """A batch of the part's own length; some rows start or end inside."""
    length = part.segment_length
    first = torch.arange(batch) % length * (torch.arange(batch) % 3 == 1)
    last = torch.where(torch.arange(batch) % 3 == 2, torch.arange(batch) % length + 1, length)
    steps = torch.arange(length)
    segment = random_segment(spec, batch, length, seeded(20), (steps >= first[:, None]) & (steps < last[:, None]))
    ended = segment.valid & ~torch.nn.functional.pad(segment.valid, (0, 1))[:, 1:] & (last < length)[:, None]
    return dataclasses.replace(segment, terminated=ended)


def check_parts(subject: Subject) -> None:
    """Every part says what it is trained on, and has a finite scalar loss on it, also where nothing is valid."""
    model, spec = subject.model(), subject.spec
    parts = model.parts()
    assert parts, "parts() is empty: there is nothing to train"
    for name, part in parts.items():
        assert isinstance(part, TrainablePart), f"part {name} is a {type(part).__name__}: expected a TrainablePart"
        lengths = f"part {name}: segment_length = {part.segment_length}, burn_in = {part.burn_in}"
        assert 0 <= part.burn_in < part.segment_length, f"{lengths}: expected 0 <= burn_in < segment_length"
        for what, segment in {
            "a batch with padding": _training_segment(part, spec),
            "one row": random_segment(spec, 1, part.segment_length, seeded(21)),
            "a batch without any valid step": random_segment(
                spec, 3, part.segment_length, seeded(22), torch.zeros(3, part.segment_length, dtype=torch.bool)
            ),
        }.items():
            output, again = part(segment, seeded(23)), part(segment, seeded(23))
            where = f"part {name} on {what}"
            assert output.loss.shape == (), f"{where}: loss has shape {list(output.loss.shape)}, expected a scalar"
            assert output.loss.requires_grad, f"{where}: the loss has no gradient"
            assert torch.isfinite(output.loss), f"{where}: loss = {output.loss}"
            assert torch.equal(output.loss, again.loss), f"{where}: the same seed gives another loss"
            for metric, value in output.metrics.items():
                assert value.shape == (), f"{where}: metric {metric} has shape {list(value.shape)}, expected a scalar"
                assert not value.requires_grad, f"{where}: metric {metric} is not detached"
                assert torch.isfinite(value), f"{where}: metric {metric} = {value}"


def check_every_parameter_learns(subject: Subject) -> None:
    """Each parameter of the model gets a gradient that is not zero from the loss of a part."""
    model, spec = subject.model(), subject.spec
    for part in model.parts().values():
        part(_training_segment(part, spec, batch=48), seeded(24)).loss.backward()
    for name, parameter in cast("nn.Module", model).named_parameters():
        learns = parameter.grad is not None and bool(parameter.grad.any())
        if name in subject.dead_parameters:
            assert not learns, f"parameter {name} is said to be dead and learns"
        else:
            assert learns, f"parameter {name} gets no gradient from any of {list(model.parts())}"


def check_views_do_not_leak(subject: Subject) -> None:
    """While acting, a decentralised agent sees nothing of what others observe or do, nor of the global state."""
    model, spec = subject.model(), subject.spec
    if not model.decentralized:
        return
    steps = [make_transition(spec, seed, first=seed == 30) for seed in (30, 31, 32)]

    def views(transitions: list[Transition]) -> Tensor:
        state, seen = start(model, spec), []
        for transition in transitions:
            state = model.observe(state, transition, generator=seeded(33))
            seen.append(model.view(state).actor)
        return torch.stack(seen)  # [steps, B, N, F]

    before = views(steps)
    for agent in range(spec.num_agents):
        others = [i for i in range(spec.num_agents) if i != agent]
        obs = [_change_agent(step.obs, agent) for step in steps]
        action = [_change_agent(step.action, agent) for step in steps]
        for what, changes in {"observes": {"obs": obs}, "does": {"action": action}}.items():
            ((name, values),) = changes.items()
            after = views([dataclasses.replace(s, **{name: v}) for s, v in zip(steps, values, strict=True)])
            assert torch.equal(before[:, :, others], after[:, :, others]), (
                f"the actor views of other agents change with what agent {agent} {what}"
            )
            if name == "obs":
                assert not torch.equal(before[:, :, agent], after[:, :, agent]), (
                    f"the actor view of agent {agent} does not change with what it observes"
                )
    seen = [dataclasses.replace(s, state=random_state(spec, BATCH, seeded(34))) for s in steps]
    assert torch.equal(before, views(seen)), "the actor views change with the global state"
    assert torch.equal(before, views([dataclasses.replace(s, state=None) for s in steps])), (
        "the actor views change when the global state is not given"
    )


def _change_agent(value: Tensor, agent: int) -> Tensor:
    changed = value.clone()
    changed[:, agent] *= -0.5
    return changed


def check_padding(subject: Subject) -> None:
    """Padded entries of predicted observations are exactly zero, from a full context or an episode's first step."""
    model, spec = subject.model(), subject.spec
    context = make_context(model, spec)
    first = Segment.from_first(context.obs[:, -1], context.state[:, -1], spec.action_dim, model.context_length)
    for what, segment in {"a context": context, "an episode's first step": first}.items():
        seen = roll_out(model, model.start(segment, generator=seeded(0)), make_actions(spec, 2))
        for step in ("prediction 1: obs", "prediction 2: obs"):
            padded = seen[step][:, ~spec.obs_mask()]
            assert not padded.any(), f"{step} from {what}: padding holds {padded.abs().max()}, expected zeros"


def check_observe_forgets(subject: Subject) -> None:
    """Rows with `is_first` go on as if nothing had been before them, neither real nor imagined; others remember."""
    model, spec = subject.model(), subject.spec
    actions = make_actions(spec, 2)
    is_first = torch.arange(BATCH) < 3

    def play(seed: int) -> dict[str, Tensor]:
        state = start(model, spec, seed)
        state = model.observe(state, make_transition(spec, seed), generator=seeded(0))
        state, _ = model.step(state, make_actions(spec, 1, seed)[0], generator=seeded(0))
        fresh = random_transition(spec, BATCH, seeded(41), is_first)
        state = model.observe(state, fresh, generator=seeded(0))
        return roll_out(model, state, actions)

    one, other = play(42), play(43)
    difference = first_difference(one, other, is_first)
    assert difference is None, f"after observe with is_first, {difference} depends on what came before"
    if model.context_length > 0:
        assert first_difference(one, other, ~is_first) is not None, "rows without is_first forget as well"


CHECKS: dict[str, Callable[[Subject], None]] = {
    check.__name__.removeprefix("check_"): check
    for check in (
        check_shapes,
        check_finite,
        check_generator,
        check_rows_independent,
        check_indexing,
        check_inputs_untouched,
        check_nothing_hidden,
        check_save_and_load,
        check_parts,
        check_every_parameter_learns,
        check_views_do_not_leak,
        check_padding,
        check_observe_forgets,
    )
}
"""Every check by name."""
