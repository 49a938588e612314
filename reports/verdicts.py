"""The answer of a comparison as words, JSON, Markdown and JUnit."""

import re
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from tlbench.db.query import RunRecord
from tlbench.errors import ReportError
from tlbench.reports.cases import describe_statuses
from tlbench.reports.gate import Answer, Judgement
from tlbench.reports.markdown import code, escaped, lines_of
from tlbench.reports.quantities import DIRECTIONS, QUANTITIES
from tlbench.reports.selection import Selected
from tlbench.reports.sides import Side
from tlbench.statistics import MOST_TRIALS, Ratio
from tlbench.units import UNKNOWN, format_duration, format_metric, format_number

TIMES = "\N{MULTIPLICATION SIGN}"
HEADINGS = ("case", "A", "B", "B / A", "interval", "verdict")
ARE_NUMBERS = (False, True, True, True, True, False)


@dataclass(frozen=True)
class Line:
    """One comparison as it is shown."""

    title: str
    base: str
    other: str
    ratio: str
    interval: str
    verdict: str
    notes: tuple[str, ...]

    @property
    def cells(self) -> tuple[str, ...]:
        """What stands under `HEADINGS`."""
        return (
            *(self.title, self.base, self.other),
            *(self.ratio, self.interval, self.verdict),
        )


def lines(answer: Answer) -> list[Line]:
    metric = answer.question.metric
    return [
        Line(
            title=judgement.title,
            base=_value(judgement.base, metric),
            other=_value(judgement.other, metric),
            ratio=_times(judgement.ratio.value),
            interval=_interval(judgement.ratio),
            verdict=judgement.ratio.verdict,
            notes=tuple(_notes(judgement, answer)),
        )
        for judgement in answer.judgements
    ]


def introduction(answer: Answer) -> list[str]:
    """What is compared, in lines that stand before the table."""
    question = answer.question
    quantity = QUANTITIES.get(question.metric)
    named = question.metric if quantity is None else quantity.heading
    what = f"{named}, {DIRECTIONS[question.metric]} is better, iso-{question.iso.text}"
    compared = dict.fromkeys(
        words for j in answer.judgements for words in j.match.differences.values()
    )
    if len(compared) == 1:
        what += f"; compared: {next(iter(compared))}"
    return [
        what,
        f"A: {_selected(answer.a)}",
        f"B: {_selected(answer.b)}",
    ]


def conclusion(answer: Answer) -> list[str]:
    """What has to be known to read the verdicts, and what is not among them."""
    question = answer.question
    held = "" if len(answer.judgements) == 1 else ", over all of them by Holm's method"
    told = [
        f"{_percent(question.level)} intervals{held}; equivalent: within"
        f" {_percent(question.band)}; noise floor:"
        f" {_percent(max(j.floor for j in answer.judgements))}"
    ]
    for name, sides in (
        ("only in A", answer.only_a),
        ("only in B", answer.only_b),
        (f"without {question.metric}", answer.unmeasured),
    ):
        if sides:
            told.append(f"{name}: {', '.join(dict.fromkeys(map(_label, sides)))}")
    return told


def _label(side: Side) -> str:
    return f"{side.case.mode} {side.label}"


def _selected(selected: Selected) -> str:
    runs = ", ".join(f"run {run.id} ({_came(run)})" for run in selected.runs)
    conditions = ",".join(
        str(c) for c in selected.selection.conditions if c.name != "run"
    )
    return f"{conditions}, {runs}" if conditions else runs


def _came(run: RunRecord) -> str:
    """The suite, and how far the run came if that is not to its end."""
    if run.status == "finished":
        return run.suite
    return f"{run.suite}, {run.status}, {run.finished} of {run.planned} trials"


def _value(side: Side, metric: str) -> str:
    value = side.typical(metric)
    if value is None:
        return UNKNOWN
    quantity = QUANTITIES.get(metric)
    return format_metric(metric, value) if quantity is None else quantity.text(value)


def _times(ratio: float | None) -> str:
    return UNKNOWN if ratio is None else f"{format_number(ratio, 3)}{TIMES}"


def _interval(ratio: Ratio) -> str:
    if ratio.interval is None:
        return UNKNOWN
    return " to ".join(format_number(end, 3) for end in ratio.interval)


def _percent(share: float) -> str:
    return f"{100 * share:.4g} %"


# ---------------------------------------------------------------- notes


def _notes(judgement: Judgement, answer: Answer) -> Iterator[str]:
    ratio, sides = judgement.ratio, (judgement.base, judgement.other)
    if ratio.interval is None:
        yield ratio.reason or "there is no interval"
    elif ratio.method == "counted":
        yield "counted, not measured: any change decides"
    else:
        yield f"{_trials(ratio)}, {_percent(ratio.level)} interval"
    yield from _left_out(judgement, answer.question.metric)
    if len({side.batch_size for side in sides}) > 1:
        yield f"batch {sides[0].batch_size} and {sides[1].batch_size}"
    for name, side in zip("AB", sides, strict=True):
        yield from _doubts(name, side, answer.question.metric)
    is_apart = not {*sides[0].run_ids} & {*sides[1].run_ids}
    if is_apart and ratio.method != "counted":
        yield "not of one run: drift between them is in the ratio"
    yield from _outlook(judgement)


def _left_out(judgement: Judgement, metric: str) -> Iterator[str]:
    """Trials that a paired comparison has no use for."""
    if judgement.ratio.method != "paired t":
        return
    for name, side in zip("AB", (judgement.base, judgement.other), strict=True):
        alone = len(side.values(metric)) - judgement.ratio.n
        if alone:
            yield f"{name}: {alone} without a partner in their block, left out"


def _trials(ratio: Ratio) -> str:
    if ratio.method == "paired t":
        return f"{ratio.n} pairs"
    return f"at least {ratio.n} trials a side"


def _doubts(name: str, side: Side, metric: str) -> Iterator[str]:
    if not side.values(metric):
        yield f"{name}: {side.why_missing(metric)}"
    elif side.failures:
        yield f"{name}: {describe_statuses(side.failures)}"
    if len(side.batch_sizes) > 1:
        batches = " and ".join(map(str, side.batch_sizes))
        yield f"{name}: trials at batches of {batches} are taken together"
    if side.invalid:
        yield f"{name}: {side.invalid} invalid, left out"
    if side.suspect:
        yield f"{name}: {side.suspect} suspect"


def _outlook(judgement: Judgement) -> Iterator[str]:
    """What would settle it, where it is not settled."""
    proposal, ratio = judgement.proposal, judgement.ratio
    if proposal is not None:
        time = format_duration(proposal.time_s)
        yield (
            f"{proposal.repeats:,} more repeats of each side should settle it,"
            f" about {time}"
            if ratio.interval is not None
            else f"{proposal.repeats} more of each side give an interval, about {time}"
        )
    elif ratio.verdict == "inconclusive" and ratio.interval is not None:
        yield f"{MOST_TRIALS:,} trials of each side would not settle it"


# ---------------------------------------------------------------- JSON


def describe(answer: Answer, fail_on: Collection[str] = ()) -> dict[str, Any]:
    """The answer as plain JSON values."""
    question = answer.question
    failing = answer.failing(fail_on)
    return {
        "metric": question.metric,
        "direction": DIRECTIONS[question.metric],
        "level": question.level,
        "band": question.band,
        "iso": question.iso.text,
        "runs": {
            "a": [run.id for run in answer.a.runs],
            "b": [run.id for run in answer.b.runs],
        },
        "comparisons": [
            _describe(judgement, line, is_failing=_has(failing, judgement))
            for judgement, line in zip(answer.judgements, lines(answer), strict=True)
        ],
        "missing": [_label(side) for side in answer.missing(fail_on)],
        "only_a": [_label(side) for side in answer.only_a],
        "only_b": [_label(side) for side in answer.only_b],
        "without_metric": [_label(side) for side in answer.unmeasured],
    }


def _describe(judgement: Judgement, line: Line, *, is_failing: bool) -> dict[str, Any]:
    ratio, proposal = judgement.ratio, judgement.proposal
    return {
        "case": line.title,
        "a": _describe_side(judgement.base),
        "b": _describe_side(judgement.other),
        "differences": dict(judgement.match.differences),
        "ratio": ratio.value,
        "interval": ratio.interval,
        "level": ratio.level,
        "p_value": ratio.p_value,
        "adjusted_p_value": judgement.adjusted_p_value,
        "method": ratio.method,
        "n": ratio.n,
        "noise_floor": judgement.floor,
        "verdict": ratio.verdict,
        "fails": is_failing,
        "more_repeats": proposal and proposal.repeats,
        "more_time_s": proposal and proposal.time_s,
        "notes": list(line.notes),
    }


def _has(judgements: Iterable[Judgement], wanted: Judgement) -> bool:
    """Whether it is among them, itself: to compare what they hold would take long."""
    return any(judgement is wanted for judgement in judgements)


def _describe_side(side: Side) -> dict[str, Any]:
    return {
        "case": side.case.identity,
        "label": side.label,
        "mode": side.case.mode,
        "batch_size": side.batch_size,
        "runs": list(side.run_ids),
        "trials": len(side.trials),
        "invalid": side.invalid,
        "suspect": side.suspect,
    }


# ---------------------------------------------------------------- Markdown


def markdown(answer: Answer) -> str:
    """For a pull request: a table, and the notes below it."""
    shown = lines(answer)
    rows = [(code(x.title), *map(escaped, x.cells[1:])) for x in shown]
    table = lines_of(HEADINGS, rows, ARE_NUMBERS)
    notes = [
        f"- {code(line.title)}: {escaped('; '.join(line.notes))}"
        for line in shown
        if line.notes
    ]
    before = [f"{escaped(text)}  " for text in introduction(answer)]
    after = [f"- {escaped(text)}" for text in conclusion(answer)]
    parts = [["### tlbench compare"], before, table, [*notes, *after]]
    return "\n\n".join("\n".join(part) for part in parts) + "\n"


# ---------------------------------------------------------------- JUnit

_NOT_IN_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def junit(answer: Answer, fail_on: Collection[str]) -> str:
    """One test case a comparison, and a case that B lacks; what stops is a failure."""
    failing, missing, open_ones = answer.failing(fail_on), answer.missing(fail_on), 0
    suite = ElementTree.Element("testsuite", name="tlbench compare")
    for judgement, line in zip(answer.judgements, lines(answer), strict=True):
        case = _test_case(suite, answer, line.title)
        told = f"{line.verdict}: {line.ratio} ({line.interval})"
        if _has(failing, judgement):
            outcome = ElementTree.SubElement(case, "failure", message=_clean(told))
            outcome.text = _clean("\n".join(line.notes))
        elif line.verdict == "inconclusive":
            open_ones += 1
            ElementTree.SubElement(
                case, "skipped", message=_clean("; ".join([told, *line.notes]))
            )
        else:
            ElementTree.SubElement(case, "system-out").text = _clean(told)
    for side in missing:
        case = _test_case(suite, answer, _label(side))
        ElementTree.SubElement(case, "failure", message="B does not have it")
    suite.set("tests", str(len(answer.judgements) + len(missing)))
    suite.set("failures", str(len(failing) + len(missing)))
    suite.set("errors", "0")
    suite.set("skipped", str(open_ones))
    root = ElementTree.Element("testsuites")
    root.append(suite)
    ElementTree.indent(root)
    text = ElementTree.tostring(root, encoding="unicode")
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{text}\n'


def _test_case(
    suite: ElementTree.Element, answer: Answer, name: str
) -> ElementTree.Element:
    return ElementTree.SubElement(
        suite,
        "testcase",
        classname=_clean(f"tlbench.{answer.question.metric}"),
        name=_clean(name),
    )


def _clean(text: str) -> str:
    return _NOT_IN_XML.sub("\N{REPLACEMENT CHARACTER}", text)


def write(text: str, destination: Path) -> None:
    """Write one of these to a file."""
    try:
        destination.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ReportError(
            f"{destination}: cannot be written: {error.strerror}"
        ) from error
