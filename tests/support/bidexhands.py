"""Bi-DexHands computed afresh from MuJoCo's own data: tables, points, rewards and conditions, without the port's code.

All is read from positions and rotation matrices of named bodies; only the scene's names are shared with the port.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, NamedTuple

import numpy as np

from envs.bidexhands import BiDexHandsBatch


class Fact(NamedTuple):
    """Sizes of the original."""

    state: int
    obs: int
    action: int
    episode_steps: int
    is_random: bool
    """Whether episodes begin differently."""


FACTS = {
    "over": Fact(398, 211, 20, 75, True),
    "bottle-cap": Fact(420, 221, 26, 125, False),
    "door-open-inward": Fact(417, 218, 26, 250, False),
    "door-open-outward": Fact(417, 218, 26, 250, False),
    "pen": Fact(417, 218, 26, 125, False),
    "catch-underarm": Fact(422, 223, 26, 75, True),
    "catch-abreast": Fact(422, 223, 26, 150, True),
    "scissors": Fact(417, 218, 26, 150, False),
}
EVERY = list(FACTS)
THROWS = ("over", "catch-underarm", "catch-abreast")
DOORS = ("door-open-inward", "door-open-outward")
SIDES = ("right", "left")
FINGERS = ("ff", "mf", "rf", "lf", "th")

GOALS = {"over": (0.0, -0.64, 0.54), "catch-underarm": (0.0, -0.79, 0.54), "catch-abreast": (-0.39, -1.15, 0.54)}
"""Where the egg is to go."""
LOWEST = {"over": 0.2, "catch-underarm": 0.1, "catch-abreast": 0.2}
"""Height at which the egg is lost."""


@dataclasses.dataclass(frozen=True)
class Judged:
    """What a step is worth."""

    reward: float
    failed: bool
    success: bool


class Scene:
    """One world, by the names of its bodies."""

    def __init__(self, batch: BiDexHandsBatch, row: int = 0) -> None:
        self.task = batch.task.name
        self.model: Any = batch.simulation.model
        self.data: Any = batch.simulation.world(row)

    def at(self, body: str, offset: tuple[float, float, float] = (0.0, 0.0, 0.0)) -> np.ndarray:
        """World position of a point given in a body's frame."""
        frame = self.data.body(body)
        return frame.xpos + self.rotation(body) @ np.array(offset)

    def rotation(self, body: str) -> np.ndarray:
        """[3,3] of a body."""
        return self.data.body(body).xmat.reshape(3, 3).copy()

    def palm(self, side: str) -> np.ndarray:
        """0.08 m along the palm's z, 0.02 m to its inner side -y."""
        return self.at(f"{side}_palm", (0.0, -0.02, 0.08))

    def tips(self, side: str) -> np.ndarray:
        """[5,3] 0.02 m beyond the origins of the last links."""
        return np.stack([self.at(f"{side}_{finger}distal", (0.0, 0.0, 0.02)) for finger in FINGERS])

    def reach(self, side: str, target: np.ndarray) -> float:
        """Sum of five distances."""
        return float(sum(np.sqrt(((tip - target) ** 2).sum()) for tip in self.tips(side)))

    def handles(self) -> tuple[np.ndarray, np.ndarray]:
        """Where the right and the left hand are to go."""
        if self.task in DOORS:
            depth = 0.04 if self.task == "door-open-inward" else -0.04
            return self.at("right_panel", (0.39, -0.5, depth)), self.at("left_panel", (-0.39, -0.5, depth))
        if self.task == "pen":  # along the root's z, to which the links' y is turned
            return self.at("cap", (0.0, 0.0, -0.1)), self.at("object", (0.0, 0.0, 0.07))
        assert self.task == "scissors"
        return self.at("moving_blade", (0.2, 0.0, -0.1)), self.at("fixed_blade", (0.15, 0.0, 0.1))

    def joint(self, name: str) -> float:
        """Position of a joint with one degree of freedom."""
        return float(self.data.joint(name).qpos[0])


def judge(scene: Scene, goal: np.ndarray) -> Judged:
    """Reward, failure and success of the moment; `goal` [7], quaternion as x, y, z, w."""
    if scene.task in THROWS:
        return _judge_throw(scene, goal)
    if scene.task == "bottle-cap":
        return _judge_bottle(scene)
    right, left = scene.handles()
    f_right, f_left = scene.reach("right", right), scene.reach("left", left)
    if scene.task == "pen":
        apart = _length(right - left)
        up = 5 * apart - 0.8 if f_right < 0.75 and f_left < 0.75 else 0.0
        reward = float(np.exp(-10 * f_right) + np.exp(-10 * f_left) + up)
        return Judged(reward, max(f_right, f_left) >= 1.5, apart > 0.3)
    if scene.task == "scissors":
        hinge = scene.joint("hinge")
        up = 5 * (0.59 + hinge) if max(f_right, f_left) < 0.7 else 0.0
        return Judged(2 - f_right - f_left + up, max(f_right, f_left) >= 1.75 or up < -0.5, hinge > -0.3)
    apart = abs(float(right[1] - left[1]))
    up = 2 * apart if max(f_right, f_left) < 0.5 else 0.0
    return Judged(2 - f_right - f_left + up, max(f_right, f_left) >= 1.5, apart > 0.5)


def _judge_throw(scene: Scene, goal: np.ndarray) -> Judged:
    egg = scene.at("object")
    distance = _length(egg - goal[:3])
    theta = turned(scene.rotation("object") @ matrix_of(goal[3:]).T)
    failed = egg[2] <= LOWEST[scene.task]
    if scene.task == "catch-abreast":
        failed |= _length(scene.at("right_palm") - np.array([-0.3, -0.55, 0.5])) >= 0.1
        failed |= _length(scene.at("left_palm") - np.array([-0.3, -1.15, 0.5])) >= 0.1
    return Judged(float(np.exp(-0.2 * (50 * distance + theta))), bool(failed), distance < 0.03)


def _judge_bottle(scene: Scene) -> Judged:
    bottle, reference, cap = scene.at("object"), scene.at("object", (0.0, 0.0, 0.15)), scene.at("cap")
    f_right, palm = scene.reach("right", reference), _length(bottle - scene.palm("left"))
    raised = _length(cap - bottle)
    failed = reference[2] <= 0.5 or _length(reference - scene.palm("right")) >= 0.5 or palm >= 0.2
    return Judged(2 - f_right - palm + (30 * raised if f_right <= 0.3 else 0.0), bool(failed), raised > 0.03)


def matrix_of(quaternion: np.ndarray) -> np.ndarray:
    """[3,3] of a unit quaternion x, y, z, w."""
    x, y, z, w = quaternion
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )


def turned(rotation: np.ndarray) -> float:
    """The angle of a rotation matrix, in [0, pi]."""
    skew = rotation - rotation.T
    sine = np.sqrt(skew[2, 1] ** 2 + skew[0, 2] ** 2 + skew[1, 0] ** 2) / 2
    return float(np.arctan2(sine, (np.trace(rotation) - 1) / 2))


def about(axis: int, angle: float) -> np.ndarray:
    """[3,3] about a coordinate axis."""
    c, s = np.cos(angle), np.sin(angle)
    matrix = np.eye(3)
    first, second = [(1, 2), (2, 0), (0, 1)][axis]
    matrix[first, first] = matrix[second, second] = c
    matrix[first, second], matrix[second, first] = -s, s
    return matrix


def fixed_axes(x: float, y: float, z: float) -> np.ndarray:
    """[3,3] about the fixed axes x, then y, then z."""
    return about(2, z) @ about(1, y) @ about(0, x)


@functools.cache
def batch_of(task: str, num_envs: int = 1, **options: Any) -> BiDexHandsBatch:
    """One batch for all tests of a task, which reset it themselves."""
    return BiDexHandsBatch(task, num_envs, **options)


def random_actions(task: str, num_steps: int, rows: int, seed: int, scale: float = 1.0) -> np.ndarray:
    """[T,R,2,A], a new one every third step, so that hands get somewhere."""
    rng = np.random.default_rng(seed)
    drawn = rng.uniform(-scale, scale, (-(-num_steps // 3), rows, 2, FACTS[task].action))
    return np.repeat(drawn, 3, axis=0)[:num_steps]


def _length(vector: np.ndarray) -> float:
    return float(np.sqrt((vector**2).sum()))
