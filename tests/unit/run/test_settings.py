"""A configuration file may come from a stranger: what it names is called only if it is one of our config classes."""

from __future__ import annotations

from pathlib import Path

import pytest
from omegaconf import OmegaConf

from dima.run.settings import read_settings
from worldmodel.config import ConfigError


@pytest.mark.parametrize("place", ["direct", "in_dict", "in_list", "in_nested_list"])
def test_only_config_classes_are_called(place: str, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    call = {"_target_": "builtins.open", "file": str(mark), "mode": "w"}
    nested = {"direct": call, "in_dict": {"a": call}, "in_list": [call], "in_nested_list": [{"a": [[call]]}]}[place]
    config = OmegaConf.create({"_target_": "worldmodel.config.OptimConfig", "learning_rate": nested})
    with pytest.raises(ConfigError, match=r"_target_ = builtins.open: expected a subclass of worldmodel.config.Config"):
        read_settings(config)
    assert not mark.exists()
