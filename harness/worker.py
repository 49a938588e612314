"""The process that runs one rank of a trial, or is the parent of several. No Ray here.

What a trial needs is imported when it runs: this file is read by every fresh process.
"""

import os
import platform
import shutil
import socket
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tlbench.rank import Rank
from tlbench.ranklog import log_to

if TYPE_CHECKING:
    from tlbench.result import TrialResult
    from tlbench.suites.spec import Trial

LOG = "log.txt"


@dataclass(frozen=True)
class Presence:
    """A worker that has come up."""

    port: int
    """Where others would meet it as rank 0."""
    host: str
    pid: int
    log: str
    """The file that it prints to."""


class Worker:
    """One rank of one trial, in a process of its own; or the parent of several."""

    def __init__(self) -> None:
        self._log = Path(tempfile.mkdtemp(prefix="tlbench-rank-")) / LOG
        log_to(self._log)
        self._port = socket.socket()

    def meet(self) -> Presence:
        """Say where this process is; its port is kept until the ranks run."""
        self._port.bind(("", 0))
        return Presence(
            port=self._port.getsockname()[1],
            host=platform.node(),
            pid=os.getpid(),
            log=str(self._log),
        )

    def run(
        self, trial: "Trial", ranks: Sequence[Rank], timeout_s: float, is_parent: bool
    ) -> "list[TrialResult]":
        """The results of these ranks; of one alone where that one failed."""
        self._port.close()
        if is_parent:
            from tlbench.launch import run_outside_ray

            return run_outside_ray(trial, ranks, timeout_s)
        start = time.perf_counter()
        from tlbench.trial import run_rank  # torch: half of a short trial's cost

        import_time_s = time.perf_counter() - start
        return [run_rank(trial, rank, import_time_s) for rank in ranks]

    def rehearse(
        self, sleep_s: float, ranks: Sequence[Rank], node_id: str
    ) -> "list[TrialResult]":
        """Hold what these ranks were given, and tell what it was."""
        from tlbench.machine import fingerprint
        from tlbench.result import Series, TrialResult

        begun = time.time()
        time.sleep(sleep_s)
        held = Series("rehearsal_time_s", (begun, time.time()))
        given = os.environ.get("CUDA_VISIBLE_DEVICES", "")
        words = f"{ranks[0].threads} threads" if ranks[0].device == "cpu" else given
        notes = {"rehearsed_on": f"node {node_id}, {ranks[0].device} {words}"}
        result = TrialResult("ok", series=(held,), notes=notes, machine=fingerprint())
        return [result] * len(ranks)

    def calibrate(self, rank: Rank, time_limit_s: float) -> "TrialResult":
        """What one device can do at best."""
        from tlbench.machine import fingerprint
        from tlbench.measure.rates import measure_rates  # torch
        from tlbench.result import TrialResult

        metrics = tuple(measure_rates(rank, time_limit_s))
        return TrialResult("ok", metrics=metrics, machine=fingerprint())

    def forget_log(self) -> None:
        """Take away what nobody will ask for."""
        shutil.rmtree(self._log.parent, ignore_errors=True)
