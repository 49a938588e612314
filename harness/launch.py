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
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from tlbench.rank import Rank
from tlbench.ranklog import stacks_of
from tlbench.result import TrialResult, name_rank
from tlbench.suites.spec import Trial

ORDER = "order.pickle"
LOG = "log.txt"
LOG_TAIL_CHARS = 8000
"""How much of what a process printed is kept when it died, or was ended."""
STACKS_TIMEOUT_S = 5.0
"""How long all ranks together have to write their stacks."""
EXIT_TIMEOUT_S = 5.0
"""How long processes that are told to end have for it."""
ENDING_TIMEOUT_S = STACKS_TIMEOUT_S + EXIT_TIMEOUT_S
"""How long a trial that was not finished in time takes to be ended."""


def result_path(folder: Path, rank: int) -> Path:
    return folder / f"result-{rank}.pickle"


def pid_path(folder: Path, rank: int) -> Path:
    return folder / f"pid-{rank}"


def run_outside_ray(
    trial: Trial, ranks: Sequence[Rank], timeout_s: float
) -> list[TrialResult]:
    """Run a trial of stack torch or torchrun, with all its ranks on this machine.

    Returns:
        The result of every rank; or, where one failed, that of the first to do so; or
        one of status timeout with the end of what the processes printed, and where each
        rank was.
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
                try:
                    exit_code = process.wait(timeout_s)
                except subprocess.TimeoutExpired:
                    told = _told_of_hanging(folder, len(ranks))
                    _end(process, _pids(folder, len(ranks)))
                    reason = f"its processes had not finished after {timeout_s:.0f} s"
                    return [TrialResult("timeout", reason, told)]
        return _gather(trial, folder, len(ranks), exit_code)


def _told_of_hanging(folder: Path, world_size: int) -> str:
    """Where each rank is, and ahead of it the end of what all have printed."""
    told, deadline = [_log_tail(folder)], time.monotonic() + STACKS_TIMEOUT_S
    for rank, pid in _pids(folder, world_size).items():
        left_s = deadline - time.monotonic()
        stacks = stacks_of(pid, folder / LOG, left_s)
        told.append(f"stacks of rank {rank}:\n{stacks or 'it did not tell'}")
    return "\n\n".join(filter(None, told))


def _pids(folder: Path, world_size: int) -> dict[int, int]:
    """The process of each rank that has come so far as to tell its stacks."""
    return {
        rank: int(path.read_text())
        for rank in range(world_size)
        if (path := pid_path(folder, rank)).exists()
    }


def _end(process: subprocess.Popen[bytes], pids: Mapping[int, int]) -> None:
    assert process.stdin is not None
    process.stdin.close()  # every rank ends with it, those of torchrun too
    try:
        process.wait(EXIT_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        for pid in pids.values():  # a call that keeps Python's lock ends by force only
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.kill()


def _log_tail(folder: Path) -> str:
    log = (folder / LOG).read_text("utf-8", errors="replace")
    return log[-LOG_TAIL_CHARS:]


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
        reason = (
            f"the process of {trial.case.stack} ended with {_ending(exit_code)} and"
            f" no result of rank {', '.join(map(str, missing))}"
        )
        return [TrialResult("error", reason, _log_tail(folder))]
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
