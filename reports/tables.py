"""The tables of the report on cases, their comparisons, cost, memory and stages."""

from collections.abc import Iterable, Sequence
from dataclasses import replace

from tlbench.errors import UnknownCostError
from tlbench.models.layers import Stage
from tlbench.models.publication import published_costs
from tlbench.reports.cases import (
    DEVICE_MEMORY,
    HOST_MEMORY,
    PREDICTED_MEMORY,
    CaseTrials,
    describe_statuses,
)
from tlbench.reports.cells import (
    Cell,
    Row,
    Table,
    metric_cell,
    missing,
    percent_cell,
    quantity_cell,
    ratio_cell,
    verdict_cell,
    word,
)
from tlbench.reports.compare import Comparison
from tlbench.reports.findings import describe_evidence, signed
from tlbench.reports.quantities import (
    CEILING,
    FEWSHOT,
    LARGEST_BATCH,
    MEMORY,
    QUANTITIES,
    STAGE_MACS,
    STAGE_TIME,
    STAGES,
)
from tlbench.units import format_number

SUMMARY = (
    "throughput_samples_per_s",
    "latency_p50_s",
    DEVICE_MEMORY,
    HOST_MEMORY,
    "top1_percent",
    "map_percent",
    *FEWSHOT,
    "train_time_s",
)
"""The metrics that a terminal has room for."""


def summary_table(cases: Sequence[CaseTrials]) -> Table:
    """Every case in one line: its trials and the metrics of the summary it has."""
    shown = _measured(cases, SUMMARY)
    return Table(
        headings=("case", "mode", "trials", *(QUANTITIES[n].heading for n in shown)),
        rows=tuple(
            Row(
                cells=(
                    word(case.label),
                    word(case.mode),
                    _trials_cell(case),
                    *(metric_cell(name, case.summary(name)) for name in shown),
                )
            )
            for case in cases
        ),
    )


def _measured(cases: Sequence[CaseTrials], names: Iterable[str]) -> list[str]:
    """Those of the metrics that at least one case has."""
    return [name for name in names if any(case.values(name) for case in cases)]


def case_table(cases: Sequence[CaseTrials], compared: Sequence[Comparison]) -> Table:
    """Every case with each metric that at least one of them has."""
    shown = _measured(cases, QUANTITIES)
    speedups = {id(c.other): c for c in compared}
    return Table(
        headings=(
            "case",
            "mode",
            "data",
            "batch",
            "precision",
            "trials",
            *(QUANTITIES[name].heading for name in shown),
            "speed-up",
        ),
        rows=tuple(
            Row(
                cells=(
                    *_setting_cells(case),
                    *(metric_cell(name, case.summary(name)) for name in shown),
                    _speedup_cell(speedups.get(id(case))),
                ),
                anchor=_anchor(case),
                facets=_facets(case),
            )
            for case in cases
        ),
    )


def _anchor(case: CaseTrials) -> str:
    """The same in every report that has the case in this run."""
    return f"case-{case.run_id}-{case.machine_id or 0}-{case.trials[0].identity[:12]}"


def _facets(case: CaseTrials) -> dict[str, str]:
    statuses = [*case.statuses]
    return {
        "run": case.run_name,
        "machine": case.machine_name,
        "model": case.model,
        "mode": case.mode,
        "batch": str(case.case.batch_size),
        "precision": case.case.precision,
        "status": "|".join([*statuses, *(["not ok"] if statuses != ["ok"] else [])]),
    }


def comparison_table(compared: Sequence[Comparison]) -> Table:
    """Every comparison: what was predicted, what came of it, and what it costs."""
    return Table(
        headings=(
            "case",
            "baseline",
            "mode",
            "predicted",
            "realised",
            "verdict",
            "share of predicted [%]",
            "peak memory",
            "accuracy [points]",
        ),
        rows=tuple(
            Row(
                cells=(
                    word(c.other.label),
                    word(c.base.model),
                    word(c.other.mode),
                    predicted_cell(c),
                    ratio_cell(c.speedup),
                    verdict_of(c),
                    share_cell(c),
                    ratio_cell(c.ratio(c.memory_metric)),
                    _accuracy_cell(c),
                )
            )
            for c in compared
        ),
    )


def cost_table(cases: Sequence[CaseTrials]) -> Table:
    """What was counted of every profiled model, beside each published number of it."""
    gmacs = QUANTITIES["macs"]
    return Table(
        headings=(
            "case",
            QUANTITIES["params"].heading,
            gmacs.heading,
            f"by torch [{gmacs.unit}]",
            f"by DeepSpeed [{gmacs.unit}]",
            "published [GFLOPS]",
            "ours [GFLOPS]",
            "ratio",
            "verdict",
        ),
        rows=tuple(
            Row(cells=(*_counted_cells(case), *cells))
            for case in cases
            if case.mode == "profile"
            for cells in _published_cells(case)
        ),
    )


def _counted_cells(case: CaseTrials) -> tuple[Cell, ...]:
    gmacs, builder = QUANTITIES["macs"], case.case.model.builder
    macs = quantity_cell(gmacs, case.summary("macs"))
    if builder is None:
        closed_form = macs
        by_torch = quantity_cell(gmacs, case.summary("counter_macs"))
    else:  # what its trials store as MACs is what torch counts
        closed_form = missing(str(UnknownCostError(builder.function)))
        by_torch = macs
    return (
        word(case.label),
        metric_cell("params", case.summary("params")),
        closed_form,
        by_torch,
        quantity_cell(gmacs, case.summary("profiler_macs")),
    )


def _published_cells(case: CaseTrials) -> list[tuple[Cell, ...]]:
    """Of each published row; one line of dashes where there is none."""
    is_known = case.case.model.builder is None
    rows = published_costs(case.case.model) if is_known else ()
    if not rows:
        return [(missing("the publication gives no GFLOPS of it"),) * 4]
    return [
        (
            Cell(
                row.printed_gflops,
                row.source,
                row.misprint or row.label,
                row.published_gflops,
            ),
            Cell(format_number(row.gflops, 4), key=row.gflops),
            Cell(f"{row.ratio:.3f}", key=row.ratio),
            Cell(
                row.verdict,
                hint=row.misprint or "",
                key=row.verdict,
                is_number=False,
            ),
        )
        for row in rows
    ]


def memory_table(cases: Sequence[CaseTrials]) -> Table:
    """Predicted and measured memory of every case that has both."""
    return Table(
        headings=(
            "case",
            "mode",
            f"predicted [{MEMORY.unit}]",
            f"measured [{MEMORY.unit}]",
            "measured over predicted",
        ),
        rows=tuple(
            Row(
                cells=(
                    word(case.label),
                    word(case.mode),
                    quantity_cell(MEMORY, predicted),
                    quantity_cell(MEMORY, measured),
                    Cell(format_number(ratio, 3), key=ratio),
                )
            )
            for case in cases
            for measured in [case.summary(case.memory_metric)]
            for predicted in [case.summary(PREDICTED_MEMORY[case.memory_metric])]
            if measured.value is not None and predicted.value
            for ratio in [measured.value / predicted.value]
        ),
    )


def stage_table(cases: Sequence[CaseTrials]) -> Table:
    """Every stage of every case that was attributed: what it takes, and its share."""
    return Table(
        headings=(
            "case",
            "stage",
            STAGE_TIME.heading,
            "share of time [%]",
            STAGE_MACS.heading,
            "share of compute [%]",
            MEMORY.heading,
            CEILING.heading,
        ),
        rows=tuple(
            Row(_stage_cells(case, stage, title))
            for case in cases
            for stage, title in STAGES.items()
            if case.values(f"stage_{stage}_macs")
        ),
    )


def _stage_cells(case: CaseTrials, stage: Stage, title: str) -> tuple[Cell, ...]:
    return (
        word(case.label),
        word(title),
        quantity_cell(STAGE_TIME, case.summary(f"stage_{stage}_time_s")),
        _stage_share(case, stage, "time_s"),
        quantity_cell(STAGE_MACS, case.summary(f"stage_{stage}_macs")),
        _stage_share(case, stage, "macs"),
        quantity_cell(MEMORY, case.summary(f"stage_{stage}_memory_bytes")),
        quantity_cell(CEILING, case.summary("removal_ceiling_ratio"))
        if stage == "after"
        else missing("told of the blocks after the reduction only"),
    )


def _stage_share(case: CaseTrials, stage: Stage, quantity: str) -> Cell:
    """Of the sum over all stages, in percent."""
    values = {s: case.summary(f"stage_{s}_{quantity}").value for s in STAGES}
    value, total = values[stage], sum(v or 0 for v in values.values())
    if value is None or not total:
        return missing(case.summary(f"stage_{stage}_{quantity}").reason or "")
    percent = 100 * value / total
    return Cell(format_number(percent, 3), key=percent)


def _setting_cells(case: CaseTrials) -> tuple[Cell, ...]:
    settings = case.case
    is_counted = case.mode == "profile"
    not_read = missing("counted, not measured")
    return (
        word(case.label),
        word(case.mode),
        not_read if is_counted else word(settings.data),
        not_read if is_counted else _batch_cell(case),
        not_read if is_counted else word(settings.precision),
        _trials_cell(case),
    )


def _trials_cell(case: CaseTrials) -> Cell:
    return Cell(
        describe_statuses(case.statuses),
        describe_statuses(case.doubtful),
        "; ".join(case.doubts),
        key=len(case.finished),
        is_number=False,
    )


def _batch_cell(case: CaseTrials) -> Cell:
    size = case.case.batch_size
    if size != "max":
        return Cell(f"{size:,}", key=size)
    found = case.summary(LARGEST_BATCH).value
    if found is None:
        return missing("no largest batch was found")
    return Cell(f"{found:,.0f}", "the largest", key=found)


def _speedup_cell(comparison: Comparison | None) -> Cell:
    if comparison is None:
        return missing("without TokenLearner, or without a baseline to compare with")
    return ratio_cell(comparison.speedup)


def predicted_cell(comparison: Comparison) -> Cell:
    predicted = comparison.predicted_speedup
    if predicted is None:
        return missing("the cost of one side is not known")
    text = f"{format_number(predicted, 3)}\N{MULTIPLICATION SIGN}"
    return Cell(text, key=predicted)


def verdict_of(comparison: Comparison) -> Cell:
    """The verdict, and a mark where it rests on trials that are in doubt."""
    cell = verdict_cell(comparison.speedup)
    sides = (comparison.base, comparison.other)
    doubts = [f"{s.model}: {reason}" for s in sides for reason in s.doubts]
    if not doubts:
        return cell
    return replace(cell, detail="in doubt", hint="; ".join([cell.hint, *doubts]))


def share_cell(comparison: Comparison) -> Cell:
    fraction = comparison.realised_speedup_fraction
    if fraction is None:
        return missing("needs a predicted and a realised speed-up")
    return percent_cell(fraction, comparison.realised_interval)


def _accuracy_cell(comparison: Comparison) -> Cell:
    difference = comparison.accuracy
    if difference.value is None:
        reason = comparison.other.summary(comparison.accuracy_metric).reason
        return missing(reason or "the baseline has no accuracy")
    detail = ""
    if difference.interval is not None:
        detail = " to ".join(signed(end) for end in difference.interval)
    return Cell(
        signed(difference.value),
        detail,
        describe_evidence(difference),
        difference.value,
    )
