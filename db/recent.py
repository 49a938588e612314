"""The trials that a run has stored last: what somebody who watches it needs."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import select
from sqlalchemy.orm import Session

from tlbench.db import models
from tlbench.db.connection import damaged_value
from tlbench.db.records import record
from tlbench.result import Status

WINDOW = 50
"""Trials whose pace counts as that of now."""


@dataclass(frozen=True)
class RecentTrials:
    """The last trials of one run."""

    n: int
    began_at: datetime
    """When the first of them did."""
    ended_at: datetime
    """When the last of them did."""
    last_model: str
    last_status: Status

    @property
    def rate_per_s(self) -> float | None:
        """Trials in a second, those at once counted as such; None: no time passed."""
        taken_s = (self.ended_at - self.began_at).total_seconds()
        return self.n / taken_s if taken_s > 0 else None


def recent_trials(
    session: Session, run_ids: Sequence[int], window: int = WINDOW
) -> dict[int, RecentTrials]:
    """The last trials of these runs, by run; one that has none is left out."""
    found = {run_id: _recent(session, run_id, window) for run_id in run_ids}
    return {run_id: recent for run_id, recent in found.items() if recent is not None}


def _recent(session: Session, run_id: int, window: int) -> RecentTrials | None:
    row = models.Trial
    rows = session.execute(
        select(row.started_at, row.wall_time_s, row.model, row.status)
        .where(row.run_id == run_id)
        .order_by(row.id.desc())
        .limit(window)
    ).all()
    if not rows:
        return None
    return record(
        RecentTrials,
        n=len(rows),
        began_at=min(found.started_at for found in rows),
        ended_at=max(_end(found.started_at, found.wall_time_s) for found in rows),
        last_model=rows[0].model,
        last_status=rows[0].status,
    )


def _end(started_at: datetime, wall_time_s: float) -> datetime:
    try:
        return started_at + timedelta(seconds=wall_time_s)
    except (TypeError, OverflowError) as error:  # of no time, or of one beyond all
        raise damaged_value(wall_time_s) from error
