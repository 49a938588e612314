"""The report for a pull request: short, in Markdown, and no longer than a comment."""

from bisect import bisect_left
from collections.abc import Iterator, Sequence

from tlbench.db.query import TrialRecord
from tlbench.reports.against import against_finding, against_table
from tlbench.reports.cases import gather
from tlbench.reports.cells import Row, Table, word
from tlbench.reports.claims.judge import judge
from tlbench.reports.claims.tables import summary_sentence
from tlbench.reports.compare import comparisons
from tlbench.reports.evidence import Evidence
from tlbench.reports.findings import find
from tlbench.reports.markdown import code, escaped, table_lines
from tlbench.reports.tables import comparison_table, summary_table
from tlbench.units import UNKNOWN, format_bytes, format_duration

CHANGED = " with uncommitted changes"
MAX_CHARACTERS = 65_536
"""What GitHub takes as the body of a pull request or of a comment."""


def markdown_report(evidence: Evidence) -> str:
    """Runs, machines, the answer, the main tables and what failed.

    Where that would be too long, all tables are cut to as many rows as leave room.
    """
    parts = _Parts(evidence)
    longest = max(len(table.rows) for table in parts.tables.values())
    too_many = bisect_left(
        range(longest + 1),
        x=True,
        key=lambda rows: len(parts.text(rows)) > MAX_CHARACTERS,
    )
    return parts.text(max(0, too_many - 1))


class _Parts:
    """The report before it is known how many rows it has room for."""

    def __init__(self, evidence: Evidence) -> None:
        cases = gather(evidence.runs, evidence.trials, evidence.floors, evidence.names)
        compared = comparisons(cases)
        self._evidence = evidence
        against = evidence.against
        self._findings = [
            *find(cases, compared),
            *([against_finding(against)] if against else []),
        ]
        self._claims = summary_sentence(judge(cases, compared))
        self.tables = {
            "Runs": _run_table(evidence),
            "Machines": _machine_table(evidence),
            **({f"Against {against.name}": against_table(against)} if against else {}),
            "Comparisons": comparison_table(compared),
            "Cases": summary_table(cases),
            "Failures": _failure_table(evidence.trials),
        }

    def text(self, most_rows: int) -> str:
        return "\n".join([*self._lines(most_rows), ""])

    def _lines(self, most_rows: int) -> Iterator[str]:
        suites = dict.fromkeys(run.suite for run in self._evidence.runs)
        yield f"### tlbench: {', '.join(map(escaped, suites))}"
        yield ""
        for finding in self._findings:
            yield f"- **{escaped(finding.topic)}**: {escaped(finding.text)}"
        yield f"- **Claims of the publication**: {escaped(self._claims)}"
        for title, table in self.tables.items():
            if table.rows:
                yield from ("", f"#### {escaped(title)}", "")
                yield from table_lines(table, most_rows)
        yield from ("", "#### To repeat", "")
        for command in dict.fromkeys(run.command for run in self._evidence.runs):
            yield f"- {code(command)}"


def _run_table(evidence: Evidence) -> Table:
    rows = [
        (
            evidence.names.run(run.id),
            run.suite,
            f"{run.started_at:%Y-%m-%d %H:%M} UTC",
            UNKNOWN
            if run.ended_at is None
            else format_duration((run.ended_at - run.started_at).total_seconds()),
            f"{run.finished} of {run.planned}, {run.failed} not ok",
            run.status,
        )
        for run in evidence.runs
    ]
    return _of_words(("run", "suite", "started", "took", "trials", "status"), rows)


def _machine_table(evidence: Evidence) -> Table:
    rows = []
    for record in evidence.machines:
        machine = record.machine
        gpus = f"{machine.gpu_count} x {machine.gpu_name}" if machine.gpu_name else ""
        rows.append(
            (
                evidence.names.machine(record.id),
                f"{machine.cpu_model or UNKNOWN}, {machine.cpu_cores} logical cores",
                format_bytes(machine.memory_bytes),
                gpus or "no GPU",
                f"torch {machine.versions.get('torch') or UNKNOWN}",
                f"{machine.commit or UNKNOWN}{CHANGED if machine.is_dirty else ''}",
            )
        )
    return _of_words(("machine", "CPU", "memory", "GPU", "software", "commit"), rows)


def _failure_table(trials: Sequence[TrialRecord]) -> Table:
    rows = [
        (trial.model, trial.case.mode, str(trial.id), trial.status, trial.reason or "")
        for trial in trials
        if trial.status != "ok"
    ]
    return _of_words(("model", "mode", "trial", "status", "reason"), rows)


def _of_words(headings: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> Table:
    return Table(headings, tuple(Row(tuple(map(word, row))) for row in rows))
