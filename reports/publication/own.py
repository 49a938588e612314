"""Quantities that a run measures itself, with a panel for each of its settings."""

from collections import defaultdict
from collections.abc import Callable, Hashable, Sequence

from tlbench.reports.cases import (
    CaseTrials,
    all_but_model,
    circumstances,
    describe_setting,
)
from tlbench.reports.cells import Cell, ratio_cell
from tlbench.reports.compare import (
    ACCURACY_MODES,
    THROUGHPUT,
    differences,
    ratio_of,
)
from tlbench.reports.findings import MODE_WORDS
from tlbench.reports.publication.entries import Entry, Panel, Value, measured, nothing
from tlbench.reports.publication.printed import NOT_RUN, view_count
from tlbench.reports.quantities import QUANTITIES
from tlbench.suites.spec import Mode
from tlbench.units import format_number

MAX_SETTINGS = 2
"""Settings of one mode that have a panel: those in which the most models ran."""

Measure = Callable[[Sequence[Entry]], list[Panel]]
"""The panels of one quantity among the entries of a figure."""
Find = Callable[[CaseTrials, Entry], Value]
"""The value of a case, in its entry."""


def always(*panels: Panel) -> Measure:
    """Quantities that depend on no setting."""
    return lambda _: list(panels)


def accuracy(entries: Sequence[Entry]) -> list[Panel]:
    """Of models trained here, by whichever measure and on whichever data."""
    by_measure: dict[str, list[CaseTrials]] = defaultdict(list)
    for mode in sorted(ACCURACY_MODES):
        for case in _cases(entries, mode):
            if case.case.accuracy_metric is not None:
                by_measure[case.case.accuracy_metric].append(case)
    return [
        panel
        for measure, cases in by_measure.items()
        for panel in _panels(
            cases, measure, f"own {QUANTITIES[measure].heading}, {{}}", _metric(measure)
        )
    ]


def inference(entries: Sequence[Entry]) -> list[Panel]:
    return _throughput(entries, "infer")


def training(entries: Sequence[Entry]) -> list[Panel]:
    return _throughput(entries, "train")


def memory(entries: Sequence[Entry]) -> list[Panel]:
    """Peak memory on a device, or what the steps add on a host."""
    by_metric: dict[str, list[CaseTrials]] = defaultdict(list)
    for mode in ("infer", "train"):
        for case in _cases(entries, mode):
            by_metric[case.memory_metric].append(case)
    return [
        panel
        for metric, cases in by_metric.items()
        for panel in _panels(
            cases, metric, f"{QUANTITIES[metric].heading}, {{}}", _metric(metric)
        )
    ]


def speedup_over(base_model: str) -> Measure:
    """Throughput over that of one model, all else being equal."""

    def panels(entries: Sequence[Entry]) -> list[Panel]:
        timed = [*_cases(entries, "infer"), *_cases(entries, "train")]
        bases = [case for case in timed if case.model == base_model]

        def find(case: CaseTrials, _: Entry) -> Value:
            base = next((b for b in bases if not differences(b, case)), None)
            if base is None:
                return nothing(f"{base_model} did not run like this")
            return _ratio(base, case)

        words = f"times the speed of {base_model}, {{}}"
        return _panels(timed if bases else [], THROUGHPUT, words, find)

    return panels


def video_time(entries: Sequence[Entry]) -> list[Panel]:
    """Seconds for all views of a video, from the clips that a second sees here."""

    def find(case: CaseTrials, entry: Entry) -> Value:
        summary, views = case.summary(THROUGHPUT), view_count(entry)
        if summary.value is None or views is None:
            return nothing(summary.reason or "the number of views is not published")
        low, high = summary.interval or (summary.value, summary.value)
        time_s = views / summary.value
        ends = (views / high, views / low)
        detail = " to ".join(map(format_number, ends)) if low < high else ""
        return Value(Cell(format_number(time_s), detail, key=time_s), time_s, *ends)

    inferred = _cases(entries, "infer")
    return _panels(inferred, THROUGHPUT, "own time of a video [s], {}", find)


def _throughput(entries: Sequence[Entry], mode: Mode) -> list[Panel]:
    heading = f"own {{}} [{QUANTITIES[THROUGHPUT].unit}]"
    return _panels(_cases(entries, mode), THROUGHPUT, heading, _metric(THROUGHPUT))


def _cases(entries: Sequence[Entry], mode: str) -> list[CaseTrials]:
    """Those of the mode, once; one model may stand in several entries."""
    found = {id(c): c for entry in entries for c in entry.cases if c.mode == mode}
    return list(found.values())


def _metric(name: str) -> Find:
    return lambda case, _: measured(QUANTITIES[name], case.summary(name))


def _ratio(base: CaseTrials, case: CaseTrials) -> Value:
    ratio = ratio_of(base, case)
    if ratio.value is None:
        return Value(ratio_cell(ratio))
    low, high = ratio.interval or (ratio.value, ratio.value)
    return Value(ratio_cell(ratio), ratio.value, low, high)


def _panels(
    cases: Sequence[CaseTrials], metric: str, heading: str, find: Find
) -> list[Panel]:
    """One for each setting in which some case has the metric, the fullest first.

    `{}` in the heading stands for the setting.
    """
    groups: dict[Hashable, list[CaseTrials]] = defaultdict(list)
    for case in cases:
        groups[_setting(case)].append(case)
    counts = {key: sum(bool(c.values(metric)) for c in g) for key, g in groups.items()}
    fullest = sorted((k for k in groups if counts[k]), key=lambda k: -counts[k])
    return [
        Panel(heading.format(_words(groups[key][0])), _finder(key, find))
        for key in fullest[:MAX_SETTINGS]
    ]


def _finder(setting: Hashable, find: Find) -> Callable[[Entry], Value]:
    def own(entry: Entry) -> Value:
        like_this = (case for case in entry.cases if _setting(case) == setting)
        case = next(like_this, None)
        return nothing(NOT_RUN) if case is None else find(case, entry)

    return own


def _setting(case: CaseTrials) -> Hashable:
    """Everything but the model."""
    return (case.run_id, case.machine_id, *all_but_model(case.case))


def _words(case: CaseTrials) -> str:
    """How it was measured, and what tells it from other cases of its mode."""
    named = circumstances(case.case)
    has_accuracy = case.mode in ACCURACY_MODES
    told = [f"on {case.case.data}"] if has_accuracy else [MODE_WORDS[case.mode]]
    shown = ("precision",) if has_accuracy else ("batch_size", "precision")
    told += [describe_setting(name, named[name]) for name in shown]
    apart = case.label.removeprefix(case.model).split(", ")[1:]
    return ", ".join(dict.fromkeys([*told, *apart]))
