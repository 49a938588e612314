"""What a run looks like: plain lines in a pipe, a live table on a terminal."""

import io
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

import pytest
from rich.console import Console

from tlbench import progress as module
from tlbench.budget import Budget
from tlbench.events import (
    Begun,
    Delayed,
    Event,
    Finished,
    Refused,
    Retried,
    Stored,
    Waiting,
)
from tlbench.plan import forecast
from tlbench.progress import MAX_RUNNING, Pace, Progress, follow, outcome, running_lines
from tlbench.result import STATUSES, Metric, Status, TrialResult
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


def run(clock: FakeTime, *results: TrialResult, took: float = 2.0) -> Iterator[Event]:
    """The first trials with these results, each after twice the time expected."""
    for trial, expected, result in zip(TRIALS, EXPECTED_S, results, strict=False):
        clock.now += 2 * expected
        finished = Finished(trial, result, NOW, took)
        yield Begun(trial, 1, ("laptop",))
        yield Stored(1, trial.position + 1, finished)


def shown(console: Console) -> list[str]:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


def pipe() -> Console:
    return Console(file=io.StringIO(), highlight=False)


def stored(trial: Trial, result: TrialResult = OK, took: float = 2.0) -> Stored:
    return Stored(1, trial.position + 1, Finished(trial, result, NOW, took))


def test_time_left_is_that_of_the_forecasts_at_first(pace: Pace) -> None:
    assert pace.left_s(Progress(TRIALS)) == pace.total_s == 60


def test_time_left_is_scaled_by_how_the_forecasts_have_held(
    pace: Pace, clock: FakeTime
) -> None:
    progress = Progress(TRIALS)
    clock.now += 5.0  # half of what was expected of the first trial
    progress.add(stored(TRIALS[0]))
    assert pace.left_s(progress) == 25
    clock.now += 55.0  # twice of what was expected of two
    progress.add(stored(TRIALS[1]))
    assert pace.left_s(progress) == 60


def test_time_left_does_not_depend_on_the_order_in_which_trials_end(
    pace: Pace, clock: FakeTime
) -> None:
    progress = Progress(TRIALS)
    clock.now += 30.0
    progress.add(stored(TRIALS[2]))
    assert pace.left_s(progress) == 30


def test_time_left_of_trials_at_once_is_shorter_by_as_many(
    pace: Pace, clock: FakeTime
) -> None:
    progress = Progress(TRIALS)
    for trial in TRIALS:
        progress.add(Begun(trial, 1, ("laptop",)))
    clock.now += 5.0  # 15 s of work are done, of 60
    assert pace.left_s(progress) == 15
    clock.now += 5.0  # the first has taken as long as was expected
    progress.add(stored(TRIALS[0], took=10.0))
    assert pace.left_s(progress) == 10


def test_a_running_trial_counts_by_how_forecasts_have_held(
    pace: Pace, clock: FakeTime
) -> None:
    progress = Progress(TRIALS)
    clock.now += 20.0  # twice of what was expected
    progress.add(stored(TRIALS[0], took=20.0))
    progress.add(Begun(TRIALS[1], 1, ("laptop",)))
    clock.now += 20.0  # which will take 40 s then, and the last one 60 s
    assert pace.left_s(progress) == 80


def test_trials_that_are_skipped_say_nothing_of_the_pace(
    pace: Pace, clock: FakeTime
) -> None:
    progress = Progress(TRIALS)
    progress.add(stored(TRIALS[2], TrialResult("skipped", "no GPU"), took=0.0))
    clock.now += 20.0
    progress.add(stored(TRIALS[0], took=20.0))
    assert pace.left_s(progress) == 40


def test_a_pipe_gets_one_line_a_trial_with_the_time_left(
    pace: Pace, clock: FakeTime
) -> None:
    console = pipe()
    kept, is_whole = follow(run(clock, OK, OK, OK), TRIALS, pace, console)
    assert is_whole
    assert [item.trial_id for item in kept] == [1, 2, 3]
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
    def interrupted() -> Iterator[Event]:
        yield from run(clock, OK, OK)
        raise KeyboardInterrupt

    kept, is_whole = follow(interrupted(), TRIALS, pace, pipe())
    assert len(kept) == 2
    assert not is_whole


def test_a_terminal_shows_the_trials_and_what_runs_now(
    pace: Pace, clock: FakeTime
) -> None:
    console = Console(
        file=io.StringIO(), force_terminal=True, width=100, height=30, color_system=None
    )
    oom = TrialResult("oom", "out of memory")

    def going_on() -> Iterator[Event]:
        yield from run(clock, OK, oom)
        yield Begun(TRIALS[2], 1, ("laptop",))

    kept, _ = follow(going_on(), TRIALS, pace, console)
    text = "\n".join(shown(console))
    assert "ViT-L/10[35]@512+TL16@18" in text
    assert "oom: out of memory" in text
    assert "2/3, 1 min 0 s left" in text
    assert "running infer ViT-Ti/16 #0 for 0 s on laptop" in text
    assert len(kept) == 2


def test_a_plan_that_grows_shows_what_is_planned_by_now(clock: FakeTime) -> None:
    """And the time left of its budget."""
    suite = Suite(name="three", cases=CASES, repeats={"infer": 1})
    expected = {c.identity: s for c, s in zip(CASES, EXPECTED_S, strict=True)}
    budget = Budget(suite, [], expected, 85.0, clock.perf_counter)

    def spent() -> Iterator[Stored]:
        while (trial := budget.take()) is not None:
            took_s = expected[trial.case.identity]
            clock.now += took_s
            budget.add(trial, OK, took_s)
            yield Stored(1, trial.position + 1, Finished(trial, OK, NOW, took_s))

    console = pipe()
    kept, is_whole = follow(spent(), budget, budget, console)
    assert is_whole
    first, *_, last = shown(console)
    assert first.startswith("1/3 infer ")
    assert first.endswith(f"; {format_duration(85 - took_of(kept[0]))} left")
    assert last.startswith(f"{len(kept)}/{len(kept)} infer ")
    assert not last.endswith("left")
    assert sum(map(took_of, kept)) <= 85


def took_of(item: Stored) -> float:
    return item.finished.wall_time_s


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


@pytest.mark.parametrize("status", [s for s in STATUSES if s != "ok"])
def test_a_failure_is_its_status_and_reason(status: Status) -> None:
    result = TrialResult(status, "a reason")
    assert outcome(case_of("infer"), result) == f"{status}: a reason"


# ---------------------------------------------------------------- many at once

NODES = tuple(f"node-{number:03}" for number in range(100))


def many(count: int) -> list[Trial]:
    return [Trial(CASES[0], repeat=n, position=n, seed=0) for n in range(count)]


def cluster(trials: Sequence[Trial], nodes: Sequence[str]) -> Progress:
    """All of the trials but 936 run, node by node in turn."""
    progress = Progress(range(len(trials) + 936))
    for trial in trials:
        node = nodes[trial.position % len(nodes)]
        progress.add(Begun(trial, 1, (node,)))
    return progress


def test_a_few_trials_at_once_have_a_line_each(clock: FakeTime) -> None:
    progress = cluster(many(2), NODES[:2])
    clock.now += 90
    assert running_lines(progress, MAX_RUNNING) == [
        "2 running on 2 nodes, 936 queued",
        "  infer ViT-B/16 #0 for 1 min 30 s on node-000",
        "  infer ViT-B/16 #1 for 1 min 30 s on node-001",
    ]


def test_more_trials_are_told_node_by_node(clock: FakeTime) -> None:
    progress = cluster(many(64), NODES[:4])
    clock.now += 5
    first, second, *_ = lines = running_lines(progress, MAX_RUNNING)
    assert first == "64 running on 4 nodes, 936 queued"
    assert second == "  node-000: 16 running, the longest for 5.00 s"
    assert len(lines) == 5


@pytest.mark.parametrize("nodes", [1, 8, 100])
def test_many_nodes_are_told_in_sum(clock: FakeTime, nodes: int) -> None:
    (line,) = running_lines(cluster(many(200), NODES[:nodes]), MAX_RUNNING)
    on = "one node" if nodes == 1 else f"{nodes} nodes"
    assert line == f"200 running on {on}, 936 queued"


def test_a_trial_over_many_nodes_counts_them() -> None:
    progress = Progress(TRIALS)
    progress.add(Begun(TRIALS[0], 2, NODES[:16]))
    (line,) = running_lines(progress, MAX_RUNNING)
    assert line == "running infer ViT-B/16 #0, attempt 2 for 0 s on 16 nodes"


def last_view(text: str) -> list[str]:
    """What stands on the terminal after the last time that it was drawn anew."""
    return text.rpartition("\x1b[2K")[2].splitlines()


@pytest.mark.parametrize("height", [3, 4, 6, 10, 24])
@pytest.mark.parametrize("nodes", [1, 6, 100])
def test_the_view_never_has_more_lines_than_the_terminal(
    pace: Pace, clock: FakeTime, height: int, nodes: int
) -> None:
    trials = many(60)
    console = Console(
        file=io.StringIO(),
        force_terminal=True,
        width=50,
        height=height,
        color_system=None,
    )

    def busy() -> Iterator[Event]:
        reason = TrialResult("error", "very " * 40 + "long")
        for trial in trials:
            yield Begun(trial, 1, (NODES[trial.position % nodes],))
        yield Waiting(TRIALS[1], "others hold all GPUs " * 5)
        yield Delayed("the disk is full")
        for trial in trials[:30]:
            yield stored(trial, reason)
        raise KeyboardInterrupt

    with console.capture() as capture:
        kept, is_whole = follow(busy(), range(1000), pace, console)
    assert (len(kept), is_whole) == (30, False)
    view = last_view(capture.get())
    assert len(view) <= height
    assert max(map(len, view)) <= 50
    assert any("30/1000" in line for line in view)


def test_trials_may_end_in_any_order(pace: Pace) -> None:
    def crossed() -> Iterator[Event]:
        for trial in TRIALS:
            yield Begun(trial, 1, ("laptop",))
        for trial in reversed(TRIALS):
            yield stored(trial)

    console = pipe()
    kept, is_whole = follow(crossed(), TRIALS, pace, console)
    assert is_whole
    assert [item.trial_id for item in kept] == [3, 2, 1]
    assert [line.split()[:3] for line in shown(console)] == [
        ["1/3", "infer", "ViT-Ti/16"],
        ["2/3", "infer", "ViT-L/10[35]@512+TL16@18"],
        ["3/3", "infer", "ViT-B/16"],
    ]


# ---------------------------------------------------------------- what goes wrong


def test_a_log_tells_of_attempts_that_came_to_nothing(pace: Pace) -> None:
    lost = Finished(TRIALS[0], TrialResult("lost", "its node\nvanished"), NOW, 3.0)

    def retried() -> Iterator[Event]:
        yield Begun(TRIALS[0], 1, ("a",))
        yield Retried(lost)
        yield Begun(TRIALS[0], 2, ("b",))
        yield stored(TRIALS[0])

    console = pipe()
    follow(retried(), TRIALS, pace, console)
    first, _ = shown(console)
    assert first == "infer ViT-B/16 #0: lost: its node vanished; attempt 2 follows"


def test_a_node_that_is_not_used_is_told(pace: Pace) -> None:
    console = pipe()
    refused = Refused("a (10.0.0.1) is not used:\nnumpy is 1.0")
    follow(iter((refused, stored(TRIALS[0]))), TRIALS, pace, console)
    first, _ = shown(console)
    assert first == "a (10.0.0.1) is not used: numpy is 1.0"


def test_a_reason_to_wait_is_told_once_while_it_holds(pace: Pace) -> None:
    def waiting() -> Iterator[Event]:
        yield Waiting(TRIALS[0], "others hold the GPUs")
        yield Waiting(TRIALS[0], "others hold the GPUs")
        yield Delayed("the disk is full")
        yield Delayed("the disk is full")
        yield stored(TRIALS[1])
        yield Waiting(TRIALS[0], "others hold the GPUs")

    console = pipe()
    follow(waiting(), TRIALS, pace, console)
    waits = "infer ViT-B/16 #0 waits: others hold the GPUs"
    first, second, third, last = shown(console)
    assert (first, last) == (waits, waits)
    assert second.startswith("the database takes no results now: the disk is full; ")
    assert third.startswith("1/3 ")


def test_a_reason_to_wait_is_over_when_something_goes_on() -> None:
    progress = Progress(TRIALS)
    progress.add(Waiting(TRIALS[0], "others hold the GPUs"))
    progress.add(Begun(TRIALS[0], 1, ("a",)))
    assert not progress.held


def test_a_reason_cannot_command_the_terminal(pace: Pace) -> None:
    failed = TrialResult("error", "\x1b[2Jgone\x1b]0;title\x07 \x9b1m\nend")
    console = pipe()
    follow(iter([stored(TRIALS[0], failed)]), TRIALS, pace, console)
    (line,) = shown(console)
    assert "error: gone \\x9b1m end in" in line
