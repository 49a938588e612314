"""Quantities that are printed or counted: GFLOPS, parameters, place, tokens, scores."""

from tlbench.models import cost
from tlbench.models.publication import MISPRINT_MARK, as_printed
from tlbench.reports.cases import CaseTrials
from tlbench.reports.cells import Cell
from tlbench.reports.publication.entries import (
    Entry,
    Panel,
    Value,
    exact,
    measured,
    nothing,
)
from tlbench.reports.quantities import QUANTITIES
from tlbench.suites.published import (
    PUBLISHED_CLASSES,
    Misprint,
    PublishedResult,
    Score,
)
from tlbench.units import format_number

SCORE_WORDS: dict[Score, str] = {
    "top1_percent": "top-1",
    "top5_percent": "top-5",
    "real_percent": "ReaL",
    "five_shot_percent": "5-shot",
    "mean_five_shot_percent": "5-shot, mean of 9 sets",
    "map_percent": "mAP",
    "mean_accuracy_percent": "mean accuracy",
    "action_percent": "actions",
}
NOT_PUBLISHED = "not published"
NOT_RUN = "no case of this report"


def score(name: Score, trained: str = "") -> Panel:
    """A published score of trained models, and what they were trained and tested on."""

    def published(entry: Entry) -> Value:
        value = None if entry.row is None else getattr(entry.row, name)
        if entry.row is None or value is None:
            return nothing(NOT_PUBLISHED)
        reading = entry.row.source.reading
        error = reading.percent if reading else 0.0
        return _printed(entry.row, value, error, _misprint(entry.row, name))

    heading = f"published {SCORE_WORDS[name]} [%]{trained and f', {trained}'}"
    return Panel(heading, published=published)


def own_gflops(entry: Entry) -> Value:
    """Ours, counted as the publication's GFLOPS are."""
    spec, row = entry.spec, entry.row
    if spec is None or not entry.cases:
        return nothing(NOT_RUN)
    if spec.builder is not None:
        return nothing("of a builder's model torch counts the multiply-adds alone")
    classes = entry.cases[0].case.num_classes
    if row is not None:
        classes = PUBLISHED_CLASSES.get(row.source.dataset, classes)
    value = cost.published_flops(spec, classes) / 1e9
    return exact(value, format_number(value, 4))


def _printed_gflops(entry: Entry) -> Value:
    row = entry.row
    if row is None or row.gflops is None:
        return nothing(NOT_PUBLISHED)
    error = row.source.reading.gflops if row.source.reading else 0.0
    return _printed(row, row.gflops, error, _misprint(row, "gflops", "label"))


def _own_params(entry: Entry) -> Value:
    """Counted with the classifier and image size that the printed number is of."""
    row, spec = entry.row, entry.spec
    if spec is None or not entry.cases:
        return nothing(NOT_RUN)
    if row is None or row.params_millions is None or spec.builder is not None:
        return measured(QUANTITIES["params"], _counted(entry.cases).summary("params"))
    like, classes = row.params_counted_on()
    sized = spec.model_copy(update={"image_size": like.image_size})
    value = cost.params(sized, classes) / 1e6
    classifier = f"a classifier of {classes:,} classes" if classes else "no classifier"
    hint = f"as it is printed, at {like.image_size} pixels with {classifier}"
    return exact(value, format_number(value, 4), hint=hint)


def _counted(cases: tuple[CaseTrials, ...]) -> CaseTrials:
    """One that has its parameters, if there is any."""
    return next((case for case in cases if case.values("params")), cases[0])


def _printed_params(entry: Entry) -> Value:
    row = entry.row
    if row is None or row.params_millions is None:
        return nothing(NOT_PUBLISHED)
    return _printed(row, row.params_millions, 0.0, None)


def _printed_run_time(entry: Entry) -> Value:
    row = entry.row
    if row is None or row.run_time_ms is None:
        return nothing(NOT_PUBLISHED)
    return _printed(row, row.run_time_ms, 0.0, None)


def _place(entry: Entry) -> Value:
    learner = entry.spec.token_learner if entry.spec else None
    if entry.spec is None or learner is None:
        return nothing("without TokenLearner")
    value = learner.place / entry.spec.depth
    return exact(value, f"{value:g}", hint=f"before block {learner.place}")


def _tokens(entry: Entry) -> Value:
    learner = entry.spec.token_learner if entry.spec else None
    if learner is None:
        return nothing("without TokenLearner")
    return exact(learner.num_tokens, str(learner.num_tokens))


def _own_video_tflops(entry: Entry) -> Value:
    view, views = own_gflops(entry), view_count(entry)
    if view.value is None or views is None:
        return nothing(view.cell.hint or NOT_PUBLISHED)
    value = view.value * views / 1e3
    return exact(value, format_number(value, 4))


def _printed_video_tflops(entry: Entry) -> Value:
    row, views = entry.row, view_count(entry)
    if row is None or row.gflops is None or views is None:
        return nothing(NOT_PUBLISHED)
    value = row.gflops * views / 1e3
    hint = f"{as_printed(row.gflops)} GFLOPS \N{MULTIPLICATION SIGN} {views} views"
    return exact(value, format_number(value, 4), hint=hint)


def view_count(entry: Entry) -> int | None:
    """Crops of a video over which the published prediction is averaged."""
    return None if entry.row is None else entry.row.views


GFLOPS = Panel("GFLOPS", own_gflops, _printed_gflops)
VIDEO_TFLOPS = Panel("TFLOPS of all views", _own_video_tflops, _printed_video_tflops)
PARAMS = Panel("parameters [M]", _own_params, _printed_params)
RUN_TIME = Panel("published run time [ms]", published=_printed_run_time)
PLACE = Panel("relative place of TokenLearner", _place, _place)
TOKENS = Panel("learned tokens", _tokens, _tokens)


def _printed(
    row: PublishedResult, value: float, error: float, misprint: Misprint | None
) -> Value:
    cell = Cell(
        f"{as_printed(value)}{MISPRINT_MARK if misprint else ''}",
        f"\N{PLUS-MINUS SIGN} {error:g}, read off" if error else "",
        misprint.reason if misprint else row.label,
        value,
    )
    return Value(cell, value, value - error, value + error, misprint is not None)


def _misprint(row: PublishedResult, *fields: str) -> Misprint | None:
    """What is wrong with one of these; a wrong label is told by the GFLOPS."""
    misprint = row.misprint
    return misprint if misprint and misprint.field in fields else None
