"""The trials of a database as a pandas frame, by the conditions of `tlbench query`."""

import json
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from tlbench.db.conditions import parse_conditions
from tlbench.db.store import ResultStore
from tlbench.reports.listing import Listing, list_groups, list_trials


def query_frame(
    db: str,
    *conditions: str,
    columns: Sequence[str] | None = None,
    sort: str | Sequence[str] = (),
    group_by: str | Sequence[str] = (),
    limit: int | None = None,
) -> pd.DataFrame:
    """The same rows and columns as `tlbench query` writes to CSV.

        query_frame("tlbench.db", "model~TL", "params<100M", sort="-run")

    Args:
        db: A file, or the URL of PostgreSQL.
        *conditions: All have to be met; see docs/query.md.
        columns: Names, or patterns with `*`; None: those that say something.
        sort: Names of columns; with a minus in front the largest is first.
        group_by: Gives one row a group, with medians and 95 % intervals.
        limit: Rows at most; None: all.
    """
    parsed = parse_conditions(*conditions)
    order = _names(sort)
    with ResultStore.open(db, read_only=True) as store, store.session() as session:
        if groups := _names(group_by):
            listing = list_groups(
                session, parsed, groups, columns=columns, sort=order, limit=limit
            )
        else:
            listing = list_trials(
                session, parsed, columns=columns, sort=order, limit=limit
            )
    return frame_of(listing)


def frame_of(listing: Listing) -> pd.DataFrame:
    return pd.DataFrame(list(listing.rows), columns=list(listing.columns))


def write_parquet(frame: pd.DataFrame, file: Path) -> None:
    """Write a frame; a column of different kinds (a batch may be `max`) as text."""
    columns = [str(name) for name in frame if frame[name].dtype == object]
    kinds = {name: {type(v) for v in frame[name] if v is not None} for name in columns}
    mixed = [name for name, of_column in kinds.items() if len(of_column) > 1]
    texts = {name: frame[name].map(_text, na_action="ignore") for name in mixed}
    frame.assign(**texts).to_parquet(file, index=False)


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _names(given: str | Sequence[str]) -> list[str]:
    return given.split(",") if isinstance(given, str) else list(given)
