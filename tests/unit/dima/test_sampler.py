"""The reverse process: solvers against each other, against diffusers, and what a sample may depend on."""

from __future__ import annotations

import dataclasses
from contextlib import AbstractContextManager
from typing import Any

import pytest
import torch
from torch import Tensor

from dima.denoiser import Denoiser
from dima.reveal import ActionReveal, Order, Reveal
from dima.sampler import ConditionedDenoiser, SamplerConfig, sample_next_state
from dima.schedule import karras_sigmas
from tests.support.dima_models import lively_dima, make_spec
from tests.support.gaussian_team import GaussianTeam
from worldmodel.config import ConfigError
from worldmodel.contract.random_data import random_action
from worldmodel.types import EnvSpec

SPEC = make_spec()
CONFIG = SamplerConfig(solver="euler", sigma_min=0.002, sigma_max=5.0, rho=7.0, initial_noise=1.0)
MULTISTEP = "EDMDPMSolverMultistepScheduler"
OURS = ("euler", "heun", "multistep")
SOLVERS = (*OURS, "EDMEulerScheduler", MULTISTEP)


@pytest.fixture(scope="module")
def network() -> Denoiser:
    return lively_dima(SPEC).denoiser


@torch.no_grad()
def sample(
    denoiser: ConditionedDenoiser,
    *,
    solver: str = "euler",
    reveal: Reveal = "one",
    order: Order = "descending",
    steps: int = 4,
    seed: int = 0,
    batch: int = 6,
    spec: EnvSpec = SPEC,
    change: dict[str, Tensor] | None = None,
    **settings: Any,
) -> Tensor:
    """Next states [B,S] for inputs that are always the same, but for `change`; `settings` are of the config."""
    g = torch.Generator().manual_seed(11)
    inputs = {
        "context": torch.randn(batch, 3, spec.state_dim, generator=g) / 2,
        "past_action": random_action(spec, 2 * batch, g).unflatten(0, (batch, 2)),
        "action": random_action(spec, batch, g),
    } | (change or {})
    config = dataclasses.replace(CONFIG, solver=solver, **settings)
    schedule = ActionReveal(reveal, order, spec.num_agents, config.ladder(steps), config.num_reveal_steps(steps))
    return sample_next_state(denoiser, schedule, config, **inputs, generator=torch.Generator().manual_seed(seed))


class Recorder:
    """Passes everything on to `denoiser` and keeps what it returned."""

    def __init__(self, denoiser: ConditionedDenoiser) -> None:
        self.sigma_data = denoiser.sigma_data
        self.inner = denoiser
        self.noisy: list[Tensor] = []
        self.denoised: list[Tensor] = []
        self.sigmas: list[float] = []
        self.masks: list[Tensor] = []

    def frozen(self) -> AbstractContextManager[None]:
        return self.inner.frozen()

    def embed_context(self, context: Tensor) -> Any:
        return self.inner.embed_context(context)

    def modulation(self, sigma: Tensor, past_action: Tensor, action: Tensor, visible: Tensor, level: Tensor) -> Any:
        self.masks.append(visible[level, 0])
        return self.inner.modulation(sigma, past_action, action, visible, level)

    def denoise(self, x: Tensor, sigma: Tensor, context: Any, modulation: Any) -> Tensor:
        self.noisy.append(x)
        self.sigmas.append(sigma.item())
        self.denoised.append(self.inner.denoise(x, sigma, context, modulation))
        return self.denoised[-1]


@pytest.mark.parametrize("keep_noise", [False, True])
@pytest.mark.parametrize("solver", OURS)
@pytest.mark.parametrize("steps", [1, 2, 5])
def test_the_last_step_returns_d_exactly(network: Denoiser, solver: str, steps: int, keep_noise: bool) -> None:
    recorder = Recorder(network)

    drawn = sample(recorder, solver=solver, reveal="joint", steps=steps, keep_noise=keep_noise)

    assert torch.equal(drawn, recorder.denoised[-1])
    assert recorder.sigmas[-1] == pytest.approx(karras_sigmas(steps, 0.002, 5.0, 7.0)[-2])


@pytest.mark.parametrize("initial_noise", [1.0, 0.2])
def test_the_walk_starts_from_noise_of_the_size_asked_for(initial_noise: float) -> None:
    recorder = Recorder(GaussianTeam.alike(2, 1.0))

    sample(recorder, batch=20_000, initial_noise=initial_noise)

    assert recorder.noisy[0].std().item() == pytest.approx(5.0 * initial_noise, rel=0.01)
    assert recorder.noisy[0].mean().item() == pytest.approx(0.0, abs=0.05)


@pytest.mark.parametrize("steps", [1, 2, 4, 9])
@pytest.mark.parametrize("offset", [0.0, 0.3])
def test_the_euler_scheduler_of_diffusers_walks_as_ours(steps: int, offset: float) -> None:
    network = lively_dima(SPEC, f"sigma_offset_noise={offset}").denoiser

    ours, theirs = (sample(network, solver=s, reveal="joint", steps=steps) for s in ("euler", "EDMEulerScheduler"))

    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("steps", [1, 2, 3, 4, 9])
@pytest.mark.parametrize("offset", [0.0, 0.3])
def test_the_multistep_scheduler_of_diffusers_walks_as_ours(steps: int, offset: float) -> None:
    network = lively_dima(SPEC, f"sigma_offset_noise={offset}").denoiser

    ours, theirs = (sample(network, solver=s, reveal="joint", steps=steps) for s in ("multistep", MULTISTEP))

    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_no_reveal_level_is_the_one_ladder() -> None:
    for steps in (1, 2, 4, 17):
        assert CONFIG.ladder(steps) == karras_sigmas(steps, 0.002, 5.0, 7.0)
        assert CONFIG.num_reveal_steps(steps) is None


def test_the_reveal_level_splits_the_steps() -> None:
    config = dataclasses.replace(CONFIG, sigma_min=0.02, reveal_sigma=2.0, num_refine_steps=3)

    ladder = config.ladder(8)

    assert len(ladder) == 9
    assert config.num_reveal_steps(8) == 5
    assert (ladder[0], ladder[4], ladder[7], ladder[8]) == pytest.approx((5.0, 2.0, 0.02, 0.0))
    with pytest.raises(ConfigError, match="num_refine_steps = 3: expected fewer than num_denoising_steps = 3"):
        config.ladder(3)


def test_a_model_shows_everybody_above_the_reveal_level_it_is_configured_with() -> None:
    options = ("reveal=progressive", "order=cycle", "num_denoising_steps=6", "sampler.reveal_sigma=2.0")
    model = lively_dima(make_spec(num_agents=3), *options, "sampler.num_refine_steps=3")

    masks = model.reveal.sampling_masks(torch.Generator())

    assert masks.sum(dim=1).tolist() == [1, 2, 3, 3, 3, 3]
    assert model.reveal.sigmas[2].item() == pytest.approx(2.0)


@pytest.mark.parametrize("solver", OURS)
def test_noise_is_carried_over_where_agents_are_newly_shown(solver: str) -> None:
    """Step 1 is the start, step 2 shows the second agent: x is D and the starting noise. Step 3 shows nobody new."""
    recorder = Recorder(GaussianTeam.alike(2, 1.0, explained=0.5))

    sample(recorder, solver=solver, reveal="progressive", order="cycle", keep_noise=True)

    sigmas = recorder.sigmas
    start = recorder.noisy[0] / sigmas[0]
    for step in (0, 1):
        expected = recorder.denoised[step] + sigmas[step + 1] * start
        torch.testing.assert_close(recorder.noisy[step + 1], expected, rtol=1e-5, atol=1e-6)
    carried = recorder.denoised[2] + sigmas[3] * start
    assert not torch.allclose(recorder.noisy[3], carried, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("solver", OURS)
def test_kept_noise_changes_nothing_where_no_action_is_shown(network: Denoiser, solver: str) -> None:
    kept, made_anew = (sample(network, solver=solver, reveal="none", keep_noise=keep) for keep in (True, False))

    assert torch.equal(kept, made_anew)


@pytest.mark.parametrize(
    ("solver", "error"), [("multistep", 0.05), ("heun", 0.02), (MULTISTEP, 0.05), ("EDMEulerScheduler", 0.06)]
)
def test_solvers_reach_a_gaussian_target(solver: str, error: float) -> None:
    """Against the exact solution of the ODE, in which a start of finite noise leaves a little of the start's mean."""
    mean, spread, top = 0.7, 0.3, 5.0
    kept = spread / (spread**2 + top**2) ** 0.5
    target = GaussianTeam(torch.tensor([0.0, 0.0]), noise_std=spread, mean=mean)

    drawn = sample(target, solver=solver, reveal="joint", steps=40, batch=10_000)

    assert drawn.std().item() == pytest.approx(top * kept, rel=error + 0.01)  # 0.01: 50 000 draws
    assert drawn.mean().item() == pytest.approx(mean * (1 - kept), abs=0.01)


def test_four_euler_steps_halve_the_spread() -> None:
    """A property of the paper's four steps, not a defect of this code: Euler's error in closed form."""
    spread, shrink = 0.15, 5.0
    ladder = karras_sigmas(4, 0.002, 5.0, 7.0)
    for sigma, following in zip(ladder[:-1], ladder[1:], strict=True):
        trust = spread**2 / (spread**2 + sigma**2)
        shrink *= trust + (1 - trust) * following / sigma

    drawn = sample(GaussianTeam(torch.tensor([0.0, 0.0]), noise_std=spread), reveal="joint", batch=20_000)

    assert drawn.std().item() == pytest.approx(shrink, rel=0.02)
    assert 0.4 < shrink / spread < 0.6


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("order", ["descending", "random"])
def test_a_sample_follows_its_generator_and_no_other(network: Denoiser, solver: str, order: Order) -> None:
    before = torch.get_rng_state()

    first, again, other = (sample(network, solver=solver, order=order, seed=seed) for seed in (1, 1, 2))

    assert torch.equal(first, again)
    assert (first != other).any(dim=1).all()
    assert torch.equal(before, torch.get_rng_state())


def test_a_random_order_is_drawn_from_the_generator() -> None:
    orders = []
    for seed in (0, 0, *range(1, 12)):
        recorder = Recorder(GaussianTeam.alike(2, 1.0))
        sample(recorder, order="random", seed=seed)
        orders.append(recorder.masks[0].int().argmax(dim=1).tolist())

    assert orders[0] == orders[1]
    assert sorted(orders[0]) == [0, 0, 1, 1]
    assert len({tuple(order) for order in orders}) > 1


@pytest.mark.parametrize("solver", SOLVERS)
def test_every_solver_shows_the_agents_in_the_order_asked_for(solver: str) -> None:
    recorder = Recorder(GaussianTeam.alike(2, 1.0))

    sample(recorder, solver=solver, order=(2, 1, 1, 2))

    (masks,) = recorder.masks
    assert masks[:4].tolist() == [[False, True], [True, False], [True, False], [False, True]]
    # The correction of a step sees what the step saw.
    assert masks[4:].tolist() == (masks[:3].tolist() if solver == "heun" else [])


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize(("reveal", "hidden"), [("none", [0, 1]), ("one", [1]), ("cumulative", [1])])
def test_an_agent_that_is_never_shown_changes_no_bit(
    network: Denoiser, monkeypatch: pytest.MonkeyPatch, solver: str, reveal: Reveal, hidden: list[int]
) -> None:
    # No order leaves an agent out, so the masks are set by hand.
    never = torch.tensor([agent not in hidden for agent in range(2)]).expand(4, -1)
    monkeypatch.setattr(ActionReveal, "sampling_masks", lambda self, generator: never)
    action = random_action(SPEC, 6, torch.Generator().manual_seed(12))
    for agent in range(2):
        other = action.clone()
        other[:, agent] *= -1

        before, after = (sample(network, solver=solver, reveal=reveal, change={"action": a}) for a in (action, other))

        assert torch.equal(before, after) == (agent in hidden), agent


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("name", ["context", "past_action", "action"])
def test_rows_do_not_see_each_other(network: Denoiser, solver: str, name: str) -> None:
    shape = {"context": (6, 3, 5), "past_action": (6, 2, 2, 3), "action": (6, 2, 3)}[name]
    value = torch.rand(shape, generator=torch.Generator().manual_seed(13))
    changed = value.clone()
    changed[2] *= -1

    before, after = (sample(network, solver=solver, change={name: v}) for v in (value, changed))

    differs = (before != after).any(dim=1)
    assert differs.tolist() == [row == 2 for row in range(6)]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sigma_min": 0.0}, "sigma_min = 0.0: expected between 0 and sigma_max = 5.0"),
        ({"sigma_max": 0.001}, "sigma_min = 0.002"),
        ({"initial_noise": -1.0}, "initial_noise"),
        ({"rho": 0.0}, "rho = 0.0: expected a number above 0"),
        ({"reveal_sigma": 5.0}, "reveal_sigma = 5.0: expected null, or between 0.002 and 5.0"),
        ({"reveal_sigma": 0.002}, "expected null, or between 0.002 and 5.0"),
        ({"num_refine_steps": 0}, "num_refine_steps = 0: expected at least 1"),
        ({"keep_noise": True, "solver": MULTISTEP}, "keep_noise = True: expected false, or the solver euler"),
        ({"solver": "rk4"}, "solver = 'rk4': expected euler, heun, multistep, or an EDM scheduler"),
        ({"solver": "EDMNoSuchScheduler"}, "EDMEulerScheduler, EDMDPMSolverMultistepScheduler"),
        ({"solver": "DDPMScheduler"}, "expected euler, heun, multistep"),
    ],
)
def test_settings_that_cannot_be_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        SamplerConfig(**(dataclasses.asdict(CONFIG) | changes))
