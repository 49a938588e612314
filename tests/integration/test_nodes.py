"""Several Ray nodes on one machine: what ends one of them, and what runs on them."""

import sys
from pathlib import Path

import psutil
import pytest

from support.nodes import (
    MODEL,
    QUICK_DETECTION,
    RUN_TIMEOUT_S,
    TWO_NODES_THEN_ONE,
    changed_copy,
    fake_distribution,
    raylets,
)

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

ON_ONE = {
    "models": [MODEL],
    "mode": "infer",
    "batch_size": 16,
    "repeats": 1,
    "timing": {"max_time_s": 0.3},
}
HUNGRY = """
import time
import numpy

def build(model):
    taken = []
    for _ in range(8):
        taken.append(numpy.ones(2**26))
        time.sleep(0.5)
    return model
"""
"""A builder that takes 4 GiB, slowly enough for whoever watches."""
LOUD = """
def build(model):
    raise RuntimeError("loud\\n" + "x" * 2_000_000)
"""
"""A builder whose traceback is too long for a reply of Ray's without a store."""
HOLD_THE_STORE = """
import sys
import numpy, ray

ray.init(address=sys.argv[1], log_to_driver=False)
held = [ray.put(numpy.ones(2**17)) for _ in range(200)]
seen = ray.get(held)
print("full", flush=True)
sys.stdin.read()
"""
"""Whoever has 200 MiB of objects in use, of which the store holds less than half."""
ON_BOTH = ON_ONE | {"parallelism": {"world_size": 2, "nodes": 2}}


def test_a_run_goes_on_without_the_node_whose_raylet_was_killed(tmp_path: Path) -> None:
    with raylets(2) as cluster:
        run = cluster.begin_run(tmp_path, TWO_NODES_THEN_ONE)
        cluster.wait_until_ranks_have_met(0, 1)
        cluster[1].kill_raylet()
        assert run.wait() == 3
    killed, after = run.trials
    assert (killed.status, after.status) == ("lost", "ok")
    assert killed.reason is not None
    assert "its node vanished, killed or cut off" in killed.reason


def test_a_run_begins_without_a_node_that_has_just_died(tmp_path: Path) -> None:
    with raylets(2, environment=QUICK_DETECTION) as cluster:
        cluster[1].end()
        run = cluster.begin_run(tmp_path, ON_ONE)
        assert run.wait() == 0
    assert [trial.status for trial in run.trials] == ["ok"]


def test_nodes_with_different_versions_end_a_run_by_name(tmp_path: Path) -> None:
    other = fake_distribution(tmp_path, "timm", "0.0.1")
    with raylets(2, of_node={1: other}) as cluster:
        process = cluster.begin_run(tmp_path, ON_BOTH).process
        _, err = process.communicate(timeout=RUN_TIMEOUT_S)
    assert process.returncode == 1
    assert "error: the nodes have different software: timm is " in err
    assert "0.0.1 on " in err
    assert "Traceback" not in err


def test_workers_run_the_tlbench_of_the_driver(tmp_path: Path) -> None:
    """Although another one, which cannot run, lies on their node."""
    other = tmp_path / "other"
    other.mkdir()
    changed = changed_copy(other, "trial.py", "raise ImportError('of the node')\n")
    with raylets(2, of_node={1: changed}) as cluster:
        run = cluster.begin_run(tmp_path, ON_BOTH)
        assert run.wait() == 0
    (trial,) = run.trials
    assert (trial.status, trial.reason) == ("ok", None)
    assert len(trial.nodes) == 2


def test_a_node_that_joins_with_another_tlbench_is_not_used(tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    changed = changed_copy(other, "trial.py", "raise ImportError('of the node')\n")
    with raylets(2, of_node={1: changed}, late=1) as cluster:
        process = cluster.begin_run(tmp_path, ON_ONE | {"repeats": 8}).process
        cluster.start(1)
        _, err = process.communicate(timeout=RUN_TIMEOUT_S)
    assert process.returncode == 0, err
    assert err.count(" is not used: it has another tlbench than the driver") == 1


def test_a_process_that_takes_the_memory_of_a_node_is_oom(tmp_path: Path) -> None:
    memory = psutil.virtual_memory()
    limit = (memory.total - memory.available + 2 * 2**30) / memory.total
    (tmp_path / "hungry.py").write_text(HUNGRY)
    hungry = MODEL | {"builder": {"function": "build", "file": "hungry.py"}}
    with raylets(1, environment={"RAY_memory_usage_threshold": str(limit)}) as cluster:
        run = cluster.begin_run(tmp_path, ON_ONE | {"models": [hungry, MODEL]})
        assert run.wait() == 3
    first, second = sorted(run.trials, key=lambda trial: trial.status)
    assert (first.status, second.status) == ("ok", "oom")
    assert second.reason == "Ray ended its process: the node's memory was full"


def test_a_large_result_comes_back_past_a_full_object_store(tmp_path: Path) -> None:
    (tmp_path / "loud.py").write_text(LOUD)
    loud = MODEL | {"builder": {"function": "build", "file": "loud.py"}}
    with raylets(1) as cluster:
        words = [sys.executable, "-c", HOLD_THE_STORE, cluster.address]
        holder = cluster.command(words, tmp_path)
        assert holder.stdout is not None
        assert holder.stdout.readline() == "full\n"
        run = cluster.begin_run(tmp_path, ON_ONE | {"models": [loud]})
        assert run.wait() == 3
    (trial,) = run.trials
    assert (trial.status, trial.reason) == ("error", "RuntimeError: loud")
    assert trial.traceback is not None
    assert "x" * 2_000_000 in trial.traceback
