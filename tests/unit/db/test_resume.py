"""Going on with a run whose driver is gone: who may, and what is left to do."""

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from support.postgresql import PostgreSQL, programs
from tlbench.db import models, query
from tlbench.db.connection import Location
from tlbench.db.merge import merge
from tlbench.db.patience import patiently
from tlbench.db.resume import LEASE_S, resume_run
from tlbench.db.store import ResultStore
from tlbench.driver import Driver
from tlbench.errors import StoreAwayError, StoreError
from tlbench.events import Finished
from tlbench.plan import order_trials
from tlbench.result import Metric, Status, TrialResult
from tlbench.suites.model_spec import BuilderSpec
from tlbench.suites.names import parse_model
from tlbench.suites.spec import Case, Suite, Trial

BUILDER = BuilderSpec(function="build", file="my.py", sha256="5", options={"keep": 4})
MODELS = (
    parse_model("ViT-Ti/16"),
    parse_model("ViT-S/16").model_copy(update={"builder": BUILDER}),
)
CASES = tuple(Case(model=model, mode="infer") for model in MODELS)
SUITE = Suite(
    name="two",
    cases=CASES,
    repeats={"infer": 3},
    seed=5,
    sources={"my.py": "def build(spec, keep): ..."},
)
PLAN = order_trials(SUITE)
START = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
LOST: set[Status] = {"lost"}
HERE = Driver.here()
GONE = replace(HERE, uid="0" * 32, started_at=1.0)
"""A process that had our number once."""
ELSEWHERE = replace(HERE, uid="1" * 32, host="elsewhere", pid=7)


def begin(store: ResultStore, driver: Driver = GONE) -> int:
    return store.begin_run(
        suite=SUITE,
        source="two.yaml",
        command="tlbench run two.yaml",
        planned=len(PLAN),
        plan=PLAN,
        driver=driver,
    )


def add(store: ResultStore, run_id: int, trial: Trial, status: Status = "ok") -> int:
    result = TrialResult("ok", metrics=(Metric("loss", 1.5),))
    if status != "ok":
        result = TrialResult(status, "a reason")
    return store.add_trial(
        run_id,
        trial,
        result,
        started_at=START + timedelta(minutes=trial.position),
        wall_time_s=1.5,
        command="",
        attempts=2,
        nodes=("a (10.0.0.1)",),
    )


def finished(trial: Trial, attempt: int) -> Finished:
    result = TrialResult("lost", "its process died")
    return Finished(trial, result, START, 2.5, attempt, nodes=("a (10.0.0.1)",))


def test_only_what_is_missing_is_left(store: ResultStore) -> None:
    run_id = begin(store)
    for position in (0, 1, 4):
        add(store, run_id, PLAN[position])
    resumed = resume_run(store, run_id, HERE, LOST)
    assert resumed.suite == SUITE
    assert (resumed.run_id, resumed.planned, resumed.source) == (run_id, 6, "two.yaml")
    assert [
        (p.case, p.repeat, p.position, p.seed, p.attempts) for p in resumed.missing
    ] == [(PLAN[k].case, PLAN[k].repeat, k, PLAN[k].seed, 0) for k in (2, 3, 5)]
    with store.session() as session:
        run = query.run(session, run_id)
    assert (run.status, run.driver, run.ended_at) == ("running", HERE, None)


def test_a_lost_trial_becomes_an_attempt_and_is_missing(store: ResultStore) -> None:
    run_id = begin(store)
    store.add_attempt(run_id, finished(PLAN[0], 1))
    add(store, run_id, PLAN[0], "lost")
    add(store, run_id, PLAN[1], "oom")
    store.add_attempt(run_id, finished(PLAN[2], 1))
    (first, second, *rest) = resume_run(store, run_id, HERE, LOST).missing
    assert [(p.position, p.attempts) for p in (first, second)] == [(0, 2), (2, 1)]
    assert [p.position for p in rest] == [3, 4, 5]
    with store.session() as session:
        assert [t.status for t in query.trials(session, [run_id])] == ["oom"]
        of_first = query.attempts(session, run_id, position=0)
    assert [(a.number, a.status, a.nodes) for a in of_first] == [
        (1, "lost", ("a (10.0.0.1)",)),
        (2, "lost", ("a (10.0.0.1)",)),
    ]


def test_a_whole_run_is_left_as_it_is(store: ResultStore) -> None:
    run_id = begin(store)
    for trial in PLAN:
        add(store, run_id, trial)
    store.end_run(run_id, "finished")
    assert resume_run(store, run_id, HERE, LOST).missing == ()
    with store.session() as session:
        assert query.run(session, run_id).status == "finished"
    with pytest.raises(StoreError, match="no run lacks a trial"):
        resume_run(store, None, HERE, LOST)


def test_without_a_number_the_newest_that_lacks_something_goes_on(
    store: ResultStore,
) -> None:
    first, second = begin(store), begin(store)
    third = begin(store)
    for trial in PLAN:
        add(store, third, trial)
    assert resume_run(store, None, HERE, LOST).run_id == second
    assert first != second


@pytest.mark.parametrize(
    ("driver", "silent_s", "told"),
    [
        (HERE, 3 * LEASE_S, rf"goes on: process {HERE.pid} on \S+ is at work on it"),
        (ELSEWHERE, 3.0, r"may go on: process 7 on elsewhere was heard of 3 s ago"),
        (ELSEWHERE, LEASE_S + 1, None),
        (GONE, 0.0, None),
    ],
)
def test_a_run_whose_driver_may_live_is_left_to_it(
    store: ResultStore, driver: Driver, silent_s: float, told: str | None
) -> None:
    run_id = begin(store, driver)
    with store.transaction() as session:
        heard = datetime.now(UTC) - timedelta(seconds=silent_s)
        session.get_one(models.Run, run_id).beat_at = heard
    if told is None:
        assert len(resume_run(store, run_id, Driver.here(), LOST).missing) == 6
        return
    with pytest.raises(StoreError, match=told):
        resume_run(store, run_id, Driver.here(), LOST)


def test_a_run_without_a_stored_plan_is_refused(store: ResultStore) -> None:
    run_id = store.begin_run(
        suite=SUITE, source="two.yaml", command="", planned=6, driver=GONE
    )
    with pytest.raises(StoreError, match="its plan is not known"):
        resume_run(store, run_id, HERE, LOST)


def test_an_unknown_run_is_told_with_those_that_there_are(store: ResultStore) -> None:
    begin(store)
    with pytest.raises(StoreError, match="there is no run 7; there are 1"):
        resume_run(store, 7, HERE, LOST)


def test_a_driver_that_was_taken_for_gone_can_write_no_more(location: str) -> None:
    with (
        ResultStore.open(location, create=True) as suspended,
        ResultStore.open(location) as other,
    ):
        run_id = begin(suspended)
        resume_run(other, run_id, HERE, LOST)
        told = f"run {run_id} was taken over by process {HERE.pid} on"
        for write in (
            lambda: add(suspended, run_id, PLAN[0]),
            lambda: suspended.add_attempt(run_id, finished(PLAN[0], 1)),
            lambda: suspended.beat(run_id),
            lambda: suspended.end_run(run_id, "finished"),
        ):
            with pytest.raises(StoreError, match=told):
                write()
        add(other, run_id, PLAN[0])


def test_an_attempt_is_stored_once(store: ResultStore) -> None:
    run_id = begin(store)
    for _ in range(2):
        store.add_attempt(run_id, finished(PLAN[3], 1))
    with store.session() as session:
        (attempt,) = query.attempts(session, run_id)
    assert (attempt.position, attempt.reason) == (3, "its process died")


RACE = """
import sys, time
from tlbench.db.resume import resume_run
from tlbench.db.store import ResultStore
from tlbench.driver import Driver
from tlbench.errors import StoreError
with ResultStore.open(sys.argv[1]) as store:
    print("ready", flush=True)
    sys.stdin.readline()
    try:
        resume_run(store, 1, Driver.here(), {"lost"})
    except StoreError as error:
        print("refused", error, flush=True)
    else:
        print("resumed", flush=True)
    sys.stdin.readline()
"""


def test_of_many_that_resume_at_once_one_does(location: str) -> None:
    with ResultStore.open(location, create=True) as store:
        begin(store)
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", RACE, location],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(4)
    ]
    answers = []
    for racer in racers:
        assert racer.stdout is not None
        assert racer.stdout.readline() == "ready\n"
    for racer in racers:
        assert racer.stdin is not None
        racer.stdin.write("go\n")
        racer.stdin.flush()
    for racer in racers:
        assert racer.stdout is not None
        answers.append(racer.stdout.readline().split()[0])
    for racer in racers:
        racer.communicate("\n", timeout=60)
    assert sorted(answers) == ["refused"] * 3 + ["resumed"]


def test_a_merge_takes_over_what_ran_again(tmp_path: Path) -> None:
    """And its attempts; whichever database comes first."""
    places = [str(tmp_path / name) for name in ("here.db", "there.db")]
    with (
        ResultStore.open(places[0], create=True) as here,
        ResultStore.open(places[1], create=True) as there,
    ):
        run_id = begin(here)
        add(here, run_id, PLAN[0], "lost")
        merge(here, there)
        resume_run(here, run_id, HERE, LOST)
        again = replace(finished(PLAN[0], 3), result=TrialResult("ok"))
        here.add_trial(
            run_id,
            again.trial,
            again.result,
            started_at=again.started_at,
            wall_time_s=again.wall_time_s,
            command="",
            attempts=again.attempt,
        )
        for _ in range(2):
            merge(here, there)
        with there.session() as session:
            (trial,) = query.trials(session, [1])
            attempts = query.attempts(session, 1)
        assert (trial.status, trial.attempts) == ("ok", 3)
        assert [a.number for a in attempts] == [2]


# ---------------------------------------------------------------- patience


@pytest.fixture
def server() -> Iterator[PostgreSQL]:
    """A server of the test's own, which may be killed."""
    pytest.importorskip("psycopg", reason="psycopg is not installed")
    if programs() is None:
        pytest.skip("no PostgreSQL server is installed")
    with tempfile.TemporaryDirectory(prefix="tlbench-pg-") as name:
        one = PostgreSQL(Path(name))
        yield one
        one.stop()


def drain(write: Callable[[], int], meanwhile: Callable[[], object]) -> list[str]:
    """Write patiently; `meanwhile` is called at the first reason for a delay."""
    told = []
    for reason in patiently(write, limit_s=60):
        told.append(reason)
        if len(told) == 1:
            meanwhile()
    return told


def test_a_server_that_was_killed_loses_nothing_once_it_is_back(
    server: PostgreSQL,
) -> None:
    with ResultStore.open(server.create("results"), create=True) as store:
        run_id = begin(store, HERE)
        add(store, run_id, PLAN[0])
        server.kill()
        time.sleep(0.5)  # until its other processes have noticed
        told = drain(lambda: add(store, run_id, PLAN[1]), server.start)
        assert told
        with store.session() as session:
            assert len(query.trials(session, [run_id])) == 2


def test_an_answer_that_was_lost_stores_nothing_twice(server: PostgreSQL) -> None:
    """The server dies between the commit and its answer."""
    with ResultStore.open(server.create("results"), create=True) as store:
        run_id = begin(store, HERE)
        answers: list[Callable[[], None]] = [server.kill]

        def write() -> int:
            trial_id = add(store, run_id, PLAN[0])
            if answers:
                answers.pop()()
                raise StoreAwayError("the connection was lost")
            return trial_id

        drain(write, server.start)
        with store.session() as session:
            (trial,) = query.trials(session, [run_id])
        assert trial.metrics == {"loss": 1.5}


def test_a_locked_file_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tlbench.db.connection.BUSY_TIMEOUT_S", 0.1)
    location = str(tmp_path / "results.db")
    with ResultStore.open(location, create=True) as store:
        run_id = begin(store, HERE)
        other = Location.parse(location).engine("write").connect()
        other.exec_driver_sql("ROLLBACK")
        other.exec_driver_sql("BEGIN IMMEDIATE")
        told = drain(lambda: add(store, run_id, PLAN[0]), other.close)
        assert told == [f"{location}: another process keeps it locked"]


def test_patience_has_an_end() -> None:
    def fail() -> int:
        raise StoreAwayError("it is away")

    tries = patiently(fail, limit_s=0.0)
    with pytest.raises(StoreAwayError, match="it is away"):
        next(tries)
