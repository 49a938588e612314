"""Which stored cases a word on the command line means: a run, a case, or a query.

A selection is a list of conditions, `name=value` or `name~part`, with commas between
them. A number alone is a run.
"""

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from sqlalchemy.orm import Session

from tlbench.db import query
from tlbench.db.query import CaseRecord, MachineRecord, RunRecord
from tlbench.errors import ReportError, SuiteError
from tlbench.reports.cases import CaseTrials, flatten, gather
from tlbench.suites.model_spec import read_option
from tlbench.suites.names import did_you_mean, model_name, parse_model

MOST_NAMED = 10
"""Values that an error lists; of more it says that there are more."""
WAYS_TO_SELECT = (
    "a run (3), a case (case=1a2b3c4d) or conditions"
    " (model=ViT-B/16,mode=infer,batch_size=8) would be right"
)


def _is(actual: object, wanted: str) -> bool:
    if actual is None:
        return wanted in ("null", "none")
    value = read_option(wanted)
    if isinstance(actual, bool) or isinstance(value, bool):
        return actual is value
    return actual == value or str(actual) == wanted


def _holds(actual: object, part: str) -> bool:
    """Whether the value has the part anywhere; * and ? stand for what is not known."""
    return fnmatchcase(str(actual), f"*{part.replace('[', '[[]')}*")


OPERATORS: dict[str, Callable[[object, str], bool]] = {"=": _is, "~": _holds}
_CONDITION = re.compile(rf"\s*([\w.]+)\s*([{''.join(OPERATORS)}])(.*)", re.DOTALL)


@dataclass(frozen=True)
class Condition:
    """What one setting of a case, or its place, has to be."""

    name: str
    operator: str
    value: str

    def __str__(self) -> str:
        return f"{self.name}{self.operator}{self.value}"

    def is_met(self, fields: Mapping[str, object]) -> bool:
        if self.name == "case" and self.operator == "=":
            return str(fields["case"]).startswith(self.value)
        if self.name not in fields:
            return False
        return OPERATORS[self.operator](fields[self.name], self.value)


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
        return tuple(int(c.value) for c in self.conditions if c.name == "run")

    @property
    def is_of_whole_runs(self) -> bool:
        return all(condition.name == "run" for condition in self.conditions)

    def is_met(self, fields: Mapping[str, object]) -> bool:
        return all(
            any(condition.is_met(fields) for condition in alternatives)
            for alternatives in self.alternatives()
        )

    def in_runs(self, run_ids: Iterable[int]) -> "Selection":
        """The same conditions, in these runs."""
        others = [c for c in self.conditions if c.name != "run"]
        runs = [Condition("run", "=", str(run_id)) for run_id in run_ids]
        return Selection(",".join(map(str, [*others, *runs])), (*others, *runs))

    def alternatives(self) -> list[list[Condition]]:
        """The conditions, those together of which one has to be met."""
        groups: dict[str, list[Condition]] = {}
        for condition in self.conditions:
            is_one_of = condition.operator == "="
            key = condition.name if is_one_of else str(condition)
            groups.setdefault(key, []).append(condition)
        return list(groups.values())


def parse_selection(text: str) -> Selection:
    """Read `3`, `case=1a2b3c4d` or `model~TL,mode=infer,run=3`."""
    words = list(_split(text))
    if len(words) == 1 and words[0].strip().isdecimal():
        words = [f"run={words[0].strip()}"]
    return Selection(text, tuple(_condition(word, text) for word in words))


def _split(text: str) -> Iterator[str]:
    """The parts between commas; one in parentheses, or before no condition, is none."""
    start = depth = 0
    for place, character in enumerate(text):
        depth += (character == "(") - (character == ")")
        rest = text[place + 1 :]
        if character == "," and depth <= 0 and _CONDITION.match(rest.partition(",")[0]):
            yield text[start:place]
            start = place + 1
    yield text[start:]


def _condition(word: str, text: str) -> Condition:
    match = _CONDITION.fullmatch(word)
    if match is None or not match[3].strip():
        what = "names nothing" if not word.strip() else "is not understood"
        raise ReportError(f"{text!r}: {word.strip()!r} {what}; {WAYS_TO_SELECT}")
    name, operator, value = match[1], match[2], match[3].strip()
    if name == "run" and (operator != "=" or not value.isdecimal()):
        raise ReportError(
            f"{text!r}: {word.strip()!r} is no run; its number, such as run=3, would"
            " be right"
        )
    if name == "model" and operator == "=":
        value = _printed(value)
    return Condition(name, operator, value)


def _printed(name: str) -> str:
    """A model's name as it is stored: fractions are blocks, the order is one."""
    try:
        return model_name(parse_model(name))
    except SuiteError:
        return name  # a suite may call its models as it likes


# ---------------------------------------------------------------- what it finds


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
    records = query.cases(session, [run.id for run in runs] or None)
    found = [record for record in records if selection.is_met(fields(record))]
    if not found:
        raise ReportError(_nothing_found(selection, records))
    _check_identity(selection, found)
    if not runs:  # newest first
        runs = (query.run(session, found[0].run_id),)
    return _read(session, selection, runs)


def _read(
    session: Session, selection: Selection, runs: tuple[RunRecord, ...]
) -> Selected:
    run_ids = [run.id for run in runs]
    trials = query.trials(session, run_ids)
    wanted = {
        (trial.run_id, trial.identity)
        for trial in trials
        if selection.is_met(
            fields(CaseRecord(trial.run_id, trial.identity, trial.model, trial.case))
        )
    }
    neighbours = tuple(
        case
        for run in runs
        for case in gather([run], [t for t in trials if t.run_id == run.id])
    )
    return Selected(
        selection=selection,
        runs=runs,
        cases=tuple(
            c for c in neighbours if (c.run_id, c.trials[0].identity) in wanted
        ),
        neighbours=neighbours,
        machines={m.id: m for m in query.machines(session, run_ids)},
    )


def fields(record: CaseRecord) -> dict[str, Any]:
    """All that a condition may name: the place, the model, and every setting."""
    settings = dict(flatten(record.case.model_dump(mode="json")))
    place = {"run": record.run_id, "case": record.identity}
    return settings | place | {"model": record.model}


def _check_identity(selection: Selection, found: Sequence[CaseRecord]) -> None:
    """See that `case=` means one case only."""
    identities = sorted({record.identity for record in found})
    for condition in selection.conditions:
        if condition.name != "case" or condition.operator != "=":
            continue
        fitting = [i for i in identities if i.startswith(condition.value)]
        if len(fitting) > 1:
            raise ReportError(
                f"{selection}: {condition} begins {len(fitting)} cases"
                f" ({_listed(i[:12] for i in fitting)}); more digits would be right"
            )


def _nothing_found(selection: Selection, records: Sequence[CaseRecord]) -> str:
    """Words for a selection that nothing meets, with what there is."""
    if not records:
        return f"{selection}: the database holds no trial there yet"
    rows = [fields(record) for record in records]
    names = dict.fromkeys(name for row in rows for name in row)
    for alternatives in selection.alternatives():
        name = alternatives[0].name
        told = " or ".join(map(str, alternatives))
        if name not in names:
            return (
                f"{selection}: {name!r} is no setting of a stored case"
                f"{did_you_mean(name, names)}"
            )
        if not any(c.is_met(row) for c in alternatives for row in rows):
            there_are = _listed(_shown(name, row[name]) for row in rows if name in row)
            return f"{selection}: no stored case has {told}; there are {there_are}"
    return f"{selection}: no stored case meets all of it at once"


def _shown(name: str, value: object) -> str:
    if name == "case":
        return str(value)[:12]
    return str(value) if isinstance(value, str) else json.dumps(value)


def _listed(values: Iterable[str]) -> str:
    different = list(dict.fromkeys(values))
    listed = ", ".join(different[:MOST_NAMED])
    return f"{listed} and more" if len(different) > MOST_NAMED else listed
