"""More trials for comparisons that are not settled: the run that `--extend` makes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

from tlbench.db.query import RunRecord
from tlbench.db.settings import flatten
from tlbench.errors import ReportError
from tlbench.machine import Machine
from tlbench.plan import make_trial, shuffled
from tlbench.reports.cases import stored_suite
from tlbench.reports.gate import Answer, Judgement
from tlbench.reports.sides import PLACE, Side
from tlbench.suites.spec import Case, Suite, Trial

MOST_REPEATS = 1000
"""More than that would not end, and no one wants it."""


@dataclass(frozen=True)
class Extension:
    """A run that should settle what is open."""

    suite: Suite
    trials: tuple[Trial, ...]
    refused: tuple[str, ...]
    """The comparisons that it leaves open, each with the reason."""


def plan_extension(answer: Answer, here: Machine, version: str) -> Extension:
    """More trials of all that is open and can be extended; an error if nothing can.

    Both sides of a comparison stand in every block, shuffled as in any run; repeats
    and seeds go on where the sides have ended.

    Args:
        answer: Its comparisons with a proposal are extended.
        here: The machine that the new trials will run on.
        version: Of this tlbench.
    """
    runs = {run.id: run for run in (*answer.a.runs, *answer.b.runs)}
    open_ones: list[Judgement] = []
    refused: list[str] = []
    sources: dict[str, str] = {}
    for judgement in answer.judgements:
        if judgement.proposal is None:
            continue
        files = _sources(judgement, runs)
        why = _why_not(judgement, runs, here, version) or _clash(sources, files)
        if why is None:
            open_ones.append(judgement)
            sources.update(files)
        else:
            refused.append(f"{judgement.title}: {why}")
    if not open_ones:
        raise ReportError(f"--extend: {'; '.join(refused) or 'nothing is open'}")
    sides = [side for j in open_ones for side in (j.base, j.other)]
    suite = _suite(open_ones, sides, runs, sources)
    first = 1 + max(trial.repeat for side in sides for trial in side.trials)
    planned = [
        (case, first + number)
        for number in range(max(suite.repeats.values()))
        for case in shuffled(
            _block(open_ones, number), f"{suite.seed}/{first + number}"
        )
    ]
    trials = tuple(
        make_trial(suite, case, repeat, position)
        for position, (case, repeat) in enumerate(planned)
    )
    return Extension(suite, trials, tuple(refused))


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
    sources: dict[str, str],
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
        paths={name: path for s in suites for name, path in s.paths.items()},
        sources=sources,
    )


# ---------------------------------------------------------------- what can be extended


def _why_not(
    judgement: Judgement, runs: Mapping[int, RunRecord], here: Machine, version: str
) -> str | None:
    """Why trials of today would not belong to it; None where they would."""
    proposal, differences = judgement.proposal, judgement.match.differences
    sides = [judgement.base, judgement.other]
    place = [words for name, words in differences.items() if name in PLACE]
    if place:
        return f"one run cannot have both sides, which differ in {', '.join(place)}"
    if judgement.base.case.identity == judgement.other.case.identity:
        return (
            "its sides are the same case in two runs, which one run cannot tell apart"
        )
    if any(side.case.batch_size == "max" for side in sides):
        return (
            "each run finds its own largest batch, and trials at another batch would"
            " not belong to these"
        )
    if proposal is not None and proposal.repeats > MOST_REPEATS:
        return f"it would take {proposal.repeats:,} more repeats of each side"
    return _strangeness(sides, runs, here, version)


def _sources(
    judgement: Judgement, runs: Mapping[int, RunRecord]
) -> list[tuple[str, str]]:
    """Name and text of each file of its builders, of each of its runs."""
    return [
        item
        for side in (judgement.base, judgement.other)
        for run_id in side.run_ids
        for item in stored_suite(runs[run_id]).sources.items()
    ]


def _clash(known: Mapping[str, str], files: Sequence[tuple[str, str]]) -> str | None:
    """Why the files cannot all be those of one run."""
    texts = dict(known)
    for name, text in files:
        if texts.setdefault(name, text) != text:
            return (
                f"{name} is not the same file in all runs, and one run has only one of"
                " a name"
            )
    return None


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
    """What is known of both machines and not the same.

    A worker sees the GPU of its rank alone, so their count tells nothing.
    """
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
        and name not in ("memory_bytes", "gpu_count")
    )
