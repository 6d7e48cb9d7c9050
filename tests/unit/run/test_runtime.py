"""Seeds and generators: pure functions of the run's seed and a name, and exactly restored."""

from __future__ import annotations

import pytest
import torch

from dima.run.runtime import Randomness, choose_device, default_threads, derive_seed, derive_seeds

CPU = torch.device("cpu")


def draw(randomness: Randomness, name: str) -> torch.Tensor:
    return torch.rand(3, generator=randomness.generator(name))


def test_seeds_are_the_same_everywhere_and_for_ever() -> None:
    """Pinned numbers: a change here would change the meaning of every published seed."""
    assert derive_seed(0, "collect") == 4240376592113658547
    assert derive_seeds(0, "evaluate", 2) == [623959417, 1381552777]


def test_seeds_differ_between_names_and_runs() -> None:
    seeds = {derive_seed(seed, name) for seed in range(50) for name in ("collect", "evaluate", "torch")}
    assert len(seeds) == 150


def test_episode_seeds_are_distinct_and_the_first_do_not_depend_on_how_many_there_are() -> None:
    many = derive_seeds(3, "evaluate", 200)
    assert len(set(many)) == 200
    assert derive_seeds(3, "evaluate", 5) == many[:5]
    assert all(0 <= seed < 2**31 for seed in many)


@pytest.mark.parametrize(("asked", "threads"), [("1", 1), ("7", 7), ("", 2), ("0", 2), ("4,2", 2)])
def test_the_user_s_number_of_threads_goes_before_the_machine_s(
    asked: str, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dima.run.runtime.available_cores", lambda: 2)
    monkeypatch.setenv("OMP_NUM_THREADS", asked)
    assert default_threads() == threads


def test_a_stream_does_not_depend_on_what_others_draw() -> None:
    quiet, busy = Randomness(1, CPU), Randomness(1, CPU)
    for _ in range(5):
        draw(busy, "imagination")
    assert torch.equal(draw(quiet, "collect"), draw(busy, "collect"))


def test_generators_and_the_default_one_are_restored_in_place() -> None:
    first = Randomness(1, CPU)
    draw(first, "collect")
    torch.rand(7)
    saved = first.state_dict()
    expected = [draw(first, "collect"), draw(first, "new"), torch.rand(4)]
    second = Randomness(99, CPU)
    held = second.generator("collect")
    second.seed = 1
    second.load_state_dict(saved)
    assert second.generator("collect") is held
    assert all(map(torch.equal, expected, [draw(second, "collect"), draw(second, "new"), torch.rand(4)]))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_missing_gpu_is_named() -> None:
    assert choose_device("auto") == CPU
    with pytest.raises(ValueError, match="no CUDA device here; use device=auto"):
        choose_device("cuda")


@pytest.mark.gpu
def test_streams_on_a_gpu_are_restored() -> None:
    device = choose_device("cuda")
    randomness = Randomness(1, device)
    generator = randomness.generator("imagination")
    torch.rand(3, generator=generator, device=device)
    saved = randomness.state_dict()
    expected = torch.rand(3, generator=generator, device=device), torch.rand(3, device=device)
    randomness.load_state_dict(saved)
    assert torch.equal(expected[0], torch.rand(3, generator=generator, device=device))
    assert torch.equal(expected[1], torch.rand(3, device=device))
