"""The tasks of Bi-DexHands that are ported, by name."""

from __future__ import annotations

from envs.bidexhands.task import Task
from envs.bidexhands.tasks.bottle_cap import BottleCap
from envs.bidexhands.tasks.catch import CatchAbreast, CatchUnderarm, Over
from envs.bidexhands.tasks.door_open import DoorOpenInward, DoorOpenOutward
from envs.bidexhands.tasks.pen import Pen
from envs.bidexhands.tasks.scissors import Scissors

TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        Over(),
        BottleCap(),
        DoorOpenInward(),
        DoorOpenOutward(),
        Pen(),
        CatchUnderarm(),
        CatchAbreast(),
        Scissors(),
    )
}
