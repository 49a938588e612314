"""Histories made by hand: one case over runs, a day apart."""

from collections.abc import Sequence
from datetime import timedelta

from support.machine import MACHINE
from support.stored_runs import START, THROUGHPUT
from tlbench.changes import find_changes
from tlbench.reports.history import Break, History, Point, Shift

VALUES = [*(100.0, 101.0, 99.0, 100.5) * 2, *(90.0, 91.0, 89.5, 90.5) * 2]


def point(run_id: int, value: float | None) -> Point:
    return Point(
        run_id=run_id,
        started_at=START + timedelta(days=run_id),
        value=value,
        interval=None if value is None else (value - 1, value + 1),
        n=0 if value is None else 3,
        invalid=0,
        reason="2 oom" if value is None else "",
        machine=MACHINE,
        code="0.1.0 0123abc",
    )


def history(
    values: Sequence[float | None] = VALUES,
    breaks: Sequence[int] = (),
    *,
    has_shift: bool = False,
) -> History:
    (change,) = find_changes(VALUES, "higher")
    shift = Shift(change.place, change.ratio, 2e-5, "worse", "tlbench 1 -> 2", True)
    return History(
        identity="ab" * 32,
        origin=None,
        model="ViT-Ti/16",
        mode="infer",
        label="ViT-Ti/16",
        metric=THROUGHPUT,
        floor=0.01,
        points=tuple(point(n, value) for n, value in enumerate(values, start=1)),
        breaks=tuple(Break(place, ("torch 2.9.0 -> 2.10.0",)) for place in breaks),
        shifts=(shift,) if has_shift else (),
    )
