"""Runs to report on, made up or stored."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.report_run import RunBuilder, smoke_run
from support.stored_runs import StoredRuns
from tlbench.db.store import ResultStore


@pytest.fixture
def run() -> RunBuilder:
    """A run without any trial."""
    return RunBuilder()


@pytest.fixture
def smoke() -> RunBuilder:
    """Three models, timed and trained three times each."""
    return smoke_run()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ResultStore]:
    """An empty database."""
    with ResultStore.open(str(tmp_path / "results.db"), create=True) as store:
        yield store


@pytest.fixture
def runs(store: ResultStore) -> StoredRuns:
    """Runs that go into it."""
    return StoredRuns(store)
