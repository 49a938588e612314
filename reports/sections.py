"""The sections of the report: one question each, in the order in which people ask."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from tlbench.models.publication import MISPRINT_MARK
from tlbench.reports.attention import MAPS_NOTE, attention_chart, attention_table
from tlbench.reports.break_even import break_even_chart, break_even_table
from tlbench.reports.cases import CaseTrials
from tlbench.reports.cells import Table
from tlbench.reports.charts import (
    memory_chart,
    speedup_chart,
    stage_chart,
    throughput_chart,
)
from tlbench.reports.claims.records import JudgedClaim
from tlbench.reports.claims.tables import METHOD, claims_table, summary_sentence
from tlbench.reports.compare import Comparison
from tlbench.reports.drawing import Chart, NoChart, Palette
from tlbench.reports.evidence import Curves
from tlbench.reports.frontier import frontier_chart, frontier_table
from tlbench.reports.history import MAX_CASES, MAX_RUNS, History
from tlbench.reports.history_chart import history_chart, history_table
from tlbench.reports.inputs import input_table
from tlbench.reports.pareto import accuracy_chart, front_table, speed_front_chart
from tlbench.reports.publication.figures import drawn_figures
from tlbench.reports.scaling import scaling_chart, scaling_table
from tlbench.reports.stacks import stack_table
from tlbench.reports.tables import (
    comparison_table,
    cost_table,
    memory_table,
    stage_table,
)
from tlbench.reports.training import training_chart
from tlbench.reports.trust import machine_table, trust_table

COST_NOTE = (
    "The closed form, torch's counter and DeepSpeed's profiler count each model on"
    " their own. Checked in every trial: the parameters exactly, the multiply-adds of"
    " torch's counter layer by layer against the closed form, and those of DeepSpeed's"
    " profiler module by module against torch's; a trial in which they differ fails."
    " The model of a builder is counted by torch alone. Tokens, values and the place of"
    " TokenLearner are checked by tlbench models --certify. Published GFLOPS are"
    " multiply-adds and half of all other operations, and so are ours beside them;"
    f" {MISPRINT_MARK} marks what is misprinted there."
)
SCALING_NOTE = (
    "Efficiency is the throughput over that on the fewest devices, over the ratio of"
    " the numbers of devices. Strong: the whole batch stays the same; weak: that of"
    " each device does."
)
STACKS_NOTE = (
    "The same steps by torch in a plain process, by processes of torchrun, in workers"
    " of Ray, and under DeepSpeed in these; each against the first of them that ran."
)
INPUT_NOTE = (
    "The same case with batches from the loader and with one kept batch. Workers"
    " needed: as many as would feed the model at the speed it has with the kept batch,"
    " given cores of their own."
)
MACHINE_NOTE = (
    "Sampled or counted while the steps were timed; on a GPU through NVML, on a CPU"
    " from what the kernel tells."
)
HISTORY_NOTE = (
    "The cases of this report in the earlier and later runs of the database. A series"
    " breaks where the hardware, its driver or a library is another one, and changes of"
    " level are looked for between the breaks; a change is told with its size, its"
    " p value corrected for the search, and the tlbench before and after it."
    f" At most {MAX_CASES} cases and the newest {MAX_RUNS} runs; tlbench trend has all."
)
TRUST_NOTE = (
    "Each trial is judged when it is stored. Suspect: shown, and used with care."
    " Invalid: no gate uses it. Flat: the steps keep their level; warming and slowing:"
    " they get faster or slower while they are timed; none: they have no level. Every"
    " step is kept. Trials apart: the standard deviation over the trials, which is what"
    " the intervals are made of."
)


@dataclass(frozen=True)
class Section:
    """One question of the report, its picture, and its table where there is one."""

    name: str
    title: str
    chart: Chart | NoChart | None
    """None: the table says it all."""
    table: Table | None = None
    note: str = ""
    """What has to be known to read the table."""


def sections(
    cases: Sequence[CaseTrials],
    compared: Sequence[Comparison],
    judged: Sequence[JudgedClaim],
    curves: Curves,
    history: Sequence[History] = (),
    maps: Mapping[int, bytes] = MappingProxyType({}),
) -> list[Section]:
    palette = Palette(cases)
    return [
        *_accuracy(cases, palette),
        *_publication(cases),
        Section("throughput", "Throughput", throughput_chart(cases, palette)),
        Section(
            "speed-up",
            "Speed-up: predicted and realised",
            speedup_chart(compared, palette),
            comparison_table(compared),
        ),
        *_break_even(compared),
        Section(
            "stages", "Where the time goes", stage_chart(cases), stage_table(cases)
        ),
        Section(
            "memory", "Peak memory", memory_chart(cases, palette), memory_table(cases)
        ),
        Section("training", "Training curves", training_chart(cases, curves, palette)),
        *_attention(cases, maps),
        *_frontier(cases, palette),
        *_scaling(cases, palette),
        *_tables(cases),
        *_checked_cost(cases),
        *_history(history),
        *_trust(cases),
        _claims(judged),
    ]


def _accuracy(cases: Sequence[CaseTrials], palette: Palette) -> Iterator[Section]:
    """The fronts of models that were trained, and of those that were timed too.

    Where none was trained, the section of the curves says so.
    """
    compute = accuracy_chart(cases, palette)
    if isinstance(compute, Chart):
        table = front_table(cases)
        yield Section("accuracy", "Accuracy against compute", compute, table)
    speed = speed_front_chart(cases, palette)
    if isinstance(speed, Chart):
        yield Section("accuracy-throughput", "Accuracy against throughput", speed)


def _break_even(compared: Sequence[Comparison]) -> Iterator[Section]:
    """Only of runs that have timed a pair at several batches or sizes."""
    chart = break_even_chart(compared)
    if isinstance(chart, Chart):
        table = break_even_table(compared)
        yield Section("break-even", "Where TokenLearner is faster", chart, table)


def _scaling(cases: Sequence[CaseTrials], palette: Palette) -> Iterator[Section]:
    """Only of runs on several numbers of devices."""
    table = scaling_table(cases)
    if table.rows:
        chart = scaling_chart(cases, palette)
        yield Section("scaling", "More devices", chart, table, SCALING_NOTE)


def _publication(cases: Sequence[CaseTrials]) -> Iterator[Section]:
    """The publication's own figures, of runs with models that belong to them."""
    for drawn in drawn_figures(cases):
        figure = drawn.figure
        yield Section(
            figure.name, figure.title, drawn.chart(), drawn.table(), figure.note
        )


def _checked_cost(cases: Sequence[CaseTrials]) -> Iterator[Section]:
    """Only of runs that have counted: most reports are about what was measured."""
    table = cost_table(cases)
    if table.rows:
        yield Section("cost", "Cost, checked", None, table, COST_NOTE)


def _attention(
    cases: Sequence[CaseTrials], maps: Mapping[int, bytes]
) -> Iterator[Section]:
    """Only of runs in which the maps of TokenLearner were looked at."""
    table = attention_table(cases)
    if table.rows:
        chart = attention_chart(cases, maps)
        title = "Where TokenLearner looks"
        yield Section("attention", title, chart, table, MAPS_NOTE)


def _frontier(cases: Sequence[CaseTrials], palette: Palette) -> Iterator[Section]:
    table = frontier_table(cases)
    if table.rows:
        chart = frontier_chart(cases, palette)
        yield Section("frontier", "The largest batch that fits", chart, table)


def _tables(cases: Sequence[CaseTrials]) -> Iterator[Section]:
    """Questions that only some suites ask."""
    asked = (
        ("stacks", "What each layer costs", stack_table, STACKS_NOTE),
        ("input", "What loading costs", input_table, INPUT_NOTE),
        ("machine", "The machine meanwhile", machine_table, MACHINE_NOTE),
    )
    for name, title, table_of, note in asked:
        table = table_of(cases)
        if table.rows:
            yield Section(name, title, None, table, note)


def _history(histories: Sequence[History]) -> Iterator[Section]:
    """Only of cases that several runs have measured."""
    if histories:
        chart, table = history_chart(histories), history_table(histories)
        yield Section("history", "History", chart, table, HISTORY_NOTE)


def _trust(cases: Sequence[CaseTrials]) -> Iterator[Section]:
    table = trust_table(cases)
    if table.rows:
        yield Section("trust", "How far to trust it", None, table, TRUST_NOTE)


def _claims(judged: Sequence[JudgedClaim]) -> Section:
    """In every report: what no measurement is needed for has a verdict in all."""
    note = f"{summary_sentence(judged)} {METHOD}"
    title = "The claims of the publication, one by one"
    return Section("claims", title, None, claims_table(judged), note)
