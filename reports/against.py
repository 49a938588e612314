"""The runs of a report against a base: every case by the gate's comparison."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

from sqlalchemy.orm import Session

from tlbench.db import query
from tlbench.errors import ReportError
from tlbench.reports import verdicts
from tlbench.reports.cases import DEVICE_MEMORY, HOST_MEMORY, Names
from tlbench.reports.cells import Cell, Row, Table, missing, ratio_cell, word
from tlbench.reports.compare import ACCURACY, THROUGHPUT
from tlbench.reports.evidence import Against
from tlbench.reports.findings import Finding
from tlbench.reports.gate import Answer, Judgement, Question, compare
from tlbench.reports.quantities import FEWSHOT, QUANTITIES
from tlbench.reports.selection import parse_selection
from tlbench.reports.sides import Side
from tlbench.units import format_counted, format_number

METRICS = (
    *(THROUGHPUT, ACCURACY, "map_percent", *FEWSHOT),
    *(DEVICE_MEMORY, HOST_MEMORY),
)
"""What runs are held against each other by, as far as both have measured it."""


def compare_with(
    session: Session,
    base: str,
    run_ids: Sequence[int],
    run_names: Mapping[int, str] | None = None,
) -> Against:
    """Compare the base, a run or a selection, with these runs.

    Raises:
        ReportError: Nothing of the base can be compared with them.
    """
    names = Names(run_names or {})
    name = names.run(int(base)) if base.isdecimal() else base
    runs = ",".join(f"run={run_id}" for run_id in run_ids)
    a = replace(parse_selection(base), text=name)
    b = replace(parse_selection(runs), text=", ".join(map(names.run, run_ids)))
    measured = {
        name
        for trial in query.trials(session, run_ids)
        for name, value in trial.metrics.items()
        if value is not None
    }
    answers, problems = [], []
    for metric in METRICS:
        if metric in measured:
            try:
                answers.append(compare(session, a, b, Question(metric=metric)))
            except ReportError as error:  # the base may have measured less
                problems.append(error)
    if not answers:
        raise next(iter(problems), ReportError(f"{b}: nothing in it was measured"))
    return Against(name, tuple(answers))


def against_table(against: Against) -> Table:
    """Every comparison of every metric, with both values."""
    return Table(
        headings=(
            "case",
            "metric",
            against.name,
            "now",
            "now over then",
            "verdict",
            "notes",
        ),
        rows=tuple(
            _row(judgement, line, answer.question.metric)
            for answer in against.answers
            for judgement, line in zip(
                answer.judgements, verdicts.lines(answer), strict=True
            )
        ),
    )


def _row(judgement: Judgement, line: verdicts.Line, metric: str) -> Row:
    quantity = QUANTITIES[metric]
    return Row(
        (
            word(line.title),
            word(quantity.heading),
            _value_cell(judgement.base, metric),
            _value_cell(judgement.other, metric),
            ratio_cell(judgement.ratio),
            word(line.verdict),
            word("; ".join(line.notes)),
        )
    )


def _value_cell(side: Side, metric: str) -> Cell:
    value = side.typical(metric)
    if value is None:
        return missing(side.why_missing(metric))
    return Cell(QUANTITIES[metric].text(value), key=value)


def against_note(against: Against) -> str:
    """How the verdicts were reached, and what is on one side only."""
    lines = [
        f"{QUANTITIES[answer.question.metric].heading}: {line}"
        for answer in against.answers
        for line in verdicts.conclusion(answer)
    ]
    alone = [line.replace("only in A", f"only in {against.name}") for line in lines]
    return " ".join(f"{line.replace('only in B', 'only now')}." for line in alone)


def against_finding(against: Against) -> Finding:
    """One sentence on the first metric, with the change that is surest to matter."""
    answer = against.answers[0]
    counts = Counter(judgement.ratio.verdict for judgement in answer.judgements)
    told = ", ".join(f"{count} {verdict}" for verdict, count in counts.most_common())
    title = QUANTITIES[answer.question.metric].title
    return Finding(
        f"Against {against.name}",
        f"Of {format_counted(len(answer.judgements), 'case')} compared with"
        f" {against.name} by {title}: {told}{_worst(answer)}.",
    )


def _worst(answer: Answer) -> str:
    worse = [j for j in answer.judgements if j.ratio.verdict == "worse"]
    if not worse:
        return ""
    worst = max(worse, key=lambda j: abs((j.ratio.value or 1) - 1))
    times = format_number(worst.ratio.value, 3)
    return f"; the worst is {worst.title}, at {times} times what it was"
