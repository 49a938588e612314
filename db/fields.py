"""What a condition or a column may name, and where that is stored.

Runs, cases and machines are few, and so read whole, once; trials and metrics are many,
and stay where they are.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from sqlalchemy import func, select
from sqlalchemy.orm import InstrumentedAttribute, Session

from tlbench.db import models
from tlbench.db.connection import ById
from tlbench.db.settings import flatten, settings
from tlbench.db.views import MAIN_METRICS
from tlbench.errors import ReportError
from tlbench.result import WHOLE_JOB
from tlbench.suites.names import did_you_mean

Place = Literal["trial", "run", "case", "machine", "metric"]
Values = Mapping[str, Any]
"""What one row of a table has, by the names of its fields."""

MOMENTS = ("since", "until")
"""Conditions of when a trial began; its column is `started_at`."""

TRIAL_TEXTS: dict[str, InstrumentedAttribute[Any]] = {
    "model": models.Trial.model,
    "status": models.Trial.status,
    "validity": models.Trial.validity,
    "model.name": models.Trial.given_name,
    "reason": models.Trial.reason,
}
TRIAL_NUMBERS: dict[str, InstrumentedAttribute[Any]] = {
    "trial": models.Trial.id,
    "repeat": models.Trial.repeat,
    "position": models.Trial.position,
    "seed": models.Trial.seed,
    "wall_time_s": models.Trial.wall_time_s,
    "attempts": models.Trial.attempts,
}
TRIAL_COLUMNS = {
    **TRIAL_NUMBERS,
    **TRIAL_TEXTS,
    "started_at": models.Trial.started_at,
    "command": models.Trial.command,
}
RUN_NAMES = ("run", "suite", "tag", "origin", "version")
MACHINE_COLUMNS = {
    "machine": models.Machine.hostname,
    "gpu": models.Machine.gpu_name,
    "gpu_count": models.Machine.gpu_count,
    "gpu_driver": models.Machine.gpu_driver,
    "cpu": models.Machine.cpu_model,
    "cpu_cores": models.Machine.cpu_cores,
    "os": models.Machine.os,
    "python": models.Machine.python,
    "commit": models.Machine.commit,
}
LIBRARIES = ("torch", "cuda", "nccl", "deepspeed", "ray", "timm")
NO_MACHINE: Values = dict.fromkeys((*MACHINE_COLUMNS, *LIBRARIES))
"""Of a trial that no process of ever came up."""


@dataclass(frozen=True)
class Field:
    """One thing that is known of a trial."""

    name: str
    place: Place


class Fields:
    """Everything that trials of one database can be asked for."""

    def __init__(self, session: Session) -> None:
        self._session = session

    @cached_property
    def runs(self) -> Mapping[int, Values]:
        tags = defaultdict(list)
        tag = models.RunTag
        for run_id, word in self._session.execute(
            select(tag.run_id, tag.tag).order_by(tag.tag)
        ):
            tags[run_id].append(word)
        run = models.Run
        rows = self._session.execute(
            select(run.id, run.suite, run.origin, run.version, run.started_at)
        )
        return ById(
            {
                row.id: {
                    "run": row.id,
                    "suite": row.suite,
                    "tag": tuple(tags[row.id]),
                    "origin": row.origin,
                    "version": row.version,
                    "started_at": row.started_at,
                }
                for row in rows
            }
        )

    @cached_property
    def cases(self) -> Mapping[int, Values]:
        rows = self._session.execute(select(models.ExperimentCase.__table__))
        return ById({row.id: {"case": row.identity, **_settings(row)} for row in rows})

    @cached_property
    def machines(self) -> Mapping[int | None, Values]:
        columns = [column.label(name) for name, column in MACHINE_COLUMNS.items()]
        rows = self._session.execute(
            select(models.Machine.id, models.Machine.versions, *columns)
        )
        known = {row.id: _machine(row._asdict()) for row in rows}
        return ById({None: NO_MACHINE, **known})

    @cached_property
    def settings(self) -> frozenset[str]:
        """Names of all settings that some stored case has."""
        return frozenset(name for case in self.cases.values() for name in case)

    @cached_property
    def metrics(self) -> Mapping[str, None]:
        """Names of all metrics of whole jobs, in the order of the alphabet.

        One seek in the index for each name: `SELECT DISTINCT` would read every row.
        """
        metric = models.Metric
        of_jobs = metric.rank == WHOLE_JOB
        first = select(func.min(metric.name).label("name")).where(of_jobs)
        names = first.cte("names", recursive=True)
        later = select(func.min(metric.name)).where(of_jobs, metric.name > names.c.name)
        names = names.union_all(
            select(later.correlate(names).scalar_subquery()).where(
                names.c.name.is_not(None)
            )
        )
        statement = select(names.c.name).where(names.c.name.is_not(None))
        return dict.fromkeys(self._session.scalars(statement))

    def find(self, name: str) -> Field:
        """What a name means; an error proposes another where it means nothing."""
        if name in _KNOWN_FROM_THE_START:
            return Field(name, _KNOWN_FROM_THE_START[name])
        if name in self.metrics or name in MAIN_METRICS:  # even where no trial has it
            return Field(name, "metric")
        fitting = self._settings_called(name)
        if len(fitting) == 1:
            return Field(fitting[0], "case")
        if fitting:
            raise ReportError(
                f"{name!r} may be {' or '.join(fitting)}; the whole name would be right"
            )
        raise ReportError(
            f"{name!r} is no setting of a stored case, no field and no metric"
            f"{did_you_mean(name, self._all_names())}"
        )

    def names(self) -> list[str]:
        """Every column there is, those of the trial first, the metrics last."""
        return [
            *TRIAL_COLUMNS,
            *RUN_NAMES,
            *NO_MACHINE,
            *sorted(self.settings),
            *self.metrics,
        ]

    def _settings_called(self, name: str) -> list[str]:
        """The setting of this name, or else those whose name ends in it."""
        if name in self.settings:
            return [name]
        return sorted(known for known in self.settings if known.endswith(f".{name}"))

    def _all_names(self) -> list[str]:
        short = (name.rpartition(".")[2] for name in self.settings)
        return list(dict.fromkeys([*self.names(), *MAIN_METRICS, *MOMENTS, *short]))


_PLACES: dict[Place, Iterable[str]] = {
    "trial": (*TRIAL_COLUMNS, *MOMENTS),
    "run": RUN_NAMES,
    "machine": NO_MACHINE,
    "case": ("case",),
}
_KNOWN_FROM_THE_START = {name: p for p, names in _PLACES.items() for name in names}


def _machine(row: Mapping[str, Any]) -> Values:
    versions = {name: row["versions"].get(name) for name in LIBRARIES}
    return {**{name: row[name] for name in MACHINE_COLUMNS}, **versions}


def _settings(row: Any) -> Values:
    """Of a case of tlbench all; of another tool's those that it told."""
    if _is_own(row.canonical):
        return settings(row.canonical)
    told = {
        "mode": row.mode,
        "data": row.data,
        "model.image_size": row.image_size,
        "batch_size": row.batch_size,
        "precision": row.precision,
        "device": row.device,
        "parallelism.world_size": row.world_size,
        "parallelism.zero_stage": row.zero_stage,
    }
    return dict(flatten(row.canonical)) | told


def _is_own(canonical: Values) -> bool:
    """Whether it is the canonical form of a `Case`, whose model has its sizes."""
    model = canonical.get("model")
    return isinstance(model, Mapping) and "patch_size" in model
