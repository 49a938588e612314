"""Kill parts of a cluster at random while runs go on, resume, and compare the rows.

    PYTHONPATH=tests python tests/faults/kill.py --kills 50 --seed 1

A head without CPUs and two raylets with one each, a PostgreSQL server, and a driver
that is started again whenever it is gone, as a supervisor would: `tlbench run`, and
then `tlbench run --resume`. Every few seconds one of {driver, actor, raylet, database}
is ended by SIGKILL; raylets and database come back a little later. At the end of each
run every case has its repeats, each once, and their rows equal those of a run that
nobody disturbed, in all that is no measurement of time or memory.
"""

import argparse
import contextlib
import os
import random
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from support.postgresql import PostgreSQL
from tlbench.db import query
from tlbench.db.store import ResultStore

VICTIMS = ("driver", "actor", "raylet", "database")
TLBENCH = [sys.executable, "-m", "tlbench"]
RAY = [sys.executable, "-m", "ray.scripts.scripts"]
WORKER = "ray::Worker."
SUITE = """
name: kills
models:
  - {image_size: 8, patch_size: 4, embed_dim: 16, depth: 2, num_heads: 2}
  - {image_size: 8, patch_size: 4, embed_dim: 16, depth: 2, num_heads: 2,
     token_learner: TL2@1}
data: digits
batch_size: 64
repeats: REPEATS
retry: {lost: 2}
placement_timeout_s: 120
trial_timeout_s: 120
include:
  - {mode: profile}
  - {mode: fit, fit: {steps: 6}, optimizer: {kind: [adamw, sgd]}}
"""
DETERMINISTIC = (
    *("params", "trainable_params", "macs", "flops", "train_flops", "counter_macs"),
    *("profiler_macs", "loss", "n_eval", "top1_percent", "top5_percent"),
)
CURVES = ("loss", "learning_rate", "top1_percent")
LIMIT_S = 5400


@dataclass
class Cluster:
    """A head and raylets on loopback that can be killed and come back."""

    folder: Path
    port: int
    raylets: list["subprocess.Popen[bytes]"] = field(default_factory=list)

    def start(self, count: int) -> None:
        self._head = self._ray(
            *("--head", f"--port={self.port}", "--include-dashboard=false"), cpus=0
        )
        deadline = time.monotonic() + 60
        while socket.socket().connect_ex(("127.0.0.1", self.port)) != 0:
            assert time.monotonic() < deadline, "the head did not come up"
            time.sleep(0.2)
        for _ in range(count):
            self.join()

    def join(self) -> None:
        """Let one more raylet join."""
        self.raylets.append(self._ray(f"--address=127.0.0.1:{self.port}", cpus=1))

    def _ray(self, *words: str, cpus: int) -> "subprocess.Popen[bytes]":
        store = "--object-store-memory=80000000"
        common = (f"--num-cpus={cpus}", store, "--disable-usage-stats", "--block")
        where = ("--node-ip-address=127.0.0.1", f"--temp-dir={self.folder}")
        log = (self.folder / "ray.log").open("ab")
        own = where if "--head" in words else where[:1]
        command = [*RAY, "start", *words, *own, *common]
        return subprocess.Popen(command, stdout=log, stderr=log)

    def processes(self, name: str) -> list[psutil.Process]:
        """Processes of the raylets, by how their titles begin."""
        return [
            process
            for raylet in self.raylets
            if raylet.poll() is None
            for process in psutil.Process(raylet.pid).children(recursive=True)
            if _title(process).startswith(name) or process.name() == name
        ]

    def stop(self) -> None:
        for one in [*self.raylets, self._head]:
            if one.poll() is None:
                family = psutil.Process(one.pid).children(recursive=True)
                one.kill()
                for process in family:
                    if process.is_running():
                        process.kill()


def _title(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


class Campaign:
    """Runs that go on, and what has been done to them."""

    def __init__(self, kills: int, seed: int, repeats: int, folder: Path) -> None:
        self._left, self._chance = kills, random.Random(seed)
        self._suite = folder / "kills.yaml"
        self._suite.write_text(SUITE.replace("REPEATS", str(repeats)))
        (folder / "pg").mkdir()
        self._server = PostgreSQL(folder / "pg")
        self._disturbed = self._server.create("disturbed")
        self._quiet = str(folder / "undisturbed.db")
        (folder / "ray").mkdir()
        self._log = folder / "drivers.log"
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self._cluster = Cluster(folder / "ray", port)
        self._later: list[tuple[float, Callable[[], None]]] = []
        self.killed: Counter[str] = Counter()
        self.drivers = 0
        self._driver: subprocess.Popen[bytes] | None = None

    def run(self) -> None:
        self._cluster.start(2)
        try:
            print("undisturbed:", self._drive(self._quiet).wait(LIMIT_S), flush=True)
            expected = rows(self._quiet, 1)
            number = 0
            while self._left:
                number += 1
                self._disturb(number)
                compare(expected, self._disturbed, number)
                print(f"run {number}: as expected; so far {dict(self.killed)}")
            self._tell()
        finally:
            if self._driver is not None and self._driver.poll() is None:
                self._driver.kill()
            self._cluster.stop()
            with contextlib.suppress(subprocess.CalledProcessError):  # it may be down
                self._server.stop()

    def _drive(self, db: str, *words: str) -> "subprocess.Popen[bytes]":
        self.drivers += 1
        address = f"127.0.0.1:{self._cluster.port}"
        what = words or (str(self._suite),)
        command = [*TLBENCH, "run", *what, "--db", db, "--address", address]
        with self._log.open("ab") as log:
            self._driver = subprocess.Popen(
                command, stdout=log, stderr=log, cwd=self._log.parent
            )
        return self._driver

    def _disturb(self, number: int) -> None:
        """One run, with drivers until all of its trials are there."""
        driver = self._drive(self._disturbed)
        next_kill = time.monotonic() + self._chance.uniform(8, 14)
        deadline = time.monotonic() + LIMIT_S
        while driver.poll() != 0:
            assert time.monotonic() < deadline, f"run {number} does not end"
            if driver.poll() is not None:
                time.sleep(1)
                has_begun = len(self._runs()) >= number
                words = ("--resume", str(number)) if has_begun else ()
                driver = self._drive(self._disturbed, *words)
            now = time.monotonic()
            for item in [item for item in self._later if item[0] <= now]:
                self._later.remove(item)
                item[1]()
            if self._left and now >= next_kill and self._kill(driver):
                self._left -= 1
                next_kill = now + self._chance.uniform(2, 10)
            time.sleep(0.1)
        while self._later:
            self._later.pop()[1]()

    def _runs(self) -> list[query.RunRecord]:
        while True:
            try:
                with (
                    ResultStore.open(self._disturbed, create=True) as store,
                    store.session() as session,
                ):
                    return query.runs(session)
            except Exception as error:  # it may be away just now
                print("waiting for the database:", str(error)[:80], flush=True)
                time.sleep(1)
                self._come_back()

    def _come_back(self) -> None:
        now = time.monotonic()
        for item in [item for item in self._later if item[0] <= now]:
            self._later.remove(item)
            item[1]()

    def _kill(self, driver: "subprocess.Popen[bytes]") -> bool:
        """Kill one of the victims; whether it was there to be killed."""
        victim = self._chance.choice(VICTIMS)
        back = time.monotonic() + self._chance.uniform(1, 8)
        if victim == "driver":
            if driver.poll() is not None:
                return False
            driver.kill()
        elif victim == "database":
            if self._later:  # it may be down
                return False
            self._server.kill()
            self._later.append((back, self._server.start))
        else:
            name = WORKER if victim == "actor" else "raylet"
            found = self._cluster.processes(name)
            if not found:
                return False
            self._chance.choice(found).kill()
            if victim == "raylet":
                self._later.append((back, self._cluster.join))
        self.killed[victim] += 1
        return True

    def _tell(self) -> None:
        with (
            ResultStore.open(self._disturbed, read_only=True) as store,
            store.session() as session,
        ):
            runs = query.runs(session)
            tries: Counter[str] = Counter()
            for run in runs:
                tries.update(a.status for a in query.attempts(session, run.id))
            trials = sum(run.finished for run in runs)
        print(
            f"{sum(self.killed.values())} kills ({dict(self.killed)}), {len(runs)}"
            f" runs by {self.drivers - 1} drivers, {trials} trials, each once and as"
            f" undisturbed; attempts that came to nothing: {dict(tries)}"
        )


def rows(db: str, run_id: int) -> list[dict[str, Any]]:
    """All that is deterministic in the rows of a run, in the order of the plan."""
    with ResultStore.open(db, read_only=True) as store, store.session() as session:
        trials = query.trials(session, [run_id])
        curves = query.series(session, [t.id for t in trials], CURVES)
    return [
        {
            **{name: getattr(t, name) for name in ("position", "identity", "repeat")},
            **{name: getattr(t, name) for name in ("seed", "model", "status")},
            **{name: t.metrics.get(name) for name in DETERMINISTIC},
            **{f"{name} of all": curves.get((t.id, name)) for name in CURVES},
        }
        for t in trials
    ]


def compare(expected: list[dict[str, Any]], db: str, run_id: int) -> None:
    """Stop where a run is not what it would have been undisturbed."""
    found = rows(db, run_id)
    if len(found) != len(expected):
        raise SystemExit(f"run {run_id} has {len(found)} of {len(expected)} trials")
    for one, other in zip(expected, found, strict=True):
        different = {name for name in one if one[name] != other[name]}
        if different:
            told = {name: (one[name], other[name]) for name in different}
            raise SystemExit(f"run {run_id}, position {one['position']}: {told}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=12)
    options = parser.parse_args()
    os.environ["RAY_AUTH_MODE"] = "disabled"  # of Rays that nobody else can reach
    with tempfile.TemporaryDirectory(prefix="tlb-") as name:
        Path(name).chmod(0o755)
        campaign = Campaign(options.kills, options.seed, options.repeats, Path(name))
        try:
            campaign.run()
        except BaseException:
            log = (Path(name) / "drivers.log").read_text(errors="replace")
            print(log[-6000:])
            raise


if __name__ == "__main__":
    main()
