"""Histories as words, lines of characters and JSON."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from tlbench.changes import FEWEST
from tlbench.errors import ReportError
from tlbench.reports.history import Break, History, Point, Shift
from tlbench.reports.quantities import DIRECTIONS, QUANTITIES
from tlbench.reports.surroundings import surroundings
from tlbench.reports.verdicts import TIMES
from tlbench.statistics import LEVEL
from tlbench.suites.names import did_you_mean
from tlbench.units import UNKNOWN, format_metric, format_number

LEVELS = "\N{LOWER ONE EIGHTH BLOCK}▂▃▄▅▆▇\N{FULL BLOCK}"
ABSENT, BROKEN = "·", "|"
"""A run without a value, and where the machine or its software is another one."""
MOST_ROWS = 12
"""Runs of a table, the newest ones."""
HEADINGS = ("run", "date", "value", "interval", "n", "")


@dataclass(frozen=True)
class Words:
    """A history as it is printed."""

    title: str
    introduction: str
    sparkline: str
    rows: tuple[tuple[str, ...], ...]
    """What stands under `HEADINGS`."""
    notes: tuple[str, ...]


def check_histories(
    histories: Sequence[History],
    metric: str,
    ignored: Collection[str],
    *,
    is_gate: bool,
) -> list[History]:
    """Those that have the metric; an error that says what is wrong if none has."""
    if not histories:
        raise ReportError(
            "no run of these cases is so new; an older --since finds some"
        )
    known = dict.fromkeys(
        name
        for history in histories
        for point in history.points
        if point.machine is not None
        for name in surroundings(point.machine)
    )
    for name in ignored:
        if name not in known:
            raise ReportError(
                f"--ignore {name}: no property of a machine is called that; there are"
                f" {', '.join(known)}"
            )
    measured = [history for history in histories if history.measured]
    if not measured:
        known_metrics = {**DIRECTIONS, **QUANTITIES}
        hint = "" if metric in known_metrics else did_you_mean(metric, known_metrics)
        raise ReportError(f"--metric {metric}: no trial of these cases has it{hint}")
    if is_gate and metric not in DIRECTIONS:
        raise ReportError(f"--fail-on: {metric} has no better and worse")
    return measured


def words(history: History, width: int) -> Words:
    return Words(
        title=history.title,
        introduction=_introduction(history),
        sparkline=sparkline(history, width),
        rows=tuple(_rows(history)),
        notes=tuple(_notes(history)),
    )


def _introduction(history: History) -> str:
    quantity = QUANTITIES.get(history.metric)
    named = history.metric if quantity is None else quantity.heading
    which = f", {history.direction} is better" if history.direction else ""
    first, last = (_date(point) for point in (history.points[0], history.points[-1]))
    when = first if first == last else f"{first} to {last}"
    return f"{named}{which}; {_runs(len(history.points))}, {when}"


def _runs(count: int) -> str:
    return "1 run" if count == 1 else f"{count} runs"


def _date(point: Point) -> str:
    return f"{point.started_at.astimezone():%Y-%m-%d}"


def sparkline(history: History, width: int) -> str:
    """One character a run, lowest to highest value; empty for a single run.

    Of as many of the newest runs as there is room for, their breaks included.
    """
    first = max(0, len(history.points) - width + len(history.breaks))
    shown = [p.value for p in history.points[first:] if p.value is not None]
    if len(shown) < 2:
        return ""
    low, span = min(shown), max(shown) - min(shown)
    broken = {found.place for found in history.breaks if found.place > first}
    marks = []
    for place, point in enumerate(history.points[first:], start=first):
        share = 0.5 if point.value is None or not span else (point.value - low) / span
        level = LEVELS[round(share * (len(LEVELS) - 1))]
        marks.append(BROKEN * (place in broken))
        marks.append(ABSENT if point.value is None else level)
    return "".join(marks)


def _rows(history: History) -> Iterator[tuple[str, ...]]:
    events = {found.place: "break" for found in history.breaks}
    events |= {shift.place: shift.verdict for shift in history.shifts}
    points = list(enumerate(history.points))
    for place, point in points[-MOST_ROWS:]:
        yield (
            str(point.run_id),
            _date(point),
            point.reason if point.value is None else value_text(history, point.value),
            interval_text(history, point),
            str(point.n),
            events.get(place, ""),
        )


def value_text(history: History, value: float) -> str:
    quantity = QUANTITIES.get(history.metric)
    if quantity is None:
        return format_metric(history.metric, value)
    return quantity.text(value)


def interval_text(history: History, point: Point) -> str:
    quantity = QUANTITIES.get(history.metric)
    if point.interval is None:
        return ""
    if quantity is None:
        return " to ".join(format_metric(history.metric, end) for end in point.interval)
    return quantity.interval_text(point.interval)


def _notes(history: History) -> Iterator[str]:
    """What happened when, oldest first, and what could not be looked for."""
    events: list[Break | Shift] = [*history.breaks, *history.shifts]
    for event in sorted(events, key=lambda e: (e.place, isinstance(e, Shift))):
        run = f"run {history.points[event.place].run_id}"
        if isinstance(event, Break):
            yield f"{run}: break, {event.text}"
        else:
            yield f"{run}: {shift_text(event)}; {event.code}"
    if history.is_lost:
        newest = history.points[-1]
        yield f"run {newest.run_id}: no value any more, {newest.reason}"
    yield from _unsearched(history)
    left_out = len(history.points) - MOST_ROWS
    if left_out > 0:
        yield f"{_runs(left_out)} before these: --json lists them"


def shift_text(shift: Shift) -> str:
    """Verdict, ratio with its interval, and p value."""
    standing = "" if shift.verdict != "worse" or shift.is_standing else ", made up for"
    return (
        f"{shift.verdict}, {_times(shift)} ({shift_interval(shift)}),"
        f" {p_text(shift.p_value)}{standing}"
    )


def _times(shift: Shift) -> str:
    return f"{format_number(shift.ratio.value, 3)}{TIMES}"


def shift_interval(shift: Shift) -> str:
    if shift.ratio.interval is None:
        return UNKNOWN
    return " to ".join(format_number(end, 3) for end in shift.ratio.interval)


def p_text(p_value: float) -> str:
    return "p < 0.0001" if p_value < 0.0001 else f"p = {p_value:.4f}"


def _unsearched(history: History) -> Iterator[str]:
    newest = sum(point.value is not None for point in history.newest_segment)
    if not history.is_searched:
        yield (
            f"no change can be told from noise yet: that takes {FEWEST} runs on one"
            f" machine with the same libraries, and the newest has {newest}"
        )
    elif newest < FEWEST:
        yield (
            f"since the break no change can be told from noise yet: {newest} of"
            f" {FEWEST} runs"
        )
    elif not history.shifts:
        yield "no change of level found"


def conclusion(histories: Sequence[History]) -> list[str]:
    """What has to be known to read it all."""
    floors = sorted({history.floor for history in histories})
    told = " and ".join(f"{format_number(100 * floor, 2)} %" for floor in floors)
    return [
        f"medians over the trials of a run; {100 * LEVEL:.0f} % intervals; changes"
        f" below the noise floor ({told}) are not told; a change is looked for between"
        " breaks only"
    ]


def describe(history: History) -> dict[str, Any]:
    """All of it as plain JSON values."""
    return {
        "case": history.identity,
        "origin": history.origin,
        "model": history.model,
        "mode": history.mode,
        "label": history.label,
        "metric": history.metric,
        "direction": history.direction,
        "noise_floor": history.floor,
        "has_worsened": history.has_worsened,
        "points": [_describe_point(point) for point in history.points],
        "breaks": [
            {
                "run": history.points[found.place].run_id,
                "place": found.place,
                "differences": list(found.differences),
            }
            for found in history.breaks
        ],
        "changes": [_describe_shift(history, shift) for shift in history.shifts],
    }


def _describe_point(point: Point) -> dict[str, Any]:
    low, high = point.interval or (None, None)
    return {
        "run": point.run_id,
        "started_at": point.started_at.isoformat(),
        "value": point.value,
        "low": low,
        "high": high,
        "n": point.n,
        "invalid": point.invalid,
        "reason": point.reason or None,
        "machine": None if point.machine is None else point.machine.hostname,
        "code": point.code,
    }


def _describe_shift(history: History, shift: Shift) -> dict[str, Any]:
    low, high = shift.ratio.interval or (None, None)
    return {
        "run": history.points[shift.place].run_id,
        "place": shift.place,
        "verdict": shift.verdict,
        "ratio": shift.ratio.value,
        "low": low,
        "high": high,
        "p_value": shift.p_value,
        "code": shift.code,
        "is_standing": shift.is_standing,
    }
