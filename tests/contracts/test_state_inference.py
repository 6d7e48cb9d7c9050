"""Every state inferencer in configs/ keeps the contract, in all variants; and the checks find those that do not."""

from __future__ import annotations

import dataclasses
from functools import cache

import pytest

from tests.contracts.broken_state_inferencers import BROKEN, SoundInference
from tests.contracts.state_inference_contract import CHECKS
from tests.contracts.state_inference_subject import Subject
from tests.support.inference_models import KINDS, inference_config
from worldmodel.protocol import InferenceConfig
from worldmodel.types import EnvSpec

PAIR = EnvSpec("pair", 2, 4, obs_sizes=(3, 3), action_sizes=(2, 2), episode_steps=20)
UNEQUAL = EnvSpec("unequal", 3, 5, obs_sizes=(2, 4, 3), action_sizes=(1, 3, 2), episode_steps=20, appends_agent_id=True)

WITHOUT_CHANCE = {"joint", "mlp", "oracle"}


@dataclasses.dataclass(frozen=True)
class Case:
    """An inferencer of configs/ with the smoke preset and a few changes, on one environment."""

    kind: str
    spec: EnvSpec
    overrides: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """What pytest shows."""
        return " ".join([self.kind, self.spec.env_id, *self.overrides])


JOINT = ("auxiliary.source=joint", "auxiliary.history_steps=0")

CASES = [
    *(Case(kind, spec) for kind in KINDS for spec in (PAIR, UNEQUAL)),
    *(Case(kind, UNEQUAL, JOINT) for kind in ("globediff", "mlp", "vae")),
    Case("globediff", UNEQUAL, ("ema_decay=0.9", "schedule=cosine")),
    Case("globediff", UNEQUAL, ("latent_dim=0", "sampling_noise=literal")),
    Case("globediff", PAIR, ("auxiliary.source=joint", "num_denoising_steps=1")),
    Case("globediff", PAIR, ("channels=[8,16,24,32]", "num_blocks=2", "num_denoising_steps=5")),
]


@cache
def subject(case: Case) -> Subject:
    config: InferenceConfig = inference_config(case.kind, *case.overrides)
    spec = case.spec
    return Subject(
        lambda: config.build(spec),
        spec,
        stochastic=case.kind not in WITHOUT_CHANCE,
        is_oracle=case.kind == "oracle",
        answer_dim=spec.num_agents * spec.obs_dim if case.kind == "joint" else None,
    )


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_state_inference(case: Case, check: str) -> None:
    CHECKS[check](subject(case))


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("spec", [PAIR, UNEQUAL], ids=lambda spec: spec.env_id)
def test_a_sound_inferencer_passes(spec: EnvSpec, check: str) -> None:
    CHECKS[check](Subject(lambda: SoundInference(spec), spec))


@pytest.mark.parametrize("broken", BROKEN, ids=lambda broken: broken.__name__)
def test_a_broken_inferencer_is_found(broken: type[SoundInference]) -> None:
    check, message = BROKEN[broken]

    with pytest.raises(AssertionError, match=message):
        CHECKS[check](Subject(lambda: broken(UNEQUAL), UNEQUAL))


def test_every_check_is_proved_by_a_broken_inferencer() -> None:
    assert {check for check, _ in BROKEN.values()} == set(CHECKS)
