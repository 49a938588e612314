"""Runs that go on, seen from any machine that reaches their database."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from tlbench.console import how_far, make_table, one_line
from tlbench.db.query import RunRecord
from tlbench.db.recent import RecentTrials
from tlbench.errors import StoreError
from tlbench.units import UNKNOWN, format_duration, format_number

HEADINGS = (
    *("run", "suite", "status", "trials", "not ok", "started"),
    *("last trial", "trials/min", "left"),
)
MAX_RUNS = 20
"""The newest; more would not fit, and older ones have ended."""


@dataclass(frozen=True)
class Sight:
    """What the database holds of the newest runs at some moment."""

    runs: Sequence[RunRecord]
    recent: Mapping[int, RecentTrials]
    """Of those that go on and have trials."""
    seen_at: datetime


def watch(look: Callable[[], Sight], every_s: float, console: Console) -> None:
    """Show what `look` sees, and look again every so many seconds, until Ctrl-C.

    Where there is no terminal it is printed once. A database that cannot be read later
    on is told, and read again.

    Raises:
        StoreError: It cannot be read at all, at first.
    """
    sight = look()
    if not console.is_terminal:
        console.print(sight_table(sight))
        return
    with Live(_view(sight), console=console, auto_refresh=False) as live:
        try:
            while True:
                time.sleep(every_s)
                try:
                    sight, trouble = look(), ""
                except StoreError as error:
                    trouble = f"cannot be read now: {one_line(str(error))}"
                live.update(_view(sight, trouble), refresh=True)
        except KeyboardInterrupt:
            return


def _view(sight: Sight, trouble: str = "") -> RenderableType:
    moment = f"{sight.seen_at.astimezone():%Y-%m-%d %H:%M:%S}"
    told = f"as of {moment}; {trouble}" if trouble else f"{moment}; Ctrl-C ends this"
    style = "red" if trouble else "dim"
    # Ahead of the table: what a low terminal has no room for are its oldest runs.
    return Group(Text(told, style=style), sight_table(sight))


def sight_table(sight: Sight) -> Table:
    """One row a run, the newest first."""
    rows = [
        (
            *how_far(run),
            f"{run.started_at.astimezone():%Y-%m-%d %H:%M}",
            *_pace_cells(run, sight.recent.get(run.id), sight.seen_at),
        )
        for run in sight.runs
    ]
    return make_table(HEADINGS, rows)


def _pace_cells(
    run: RunRecord, recent: RecentTrials | None, now: datetime
) -> tuple[str, str, str]:
    if recent is None:
        return ("", "", "")
    ago_s = max((now - recent.ended_at).total_seconds(), 0.0)
    last = f"{recent.last_model}: {recent.last_status}, {format_duration(ago_s)} ago"
    rate = recent.rate_per_s
    if rate is None:
        return (last, UNKNOWN, UNKNOWN)
    left_s = max(run.planned - run.finished, 0) / rate
    return (last, format_number(60 * rate), format_duration(left_s))
