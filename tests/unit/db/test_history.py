"""What all runs have of a metric, in a database of each kind of run."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.machine import MACHINE
from support.stored_runs import THROUGHPUT, StoredRuns, case, speeds
from tlbench.db.history import (
    known_cases,
    readings,
    run_moments,
)
from tlbench.db.store import ResultStore

PLAIN, LEARNED = case(), case("ViT-Ti/16+TL8@6")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ResultStore]:
    with ResultStore.open(str(tmp_path / "results.db"), create=True) as store:
        yield store


def test_cases_are_known_in_each_run_newest_first(
    store: ResultStore, runs: StoredRuns
) -> None:
    runs.add((PLAIN, speeds(100.0, 110.0)))
    runs.add((LEARNED, speeds(150.0)), (PLAIN, speeds(90.0)))
    with store.session() as session:
        known = known_cases(session)
    assert [(c.run_id, c.model, c.identity) for c in known] == [
        (2, "ViT-Ti/16+TL8@6", LEARNED.identity),
        (2, "ViT-Ti/16", PLAIN.identity),
        (1, "ViT-Ti/16", PLAIN.identity),
    ]
    assert known[0].canonical == LEARNED.canonical()
    assert {c.origin for c in known} == {None}


def test_readings_hold_the_metric_of_every_trial_measured_or_not(
    store: ResultStore, runs: StoredRuns
) -> None:
    runs.add(
        (PLAIN, speeds(100.0, 110.0, 120.0)),
        failed={1: "oom"},
        validity={2: "invalid"},
    )
    runs.add((PLAIN, [{"macs": 1e9}]), machine=None)
    with store.session() as session:
        found = readings(session, [PLAIN.identity], [THROUGHPUT])
    assert [(r.run_id, r.status, r.validity, r.metric, r.value) for r in found] == [
        (1, "ok", None, THROUGHPUT, 100.0),
        (1, "oom", None, None, None),
        (1, "ok", "invalid", THROUGHPUT, 120.0),
        (2, "ok", None, None, None),
    ]
    assert found[0].machine_id is not None
    assert found[-1].machine_id is None


def test_runs_are_told_oldest_first_and_from_a_moment_on(
    store: ResultStore, runs: StoredRuns
) -> None:
    first, second = (runs.add((PLAIN, speeds(1.0)), machine=MACHINE) for _ in range(2))
    with store.session() as session:
        told = run_moments(session)
        late = run_moments(session, told[second].started_at)
    assert [*told] == [first, second]
    assert [*late] == [second]
