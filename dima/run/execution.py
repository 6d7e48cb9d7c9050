"""How a saved policy that is fed with the state comes to one when it is executed."""

from __future__ import annotations

import dataclasses
from typing import Any

from dima.run.execution_facts import describe_execution, execution_facts
from dima.run.inference_config import InferenceTrainingConfig
from dima.run.inference_training import InferenceTraining
from dima.run.saved_inference import open_inference
from dima.run.saved_run import SavedRun
from dima.run.settings import TrainSettings
from imagination.belief import Belief, Combine
from worldmodel.config import ConfigError


def choose_belief(
    run: SavedRun, inference: str | None, combine: Combine | None, samples: int | None
) -> tuple[Belief | None, dict[str, Any]]:
    """The belief that the policy of `run` acts on (None: it needs none, or the true state), and what scores say of it.

    Args:
        run: whose policy acts.
        inference: a run of `dima fit inference=...` or `oracle`; None: the inferencer that learned beside the policy,
            or else the true state.
        combine: see `Belief`; None: as the run says.
        samples: M; None: as the run says.

    Raises:
        ConfigError: when states are asked for that the policy does not look at, or a run learned something else.
    """
    settings, learner = run.settings, run.learner
    own = settings.inference
    told = [f"{name} = {value!r}" for name, value in (("combine", combine), ("samples", samples)) if value is not None]
    combine, samples = combine or own.combine, own.samples if samples is None else samples
    if not learner.mappo.policy.input.uses_state:
        kind = learner.mappo.policy.input.kind
        if inference is not None and inference != kind:
            raise ConfigError(
                f"inference = {inference!r}: the policy of this run is fed with {kind}, for which no state is inferred"
            )
        if told:
            raise ConfigError(f"{told[0]}: the policy of this run is fed with {kind}: there are no draws to combine")
        return None, describe_execution(settings, learner.model, None)
    if told and (inference == "oracle" or (inference is None and run.inference is None)):
        raise ConfigError(f"{told[0]}: states are the true ones here: there are no draws to combine")
    chosen = {"combine": combine, "samples": samples}
    if inference == "joint":
        raise ConfigError("inference = joint gives all agents' observations, and this policy is fed with the state")
    if inference is not None:
        saved = open_inference(inference, learner.spec, settings.env, learner.device)
        belief = _belief(saved.inference, combine, samples)
        return belief, execution_facts(settings, learner.model, {**saved.describe(), **chosen})
    if run.inference is None:
        return None, describe_execution(settings, learner.model, None)
    trained = InferenceTraining(_without_updates(settings), learner.spec, learner.randomness)
    trained.load_weights(run.inference)
    facts = execution_facts(settings, learner.model, {**trained.describe(), **chosen})
    return _belief(trained.inference, combine, samples), facts


def _belief(inference: Any, combine: Combine, samples: int) -> Belief:
    try:
        return Belief(inference, combine, samples)
    except ValueError as error:
        raise ConfigError(str(error)) from error


def _without_updates(settings: TrainSettings) -> InferenceTrainingConfig:
    """The run's own inference, which learns no more: the data it was fitted on are not asked for."""
    return dataclasses.replace(settings.inference, updates=0)
