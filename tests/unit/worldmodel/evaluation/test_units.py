"""Scales against numpy, and what is left out of averages."""

import numpy as np
import pytest
import torch

from worldmodel.evaluation.units import Units


def test_scales_are_numpys_and_only_what_varies_counts() -> None:
    rng = np.random.default_rng(0)
    rows = (rng.normal(size=(50, 4, 5)) * [1e-3, 1.0, 1e4, 0.0, 2.0] + [7.0, 0.0, 1e6, 3.0, 0.0]).astype(np.float32)
    units = Units.of(torch.from_numpy(rows), real=torch.tensor([True, True, True, True, False]))

    np.testing.assert_allclose(units.std.numpy(), rows.astype(np.float64).std(axis=(0, 1)), rtol=1e-10)
    assert units.std.dtype == torch.float64
    assert units.live.tolist() == [True, True, True, False, False]
    assert (units.dim, units.num_live) == (5, 3)


def test_normalised_values_have_standard_deviation_one() -> None:
    rows = torch.randn(1000, 3, generator=torch.Generator().manual_seed(0)) * torch.tensor([0.1, 0.0, 30.0])
    units = Units.of(rows)
    scaled = units.normalize(rows)
    assert scaled.dtype == torch.float64
    torch.testing.assert_close(scaled.std(dim=0, correction=0), torch.ones(2, dtype=torch.float64))
    assert torch.equal(units.live_part(rows), rows[:, [0, 2]])


def test_without_anything_that_varies_there_is_no_scale() -> None:
    units = Units.of(torch.ones(10, 2))
    assert units.num_live == 0
    with pytest.raises(ValueError, match="none of the 2 dimensions varies"):
        units.normalize(torch.zeros(3, 2))


def test_bad_rows_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one row"):
        Units.of(torch.zeros(0, 3))
    with pytest.raises(ValueError, match="real has shape"):
        Units.of(torch.zeros(4, 3), real=torch.ones(2, dtype=torch.bool))
    rows = torch.zeros(4, 3)
    rows[2, 1] = torch.nan
    with pytest.raises(FloatingPointError, match="dimension 1"):
        Units.of(rows)
