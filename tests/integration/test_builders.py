"""Builders on a local Ray: a user's file reaches workers that cannot see its folder."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tlbench.db import query
from tlbench.db.query import RunRecord, TrialRecord
from tlbench.db.store import ResultStore
from tlbench.suites.spec import Suite

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

TLBENCH = Path(sys.executable).parent / "tlbench"
TIMEOUT_S = 240

TINY = {
    "image_size": 16,
    "patch_size": 4,
    "embed_dim": 16,
    "depth": 2,
    "num_heads": 2,
    "mlp_dim": 32,
}
BUILDERS = """\
from torch import nn


class First(nn.Module):
    def __init__(self, keep):
        super().__init__()
        self.keep = keep

    def forward(self, x):
        return x[:, : self.keep]


def build(model, keep):
    model.blocks.insert(1, First(keep))
    return model


def looks(model):
    inner = model.forward

    def forward(x):
        return inner(x) if x.sum() < 1e9 else None

    model.forward = forward
    return model


def fail(model):
    raise LookupError("no checkpoint here")
"""


def entry(function: str, *, is_own: bool = False, **options: int) -> dict[str, Any]:
    file = {} if is_own else {"file": "my_models.py"}
    return {**TINY, "builder": {"function": function, "options": options, **file}}


class Ended(NamedTuple):
    """A run that is over, with what it stored."""

    folder: Path
    process: subprocess.CompletedProcess[str]
    record: RunRecord
    trials: list[TrialRecord]

    def trial(self, function: str | None, mode: str) -> TrialRecord:
        (found,) = (
            trial
            for trial in self.trials
            if trial.case.mode == mode
            and function
            == (trial.case.model.builder and trial.case.model.builder.function)
        )
        return found


def run(
    folder: Path, *arguments: str, stdin: str | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [TLBENCH, *arguments],
        cwd=folder,
        env=os.environ | {"TLBENCH_DB": "results.db"},
        input=stdin,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
    )


def read(folder: Path) -> tuple[RunRecord, list[TrialRecord]]:
    """The newest run, and its trials."""
    with (
        ResultStore.open(str(folder / "results.db"), read_only=True) as store,
        store.session() as session,
    ):
        record = query.runs(session)[0]
        return record, query.trials(session, [record.id])


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> Ended:
    """A suite in a folder of its own, run from the folder beside it."""
    base = tmp_path_factory.mktemp("builders")
    suites, here = base / "suites", base / "here"
    for folder in (suites, here):
        folder.mkdir()
    (suites / "my_models.py").write_text(BUILDERS)
    # What a worker would find, if it looked in the folder of the command.
    (here / "my_models.py").write_text("raise ImportError('the wrong file')")
    suite = {
        "models": [TINY, entry("build", keep=4), entry("looks"), entry("fail")],
        "data": "digits",
        "repeats": 1,
        "timing": {"max_time_s": 0.3},
        "include": [
            {"mode": "infer"},
            {"mode": "train", "models": [entry("build", keep=4), entry("fail")]},
            {
                "mode": ["profile", "train"],
                "models": [
                    entry("tome", is_own=True, r=3),
                    entry("random", is_own=True, keep=5, place=1),
                    entry("stride", is_own=True, step=2, place=1),
                    entry("fixed", is_own=True, tokens=4, place=1),
                ],
            },
            {"mode": "profile", "models": [entry("build", keep=4), entry("looks")]},
        ],
    }
    (suites / "suite.yaml").write_text(json.dumps(suite))
    process = run(here, "run", "../suites/suite.yaml", "--report", "report.html")
    return Ended(here, process, *read(here))


def test_all_but_the_builder_that_raises_complete(ended: Ended) -> None:
    assert ended.process.returncode == 3, ended.process.stderr
    assert ended.record.status == "finished"
    failed = [trial.model for trial in ended.trials if trial.status != "ok"]
    assert failed == ["ViT-d16h2m32l2/4@16+my_models.py:fail"] * 2
    assert len(ended.trials) == 16


@pytest.mark.parametrize("mode", ["infer", "train"])
def test_a_builder_that_raises_is_an_error_with_the_users_line(
    ended: Ended, mode: str
) -> None:
    trial = ended.trial("fail", mode)
    assert trial.status == "error"
    assert trial.reason == "LookupError: no checkpoint here"
    assert trial.traceback is not None
    line = (
        BUILDERS.splitlines().index('    raise LookupError("no checkpoint here")') + 1
    )
    assert (
        f'File "my_models.py", line {line}, in fail\n    raise LookupError('
        in trial.traceback
    )
    assert trial.reasons["macs"] == (
        f"cannot be built on the meta device: my_models.py:{line}: LookupError:"
        " no checkpoint here"
    )


def test_a_users_builder_changes_what_is_measured(ended: Ended) -> None:
    plain = ended.trial(None, "infer").metrics
    fewer = ended.trial("build", "infer").metrics
    assert fewer["params"] == plain["params"]
    # Of two blocks the second sees 4 of 16 tokens.
    projections, scores = 4 * 16 * 16 + 2 * 16 * 32, 2 * 16
    saved = (16 - 4) * projections + (16**2 - 4**2) * scores
    assert plain["macs"] is not None
    assert fewer["macs"] == plain["macs"] - saved
    assert fewer["throughput_samples_per_s"] is not None


def test_a_model_that_looks_at_values_runs_without_a_count(ended: Ended) -> None:
    for mode in ("infer", "profile"):
        trial = ended.trial("looks", mode)
        assert trial.metrics["params"] == ended.trial(None, "infer").metrics["params"]
        assert trial.metrics["macs"] is None
        assert trial.reasons["macs"].startswith("cannot be run on the meta device: my_")


@pytest.mark.parametrize("function", ["tome", "random", "stride", "fixed"])
def test_opponents_train_under_deepspeed(ended: Ended, function: str) -> None:
    metrics = ended.trial(function, "train").metrics
    profiled = ended.trial(function, "profile").metrics
    assert metrics["loss"] is not None
    assert 0 < metrics["loss"] < 2.31  # ln 10: the classifier starts at zero
    assert metrics["macs"] == profiled["macs"] is not None
    assert metrics["train_flops"] == profiled["train_flops"] is not None


def test_the_file_is_stored_with_the_run(ended: Ended) -> None:
    suite = Suite.model_validate_json(json.dumps(ended.record.suite_json))
    assert suite.sources == {"my_models.py": BUILDERS}
    assert {case.identity for case in suite.cases} == {
        trial.identity for trial in ended.trials
    }


def test_the_report_shows_the_builders(ended: Ended) -> None:
    page = (ended.folder / "report.html").read_text()
    assert "my_models.py:build(keep=4)" in page
    assert "tome(r=3)" in page


def test_the_stored_command_repeats_the_trial_of_a_users_builder(
    ended: Ended, tmp_path: Path
) -> None:
    original = ended.trial("build", "infer")
    suite = original.command.split("'")[1]
    (tmp_path / "my_models.py").write_text(BUILDERS)
    again = run(tmp_path, "run", "-", stdin=suite)
    assert again.returncode == 0, again.stderr
    _, (trial,) = read(tmp_path)
    assert trial.identity == original.identity
    assert trial.metrics["macs"] == original.metrics["macs"]


def test_a_suite_with_a_wrong_builder_starts_nothing(tmp_path: Path) -> None:
    (tmp_path / "my_models.py").write_text(BUILDERS)
    (tmp_path / "suite.yaml").write_text("{models: my_models.py:biuld, mode: infer}")
    process = run(tmp_path, "run", "suite.yaml")
    assert process.returncode == 2
    assert process.stderr == (
        "error: suite.yaml:1: models: 'ViT-B/16+my_models.py:biuld' cannot be built:"
        " my_models.py defines no function 'biuld' at its top level;"
        " did you mean 'build'?\n"
    )
    assert not (tmp_path / "results.db").exists()
