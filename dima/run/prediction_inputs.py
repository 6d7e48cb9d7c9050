"""The models that `dima predict` measures, each with the data that is held out from it."""

from __future__ import annotations

from typing import Any

from dima.run.held_out import label_of, require_common_data, require_same_env, split_for
from dima.run.messages import nearest
from dima.run.predict_settings import PredictSettings
from dima.run.prediction import variants
from dima.run.prediction_record import Opened
from dima.run.saved_run import open_model
from worldmodel.config import ConfigError
from worldmodel.dataset import Dataset, require_same_task
from worldmodel.protocol import OrderedWorldModel

ORDERS = ("descending", "ascending", "cycle", "random")
"""Orders by name; any other is a list of agents."""


def open_runs(settings: PredictSettings, dataset: Dataset) -> list[Opened]:
    """Every run that `settings` names, all with the same held-out episodes.

    Raises:
        RunFolderError, CheckpointError: when a run is missing or damaged.
        DatasetError, ConfigError: when the data is of another task, or not held out; when no model knows the orders.
    """
    opened = [_open(run, settings, dataset) for run in settings.runs or (settings.run,) if run is not None]
    if settings.orders is not None and not any(isinstance(each.model, OrderedWorldModel) for each in opened):
        raise ConfigError(f"orders: {type(opened[0].model).__name__} has no such choice")
    require_common_data([(each.saved.path, each.held_out) for each in opened])
    return opened


def _require_known_orders(settings: PredictSettings) -> None:
    """Refuse a name that is no order, before a model does so in words of its own."""
    for order in settings.orders or ():
        if isinstance(order, str) and order not in ORDERS:
            raise ConfigError(f"orders: there is no order {nearest(order, ORDERS)} (orders: {', '.join(ORDERS)})")


def _open(run: str, settings: PredictSettings, dataset: Dataset) -> Opened:
    saved = open_model(run, settings.checkpoint, settings.device, settings.num_threads, "predict")
    require_same_task(dataset, saved.spec, f"run {run}")
    require_same_env(dataset, saved.settings.env, run)
    _require_known_orders(settings)
    model = _resampled(saved.model, settings)
    training, held_out = split_for(saved, dataset, settings.held_out)
    label = label_of(run, settings.runs or ())
    return Opened(label, saved, variants(model, settings.orders or ORDERS), training, held_out)


def _resampled(model: Any, settings: PredictSettings) -> Any:
    """The model with another number of denoising steps or another solver, where asked for."""
    if settings.num_denoising_steps is None and settings.solver is None:
        return model
    if not hasattr(model, "with_sampling"):
        raise ConfigError(f"num_denoising_steps and solver: {type(model).__name__} has no such choice")
    return model.with_sampling(settings.num_denoising_steps, settings.solver)
