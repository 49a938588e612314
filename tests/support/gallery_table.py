"""The table of `docs/gallery/README.md`, made from the gallery's database.

python tests/support/gallery_table.py
"""

import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tlbench.db import query
from tlbench.db.store import ResultStore
from tlbench.reports.cases import CaseTrials, gather
from tlbench.reports.compare import THROUGHPUT, Comparison, comparisons
from tlbench.reports.evidence import read_evidence
from tlbench.units import format_number

DATABASE = Path(__file__).parents[2] / "docs" / "gallery" / "gallery.db"
HEADINGS = (
    "model",
    "batch",
    "trials",
    "samples/s",
    "against",
    "times the speed",
    "predicted",
    "share [%]",
)


def table() -> str:
    cases = [case for case in _cases() if case.mode == "infer"]
    compared = {id(c.other): c for c in comparisons(cases)}
    rows = [_row(case, compared.get(id(case))) for case in cases]
    lines = [HEADINGS, ["---"] * len(HEADINGS), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _cases() -> list[CaseTrials]:
    """Read a copy: to open a database writes beside it."""
    with tempfile.TemporaryDirectory() as folder:
        copy = shutil.copy(DATABASE, folder)
        with (
            ResultStore.open(str(copy), read_only=True) as store,
            store.session() as session,
        ):
            run_ids = sorted(run.id for run in query.runs(session))
            evidence = read_evidence(session, run_ids)
    return gather(evidence.runs, evidence.trials)


def _row(case: CaseTrials, comparison: Comparison | None) -> Sequence[str]:
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


if __name__ == "__main__":
    sys.stdout.write(table())
