"""Trials by conditions: which meet them, what is known of them, and why none does.

What is few (cases, runs, machines, the names of models) is tested in Python and goes
into the statement as numbers; metrics are searched by their index.
"""

import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from functools import cached_property
from typing import Any, NamedTuple

from sqlalchemy import (
    BindParameter,
    ColumnElement,
    Executable,
    Select,
    bindparam,
    false,
    func,
    or_,
    select,
)
from sqlalchemy.orm import InstrumentedAttribute, Session

from tlbench.db import models
from tlbench.db.conditions import NOTHING, Condition, alternatives, read_moment
from tlbench.db.connection import ById
from tlbench.db.fields import MOMENTS, TRIAL_COLUMNS, TRIAL_TEXTS, Field, Fields
from tlbench.db.query import parts
from tlbench.errors import ReportError
from tlbench.result import WHOLE_JOB

MOST_NAMED = 10
"""Values that a message lists; of more it says that there are more."""
FEW = 0.25
"""Share of all trials up to which values are sought trial by trial, and beyond which
the whole of a metric is read: a seek costs about as much as four rows in a row."""
ROWS_AT_ONCE = 500

_Column = InstrumentedAttribute[Any]


class Key(NamedTuple):
    """One trial, and what it belongs to."""

    trial: int
    run: int
    case: int
    machine: int | None


class _Group(NamedTuple):
    """Conditions of which one has to be met, and what they are of."""

    field: Field
    conditions: Sequence[Condition]

    def is_met(self, actual: object) -> bool:
        return any(condition.is_met(actual) for condition in self.conditions)

    def __str__(self) -> str:
        return " or ".join(map(str, self.conditions))


class Search:
    """The trials that meet all conditions, newest first."""

    def __init__(
        self,
        session: Session,
        conditions: Iterable[Condition],
        *,
        now: datetime | None = None,
    ) -> None:
        """Raise an error where a condition names nothing, or its value makes no sense.

        Args:
            session: Of the database.
            conditions: None: all trials.
            now: What `since=30d` counts back from.
        """
        self._session, self._now = session, now
        self.fields = Fields(session)
        self._groups = [
            _Group(self.fields.find(group[0].name), group)
            # An empty database knows no metric and no setting by name.
            for group in (alternatives(conditions) if self._stored else ())
        ]
        self._clauses = [self._clause(group) for group in self._groups]

    @cached_property
    def keys(self) -> list[Key]:
        row = models.Trial
        statement = self._trials(row.id, row.run_id, row.case_id, row.machine_id)
        ordered = statement.order_by(row.started_at.desc(), row.id.desc())
        return [Key._make(found) for found in self._read(ordered)]

    def values(self, names: Sequence[str], keys: Sequence[Key]) -> dict[str, list[Any]]:
        """A list for each name, with the value of every key, in base units."""
        if not keys:
            return {name: [] for name in names}
        fields = {name: self.fields.find(name) for name in names}
        measured = self._metrics(_of_place(fields, "metric"), keys)
        of_trials = self._columns(_of_place(fields, "trial"), keys)
        return {
            name: self._column(field, keys, measured, of_trials)
            for name, field in fields.items()
        }

    @cached_property
    def _stored(self) -> int:
        """How many trials there are, whatever the conditions."""
        return self._count([])

    def why_nothing(self) -> str:
        """Words for the first condition that no trial meets, with what there is."""
        runs = [group for group in self._groups if group.field.name == "run"]
        within = [self._clause(group) for group in runs]
        if not self._count(within):
            return self._without(runs)
        for group in self._groups:
            if group not in runs and not self._count([*within, self._clause(group)]):
                there_are = self._there_are(group.field, within)
                return f"no stored trial has {group}; there {there_are}"
        return "no stored trial meets all of it at once"

    def _without(self, runs: Sequence[_Group]) -> str:
        if runs and self._stored:
            there_are = self._there_are(runs[0].field, [])
            return f"no stored trial has {runs[0]}; there {there_are}"
        return "the database holds no trial yet; `tlbench run smoke` makes some"

    def _read(self, statement: Executable) -> Sequence[Any]:
        """Rows of plain values, past the session, which would look at each of them."""
        return self._session.connection().execute(statement).all()

    def _in_parts(self, statement: Executable) -> Iterator[Sequence[Any]]:
        """The same of many rows, some at a time.

        Python's garbage collector would go over all of them again and again while they
        are held at once, which took half of the time.
        """
        return self._session.connection().execute(statement).partitions(ROWS_AT_ONCE)

    # ------------------------------------------------------------ conditions as SQL

    def _trials(self, *columns: Any) -> Select[Any]:
        return select(*columns).where(*self._clauses)

    def _clause(self, group: _Group) -> ColumnElement[bool]:
        match group.field:
            case Field("started_at" | "since" | "until"):
                return or_(*map(self._moment, group.conditions))
            case Field("run", "run"):  # also those that have no trial
                return or_(
                    *(_compared(models.Trial.run_id, c) for c in group.conditions)
                )
            case Field(_, "run"):
                return _one_of(models.Trial.run_id, group, self.fields.runs)
            case Field(_, "case"):
                return _one_of(models.Trial.case_id, group, self.fields.cases)
            case Field(_, "machine"):
                return _one_of(models.Trial.machine_id, group, self.fields.machines)
            case Field(name, "trial") if name in TRIAL_TEXTS:
                return self._text(TRIAL_TEXTS[name], group)
            case Field(name, "trial"):
                return or_(
                    *(_compared(TRIAL_COLUMNS[name], c) for c in group.conditions)
                )
        return or_(*map(_of_metric, group.conditions))

    def _moment(self, condition: Condition) -> ColumnElement[bool]:
        if condition.name not in MOMENTS or condition.operator != "=":
            raise ReportError(
                f"{condition} is not understood; since=30d, since=2026-01-31 and"
                " until=2026-01-31 choose by time"
            )
        moment = read_moment(condition, self._now)
        started_at = models.Trial.started_at
        return (
            started_at >= moment if condition.name == "since" else started_at < moment
        )

    def _text(self, column: _Column, group: _Group) -> ColumnElement[bool]:
        """A condition of a text, tested on each different one that is stored."""
        texts = self._session.scalars(select(column).distinct())
        met = [text for text in texts if group.is_met(text)]
        return _in_or_null(column, met)

    # ------------------------------------------------------------ values

    def _column(
        self,
        field: Field,
        keys: Sequence[Key],
        measured: Mapping[str, Mapping[int, float | None]],
        of_trials: Mapping[str, Mapping[int, Any]],
    ) -> list[Any]:
        name = field.name
        match field.place:
            case "metric":
                return [measured[name].get(key.trial) for key in keys]
            case "trial":
                return [of_trials[name][key.trial] for key in keys]
            case "run":
                runs = self.fields.runs
                return [_shown(runs[key.run][name]) for key in keys]
            case "machine":
                machines = self.fields.machines
                return [machines[key.machine][name] for key in keys]
        cases = self.fields.cases
        return [cases[key.case].get(name) for key in keys]

    def _columns(
        self, names: Collection[str], keys: Sequence[Key]
    ) -> dict[str, dict[int, Any]]:
        row = models.Trial
        if not names:
            return {}
        columns = (row.id, *(TRIAL_COLUMNS[name] for name in names))
        rows = [
            found
            for clauses in self._sought(row.id, keys, self._clauses)
            for found in self._read(select(*columns).where(*clauses))
        ]
        return {
            name: ById({found[0]: found[place] for found in rows})
            for place, name in enumerate(names, start=1)
        }

    def _metrics(
        self, names: Collection[str], keys: Sequence[Key]
    ) -> dict[str, dict[int, float | None]]:
        """The named metrics by trial."""
        metric = models.Metric
        found = ById[dict[int, float | None]]({name: {} for name in names})
        if not names:
            return found
        statement = select(metric.trial_id, metric.name, metric.value).where(
            metric.rank == WHOLE_JOB
        )
        # Most of a trial's metrics are found faster together than by their names.
        others = set(self.fields.metrics) - set(names)
        if len(others) > len(names):
            statement = statement.where(metric.name.in_(names))
        for clauses in self._sought(metric.trial_id, keys, []):
            for rows in self._in_parts(statement.where(*clauses)):
                for trial_id, name, value in rows:
                    if name not in others:
                        found[name][trial_id] = value
        return found

    def _sought(
        self,
        column: _Column,
        keys: Sequence[Key],
        otherwise: Sequence[ColumnElement[bool]],
    ) -> Iterator[Sequence[ColumnElement[bool]]]:
        """What finds the rows of these trials: their ids, or of many all there are."""
        if len(keys) > FEW * self._stored:
            yield otherwise
            return
        for some in parts(keys):
            yield [_in(column, [key.trial for key in some])]

    # ------------------------------------------------------------ why nothing is found

    def _count(self, clauses: Sequence[ColumnElement[bool]]) -> int:
        statement = select(func.count(models.Trial.id)).where(*clauses)
        return self._session.scalars(statement).one()

    def _there_are(self, field: Field, within: Sequence[ColumnElement[bool]]) -> str:
        """What trials have of a field, in words."""
        if field.place == "metric":
            return self._range(field.name, within)
        if field.name in MOMENTS:
            first, last = self._session.execute(
                select(
                    func.min(models.Trial.started_at), func.max(models.Trial.started_at)
                ).where(*within)
            ).one()
            return f"are trials from {first.astimezone():%Y-%m-%d %H:%M} to" + (
                f" {last.astimezone():%Y-%m-%d %H:%M}"
            )
        return f"are {self._different(field, within)}"

    def _range(self, name: str, within: Sequence[ColumnElement[bool]]) -> str:
        metric = models.Metric
        low, high = self._session.execute(
            select(func.min(metric.value), func.max(metric.value))
            .join(models.Trial)
            .where(metric.name == name, metric.rank == WHOLE_JOB, *within)
        ).one()
        if low is None:
            return "is no value of it"
        return f"are values from {low:.6g} to {high:.6g}"

    def _different(self, field: Field, within: Sequence[ColumnElement[bool]]) -> str:
        column, rows = self._home(field)
        used = self._session.scalars(
            select(column).where(*within).distinct().order_by(column)
        ).all()
        values = [
            value if rows is None else rows[value].get(field.name) for value in used
        ]
        words = list(dict.fromkeys(_worded(field.name, value) for value in values))
        shown = ", ".join(words[:MOST_NAMED])
        return f"{shown} and more" if len(words) > MOST_NAMED else shown

    def _home(
        self, field: Field
    ) -> tuple[_Column, Mapping[Any, Mapping[str, Any]] | None]:
        """The column of a trial that a field hangs on, and what that leads to."""
        match field.place:
            case "run":
                return models.Trial.run_id, self.fields.runs
            case "case":
                return models.Trial.case_id, self.fields.cases
            case "machine":
                return models.Trial.machine_id, self.fields.machines
        return TRIAL_COLUMNS[field.name], None


def _of_place(fields: Mapping[str, Field], place: str) -> list[str]:
    """The names of the fields there, each once."""
    return list(dict.fromkeys(f.name for f in fields.values() if f.place == place))


def _one_of(
    column: _Column, group: _Group, rows: Mapping[Any, Mapping[str, Any]]
) -> ColumnElement[bool]:
    """Trials that refer to a row which meets the condition."""
    name = group.field.name
    return _in_or_null(
        column, [id_ for id_, row in rows.items() if group.is_met(row.get(name))]
    )


def _in_or_null(column: _Column, values: Collection[Any]) -> ColumnElement[bool]:
    known = [value for value in values if value is not None]
    clause = _in(column, known) if known else false()
    return or_(clause, column.is_(None)) if None in values else clause


def _in(column: _Column, values: Sequence[Any]) -> ColumnElement[bool]:
    """One of these, however many: written out, they do not count as parameters."""
    written_out: BindParameter[Any] = bindparam(
        None, values, expanding=True, literal_execute=True
    )
    return column.in_(written_out)


def _of_metric(condition: Condition) -> ColumnElement[bool]:
    """Trials with such a value of the whole job; no value meets nothing."""
    metric = models.Metric
    met = select(metric.trial_id).where(
        metric.name == condition.name,
        metric.rank == WHOLE_JOB,
        _compared(metric.value, condition),
    )
    return models.Trial.id.in_(met)


def _compared(column: _Column, condition: Condition) -> ColumnElement[bool]:
    number = condition.number()
    # A whole one as such: PostgreSQL would search an index of integers in vain.
    wanted = int(number) if number.is_integer() else number
    return _COMPARED[condition.operator](column, wanted)


_COMPARED: dict[str, Callable[[_Column, float], ColumnElement[bool]]] = {
    "=": lambda column, value: column == value,
    "!=": lambda column, value: column != value,
    "<": lambda column, value: column < value,
    "<=": lambda column, value: column <= value,
    ">": lambda column, value: column > value,
    ">=": lambda column, value: column >= value,
}


def _shown(value: object) -> object:
    """Several tags as one text."""
    return ", ".join(value) if isinstance(value, tuple) else value


def _worded(name: str, value: object) -> str:
    if name == "case":
        return str(value)[:12]
    if isinstance(value, tuple):
        return str(_shown(value)) or NOTHING[0]
    if value is None:
        return NOTHING[0]
    return str(value) if isinstance(value, str) else json.dumps(value)
