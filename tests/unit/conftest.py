"""A database in a file; tests of the database itself put one of each kind there."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.stored_runs import StoredRuns
from tlbench.db.store import ResultStore


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ResultStore]:
    """An empty database."""
    with ResultStore.open(str(tmp_path / "results.db"), create=True) as store:
        yield store


@pytest.fixture
def runs(store: ResultStore) -> StoredRuns:
    """Runs that go into it."""
    return StoredRuns(store)
