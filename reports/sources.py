"""Runs from one database or several: as if they were all of one."""

import re
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tlbench.db import query
from tlbench.db.merge import merge
from tlbench.db.store import ResultStore
from tlbench.errors import ReportError

_RUN = re.compile(r"(\d*)(?:@(.+))?", re.DOTALL)


@dataclass(frozen=True)
class RunReference:
    """A run as the command line names it."""

    run_id: int | None
    """None: the newest."""
    database: str


def is_run(text: str) -> bool:
    """Whether the text names a run, not a selection of cases."""
    return bool(text) and _RUN.fullmatch(text) is not None


def parse_run(text: str, database: str) -> RunReference:
    """Read `3`, `3@other.db` or `@other.db`; without a database it is this one."""
    match = _RUN.fullmatch(text)
    if match is None or not text:
        raise ReportError(
            f"{text!r} is no run; its number (3), a run of another database"
            " (3@other.db) or the newest of one (@other.db) would be right"
        )
    number, place = match.groups()
    return RunReference(int(number) if number else None, place or database)


@dataclass(frozen=True)
class Sources:
    """An open database that has all the runs."""

    store: ResultStore
    run_ids: Mapping[RunReference, int]
    """In this database."""
    names: Mapping[int, str] = field(default_factory=dict)
    """Such as `run 3 of a.db`; empty where there is one database only."""


@contextmanager
def open_sources(references: Sequence[RunReference]) -> Iterator[Sources]:
    """Open the database of these runs; several are merged into one for the while."""
    with ExitStack() as stack:
        stores = {
            database: stack.enter_context(ResultStore.open(database, read_only=True))
            for database in dict.fromkeys(r.database for r in references)
        }
        found = {r: _run_id(stores[r.database], r.run_id) for r in references}
        if len(stores) == 1:
            (store,) = stores.values()
            yield Sources(store, found)
            return
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="tlbench-"))
        target = stack.enter_context(
            ResultStore.open(str(Path(folder) / "merged.db"), create=True)
        )
        yield _merged(stores, found, target)


def _run_id(store: ResultStore, wanted: int | None) -> int:
    with store.session() as session:
        return query.run_or_newest(session, wanted).id


def _merged(
    stores: Mapping[str, ResultStore],
    found: Mapping[RunReference, int],
    target: ResultStore,
) -> Sources:
    titles = _titles(stores)
    run_ids: dict[RunReference, int] = {}
    names: dict[int, list[str]] = defaultdict(list)
    for database, store in stores.items():
        wanted = {r: run_id for r, run_id in found.items() if r.database == database}
        ids = merge(store, target, sorted(set(wanted.values()))).runs
        run_ids |= {r: ids[run_id] for r, run_id in wanted.items()}
        for run_id, merged_id in ids.items():
            names[merged_id].append(f"run {run_id} of {titles[database]}")
    # A run that several databases have is one run.
    return Sources(target, run_ids, {i: " and ".join(n) for i, n in names.items()})


def _titles(stores: Mapping[str, ResultStore]) -> dict[str, str]:
    """The file names where they tell the databases apart, else the whole paths."""
    short = {name: Path(store.location).name for name, store in stores.items()}
    counts = Counter(short.values())
    return {
        name: short[name] if counts[short[name]] == 1 else store.location
        for name, store in stores.items()
    }
