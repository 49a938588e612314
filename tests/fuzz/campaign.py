"""Many numbered attempts, in processes that may hang or die without ending the rest.

What an attempt is follows from the seed and its number alone. So a violation is told by
both, and `--only NUMBER` makes it again.
"""

import argparse
import multiprocessing
import os
import resource
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path

WALL_LIMIT_S = 60.0
"""A process that is silent for so long hangs, on a busy machine too, and is killed."""
MEMORY_LIMIT_BYTES = 8 * 2**30
"""Address space of a process; whoever needs more gets a MemoryError."""


@dataclass(frozen=True)
class Verdict:
    """What came of one attempt."""

    kind: str
    """What was tried."""
    outcome: str
    """What came of it, in words that are counted."""
    violations: tuple[str, ...] = ()
    """What must not be, a text each."""


Attempt = Callable[[int, int, Path], Verdict]
"""Makes the attempt of a seed and a number in an empty folder."""


def main(attempt: Attempt, description: str, count: int) -> int:
    """Make the attempts that the command line asks for; returns the exit code."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--count", type=int, default=count)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", type=int, metavar="NUMBER", help="one attempt")
    parser.add_argument("--processes", type=int, default=2)
    asked = parser.parse_args()
    numbers = range(asked.count) if asked.only is None else [asked.only]
    outcomes: Counter[tuple[str, str]] = Counter()
    violations = 0

    def tell(number: int, verdict: Verdict) -> None:
        nonlocal violations
        outcomes[verdict.kind, verdict.outcome] += 1
        for text in verdict.violations:
            violations += 1
            print(f"VIOLATION --seed {asked.seed} --only {number}: {text}", flush=True)

    _make_all(attempt, asked.seed, numbers, asked.processes, tell)
    for (kind, outcome), times in sorted(outcomes.items()):
        print(f"{times:7,}  {kind}: {outcome}")
    print(f"{outcomes.total():7,}  in all; violations: {violations}")
    return 1 if violations else 0


def _make_all(
    attempt: Attempt,
    seed: int,
    numbers: Iterable[int],
    processes: int,
    tell: Callable[[int, Verdict], None],
) -> None:
    left = iter(numbers)
    busy: dict[Connection, _Process] = {}

    def feed(process: _Process) -> None:
        number = next(left, None)
        if number is None:
            process.end()
        else:
            process.begin(number)
            busy[process.connection] = process

    for _ in range(processes):
        feed(_Process(attempt, seed))
    while busy:
        first = min(process.deadline for process in busy.values())
        heard = wait(list(busy), max(first - time.monotonic(), 0))
        now = time.monotonic()
        for process in list(busy.values()):
            if process.connection not in heard and process.deadline > now:
                continue
            del busy[process.connection]
            verdict = process.verdict()
            tell(process.number, verdict)
            feed(process if process.is_alive else _Process(attempt, seed))


class _Process:
    """One process that makes attempts, one after the other."""

    def __init__(self, attempt: Attempt, seed: int) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, far_end = context.Pipe()
        self._process = context.Process(target=_serve, args=(attempt, seed, far_end))
        self._process.start()
        far_end.close()
        self.number = -1
        self.deadline = 0.0
        self.is_alive = True

    def begin(self, number: int) -> None:
        self.number = number
        self.deadline = time.monotonic() + WALL_LIMIT_S
        self.connection.send(number)

    def verdict(self) -> Verdict:
        """What it answers; a violation where it is silent or dead."""
        what = "hangs"
        if self.connection.poll():
            try:
                answer: Verdict = self.connection.recv()
            except EOFError:
                what = "dies"
            else:
                return answer
        self._process.kill()
        self.end()
        text = f"{what} (exit code {self._process.exitcode})"
        return Verdict("any", what, (text,))

    def end(self) -> None:
        self.is_alive = False
        self.connection.close()
        self._process.join()


def _serve(attempt: Attempt, seed: int, connection: Connection) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_LIMIT_BYTES, MEMORY_LIMIT_BYTES))
    while True:
        try:
            number = connection.recv()
        except EOFError:
            return
        with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
            os.chdir(folder)
            try:
                verdict = attempt(seed, number, Path(folder))
            except BaseException:
                verdict = Verdict("any", "raises", (traceback.format_exc(),))
            os.chdir("/")
        connection.send(verdict)
