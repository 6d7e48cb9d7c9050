"""Every world model in configs/ keeps the contract, in all variants of DIMA; and the checks find those that do not."""

from __future__ import annotations

import dataclasses
from functools import cache
from typing import Any

import pytest
import yaml

from dima.conditioning import PerceiverActionEncoder
from examples.custom_world_model.linear import LinearConfig
from tests.contracts.broken_offers import KnowsAnOrder
from tests.contracts.broken_world_models import BROKEN
from tests.contracts.sound_world_model import SoundModel
from tests.support.dima_models import CONFIGS, compose_group
from worldmodel.contract.checks import CHECKS
from worldmodel.contract.learning_checks import training_segment
from worldmodel.contract.subject import Subject
from worldmodel.protocol import Accelerable, WorldModel, WorldModelConfig
from worldmodel.types import EnvSpec

PAIR = EnvSpec("pair", 2, 4, obs_sizes=(3, 3), action_sizes=(2, 2), episode_steps=20)
UNEQUAL = EnvSpec("unequal", 3, 5, obs_sizes=(2, 4, 3), action_sizes=(1, 3, 2), episode_steps=20, appends_agent_id=True)
SIX = EnvSpec("six", 6, 3, obs_sizes=(2,) * 6, action_sizes=(1,) * 6, episode_steps=20, appends_agent_id=True)

AGENT_TOKENS = ("denoiser.action_encoder.agent_weight", "denoiser.action_encoder.agent_bias")


@dataclasses.dataclass(frozen=True)
class Case:
    """A world model of configs/ with the smoke preset and a few changes, on one environment."""

    model: str
    spec: EnvSpec
    overrides: tuple[str, ...] = ()
    dead_parameters: tuple[str, ...] = ()
    stochastic: bool = True

    @property
    def name(self) -> str:
        """What pytest shows."""
        return " ".join([self.model, self.spec.env_id, *self.overrides])


def dima(spec: EnvSpec, *overrides: str, dead_parameters: tuple[str, ...] = ()) -> Case:
    return Case("dima", spec, overrides, dead_parameters)


MODELS = [
    path.stem
    for path in sorted((CONFIGS / "world_model").glob("*.yaml"))
    if yaml.safe_load(path.read_text())["_target_"] != "???"  # a blank form for models from outside
]

CASES = [
    *(Case(model, spec) for model in MODELS for spec in (PAIR, UNEQUAL, SIX)),
    # With nothing revealed nobody's current action has a say, so its embedding cannot learn.
    dima(PAIR, "reveal=none", dead_parameters=AGENT_TOKENS),
    dima(PAIR, "reveal=joint", "sampler.solver=heun"),
    dima(UNEQUAL, "reveal=cumulative", "order=cycle", "num_denoising_steps=5", "normalize_obs=true"),
    dima(UNEQUAL, "reveal=progressive", "order=random", "first_obs=real", "target=change"),
    dima(SIX, "reveal=progressive", "order=cycle", "sampler.solver=EDMDPMSolverMultistepScheduler"),
    # Without past actions the layer that would embed them is fed a zero.
    dima(
        PAIR,
        "order=[2,1,1,2]",
        "denoiser.context_states=1",
        "denoiser.scale_context=true",
        dead_parameters=("denoiser.action_encoder.past.weight",),
    ),
    dima(UNEQUAL, "denoiser.context_states=5", "reward_termination.end_loss=cross_entropy"),
    # What the published preset chooses, at a size for tests.
    dima(
        UNEQUAL,
        "action_encoder=perceiver",
        "sigma_offset_noise=0.3",
        "critic_input=state_action",
        "denoiser.num_targets=3",
        "decoder.quantizer=vq",
        "decoder.loss=absolute",
        "reward_termination.action_encoder=attention",
    ),
    # Without messages an agent's latent is its own affair: the views must not leak.
    *(Case("rssm", spec, ("communication=false",)) for spec in (PAIR, UNEQUAL)),
    Case("rssm", UNEQUAL, ("dynamics.outcome_from=successor", "dynamics.loss.action_weight=0.0", "context_length=0")),
    Case("ensemble", UNEQUAL, ("propagation=ts_inf",)),
    Case("ensemble", PAIR, ("propagation=mean",), stochastic=False),
    Case(
        "transformer",
        UNEQUAL,
        (
            "dynamics.token_embedding=code",
            "dynamics.token_distribution=channels",
            "dynamics.action_embedding=bins",
            "dynamics.initial_weights=wide",
        ),
    ),
    # One coarse token: views must be asked whether they change with changes that it can tell.
    Case("transformer", PAIR, ("tokenizer.num_tokens=1", "dynamics.window=1")),
]


@pytest.fixture(autouse=True)
def _small_perceiver(monkeypatch: pytest.MonkeyPatch) -> None:
    """The published encoder has fixed sizes, 11.9 M parameters of them; its shape matters here, not its width."""
    for name, size in {"_LATENTS": 4, "_LATENT_DIM": 32, "_HEAD_DIM": 8}.items():
        monkeypatch.setattr(PerceiverActionEncoder, name, size)


@cache
def subject(case: Case) -> Subject:
    words = [f"+world_model={case.model}"]
    if (CONFIGS / "world_model_preset" / case.model / "smoke.yaml").exists():
        words.append(f"+world_model_preset/{case.model}=smoke")
    words += [f"world_model.{override}" for override in case.overrides]
    config: WorldModelConfig = compose_group(words, "world_model")
    return Subject(lambda: config.build(case.spec), case.spec, case.stochastic, case.dead_parameters)


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_world_model(case: Case, check: str) -> None:
    CHECKS[check](subject(case))


@dataclasses.dataclass(frozen=True)
class FastSubject(Subject):
    """A model as its `accelerated` makes it."""

    def model(self, seed: int = 0) -> WorldModel[Any]:
        model = super().model(seed)
        assert isinstance(model, Accelerable)
        return model.accelerated()


OF_THE_WEIGHTS = {
    "save_and_load",
    "training_resumes",
    "parts",
    "only_valid_counts",
    "one_part_each",
    "every_parameter_learns",
}
"""Checks of what is saved and trained: that is the model itself, whose weights its fast form holds copies of."""


@pytest.mark.slow
@pytest.mark.parametrize("check", [check for check in CHECKS if check not in OF_THE_WEIGHTS])
@pytest.mark.parametrize("case", [case for case in CASES if case.model == "dima"], ids=lambda case: case.name)
def test_world_model_made_fast(case: Case, check: str) -> None:
    CHECKS[check](FastSubject(subject(case).build, case.spec))


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("spec", [PAIR, UNEQUAL, SIX], ids=lambda spec: spec.env_id)
def test_a_sound_model_passes(spec: EnvSpec, check: str) -> None:
    CHECKS[check](Subject(lambda: SoundModel(spec), spec))


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("spec", [PAIR, UNEQUAL], ids=lambda spec: spec.env_id)
def test_the_example_passes(spec: EnvSpec, check: str) -> None:
    CHECKS[check](Subject(lambda: LinearConfig().build(spec), spec))


def test_offers_that_are_kept_pass() -> None:
    CHECKS["shapes"](Subject(lambda: KnowsAnOrder(UNEQUAL), UNEQUAL))


class SaysThatItReportsNothing(SoundModel):
    reports_uncertainty = False


def test_a_model_may_say_that_it_reports_no_uncertainty() -> None:
    CHECKS["shapes"](Subject(lambda: SaysThatItReportsNothing(PAIR), PAIR))


@pytest.mark.parametrize("broken", BROKEN, ids=lambda broken: broken.__name__)
def test_a_broken_model_is_found(broken: type[SoundModel]) -> None:
    check, message = BROKEN[broken]

    with pytest.raises(AssertionError, match=message):
        CHECKS[check](Subject(lambda: broken(UNEQUAL), UNEQUAL))


def test_every_check_is_proved_by_a_broken_model() -> None:
    assert {check for check, _ in BROKEN.values()} == set(CHECKS)


@pytest.mark.parametrize("length", [1, 2, 3, 4, 6, 9])
def test_batches_to_check_with_start_end_and_terminate_inside(length: int) -> None:
    part = SoundModel(PAIR).decoder
    part.segment_length = length

    segment = training_segment(part, PAIR)

    assert segment.valid.any(dim=1).all()
    assert segment.terminated.any(dim=1).sum() == 5
    assert not (segment.terminated & ~segment.valid).any()
    if length > 1:
        assert not segment.valid[:, 0].all()
        assert not segment.valid[:, -1].all()


def test_a_dead_parameter_that_learns_is_found() -> None:
    lying = Subject(lambda: SoundModel(PAIR), PAIR, dead_parameters=("dynamics.linear.weight",))

    with pytest.raises(AssertionError, match="said to be dead and learns"):
        CHECKS["every_parameter_learns"](lying)
