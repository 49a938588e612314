"""Which trials conditions find, on both databases, checked by walking over all rows."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import select, text, update
from sqlalchemy.orm import Session

from support.long_history import make_history
from support.machine import MACHINE
from support.stored_runs import START, StoredRuns, case, speeds
from tlbench.db import models
from tlbench.db.conditions import parse_conditions
from tlbench.db.search import Search
from tlbench.db.store import ResultStore
from tlbench.errors import ReportError

PLAIN, LEARNED = case(), case("ViT-Ti/16+TL8@1/2")
BF16 = case(precision="bf16", batch_size=16)
H100 = replace(MACHINE, hostname="gpu-01", gpu_name="NVIDIA H100 80GB HBM3")
SPEED, PARAMS = "throughput_samples_per_s", "params"


@dataclass(frozen=True)
class Row:
    """One trial, gathered by walking."""

    id: int
    model: str
    gpu: str | None
    suite: str
    metrics: dict[str, float | None]


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def filled(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ResultStore]:
    """Three runs: on a CPU, on an H100, and on no machine at all."""
    if request.param == "sqlite":
        location = str(tmp_path_factory.mktemp("search") / "results.db")
    else:
        location = request.getfixturevalue("postgresql")()
    with ResultStore.open(location, create=True) as store:
        runs = StoredRuns(store)
        runs.add((PLAIN, [{SPEED: 10.0, PARAMS: 5.7e6}]), (BF16, [{SPEED: 20.0}]))
        of_gpu = (PLAIN, [{SPEED: 900.0, PARAMS: 5.7e6}] * 2), (LEARNED, speeds(1500.0))
        runs.add(*of_gpu, machine=H100, validity={0: "invalid"})
        runs.add((LEARNED, [{}]), machine=None, failed={0: "error"})
        third = update(models.Run).where(models.Run.id == 3)
        with store.transaction() as writing:
            writing.add(models.RunTag(run_id=2, tag="release"))
            writing.execute(third.values(origin="timm"))
        yield store


@pytest.fixture
def session(filled: ResultStore) -> Iterator[Session]:
    with filled.session() as session:
        yield session


def find(session: Session, *words: str) -> list[int]:
    conditions = parse_conditions(*words)
    now = START + timedelta(hours=4)
    return sorted(key.trial for key in Search(session, conditions, now=now).keys)


@pytest.mark.parametrize(
    ("words", "trials"),
    [
        ("", [1, 2, 3, 4, 5, 6]),
        ("precision=bf16", [2]),
        ("precision!=bf16", [1, 3, 4, 5, 6]),
        ("zero_stage=0 batch_size>=16", [2]),
        ("model.token_learner.num_tokens=8", [5, 6]),
        ("token_learner.place=6", [5, 6]),
        ("model~TL", [5, 6]),
        ("model!~TL mode=infer", [1, 2, 3, 4]),
        ("model=ViT-Ti/16 run=2", [3, 4]),
        ("run>1", [3, 4, 5, 6]),
        ("run=1 run=3", [1, 2, 6]),
        ("trial=3 trial=6", [3, 6]),
        ("status=ok", [1, 2, 3, 4, 5]),
        ("status!=ok", [6]),
        ("reason~error", [6]),
        ("validity=invalid", [3]),
        ("validity!=invalid run=2", [4, 5]),
        ("tag=release", [3, 4, 5]),
        ("origin=timm", [6]),
        ("origin=none", [1, 2, 3, 4, 5]),
        ("machine=gpu-01", [3, 4, 5]),
        ("gpu=h100", [3, 4, 5]),
        ("gpu=none", [1, 2, 6]),
        ("gpu!=H100", [1, 2, 6]),
        ("cpu~example machine!=gpu-01", [1, 2]),
        ("torch=2.9.0 commit=0123", [1, 2, 3, 4, 5]),
        (f"case={BF16.identity[:9]}", [2]),
        ("since=2h", [3, 4, 5, 6]),
        ("since=2h until=90min", [3, 4, 5]),
        (f"{SPEED}>15", [2, 3, 4, 5]),
        (f"{SPEED}>15 {SPEED}<1K", [2, 3, 4]),
        (f"{SPEED}=10 {SPEED}=20", [1, 2]),
        (f"{SPEED}!=10", [2, 3, 4, 5]),
        (f"{PARAMS}<100M", [1, 3, 4]),
        (f"{PARAMS}<100M,gpu=H100,validity!=invalid", [4]),
    ],
)
def test_trials_that_meet_all_conditions(
    session: Session, words: str, trials: list[int]
) -> None:
    assert find(session, *words.split()) == trials


def test_the_newest_come_first(session: Session) -> None:
    assert [key.trial for key in Search(session, ()).keys] == [6, 5, 4, 3, 2, 1]


def test_values_stand_beside_their_trials(session: Session) -> None:
    search = Search(session, parse_conditions("run=2"))
    names = ["trial", "run", "tag", "batch_size", "place", "gpu", "started_at", SPEED]
    place = "model.token_learner.place"
    found = search.values([*names[:4], place, *names[5:]], search.keys)
    assert found == {
        "trial": [5, 4, 3],
        "run": [2, 2, 2],
        "tag": ["release"] * 3,
        "batch_size": [8, 8, 8],
        place: [6, None, None],
        "gpu": [H100.gpu_name] * 3,
        "started_at": [START + timedelta(hours=2)] * 3,
        SPEED: [1500.0, 900.0, 900.0],
    }


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("precision=fp61", "no stored trial has precision=fp61; there are fp32, bf16$"),
        ("run=9", "no stored trial has run=9; there are 1, 2, 3$"),
        ("run=1 model~TL", "no stored trial has model~TL; there are ViT-Ti/16$"),
        ("gpu=A100", "has gpu=A100; there are none, NVIDIA H100 80GB HBM3"),
        ("mfu>0.5", "no stored trial has mfu>0.5; there is no value of it$"),
        (f"{SPEED}>5K", f"has {SPEED}>5K; there are values from 10 to 1500$"),
        ("since=1min", "has since=1min; there are trials from 2026-01-02 .* to 2026"),
        ("mode=fit mode=train", "has mode=fit or mode=train; there are infer$"),
        ("precision=bf16 gpu=H100", "no stored trial meets all of it at once"),
    ],
)
def test_what_nothing_meets_is_named_with_what_there_is(
    session: Session, words: str, message: str
) -> None:
    conditions = parse_conditions(*words.split())
    search = Search(session, conditions, now=START + timedelta(hours=4))
    assert not search.keys
    with pytest.raises(AssertionError, match=message):
        raise AssertionError(search.why_nothing())


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("precison=fp32", "'precison' is no setting .*; did you mean 'precision'"),
        ("throughput_sample_per_s>1", "did you mean 'throughput_samples_per_s'"),
        ("zero_stag=1", "did you mean 'zero_stage'"),
        ("kin=fixed", "did you mean 'kind'"),
        ("since>30d", "since>30d is not understood; since=30d, since=2026-01-31"),
        (f"{SPEED}~1", "a number has no parts"),
        (f"{SPEED}>fast", "'fast' is not understood as a value"),
    ],
)
def test_what_makes_no_sense_is_an_error(
    session: Session, word: str, message: str
) -> None:
    with pytest.raises(ReportError, match=message):
        find(session, word)


def test_a_short_name_of_several_settings_is_refused(store: ResultStore) -> None:
    builder = case("ViT-Ti/16+random(keep=8,place=6)")
    StoredRuns(store).add((LEARNED, [{}]), (builder, [{}]))
    with (
        store.session() as session,
        pytest.raises(
            ReportError, match=r"'place' may be .*options.place or .*learner"
        ),
    ):
        find(session, "place=6")


def test_an_empty_database_says_so_whatever_is_asked(store: ResultStore) -> None:
    with store.session() as session:
        search = Search(session, parse_conditions("params<100M,zero_stage=3"))
        assert search.keys == []
        assert search.why_nothing().startswith("the database holds no trial yet")


@pytest.mark.parametrize(
    ("words", "is_wanted"),
    [
        ("gpu=A100", lambda row: "A100" in (row.gpu or "")),
        (
            "model~TL8 suite=memory",
            lambda row: "TL8" in row.model and row.suite == "memory",
        ),
        ("params<20M", lambda row: row.metrics.get("params", 1e9) < 20e6),
        ("mfu>=0.2", lambda row: (row.metrics.get("mfu") or 0) >= 0.2),
    ],
)
def test_a_long_history_is_searched_as_by_walking_over_it(
    tmp_path: Path, words: str, is_wanted: Callable[[Row], bool]
) -> None:
    make_history(str(tmp_path / "h.db"), trials=300, runs=12, metrics_per_trial=70)
    with (
        ResultStore.open(str(tmp_path / "h.db"), read_only=True) as store,
        store.session() as session,
    ):
        wanted = sorted(row.id for row in walk(session) if is_wanted(row))
        assert wanted
        assert find(session, *words.split()) == wanted


def walk(session: Session) -> Iterator[Row]:
    """Every trial with what belongs to it, row by row."""
    for trial in session.scalars(select(models.Trial)):
        machine = session.get(models.Machine, trial.machine_id)
        run = session.get_one(models.Run, trial.run_id)
        metrics = session.execute(
            select(models.Metric.name, models.Metric.value).filter_by(trial_id=trial.id)
        )
        yield Row(
            id=trial.id,
            model=trial.model,
            gpu=machine.gpu_name if machine else None,
            suite=run.suite,
            metrics={row.name: row.value for row in metrics},
        )


def test_metrics_are_found_by_their_index_alone(tmp_path: Path) -> None:
    """Neither a condition nor a column of values reads the rows of the table."""
    make_history(str(tmp_path / "h.db"), trials=50, runs=5, metrics_per_trial=70)
    statements = (
        "SELECT trial_id FROM metric WHERE name = 'params' AND rank = -1 AND value < 1",
        "SELECT trial_id, name, value FROM metric WHERE name IN ('params', 'macs')"
        " AND rank = -1 AND trial_id IN (1, 2)",
    )
    with (
        ResultStore.open(str(tmp_path / "h.db"), read_only=True) as store,
        store.session() as session,
    ):
        for statement in statements:
            plan = session.execute(text(f"EXPLAIN QUERY PLAN {statement}")).all()
            assert "USING COVERING INDEX ix_metric_name_rank" in str(plan)
