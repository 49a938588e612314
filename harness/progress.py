"""A run while it goes on: how far it is, what runs now, and how long it takes still."""

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence, Sized
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from tlbench.console import one_line
from tlbench.events import (
    Begun,
    Delayed,
    Event,
    Refused,
    Retried,
    Stored,
    Waiting,
)
from tlbench.result import TrialResult
from tlbench.suites.names import model_name
from tlbench.suites.spec import Case, Trial
from tlbench.units import format_duration, format_metric

if TYPE_CHECKING:  # torch loads slowly, and few need it
    from tlbench.plan import Forecast

REFRESHES_PER_S = 1
"""Seldom: the driver shall sleep while a trial measures."""
MAX_ROWS = 12
"""Finished trials in view."""
MAX_RUNNING = 8
"""Lines on what runs now; each a trial, or, of more trials, a node."""
MAX_NAMES = 3
"""Nodes of one trial that are named."""


@dataclass(frozen=True)
class Running:
    """A trial that runs now."""

    begun: Begun
    since: float
    """By the clock of `time.perf_counter`."""

    @property
    def age_s(self) -> float:
        return time.perf_counter() - self.since


class Progress:
    """What the events of a run have told so far."""

    def __init__(self, trials: Sized) -> None:
        """Begin; there are as many trials as `trials` is long by then."""
        self.stored: list[Stored] = []
        self.ended = Counter[str]()
        """Trials that are over, by the identity of their case."""
        self.skipped = Counter[str]()
        """Those of them that cost next to nothing, for they could not run here."""
        self.worked_s = 0.0
        """What the others took, one after another."""
        self.held: dict[str, None] = {}
        """Why something does not go on now, the oldest reason first."""
        self._trials = trials
        self._running: dict[int, Running] = {}
        self._start = time.perf_counter()

    def add(self, event: Event) -> str | None:
        """Learn of an event; returns what to tell of it, if it is to be told by itself.

        A reason to wait is told once while it holds.
        """
        match event:
            case Begun(trial):
                self._running[trial.position] = Running(event, time.perf_counter())
                self.held.clear()
            case Stored():
                self._end(event)
                self.held.clear()
            case Retried(finished):
                self._running.pop(finished.trial.position, None)
                again = f"attempt {finished.attempt + 1} follows"
                ended = outcome(finished.trial.case, finished.result)
                return f"{title(finished.trial)}: {ended}; {again}"
            case Refused(reason):
                return one_line(reason)
            case Waiting(trial, reason):
                return self._hold(f"{title(trial)} waits: {one_line(reason)}")
            case Delayed(reason):
                return self._hold(
                    f"the database takes no results now: {one_line(reason)};"
                    " they are kept here and offered again"
                )
        return None

    def _hold(self, reason: str) -> str | None:
        if reason in self.held:
            return None
        self.held[reason] = None
        return reason

    def _end(self, item: Stored) -> None:
        finished = item.finished
        self.stored.append(item)
        self._running.pop(finished.trial.position, None)
        identity = finished.trial.case.identity
        self.ended[identity] += 1
        if finished.result.status == "skipped":
            self.skipped[identity] += 1
        else:
            self.worked_s += finished.wall_time_s

    @property
    def done(self) -> int:
        return len(self.stored)

    @property
    def planned(self) -> int:
        return len(self._trials)

    @property
    def running(self) -> tuple[Running, ...]:
        """What runs now, in the order in which it began."""
        return tuple(self._running.values())

    @property
    def elapsed_s(self) -> float:
        return time.perf_counter() - self._start


class Paced(Protocol):
    """Whatever knows the time left of a run."""

    def left_s(self, progress: Progress, /) -> float:
        """Seconds until the end."""


class Pace:
    """Time left of a run: the forecasts, scaled by how they have held so far.

    What was forecast of all that is done, over the time that it took, is the rate: of
    several trials at once it is higher than of one after another.
    """

    def __init__(
        self, trials: Sequence[Trial], forecasts: "Iterable[Forecast]"
    ) -> None:
        self._expected_s = {f.identity: f.trial_time_s for f in forecasts}
        self.total_s = self._sum(Counter(trial.case.identity for trial in trials))
        """What was forecast of all trials, one after another."""

    def left_s(self, progress: Progress, /) -> float:
        """Seconds until the end."""
        skipped_s = self._sum(progress.skipped)
        ended_s = self._sum(progress.ended) - skipped_s
        done_s = ended_s + self._begun_s(progress, ended_s)
        left_s = max(self.total_s - skipped_s - done_s, 0.0)
        return left_s * progress.elapsed_s / done_s if done_s else left_s

    def _begun_s(self, progress: Progress, ended_s: float) -> float:
        """What was forecast of those parts of running trials that are done."""
        has_held = ended_s and progress.worked_s
        slowness = progress.worked_s / ended_s if has_held else 1.0
        return sum(
            min(
                running.age_s / slowness,
                self._expected_s[running.begun.trial.case.identity],
            )
            for running in progress.running
        )

    def _sum(self, trials: Counter[str]) -> float:
        """What was forecast of so many trials of each case."""
        return sum(self._expected_s[case] * n for case, n in trials.items())


def follow(
    run: Iterator[Event], trials: Sized, pace: Paced, console: Console
) -> tuple[list[Stored], bool]:
    """Show a run while it goes on, until it ends or Ctrl-C ends it.

    Returns:
        The trials that were stored, and whether those are all.
    """
    progress = Progress(trials)
    show = _show_live if console.is_terminal else _show_lines
    try:
        show(run, progress, pace, console)
    except KeyboardInterrupt:
        return progress.stored, False
    return progress.stored, True


def outcome(case: Case, result: TrialResult) -> str:
    """One trial in a few words: its main metric, or why there is none."""
    if result.status != "ok":
        return f"{result.status}: {one_line(result.reason or '')}"
    values = {m.name: m.value for m in result.metrics if m.rank < 0}
    name = next((n for n in (case.main_metric, "macs") if n in values), None)
    return "ok" if name is None else format_metric(name, values[name])


def title(trial: Trial) -> str:
    return f"{trial.case.mode} {model_name(trial.case.model)} #{trial.repeat}"


# ---------------------------------------------------------------- in a log


def _show_lines(
    run: Iterator[Event], progress: Progress, pace: Paced, console: Console
) -> None:
    for event in run:
        told = progress.add(event)
        line = _line(event, progress, pace) if isinstance(event, Stored) else told
        if line is not None:
            console.print(line, markup=False, soft_wrap=True)


def _line(last: Stored, progress: Progress, pace: Paced) -> str:
    finished, done, planned = last.finished, progress.done, progress.planned
    left = f"; {format_duration(pace.left_s(progress))} left" if done < planned else ""
    return (
        f"{done}/{planned} {title(finished.trial)}:"
        f" {outcome(finished.trial.case, finished.result)}"
        f" in {format_duration(finished.wall_time_s)}{left}"
    )


# ---------------------------------------------------------------- on a terminal


def _show_live(
    run: Iterator[Event], progress: Progress, pace: Paced, console: Console
) -> None:
    view = _LiveView(progress, pace, console)
    with Live(view, console=console, refresh_per_second=REFRESHES_PER_S) as live:
        for event in run:
            told = progress.add(event)
            if isinstance(event, (Refused, Retried)):
                # Above the view, where it stays.
                console.print(told, markup=False, style="red")
            elif isinstance(event, Stored):
                live.refresh()


class _LiveView:
    """The table of finished trials, the bar, and what runs now."""

    def __init__(self, progress: Progress, pace: Paced, console: Console) -> None:
        self._progress, self._pace, self._console = progress, pace, console

    def __rich__(self) -> RenderableType:
        if self._progress.done == self._progress.planned:
            return self._table(MAX_ROWS, is_cut=False)
        height = self._console.height - 1  # the cursor has a line of its own
        below: list[RenderableType] = [self._bar()]
        below += map(_one_row, self._now(max(height - 2, 0)))
        rows = min(MAX_ROWS, height - 1 - len(below))
        if rows < 1:
            return Group(*below)
        return Group(self._table(rows, is_cut=True), *below)

    def _bar(self) -> Table:
        done, planned = self._progress.done, self._progress.planned
        left = format_duration(self._pace.left_s(self._progress))
        bar = Table.grid(padding=(0, 1))
        bar.add_row(
            ProgressBar(total=planned, completed=done, width=20),
            _one_row(f"{done}/{planned}, {left} left"),
        )
        return bar

    def _now(self, height: int) -> list[str]:
        """What runs, and why something does not, in no more lines than that."""
        held = list(self._progress.held)[: height // 2]
        room = min(MAX_RUNNING, height - len(held))
        return [*running_lines(self._progress, room), *held][:height]

    def _table(self, rows: int, *, is_cut: bool) -> Table:
        """The trials that ended last; where it is cut, each is one line."""
        table = Table(box=None)
        for heading in ("trial", "mode", "model", "repeat", "result", "time"):
            table.add_column(heading, no_wrap=is_cut)
        for item in self._progress.stored[-rows:]:
            finished = item.finished
            case, is_ok = finished.trial.case, finished.result.status == "ok"
            table.add_row(
                str(item.trial_id),
                case.mode,
                Text(model_name(case.model)),
                str(finished.trial.repeat),
                Text(outcome(case, finished.result), style="" if is_ok else "red"),
                format_duration(finished.wall_time_s),
            )
        return table


def _one_row(text: str) -> Text:
    return Text(text, overflow="ellipsis", no_wrap=True)


def running_lines(progress: Progress, room: int) -> list[str]:
    """What runs now in at most `room` lines: by trials, by nodes, or in sum."""
    running = progress.running
    if not running:
        return []
    if len(running) == 1:
        return [f"running {_running_line(running[0])}"]
    nodes = {node: None for item in running for node in item.begun.nodes}
    queued = progress.planned - progress.done - len(running)
    on = f"{len(nodes)} nodes" if len(nodes) > 1 else "one node"
    in_sum = f"{len(running):,} running on {on}, {queued:,} queued"
    if len(running) < room:
        return [in_sum, *(f"  {_running_line(item)}" for item in running)]
    if 1 < len(nodes) < room:
        return [in_sum, *(f"  {_node_line(node, running)}" for node in nodes)]
    return [in_sum]


def _running_line(item: Running) -> str:
    begun = item.begun
    again = f", attempt {begun.attempt}" if begun.attempt > 1 else ""
    return (
        f"{title(begun.trial)}{again} for {format_duration(round(item.age_s))}"
        f"{_on(begun.nodes)}"
    )


def _node_line(node: str, running: Sequence[Running]) -> str:
    here = [item for item in running if node in item.begun.nodes]
    oldest_s = max(item.age_s for item in here)
    longest = f"the longest for {format_duration(round(oldest_s))}"
    return f"{one_line(node)}: {len(here)} running, {longest}"


def _on(nodes: Sequence[str]) -> str:
    if len(nodes) > MAX_NAMES:
        return f" on {len(nodes)} nodes"
    return f" on {one_line(', '.join(nodes))}" if nodes else ""
