"""Workers of Ray: who starts the ranks, and when a trial has taken too long."""

import time
from collections.abc import Iterator
from typing import Any

import pytest
import ray
import torch

from tlbench.cluster import Cluster, workers
from tlbench.result import TrialResult
from tlbench.suites.model_spec import ModelSpec
from tlbench.suites.spec import Case, Trial
from tlbench.worker import Worker

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

TIMEOUT_S = 240
MODEL = ModelSpec(
    name="tiny",
    image_size=8,
    patch_size=4,
    embed_dim=16,
    depth=2,
    num_heads=2,
    mlp_dim=32,
)
EXACTLY = {"min_steps": 6, "max_steps": 6, "max_time_s": 1e-9}
"""Timing of one step of warm-up and six more, however long they take."""


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with Cluster() as cluster:
        yield cluster


def make_trial(**changes: Any) -> Trial:
    settings = {
        "model": MODEL,
        "mode": "train",
        "data": "digits",
        "batch_size": 16,
        "timing": EXACTLY,
        "optimizer": {"gradient_clipping": 0.1, "gradient_accumulation_steps": 2},
    }
    return Trial(Case.model_validate(settings | changes), 0, 0, seed=5)


def job_values(result: TrialResult) -> dict[str, float | None]:
    assert result.status == "ok", result.traceback or result.reason
    return {m.name: m.value for m in result.metrics if m.rank == -1}


def losses(cluster: Cluster, world_size: int, **changes: Any) -> dict[str, float]:
    """The last loss of the same training under each stack that can do it."""
    stacks = ("torch", "torchrun", "ray", "deepspeed")
    found = {}
    for stack in stacks if world_size == 1 else stacks[1:]:
        parallelism = {"world_size": world_size}
        trial = make_trial(stack=stack, parallelism=parallelism, **changes)
        loss = job_values(cluster.run(trial, TIMEOUT_S).result)["loss"]
        assert loss is not None
        found[stack] = loss
    return found


@pytest.mark.parametrize("world_size", [1, 2])
def test_every_stack_trains_to_the_same_loss(cluster: Cluster, world_size: int) -> None:
    found = losses(cluster, world_size, device="cpu")
    assert list(found.values()) == pytest.approx([found["ray"]] * len(found), abs=1e-6)
    assert 0 < found["ray"] < 2.31  # ln 10: the classifier starts at zero


def test_ranks_under_torchrun_are_told_apart(cluster: Cluster) -> None:
    spread = {"world_size": 2}
    trial = make_trial(stack="torchrun", parallelism=spread, device="cpu")
    result = cluster.run(trial, TIMEOUT_S).result
    found = job_values(result)
    assert found["slowest_rank"] in (0, 1)
    spread_fraction = found["rank_step_time_spread_fraction"]
    assert spread_fraction is not None
    assert spread_fraction >= 0
    of_ranks = [m for m in result.metrics if m.name == "compute_time_s"]
    assert [m.rank for m in of_ranks] == [-1, 0, 1]


def test_workers_that_do_not_start_are_a_timeout(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    class SlowWorker(Worker):
        def __init__(self) -> None:
            time.sleep(600)

    monkeypatch.setattr(workers, "_RemoteWorker", ray.remote(SlowWorker))
    finished = cluster.run(make_trial(device="cpu"), timeout_s=3)
    assert finished.result.status == "timeout"
    assert finished.result.reason == "its workers did not start in 3 s"
    assert finished.wall_time_s < 60


def test_time_to_start_counts_to_the_time_of_the_trial(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = []

    def wait(calls: object, deadline: float) -> None:
        given.append(deadline - time.perf_counter())

    monkeypatch.setattr(workers, "_wait", wait)
    result = cluster.run(make_trial(device="cpu"), timeout_s=100).result
    assert (result.status, result.reason) == ("timeout", "not finished after 100 s")
    assert given[0] < 100 - 0.05  # a Python process takes longer to start


def test_a_rank_outside_ray_ends_with_its_trial(cluster: Cluster) -> None:
    endless = {"min_steps": 1_000_000, "max_steps": 1_000_000}
    trial = make_trial(stack="torch", mode="infer", timing=endless, device="cpu")
    result = cluster.run(trial, timeout_s=8).result
    assert result.status == "timeout"
    # The node is free at once: nothing of the trial holds it.
    again = make_trial(stack="torch", mode="infer", device="cpu")
    assert cluster.run(again, TIMEOUT_S).result.status == "ok"


two_gpus = pytest.mark.skipif(
    torch.cuda.device_count() < 2, reason="needs two NVIDIA GPUs on this machine"
)


@pytest.mark.gpu
@two_gpus
@pytest.mark.parametrize("world_size", [1, 2])
def test_every_stack_trains_to_the_same_loss_on_gpus(
    cluster: Cluster, world_size: int
) -> None:
    found = losses(cluster, world_size, device="cuda", attention="math")
    assert list(found.values()) == pytest.approx([found["ray"]] * len(found), abs=1e-5)


@pytest.mark.gpu
@two_gpus
@pytest.mark.parametrize("zero_stage", [0, 1, 2, 3])
def test_kernels_of_nccl_tell_what_two_gpus_exchange(
    cluster: Cluster, zero_stage: int
) -> None:
    spread = {"world_size": 2, "zero_stage": zero_stage}
    trial = make_trial(parallelism=spread, device="cuda", precision="bf16")
    found = job_values(cluster.run(trial, TIMEOUT_S).result)
    exposed = found["communication_fraction"]
    hidden = found["overlapped_communication_fraction"]
    assert exposed is not None
    assert hidden is not None
    assert 0 < exposed + hidden < 1
    assert found["slowest_rank"] in (0, 1)
