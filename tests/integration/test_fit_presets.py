"""`dima fit` takes of a preset what concerns the model, and leaves alone what it says of training."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.commands import POINT_TEAM, dima
from tests.support.dima_models import CONFIGS

PRESETS = ["cpu", "paper", "published", "smoke"]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six episodes of 20 steps."""
    folder = tmp_path_factory.mktemp("collected")
    outcome = dima("collect", *POINT_TEAM, "policy=ou", "episodes=6", "num_workers=1", "out=data", cwd=folder)
    assert outcome.code == 0, outcome.stderr
    return folder / "data"


@pytest.mark.parametrize("preset", PRESETS)
def test_what_a_preset_says_of_training_is_left_out(preset: str, data: Path, tmp_path: Path) -> None:
    # A preset that comes with the command (cpu, without a GPU) speaks of loops and engines, which a fit has none of.
    words = (
        "updates={denoiser: 1, decoder: 1, reward_termination: 0}",
        "held_out_batches=1",
        "device=cpu",
        "num_threads=1",
    )
    small = [f"world_model.{part}.optim.batch_size=2" for part in ("denoiser", "decoder", "reward_termination")]
    outcome = dima("fit", f"preset={preset}", f"data={data}", *words, *small, "out=run", cwd=tmp_path)
    assert outcome.code == 0, outcome.stderr


def test_every_preset_is_tried_above() -> None:
    assert sorted(file.stem for file in (CONFIGS / "preset").glob("*.yaml")) == PRESETS
