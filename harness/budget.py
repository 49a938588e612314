"""Spending a budget of time: which trials are worth it, decided while they come in.

The quick answer comes first: one block of everything, and a second, so that there are
intervals. From then on the comparison with the widest interval gets one more block at
a time, both sides of it, so that its pairs stay complete.
"""

import re
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, Literal

from tlbench.errors import TlbenchError
from tlbench.plan import PHASES, make_trial, shuffled
from tlbench.result import WHOLE_JOB, Status, TrialResult
from tlbench.statistics import compare_ratio, interval_of_trials
from tlbench.suites.names import model_name
from tlbench.suites.spec import Case, Mode, Suite, Trial
from tlbench.units import format_duration

FIRST_BLOCKS = 2
"""Blocks of everything; two trials a side are the fewest that have an interval."""
MEASURED: frozenset[Mode] = frozenset({"infer", "train", "fit"})
"""Where the interval of the main metric is to become narrow; other modes run once."""

Values = dict[int, float | None]
"""What the trials of a case measured, by block; None: nothing."""
_DURATION = re.compile(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?")


def parse_budget(text: str) -> float:
    """Seconds of `90s`, `20m` or `1h30m`; a ValueError says what would be right."""
    match = _DURATION.fullmatch(text.strip())
    if match is not None:
        hours, minutes, seconds = (int(number or 0) for number in match.groups())
        if total_s := 3600 * hours + 60 * minutes + seconds:
            return total_s
    if text.isdecimal() and int(text):
        raise ValueError(f"{text} has no unit: {text}m or {text}s would be right")
    raise ValueError(f"{text!r} is not a time: 90s, 20m or 1h30m would be right")


class Budget:
    """The trials that a budget pays for: a plan that is made while outcomes come in.

    A trial that would not end inside the budget, as far as its forecast can tell, is
    not begun.
    """

    def __init__(
        self,
        suite: Suite,
        pairs: Iterable[tuple[Case, Case]],
        expected_s: Mapping[str, float],
        budget_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Plan the first block.

        Args:
            suite: The cases; its repeats are no limit here.
            pairs: Baseline and other side of each comparison that there will be.
            expected_s: Seconds that a trial of each case may take, by its identity.
            budget_s: Seconds from now on.
            clock: What tells the time, in seconds.

        Raises:
            TlbenchError: Not even the shortest trial would end inside.
        """
        self.budget_s = budget_s
        self._suite, self._clock, self._start = suite, clock, clock()
        self._pairs = [*pairs]
        self._costs = _Costs(expected_s)
        self._values: dict[str, Values] = defaultdict(dict)
        self._failed: dict[str, Status] = {}
        self._planned: list[tuple[Case, int]] = []
        self._begun = self._blocks = 0
        self._running = Counter[str]()
        """Trials that were taken and are not told yet, by identity."""
        self._plan_on()
        if not self._planned:
            raise TlbenchError(self._too_short())

    def __len__(self) -> int:
        """How many trials there are by now, begun or not."""
        return len(self._planned)

    def take(self) -> Trial | None:
        """The next trial to begin; None: none, as long as nothing more is told."""
        self._plan_on()
        if self._begun == len(self._planned):
            return None
        case, repeat = self._planned[self._begun]
        self._begun += 1
        self._running[case.identity] += 1
        return make_trial(self._suite, case, repeat, position=self._begun - 1)

    def add(self, trial: Trial, result: TrialResult, wall_time_s: float) -> None:
        """Learn what came of a trial, and plan on."""
        identity = trial.case.identity
        self._running[identity] -= 1
        self._values[identity][trial.repeat] = _measured(trial.case, result)
        if result.status == "ok":
            self._costs.add(identity, wall_time_s)
        else:
            self._failed[identity] = result.status
        self._plan_on()

    def left_s(self, progress: object, /) -> float:
        """Seconds that are left of it, however far the trials are."""
        return max(self.budget_s - self._used_s, 0.0)

    @property
    def _used_s(self) -> float:
        return self._clock() - self._start

    # ------------------------------------------------------------ what comes next

    def _plan_on(self) -> None:
        """See that the next trial fits, or that none is left."""
        while True:
            while self._begun < len(self._planned):
                if self._has_time_for([self._planned[self._begun][0]]):
                    return
                del self._planned[self._begun]
            block = self._next_block()
            if not block:
                return
            self._planned += [(case, self._blocks) for case in block]
            self._blocks += 1

    def _next_block(self) -> list[Case]:
        """Cases of the next shuffled block; none where the budget has done its work."""
        if self._blocks < FIRST_BLOCKS:
            return self._whole_block()
        affordable = [g for g in self._wide() if self._has_time_for(g.cases)]
        if not affordable:
            return []
        # Trials that go on elsewhere in the cluster will make theirs narrower.
        fewest = min(map(self._runs, affordable))
        quiet = [group for group in affordable if self._runs(group) == fewest]
        widest = max(quiet, key=lambda group: group.width(self._values))
        return shuffled(widest.cases, f"{self._suite.seed}/{self._blocks}")

    def _runs(self, group: "_Group") -> int:
        return sum(self._running[case.identity] for case in group.cases)

    def _whole_block(self) -> list[Case]:
        """Every case, the quick ones first; then those that vary and went well."""
        return [
            case
            for number, phase in enumerate(PHASES)
            for case in shuffled(
                [c for c in self._suite.cases if c.mode in phase],
                f"{self._suite.seed}/{number}/{self._blocks}",
            )
            if self._blocks == 0 or (case.mode in MEASURED and self._goes_on(case))
        ]

    def _goes_on(self, case: Case) -> bool:
        """Whether it may get another trial; one that failed would fail again."""
        return case.identity not in self._failed

    def _has_time_for(self, cases: Sequence[Case]) -> bool:
        expected_s = sum(self._costs.expected_s(case.identity) for case in cases)
        return self._used_s + expected_s <= self.budget_s

    def _wide(self) -> "list[_Group]":
        """The groups whose interval is wider than it should be, and can get better."""
        return [group for group in self._groups() if group.width(self._values) > 1]

    def _groups(self) -> "list[_Group]":
        """Each comparison that can still be had, and each other case that varies."""
        cases = [c for c in self._suite.cases if self._goes_on(c)]
        pairs = [pair for pair in self._pairs if all(map(self._goes_on, pair))]
        groups = [_Group(pair) for pair in pairs if pair[0].mode in MEASURED]
        compared = {case.identity for group in groups for case in group.cases}
        return groups + [
            _Group((case,))
            for case in cases
            if case.mode in MEASURED and case.identity not in compared
        ]

    # ------------------------------------------------------------ what became of it

    @property
    def ended_by(self) -> Literal["time", "targets", "failures"]:
        """What leaves nothing to run.

        The time is used up, all that did not fail is narrow enough, or all failed.
        """
        if self._wide() or self._unmeasured():
            return "time"
        return "failures" if self._failed and not self._groups() else "targets"

    def _unmeasured(self) -> list[Case]:
        return [case for case in self._suite.cases if case.identity not in self._values]

    def describe(self) -> str:
        """What ended it, what it did not pay for, and what failed, in a line."""
        used, budget = format_duration(self._used_s), format_duration(self.budget_s)
        match self.ended_by:
            case "time":
                told = f"the budget of {budget} pays for no further block after {used}"
            case "failures":
                told = f"nothing is left to repeat after {used} of {budget}"
            case "targets":
                whose = " of what did not fail" if self._failed else ""
                told = (
                    f"every interval{whose} is narrow enough after {used} of {budget}"
                )
        left_out = [
            f"not begun: {_name(case)} (about"
            f" {format_duration(self._costs.expected_s(case.identity))} a trial)"
            for case in self._unmeasured()
        ]
        failed = [
            f"no more trials of {_name(case)} ({self._failed[case.identity]})"
            for case in self._suite.cases
            if not self._goes_on(case)
        ]
        return "; ".join([told, *left_out, *failed])

    def _too_short(self) -> str:
        """Why nothing begins, with the least that would do."""
        costs_s = {c: self._costs.expected_s(c.identity) for c in self._suite.cases}
        case = min(costs_s, key=costs_s.__getitem__)
        return (
            f"a budget of {format_duration(self.budget_s)} pays for no trial: the"
            f" shortest, {_name(case)}, takes about {format_duration(costs_s[case])}"
        )

    def summary(self) -> dict[str, Any]:
        """The same as plain JSON values, with the trials of each case by identity."""
        return {
            "budget_s": self.budget_s,
            "used_s": self._used_s,
            "ended_by": self.ended_by,
            "trials": {
                case.identity: len(self._values.get(case.identity, ()))
                for case in self._suite.cases
            },
        }


@dataclass(frozen=True)
class _Group:
    """What gets its blocks together: both sides of a comparison, or a case alone."""

    cases: tuple[Case, ...]

    def width(self, values: Mapping[str, Values]) -> float:
        """Full width of the interval, in units of what it should be.

        Infinite where there is no interval yet, and 0 where more trials would not
        help: the last of a case measured nothing, or its values have no ratio.
        """
        of_sides = [values.get(case.identity, {}) for case in self.cases]
        if any(side and side[max(side)] is None for side in of_sides):
            return 0.0
        sides = [
            {block: value for block, value in side.items() if value is not None}
            for side in of_sides
        ]
        if min(map(len, sides)) < FIRST_BLOCKS:
            return float("inf")
        if len(sides) == 1:
            interval = interval_of_trials(list(sides[0].values()))
        else:
            base, other = sides
            interval = compare_ratio(base, other, "higher").interval
        if interval is None:
            return 0.0
        target = min(case.timing.target for case in self.cases)
        return (interval[1] - interval[0]) / median(interval) / target


class _Costs:
    """How long a trial takes: what it took before, else the forecast.

    Forecasts are scaled by how those of trials that went well have held; the others
    may be over at once.
    """

    def __init__(self, expected_s: Mapping[str, float]) -> None:
        self._forecast_s = expected_s
        self._taken_s: dict[str, list[float]] = defaultdict(list)

    def add(self, identity: str, wall_time_s: float) -> None:
        self._taken_s[identity].append(wall_time_s)

    def expected_s(self, identity: str) -> float:
        if identity in self._taken_s:
            return median(self._taken_s[identity])
        return self._forecast_s[identity] * self._scale()

    def _scale(self) -> float:
        forecast_s = sum(
            self._forecast_s[identity] * len(taken)
            for identity, taken in self._taken_s.items()
        )
        taken_s = sum(map(sum, self._taken_s.values()))
        return taken_s / forecast_s if forecast_s else 1.0


def _name(case: Case) -> str:
    return f"{case.mode} {model_name(case.model)}"


def _measured(case: Case, result: TrialResult) -> float | None:
    """What the trial says of its case; None where it failed.

    Of a case that is only counted that is nothing, and no one asks for it.
    """
    if result.status != "ok" or case.mode not in MEASURED:
        return None
    name, of_job = case.main_metric, WHOLE_JOB
    return next(
        (m.value for m in result.metrics if m.name == name and m.rank == of_job), None
    )
