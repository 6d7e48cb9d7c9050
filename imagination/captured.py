"""A whole imagined rollout as one CUDA graph: thousands of small kernels launched with one call.

Why: at a few hundred rollouts a GPU computes an imagined step faster than Python can ask for it. `imagine` stays the
text; this records what it launches once and repeats it. Nothing in the model may wait for the device meanwhile.
"""

from __future__ import annotations

from typing import Any

import torch

from imagination.policy import Policy
from imagination.rollout import imagine
from imagination.uncertainty import UncertaintyConfig
from worldmodel.protocol import WorldModel
from worldmodel.types import ImaginedRollout, Segment

_WARM_UPS = 2
"""Rollouts before the recording: libraries allocate workspaces at their first calls, which may not be recorded."""


class CapturedRollout:
    """`imagine` for contexts of one shape, recorded at construction and replayed at every call.

    Weights and statistics are read where they lie: what training writes into them in place, the next call sees.
    Random numbers come from `generator` as if `imagine` were called, though not the same ones.

    Args:
        model: the world model, on a CUDA device.
        policy: the actors, on the same device.
        context: an example; the contexts of later calls have its shapes.
        horizon: H, imagined steps.
        generator: on the same device; the recording leaves it as it was.
        uncertainty: what to do where the model is unsure.

    Raises:
        ValueError: when `context` is not on a CUDA device, or the model waits for the device on the way.
    """

    def __init__(
        self,
        model: WorldModel[Any],
        policy: Policy,
        context: Segment,
        horizon: int,
        generator: torch.Generator,
        uncertainty: UncertaintyConfig | None = None,
    ) -> None:
        device = context.state.device
        if device.type != "cuda":
            raise ValueError(f"a rollout on {device} cannot be recorded as a CUDA graph; use engine.capture=none there")
        self.batch_size = context.state.shape[0]
        self._context = context.map(torch.Tensor.clone)
        position = generator.get_state()
        beside = torch.cuda.Stream(device)
        beside.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(beside):
            for _ in range(_WARM_UPS):
                imagine(model, policy, self._context, horizon, generator, uncertainty)
        torch.cuda.current_stream(device).wait_stream(beside)
        self._graph = torch.cuda.CUDAGraph()
        self._graph.register_generator_state(generator)
        try:
            with torch.cuda.graph(self._graph):
                self._rollout = imagine(model, policy, self._context, horizon, generator, uncertainty)
        except RuntimeError as error:
            reason = " ".join(str(error).split())[:200]
            raise ValueError(
                "this world model's rollout cannot be recorded as a CUDA graph: something in it waits for the device"
                f" (a VQ decoder and diffusers' solvers do); use engine.capture=none ({reason})"
            ) from error
        generator.set_state(position)

    def __call__(self, context: Segment) -> ImaginedRollout:
        """The rollout from `context`, in tensors of its own."""
        for (_, kept), (_, given) in zip(self._context.tensors(), context.tensors(), strict=True):
            kept.copy_(given)
        self._graph.replay()
        return self._rollout.map(torch.Tensor.clone)
