"""The tables of `docs/gallery/README.md`, made from the gallery's databases.

python tests/support/gallery_table.py
"""

import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from tlbench.db import query
from tlbench.db.store import ResultStore
from tlbench.reports.cases import CaseTrials, gather
from tlbench.reports.compare import THROUGHPUT, Comparison, comparisons
from tlbench.reports.evidence import read_evidence
from tlbench.reports.findings import signed
from tlbench.units import format_number

GALLERY = Path(__file__).parents[2] / "docs" / "gallery"
SPEED = (
    "model",
    "batch",
    "trials",
    "samples/s",
    "against",
    "times the speed",
    "predicted",
    "share [%]",
)
ACCURACY = (
    "model",
    "data",
    "seeds",
    "top-1 [%]",
    "against",
    "points",
    "million MACs",
    "training [s]",
)


def tables() -> tuple[str, str]:
    """That of the speed, and that of the accuracy."""
    timed = [case for case in _cases("gallery.db") if case.mode == "infer"]
    trained = [case for case in _cases("accuracy.db") if case.mode == "fit"]
    return _table(SPEED, timed, _speed_row), _table(ACCURACY, trained, _accuracy_row)


def _table(
    headings: Sequence[str],
    cases: Sequence[CaseTrials],
    row: Callable[[CaseTrials, Comparison | None], Sequence[str]],
) -> str:
    compared = {id(c.other): c for c in comparisons(cases)}
    rows = [row(case, compared.get(id(case))) for case in cases]
    lines = [headings, ["---"] * len(headings), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _cases(database: str) -> list[CaseTrials]:
    """Read a copy: to open a database writes beside it."""
    with tempfile.TemporaryDirectory() as folder:
        copy = shutil.copy(GALLERY / database, folder)
        with (
            ResultStore.open(str(copy), read_only=True) as store,
            store.session() as session,
        ):
            run_ids = sorted(run.id for run in query.runs(session))
            evidence = read_evidence(session, run_ids)
    return gather(evidence.runs, evidence.trials)


def _speed_row(case: CaseTrials, comparison: Comparison | None) -> Sequence[str]:
    throughput = case.summary(THROUGHPUT)
    return (
        f"`{case.model}`",
        str(case.case.batch_size),
        str(throughput.n),
        format_number(throughput.value, 3),
        *(_against(comparison) if comparison else [""] * 4),
    )


def _against(comparison: Comparison) -> Sequence[str]:
    assert comparison.speedup.interval is not None
    assert comparison.realised_speedup_fraction is not None
    value, low, high = (
        format_number(x, 3)
        for x in (comparison.speedup.value, *comparison.speedup.interval)
    )
    return (
        f"`{comparison.base.model}`",
        f"{value} ({low} to {high})",
        format_number(comparison.predicted_speedup, 3),
        format_number(100 * comparison.realised_speedup_fraction, 3),
    )


def _accuracy_row(case: CaseTrials, comparison: Comparison | None) -> Sequence[str]:
    top1, macs = case.summary("top1_percent"), case.summary("macs")
    assert macs.value is not None
    return (
        f"`{case.model}`",
        case.case.data,
        str(top1.n),
        format_number(top1.value, 3),
        *(_points(comparison) if comparison else [""] * 2),
        format_number(macs.value / 1e6, 3),
        format_number(case.summary("train_time_s").value, 3),
    )


def _points(comparison: Comparison) -> Sequence[str]:
    difference = comparison.accuracy
    assert difference.value is not None
    ends = " to ".join(map(signed, difference.interval or ()))
    points = signed(difference.value) + (f" ({ends})" if ends else "")
    return f"`{comparison.base.model}`", points


if __name__ == "__main__":
    sys.stdout.write("\n".join(tables()))
