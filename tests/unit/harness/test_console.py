"""What a run looks like: plain lines in a pipe, a live table on a terminal."""

import io
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from rich.console import Console

from support import stored_runs
from tlbench import console as module
from tlbench.budget import Budget
from tlbench.cluster import Finished
from tlbench.console import (
    Pace,
    comparison_parts,
    follow,
    make_console,
    make_table,
    outcome,
)
from tlbench.db.store import ResultStore
from tlbench.plan import forecast
from tlbench.reports.gate import Answer, Question, compare
from tlbench.reports.selection import parse_selection
from tlbench.reports.verdicts import TIMES
from tlbench.result import Metric, Status, TrialResult
from tlbench.runner import Stored
from tlbench.suites.names import parse_model
from tlbench.suites.spec import Case, Mode, Suite, Trial
from tlbench.units import format_duration

NOW = datetime(2026, 1, 2, tzinfo=UTC)
MODELS = ("ViT-B/16", "ViT-L/10[35]@512+TL16@18", "ViT-Ti/16")
EXPECTED_S = (10.0, 20.0, 30.0)
CASES = tuple(Case(model=parse_model(name), mode="infer") for name in MODELS)
TRIALS = tuple(
    Trial(case, repeat=0, position=position, seed=0)
    for position, case in enumerate(CASES)
)
OK = TrialResult("ok", metrics=(Metric("throughput_samples_per_s", 123.4),))


class FakeTime:
    """A clock that is put forward by hand."""

    def __init__(self) -> None:
        self.now = 1000.0

    def perf_counter(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> FakeTime:
    clock = FakeTime()
    monkeypatch.setattr(module, "time", clock)
    return clock


@pytest.fixture
def pace(clock: FakeTime) -> Pace:
    suite = Suite(name="three", cases=CASES, repeats={"infer": 1})
    history = {
        case.identity: [expected]
        for case, expected in zip(CASES, EXPECTED_S, strict=True)
    }
    return Pace(TRIALS, forecast(suite, history, 1e9))


def run(clock: FakeTime, *results: TrialResult, took: float = 2.0) -> Iterator[Stored]:
    """The first trials with these results, each after twice the time expected."""
    for trial, expected, result in zip(TRIALS, EXPECTED_S, results, strict=False):
        clock.now += 2 * expected
        finished = Finished(trial, result, NOW, took)
        yield Stored(1, trial.position + 1, finished)


def shown(console: Console) -> list[str]:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


def pipe() -> Console:
    return Console(file=io.StringIO(), highlight=False)


def test_time_left_is_that_of_the_forecasts_at_first(pace: Pace) -> None:
    assert pace.left_s(0) == 60


def test_time_left_is_scaled_by_how_the_forecasts_have_held(
    pace: Pace, clock: FakeTime
) -> None:
    clock.now += 5.0  # half of what was expected of the first trial
    assert pace.left_s(1) == 25
    clock.now += 55.0  # twice of what was expected of two
    assert pace.left_s(2) == 60


def test_a_pipe_gets_one_line_a_trial_with_the_time_left(
    pace: Pace, clock: FakeTime
) -> None:
    console = pipe()
    stored, is_whole = follow(run(clock, OK, OK, OK), TRIALS, pace, console)
    assert is_whole
    assert [item.trial_id for item in stored] == [1, 2, 3]
    assert shown(console) == [
        "1/3 infer ViT-B/16 #0: 123 samples/s in 2.00 s; 1 min 40 s left",
        "2/3 infer ViT-L/10[35]@512+TL16@18 #0: 123 samples/s in 2.00 s;"
        " 1 min 0 s left",
        "3/3 infer ViT-Ti/16 #0: 123 samples/s in 2.00 s",
    ]


def test_a_pipe_gets_no_codes_and_no_broken_lines(pace: Pace, clock: FakeTime) -> None:
    console = pipe()
    failed = TrialResult("error", "[red]no[/red] " + "very " * 100 + "long")
    follow(run(clock, failed), TRIALS, pace, console)
    (line,) = shown(console)
    assert "\x1b" not in line
    assert "error: [red]no[/red] very very" in line


def test_ctrl_c_ends_it_with_what_is_stored(pace: Pace, clock: FakeTime) -> None:
    def interrupted() -> Iterator[Stored]:
        yield from run(clock, OK, OK)
        raise KeyboardInterrupt

    stored, is_whole = follow(interrupted(), TRIALS, pace, pipe())
    assert len(stored) == 2
    assert not is_whole


def test_a_terminal_shows_the_trials_and_what_runs_now(
    pace: Pace, clock: FakeTime
) -> None:
    console = Console(
        file=io.StringIO(), force_terminal=True, width=100, height=30, color_system=None
    )
    oom = TrialResult("oom", "out of memory")
    stored, _ = follow(run(clock, OK, oom), TRIALS, pace, console)
    text = "\n".join(shown(console))
    assert "ViT-L/10[35]@512+TL16@18" in text
    assert "oom: out of memory" in text
    assert "2/3, 1 min 0 s left" in text
    assert "running infer ViT-Ti/16 #0" in text
    assert len(stored) == 2


def test_a_plan_that_grows_shows_what_is_planned_by_now(clock: FakeTime) -> None:
    """And the time left of its budget."""
    suite = Suite(name="three", cases=CASES, repeats={"infer": 1})
    expected = {c.identity: s for c, s in zip(CASES, EXPECTED_S, strict=True)}
    budget = Budget(suite, [], expected, 85.0, clock.perf_counter)

    def spent() -> Iterator[Stored]:
        for trial in budget:
            took_s = expected[trial.case.identity]
            clock.now += took_s
            budget.add(trial, OK, took_s)
            yield Stored(1, trial.position + 1, Finished(trial, OK, NOW, took_s))

    console = pipe()
    stored, is_whole = follow(spent(), budget, budget, console)
    assert is_whole
    first, *_, last = shown(console)
    assert first.startswith("1/3 infer ")
    assert first.endswith(f"; {format_duration(85 - took_of(stored[0]))} left")
    assert last.startswith(f"{len(stored)}/{len(stored)} infer ")
    assert not last.endswith("left")
    assert sum(map(took_of, stored)) <= 85


def took_of(stored: Stored) -> float:
    return stored.finished.wall_time_s


def comparison_answer(tmp_path: Path) -> Answer:
    with ResultStore.open(str(tmp_path / "results.db"), create=True) as store:
        stored_runs.StoredRuns(store).add(
            (stored_runs.case(), stored_runs.speeds(100, 101, 99)),
            (stored_runs.case("ViT-Ti/16+TL8@6"), stored_runs.speeds(200, 202, 198)),
        )
        with store.session() as session:
            plain, learned = map(parse_selection, ("model=ViT-Ti/16", "model~TL"))
            return compare(session, plain, learned, Question())


@pytest.mark.parametrize("width", [40, 80, 120])
def test_a_comparison_keeps_its_words_whole_at_any_width(
    tmp_path: Path, width: int
) -> None:
    console = Console(file=io.StringIO(), width=width, highlight=False)
    for part in comparison_parts(comparison_answer(tmp_path), width):
        console.print(part)
    lines = shown(console)
    assert max(map(len, lines)) <= width
    (verdict,) = [line for line in lines if f"2.00{TIMES}" in line]
    assert "2.00 to 2.00" in verdict
    assert "better" in verdict


def case_of(mode: Mode) -> Case:
    return Case(model=parse_model("ViT-Ti/16"), mode=mode, data="digits")


@pytest.mark.parametrize(
    ("mode", "metrics", "expected"),
    [
        ("fit", {"macs": 1e9, "top1_percent": 95.5}, "95.5 %"),
        ("profile", {"macs": 1.5e9, "params": 5.0}, "1.500 GMACs"),
        ("infer", {"params": 5.0}, "ok"),
        (
            "fewshot",
            {"fewshot_1_top1_percent": 30, "fewshot_5_top1_percent": 50.25},
            "50.2 %",
        ),
    ],
)
def test_a_trial_is_told_by_the_metric_that_it_was_run_for(
    mode: Mode, metrics: dict[str, float], expected: str
) -> None:
    result = TrialResult("ok", metrics=tuple(Metric(*item) for item in metrics.items()))
    assert outcome(case_of(mode), result) == expected


@pytest.mark.parametrize("status", ["oom", "timeout", "error", "nan", "skipped"])
def test_a_failure_is_its_status_and_reason(status: Status) -> None:
    result = TrialResult(status, "a reason")
    assert outcome(case_of("infer"), result) == f"{status}: a reason"


def test_a_pipe_is_wide_enough_for_whole_lines(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    make_console().print("word " * 30)
    assert len(capsys.readouterr().out.splitlines()) == 1


def test_a_narrow_table_breaks_words_and_leaves_none_out() -> None:
    console = Console(file=io.StringIO(), width=16, highlight=False)
    row = ("overhead", "2026-11-23 05:41")
    console.print(make_table(("suite", "started"), [row]))
    lines = shown(console)
    assert max(map(len, lines)) <= 16
    told = sorted("".join(lines).replace(" ", ""))
    assert told == sorted("".join(("suite", "started", *row)).replace(" ", ""))


def test_numbers_stand_to_the_right_and_words_to_the_left() -> None:
    console = pipe()
    console.print(make_table(("name", "count"), [("a[b]c", "7"), ("d", "1,000")]))
    lines = [line.rstrip() for line in shown(console)]
    assert lines == ["name   count", "a[b]c      7", "d      1,000"]
