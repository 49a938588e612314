"""What commands print for people: consoles, tables, and the words around them."""

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, TextIO

from rich.console import Console, JustifyMethod, RenderableType
from rich.table import Table
from rich.text import Text

from tlbench.kept_logs import failed_rank
from tlbench.models.publication import MISPRINT_MARK
from tlbench.units import (
    UNKNOWN,
    format_bytes,
    format_duration,
    format_metric,
    format_number,
)

if TYPE_CHECKING:  # torch, Ray, pandas and seaborn load slowly, and few need them
    from tlbench.calibrate import Calibration
    from tlbench.certify import Certificate
    from tlbench.db.query import AttemptRecord, RunRecord, TrialRecord
    from tlbench.plan import Forecast
    from tlbench.reports.cells import Cell
    from tlbench.reports.cells import Table as ReportTable
    from tlbench.reports.claims.records import JudgedClaim
    from tlbench.reports.evidence import Evidence
    from tlbench.reports.gate import Answer
    from tlbench.reports.history import History
    from tlbench.reports.repro import Reproduction

PIPE_WIDTH = 160
"""Columns where no terminal says how many there are."""
_TERMINAL_SEQUENCE = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)"
)
"""CSI and OSC of ECMA-48, such as colours, movements of the cursor, and titles."""
_CONTROL = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]"
)
LOG_LINES = 15
"""Of the log of the rank that failed, where a trial is shown."""
LAST_WORDS = 60
"""Characters of the end of each log."""


def make_console(*, stderr: bool = False, file: TextIO | None = None) -> Console:
    """A console as wide as the terminal, or wide enough for whole lines in a pipe."""
    console = Console(stderr=stderr, file=file, highlight=False)
    if not console.is_terminal:
        console.width = PIPE_WIDTH
    return console


def harmless(text: str) -> str:
    """Text that others have written, without power over a terminal.

    Colours and the like are left out; any other control character is written as an
    escape, and so are those that turn the direction of writing.
    """
    plain = _TERMINAL_SEQUENCE.sub("", text.replace("\r\n", "\n").replace("\r", "\n"))
    return _CONTROL.sub(lambda found: ascii(found[0])[1:-1], plain)


def one_line(text: str) -> str:
    """The same in one line."""
    return " ".join(harmless(text).split())


def make_table(headings: Iterable[str], rows: Iterable[Iterable[object]]) -> Table:
    """A plain table; numbers, and what looks like them, are set to the right."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    cells = [[harmless(str(cell)) for cell in row] for row in rows]
    for column, heading in enumerate(headings):
        texts = [row[column] for row in cells]
        is_number = bool(texts) and all(text[:1].isdigit() for text in texts)
        # As Text: the brackets of a unit are no markup.
        justify: JustifyMethod = "right" if is_number else "left"
        table.add_column(Text(heading), justify=justify, overflow="fold")
    for row in cells:
        table.add_row(*map(Text, row))
    return table


def plan_table(forecasts: "Sequence[Forecast]") -> Table:
    """One row a case: what it is and what it will need."""
    headings = (
        "case",
        "mode",
        "model",
        "batch",
        "precision",
        "repeats",
        "parameters",
        "GMACs",
        "to train",
        "memory",
        "a trial",
        "known from",
    )
    rows = [
        (
            item.identity[:8],
            item.case.mode,
            item.model,
            UNKNOWN if item.case.mode == "profile" else _batch(item),
            UNKNOWN if item.case.mode == "profile" else item.case.precision,
            item.repeats,
            format_metric("params", item.params),
            format_metric("macs", item.macs),
            format_metric("train_macs", item.train_macs),
            format_metric("memory_bytes", item.memory_bytes),
            format_duration(item.trial_time_s),
            item.time_source,
        )
        for item in forecasts
    ]
    return make_table(headings, rows)


def _batch(forecast: "Forecast") -> str:
    """Samples in a step; of the largest batch it says that it is a prediction."""
    if forecast.case.batch_size != "max":
        return str(forecast.batch_size)
    if forecast.batch_size is None:
        return "max"
    return f"max, about {forecast.batch_size}"


def memory_table(forecasts: "Sequence[Forecast]") -> Table:
    """One row a case, precision and ZeRO stage: where the memory of a device goes."""
    parts = ("weights", "gradients", "optimizer", "activations", "total", "host")
    rows = [
        (
            item.identity[:8],
            item.case.mode,
            item.model,
            item.case.parallelism.world_size,
            precision,
            UNKNOWN if zero_stage is None else zero_stage,
            *(format_bytes(getattr(memory, f"{part}_bytes")) for part in parts),
        )
        for item in forecasts
        for precision, zero_stage, memory in item.memory
    ]
    headings = ("case", "mode", "model", "devices", "precision", "ZeRO")
    return make_table((*headings, *parts[:-1], "on the host"), rows)


def calibration_parts(calibration: "Calibration") -> Iterator[RenderableType]:
    """What was measured of a machine, and a word where it is noisy."""
    from tlbench.calibrate import MEANINGS

    rows = [
        (m.name, format_metric(m.name, m.value), m.reason or MEANINGS[m.name])
        for m in calibration.values
    ]
    yield make_table(("value", "measured", "what it is"), rows)
    if calibration.is_noisy:
        yield Text(
            "\nThis machine is noisy: equal trials differ by more than most effects."
            " Something else runs on it, or its clock changes; `tlbench calibrate`"
            " again once that is over.",
            style="red",
        )


CERTIFICATE_HEADINGS = (
    "model",
    "parameters",
    "GMACs",
    "torch",
    "DeepSpeed",
    "tokens",
    "values",
    "published GFLOPS",
    "ours",
    "ratio",
    "verdict",
)


def certificate_parts(
    certificates: Sequence["Certificate"],
) -> Iterator[RenderableType]:
    """A table, the misprints, and in words what failed or could not be counted."""
    yield make_table(CERTIFICATE_HEADINGS, map(certificate_row, certificates))
    yield Text()
    for note in misprint_notes(certificates):
        yield Text(note)
    for certificate in certificates:
        if certificate.counter_macs is None:
            reason = certificate.check("counter").finding
            yield Text(f"{certificate.model} {reason}")
        for check in certificate.failed:
            text = f"{certificate.model}: {check.name}: {check.finding}"
            yield Text(text, style="red")
    failed = sum(bool(certificate.failed) for certificate in certificates)
    yield Text(f"{len(certificates)} certified, {failed or 'none'} with a failed check")


def misprint_notes(certificates: Sequence["Certificate"]) -> list[str]:
    """Why marked values are misprints, one line each."""
    return [
        f"{MISPRINT_MARK} {row.source}, {row.label}: {row.misprint}"
        for certificate in certificates
        for row in certificate.published
        if row.misprint
    ]


def certificate_row(certificate: "Certificate") -> tuple[str, ...]:
    """One model under `CERTIFICATE_HEADINGS`."""
    tokens = certificate.tokens
    ratios = {row.printed_gflops: row.ratio for row in certificate.published}
    ours = certificate.published[0].gflops if certificate.published else None
    return (
        certificate.model,
        UNKNOWN if certificate.params is None else f"{certificate.params:,}",
        _gigas(certificate.macs),
        _by_torch(certificate),
        _agreement(certificate, "profiler"),
        f"{tokens[0]:,} to {tokens[-1]:,}" if tokens else UNKNOWN,
        _agreement(certificate, "values"),
        ", ".join(ratios) or UNKNOWN,
        UNKNOWN if ours is None else format_number(ours, 4),
        ", ".join(f"{ratio:.3f}" for ratio in ratios.values()) or UNKNOWN,
        _verdict(certificate),
    )


def _gigas(macs: int | None) -> str:
    return UNKNOWN if macs is None else format_number(macs / 1e9, 4)


def _by_torch(certificate: "Certificate") -> str:
    """Whether torch counts as the closed form does; its count where there is none."""
    if certificate.macs is None:
        return _gigas(certificate.counter_macs)
    return _agreement(certificate, "counter")


def _agreement(certificate: "Certificate", name: str) -> str:
    outcomes = {"ok": "same", "fails": "other", "skipped": UNKNOWN}
    return outcomes[certificate.check(name).outcome]


def _verdict(certificate: "Certificate") -> str:
    if certificate.failed:
        return "fails: " + ", ".join(check.name for check in certificate.failed)
    if certificate.macs is not None:
        return "ok"
    return "not counted" if certificate.counter_macs is None else "counted only"


def runs_table(runs: Sequence["RunRecord"]) -> Table:
    """One row a run; columns that say nothing of any of them are left out."""
    always = ("run", "suite", "status", "trials", "not ok", "started", "took")
    said = {
        "tags": [" ".join(run.tags) for run in runs],
        "imported from": [run.origin or "" for run in runs],
        "ended by": [run.ended_by or "" for run in runs],
        "note": [run.note for run in runs],
    }
    some = {heading: texts for heading, texts in said.items() if any(texts)}
    rows = [
        (*_run_cells(run), *rest)
        for run, *rest in zip(runs, *some.values(), strict=True)
    ]
    return make_table((*always, *some), rows)


def _run_cells(run: "RunRecord") -> tuple[object, ...]:
    took = run.ended_at - run.started_at if run.ended_at else None
    return (
        *how_far(run),
        f"{run.started_at.astimezone():%Y-%m-%d %H:%M}",
        "" if took is None else format_duration(took.total_seconds()),
    )


def how_far(run: "RunRecord") -> tuple[object, ...]:
    """A run under the headings run, suite, status, trials, not ok."""
    status = "abandoned" if run.is_abandoned else run.status
    return (run.id, run.suite, status, f"{run.finished}/{run.planned}", run.failed)


def run_heading(run: "RunRecord") -> Iterator[RenderableType]:
    """What people have said about a run, and what ended it; often nothing."""
    said = {"tags": " ".join(run.tags), "note": run.note, "ended by": run.ended_by}
    lines = [Text(f"{name}: {text}") for name, text in said.items() if text]
    yield from lines
    if lines:
        yield Text()


def run_summary(evidence: "Evidence") -> Iterator[RenderableType]:
    """The results of a run: its cases, its comparisons, and its findings in words."""
    from tlbench.reports.cases import gather
    from tlbench.reports.compare import comparisons
    from tlbench.reports.findings import find
    from tlbench.reports.tables import comparison_table, summary_table

    cases = gather(evidence.runs, evidence.trials, evidence.floors)
    compared = comparisons(cases)
    yield _report_table(summary_table(cases))
    yield Text()
    if compared:
        yield _report_table(comparison_table(compared))
        yield Text()
    for finding in find(cases, compared):
        yield Text(f"- {finding.text}")


def _report_table(table: "ReportTable") -> Table:
    rows = [[_cell(cell) for cell in row.cells] for row in table.rows]
    return make_table(table.headings, rows)


def _cell(cell: "Cell") -> str:
    return f"{cell.text} ({cell.detail})" if cell.detail else cell.text


def comparison_parts(answer: "Answer", width: int) -> Iterator[RenderableType]:
    """The answer of `tlbench compare`: a table where there is room, then its notes."""
    from tlbench.reports.verdicts import HEADINGS, conclusion, introduction, lines

    shown = lines(answer)
    rows = [line.cells for line in shown]
    columns = zip(HEADINGS, *rows, strict=True)
    is_table = sum(max(map(len, column)) + 2 for column in columns) - 2 <= width
    yield from map(Text, introduction(answer))
    yield Text()
    if is_table:
        yield make_table(HEADINGS, rows)
        yield Text()
    for line in shown:
        yield Text(line.title, style="bold")
        if not is_table:
            yield Text(f"  {line.ratio} ({line.interval}): {line.verdict}")
            yield Text(f"  A {line.base}, B {line.other}")
        yield from (Text(f"  {note}") for note in line.notes)
    yield Text()
    yield from map(Text, conclusion(answer))


def trend_parts(histories: "Sequence[History]", width: int) -> Iterator[RenderableType]:
    """The answer of `tlbench trend`: each history, and what has to be known."""
    from tlbench.reports.trend import HEADINGS, conclusion, words

    for history in histories:
        said = words(history, width)
        yield Text(said.title, style="bold")
        yield Text(said.introduction)
        if said.sparkline:
            yield Text(said.sparkline, no_wrap=True)
        yield make_table(HEADINGS, said.rows)
        yield from (Text(f"  {note}") for note in said.notes)
        yield Text()
    yield from map(Text, conclusion(histories))


def repro_parts(answer: "Reproduction") -> Iterator[RenderableType]:
    """The answer of `tlbench repro`: what was checked, then what is not the same."""
    from tlbench.reports.repro import HEADINGS, check_rows, conclusion

    yield make_table(HEADINGS, check_rows(answer))
    yield Text()
    yield from map(Text, conclusion(answer))


def claim_parts(judged: "Sequence[JudgedClaim]") -> Iterator[RenderableType]:
    """The answer of `tlbench claims`: each with its grounds, then how many of which."""
    from tlbench.reports.claims.tables import describe_part, summary_sentence

    for item in judged:
        yield Text(f"{item.claim.id}: {item.verdict_words}", style="bold")
        lines = [item.claim.statement, *map(describe_part, item.parts)]
        if item.claim.caveat:
            lines.append(f"Caveat: {item.claim.caveat}")
        yield from (Text(f"  {line}") for line in lines)
        yield Text()
    yield Text(summary_sentence(judged))


def trial_tables(
    trial: "TrialRecord",
    attempts: "Sequence[AttemptRecord]" = (),
    logs: Mapping[int, str] = MappingProxyType({}),
) -> Iterator[RenderableType]:
    """Everything that is stored about one trial, arrays left out.

    Args:
        trial: The trial.
        attempts: Its attempts that came to nothing.
        logs: What its ranks have printed.
    """
    settings = {
        "trial": trial.id,
        "run": trial.run_id,
        "case": trial.identity,
        "model": trial.model,
        "mode": trial.case.mode,
        "settings": json.dumps(trial.case.canonical()),
        "repeat": trial.repeat,
        "seed": trial.seed,
        "status": trial.status,
        "reason": trial.reason or "",
        "started": trial.started_at.isoformat(timespec="seconds"),
        "took": format_duration(trial.wall_time_s),
        "on": ", ".join(trial.nodes) or UNKNOWN,
        **trial.notes,
        "again": trial.command,
    }
    yield make_table(("about", ""), settings.items())
    yield Text()
    metrics = [
        (name, format_metric(name, value), trial.reasons.get(name, ""))
        for name, value in trial.metrics.items()
    ]
    yield make_table(("metric", "value", ""), metrics)
    if trial.traceback:
        yield Text(f"\n{harmless(trial.traceback)}")
    if attempts:
        yield Text()
        yield _attempts_table(attempts)
    if logs:
        yield from _log_parts(trial, logs)


def _attempts_table(attempts: "Sequence[AttemptRecord]") -> Table:
    rows = [
        (
            attempt.number,
            f"{attempt.status}: {attempt.reason}",
            attempt.started_at.isoformat(timespec="seconds"),
            format_duration(attempt.wall_time_s),
            ", ".join(attempt.nodes) or UNKNOWN,
        )
        for attempt in attempts
    ]
    headings = ("attempt", "came to nothing", "started", "took", "on")
    return make_table(headings, rows)


def _log_parts(
    trial: "TrialRecord", logs: Mapping[int, str]
) -> Iterator[RenderableType]:
    """Which logs there are, and the end of the one of the rank that failed."""
    yield Text()
    rows = [
        (rank, format_bytes(len(log.encode())), _last_words(log))
        for rank, log in logs.items()
    ]
    yield make_table(("rank", "log", "its end"), rows)
    failed = failed_rank(trial.reason)
    rank = next(iter(logs)) if failed is None or failed not in logs else failed
    lines = harmless(logs[rank]).rstrip().splitlines()
    of_all = f", last {LOG_LINES} of {len(lines):,} lines"
    shown = of_all if len(lines) > LOG_LINES else ""
    yield Text(f"\nlog of rank {rank}{shown}", style="bold")
    yield Text("\n".join(lines[-LOG_LINES:]))
    yield Text(f"\nwhole: tlbench show --trial {trial.id} --log {rank}")


def _last_words(log: str) -> str:
    lines = harmless(log).rstrip().splitlines()
    return lines[-1].strip()[:LAST_WORDS] if lines else ""
