"""The state estimator learns the global state from reconstructions, from real states alone."""

from __future__ import annotations

import torch

from tests.support.transformer_models import UNEQUAL, lively_transformer
from worldmodel.contract.random_data import random_segment

GENERATOR = torch.Generator()


@torch.no_grad()
def test_the_loss_counts_every_real_state_once() -> None:
    model = lively_transformer()
    estimator = model.state_estimator
    segment = random_segment(
        UNEQUAL, 4, 1, torch.Generator().manual_seed(4), torch.tensor([[False], [True], [True], [False]])
    )
    errors = []
    for row, t in segment.state_valid().nonzero().tolist():
        z = model.tokenizer.decode(model.tokenizer.encode(model.layout.normalized_rows(segment.obs[row, t])))
        estimate = model.state_norm.normalize(estimator.estimate(z))
        errors.append((estimate - model.state_norm.normalize(segment.state[row, t])).square().mean())
    output = estimator(segment, GENERATOR)
    torch.testing.assert_close(output.loss, torch.stack(errors).mean(), atol=1e-4, rtol=1e-4)


def test_no_gradient_reaches_the_tokenizer() -> None:
    model = lively_transformer()
    model.state_estimator(random_segment(UNEQUAL, 4, 1, torch.Generator().manual_seed(4)), GENERATOR).loss.backward()
    assert all(parameter.grad is None for parameter in model.tokenizer.parameters())
