"""Two Shadow Hands in one MuJoCo scene: where they stand, how they may move, what is simulated around them.

A task adds its objects; `readings.py` adds the sensors. Knows no reward.
"""

from __future__ import annotations

import dataclasses
import importlib
from typing import Any, NamedTuple

import numpy as np

from envs.bidexhands import rotation
from envs.bidexhands.hand import MASS, MEAN_INERTIA, hand_spec

SIDES = ("right", "left")
"""The hands, which are the agents, in the order of agents."""

CONTROL_HZ = 60
"""Control steps a second."""

CENTRE = (-0.0016, -0.2917, -0.0081)
"""The hand's centre of mass in the frame of its base, metres: the fingers point to -y there, the palm faces +z."""

WORLD_BITS = 3
"""Contact bits of everything that is no hand: it touches both hands and the rest."""

IMPEDANCE = (0.95, 0.99, 0.001, 0.5, 2.0)
"""Of contacts and limits (MuJoCo's `solimp`, whose own is 0.9 to 0.95): a load presses shapes a fifth as deep."""
MARGIN = 0.001
"""How far ahead of touching contacts begin, metres, of an object's shape (both add up where two touch) and of the pairs
within a hand: in one physics step a finger tip moves by up to 3 mm. Light things come to rest that far apart."""

MEMORY_BYTES = 4 << 20
"""For the contacts of one world; MuJoCo's own guess is four times as much, pressed hands need a third of it."""


class Placement(NamedTuple):
    """Where the base of a hand is at the start."""

    position: tuple[float, float, float]
    """Metres."""
    euler: tuple[float, float, float]
    """Angles about the fixed axes x, then y, then z, radians."""

    @property
    def quaternion(self) -> np.ndarray:
        """The rotation as x, y, z, w."""
        return rotation.from_euler(*self.euler)


class BaseDrive(NamedTuple):
    """How far an action moves the base of a hand; both scales are those of the originals' settings."""

    transition_scale: float
    orientation_scale: float

    @property
    def force(self) -> float:
        """At an action of 1, newtons."""
        return self.transition_scale * 1e5 / CONTROL_HZ

    @property
    def torque(self) -> float:
        """At an action of 1, newton metres."""
        return self.orientation_scale * 1e3 / CONTROL_HZ


class View(NamedTuple):
    """Where the task's camera stands and what it looks at, metres."""

    position: tuple[float, float, float]
    target: tuple[float, float, float]


@dataclasses.dataclass(frozen=True)
class Physics:
    """How finely the world is simulated."""

    substeps: int = 8
    """Physics steps of one control step of 1/60 s."""
    contact_time_s: float = 2 / 480
    """Time constant of contacts and limits; at least two physics steps."""
    base_damping: float = 600.0
    """Rate at which a floating base loses its speed, 1/s; for the originals' 100, see docs/bidexhands_port.md."""

    @property
    def timestep(self) -> float:
        """Of one physics step, seconds."""
        return 1.0 / (CONTROL_HZ * self.substeps)


FINE = Physics()
FAST = Physics(substeps=4, contact_time_s=0.01)


def build_scene(
    placements: tuple[Placement, Placement],
    drive: BaseDrive | None,
    view: View,
    physics: Physics,
    *,
    hands_collide: bool,
) -> Any:
    """A `mujoco.MjSpec` with both hands, ground, light and camera, to which a task adds its objects.

    Args:
        placements: of the right and the left hand.
        drive: None where the hands are fixed in space.
        view: of the camera `view`.
        physics: of the options.
        hands_collide: whether the hands can touch each other.
    """
    mujoco = importlib.import_module("mujoco")
    spec = mujoco.MjSpec()
    _set_options(spec, physics, mujoco)
    _furnish(spec, view, mujoco)
    bits = ((1, 2), (2, 1)) if hands_collide else ((1, 0), (1, 0))
    for side, placement, (contype, conaffinity) in zip(SIDES, placements, bits, strict=True):
        frame = _add_base(spec, side, placement, None if drive is None else physics.base_damping, mujoco)
        spec.attach(hand_spec(contype, conaffinity, mujoco=mujoco), prefix=f"{side}_", frame=frame)
    return spec


def harden(spec: Any, physics: Physics) -> None:
    """Give contacts of the hands, joint and tendon limits of the finished scene one stiffness; damp joints implicitly.

    MuJoCo's own implicit damping comes after the forces of contacts are found, which then belong to another motion than
    the one that is made. Here joints with damping d get the inertia h d: the same step (M + h d) a = F - d v, but one
    that contacts know of. `_set_options` switches MuJoCo's off.
    """
    solref = [physics.contact_time_s, 1.0]
    for geom in spec.geoms:
        geom.solref = solref
        if geom.name.startswith(SIDES):  # objects have their own, in `objects/material.py`
            geom.solimp = IMPEDANCE
    for pair in spec.pairs:
        pair.solref, pair.solimp, pair.margin = solref, IMPEDANCE, MARGIN
    for limited in (*spec.joints, *spec.tendons):
        limited.solref_limit, limited.solimp_limit = solref, IMPEDANCE
    for joint in spec.joints:
        joint.armature += physics.timestep * float(np.ravel(joint.damping)[0])  # three numbers from MuJoCo 4 on


def _set_options(spec: Any, physics: Physics, mujoco: Any) -> None:
    option = spec.option
    option.timestep = physics.timestep
    option.integrator = mujoco.mjtIntegrator.mjINT_EULER
    option.disableflags |= mujoco.mjtDisableBit.mjDSBL_EULERDAMP
    # With sparse matrices, its choice from 60 degrees of freedom on, Newton's method of MuJoCo 4.0.0 can stop at forces
    # that are no solution, a hundred times too large: jammed fingers are shot off. See test_solver.py.
    option.jacobian = mujoco.mjtJacobian.mjJAC_DENSE
    option.cone = mujoco.mjtCone.mjCONE_PYRAMIDAL
    option.iterations = 20
    spec.compiler.degree = False
    spec.memory = MEMORY_BYTES


def _furnish(spec: Any, view: View, mujoco: Any) -> None:
    world = spec.worldbody
    world.add_geom(
        name="ground",
        type=mujoco.mjtGeom.mjGEOM_PLANE,
        size=[2, 2, 0.1],
        contype=WORLD_BITS,
        conaffinity=WORLD_BITS,
        rgba=[0.32, 0.36, 0.40, 1],
    )
    spec.add_texture(
        name="sky",
        type=mujoco.mjtTexture.mjTEXTURE_SKYBOX,
        builtin=mujoco.mjtBuiltin.mjBUILTIN_GRADIENT,
        rgb1=[0.55, 0.65, 0.75],
        rgb2=[0.85, 0.88, 0.92],
        width=64,
        height=384,
    )
    world.add_light(
        pos=[1.5, -1.0, 3], dir=[-0.4, 0.3, -1], diffuse=[0.7] * 3, type=mujoco.mjtLightType.mjLIGHT_DIRECTIONAL
    )
    world.add_camera(name="view", pos=list(view.position), quat=_looking(view, mujoco), fovy=45)
    spec.visual.headlight.ambient = [0.35] * 3
    spec.visual.headlight.diffuse = [0.35] * 3
    spec.visual.global_.offwidth, spec.visual.global_.offheight = 1280, 960


def _looking(view: View, mujoco: Any) -> np.ndarray:
    """The camera's quaternion (w first): it looks along its -z, up is near the world's +z."""
    backward = np.subtract(view.position, view.target)
    backward = backward / np.linalg.norm(backward)
    right = np.cross([0.0, 0.0, 1.0], backward)
    right /= np.linalg.norm(right)
    quaternion = np.zeros(4)
    mujoco.mju_mat2Quat(quaternion, np.stack([right, np.cross(backward, right), backward], axis=1).ravel())
    return quaternion


def _add_base(spec: Any, side: str, placement: Placement, damping: float | None, mujoco: Any) -> Any:
    """The body that carries a hand, with its joints if it floats; returns the frame that the hand is attached to."""
    to_centre = rotation.rotate(placement.quaternion, np.array(CENTRE))
    base = spec.worldbody.add_body(name=f"{side}_base", pos=list(np.add(placement.position, to_centre)))
    if damping is not None:
        # At the centre of mass: elsewhere, what brakes the translation would also resist rotation.
        for axis, direction in zip("xyz", np.eye(3), strict=True):
            base.add_joint(
                name=f"{side}_base_{axis}",
                type=mujoco.mjtJoint.mjJNT_SLIDE,
                axis=list(direction),
                damping=damping * MASS,
            )
        base.add_joint(name=f"{side}_base_ball", type=mujoco.mjtJoint.mjJNT_BALL, damping=damping * MEAN_INERTIA)
    pose = {"pos": list(-to_centre), "quat": list(rotation.to_wxyz(placement.quaternion))}
    base.add_site(name=f"{side}_root", group=5, **pose)
    return base.add_frame(**pose)
