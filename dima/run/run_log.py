"""What the training loop reports, and where it goes: the run folder's files, the mirrors and the terminal."""

from __future__ import annotations

import time
from typing import Any

from dima.run.checkpoint import CheckpointStore
from dima.run.console import Progress
from dima.run.folder import RunFolder
from dima.run.tracking import Tracker


class RunLog:
    """Writes metrics, scores and checkpoints of one run."""

    def __init__(
        self, folder: RunFolder, store: CheckpointStore, tracker: Tracker, progress: Progress, time_s: float = 0.0
    ) -> None:
        """Report into `folder`; `time_s` is the time that the run took before it was resumed, in seconds."""
        self.folder = folder
        self._store = store
        self._tracker = tracker
        self._progress = progress
        self._began = time.monotonic() - time_s

    @property
    def time_s(self) -> float:
        """Seconds that the run has taken, those before a resume included."""
        return time.monotonic() - self._began

    def write_row(self, row: dict[str, float]) -> None:
        """Append one row of metrics, with the time at which it was taken."""
        row = {"env_steps": row["env_steps"], "updates": row["updates"], "time_s": round(self.time_s, 3), **row}
        self._tracker.write(row)
        self._progress.show(row)

    def write_evaluation(self, env_steps: int, returns: list[float]) -> None:
        """Add the returns of one evaluation to scores.json."""
        scores = self.folder.read_scores()
        scores["evaluations"].append({"env_steps": env_steps, "returns": returns})
        self.folder.write_scores(scores)

    def write_checkpoint(self, step: int, components: dict[str, Any], counters: dict[str, Any]) -> None:
        """Save everything as checkpoint `step`, and note in the manifest how long the run has taken."""
        self._store.save(step, components, {**counters, "time_s": self.time_s})
        manifest = self.folder.read_manifest()
        self.folder.write_manifest({**manifest, "env_steps": step, "wall_time_s": round(self.time_s, 3)})

    def close(self) -> None:
        """Finish the mirrors and leave the progress bar as it stands. Closing twice does nothing."""
        self._progress.close()
        self._tracker.close()
