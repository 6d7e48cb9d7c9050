"""Hand-written policies that solve the tasks: for checks, for demonstrations, and for datasets with successes in them.

They read positions of the whole scene and the angles of the object's joints, which no agent observes.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

from envs.bidexhands.batch import find_task
from envs.bidexhands.scripted.bottle import LiftCap
from envs.bidexhands.scripted.doors import PullDoors, PushDoors
from envs.bidexhands.scripted.pen import PartPen
from envs.bidexhands.scripted.policy import Script, ScriptedPolicy
from envs.bidexhands.scripted.scissors import SpreadScissors
from envs.bidexhands.scripted.throw import ThrowEgg
from envs.bidexhands.scripted.throw_shapes import CATCH_ABREAST, CATCH_UNDERARM, OVER
from envs.bidexhands.task import Task
from envs.errors import EnvError

__all__ = ["SCRIPTS", "ScriptedPolicy", "scripted_policy"]

SCRIPTS: dict[str, Callable[[Task], Script]] = {
    "over": lambda task: ThrowEgg(task, OVER),
    "bottle-cap": LiftCap,
    "door-open-inward": PullDoors,
    "door-open-outward": PushDoors,
    "pen": PartPen,
    "catch-underarm": lambda task: ThrowEgg(task, CATCH_UNDERARM),
    "catch-abreast": lambda task: ThrowEgg(task, CATCH_ABREAST),
    "scissors": SpreadScissors,
}
"""What makes the script of a task, by the task's name."""


@functools.cache
def scripted_policy(task_name: str) -> ScriptedPolicy:
    """The script of a task; raises `EnvError` for a name that has none."""
    task = find_task(task_name)
    if task_name not in SCRIPTS:
        raise EnvError(f"there is no script for {task_name!r}; expected one of {', '.join(SCRIPTS)}")
    return ScriptedPolicy(task_name, SCRIPTS[task_name](task))
