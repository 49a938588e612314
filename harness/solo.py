"""One rank in a process of its own: `python -m tlbench.solo FOLDER`.

`tlbench.launch` starts it, by itself or through torchrun. The folder holds what to run,
and is where the result goes.
"""

import os
import pickle
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from tlbench.launch import ORDER, pid_path, result_path
from tlbench.rank import Rank
from tlbench.ranklog import dump_stacks_on_request
from tlbench.suites.spec import Trial


def main(folder: Path) -> int:
    """Run this process's rank.

    The exit code is 1 where the rank failed: torchrun then ends the other ranks, which
    may be waiting for it.
    """
    threading.Thread(target=_end_with_launcher, daemon=True).start()
    trial, ranks = pickle.loads((folder / ORDER).read_bytes())
    rank = _own_rank(trial, ranks)
    dump_stacks_on_request()
    _write_whole(pid_path(folder, rank.rank), str(os.getpid()).encode())
    if rank.device == "cuda":
        _hide_other_gpus(rank)
    start = time.perf_counter()
    from tlbench.trial import run_rank  # torch, which looks for GPUs

    result = run_rank(trial, rank, import_time_s=time.perf_counter() - start)
    _write_whole(result_path(folder, rank.rank), pickle.dumps(result))
    return 0 if result.status == "ok" else 1


def _write_whole(path: Path, content: bytes) -> None:
    """Write a file that is whole or not there."""
    partial = path.with_suffix(".partial")
    partial.write_bytes(content)
    partial.rename(path)


def _end_with_launcher() -> None:
    """End this process when the other end of its standard input is gone."""
    while os.read(sys.stdin.fileno(), 1):
        pass
    os._exit(1)


def _own_rank(trial: Trial, ranks: Sequence[Rank]) -> Rank:
    if trial.case.stack == "torch":
        return ranks[0]
    return replace(
        ranks[int(os.environ["LOCAL_RANK"])],
        master_address=os.environ["MASTER_ADDR"],
        master_port=int(os.environ["MASTER_PORT"]),
    )


def _hide_other_gpus(rank: Rank) -> None:
    """See one GPU only, as workers of Ray do; this must come ahead of torch."""
    visible = os.environ["CUDA_VISIBLE_DEVICES"].split(",")
    os.environ["CUDA_VISIBLE_DEVICES"] = visible[rank.local_rank]


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
