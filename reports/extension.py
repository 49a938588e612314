"""More trials for comparisons that are not settled: the run that `--extend` makes."""

from collections.abc import Mapping, Sequence
from dataclasses import fields

from tlbench.db.query import RunRecord
from tlbench.errors import ReportError
from tlbench.machine import Machine
from tlbench.plan import make_trial, shuffled
from tlbench.reports.cases import flatten, stored_suite
from tlbench.reports.gate import Answer, Judgement
from tlbench.reports.sides import MACHINE, SOFTWARE, Side
from tlbench.suites.spec import Case, Suite, Trial

MOST_REPEATS = 1000
"""More than that would not end, and no one wants it."""


def plan_extension(
    answer: Answer, here: Machine, version: str
) -> tuple[Suite, list[Trial]]:
    """The suite and the trials of a run that should settle all that is open.

    Both sides of a comparison stand in every block, shuffled as in any run; repeats
    and seeds go on where the sides have ended.

    Args:
        answer: Its comparisons with a proposal are extended.
        here: The machine that the new trials will run on.
        version: Of this tlbench.
    """
    runs = {run.id: run for run in (*answer.a.runs, *answer.b.runs)}
    open_ones = [j for j in answer.judgements if j.proposal is not None]
    for judgement in open_ones:
        _check(judgement, runs, here, version)
    sides = [side for j in open_ones for side in (j.base, j.other)]
    suite = _suite(open_ones, sides, runs)
    first = 1 + max(trial.repeat for side in sides for trial in side.trials)
    planned = [
        (case, first + number)
        for number in range(max(suite.repeats.values()))
        for case in shuffled(
            _block(open_ones, number), f"{suite.seed}/{first + number}"
        )
    ]
    return suite, [
        make_trial(suite, case, repeat, position)
        for position, (case, repeat) in enumerate(planned)
    ]


def _block(judgements: Sequence[Judgement], number: int) -> list[Case]:
    """Both sides of each comparison that has so many blocks to come; each once."""
    cases = {
        side.case.identity: side.case
        for judgement in judgements
        if judgement.proposal is not None and number < judgement.proposal.repeats
        for side in (judgement.base, judgement.other)
    }
    return list(cases.values())


def _suite(
    judgements: Sequence[Judgement],
    sides: Sequence[Side],
    runs: Mapping[int, RunRecord],
) -> Suite:
    suites = [stored_suite(runs[run_id]) for side in sides for run_id in side.run_ids]
    cases = {side.case.identity: side.case for side in sides}
    repeats = max(j.proposal.repeats for j in judgements if j.proposal is not None)
    return Suite(
        name=suites[0].name,
        description=f"More repeats: {'; '.join(j.title for j in judgements)}",
        cases=tuple(cases.values()),
        repeats={case.mode: repeats for case in cases.values()},
        seed=suites[0].seed,
        trial_timeout_s=max(suite.trial_timeout_s for suite in suites),
        sources=_sources(suites),
    )


def _sources(suites: Sequence[Suite]) -> dict[str, str]:
    sources: dict[str, str] = {}
    for suite in suites:
        for name, text in suite.sources.items():
            if sources.setdefault(name, text) != text:
                raise ReportError(
                    f"--extend: {name} is not the same file on both sides, and one run"
                    " has only one of a name"
                )
    return sources


# ---------------------------------------------------------------- what can be extended


def _check(
    judgement: Judgement, runs: Mapping[int, RunRecord], here: Machine, version: str
) -> None:
    """Refuse what trials of today would not belong to."""
    why: str | None
    proposal, differences = judgement.proposal, judgement.match.differences
    place = [
        words for name, words in differences.items() if name in (MACHINE, SOFTWARE)
    ]
    if place:
        why = f"one run cannot have both sides, which differ in {', '.join(place)}"
    elif judgement.base.case.identity == judgement.other.case.identity:
        why = "its sides are the same case in two runs, which one run cannot tell apart"
    elif proposal is not None and proposal.repeats > MOST_REPEATS:
        why = f"it would take {proposal.repeats:,} more repeats of each side"
    else:
        why = _strangeness([judgement.base, judgement.other], runs, here, version)
    if why is not None:
        raise ReportError(f"--extend: {judgement.title}: {why}")


def _strangeness(
    sides: Sequence[Side], runs: Mapping[int, RunRecord], here: Machine, version: str
) -> str | None:
    """Why trials of here and now are not like those of the sides."""
    for side in sides:
        for run_id in side.run_ids:
            if runs[run_id].version != version:
                return (
                    f"run {run_id} was made by tlbench {runs[run_id].version}, and this"
                    f" is {version}"
                )
        if side.machine is not None and (words := _changes(side.machine, here)):
            return f"its trials ran on another machine than this: {words}"
    return None


def _changes(there: Machine, here: Machine) -> str:
    """What is known of both machines and not the same."""
    before, after = (
        dict(flatten({f.name: getattr(m, f.name) for f in fields(m)}))
        for m in (there, here)
    )
    # Without torch in this process, the versions of its libraries are not known here.
    return ", ".join(
        f"{name} ({before[name]}, {after[name]})"
        for name in before
        if before[name] != after.get(name)
        and after.get(name) is not None
        and name != "memory_bytes"
    )
