"""The answer in three sentences or four, made from the data and nothing else."""

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from tlbench.reports.cases import (
    HOST_MEMORY,
    CaseTrials,
    describe_setting,
    describe_statuses,
)
from tlbench.reports.compare import (
    ACCURACY,
    ACCURACY_MODES,
    THROUGHPUT,
    TIMED_MODES,
    Comparison,
)
from tlbench.reports.quantities import FEWSHOT, QUANTITIES
from tlbench.statistics import EQUIVALENCE_BAND, LEVEL, Difference, Interval, Ratio
from tlbench.suites.spec import Case, Mode
from tlbench.units import format_number

MINUS = "\N{MINUS SIGN}"
MODE_WORDS = {
    "profile": "counting",
    "infer": "inference",
    "train": "training steps",
    "fit": "training to accuracy",
    "fewshot": "few-shot probing",
    "evaluate": "evaluation",
}
ROUNDS_TO_NONE = 0.5
"""Points of accuracy: less of them rounds to none."""
Outcome = Literal["gain", "same", "loss", "open"]
OUTCOMES: dict[Outcome, str] = {
    "gain": "gained",
    "same": "the same",
    "loss": "lost",
    "open": "not settled",
}
ACCURACY_WORDS: dict[Mode, str] = {
    "fit": "Trained on",
    "evaluate": "Evaluated on",
    "fewshot": "Probed on",
}


@dataclass(frozen=True)
class Finding:
    """One sentence of the answer."""

    topic: str
    text: str


def find(
    cases: Sequence[CaseTrials], compared: Sequence[Comparison]
) -> tuple[Finding, ...]:
    """What TokenLearner buys in speed, does to accuracy, and keeps of its promise.

    The others speak of the model of the first, where they can. Other reductions of
    tokens have a fourth sentence beside TokenLearner, and all three without it.
    """
    subject = [c for c in compared if c.other.case.model.token_learner is not None]
    told = subject or compared
    fastest = _fastest(told)
    return (
        Finding("Speed", _speed(cases, told, fastest)),
        Finding("Accuracy", _accuracy(cases, told, fastest)),
        Finding("Compute and memory", _cost(told, fastest)),
        *_against_opponents(compared, fastest),
    )


def _fastest(compared: Sequence[Comparison]) -> Comparison | None:
    """The largest speed-up; an own baseline and a settled one come first."""
    return max(
        (c for c in compared if c.speedup.value is not None),
        key=lambda c: (
            c.has_own_baseline,
            c.speedup.verdict == "better",
            c.speedup.value or 0,
        ),
        default=None,
    )


def _speed(
    cases: Sequence[CaseTrials],
    compared: Sequence[Comparison],
    fastest: Comparison | None,
) -> str:
    if fastest is None or fastest.speedup.value is None:
        reason = _why_not(cases, compared, TIMED_MODES, THROUGHPUT)
        return f"Speed could not be compared: {reason}."
    ratio = fastest.speedup
    value = format_number(ratio.value, 3)
    speedups = [c.speedup.value for c in compared if c.speedup.value is not None]
    rank = "the largest" if ratio.value == max(speedups) else "one"
    others = f"; it is {rank} of {len(speedups)} speed-ups" if speedups[1:] else ""
    return (
        f"In {describe_circumstances(fastest.other.case)}{_run(cases, fastest)},"
        f" {fastest.other.model} runs at"
        f" {value} times the speed of {_base_name(fastest)}"
        f" ({describe_evidence(ratio)}): {_verdict(ratio)}{others}."
    )


def _accuracy(
    cases: Sequence[CaseTrials],
    compared: Sequence[Comparison],
    fastest: Comparison | None,
) -> str:
    told = [c for c in compared if c.accuracy.value is not None]
    if not told:
        reason = _why_not(cases, compared, ACCURACY_MODES, ACCURACY)
        return f"Accuracy could not be compared: {reason}."
    chosen = max(told, key=lambda c: (_is_of(fastest, c), c.has_own_baseline))
    metric = chosen.accuracy_metric
    other, base = (
        format_number(side.summary(metric).value)
        for side in (chosen.other, chosen.base)
    )
    return (
        f"{ACCURACY_WORDS[chosen.other.mode]}"
        f" {chosen.other.case.data}{_run(cases, chosen)},"
        f" {chosen.other.model} reaches a median {_called(metric)} of {other} % and"
        f" {_base_name(chosen)} {base} %: {_points(chosen.accuracy)}{_tally(told)}."
    )


def _tally(told: Sequence[Comparison]) -> str:
    """How many comparisons came out in which way, where there are several."""
    if len(told) < 2:
        return ""
    counts = Counter(_outcome(comparison.accuracy) for comparison in told)
    parts = [f"{words} in {counts[o]}" for o, words in OUTCOMES.items() if counts[o]]
    return f"; of {len(told)} comparisons, accuracy is {', '.join(parts)}"


def _called(metric: str) -> str:
    title = QUANTITIES[metric].title if metric in QUANTITIES else metric
    return f"{title} accuracy" if metric in FEWSHOT else title


def _is_of(fastest: Comparison | None, trained: Comparison) -> bool:
    """Whether this is the model of the first sentence, in the same run."""
    return (
        fastest is not None
        and fastest.other.run_id == trained.other.run_id
        and fastest.other.case.model == trained.other.case.model
    )


def _points(difference: Difference) -> str:
    value = difference.value or 0
    amount = f"{format_number(abs(value), 2)} points"
    evidence = describe_evidence(difference)
    match _outcome(difference):
        case "gain" | "loss" as direction:
            return f"a {direction} of {amount} ({evidence})"
        case "same":
            band = f"{ROUNDS_TO_NONE} points"
            return f"no difference beyond {band} ({signed(value)}; {evidence})"
        case _:
            return f"{amount} apart, not settled ({evidence})"


def _outcome(difference: Difference) -> Outcome:
    """What the whole interval supports; a side of one trial has none."""
    if difference.interval is None:
        return "open"
    low, high = difference.interval
    if low > 0 or high < 0:
        return "gain" if low > 0 else "loss"
    return "same" if max(-low, high) < ROUNDS_TO_NONE else "open"


def _cost(compared: Sequence[Comparison], fastest: Comparison | None) -> str:
    chosen = fastest or next((c for c in compared if c.predicted_speedup), None)
    if chosen is None:
        return "Compute and memory could not be compared in this run."
    parts = [part for part in (_realised(chosen), _memory(chosen)) if part]
    if not parts:
        return f"For {chosen.other.model}, neither compute nor memory was measured."
    return f"For {chosen.other.model}, {', and '.join(parts)}."


def _realised(chosen: Comparison) -> str | None:
    predicted, fraction = chosen.predicted_speedup, chosen.realised_speedup_fraction
    if predicted is None:
        return None
    counted = "training FLOPs" if chosen.other.mode == "train" else "multiply-adds"
    sentence = (
        f"the count of {counted} predicts {format_number(predicted, 3)} times the speed"
    )
    if fraction is None:
        return sentence
    share = f"{format_number(100 * fraction, 3)} %"
    interval = _percent_interval(chosen.realised_interval)
    return f"{sentence}, of which {share} is realised{interval}"


def _percent_interval(interval: Interval | None) -> str:
    if interval is None:
        return ""
    low, high = (format_number(100 * end, 3) for end in interval)
    return f" ({_level()} interval {low} to {high} %)"


def _memory(chosen: Comparison) -> str | None:
    ratio = chosen.ratio(chosen.memory_metric)
    if ratio.value is None:
        return None
    is_host = chosen.memory_metric == HOST_MEMORY
    what = "memory that its steps take" if is_host else "peak device memory"
    return (
        f"the {what} is {format_number(ratio.value, 3)} times that of"
        f" {chosen.base.model} ({describe_evidence(ratio)})"
    )


def _against_opponents(
    compared: Sequence[Comparison], fastest: Comparison | None
) -> Iterator[Finding]:
    """Only where other ways to few tokens ran beside TokenLearner."""
    if fastest is None or fastest.other.case.model.token_learner is None:
        return
    opponents = [
        c
        for c in compared
        if c.base is fastest.base
        and c.other.case.model.token_learner is None
        and c.speedup.value is not None
    ]
    if not opponents:
        return
    opponent = max(opponents, key=lambda c: c.speedup.value or 0)
    times = format_number(opponent.speedup.value, 3)
    direct = Comparison(opponent.other, fastest.other).speedup
    yield Finding(
        "Opponents",
        "The fastest other way to few tokens at these settings is"
        f" {opponent.other.model}, at {times} times the speed of {opponent.base.model};"
        f" {fastest.other.model} runs at {format_number(direct.value, 3)} times its"
        f" speed ({describe_evidence(direct)}): {_verdict(direct)}.",
    )


def _why_not(
    cases: Sequence[CaseTrials],
    compared: Sequence[Comparison],
    modes: Collection[str],
    metric: str,
) -> str:
    """The first thing that is missing on the way to a comparison."""
    if not cases:
        return "no trial is stored"
    relevant = [case for case in cases if case.mode in modes]
    if not relevant:
        *others, last = sorted(modes)
        return f"no case of mode {', '.join(others)} or {last} was run"
    if all(case.case.model.token_learner is None for case in relevant):
        return "no model with TokenLearner was measured"
    pairs = [c for c in compared if c.other.mode in modes]
    if not pairs:
        return "no other model was measured at the same settings"
    counts: Counter[str] = Counter()
    for case in relevant:
        counts.update(case.statuses)
    if set(counts) != {"ok"}:
        return f"too few trials ended well ({describe_statuses(counts)})"
    reasons = [c.summary(metric).reason for p in pairs for c in (p.base, p.other)]
    return next((reason for reason in reasons if reason), "no trials match")


def describe_circumstances(case: Case) -> str:
    """Mode, batch, precision, and what else is not as usual."""
    words = f"{MODE_WORDS[case.mode]} at batch {case.batch_size} in {case.precision}"
    unusual = {
        "parallelism.world_size": (case.parallelism.world_size, 1),
        "compile": (case.compile, False),
        "attention": (case.attention, "auto"),
    }
    return ", ".join(
        [words]
        + [
            describe_setting(name, value)
            for name, (value, usual) in unusual.items()
            if value != usual
        ]
    )


def _run(cases: Sequence[CaseTrials], chosen: Comparison) -> str:
    """Which run is spoken of, where the report is on several."""
    is_one = len({case.run_id for case in cases}) == 1
    return "" if is_one else f" in {chosen.other.run_name}"


def _base_name(comparison: Comparison) -> str:
    if comparison.has_own_baseline:
        return comparison.base.model
    which = (
        "of another depth"
        if comparison.has_baseline_of_another_depth
        else "the first model of the run"
    )
    return (
        f"{comparison.base.model} ({which}: the same model with all of its tokens was"
        " not measured)"
    )


def _verdict(ratio: Ratio) -> str:
    match ratio.verdict:
        case "better":
            return "faster"
        case "worse":
            return "slower"
        case "equivalent":
            return f"no difference beyond {100 * EQUIVALENCE_BAND:.0f} %"
        case "inconclusive":
            return "not settled"


def describe_evidence(result: Ratio | Difference) -> str:
    """The interval and how many trials it rests on."""
    if result.interval is None:
        return result.reason or "no interval"
    digits = 3 if isinstance(result, Ratio) else 2
    ends = " to ".join(
        format_number(end, digits).replace("-", MINUS) for end in result.interval
    )
    trials = (
        f"{result.n} paired trials"
        if result.method == "paired t"
        else f"at least {result.n} trials a side"
    )
    return f"{_level()} interval {ends}, {trials}"


def signed(value: float) -> str:
    sign = "+" if value > 0 else MINUS if value < 0 else ""
    return sign + format_number(abs(value), 2)


def _level() -> str:
    return f"{100 * LEVEL:.0f} %"
