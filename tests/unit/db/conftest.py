"""Databases to test with: an SQLite file, and PostgreSQL where there is a server."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tlbench.db.store import ResultStore
from tlbench.result import TrialResult
from tlbench.suites.names import parse_model
from tlbench.suites.spec import Case, Suite, Trial

NOBODY = 65_534
"""PostgreSQL refuses to be run by root."""
START = datetime(2026, 1, 2, 3, 4, 5, 678_901, tzinfo=UTC)


def _postgresql_folder() -> Path:
    """Where the server's programs are; Debian keeps them off the PATH."""
    pytest.importorskip("psycopg", reason="psycopg is not installed")
    on_path = shutil.which("initdb")
    if on_path:
        return Path(on_path).resolve().parent
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    if not folders:
        pytest.skip("no PostgreSQL server is installed")
    return folders[-1]


@pytest.fixture(scope="session")
def postgresql() -> Iterator[Callable[[], str]]:
    """A factory of new, empty databases on a server of our own, without a port."""
    programs = _postgresql_folder()
    user = NOBODY if os.getuid() == 0 else None

    def call(program: str, *arguments: str | Path) -> None:
        command = (programs / program, *arguments)
        # The server keeps what it inherits, so its output must not be a pipe of ours.
        with (folder / "log").open("ab") as log:
            subprocess.run(
                command, check=True, user=user, cwd=folder, stdout=log, stderr=log
            )

    with tempfile.TemporaryDirectory(prefix="tlbench-pg-") as name:
        folder = Path(name)
        if user is not None:
            os.chown(folder, user, -1)
        data = folder / "data"
        call("initdb", "-D", data, "-U", "tlbench", "--auth=trust", "--no-sync")
        settings = f"-k {folder} -c listen_addresses='' -c fsync=off"
        call("pg_ctl", "-D", data, "-o", settings, "-l", folder / "server", "start")
        made: list[str] = []

        def create() -> str:
            made.append(f"results{len(made)}")
            call("createdb", "-h", folder, "-U", "tlbench", made[-1])
            return f"postgresql://tlbench@/{made[-1]}?host={folder}"

        try:
            yield create
        finally:
            call("pg_ctl", "-D", data, "-m", "immediate", "stop")


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
