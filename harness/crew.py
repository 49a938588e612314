"""Trials that go on at once: a thread each, since all that a thread does is wait."""

import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Self

from tlbench.cluster import Cluster
from tlbench.events import Finished
from tlbench.placement import Placement
from tlbench.suites.spec import Trial

JOIN_TIMEOUT_S = 10.0
"""How long trials that are ended have for it."""

Work = Callable[[Trial, Placement], Finished]


@dataclass(frozen=True)
class _Outcome:
    placement: Placement
    finished: Finished | BaseException


class Crew:
    """Runs trials on the nodes that they were given, as many at once as it is told."""

    def __init__(self, cluster: Cluster, work: Work) -> None:
        self._cluster, self._work = cluster, work
        self._outcomes: queue.SimpleQueue[_Outcome] = queue.SimpleQueue()
        self._threads: set[threading.Thread] = set()
        self.running = 0
        """Trials that were begun and have not been given out."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.running:
            self._cluster.end_trials()
        for thread in self._threads:
            thread.join(JOIN_TIMEOUT_S)

    def begin(self, trial: Trial, placement: Placement, attempt: int) -> None:
        """Let a trial run on what it was given."""

        def work() -> None:
            finished: Finished | BaseException
            try:
                finished = replace(self._work(trial, placement), attempt=attempt)
            except BaseException as error:  # for whoever asks for the outcome
                finished = error
            self._outcomes.put(_Outcome(placement, finished))

        # A daemon: it shall not keep alive a process that has given up on it.
        thread = threading.Thread(target=work, daemon=True, name=f"#{trial.position}")
        self._threads = {t for t in self._threads if t.is_alive()} | {thread}
        self.running += 1
        thread.start()

    def next_finished(self, timeout_s: float) -> Finished | None:
        """The next trial that ends, whose nodes are given back; None: none did so far.

        What its thread raised is raised here.
        """
        try:
            outcome = self._outcomes.get(timeout=timeout_s)
        except queue.Empty:
            return None
        self.running -= 1
        self._cluster.release(outcome.placement)
        if isinstance(outcome.finished, BaseException):
            raise outcome.finished
        return outcome.finished
