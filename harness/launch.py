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
"""How much of what a process printed is kept when it died, or was ended."""
ENDING_TIMEOUT_S = 5.0
"""How long processes that are told to end have for it."""


def result_path(folder: Path, rank: int) -> Path:
    return folder / f"result-{rank}.pickle"


def run_outside_ray(
    trial: Trial, ranks: Sequence[Rank], timeout_s: float
) -> list[TrialResult]:
    """Run a trial of stack torch or torchrun, with all its ranks on this machine.

    Returns:
        The result of every rank; or, where one failed, that of the first to do so; or
        one of status timeout with the end of what the processes printed.
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
                exit_code = _wait(process, timeout_s)
        if exit_code is None:
            reason = f"its processes had not finished after {timeout_s:.0f} s"
            return [TrialResult("timeout", reason, _log_tail(folder))]
        return _gather(trial, folder, len(ranks), exit_code)


def _wait(process: subprocess.Popen[bytes], timeout_s: float) -> int | None:
    """The exit code; None: it was not there in time, and now the process is gone."""
    try:
        return process.wait(timeout_s)
    except subprocess.TimeoutExpired:
        assert process.stdin is not None
        process.stdin.close()  # every rank ends with it, those of torchrun too
    try:
        process.wait(ENDING_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
    return None


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
