"""`tlbench compare` and `run --budget` as a user runs them, on a local Ray."""

import contextlib
import json
import os
import shlex
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree

import pytest

from tlbench.db import query
from tlbench.db.query import RunRecord, TrialRecord
from tlbench.db.store import ResultStore

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

TLBENCH = Path(sys.executable).parent / "tlbench"
DB = "results.db"
TIMEOUT_S = 600

TINY = {
    "name": "tiny",
    "image_size": 16,
    "patch_size": 4,
    "embed_dim": 16,
    "depth": 2,
    "num_heads": 2,
    "mlp_dim": 32,
}
# Most of a step is a fixed sleep, and the rest is done by one thread, which waits for
# no other: a busy machine scatters the trials by little.
SLOWED = """\
import time

import torch
from torch import nn


class Slowed(nn.Module):
    def __init__(self, model, share):
        super().__init__()
        self.model, self.wait_s = model, 0.05 * (1 + share)

    def forward(self, x):
        time.sleep(self.wait_s)
        return self.model(x)


def build(model, share):
    torch.set_num_threads(1)
    return Slowed(model, share)
"""
SHARE = 2.0
"""So far beyond the noise of a busy machine that few trials show it."""


BUILDER = {"file": "slowed.py", "function": "build"}
SIDES = ("compare", "model~tiny", "model~slow+")


class Ended(NamedTuple):
    code: int
    out: str
    err: str


def tlbench(folder: Path, *arguments: str) -> Ended:
    process = subprocess.run(
        [TLBENCH, *arguments],
        cwd=folder,
        env=os.environ | {"TLBENCH_DB": DB},
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
    )
    return Ended(process.returncode, process.stdout, process.stderr)


def newest(folder: Path) -> tuple[RunRecord, list[TrialRecord]]:
    with (
        ResultStore.open(str(folder / DB), read_only=True) as store,
        store.session() as session,
    ):
        record = query.runs(session, limit=1)[0]
        return record, query.trials(session, [record.id])


def slowed_suite(**changes: Any) -> dict[str, Any]:
    models = [
        {**TINY, "name": name, "builder": BUILDER | {"options": {"share": share}}}
        for name, share in (("tiny", 0.0), ("slow", SHARE))
    ]
    return {
        "models": models,
        "mode": "infer",
        "data": "digits",
        "batch_size": 1,
        "timing": {"max_time_s": 0.5},
        **changes,
    }


def trust(folder: Path) -> None:
    """Make every trial valid: how busy the machine of a test is shall not matter."""
    with contextlib.closing(sqlite3.connect(folder / DB)) as db, db:
        db.execute("UPDATE trial SET validity = 'valid' WHERE status = 'ok'")


def run(folder: Path, **changes: Any) -> None:
    (folder / "suite.yaml").write_text(json.dumps(slowed_suite(**changes)))
    ended = tlbench(folder, "run", "suite.yaml")
    assert ended.code == 0, ended.err
    trust(folder)


@pytest.fixture(scope="module")
def make_folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Path]:
    def make_folder() -> Path:
        folder = tmp_path_factory.mktemp("compare")
        (folder / "slowed.py").write_text(SLOWED)
        return folder

    return make_folder


@pytest.fixture(scope="module")
def folder(make_folder: Callable[[], Path]) -> Path:
    """A run of a model and of the same slowed on purpose."""
    folder = make_folder()
    run(folder, repeats=4)
    return folder


def test_a_run_is_not_compared_with_itself(folder: Path) -> None:
    ended = tlbench(folder, "compare", "1", "1")
    assert ended.code == 1
    assert ended.err == (
        "error: 1 and 1 are the same 8 trials; another run or another query would be"
        " right\n"
    )


def test_a_model_slowed_on_purpose_fails_the_gate(folder: Path) -> None:
    command = (*SIDES, "--fail-on", "worse")
    ended = tlbench(folder, *command, "--junit", "junit.xml", "--markdown", "-")
    assert ended.code == 4, ended.err
    (suite,) = ElementTree.parse(folder / "junit.xml").getroot()
    assert (suite.get("tests"), suite.get("failures")) == ("1", "1")
    assert "| worse |" in ended.out
    (comparison,) = json.loads(tlbench(folder, *command, "--json").out)["comparisons"]
    assert (comparison["method"], comparison["n"]) == ("paired t", 4)
    low, high = comparison["interval"]
    assert 0 < low < high < 1
    assert comparison["fails"]


class Extended(NamedTuple):
    """A comparison of one trial a side, and what came of extending it."""

    folder: Path
    before: dict[str, Any]
    ended: Ended


@pytest.fixture(scope="module")
def extended(make_folder: Callable[[], Path]) -> Extended:
    folder = make_folder()
    run(folder, repeats=1, seed=40)
    sides = (*SIDES, "--json", "--level", "0.9")
    before = tlbench(folder, *sides)
    assert before.code == 0, before.err
    ended = tlbench(folder, *sides, "--extend")
    trust(folder)
    return Extended(folder, json.loads(before.out), ended)


def test_extending_runs_what_was_proposed(extended: Extended) -> None:
    """One trial a side has no interval, and asks for one more."""
    (before,) = extended.before["comparisons"]
    assert (before["verdict"], before["more_repeats"]) == ("inconclusive", 1)
    assert extended.ended.code == 0, extended.ended.err
    (after,) = json.loads(extended.ended.out)["comparisons"]
    assert after["a"]["runs"] == after["b"]["runs"] == [1, 2]
    record, trials = newest(extended.folder)
    assert (record.id, record.status, record.planned) == (2, "finished", 2)
    assert [(t.repeat, t.seed) for t in trials] == [(1, 41), (1, 41)]


def test_old_and_new_trials_are_compared_together(extended: Extended) -> None:
    """By the command that extending has told."""
    (line,) = [x for x in extended.ended.err.splitlines() if "over old and new" in x]
    command = shlex.split(line.partition(": tlbench ")[2])
    told = json.loads(tlbench(extended.folder, *command).out)
    assert told["level"] == 0.9
    (settled,) = told["comparisons"]
    assert (settled["method"], settled["n"]) == ("paired t", 2)


def test_two_runs_are_compared_case_by_case(extended: Extended) -> None:
    ended = tlbench(extended.folder, "compare", "1", "2", "--json")
    assert ended.code == 0, ended.err
    found = json.loads(ended.out)["comparisons"]
    assert len(found) == 2
    assert all(item["differences"] == {} for item in found)


def test_a_budget_is_spent_and_kept(tmp_path: Path) -> None:
    """The run row says how many trials there were in the end."""
    (tmp_path / "slowed.py").write_text(SLOWED)
    suite = slowed_suite(repeats=1, timing={"max_time_s": 0.5, "target": 1e-6})
    (tmp_path / "suite.yaml").write_text(json.dumps(suite))
    ended = tlbench(tmp_path, "run", "suite.yaml", "--budget", "60s", "--json")
    assert ended.code == 0, ended.err
    told = json.loads(ended.out)
    assert told["planned"] == told["finished"] == len(told["trials"]) >= 1
    assert told["budget"]["ended_by"] == "time"
    assert sum(told["budget"]["trials"].values()) == told["finished"]
    first, *_, last = ended.err.splitlines()
    assert first == "suite: 1 min 0 s for 2 cases, results go to results.db"
    assert last.startswith("the budget of 1 min 0 s pays for no further block after ")
