"""Which options make two environments different tasks: what agents see and how states follow, not where it runs."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from hydra import compose, initialize_config_module

from dima.run.held_out import differing_option
from dima.run.settings import read_settings
from worldmodel.dataset import differing_field

SWAPPED = (("ffoot", "fshin", "fthigh"), ("bfoot", "bshin", "bthigh"))
"""The front leg is agent 1's."""


def env(name: str, **changes: Any) -> Any:
    """The config of `configs/env/NAME.yaml` with some options changed."""
    with initialize_config_module("configs", version_base="1.3"):
        config = compose(f"env/{name}").env
    for part in name.split("/")[:-1]:
        config = config[part]
    return dataclasses.replace(read_settings(config), **changes)


@pytest.mark.parametrize(
    ("name", "changes", "expected"),
    [
        ("toy/mixture", {"layout_seed": 7}, ("env.layout_seed", "0", "7")),
        ("toy/mixture", {"weights": (1.0, 1.0, 1.0, 1.0)}, ("env.weights", "None", "(1.0, 1.0, 1.0, 1.0)")),
        pytest.param(
            "mamujoco/halfcheetah-2x3",
            {"joints": SWAPPED},
            ("env.joints", "None", repr(SWAPPED)),
            marks=pytest.mark.mujoco,
        ),
    ],
)
def test_equal_sizes_do_not_make_equal_tasks(
    name: str, changes: dict[str, Any], expected: tuple[str, str, str]
) -> None:
    ours, theirs = env(name), env(name, **changes)
    assert differing_field(_spec(ours), _spec(theirs)) is None, "the sizes alone would have told"
    assert differing_option(ours, theirs) == expected
    assert differing_option(ours, env(name)) is None


def test_another_kind_of_environment_is_another_task() -> None:
    assert differing_option(env("toy/mixture"), env("toy/linear")) == ("env", "MixtureConfig", "LinearConfig")


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("toy/mixture", {"episode_steps": 3}),
        ("mamujoco/halfcheetah-2x3", {"render_width": 64, "render_height": 48}),
        ("bidexhands-mujoco/over", {"num_threads": 3}),
        ("smax/3m", {"python": "/opt/smax/bin/python", "timeout_s": 1.0, "start_timeout_s": 2.0, "batching": "vmap"}),
        ("isaacgym/over", {"python": "/opt/gym/bin/python", "device": "cpu", "timeout_s": 1.0}),
    ],
)
def test_another_machine_length_or_picture_is_the_same_task(name: str, changes: dict[str, Any]) -> None:
    assert env(name) != env(name, **changes)
    assert differing_option(env(name), env(name, **changes)) is None


def _spec(config: Any) -> Any:
    built = config.build()
    try:
        return built.spec
    finally:
        built.close()
