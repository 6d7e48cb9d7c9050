"""What manifests and scores say of whose observations reach an actor, in keys and in words."""

from __future__ import annotations

from typing import Any

import pytest
from hydra import compose, initialize_config_dir

from dima.run.execution_facts import announce_execution, describe_execution, execution_facts, state_label
from dima.run.inference_config import describe_inference
from dima.run.settings import TrainSettings, read_settings
from tests.support.dima_models import CONFIGS, make_spec
from tests.support.inference_models import inference_config
from worldmodel.inference.given import Oracle

SPEC = make_spec()
LOCAL = ("env=mamujoco/halfcheetah-2x3", "env.obs_mode=local")
FULL = ("env=mamujoco/halfcheetah-2x3", "env.obs_mode=full")
HEARING = ("world_model=rssm", "world_model.communication=true")
DEAF = ("world_model=rssm", "world_model.communication=false")
JOINT = ("auxiliary.source=joint", "auxiliary.history_steps=0")


def read(*words: str) -> tuple[TrainSettings, Any]:
    """The settings of `dima train WORDS` and its world model, for an environment of any size."""
    with initialize_config_dir(str(CONFIGS), version_base=None):
        settings = read_settings(compose("train", ["preset=smoke", *words]))
    return settings, settings.world_model.build(SPEC)


def inferred(*overrides: str) -> dict[str, Any]:
    """What `choose_belief` says of an inferencer."""
    facts = describe_inference("mlp", inference_config("mlp", *overrides).build(SPEC))
    return {**facts, "combine": "draw", "samples": 1}


@pytest.mark.parametrize(
    ("words", "sees", "shown"),
    [
        (LOCAL, "own", None),
        ((*LOCAL, *DEAF), "own", None),
        ((*LOCAL, *HEARING), "joint", "obs; agents hear each other through the world model"),
        ((*LOCAL, "policy.policy.input=joint"), "joint", "all agents' observations"),
        (FULL, "full", "obs; every agent observes the full state"),
        ((*FULL, *HEARING), "full", "obs; every agent observes the full state"),
        (("env=toy/linear",), "own", None),
    ],
)
def test_what_reaches_actors_that_look_at_no_state(words: tuple[str, ...], sees: str, shown: str | None) -> None:
    execution = describe_execution(*read(*words), None)
    assert (execution["sees"], execution["state"]) == (sees, None)
    assert announce_execution(execution) == ({} if shown is None else {"actors see": shown})


@pytest.mark.parametrize(
    ("words", "state", "sees", "end"),
    [
        ((*LOCAL, "policy.policy.input=state"), "true", "full", "at execution the true state"),
        ((*LOCAL, "policy.policy.input=state"), inferred(), "own", "own observations of the last 4 steps, draw of 1"),
        ((*LOCAL, *HEARING, "policy.policy.input=state"), inferred(), "own", "draw of 1"),
        ((*LOCAL, *HEARING, "policy.policy.input=obs+state"), inferred(), "joint", "through the world model"),
        ((*LOCAL, "policy.policy.input=obs+state"), inferred(*JOINT), "joint", "last 1 steps, draw of 1"),
        ((*FULL, "policy.policy.input=state"), inferred(), "full", "every agent observes the full state"),
    ],
)
def test_what_reaches_actors_that_look_at_a_state(words: tuple[str, ...], state: Any, sees: str, end: str) -> None:
    execution = execution_facts(*read(*words), state)
    assert (execution["sees"], execution["state"]) == (sees, state)
    assert announce_execution(execution)["actors see"].endswith(end)


def test_an_oracle_reads_the_true_state() -> None:
    oracle = {**describe_inference("oracle", Oracle(SPEC)), "combine": "draw", "samples": 1}
    assert oracle["auxiliary"] == "state"
    execution = execution_facts(*read(*LOCAL, "policy.policy.input=state"), oracle)
    assert execution["sees"] == "full"
    assert announce_execution(execution) == {"actors see": "state; at execution the true state"}


@pytest.mark.parametrize(
    ("state", "label"),
    [
        (None, ""),
        ("true", "true state"),
        ({"kind": "oracle", "combine": "draw", "samples": 1}, "true state"),
        ({"kind": "mlp", "combine": "draw", "samples": 1}, "mlp"),
        ({"kind": "globediff", "combine": "votes", "samples": 8}, "globediff, votes of 8"),
    ],
)
def test_tables_and_films_say_where_the_state_comes_from(state: Any, label: str) -> None:
    assert state_label({"state": state}) == label


def test_older_facts_are_read_as_they_were() -> None:
    assert announce_execution({"actor_input": "obs", "state": None}) == {}
    old = {"kind": "oracle", "auxiliary": "own", "history_steps": 0, "combine": "draw", "samples": 1}
    assert announce_execution({"actor_input": "state", "state": old})["actors see"].endswith("the true state")
    old = {**old, "kind": "mlp", "history_steps": 3}
    assert announce_execution({"actor_input": "obs+state", "state": old})["actors see"].endswith("steps, draw of 1")
