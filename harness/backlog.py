"""The trials of a run that are to begin, and which of them begins next."""

from collections.abc import Mapping
from dataclasses import dataclass

from tlbench.cluster import Cluster, ended
from tlbench.events import Finished
from tlbench.placement import Placement
from tlbench.plan import Plan
from tlbench.result import Status, TrialResult
from tlbench.suites.spec import Trial

LOOK_AHEAD = 256
"""Trials that may wait for their nodes while one behind them, for others, begins."""


@dataclass(frozen=True)
class Pending:
    """A trial that is to begin, and the attempts that it has behind it."""

    trial: Trial
    attempts: int = 0

    def give_up(self, status: Status, reason: str) -> Finished:
        """Its next attempt, which never begins."""
        result = TrialResult(status, reason)
        return ended(self.trial, result, self.attempts + 1)


@dataclass(frozen=True)
class Ready:
    """A trial that has its nodes."""

    trial: Trial
    attempt: int
    placement: Placement


class Backlog:
    """Hands out trials in the order of the plan, each as soon as it has its nodes.

    A trial is overtaken only by such as need none of the nodes that it waits for: what
    is compared stays interleaved, and small trials do not starve a large one.
    """

    def __init__(
        self, plan: Plan, cluster: Cluster, attempts: Mapping[int, int]
    ) -> None:
        """Begin with a plan; `attempts` that trials have behind them by position."""
        self._plan, self._cluster, self._attempts = plan, cluster, attempts
        self._pending: list[Pending] = []
        self._searching: set[str] = set()
        """Cases whose largest batch a trial finds out now, by identity."""
        self._impossible: list[tuple[Pending, str]] = []

    def __len__(self) -> int:
        """How many trials were looked at and could not begin."""
        return len(self._pending)

    def add(self, trial: Trial, attempts: int) -> None:
        """Have a trial run again, at its place in the order."""
        self._pending.append(Pending(trial, attempts))
        self._pending.sort(key=lambda pending: pending.trial.position)

    def end(self, trial: Trial) -> None:
        """Learn that a trial is over that was handed out."""
        self._searching.discard(trial.case.identity)

    def next_ready(self) -> Ready | None:
        """The next trial that can begin now, if any; it holds its nodes already."""
        wanted: frozenset[str] = frozenset()
        for index in range(LOOK_AHEAD):
            if wanted >= self._cluster.node_ids or not self._has(index):
                return None
            pending = self._pending[index]
            case = pending.trial.case
            is_sought = case.batch_size == "max"
            if is_sought and case.identity in self._searching:
                continue  # it shall know what the other finds
            nodes = self._cluster.candidates(case)
            placement = None if nodes & wanted else self._cluster.place(case)
            if placement is not None:
                del self._pending[index]
                if is_sought:
                    self._searching.add(case.identity)
                return Ready(pending.trial, pending.attempts + 1, placement)
            wanted |= nodes
        return None

    def take_impossible(self) -> list[tuple[Pending, str]]:
        """The trials that the cluster can never run, as far as was looked, and why."""
        taken, self._impossible = self._impossible, []
        return taken

    def held_by_others(self) -> list[Pending]:
        """The trials that wait for others, and not for trials of this run."""
        return [
            pending
            for pending in self._pending
            if self._cluster.is_held_by_others(pending.trial.case)
        ]

    def drop(self, pending: Pending) -> None:
        """Give up on a trial."""
        self._pending.remove(pending)

    def _has(self, index: int) -> bool:
        """Whether so many trials are left; the plan is asked for more if need be."""
        while len(self._pending) <= index:
            trial = self._plan.take()
            if trial is None:
                return False
            pending = Pending(trial, self._attempts.get(trial.position, 0))
            missing = self._cluster.shortage(trial.case)
            if missing is None:
                self._pending.append(pending)
            else:
                self._impossible.append((pending, missing))
        return True
