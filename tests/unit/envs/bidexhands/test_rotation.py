"""Quaternions against rotation matrices: what one says of a vector, the other says too."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from envs.bidexhands import rotation
from tests.support.bidexhands import about, fixed_axes, matrix_of, turned

ANGLE = st.floats(-10.0, 10.0)
PARTS = st.tuples(*[st.floats(-1.0, 1.0)] * 4).filter(lambda parts: np.linalg.norm(parts) > 0.1)
VECTOR = st.tuples(*[st.floats(-5.0, 5.0)] * 3)


def unit(parts: tuple[float, ...]) -> np.ndarray:
    return np.array(parts) / np.linalg.norm(parts)


@given(ANGLE, ANGLE, ANGLE)
def test_angles_are_about_fixed_axes_x_then_y_then_z(x: float, y: float, z: float) -> None:
    quaternion = rotation.from_euler(x, y, z)
    assert np.linalg.norm(quaternion) == pytest.approx(1.0)
    np.testing.assert_allclose(matrix_of(quaternion), fixed_axes(x, y, z), atol=1e-12)


@given(st.sampled_from([0, 1, 2]), ANGLE)
def test_a_turn_about_an_axis(axis: int, angle: float) -> None:
    np.testing.assert_allclose(
        matrix_of(rotation.about_axis(axis, np.array(angle))), about(axis, angle), rtol=0, atol=1e-12
    )


@given(PARTS, PARTS, VECTOR)
def test_products_rotate_one_after_the_other(a: tuple[float, ...], b: tuple[float, ...], v: tuple[float, ...]) -> None:
    first, second, vector = unit(b), unit(a), np.array(v)
    product = rotation.multiply(second, first)
    np.testing.assert_allclose(matrix_of(product), matrix_of(second) @ matrix_of(first), atol=1e-12)
    np.testing.assert_allclose(rotation.rotate(second, vector), matrix_of(second) @ vector, atol=1e-11)
    np.testing.assert_allclose(matrix_of(rotation.conjugate(first)), matrix_of(first).T, atol=1e-12)


@given(PARTS)
def test_euler_angles_are_non_negative_and_give_the_rotation_back(parts: tuple[float, ...]) -> None:
    quaternion = unit(parts)
    angles = rotation.to_euler(quaternion)
    assert (angles >= 0.0).all()
    assert (angles < 2 * np.pi).all()
    # Near +-90 degrees about y an angle is as good as the root of the precision, and the others share one rotation.
    np.testing.assert_allclose(fixed_axes(*angles), matrix_of(quaternion), atol=1e-7)


@given(st.floats(-3.1, 3.1), st.floats(-1.5, 1.5), st.floats(-3.1, 3.1))
def test_euler_angles_are_those_that_a_rotation_was_made_of(x: float, y: float, z: float) -> None:
    found = rotation.to_euler(rotation.from_euler(x, y, z))
    difference = (found - np.array([x, y, z]) + np.pi) % (2 * np.pi) - np.pi
    np.testing.assert_allclose(difference, 0.0, atol=1e-6)


@pytest.mark.parametrize("tiny", [1e-17, 1e-16, 1e-12, 1e-9])
def test_angles_just_below_zero_stay_below_2_pi(tiny: float) -> None:
    for axis in range(3):
        quaternion = rotation.about_axis(axis, np.array(-tiny))
        assert (rotation.to_euler(quaternion) < 2 * np.pi).all()
        assert (rotation.to_euler(quaternion) >= 0.0).all()


@given(PARTS, PARTS)
def test_the_angle_between_rotations(a: tuple[float, ...], b: tuple[float, ...]) -> None:
    one, other = unit(a), unit(b)
    expected = turned(matrix_of(one) @ matrix_of(other).T)
    assert rotation.angle_between(one, other) == pytest.approx(expected, abs=1e-6)
    assert rotation.angle_between(-one, other) == pytest.approx(expected, abs=1e-6)
    assert rotation.angle_between(one, one) == pytest.approx(0.0, abs=1e-7)


@given(st.floats(0.0, np.pi), PARTS, VECTOR.filter(lambda axis: np.linalg.norm(axis) > 0.1))
def test_the_angle_between_is_that_of_the_turn(angle: float, a: tuple[float, ...], axis: tuple[float, ...]) -> None:
    turn = np.append(np.sin(angle / 2) * unit(axis), np.cos(angle / 2))
    assert rotation.angle_between(rotation.multiply(turn, unit(a)), unit(a)) == pytest.approx(angle, abs=1e-6)


@given(PARTS)
def test_orders_of_quaternions(parts: tuple[float, ...]) -> None:
    x, y, z, w = quaternion = unit(parts)
    np.testing.assert_array_equal(rotation.to_wxyz(quaternion), [w, x, y, z])
    np.testing.assert_array_equal(rotation.from_wxyz(np.array([w, x, y, z])), quaternion)


def test_batches_of_any_shape_are_row_by_row() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 3, 5, 4))
    a, b = a / np.linalg.norm(a, axis=-1, keepdims=True), b / np.linalg.norm(b, axis=-1, keepdims=True)
    vector = rng.normal(size=(3, 5, 3))
    whole = (
        rotation.multiply(a, b),
        rotation.rotate(a, vector),
        rotation.to_euler(a),
        rotation.angle_between(a, b),
        rotation.to_wxyz(a),
        rotation.conjugate(a),
    )
    for index in np.ndindex(3, 5):
        one, other = a[index], b[index]
        alone = (
            rotation.multiply(one, other),
            rotation.rotate(one, vector[index]),
            rotation.to_euler(one),
            rotation.angle_between(one, other),
            rotation.to_wxyz(one),
            rotation.conjugate(one),
        )
        for batched, single in zip(whole, alone, strict=True):
            np.testing.assert_allclose(batched[index], single, rtol=1e-14, atol=1e-15)
