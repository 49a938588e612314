"""Which stored cases a word on the command line means: a run, a case, or a query.

The language is that of `tlbench.db.conditions`. A case is selected where any of its
trials meets the conditions, and then with all of them.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from sqlalchemy.orm import Session

from tlbench.db import query
from tlbench.db.conditions import Condition, parse_conditions
from tlbench.db.connection import ById
from tlbench.db.query import MachineRecord, RunRecord
from tlbench.db.search import Search
from tlbench.errors import ReportError
from tlbench.reports.cases import CaseTrials, gather

MOST_NAMED = 10
"""Cases that an error lists; of more it says that there are more."""


@dataclass(frozen=True)
class Selection:
    """Cases by their conditions; several of the same `name=` mean any of them."""

    text: str
    conditions: tuple[Condition, ...]

    def __str__(self) -> str:
        return self.text

    @property
    def run_ids(self) -> tuple[int, ...]:
        """The runs it names; none: the newest that has matches."""
        return tuple(int(c.value) for c in self.conditions if _is_run(c))

    @property
    def is_of_whole_runs(self) -> bool:
        return all(map(_is_run, self.conditions))

    def in_runs(self, run_ids: Iterable[int]) -> "Selection":
        """The same conditions, in these runs."""
        others = [c for c in self.conditions if not _is_run(c)]
        runs = [Condition("run", "=", str(run_id)) for run_id in run_ids]
        return Selection(",".join(map(str, [*others, *runs])), (*others, *runs))


def parse_selection(text: str) -> Selection:
    """Read `3`, `case=1a2b3c4d` or `model~TL,mode=infer,run=3`."""
    return Selection(text, parse_conditions(text))


def _is_run(condition: Condition) -> bool:
    return condition.name == "run" and condition.operator == "="


@dataclass(frozen=True)
class Selected:
    """What a selection has found."""

    selection: Selection
    runs: tuple[RunRecord, ...]
    cases: tuple[CaseTrials, ...]
    """The cases that meet it, those of each run apart."""
    neighbours: tuple[CaseTrials, ...]
    """All cases of these runs."""
    machines: Mapping[int, MachineRecord]

    def with_run(self, run_id: int) -> Selection:
        """The same cases in these runs and in one more."""
        return self.selection.in_runs([*(run.id for run in self.runs), run_id])

    @property
    def trial_ids(self) -> frozenset[int]:
        return frozenset(trial.id for case in self.cases for trial in case.trials)


def select(session: Session, selection: Selection) -> Selected:
    """Find what is selected; an error says which condition nothing meets."""
    runs = tuple(query.run(session, run_id) for run_id in selection.run_ids)
    try:
        search = Search(session, selection.conditions)
    except ReportError as error:
        raise ReportError(f"{selection}: {error}") from error
    if not search.keys:
        raise ReportError(f"{selection}: {search.why_nothing()}")
    _check_own(selection, search, runs)
    _check_identity(selection, search)
    if not runs:
        runs = (query.run(session, _newest_run(search)),)
    return _read(session, selection, runs, {key.trial for key in search.keys})


def _check_own(selection: Selection, search: Search, runs: Iterable[RunRecord]) -> None:
    """Refuse what another tool has measured: it has no cases that could be compared."""
    named = [run for run in runs if run.origin is not None]
    if named or not _own_runs(search):
        told = f"run {named[0].id}" if named else "all that is found"
        raise ReportError(f"{selection}: {told} {query.IS_FOREIGN}")


def _own_runs(search: Search) -> set[int]:
    """The runs with matches that tlbench has measured."""
    found = {key.run for key in search.keys}
    return {run_id for run_id in found if search.fields.runs[run_id]["origin"] is None}


def _newest_run(search: Search) -> int:
    runs = search.fields.runs
    return max(
        _own_runs(search), key=lambda run_id: (runs[run_id]["started_at"], run_id)
    )


def _read(
    session: Session,
    selection: Selection,
    runs: tuple[RunRecord, ...],
    wanted: Collection[int],
) -> Selected:
    """All cases of the runs, and those of which any trial is wanted."""
    run_ids = [run.id for run in runs]
    trials = query.trials(session, run_ids)
    neighbours = tuple(
        case
        for run in runs
        for case in gather([run], [t for t in trials if t.run_id == run.id])
    )
    return Selected(
        selection=selection,
        runs=runs,
        cases=tuple(
            case for case in neighbours if any(t.id in wanted for t in case.trials)
        ),
        neighbours=neighbours,
        machines=ById({m.id: m for m in query.machines(session, run_ids)}),
    )


def _check_identity(selection: Selection, search: Search) -> None:
    """See that `case=` means one case only."""
    cases = search.fields.cases
    identities = sorted({cases[key.case]["case"] for key in search.keys})
    for condition in selection.conditions:
        if condition.name != "case" or condition.operator != "=":
            continue
        fitting = [i[:12] for i in identities if i.startswith(condition.value)]
        if len(fitting) > 1:
            more = " and more" if len(fitting) > MOST_NAMED else ""
            raise ReportError(
                f"{selection}: {condition} begins {len(fitting)} cases"
                f" ({', '.join(fitting[:MOST_NAMED])}{more}); more digits would be"
                " right"
            )
