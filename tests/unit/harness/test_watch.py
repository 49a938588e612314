"""Watching runs: what is seen of them, and a database that is away meanwhile."""

import io
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from rich.console import Console

from support.stored_runs import START, StoredRuns, case, speeds
from tlbench.db import query
from tlbench.db.recent import RecentTrials, recent_trials
from tlbench.db.store import ResultStore
from tlbench.errors import StoreAwayError, StoreError
from tlbench.watch import Sight, watch


@pytest.fixture
def sight(tmp_path: Path) -> Sight:
    """A run that has ended, and one of which 3 of 6 trials are stored."""
    with ResultStore.open(str(tmp_path / "results.db"), create=True) as store:
        made = StoredRuns(store)
        made.add((case(), speeds(1, 2)))
        going_on = made.add((case(), speeds(1, 2, 3)), failed={2: "lost"})
        with store.session() as session:
            runs = query.runs(session, limit=5)
            recent = recent_trials(session, [going_on])
    first, *others = runs
    assert first.id == going_on
    running = query.RunRecord(
        **{**vars(first), "status": "running", "ended_at": None, "planned": 6}
    )
    stretched = RecentTrials(
        n=recent[going_on].n,
        began_at=START,
        ended_at=START + timedelta(minutes=1),
        last_model=recent[going_on].last_model,
        last_status=recent[going_on].last_status,
    )
    return Sight(
        [running, *others], {going_on: stretched}, START + timedelta(minutes=2)
    )


def pipe() -> Console:
    return Console(file=io.StringIO(), width=160, highlight=False)


def terminal() -> Console:
    return Console(
        file=io.StringIO(), width=160, height=30, force_terminal=True, color_system=None
    )


def text(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_a_run_that_goes_on_has_its_pace_and_the_time_left(sight: Sight) -> None:
    console = pipe()
    watch(lambda: sight, 2.0, console)
    _, going_on, ended = text(console).splitlines()
    assert going_on.split()[:5] == ["2", "made", "running", "3/6", "1"]
    assert "ViT-Ti/16: lost, 1 min 0 s ago" in going_on
    assert going_on.split()[-5:] == ["3.00", "1", "min", "0", "s"]
    assert ended.split()[:5] == ["1", "made", "finished", "2/2", "0"]


def test_the_pace_is_that_of_the_last_trials(tmp_path: Path) -> None:
    with ResultStore.open(str(tmp_path / "results.db"), create=True) as store:
        run_id = StoredRuns(store).add(
            (case(), speeds(1, 2, 3)), failed={2: "oom"}, wall_time_s=30.0
        )
        with store.session() as session:
            (recent,) = recent_trials(session, [run_id, 99], window=2).values()
    # All began at one moment, as over a cluster.
    assert recent.rate_per_s == 2 / 30
    assert recent.last_status == "oom"


def looks(*outcomes: Sight | Exception) -> Callable[[], Sight]:
    left = iter(outcomes)

    def look() -> Sight:
        found = next(left, KeyboardInterrupt())
        if isinstance(found, BaseException):
            raise found
        return found

    return look


def test_a_database_that_is_away_for_a_moment_is_told(
    sight: Sight, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited: list[float] = []
    monkeypatch.setattr("tlbench.watch.time.sleep", waited.append)
    console = terminal()
    away = StoreAwayError("results.db: no connection")
    watch(looks(sight, away, sight), 5.0, console)
    assert waited == [5.0, 5.0, 5.0]
    before, _, after = text(console).partition("cannot be read now: results.db: no c")
    assert "3/6" in before
    assert "Ctrl-C ends this" in after


def test_a_database_that_cannot_be_read_at_first_is_an_error() -> None:
    with pytest.raises(StoreError, match="there is no database x"):
        watch(looks(StoreError("there is no database x")), 2.0, terminal())
