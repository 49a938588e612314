"""A stored trial's case run again: whether it comes out the same, and what is not."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count, islice
from statistics import fmean, median, stdev
from typing import Any, Literal

from sqlalchemy.orm import Session

from tlbench.calibrate import FLOOR_BLOCKS, noise_floor
from tlbench.db import query
from tlbench.db.query import RunRecord, TrialRecord
from tlbench.errors import ReportError
from tlbench.machine import Machine
from tlbench.plan import make_trial
from tlbench.reports.cases import ACCURACY_METRICS, has_accuracy, stored_suite
from tlbench.reports.gate import COUNTED
from tlbench.reports.quantities import FEWSHOT
from tlbench.reports.surroundings import code_of, differences, surroundings
from tlbench.reports.verdicts import TIMES
from tlbench.statistics import LEVEL, ROUNDING, Interval
from tlbench.suites.names import did_you_mean
from tlbench.suites.spec import Suite, Trial
from tlbench.units import UNKNOWN, format_metric, format_number

Agreement = Literal["agrees", "differs", "inconclusive"]

LOSS = "loss"
LOSS_TOLERANCE = 1e-6
"""Share by which losses of the same seed may differ on the same CPU and libraries."""
SEEDED = frozenset({*ACCURACY_METRICS, *FEWSHOT}) - {"time_to_accuracy_s"}
"""What the seed decides."""
TOO_WIDE = 0.1
"""A new trial that may lie further off than this share has agreed with little."""
HEADINGS = ("checked", "then", "now", "now / then", "expected", "verdict")


@dataclass(frozen=True)
class Original:
    """The trial that is run again, and what its run has of its case."""

    run: RunRecord
    trial: TrialRecord
    siblings: tuple[TrialRecord, ...]
    """All trials of the case in that run, itself too."""
    metric: str | None
    """What is judged; None: it has measured nothing."""
    machine: Machine | None
    floor: float

    def values(self) -> list[float]:
        return _values(self.siblings, self.metric)


@dataclass(frozen=True)
class Check:
    """One thing that should come out the same."""

    name: str
    then: str
    now: str
    verdict: Agreement | None
    """None: told, not judged; `note` says why."""
    ratio: float | None = None
    """Now over then."""
    interval: Interval | None = None
    """Where the ratio is expected."""
    note: str = ""


@dataclass(frozen=True)
class Reproduction:
    """What came of it."""

    original: Original
    run_id: int
    """The new run."""
    level: float
    checks: tuple[Check, ...]
    differences: tuple[str, ...]
    """What else is not as it was: machine, libraries, tlbench itself."""
    has_new_failure: bool
    """Whether a new trial failed, where the old one had not."""

    @property
    def verdict(self) -> Agreement:
        """Differs if any check does; agrees if all that are judged do."""
        verdicts = [check.verdict for check in self.checks if check.verdict]
        if "differs" in verdicts:
            return "differs"
        return "inconclusive" if "inconclusive" in verdicts else "agrees"


# ---------------------------------------------------------------- the new run


def read_original(
    session: Session, trial_id: int, metric: str | None = None
) -> Original:
    """The trial and its surroundings; an error where it cannot be run again."""
    trial = query.trial(session, trial_id)
    siblings = query.trials(session, [trial.run_id])
    machines = {m.id: m.machine for m in query.machines(session, [trial.run_id])}
    machine = None if trial.machine_id is None else machines[trial.machine_id]
    return Original(
        run=query.run(session, trial.run_id),
        trial=trial,
        siblings=tuple(s for s in siblings if s.identity == trial.identity),
        metric=_metric(trial, metric),
        machine=machine,
        floor=noise_floor(session, machine, trial.case),
    )


def _metric(trial: TrialRecord, wanted: str | None) -> str | None:
    measured = {
        name: value
        for name, value in trial.metrics.items()
        if value is not None
        and (name not in ACCURACY_METRICS or has_accuracy(trial.case))
    }
    if wanted is None or trial.status != "ok":
        wished = (trial.case.main_metric, "macs")
        return next((name for name in wished if name in measured), None)
    if wanted not in measured:
        hint = did_you_mean(wanted, measured)
        why = trial.reasons.get(wanted, f"not measured{hint}")
        raise ReportError(f"--metric {wanted}: trial {trial.id} has none: {why}")
    return wanted


def plan_repro(original: Original, repeats: int) -> tuple[Suite, list[Trial]]:
    """The same case in a run of its own; its first trial has the old one's seed."""
    trial, stored = original.trial, stored_suite(original.run)
    suite = Suite(
        name=stored.name,
        description=f"Trial {trial.id} again: {trial.case.mode} {trial.model}",
        cases=(trial.case,),
        repeats={trial.case.mode: repeats},
        seed=stored.seed,
        trial_timeout_s=stored.trial_timeout_s,
        paths=stored.paths,
        sources=stored.sources,
    )
    others = (number for number in count() if number != trial.repeat)
    planned = [trial.repeat, *islice(others, repeats - 1)]
    first, *rest = (
        make_trial(suite, trial.case, repeat, position)
        for position, repeat in enumerate(planned)
    )
    return suite, [replace(first, seed=trial.seed), *rest]


# ---------------------------------------------------------------- what came of it


def judge(
    session: Session, original: Original, run_id: int, level: float = LEVEL
) -> Reproduction:
    """Hold the trials of the new run against the old one."""
    new = query.trials(session, [run_id])
    machines = {m.id: m.machine for m in query.machines(session, [run_id])}
    places = [machines[t.machine_id] for t in new if t.machine_id is not None]
    here = places[0] if places else None
    changes = tuple(_changes(original, here, query.run(session, run_id)))
    excuse = _why_seeds_may_differ(original.machine, here)
    checks = [*_checks(original, new, level, excuse)]
    checks += _loss_checks(session, original.trial, new[0], excuse)
    return Reproduction(
        original=original,
        run_id=run_id,
        level=level,
        checks=tuple(checks),
        differences=changes,
        has_new_failure=original.trial.status == "ok"
        and any(trial.status not in ("ok", "skipped") for trial in new),
    )


def _changes(original: Original, here: Machine | None, run: RunRecord) -> Iterator[str]:
    if original.machine is not None and here is not None:
        yield from differences(surroundings(original.machine), surroundings(here))
    then = code_of(original.run.version, original.machine)
    now = code_of(run.version, here)
    if then != now:
        yield f"tlbench {then} -> {now}"


def _checks(
    original: Original, new: Sequence[TrialRecord], level: float, excuse: str
) -> Iterator[Check]:
    old = original.trial
    if old.status != "ok" or any(trial.status != "ok" for trial in new):
        yield _status_check(old, new)
    if old.status == "ok" and any(trial.status == "ok" for trial in new):
        metric = original.metric
        if metric in SEEDED and not excuse:
            yield _same_seed_check(metric, old, new[0])
        elif metric is not None and not metric.endswith(COUNTED):
            yield _measured_check(original, new, level)
        yield from _counted_checks(old, new)


def _status_check(old: TrialRecord, new: Sequence[TrialRecord]) -> Check:
    """How the new trials end against the old one; a lost one says nothing of it."""
    told = [trial for trial in new if trial.status != "lost"]
    if old.status == "lost" or not told:
        of_new = "; ".join(dict.fromkeys(map(_ended, new)))
        return Check("how it ends", _ended(old), of_new, verdict="inconclusive")
    ways = {_way(trial): trial for trial in told}
    is_same = set(ways) == {_way(old)}
    now = list(dict.fromkeys(_ended(trial) for trial in ways.values()))
    is_word_for_word = now == [_ended(old)]
    return Check(
        name="how it ends",
        then=_ended(old),
        now="; ".join(now),
        verdict="agrees" if is_same else "differs",
        note="" if is_word_for_word or not is_same else "the same way, in other words",
    )


def _way(trial: TrialRecord) -> tuple[str, str]:
    """How it ended: of an error its kind too, for the rest of the words may vary."""
    is_error = trial.status == "error"
    return trial.status, (trial.reason or "").partition(":")[0] if is_error else ""


def _ended(trial: TrialRecord) -> str:
    return f"{trial.status}: {trial.reason}" if trial.reason else str(trial.status)


def _values(trials: Sequence[TrialRecord], metric: str | None) -> list[float]:
    """Of finished trials that are not invalid."""
    measured = [
        trial.metrics.get(metric or "")
        for trial in trials
        if trial.status == "ok" and trial.validity != "invalid"
    ]
    return [value for value in measured if value is not None]


def _measured_check(
    original: Original, new: Sequence[TrialRecord], level: float
) -> Check:
    metric = original.metric or ""
    then, now = original.values(), _values(new, metric)
    told = Check(
        metric, _typical(metric, then), _typical(metric, now), verdict="inconclusive"
    )
    if not then or not now:
        return replace(told, note=_why_unmeasured(new if then else original.siblings))
    if min(*then, *now) <= 0:
        return replace(told, note="a ratio needs values above zero")
    reach = prediction_reach(then, len(now), level, _floor(original))
    ratio = math.exp(fmean(map(math.log, now)) - fmean(map(math.log, then)))
    if reach is None:
        note = "one trial of that run does not tell how far others lie apart"
        return replace(told, ratio=ratio, note=note)
    told = replace(told, ratio=ratio, interval=(math.exp(-reach), math.exp(reach)))
    if abs(math.log(ratio)) > reach:
        return replace(told, verdict="differs")
    if reach > math.log1p(TOO_WIDE):
        note = f"the {len(then)} trials of that run lie too far apart to tell"
        return replace(told, note=note)
    return replace(told, verdict="agrees")


def _same_seed_check(metric: str, old: TrialRecord, again: TrialRecord) -> Check:
    """Of what training has come to, where the same seed has to come to the same."""
    then, now = old.metrics.get(metric), again.metrics.get(metric)
    told = Check(
        f"{metric}, same seed",
        format_metric(metric, then),
        format_metric(metric, now),
        verdict="inconclusive",
    )
    if then is None or now is None:
        return replace(told, note=_why_unmeasured([again]))
    is_same = math.isclose(then, now, rel_tol=LOSS_TOLERANCE)
    ratio = now / then if then else None
    return replace(told, ratio=ratio, verdict="agrees" if is_same else "differs")


def _why_unmeasured(trials: Sequence[TrialRecord]) -> str:
    doubts = [doubt for trial in trials for doubt in trial.doubts]
    return f"every trial is invalid: {doubts[0]}" if doubts else "not measured"


def _floor(original: Original) -> float | None:
    """The noise floor, which is one of speeds and times; None for other metrics."""
    return original.floor if (original.metric or "").endswith("_s") else None


def prediction_reach(
    then: Sequence[float], new: int, level: float, floor: float | None
) -> float | None:
    """How far the mean logarithm of new trials may lie from that of the old ones.

    Student's t of the old n trials: `t(n - 1) * s * sqrt(1/n + 1/m)` for m new ones,
    and never less than the noise floor. Of one trial the spread is not known; the
    floor, which is that of two sides of `FLOOR_BLOCKS` trials, stands in, widened to
    one trial a side. None where there is no floor either.
    """
    from scipy.special import stdtrit

    least = 0.0 if floor is None else math.log1p(floor)
    n = len(then)
    if n == 1:
        return least * math.sqrt(FLOOR_BLOCKS / 2 * (1 + 1 / new)) if floor else None
    spread = stdev(map(math.log, then))
    quantile = float(stdtrit(n - 1, (1 + level) / 2))
    return max(least, quantile * spread * math.sqrt(1 / n + 1 / new))


def _typical(metric: str, values: Sequence[float]) -> str:
    if not values:
        return UNKNOWN
    return f"{format_metric(metric, median(values))}, n={len(values)}"


def _counted_checks(old: TrialRecord, new: Sequence[TrialRecord]) -> Iterator[Check]:
    """What is counted has to be the same; all that is, in one line."""
    same = []
    for name, then in old.metrics.items():
        if then is None or not name.endswith(COUNTED):
            continue
        counted = (trial.metrics.get(name) for trial in new)
        now = next((value for value in counted if value is not None), None)
        if now is not None and math.isclose(then, now, rel_tol=ROUNDING):
            same.append(name)
            continue
        yield Check(
            name,
            format_metric(name, then),
            format_metric(name, now),
            verdict="differs" if now is not None else "inconclusive",
            ratio=now / then if now is not None and then else None,
        )
    if same:
        name = same[0] if len(same) == 1 else f"{same[0]} and {len(same) - 1} more"
        yield Check(name, "counted", "the same", verdict="agrees")


def _loss_checks(
    session: Session, old: TrialRecord, again: TrialRecord, excuse: str
) -> Iterator[Check]:
    """The losses of the old trial beside those of the new one of the same seed."""
    found = query.series(session, [old.id, again.id], [LOSS])
    then, now = (found.get((trial.id, LOSS)) for trial in (old, again))
    if then and now:
        yield loss_check(then, now, excuse)


def _why_seeds_may_differ(there: Machine | None, here: Machine | None) -> str:
    """Empty where the same seed has to give the same numbers."""
    if there is None or here is None or surroundings(there) != surroundings(here):
        return "not judged: another machine or library adds up in another order"
    if here.gpu_count:
        return "not judged: kernels of a GPU may add up in another order each time"
    return ""


def loss_check(then: Sequence[float], now: Sequence[float], excuse: str) -> Check:
    """By how much losses of the same seed differ at most, as a share."""
    pairs = zip(then, now, strict=False)
    most = max(abs(b - a) / max(abs(a), abs(b), ROUNDING) for a, b in pairs)
    is_same = len(then) == len(now) and most <= LOSS_TOLERANCE
    return Check(
        name="loss at each step, same seed",
        then=f"{len(then):,} steps",
        now=f"{len(now):,} steps, off by {most:.1g} at most",
        verdict="agrees" if is_same else None if excuse else "differs",
        note="" if is_same else excuse,
    )


# ---------------------------------------------------------------- words


def check_rows(answer: Reproduction) -> list[tuple[str, ...]]:
    """What stands under `HEADINGS`."""
    return [
        (
            check.name,
            check.then,
            check.now,
            "" if check.ratio is None else f"{format_number(check.ratio, 4)}{TIMES}",
            ""
            if check.interval is None
            else " to ".join(format_number(end, 4) for end in check.interval),
            check.verdict or "not judged",
        )
        for check in answer.checks
    ]


def conclusion(answer: Reproduction) -> list[str]:
    trial = answer.original.trial
    changed = ", ".join(answer.differences)
    told = [f"{check.name}: {check.note}" for check in answer.checks if check.note]
    told.append(f"not as it was: {changed or 'nothing, by what is stored'}")
    told.append(
        f"trial {trial.id} of run {trial.run_id} beside run {answer.run_id}:"
        f" {answer.verdict}"
    )
    return told


def describe(answer: Reproduction) -> dict[str, Any]:
    """All of it as plain JSON values."""
    return {
        "trial": answer.original.trial.id,
        "run": answer.original.trial.run_id,
        "new_run": answer.run_id,
        "case": answer.original.trial.identity,
        "metric": answer.original.metric,
        "level": answer.level,
        "verdict": answer.verdict,
        "differences": list(answer.differences),
        "checks": [_describe(check) for check in answer.checks],
    }


def _describe(check: Check) -> Mapping[str, Any]:
    low, high = check.interval or (None, None)
    return {
        "name": check.name,
        "then": check.then,
        "now": check.now,
        "ratio": check.ratio,
        "expected_low": low,
        "expected_high": high,
        "verdict": check.verdict,
        "note": check.note or None,
    }
