"""The layer recipe and its initialisation."""

import pytest
import torch
from torch import nn

from worldmodel.networks import mlp, orthogonal_init


def test_layers_follow_the_recipe() -> None:
    kinds = [type(layer) for layer in mlp([3, 8, 8, 2], activation="silu", layer_norm=True)]
    assert kinds == [nn.Linear, nn.SiLU, nn.LayerNorm, nn.Linear, nn.SiLU, nn.LayerNorm, nn.Linear]
    trunk = mlp([3, 8], layer_norm=True, activate_last=True)
    assert [type(layer) for layer in trunk] == [nn.Linear, nn.ReLU, nn.LayerNorm]


def test_orthogonal_rows_have_the_gain_and_biases_are_zero() -> None:
    layer = nn.Linear(10, 4)
    orthogonal_init(nn.Sequential(layer), gain=0.5)
    torch.testing.assert_close(layer.weight @ layer.weight.T, 0.25 * torch.eye(4), atol=1e-6, rtol=0)
    assert not layer.bias.any()


def test_refuses_what_it_cannot_build() -> None:
    with pytest.raises(ValueError, match="swish.*relu"):
        mlp([3, 2], activation="swish")
    with pytest.raises(ValueError, match=r"\[3\]"):
        mlp([3])
