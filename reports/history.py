"""A metric of one case over runs: where it changed, and where the machine did.

Only runs with the same hardware, driver and libraries are compared: where one of these
changes, the series breaks, and no change is looked for across the break. Another
commit of tlbench is no break, for its effect is what is looked for.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby, pairwise
from statistics import median
from typing import Literal

from sqlalchemy.orm import Session

from tlbench.calibrate import noise_floor
from tlbench.changes import FEWEST, Change, find_changes, standing
from tlbench.db import query
from tlbench.db.connection import ById
from tlbench.db.history import (
    KnownCase,
    Reading,
    RunMoment,
    known_cases,
    readings,
    run_moments,
)
from tlbench.db.query import TrialRecord
from tlbench.machine import Machine
from tlbench.reports.cases import describe_statuses, interval_of
from tlbench.reports.compare import ACCURACY, THROUGHPUT
from tlbench.reports.history_cases import label_cases
from tlbench.reports.quantities import DIRECTIONS, FEWSHOT
from tlbench.reports.surroundings import (
    code_of,
    differences,
    hardware_of,
    place_of,
    surroundings,
)
from tlbench.statistics import NOISE_FLOOR, Direction, Interval, Ratio
from tlbench.suites.spec import Case

MAX_CASES, MAX_RUNS = 40, 200
"""What the report shows at most."""

ShiftVerdict = Literal["better", "worse", "changed"]


@dataclass(frozen=True)
class Point:
    """What one run has of the metric, on one machine."""

    run_id: int
    started_at: datetime
    value: float | None
    """Median over its trials, invalid ones left out; None: `reason` says why."""
    interval: Interval | None
    n: int
    """Trials that the value comes from."""
    invalid: int
    """Trials that are left out."""
    reason: str
    machine: Machine | None
    """None: no worker came up, or another tool did not say."""
    code: str
    """The tlbench that measured it: release and commit."""


@dataclass(frozen=True)
class Break:
    """The machine, its driver or a library is another one from here on."""

    place: int
    """Of the first point after it."""
    differences: tuple[str, ...]
    """Such as `torch 2.4.0 -> 2.5.1`."""

    @property
    def text(self) -> str:
        return ", ".join(self.differences)


@dataclass(frozen=True)
class Shift:
    """The metric has another level from here on, on the same machine."""

    place: int
    """Of the first point of the new level."""
    ratio: Ratio
    """The new level over the old one."""
    p_value: float
    """Corrected for the search."""
    verdict: ShiftVerdict
    """`changed`, where the metric has no better and worse."""
    code: str
    """Whether tlbench changed there too, and from what to what."""
    is_standing: bool
    """Whether it is for the worse, and the newest level has not made up for it."""


@dataclass(frozen=True)
class History:
    """One metric of one case, oldest run first."""

    identity: str
    origin: str | None
    """The foreign tool that measured it."""
    model: str
    mode: str
    label: str
    """The model, and the settings that tell it from the others found with it."""
    metric: str
    floor: float
    """Below which share the newest machine's own noise lies."""
    points: tuple[Point, ...]
    breaks: tuple[Break, ...]
    shifts: tuple[Shift, ...]

    @property
    def title(self) -> str:
        return f"{self.mode} {self.label}"

    @property
    def direction(self) -> Direction | None:
        return DIRECTIONS.get(self.metric)

    @property
    def measured(self) -> tuple[Point, ...]:
        return tuple(point for point in self.points if point.value is not None)

    @property
    def newest_segment(self) -> tuple[Point, ...]:
        """The points after the last break."""
        return self.points[self.breaks[-1].place if self.breaks else 0 :]

    @property
    def is_lost(self) -> bool:
        """Whether the newest run has no value, where an earlier one like it has."""
        *earlier, newest = self.newest_segment
        return newest.value is None and any(p.value is not None for p in earlier)

    @property
    def has_worsened(self) -> bool:
        """Whether it stands worse, or no longer runs, on the newest machine."""
        return self.is_lost or any(shift.is_standing for shift in self.shifts)

    @property
    def is_searched(self) -> bool:
        """Whether some part of it is long enough to look for changes."""
        edges = [0, *(b.place for b in self.breaks), len(self.points)]
        return any(
            sum(p.value is not None for p in self.points[low:high]) >= FEWEST
            for low, high in pairwise(edges)
        )


def histories_of(session: Session, trials: Sequence[TrialRecord]) -> list[History]:
    """What the report shows: the cases of these trials that two runs have measured.

    Speed where a case has it, accuracy otherwise; the newest `MAX_RUNS` runs of the
    first `MAX_CASES` cases.
    """
    wanted = dict.fromkeys(trial.identity for trial in trials)
    own = [case for case in known_cases(session) if case.origin is None]
    runs_of = Counter(case.identity for case in own)
    shown = [identity for identity in wanted if runs_of[identity] > 1][:MAX_CASES]
    moments = [*run_moments(session).values()][-MAX_RUNS:]
    cases = [case for case in own if case.identity in shown]
    found = read_histories(
        session,
        sorted(cases, key=lambda case: shown.index(case.identity)),
        (THROUGHPUT, ACCURACY, "map_percent", *FEWSHOT),
        since=moments[0].started_at if moments else None,
    )
    return [history for history in found if len(history.measured) > 1]


# ---------------------------------------------------------------- what they did


def read_histories(
    session: Session,
    cases: Sequence[KnownCase],
    metrics: Sequence[str],
    *,
    since: datetime | None = None,
    ignored: Collection[str] = (),
) -> list[History]:
    """The history of each of the cases, by the first of the metrics that it has.

    Machines that take turns have a series each.

    Args:
        session: Of the database.
        cases: As `find_cases` or `known_cases` gives them.
        metrics: The names, in the order of preference.
        since: Only runs that were started then or later.
        ignored: Properties of the machine that may differ, such as `hostname`.
    """
    runs = run_moments(session, since)
    newest: dict[tuple[str, str | None], KnownCase] = {}
    for known in cases:  # newest first
        if known.run_id in runs:
            newest.setdefault((known.identity, known.origin), known)
    of_case = _by_case(session, newest, runs, metrics)
    used = sorted({r.run_id for rows in of_case.values() for r in rows})
    machines = ById({m.id: m.machine for m in query.machines(session, used)})
    floor_of = _floors(session)
    labels = label_cases([case for key, case in newest.items() if key in of_case])
    found = []
    for case, label in labels:
        rows = of_case[case.identity, case.origin]
        metric = _first_measured(rows, metrics)
        points = _points(rows, metric, runs, machines)
        for part in _by_place(points, ignored):
            name = f"{label}{_host(part)}" if len(part) < len(points) else label
            floor = floor_of(case, part[-1].machine)
            found.append(_history(case, name, metric, part, floor, ignored))
    return found


def _by_case(
    session: Session,
    cases: Mapping[tuple[str, str | None], KnownCase],
    runs: Mapping[int, RunMoment],
    metrics: Sequence[str],
) -> dict[tuple[str, str | None], list[Reading]]:
    rows = readings(session, sorted({identity for identity, _ in cases}), metrics)
    found: dict[tuple[str, str | None], list[Reading]] = defaultdict(list)
    for row in rows:
        if row.run_id in runs:
            found[row.identity, runs[row.run_id].origin].append(row)
    return {key: found[key] for key in cases if key in found}


def _first_measured(rows: Sequence[Reading], metrics: Sequence[str]) -> str:
    measured = {row.metric for row in rows if row.value is not None}
    return next((name for name in metrics if name in measured), metrics[0])


def _floors(session: Session) -> Callable[[KnownCase, Machine | None], float]:
    """The noise floor of a machine for a case, each looked up once."""
    known: dict[Hashable, float] = {}

    def floor_of(case: KnownCase, machine: Machine | None) -> float:
        if machine is None or case.origin is not None:
            return NOISE_FLOOR
        what = f"case {case.identity[:8]}"
        own = query.read_stored(Case, case.canonical, what)
        key = (json.dumps(vars(machine), sort_keys=True), own.device)
        if key not in known:
            known[key] = noise_floor(session, machine, own)
        return known[key]

    return floor_of


def _host(points: Sequence[Point]) -> str:
    machine = next((p.machine for p in points if p.machine is not None), None)
    return "" if machine is None else f", on {machine.hostname}"


# ---------------------------------------------------------------- points


def _points(
    rows: Sequence[Reading],
    metric: str,
    runs: Mapping[int, RunMoment],
    machines: Mapping[int, Machine],
) -> list[Point]:
    """One of each run and each state of a machine that it ran on, oldest first."""
    of_run: dict[int, list[Reading]] = defaultdict(list)
    for row in rows:
        of_run[row.run_id].append(row)
    return [
        _point(run_id, moment, place, members, metric)
        for run_id, moment in runs.items()  # oldest first
        for place, members in _by_machine(of_run[run_id], machines)
    ]


def _by_machine(
    rows: Sequence[Reading], machines: Mapping[int, Machine]
) -> Iterator[tuple[Machine | None, list[Reading]]]:
    """The trials on each machine; those that reached none count to the only one."""
    places = {r.machine_id: machines[r.machine_id] for r in rows if r.machine_id}
    if len({place_of(machine) for machine in places.values()}) <= 1 and rows:
        yield next(iter(places.values()), None), list(rows)
        return
    groups: dict[Hashable, list[Reading]] = defaultdict(list)
    for row in rows:
        groups[place_of(places[row.machine_id]) if row.machine_id else None].append(row)
    for members in groups.values():
        machine_id = members[0].machine_id
        yield places[machine_id] if machine_id else None, members


def _point(
    run_id: int,
    moment: RunMoment,
    machine: Machine | None,
    rows: Sequence[Reading],
    metric: str,
) -> Point:
    own = [row for row in rows if row.metric in (metric, None)]
    invalid = sum(row.validity == "invalid" for row in own)
    values = [
        row.value
        for row in own
        if row.status == "ok" and row.validity != "invalid" and row.value is not None
    ]
    return Point(
        run_id=run_id,
        started_at=moment.started_at,
        value=median(values) if values else None,
        interval=interval_of(metric, values) if values else None,
        n=len(values),
        invalid=invalid,
        reason="" if values else _why_missing(rows, invalid),
        machine=machine,
        code=code_of(moment.version, machine),
    )


def _why_missing(rows: Sequence[Reading], invalid: int) -> str:
    ended = {row.trial_id: str(row.status) for row in rows if row.status != "ok"}
    counts = Counter(ended.values()) | Counter(invalid=invalid)
    return describe_statuses({k: n for k, n in counts.items() if n}) or "not measured"


def _by_place(
    points: Sequence[Point], ignored: Collection[str]
) -> Iterator[list[Point]]:
    """One series, or one of each machine where machines take turns.

    A machine that has replaced another for good goes on with its series, at a break.
    """
    places: list[Hashable] = []
    for point in points:  # where none is known, nothing has moved
        before = places[-1] if places else None
        machine = point.machine
        places.append(before if machine is None else hardware_of(machine, ignored))
    stays = [place for place, _ in groupby(place for place in places if place)]
    is_split = len({point.run_id for point in points}) < len(points)
    if len(stays) == len(set(stays)) and not (is_split and len(stays) > 1):
        yield list(points)
        return
    for wanted in dict.fromkeys(places):
        yield [p for p, place in zip(points, places, strict=True) if place == wanted]


def _breaks(points: Sequence[Point], ignored: Collection[str]) -> Iterator[Break]:
    known: dict[str, object] | None = None
    for place, point in enumerate(points):
        if point.machine is None:
            continue
        now = surroundings(point.machine, ignored)
        if known is not None and (changed := tuple(differences(known, now))):
            yield Break(place, changed)
        known = now


# ---------------------------------------------------------------- shifts


def _history(
    case: KnownCase,
    label: str,
    metric: str,
    points: Sequence[Point],
    floor: float,
    ignored: Collection[str],
) -> History:
    breaks = tuple(_breaks(points, ignored))
    edges = [0, *(b.place for b in breaks), len(points)]
    shifts = tuple(
        shift
        for low, high in pairwise(edges)
        for shift in _shifts(points, low, high, metric, floor)
    )
    return History(
        identity=case.identity,
        origin=case.origin,
        model=case.model,
        mode=str(case.canonical.get("mode", "")),
        label=label,
        metric=metric,
        floor=floor,
        points=tuple(points),
        breaks=breaks,
        shifts=shifts,
    )


def _shifts(
    points: Sequence[Point], low: int, high: int, metric: str, floor: float
) -> Iterator[Shift]:
    """The changes of level between two breaks."""
    measured = {
        n: point.value
        for n, point in enumerate(points[low:high], start=low)
        if point.value is not None
    }
    places, values = [*measured], [*measured.values()]
    direction = DIRECTIONS.get(metric, "higher")
    changes = find_changes(values, direction, floor)
    is_newest = high == len(points)
    still = standing(values, changes, direction, floor) if is_newest else []
    for change in changes:
        before, after = places[change.place - 1], places[change.place]
        yield Shift(
            place=after,
            ratio=change.ratio,
            p_value=change.p_value,
            verdict=_verdict(change, metric),
            code=_code_change(points[before].code, points[after].code),
            is_standing=metric in DIRECTIONS and change in still,
        )


def _verdict(change: Change, metric: str) -> ShiftVerdict:
    if metric not in DIRECTIONS:
        return "changed"
    return "better" if change.ratio.verdict == "better" else "worse"


def _code_change(before: str, after: str) -> str:
    return f"tlbench {before} -> {after}" if before != after else f"tlbench {after}"
