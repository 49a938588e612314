"""Trials as a list: one row each, or one row for each group of them.

What `tlbench query` prints, `query_frame` gives and a program reads from CSV or JSON.
"""

from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from statistics import median
from typing import Any

from sqlalchemy.orm import Session

from tlbench.db.conditions import Condition
from tlbench.db.search import Key, Search
from tlbench.errors import ReportError
from tlbench.suites.names import did_you_mean

SETTINGS = (
    "trial",
    "run",
    "started_at",
    "model",
    "mode",
    "batch_size",
    "precision",
    "gpu",
    "machine",
    "world_size",
    "zero_stage",
    "status",
)
METRICS = (
    "throughput_samples_per_s",
    "step_time_p50_s",
    "peak_memory_allocated_bytes",
    "peak_memory_host_growth_bytes",
    "top1_percent",
    "map_percent",
    "fewshot_5_top1_percent",
    "energy_j_per_sample",
    "mfu",
    "macs",
    "params",
)
SAYS_NOTHING: Mapping[str, Hashable] = {"world_size": 1, "zero_stage": 0}
"""A column without any other value than this, or than none, is left out by default."""
ENDS = ("low", "high", "n")
"""What stands beside the median of a group: the 95 % interval, and of how many."""


@dataclass(frozen=True)
class Listing:
    """Rows of values in base units."""

    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]
    total: int
    """Rows that there are; `rows` are the first of them."""
    metrics: frozenset[str] = frozenset()
    """Those of the columns that are metrics."""
    nothing: str = ""
    """Why there is no row, where there is none."""
    left_out: Mapping[str, int] = field(default_factory=dict)
    """Trials that are in no median: how many did not end well, and are invalid."""
    mixed: tuple[str, ...] = ()
    """Settings in which the trials of some group differ."""

    def records(self) -> Iterator[dict[str, Any]]:
        """The rows by the names of their columns."""
        for row in self.rows:
            yield dict(zip(self.columns, row, strict=True))


def list_trials(
    session: Session,
    conditions: Sequence[Condition],
    *,
    columns: Sequence[str] | None = None,
    sort: Sequence[str] = (),
    limit: int | None = None,
) -> Listing:
    """The trials that meet all conditions; newest first, unless sorted.

    Args:
        session: Of the database.
        conditions: None: all trials.
        columns: Their names, in which * stands for anything; None: those that say
            something.
        sort: Names, the first decides; with a minus in front the largest is first.
            Where there is no value comes last.
        limit: Rows at most; None: all.
    """
    search = Search(session, conditions)
    wanted = _chosen(search, columns)
    keys = _sorted_keys(search, sort)
    found = search.values(wanted, keys[:limit])
    kept = found if columns is not None else _telling(found)
    return Listing(
        columns=tuple(kept),
        rows=tuple(zip(*kept.values(), strict=True)),
        total=len(keys),
        metrics=_metrics_of(search, kept),
        nothing="" if keys else search.why_nothing(),
    )


def list_groups(
    session: Session,
    conditions: Sequence[Condition],
    group_by: Sequence[str],
    *,
    columns: Sequence[str] | None = None,
    sort: Sequence[str] = (),
    limit: int | None = None,
) -> Listing:
    """One row for each group of the trials that went well and are not invalid.

    It has the number of trials, and of every metric the median over them with its 95 %
    interval, of which there is none with one trial or without any spread.

    Args:
        session: Of the database.
        conditions: None: all trials.
        group_by: What the trials of a group have in common.
        columns: Metrics; None: those that some trial has.
        sort: As of `list_trials`, by columns of the groups.
        limit: Groups at most; None: all.
    """
    search = Search(session, conditions)
    names = _metric_columns(search, group_by, columns)
    used, left_out = _usable(search)
    groups = _by(search.values(group_by, used))
    measured = search.values(names, used)
    if columns is None:
        names = [name for name in names if _has_values(measured[name])]
    rows = [
        (*key, len(places), *_summaries(names, measured, places))
        for key, places in groups.items()
    ]
    headings = (*group_by, "trials", *_headings(names))
    _check_sort(sort, headings)
    table = dict(zip(headings, zip(*rows, strict=True), strict=True)) if rows else {}
    order = _order(len(rows), sort, table) if rows else []
    return Listing(
        columns=headings,
        rows=tuple(rows[place] for place in order[:limit]),
        total=len(rows),
        metrics=frozenset(names),
        nothing="" if rows else _why_no_group(search, left_out),
        left_out=left_out,
        mixed=_mixed(search, used, groups.values()),
    )


# ---------------------------------------------------------------- columns


def _chosen(search: Search, columns: Sequence[str] | None) -> list[str]:
    """The names of the columns, patterns spelled out, each once."""
    if columns is None:
        known = set(search.fields.metrics)
        return [*SETTINGS, *(name for name in METRICS if name in known)]
    chosen: dict[str, None] = {}
    for name in columns:
        if "*" not in name:
            chosen[name] = None
            continue
        fitting = [n for n in search.fields.names() if fnmatchcase(n, name)]
        if not fitting:
            raise ReportError(f"no column is called {name!r}")
        chosen |= dict.fromkeys(fitting)
    return list(chosen)


def _telling(found: Mapping[str, list[Any]]) -> dict[str, list[Any]]:
    """The columns in which some row has a value that says something."""
    return {
        name: values
        for name, values in found.items()
        if any(value not in (None, SAYS_NOTHING.get(name)) for value in values)
        or not values
    }


def _metrics_of(search: Search, names: Iterable[str]) -> frozenset[str]:
    return frozenset(names).intersection(search.fields.metrics)


def _metric_columns(
    search: Search, group_by: Sequence[str], columns: Sequence[str] | None
) -> list[str]:
    """The metrics that a group is summarised by; an error names what is none."""
    chosen = [name for name in _chosen(search, columns) if name not in group_by]
    metrics = _metrics_of(search, chosen)
    for name in chosen if columns is not None and search.keys else ():
        if name not in metrics and name != "trials":
            raise ReportError(
                f"{name!r} is no metric, and the trials of a group may differ in it;"
                f" --group-by {','.join([*group_by, name])} would tell them apart"
            )
    return [name for name in chosen if name in metrics]


# ---------------------------------------------------------------- order


def _sorted_keys(search: Search, sort: Sequence[str]) -> Sequence[Key]:
    if not sort:
        return search.keys
    names = list(dict.fromkeys(name.removeprefix("-") for name in sort))
    order = _order(len(search.keys), sort, search.values(names, search.keys))
    return [search.keys[place] for place in order]


def _order(
    count: int, sort: Sequence[str], columns: Mapping[str, Sequence[Any]]
) -> list[int]:
    """The places of the rows as they are sorted; equal ones stay in their order."""
    order = list(range(count))
    for word in reversed(sort):
        values = columns[word.removeprefix("-")]
        known = [place for place in order if values[place] is not None]
        unknown = [place for place in order if values[place] is None]
        known.sort(key=lambda p: _sort_key(values[p]), reverse=word.startswith("-"))
        order = known + unknown
    return order


def _sort_key(value: Any) -> tuple[bool, Any]:
    """Numbers, then everything else as text: a batch may be `max`."""
    is_text = not isinstance(value, int | float)
    return is_text, str(value) if is_text else value


def _check_sort(sort: Sequence[str], headings: Sequence[str]) -> None:
    for word in sort:
        name = word.removeprefix("-")
        if name not in headings:
            raise ReportError(
                f"{name!r} is no column of these groups{did_you_mean(name, headings)}"
            )


# ---------------------------------------------------------------- groups


def _usable(search: Search) -> tuple[list[Key], dict[str, int]]:
    """The trials that enter groups, and how many do not, by why."""
    found = search.values(["status", "validity"], search.keys)
    used: list[Key] = []
    left_out = {"not ok": 0, "invalid": 0}
    for key, status, validity in zip(
        search.keys, found["status"], found["validity"], strict=True
    ):
        if status != "ok":
            left_out["not ok"] += 1
        elif validity == "invalid":
            left_out["invalid"] += 1
        else:
            used.append(key)
    return used, {why: count for why, count in left_out.items() if count}


def _by(columns: Mapping[str, list[Any]]) -> dict[tuple[Any, ...], list[int]]:
    """The places of the trials that have the same in all columns."""
    groups: dict[tuple[Any, ...], list[int]] = {}
    for place, key in enumerate(zip(*columns.values(), strict=True)):
        groups.setdefault(tuple(map(_hashable, key)), []).append(place)
    return groups


def _mixed(
    search: Search, keys: Sequence[Key], groups: Iterable[Sequence[int]]
) -> tuple[str, ...]:
    """The settings that are not the same for all trials of each group."""
    cases = search.fields.cases
    found: dict[str, None] = {}
    for places in groups:
        first, *others = {keys[place].case for place in places}
        for other in others:
            names = {**cases[first], **cases[other]}
            found |= {
                name: None
                for name in names
                if name != "case" and not name.startswith("model.")
                if cases[first].get(name) != cases[other].get(name)
            }
    return tuple(found)


def _hashable(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _has_values(values: Sequence[float | None]) -> bool:
    return any(value is not None for value in values)


def _headings(names: Sequence[str]) -> Iterator[str]:
    for name in names:
        yield name
        yield from (f"{name}.{end}" for end in ENDS)


def _summaries(
    names: Sequence[str],
    measured: Mapping[str, Sequence[float | None]],
    places: Sequence[int],
) -> Iterator[float | None]:
    """Of every metric the median, both ends of its interval, and of how many."""
    from tlbench.reports.cases import interval_of  # NumPy: of groups only

    for name in names:
        column = measured[name]
        values = [v for place in places if (v := column[place]) is not None]
        yield median(values) if values else None
        yield from (interval_of(name, values) if values else None) or (None, None)
        yield len(values)


def _why_no_group(search: Search, left_out: Mapping[str, int]) -> str:
    if not left_out:
        return search.why_nothing()
    counts = ", ".join(f"{count} {why}" for why, count in left_out.items())
    return f"none of the trials can be used: {counts}"
