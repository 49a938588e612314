"""Ranks outside Ray's own processes: one plain process, or those of torchrun.

The worker that holds a trial's resources starts them, waits asleep, and gathers their
results from files. They see nothing of Ray, nor anyone's current folder.
"""

import os
import pickle
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from tlbench.rank import Rank
from tlbench.result import TrialResult, name_rank
from tlbench.suites.spec import Trial

ORDER = "order.pickle"
LOG = "log.txt"
LOG_TAIL_CHARS = 8000
"""How much of what a process printed is kept when it died."""


def result_path(folder: Path, rank: int) -> Path:
    return folder / f"result-{rank}.pickle"


def run_outside_ray(trial: Trial, ranks: Sequence[Rank]) -> list[TrialResult]:
    """Run a trial of stack torch or torchrun, with all its ranks on this machine.

    Returns:
        The result of every rank; or, where one failed, that of the first to do so.
    """
    with tempfile.TemporaryDirectory(prefix="tlbench-") as name:
        folder = Path(name)
        (folder / ORDER).write_bytes(pickle.dumps((trial, tuple(ranks))))
        with (folder / LOG).open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, *_arguments(trial, len(ranks)), str(folder)],
                cwd=folder,
                env=_environment(ranks[0].threads),
                stdin=subprocess.PIPE,  # it ends when this process does
                stdout=log,
                stderr=subprocess.STDOUT,
            )
            with process:
                exit_code = process.wait()
        return _gather(trial, folder, len(ranks), exit_code)


def _arguments(trial: Trial, world_size: int) -> list[str]:
    solo = ["-m", "tlbench.solo"]
    if trial.case.stack == "torch":
        return solo
    return [
        *("-m", "torch.distributed.run", "--standalone", "--local-addr=127.0.0.1"),
        *(f"--nproc-per-node={world_size}", *solo),
    ]


def _environment(threads: int) -> dict[str, str]:
    """This process's environment, as it would be without Ray."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
    return inherited | {
        "OMP_NUM_THREADS": str(threads),
        "PYTHONSAFEPATH": "1",  # for the processes of torchrun too
    }


def _gather(
    trial: Trial, folder: Path, world_size: int, exit_code: int
) -> list[TrialResult]:
    results = _results(folder, world_size)
    failed = [name_rank(r, k) for k, r in results.items() if r.status != "ok"]
    if failed:
        return [failed[0] if world_size > 1 else results[0]]
    missing = [rank for rank in range(world_size) if rank not in results]
    if missing:
        log = (folder / LOG).read_text("utf-8", errors="replace")
        reason = (
            f"the process of {trial.case.stack} ended with {_ending(exit_code)} and"
            f" no result of rank {', '.join(map(str, missing))}"
        )
        return [TrialResult("error", reason, log[-LOG_TAIL_CHARS:])]
    return [results[rank] for rank in range(world_size)]


def _results(folder: Path, world_size: int) -> Mapping[int, TrialResult]:
    """Those that were written, by rank, in the order in which they were."""
    written = {
        rank: path
        for rank in range(world_size)
        if (path := result_path(folder, rank)).exists()
    }
    in_order = sorted(written, key=lambda rank: written[rank].stat().st_mtime_ns)
    return {rank: pickle.loads(written[rank].read_bytes()) for rank in in_order}


def _ending(exit_code: int) -> str:
    if exit_code < 0:
        return signal.Signals(-exit_code).name
    return f"exit code {exit_code}"
