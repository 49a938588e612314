"""What people do with stored runs: tags, notes, and deleting them for good."""

import re
from collections.abc import Sequence
from typing import Any

from sqlalchemy import bindparam, delete, exists, select
from sqlalchemy.orm import InstrumentedAttribute, Session

from tlbench.db import models, query
from tlbench.db.query import RunRecord
from tlbench.db.store import insert_rows
from tlbench.errors import StoreError

_TAG = re.compile(r"[^\s,=~<>]+")
"""What a query can name: its conditions have commas and signs between them."""


def add_tags(session: Session, run_id: int, tags: Sequence[str]) -> tuple[str, ...]:
    """Give a run tags; those it has already it keeps once. Returns all it has now."""
    known = query.run(session, run_id).tags
    wanted = dict.fromkeys(tags)
    for tag in wanted:
        if not _TAG.fullmatch(tag):
            raise StoreError(
                f"{tag!r} cannot be a tag: it is one word, without any of , = ~ < >"
            )
    new = [{"run_id": run_id, "tag": tag} for tag in wanted if tag not in known]
    insert_rows(session, models.RunTag, new)
    return tuple(sorted({*known, *wanted}))


def remove_tags(session: Session, run_id: int, tags: Sequence[str]) -> tuple[str, ...]:
    """Take tags off a run, all or none. Returns those it still has."""
    known = query.run(session, run_id).tags
    for tag in tags:
        if tag not in known:
            raise StoreError(
                f"run {run_id} has no tag {tag!r}; it has {', '.join(known) or 'none'}"
            )
    session.execute(
        delete(models.RunTag).where(
            models.RunTag.run_id == run_id, models.RunTag.tag.in_(tags)
        )
    )
    return tuple(tag for tag in known if tag not in tags)


def set_note(session: Session, run_id: int, note: str) -> None:
    """Write down what there is to say about a run, in place of what was there."""
    query.run(session, run_id)  # or an error that names those there are
    session.get_one(models.Run, run_id).note = note


def deletable(
    session: Session, run_ids: Sequence[int], *, is_forced: bool = False
) -> list[RunRecord]:
    """The runs; an error where one is not there, or runs and is not forced."""
    records = [query.run(session, run_id) for run_id in dict.fromkeys(run_ids)]
    for record in records:
        if record.status == "running" and not (is_forced or record.is_abandoned):
            raise StoreError(
                f"run {record.id} is marked running: its driver could not store its"
                " next trial; --force deletes it if that was killed"
            )
    return records


def delete_runs(
    session: Session, run_ids: Sequence[int], *, is_forced: bool = False
) -> None:
    """Delete runs with all that belongs to them, or none where one is refused.

    Cases and machines that nothing else refers to go too.
    """
    deletable(session, run_ids, is_forced=is_forced)
    session.execute(delete(models.Run).where(models.Run.id.in_(run_ids)))
    _drop_unused(session, models.ExperimentCase, models.Trial.case_id)
    _drop_unused(
        session, models.Machine, models.Trial.machine_id, models.Calibration.machine_id
    )


def _drop_unused(
    session: Session,
    table: type[models.ExperimentCase | models.Machine],
    *references: InstrumentedAttribute[Any],
) -> None:
    """Delete the rows that no other refers to.

    They are locked first and looked at again: on PostgreSQL a driver may be storing a
    trial of one just now, which it then keeps (SQLite has one writer at a time).
    """
    is_unused = [~exists().where(reference == table.id) for reference in references]
    locked = select(table.id).where(*is_unused).with_for_update(skip_locked=True)
    ids = [{"unused": row_id} for row_id in session.scalars(locked)]
    if ids:
        row = table.__table__.c.id
        statement = delete(table).where(row == bindparam("unused"), *is_unused)
        session.connection().execute(statement, ids)
