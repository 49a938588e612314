"""Databases to test with: an SQLite file, and PostgreSQL where there is a server."""

import itertools
import tempfile
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from support.postgresql import PostgreSQL, programs
from tlbench.db.store import ResultStore
from tlbench.result import TrialResult
from tlbench.suites.names import parse_model
from tlbench.suites.spec import Case, Suite, Trial

START = datetime(2026, 1, 2, 3, 4, 5, 678_901, tzinfo=UTC)


@pytest.fixture(scope="session")
def postgresql() -> Iterator[Callable[[], str]]:
    """A factory of new, empty databases on a server of our own, without a port."""
    pytest.importorskip("psycopg", reason="psycopg is not installed")
    if programs() is None:
        pytest.skip("no PostgreSQL server is installed")
    with tempfile.TemporaryDirectory(prefix="tlbench-pg-") as name:
        server = PostgreSQL(Path(name), settings="-c fsync=off")
        numbers = itertools.count()
        try:
            yield lambda: server.create(f"results{next(numbers)}")
        finally:
            server.stop()


@pytest.fixture(params=["sqlite", "postgresql"])
def location(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where a database can be created, for each kind of database."""
    if request.param == "sqlite":
        return str(tmp_path / "results.db")
    create: Callable[[], str] = request.getfixturevalue("postgresql")
    return create()


@pytest.fixture
def store(location: str) -> Iterator[ResultStore]:
    with ResultStore.open(location, create=True) as opened:
        yield opened


@pytest.fixture
def case() -> Case:
    return Case(model=parse_model("ViT-Ti/16+TL8@1/2"), mode="infer", batch_size=4)


@pytest.fixture
def begin(case: Case) -> Callable[..., int]:
    """Begin a run of one case."""

    def begin(store: ResultStore, *cases: Case, planned: int = 3) -> int:
        suite = Suite(name="small", cases=cases or (case,), repeats={"infer": 3})
        return store.begin_run(
            suite=suite, source="small.yaml", command="tlbench run", planned=planned
        )

    return begin


@pytest.fixture
def add(case: Case) -> Callable[..., int]:
    """Add a trial that started `position` minutes after START."""

    def add(
        store: ResultStore,
        run_id: int,
        position: int = 0,
        result: TrialResult | None = None,
        of: Case = case,
        wall_time_s: float = 1.5,
    ) -> int:
        return store.add_trial(
            run_id,
            Trial(of, repeat=position, position=position, seed=7 + position),
            result or TrialResult("ok"),
            started_at=START + timedelta(minutes=position),
            wall_time_s=wall_time_s,
            command=f"tlbench run --trial {position}",
        )

    return add
