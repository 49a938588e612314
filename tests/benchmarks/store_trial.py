"""Time of storing one finished trial with 1,000 steps, beside raw sqlite3.

python tests/benchmarks/store_trial.py

Both write the same rows into an SQLite file of their own, one transaction a trial with
the same write-ahead log and the same flushes to the disk, in turns. The raw side has
its rows ready: it is given the least work that can be done. The flush, which takes what
the disk takes, can be left out of both with `--no-flush`, to see what the rest costs.
"""

import argparse
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import event
from sqlalchemy.engine import Engine

from tlbench.db.store import ResultStore
from tlbench.machine import fingerprint
from tlbench.result import Metric, Series, TrialResult
from tlbench.suites.loader import load_suite
from tlbench.suites.spec import Suite, Trial

TARGET_S = 0.020
TARGET_SHARE = 0.3
"""Of the rate of raw sqlite3."""
TRIALS = 300
TABLES = ("trial", "metric", "series")
RESULT = TrialResult(
    "ok",
    metrics=tuple(Metric(f"metric_{i}_s", i / 7) for i in range(30)),
    series=(Series("step_time_s", tuple(i / 7 for i in range(1000))),),
    machine=fingerprint(),
)

Write = Callable[[int], None]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--no-flush", action="store_true", help="synchronous = OFF")
    is_flushed = not parser.parse_args().no_flush
    if not is_flushed:
        event.listen(Engine, "connect", _leave_flush_out)
    suite = load_suite("smoke")
    with tempfile.TemporaryDirectory() as name:
        ours, raw = Path(name, "ours.db"), Path(name, "raw.db")
        with ResultStore.open(str(raw), create=True) as store:
            _storing(store, suite)(0)  # one trial, whose rows the raw side repeats
        with (
            ResultStore.open(str(ours), create=True) as store,
            _raw_writing(raw, is_flushed=is_flushed) as write_raw,
        ):
            times = _take_turns((_storing(store, suite), write_raw))
        _check_same(ours, raw)
    _report(*times)


def _take_turns(sides: tuple[Write, ...]) -> list[list[float]]:
    """Seconds of each call of each side; who begins changes."""
    times: list[list[float]] = [[] for _ in sides]
    for position in range(1, TRIALS + 1):
        order = range(len(sides)) if position % 2 else reversed(range(len(sides)))
        for side in order:
            start = time.perf_counter()
            sides[side](position)
            times[side].append(time.perf_counter() - start)
    return times


def _storing(store: ResultStore, suite: Suite) -> Write:
    run_id = store.begin_run(
        suite=suite, source="smoke", command="benchmark", planned=TRIALS
    )

    def write(position: int) -> None:
        store.add_trial(
            run_id,
            Trial(suite.cases[0], position, position, seed=position),
            RESULT,
            started_at=datetime.now(UTC),
            wall_time_s=1.0,
            command="benchmark",
        )

    return write


@contextmanager
def _raw_writing(file: Path, *, is_flushed: bool) -> Iterator[Write]:
    """Writes the rows of the first trial again and again, under new ids."""
    with closing(sqlite3.connect(file, isolation_level=None)) as database:
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA foreign_keys = ON")
        if not is_flushed:
            database.execute("PRAGMA synchronous = OFF")
        trial, metrics, series = (_rows(database, table) for table in TABLES)
        insert = {table: _insertion(database, table) for table in TABLES}

        def write(position: int) -> None:
            database.execute("BEGIN IMMEDIATE")
            row = {**trial[0], "id": None, "position": position}
            trial_id = database.execute(insert["trial"], row).lastrowid
            for table, rows in (("metric", metrics), ("series", series)):
                new = ({**row, "id": None, "trial_id": trial_id} for row in rows)
                database.executemany(insert[table], new)
            database.execute("COMMIT")

        yield write


def _rows(database: sqlite3.Connection, table: str) -> list[dict[str, Any]]:
    rows = database.execute(f"SELECT * FROM {table}")
    names = [column[0] for column in rows.description]
    return [dict(zip(names, row, strict=True)) for row in rows]


def _insertion(database: sqlite3.Connection, table: str) -> str:
    names = [row[1] for row in database.execute(f"PRAGMA table_info({table})")]
    slots = ", ".join(f":{name}" for name in names)
    columns = ", ".join(f'"{name}"' for name in names)
    return f"INSERT INTO {table} ({columns}) VALUES ({slots})"


def _leave_flush_out(connection: sqlite3.Connection, record: object) -> None:
    connection.execute("PRAGMA synchronous = OFF")


def _check_same(ours: Path, raw: Path) -> None:
    """See that both have stored as much; the raw side has one trial more."""
    counts = []
    for file in (ours, raw):
        with closing(sqlite3.connect(file)) as database:
            counts.append([len(_rows(database, table)) for table in TABLES])
    expected = [count // (TRIALS + 1) * TRIALS for count in counts[1]]
    assert counts[0] == expected, f"ours has {counts[0]} rows, raw {counts[1]}"


def _report(ours: list[float], raw: list[float]) -> None:
    for name, times in (("tlbench", ours), ("raw sqlite3", raw)):
        cuts = statistics.quantiles(times, n=100)
        print(f"{name:12} median {_ms(cuts[49])}, p99 {_ms(cuts[98])}")
    share = sum(raw) / sum(ours)
    print(f"rate of tlbench / rate of raw sqlite3: {share:.2f}")
    is_met = statistics.median(ours) < TARGET_S and share >= TARGET_SHARE
    print(
        f"{'met' if is_met else 'MISSED'}: median below {_ms(TARGET_S)} and at least"
        f" {TARGET_SHARE} of the raw rate"
    )


def _ms(seconds: float) -> str:
    return f"{1e3 * seconds:.2f} ms"


if __name__ == "__main__":
    main()
