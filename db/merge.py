"""Copy runs from one database into another, as often as one likes.

Ids differ from database to database, so a run is known by its `uid`, a trial by its run
and its position, a case by its identity, a machine by the hash of its content, and a
calibration by its machine, name and moment.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

from sqlalchemy import (
    LargeBinary,
    Table,
    TableClause,
    column,
    delete,
    insert,
    select,
    update,
)
from sqlalchemy.orm import Session

from tlbench.db import models, query
from tlbench.db.store import ResultStore, insert_row, insert_rows, registered
from tlbench.errors import StoreError

BATCH = 200
"""Trials that are in memory at once, with all that belongs to them."""

Row = Mapping[str, Any]
"""What one row has, by the names of its columns, without its ids."""

_OF_TRIAL = (models.Metric, models.Series, models.Artifact)
_SERIES = TableClause(
    models.Series.__tablename__,
    *map(column, ("id", "trial_id", "name", "rank")),
    column("values", LargeBinary()),
)
"""With the arrays as bytes, as they are stored: NaN as a number equals nothing."""
_CHANGING = ("planned", "status", "ended_by", "ended_at", "driver", "beat_at")
"""Columns of a run that its driver writes more than once."""


@dataclass(frozen=True)
class Merged:
    """What a merge has done."""

    runs: dict[int, int]
    """The id of each run in the target, by its id in the source."""
    new_runs: int
    """Those of them that the target did not have."""
    trials: int
    """Trials that the target did not have; what belongs to them came along."""
    calibrations: int


@dataclass(frozen=True)
class _TrialContent:
    """One trial and all that belongs to it, the same in every database."""

    own: Row
    case: Row
    machine: Row | None
    belongings: Mapping[type[models.Base], Sequence[Row]]

    def differences(self, other: "_TrialContent") -> list[str]:
        """Names of what is not the same, in the order in which people look at it."""
        names = [name for name in self.own if self.own[name] != other.own[name]]
        if self.case["identity"] != other.case["identity"]:
            names.insert(0, "case")
        if _key(self.machine) != _key(other.machine):
            names.append("machine")
        for table in _OF_TRIAL:
            if _sorted(self.belongings[table]) != _sorted(other.belongings[table]):
                names.append(table.__tablename__)
        return names


def merge(
    source: ResultStore, target: ResultStore, run_ids: Sequence[int] | None = None
) -> Merged:
    """Copy these runs of the source, or all of them, into the target.

    What the target has already stays; a run that went on meanwhile brings its new
    trials and its newer status. Each run is one transaction. Where a trial of both is
    not the same, that is an error, and nothing is written.

    Args:
        source: Only read.
        target: Another database, opened for writing.
        run_ids: In the source; all that are there, where left out.
    """
    if source.location == target.location:
        raise StoreError(f"{source.location} cannot be merged into itself")
    with source.session() as reading:
        runs = _runs(reading, run_ids)
        with target.session() as known:
            for run in runs:
                _check(reading, known, run, source, target)
        copied = [_copy_run(reading, target, run) for run in runs]
        machines = _machines_of(reading, run_ids)
        calibrations = _copy_calibrations(reading, target, machines)
    return Merged(
        runs={run["id"]: c.run_id for run, c in zip(runs, copied, strict=True)},
        new_runs=sum(c.is_new for c in copied),
        trials=sum(c.trials for c in copied),
        calibrations=calibrations,
    )


def _runs(session: Session, run_ids: Sequence[int] | None) -> list[Row]:
    """The rows of these runs with their ids, the oldest first."""
    table = _table(models.Run)
    statement = select(table).order_by(table.c.started_at, table.c.id)
    if run_ids is not None:
        for run_id in run_ids:
            query.run(session, run_id)  # names those there are, where it is not there
        statement = statement.where(table.c.id.in_(run_ids))
    return [dict(row) for row in session.execute(statement).mappings()]


# ---------------------------------------------------------------- what both have


def _check(
    reading: Session,
    known: Session,
    run: Row,
    source: ResultStore,
    target: ResultStore,
) -> None:
    """Refuse a run whose trials are not those that the target has of it."""
    found = _known_run(known, run["uid"])
    if found is None or run["origin"] is not None:
        return  # the uid of a foreign run is the hash of all that is in it
    where = f"run {run['id']} of {source.location} and run {found['id']} of"
    where += f" {target.location} are the same run, but"
    for name in run.keys() - {"id", "note", *_CHANGING}:
        if run[name] != found[name]:
            raise StoreError(f"{where} differ in their {name}; nothing was merged")
    ours, theirs = _slots(reading, run["id"]), _slots(known, found["id"])
    common = sorted(
        p for p in ours.keys() & theirs.keys() if ours[p].attempts == theirs[p].attempts
    )
    for positions in query.parts(common, BATCH):
        pairs = zip(
            positions,
            _contents(reading, [ours[p].trial_id for p in positions]),
            _contents(known, [theirs[p].trial_id for p in positions]),
            strict=True,
        )
        for position, one, other in pairs:
            if names := one.differences(other):
                raise StoreError(
                    f"{where} their trials at position {position},"
                    f" {ours[position].trial_id} and {theirs[position].trial_id},"
                    f" differ in: {', '.join(names)}; nothing was"
                    " merged"
                )


def _known_run(session: Session, uid: str) -> Row | None:
    table = _table(models.Run)
    row = session.execute(select(table).where(table.c.uid == uid)).mappings().first()
    return dict(row) if row else None


class _Slot(NamedTuple):
    """A position of a run that is taken."""

    trial_id: int
    attempts: int


def _slots(session: Session, run_id: int) -> dict[int, _Slot]:
    """The trial at each position of a run."""
    trial = models.Trial
    statement = select(trial.position, trial.id, trial.attempts).filter_by(
        run_id=run_id
    )
    return {row.position: _Slot(*row[1:]) for row in session.execute(statement)}


# ---------------------------------------------------------------- reading


def _contents(session: Session, trial_ids: Sequence[int]) -> list[_TrialContent]:
    """These trials, in the order of their ids as given."""
    table = _table(models.Trial)
    rows = session.execute(select(table).where(table.c.id.in_(trial_ids))).mappings()
    trials = {row["id"]: row for row in rows}
    cases = _rows(
        session, models.ExperimentCase, (t["case_id"] for t in trials.values())
    )
    machines = _rows(
        session, models.Machine, (t["machine_id"] for t in trials.values())
    )
    belongings = {kind: _belongings(session, kind, trial_ids) for kind in _OF_TRIAL}
    return [
        _TrialContent(
            own=_without_ids(trials[trial_id]),
            case=cases[trials[trial_id]["case_id"]],
            machine=machines.get(trials[trial_id]["machine_id"]),
            belongings={kind: rows[trial_id] for kind, rows in belongings.items()},
        )
        for trial_id in trial_ids
    ]


def _rows(
    session: Session, kind: type[models.Base], ids: Iterable[int | None]
) -> dict[int | None, Row]:
    table = _table(kind)
    wanted = {row_id for row_id in ids if row_id is not None}
    rows = session.execute(select(table).where(table.c.id.in_(wanted))).mappings()
    return {row["id"]: _without_ids(row) for row in rows}


def _belongings(
    session: Session, kind: type[models.Base], trial_ids: Sequence[int]
) -> dict[int, list[Row]]:
    """The rows of one table that belong to each trial, in the order of storing."""
    table = _table(kind)
    found: dict[int, list[Row]] = {trial_id: [] for trial_id in trial_ids}
    statement = select(table).where(table.c.trial_id.in_(trial_ids))
    for row in session.execute(statement.order_by(table.c.id)).mappings():
        found[row["trial_id"]].append(_without_ids(row))
    return found


def _without_ids(row: Mapping[Any, Any]) -> Row:
    return {
        name: value
        for name, value in row.items()
        if name != "id" and not name.endswith("_id")
    }


def _sorted(rows: Iterable[Row]) -> list[Row]:
    return sorted(rows, key=lambda row: (row["name"], row.get("rank", 0)))


def _key(machine: Row | None) -> str | None:
    return machine["content_hash"] if machine else None


def _table(kind: type[models.Base]) -> TableClause:
    return _SERIES if kind is models.Series else cast(Table, kind.__table__)


# ---------------------------------------------------------------- writing


@dataclass(frozen=True)
class _Copied:
    """One run that the target has now."""

    run_id: int
    is_new: bool
    trials: int


def _copy_run(reading: Session, target: ResultStore, run: Row) -> _Copied:
    with target.transaction() as writing:
        known = _known_run(writing, run["uid"])
        if known is None:
            run_id = insert_row(writing, models.Run, _without_ids(run))
        else:
            run_id = known["id"]
            _update(writing, known, run)
        _copy_tags(reading, writing, run["id"], run_id)
        _copy_attempts(reading, writing, run["id"], run_id)
        trials = _copy_trials(reading, writing, run["id"], run_id)
    return _Copied(run_id, known is None, trials)


def _update(writing: Session, known: Row, run: Row) -> None:
    """Take over how the run stands, where the source knows it later."""
    newest = max(known, run, key=_progress)
    changed = {name: newest[name] for name in _CHANGING}
    changed["note"] = _both_notes(known["note"], run["note"])
    is_known = models.Run.id == known["id"]
    writing.execute(update(models.Run).where(is_known).values(changed))


def _progress(run: Row) -> tuple[bool, float, int]:
    """Larger of the later of two states of one run."""
    ended_at = run["ended_at"]
    return ended_at is not None, ended_at.timestamp() if ended_at else 0, run["planned"]


def _both_notes(one: str, other: str) -> str:
    """The longer where it has all lines of the other; or else the lines of both.

    Sorted, since of two notes none is the first: whatever is merged first, it comes out
    the same.
    """
    lines = {text: set(text.splitlines()) for text in (one, other)}
    if lines[one] == lines[other]:
        return min(one, other)
    if lines[one] < lines[other]:
        return other
    if lines[other] < lines[one]:
        return one
    return "\n".join(sorted(lines[one] | lines[other]))


def _copy_tags(reading: Session, writing: Session, source_id: int, run_id: int) -> None:
    tag = models.RunTag

    def tags(session: Session, of: int) -> set[str]:
        return set(session.scalars(select(tag.tag).where(tag.run_id == of)))

    new = tags(reading, source_id) - tags(writing, run_id)
    rows = [{"run_id": run_id, "tag": word} for word in sorted(new)]
    insert_rows(writing, tag, rows)


def _copy_attempts(
    reading: Session, writing: Session, source_id: int, run_id: int
) -> None:
    table = _table(models.Attempt)

    def attempts(session: Session, of: int) -> dict[tuple[int, int], Row]:
        rows = session.execute(select(table).where(table.c.run_id == of)).mappings()
        return {(row["position"], row["number"]): _without_ids(row) for row in rows}

    known = attempts(writing, run_id)
    new = [row for key, row in attempts(reading, source_id).items() if key not in known]
    insert_rows(writing, models.Attempt, [{"run_id": run_id, **row} for row in new])


def _copy_trials(
    reading: Session, writing: Session, source_id: int, run_id: int
) -> int:
    """Copy those that the target does not have; returns how many.

    Of one that was run again since it was copied, the last execution is the trial.
    """
    ours, theirs = _slots(reading, source_id), _slots(writing, run_id)
    nothing = _Slot(0, 0)
    missing = [p for p in sorted(ours) if ours[p].attempts > theirs.get(p, nothing)[1]]
    for positions in query.parts(missing, BATCH):
        older = [theirs[p].trial_id for p in positions if p in theirs]
        writing.execute(delete(models.Trial).where(models.Trial.id.in_(older)))
        contents = _contents(reading, [ours[p].trial_id for p in positions])
        _store(writing, run_id, contents)
    return len(missing)


def _store(writing: Session, run_id: int, trials: Sequence[_TrialContent]) -> None:
    belongings: dict[type[models.Base], list[Row]] = {kind: [] for kind in _OF_TRIAL}
    for trial in trials:
        row = {
            **trial.own,
            "run_id": run_id,
            "case_id": registered(writing, models.ExperimentCase, trial.case),
            "machine_id": trial.machine
            and registered(writing, models.Machine, trial.machine),
        }
        trial_id = insert_row(writing, models.Trial, row)
        for kind, rows in trial.belongings.items():
            belongings[kind] += ({"trial_id": trial_id, **row} for row in rows)
    for kind, rows in belongings.items():
        if rows:
            writing.connection().execute(insert(_table(kind)), rows)


# ---------------------------------------------------------------- calibrations


def _machines_of(session: Session, run_ids: Sequence[int] | None) -> dict[int, Row]:
    """The machines of these runs, or all, by their ids."""
    wanted = select(models.Machine.id)
    if run_ids is not None:
        used = select(models.Trial.machine_id).where(models.Trial.run_id.in_(run_ids))
        wanted = wanted.where(models.Machine.id.in_(used))
    rows = _rows(session, models.Machine, session.scalars(wanted))
    return {row_id: row for row_id, row in rows.items() if row_id is not None}


def _copy_calibrations(
    reading: Session, target: ResultStore, machines: Mapping[int, Row]
) -> int:
    """Copy what was measured of these machines; returns how many values are new."""
    of_machine = dict(_calibrations(reading, machines))
    if not of_machine:
        return 0
    copied = 0
    with target.transaction() as writing:
        for source_id, values in of_machine.items():
            machine_id = registered(writing, models.Machine, machines[source_id])
            known = dict(_calibrations(writing, [machine_id])).get(machine_id, {})
            rows = [
                {"machine_id": machine_id, **row}
                for key, row in values.items()
                if key not in known
            ]
            insert_rows(writing, models.Calibration, rows)
            copied += len(rows)
    return copied


def _calibrations(
    session: Session, machine_ids: Iterable[int]
) -> Iterator[tuple[int, dict[tuple[str, Any], Row]]]:
    """What was measured of each machine, by name and moment, as it was stored."""
    table = _table(models.Calibration)
    for machine_id in machine_ids:
        statement = select(table).where(table.c.machine_id == machine_id)
        rows = session.execute(statement.order_by(table.c.id)).mappings().all()
        if rows:
            yield (
                machine_id,
                {(row["name"], row["measured_at"]): _without_ids(row) for row in rows},
            )
