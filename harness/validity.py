"""How far the numbers of a finished trial may be trusted, and why not further."""

from collections.abc import Iterator
from typing import NamedTuple, get_args

from tlbench.peaks import MFU, MFU_AGAINST, is_on_gpu
from tlbench.result import (
    UNSETTLED,
    WHOLE_JOB,
    TrialResult,
    Validity,
    too_few_steps,
)
from tlbench.suites.spec import Case, Mode
from tlbench.units import format_counted, format_fraction, format_number

RANKING: tuple[Validity, ...] = get_args(Validity)
"""From the best to the worst, which decides."""


class Limit(NamedTuple):
    """The shares from which on a trial is suspect, and invalid; None: never."""

    suspect: float
    invalid: float | None


THROTTLED = Limit(0.05, None)
"""Of the samples, for whatever reason. A power cap is how many GPUs always run: it
repeats, and yet another card, or a colder day, gives another number."""
SLOWED_DOWN = Limit(0.0, 0.05)
"""Of the samples, for heat or a failing supply: what is measured is the cooling."""
FOREIGN_CPU = Limit(0.05, 0.25)
"""Of the cores' time: the housekeeping of a quiet system stays below the first, and the
second is half of one of two cores. Where a GPU computes, none makes it invalid."""
STOLEN = Limit(0.02, 0.10)
"""Of the cores' time: the first is the width of the interval that trials aim at."""
LAG = Limit(0.05, None)
"""How much longer the slowest rank computes than the fastest: like devices given like
work are closer, and the job's number is that of its worst device."""

FEWEST_STEPS = 10
"""The median of fewer has no `step_interval`, however independent they are."""

STATES = {
    "warming": "the steps were getting faster while they were timed",
    "slowing": "the steps were getting slower while they were timed",
    "none": "the steps jumped between two speeds while they were timed",
}
"""What the note `steady_state` means where it is not flat."""


WATCHED: frozenset[Mode] = frozenset({"infer", "train"})
"""The modes whose steps are timed, and the machine watched meanwhile."""


class Doubt(NamedTuple):
    """A reason to trust a trial less."""

    validity: Validity
    reason: str


Metrics = dict[str, float | None]


def judge(case: Case, result: TrialResult) -> tuple[Validity | None, tuple[str, ...]]:
    """The verdict on a trial, and a sentence for each doubt about it.

    None for a trial that failed, and in the modes in which nobody watches the machine.
    What could not be measured raises no doubt; the metric says why it is not there.
    """
    if result.status != "ok" or case.mode not in WATCHED:
        return None, ()
    doubts = [*_doubts(case, result)]
    ranks = [RANKING.index(doubt.validity) for doubt in doubts]
    return RANKING[max(ranks, default=0)], tuple(doubt.reason for doubt in doubts)


def _doubts(case: Case, result: TrialResult) -> Iterator[Doubt]:
    metrics = {m.name: m.value for m in result.metrics if m.rank == WHOLE_JOB}
    yield from _about_operations(metrics, result.notes)
    yield from _about_device(metrics, result.notes)
    yield from _about_host(case, result, metrics)
    yield from _about_steps(case, result)
    yield from _over(
        LAG,
        metrics.get("rank_step_time_spread_fraction"),
        "the slowest rank took {} longer to compute a step than the fastest",
    )


def _about_operations(metrics: Metrics, notes: dict[str, str]) -> Iterator[Doubt]:
    mfu = metrics.get(MFU)
    if mfu is not None and mfu > 1:
        yield Doubt(
            "invalid",
            f"the MFU is {format_number(mfu)}, and above 1 is impossible: the time, the"
            f" operations or the peak is wrong ({notes.get(MFU_AGAINST)})",
        )


def _about_device(metrics: Metrics, notes: dict[str, str]) -> Iterator[Doubt]:
    reasons = f" ({notes['throttled_by']})" if "throttled_by" in notes else ""
    yield from _over(
        SLOWED_DOWN,
        metrics.get("thermal_slowdown_fraction"),
        f"the GPU was slowed down for heat or by its supply in {{}} of the samples"
        f"{reasons}",
    )
    yield from _over(
        THROTTLED,
        metrics.get("throttled_fraction"),
        f"the GPU was throttled in {{}} of the samples{reasons}",
    )
    foreign = metrics.get("foreign_processes")
    if foreign:  # whether they compute all the time is not known
        yield Doubt("suspect", f"{foreign:.0f} foreign process(es) used the GPU")


def _about_host(case: Case, result: TrialResult, metrics: Metrics) -> Iterator[Doubt]:
    is_gpu = result.machine is not None and is_on_gpu(case, result.machine)
    yield from _over(
        FOREIGN_CPU._replace(invalid=None) if is_gpu else FOREIGN_CPU,
        metrics.get("foreign_cpu_fraction"),
        "other processes took {} of the cores' time",
    )
    yield from _over(
        STOLEN,
        metrics.get("steal_fraction"),
        "the hypervisor gave {} of the cores' time to others",
    )


def _about_steps(case: Case, result: TrialResult) -> Iterator[Doubt]:
    state = result.notes.get("steady_state", "flat")
    if state != "flat":
        yield Doubt("suspect", STATES[state])
    warmup = result.notes.get("warmup", "")
    if warmup.startswith(UNSETTLED):
        yield Doubt("suspect", f"the warm-up {warmup}")
    for series in result.series:
        if (series.name, series.rank) == ("step_time_s", WHOLE_JOB):
            yield from _about_count(case, len(series.values))


def _about_count(case: Case, count: int) -> Iterator[Doubt]:
    if count < case.timing.min_steps:
        asked = case.timing.min_steps
        yield Doubt(
            "invalid", f"{format_counted(count, 'step')} timed, and {asked} asked for"
        )
    elif count < FEWEST_STEPS:
        yield Doubt(
            "suspect",
            f"{too_few_steps(count)} for an interval of the median",
        )


def _over(limit: Limit, share: float | None, words: str) -> Iterator[Doubt]:
    """A doubt where the share exceeds the limit; `words` has a place for it."""
    if share is None or share <= limit.suspect:
        return
    is_invalid = limit.invalid is not None and share > limit.invalid
    said = words.format(format_fraction(share))
    yield Doubt("invalid" if is_invalid else "suspect", said)
