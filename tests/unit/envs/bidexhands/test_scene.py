"""What scenes are made of: sizes, masses, the order of bodies, joints and motors, limits, gravity, contacts."""

from __future__ import annotations

import numpy as np
import pytest

from tests.support.bidexhands import DOORS, EVERY, SIDES, THROWS, Scene, batch_of
from tests.support.bidexhands_layout import JOINTS, MOTORS

pytestmark = pytest.mark.mujoco


def begun(task: str) -> Scene:
    batch = batch_of(task)
    batch.reset([0], [0])
    return Scene(batch)


def test_masses_are_the_measured_ones() -> None:
    masses = {"over": 0.0754, "bottle-cap": 0.61}
    for task, mass in masses.items():
        scene = begun(task)
        assert scene.model.body_subtreemass[scene.model.body("object").id] == pytest.approx(mass, rel=0.02)
    model = begun(DOORS[0]).model
    assert model.body("right_panel").mass[0] == pytest.approx(3.6, rel=0.15)
    assert model.body_subtreemass[model.body("right_hand mount").id] == pytest.approx(5.011, abs=1e-3)


def test_sizes_of_the_scenes_are_the_measured_ones() -> None:
    sizes = {"over": (55, 54, 40), "bottle-cap": (71, 68, 40)} | dict.fromkeys(DOORS, (64, 62, 40))
    for task, expected in sizes.items():
        model = begun(task).model
        assert (model.nq, model.nv, model.nu) == expected


def test_bodies_joints_and_motors_are_in_the_originals_order() -> None:
    model = begun("pen").model
    for side in SIDES:
        first = model.body(f"{side}_hand mount").id
        names = [model.body(first + index).name.removeprefix(f"{side}_") for index in range(26)]
        assert names[:5] == ["hand mount", "forearm", "wrist", "palm", "ffknuckle"]
        assert (names[16], names[21], names[25]) == ("lfmetacarpal", "thbase", "thdistal")
        dofs = [model.joint(f"{side}_{name}").dofadr[0] for name in JOINTS]
        assert dofs == list(range(dofs[0], dofs[0] + 24))
    moved = [model.joint(int(joint)).name for joint in model.actuator_trnid[:, 0]]
    assert moved == [f"{side}_{name}" for side in SIDES for name in MOTORS]


def test_gravity_pulls_at_objects_and_not_at_hands() -> None:
    for task in EVERY:
        scene = begun(task)
        dofs = [scene.model.joint(f"{side}_{name}").dofadr[0] for side in SIDES for name in JOINTS]
        pull = scene.data.qfrc_bias - scene.data.qfrc_gravcomp
        np.testing.assert_allclose(pull[dofs], 0.0, atol=1e-9)
        if task not in DOORS:
            fall = scene.model.joint("object_free").dofadr[0] + 2
            mass = scene.model.body_subtreemass[scene.model.body("object").id]
            assert pull[fall] == pytest.approx(9.81 * mass)


def test_limits_of_joints_are_the_originals() -> None:
    limits = {"WRJ1": (-0.489, 0.14), "WRJ0": (-0.698, 0.489), "LFJ4": (0, 0.785)}
    limits |= {"THJ4": (-1.047, 1.047), "THJ3": (0, 1.222), "THJ2": (-0.209, 0.209), "THJ1": (-0.524, 0.524)}
    limits |= {"THJ0": (-1.571, 0)}
    for finger in ("FF", "MF", "RF", "LF"):
        limits |= {f"{finger}J3": (-0.349, 0.349)} | {f"{finger}J{joint}": (0, 1.571) for joint in (2, 1, 0)}
    assert limits.keys() == set(JOINTS)
    model = begun("over").model
    for side in SIDES:
        for name, limit in limits.items():
            np.testing.assert_allclose(model.joint(f"{side}_{name}").range, limit, atol=1e-12)


def test_motors_have_the_originals_gains_and_forces() -> None:
    model = begun("over").model
    for index, name in enumerate(MOTORS + MOTORS):
        gain, force = model.actuator_gainprm[index, 0], model.actuator_forcerange[index, 1]
        assert gain == (5 if name.startswith("WR") else 1)
        low, high = {"WR": (2.2, 4.8), "TH": (0.81, 2.37)}.get(name[:2], (0.72, 0.9))
        assert low - 0.03 <= force <= high + 0.03


def test_only_the_four_coupling_tendons_of_a_hand_are_there() -> None:
    model = begun("over").model
    names = [model.tendon(index).name for index in range(model.ntendon)]
    assert names == [f"{side}_T_{finger}J1c" for side in SIDES for finger in ("FF", "MF", "RF", "LF")]
    np.testing.assert_allclose(model.tendon_range, np.tile([-0.001, 0.001], (8, 1)))
    np.testing.assert_allclose(model.wrap_prm.reshape(8, 2), np.tile([0.00705, -0.00805], (8, 1)))


@pytest.mark.parametrize("task", EVERY)
def test_hands_touch_objects_and_each_other_only_where_the_original_lets_them(task: str) -> None:
    model = begun(task).model
    kinds: dict[str, set[tuple[int, int]]] = {"right": set(), "left": set(), "rest": set()}
    for index in range(model.ngeom):
        bits = (int(model.geom_contype[index]), int(model.geom_conaffinity[index]))
        body = model.body(model.geom_bodyid[index]).name
        kinds[body.split("_")[0] if _is_of_a_hand(body) else "rest"].add(bits)
    touching = {name: bits - {(0, 0)} for name, bits in kinds.items()}
    assert all(len(bits) == 1 for bits in touching.values())
    right, left, rest = (next(iter(touching[name])) for name in ("right", "left", "rest"))
    assert not _meet(right, right)
    assert not _meet(left, left)
    assert _meet(right, rest)
    assert _meet(left, rest)
    assert _meet(rest, rest)
    assert _meet(right, left) == (task not in THROWS)
    assert model.npair == 38


def _is_of_a_hand(body: str) -> bool:
    return body.startswith(("right_", "left_")) and not body.endswith("_panel")


def _meet(one: tuple[int, int], other: tuple[int, int]) -> bool:
    return bool(one[0] & other[1] or other[0] & one[1])
