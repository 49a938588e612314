"""`tlbench claims`: with and without runs, for people and for programs."""

import json
from pathlib import Path

import pytest

from support.stored_runs import StoredRuns, case, speeds
from tlbench.cli.claims import claims
from tlbench.db.store import ResultStore
from tlbench.errors import StoreError


@pytest.fixture
def db(tmp_path: Path) -> str:
    """One run in which TokenLearner at 3/4 is 1.3 times as fast."""
    file = str(tmp_path / "results.db")
    with ResultStore.open(file, create=True) as store:
        StoredRuns(store).add(
            (case("ViT-B/16"), speeds(100.0, 101.0, 102.0)),
            (case("ViT-B/16+TL8v1@9"), speeds(130.0, 131.0, 132.4)),
        )
    return file


def test_without_runs_no_database_is_needed(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    claims(db=str(tmp_path / "not-there.db"))
    lines = capsys.readouterr().out.splitlines()
    assert sum(line.startswith("C") for line in lines) == 21
    assert "C1: reproduced" in lines
    assert lines[-1].startswith("Of 21 claims: ")


def test_the_runs_of_a_database_are_judged(
    capsys: pytest.CaptureFixture[str], db: str
) -> None:
    claims([1], db=db, as_json=True)
    (faster,) = (
        ground
        for item in json.loads(capsys.readouterr().out)
        if item["claim"] == "C10"
        for ground in item["grounds"]
        if ground["ground"] == "measured"
    )
    assert faster["verdict"] == "reproduced"
    (number,) = faster["numbers"]
    low, high = number["interval"]
    assert 1.29 < low < number["here"] < high < 1.31


def test_a_run_that_is_not_there_is_named_with_those_that_are(db: str) -> None:
    with pytest.raises(StoreError, match="no run 9; there are 1"):
        claims([9], db=db)
