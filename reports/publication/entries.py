"""What a figure of the publication is made of: models, printed values and own cases."""

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from tlbench.reports.cases import CaseTrials, Summary
from tlbench.reports.cells import Cell, missing, quantity_cell
from tlbench.reports.quantities import Quantity
from tlbench.suites.model_spec import GlobalPool, ModelSpec
from tlbench.suites.names import model_name, parse_model
from tlbench.suites.published import PublishedResult

Printed = tuple[str | None, GlobalPool | None]
"""A published model: under which name ours find it, and how it pools its tokens."""


@dataclass(frozen=True)
class Entry:
    """One model of a figure: what is printed of it, and the cases that measured it."""

    name: str
    """Ours; of what cannot be built, what the publication calls it."""
    spec: ModelSpec | None
    """None: there is no such model here."""
    row: PublishedResult | None
    """None: it is not published, and was measured here all the same."""
    cases: tuple[CaseTrials, ...] = ()
    """Of every mode and setting; none: it is quoted alone."""

    @property
    def plain_name(self) -> str:
        """What the model is called with nothing that reduces its tokens."""
        return self.name if self.spec is None else model_name(self.spec.plain)


@dataclass(frozen=True)
class Value:
    """One value of an entry: its cell of the table, and where it is drawn."""

    cell: Cell
    value: float | None = None
    """In the unit that is shown; None: there is nothing to draw."""
    low: float = 0.0
    high: float = 0.0
    is_misprint: bool = False

    @property
    def has_interval(self) -> bool:
        return self.low < self.high


@dataclass(frozen=True)
class Panel:
    """One quantity of a figure: how an entry's own and printed values are found."""

    heading: str
    own: Callable[[Entry], Value] | None = None
    published: Callable[[Entry], Value] | None = None

    def values(self, entry: Entry) -> tuple[Value, ...]:
        """Own and printed, as far as there is something to draw."""
        found = (self.own_value(entry), self.published_value(entry))
        return tuple(mark for mark in found if mark is not None)

    def own_value(self, entry: Entry) -> Value | None:
        return _drawn(self.own, entry)

    def published_value(self, entry: Entry) -> Value | None:
        return _drawn(self.published, entry)


def exact(value: float, text: str, *, hint: str = "") -> Value:
    """A value that is counted and has no error."""
    return Value(Cell(text, hint=hint, key=value), value, value, value)


def nothing(reason: str) -> Value:
    return Value(missing(reason))


def measured(quantity: Quantity, summary: Summary) -> Value:
    """A metric of a case, with its interval."""
    cell = quantity_cell(quantity, summary)
    if summary.value is None:
        return Value(cell)
    low, high = summary.interval or (summary.value, summary.value)
    value, low, high = (quantity.scale * x for x in (summary.value, low, high))
    return Value(cell, value, low, high)


def as_published(spec: ModelSpec) -> ModelSpec:
    """The model with what the publication has where ours are allowed to differ.

    That is TokenLearner v1, which sums over the positions, and the mean of the tokens
    where ViViT, as it is quoted, has a class token.
    """
    updates: dict[str, object] = {}
    if spec.token_learner is not None:
        published = {"version": "v1", "pooling": "sum"}
        updates["token_learner"] = spec.token_learner.model_copy(update=published)
    if spec.global_pool == "token":
        updates["global_pool"] = "avg"
    return spec.model_copy(update=updates)


def published_name(spec: ModelSpec) -> str:
    """The name under which own models and published rows find each other."""
    return model_name(as_published(spec))


def row_name(row: PublishedResult) -> str | None:
    """The same of a published row; None where no model can be built of it."""
    return None if row.model is None else published_name(parse_model(row.model))


def make_entries(
    rows: Iterable[PublishedResult], cases: Sequence[CaseTrials]
) -> list[Entry]:
    """One for every row and own model of it, then one for what is not published.

    Where one model is printed with a class token and without, each of ours belongs to
    the row that has what it has.
    """
    own: dict[str, list[CaseTrials]] = defaultdict(list)
    for case in cases:
        own[case.model].append(case)
    specs = {model: found[0].case.model for model, found in own.items()}
    listed = list(rows)
    printed = {_printed(row) for row in listed}
    entries = [entry for row in listed for entry in _of_row(row, own, specs, printed)]
    known = {row_name(row) for row in listed}
    return entries + [
        _own_entry(model, None, found)
        for model, found in own.items()
        if published_name(specs[model]) not in known
    ]


def _printed(row: PublishedResult) -> Printed:
    spec = None if row.model is None else parse_model(row.model)
    return row_name(row), None if spec is None else spec.global_pool


def _of_row(
    row: PublishedResult,
    own: Mapping[str, Sequence[CaseTrials]],
    specs: Mapping[str, ModelSpec],
    printed: Collection[Printed],
) -> list[Entry]:
    name, pool = _printed(row)
    found = [
        _own_entry(model, row, own[model])
        for model, spec in specs.items()
        if published_name(spec) == name
        and (spec.global_pool == pool or (name, spec.global_pool) not in printed)
    ]
    if found:
        return found
    spec = None if row.model is None else parse_model(row.model)
    return [Entry(row.model or row.label, spec, row)]


def _own_entry(
    model: str, row: PublishedResult | None, cases: Sequence[CaseTrials]
) -> Entry:
    return Entry(model, cases[0].case.model, row, tuple(cases))


def _drawn(find: Callable[[Entry], Value] | None, entry: Entry) -> Value | None:
    mark = find(entry) if find else None
    return mark if mark is not None and mark.value is not None else None
