"""Ranks in processes of their own: their results come back, and so does their death."""

import os
import pickle
import re
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest

from tlbench.launch import run_outside_ray
from tlbench.rank import Rank
from tlbench.result import TrialResult
from tlbench.suites.model_spec import BuilderSpec, ModelSpec
from tlbench.suites.spec import Case, Trial

pytestmark = pytest.mark.slow

TIMEOUT_S = 120
EXACTLY = {"min_steps": 6, "max_steps": 6, "max_time_s": 1e-9}
"""Timing of one step of warm-up and six more, however long they take."""
ENDLESS = {"min_steps": 1_000_000, "max_steps": 1_000_000}


def make_trial(stack: str, world_size: int, source: str = "", **changes: Any) -> Trial:
    """A trial of a tiny model; `source` is the text of a builder `build(model)`."""
    builder = BuilderSpec(function="build", file="mine.py") if source else None
    model = ModelSpec(
        name="tiny",
        image_size=8,
        patch_size=4,
        embed_dim=16,
        depth=2,
        num_heads=2,
        mlp_dim=32,
        builder=builder,
    )
    settings = {
        "model": model,
        "mode": "infer",
        "data": "digits",
        "stack": stack,
        "parallelism": {"world_size": world_size},
        "timing": EXACTLY,
    }
    case = Case.model_validate(settings | changes)
    return Trial(case, 0, 0, seed=3, source=textwrap.dedent(source))


def make_ranks(world_size: int) -> list[Rank]:
    return [
        Rank(rank, world_size, rank, world_size, "127.0.0.1", 0, "cpu", 1)
        for rank in range(world_size)
    ]


def run(
    stack: str, world_size: int, source: str = "", **changes: Any
) -> Sequence[TrialResult]:
    trial = make_trial(stack, world_size, source, **changes)
    return run_outside_ray(trial, make_ranks(world_size), TIMEOUT_S)


@pytest.mark.parametrize(("stack", "world_size"), [("torch", 1), ("torchrun", 2)])
def test_the_result_of_every_rank_comes_back(stack: str, world_size: int) -> None:
    results = run(stack, world_size)
    assert [result.status for result in results] == ["ok"] * world_size
    for result in results:
        (steps,) = (s.values for s in result.series if s.name == "step_time_s")
        assert len(steps) == 6


def test_ranks_of_torchrun_exchange_their_gradients() -> None:
    results = run("torchrun", 2, mode="train")
    assert [r.status for r in results] == ["ok", "ok"], results[0].traceback
    first, second = ({m.name: m.value for m in r.metrics} for r in results)
    assert first["loss"] == second["loss"]
    for found in (first, second):
        share = found["communication_fraction"]
        assert share is not None
        assert 0 < share < 1


TELL_SURROUNDINGS = """
    import os, sys

    def build(model):
        names = [name for name in os.environ if name.startswith("RAY_")]
        threads = os.environ["OMP_NUM_THREADS"]
        raise ZeroDivisionError(f"{names} {threads} {os.getcwd() in sys.path}")
"""


@pytest.mark.parametrize(("stack", "world_size"), [("torch", 1), ("torchrun", 1)])
def test_a_rank_sees_nothing_of_ray_nor_the_current_folder(
    stack: str, world_size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "torch.py").write_text("raise ImportError('of the user')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RAY_JOB_ID", "01")
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    (result,) = run(stack, world_size, TELL_SURROUNDINGS)
    assert result.reason == "ZeroDivisionError: [] 1 False"
    assert result.traceback is not None
    assert 'File "mine.py", line 7, in build' in result.traceback


FAIL_ON_RANK_1 = """
    import os, time

    def build(model):
        if next(model.parameters()).is_meta:  # its cost is counted
            return model
        if os.environ["RANK"] == "1":
            raise MemoryError("no room")
        time.sleep(600)
"""


def test_the_first_failure_ends_the_other_ranks_of_torchrun() -> None:
    start = time.monotonic()
    (result,) = run("torchrun", 2, FAIL_ON_RANK_1)
    assert (result.status, result.reason) == ("oom", "rank 1: no room")
    assert time.monotonic() - start < TIMEOUT_S


DIE = """
    import os, signal

    def build(model):
        print("last words", flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize(
    ("stack", "ending"), [("torch", "SIGKILL"), ("torchrun", "exit code 1")]
)
def test_a_death_is_a_result_with_what_was_printed(stack: str, ending: str) -> None:
    (result,) = run(stack, 1, DIE)
    assert result.status == "error"
    assert result.reason == (
        f"the process of {stack} ended with {ending} and no result of rank 0"
    )
    assert result.traceback is not None
    assert "last words" in result.traceback


HANG = """
    import time

    def build(model):
        print("last words", flush=True)
        time.sleep(600)
"""
HANG_WITH_THE_LOCK = """
    import ctypes

    def build(model):
        print("last words", flush=True)
        ctypes.PyDLL(None).sleep(600)  # no other thread of Python runs meanwhile
"""


@pytest.mark.parametrize(
    ("stack", "world_size", "source"),
    [
        ("torch", 1, HANG),
        ("torchrun", 2, HANG),
        ("torchrun", 2, HANG_WITH_THE_LOCK),
    ],
)
def test_what_hangs_is_ended_and_tells_what_it_printed_and_where_it_is(
    stack: str,
    world_size: int,
    source: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    trial = make_trial(stack, world_size, source)
    before = set(psutil.Process().children(recursive=True))  # as of another test
    (result,) = run_outside_ray(trial, make_ranks(world_size), timeout_s=30)
    assert (result.status, result.reason) == (
        "timeout",
        "its processes had not finished after 30 s",
    )
    assert result.traceback is not None
    printed, *stacks = re.split(r"stacks of rank \d:\n", result.traceback)
    assert "last words" in printed
    assert len(stacks) == world_size
    for of_rank in stacks:
        assert re.search(r'File "mine.py", line \d+ in build', of_rank)
        assert "in run_rank" in of_rank
    assert list(tmp_path.iterdir()) == []
    assert set(psutil.Process().children(recursive=True)) <= before


LAUNCHER = """
import pickle, sys
from tlbench.launch import run_outside_ray
run_outside_ray(*pickle.loads(sys.stdin.buffer.read()), timeout_s=600)
"""


@pytest.mark.parametrize(("stack", "world_size"), [("torch", 1), ("torchrun", 2)])
def test_no_rank_outlives_its_launcher(stack: str, world_size: int) -> None:
    trial = make_trial(stack, world_size, timing=ENDLESS)
    launcher = subprocess.Popen(
        [sys.executable, "-c", LAUNCHER], stdin=subprocess.PIPE, env=dict(os.environ)
    )
    assert launcher.stdin is not None
    with launcher.stdin as order:
        order.write(pickle.dumps((trial, make_ranks(world_size))))
    ranks = _wait_for_ranks(psutil.Process(launcher.pid), world_size)
    launcher.kill()
    launcher.wait()
    _, alive = psutil.wait_procs(ranks, timeout=30)
    for process in alive:
        process.kill()
    assert alive == []


def _wait_for_ranks(launcher: psutil.Process, count: int) -> list[psutil.Process]:
    """All processes under the launcher, once its ranks are among them."""
    deadline = time.monotonic() + TIMEOUT_S
    while time.monotonic() < deadline:
        below = launcher.children(recursive=True)
        ranks = [p for p in below if p.cmdline()[-2:-1] == ["tlbench.solo"]]
        if len(ranks) >= count:
            return below
        time.sleep(0.1)
    raise AssertionError("the ranks did not come up")
