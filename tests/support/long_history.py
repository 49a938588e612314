"""Years of results in a new database: made up, alike for the same seed, quickly stored.

    python -m support.long_history history.db --trials 10000 --runs 200

Models, parameters and operations are real; times, memory and energy are invented around
what such machines could do. The runs of one suite repeat the same cases, newer torch
is a little quicker, and from `SLOWED_FROM` of the runs on tlbench itself is slower by
`SLOWED_BY`: a change that a history has to find.
"""

import argparse
import hashlib
import json
import math
import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import cache
from itertools import product
from typing import Any

from sqlalchemy import Connection, func, insert, select, text

from support.machine import MACHINE
from tlbench.db import models
from tlbench.db.connection import Location, writer
from tlbench.db.store import ResultStore
from tlbench.machine import Machine
from tlbench.models import cost
from tlbench.result import WHOLE_JOB
from tlbench.suites.names import model_name, parse_model
from tlbench.suites.spec import Case, Suite

FIRST, LAST = (
    datetime(2024, 11, 20, 6, tzinfo=UTC),
    datetime(2026, 11, 20, 6, tzinfo=UTC),
)
REPEATS = 5
STEPS = 50
SLOWED_FROM, SLOWED_BY = 0.8, 0.07
NOISE = 0.01
"""Standard deviation of a trial's speed, as a share."""
CHUNK = 500
"""Trials whose rows are held in memory at once."""

STATUSES = ("ok", "oom", "error", "timeout")
STATUS_WEIGHTS = (95.0, 3.0, 1.5, 0.5)
VALIDITIES = ("valid", "suspect", "invalid")
VALIDITY_WEIGHTS = (92.0, 6.0, 2.0)

SUITES = ("nightly", "placement", "memory", "precision", "scaling", "video", "release")
RELEASES = (("0.1.0", "2.6.0", 0.97), ("0.2.0", "2.7.1", 1.0), ("0.3.0", "2.9.0", 1.04))
"""tlbench, torch, and the speed they share; each holds for a third of the time."""
GPUS = (  # name, memory in GiB, FLOP/s that a ViT reaches in fp32
    ("NVIDIA H100 80GB HBM3", 80, 150e12),
    ("NVIDIA A100-SXM4-40GB", 40, 70e12),
    ("NVIDIA GeForce RTX 4090", 24, 60e12),
    ("NVIDIA L4", 24, 20e12),
)
CPUS = (("AMD EPYC 9354 32-Core Processor", 1.2e12), ("Intel Xeon Gold 6248", 0.7e12))
SIZES = ("Ti", "S", "B", "L")
REDUCTIONS = ("", "+TL8@1/4", "+TL8@1/2", "+TL8@3/4", "+TL16@1/2", "+TL8v1@1/2")
DIGITS = "ViT-d96h3m384l8/2@16"
STAGES = ("embedding", "before", "tokenizer", "after", "head")

Row = dict[str, Any]


def make_history(
    location: str,
    *,
    trials: int = 10_000,
    runs: int = 200,
    metrics_per_trial: int = 100,
    seed: int = 0,
) -> None:
    """Fill a database that does not exist yet.

    Args:
        location: Path or URL.
        trials: Of all runs together.
        runs: Spread evenly over two years.
        metrics_per_trial: On average; failed trials have none, the others a few more.
        seed: Of everything that is drawn.
    """
    ResultStore.open(location, create=True).close()
    place = Location.parse(location)
    engine = place.engine("write")
    try:
        with writer(engine).begin() as connection:
            _History(connection, runs, trials, metrics_per_trial, seed).write()
            _continue_numbers(connection)
    finally:
        engine.dispose()
    ResultStore.open(location).close()  # empties the log into the file


@dataclass(frozen=True)
class _Host:
    """A machine in one state of its software."""

    id: int
    machine: Machine
    flops_per_s: float


class _History:
    def __init__(
        self,
        connection: Connection,
        runs: int,
        trials: int,
        metrics_per_trial: int,
        seed: int,
    ) -> None:
        self._connection = connection
        self._draw = random.Random(seed)
        self._runs, self._trials = runs, trials
        share_ok = STATUS_WEIGHTS[0] / sum(STATUS_WEIGHTS)
        self._metrics = round(metrics_per_trial / share_ok)
        self._hosts = list(_hosts())
        self._case_ids: dict[Case, int] = {}
        self._trial_id = 0

    def write(self) -> None:
        self._insert(models.Machine, map(_machine_row, self._hosts))
        waiting: list[Row] = []
        for number in range(self._runs):
            waiting += self._run(number)
            if len(waiting) >= CHUNK:
                self._store(waiting)
                waiting = []
        self._store(waiting)

    def _insert(self, table: type[models.Base], rows: Iterable[Row]) -> None:
        listed = list(rows)
        if listed:
            self._connection.execute(insert(table), listed)

    def _store(self, trials: Sequence[Row]) -> None:
        """Trials with what belongs to them, which each carries along."""
        parts = (("metrics", models.Metric), ("series", models.Series))
        children = {name: [c for t in trials for c in t.pop(name)] for name, _ in parts}
        self._insert(models.Trial, trials)
        for name, table in parts:
            self._insert(table, children[name])

    def _run(self, number: int) -> list[Row]:
        """Store a run, and give its trials."""
        planned = (
            self._trials * (number + 1) // self._runs
            - self._trials * number // self._runs
        )
        name = SUITES[number % len(SUITES)]
        cases = _cases_of(number % len(SUITES), max(1, math.ceil(planned / REPEATS)))
        age = number / max(self._runs - 1, 1)
        host = self._host(age)
        start = FIRST + age * (LAST - FIRST)
        run_id = number + 1
        self._add_cases(cases)
        is_broken = number % 40 == 39
        self._insert(
            models.Run,
            [
                {
                    "id": run_id,
                    "uid": f"{self._draw.getrandbits(128):032x}",
                    "origin": None,
                    "suite": name,
                    "description": f"The {name} cases",
                    "suite_json": _suite_json(name, cases, planned),
                    "source": f"{name}.yaml",
                    "command": f"tlbench run {name}.yaml",
                    "status": "interrupted" if is_broken else "finished",
                    "ended_by": None,
                    "planned": planned,
                    "started_at": start,
                    "ended_at": start + timedelta(seconds=20 * planned),
                    "version": str(host.machine.versions["tlbench"]),
                    "note": "stopped by hand" if is_broken else "",
                }
            ],
        )
        tags = [name] if name in ("nightly", "release") else []
        self._insert(models.RunTag, ({"run_id": run_id, "tag": tag} for tag in tags))
        return [
            self._trial(run_id, position, cases, host, start, age)
            for position in range(planned)
        ]

    def _host(self, age: float) -> _Host:
        release = min(int(age * len(RELEASES)), len(RELEASES) - 1)
        of_release = len(self._hosts) // len(RELEASES)
        return self._hosts[release * of_release + self._draw.randrange(of_release)]

    def _add_cases(self, cases: Sequence[Case]) -> None:
        new = [case for case in cases if case not in self._case_ids]
        self._case_ids |= {
            case: number for number, case in enumerate(new, len(self._case_ids) + 1)
        }
        self._insert(
            models.ExperimentCase,
            ({"id": self._case_ids[case], **_case_row(case)} for case in new),
        )

    def _trial(
        self,
        run_id: int,
        position: int,
        cases: Sequence[Case],
        host: _Host,
        start: datetime,
        age: float,
    ) -> Row:
        self._trial_id += 1
        case, repeat = cases[position % len(cases)], position // len(cases)
        status = self._draw.choices(STATUSES, STATUS_WEIGHTS)[0]
        is_ok = status == "ok"
        validity = self._draw.choices(VALIDITIES, VALIDITY_WEIGHTS)[0]
        step_time_s = _step_time_s(case, host, age) * self._noise()
        return {
            "id": self._trial_id,
            "run_id": run_id,
            "case_id": self._case_ids[case],
            "machine_id": host.id,
            "model": _name(case),
            "given_name": None,
            "repeat": repeat,
            "position": position,
            "seed": repeat,
            "status": status,
            "reason": None if is_ok else f"it was {status}",
            "traceback": None,
            "started_at": start + timedelta(seconds=20 * position),
            "wall_time_s": round(15 + 5 * self._draw.random(), 3),
            "command": f"tlbench run again.yaml --position {position}",
            "notes": {"stopped_by": "interval", "steady_state": "flat"},
            "validity": validity if is_ok else None,
            "doubts": ["others used the CPU"] if is_ok and validity != "valid" else [],
            "attempts": 1,
            "nodes": [],
            "metrics": self._metric_rows(case, host, step_time_s) if is_ok else [],
            "series": list(self._series_rows(case, step_time_s)) if is_ok else [],
        }

    def _noise(self) -> float:
        return math.exp(self._draw.gauss(0.0, NOISE))

    def _metric_rows(self, case: Case, host: _Host, step_time_s: float) -> list[Row]:
        measured = _static(case) | self._measured(case, host, step_time_s)
        for number in range(self._metrics - len(measured)):
            measured[f"counter_{number:03}_s"] = step_time_s * self._noise()
        named = list(measured.items())[: self._metrics]
        return [
            {
                "trial_id": self._trial_id,
                "name": name,
                "rank": WHOLE_JOB,
                "value": value,
                "reason": "there is no GPU" if value is None else None,
            }
            for name, value in named
        ]

    def _measured(
        self, case: Case, host: _Host, step_time_s: float
    ) -> dict[str, float | None]:
        noise, batch = self._noise, case.global_batch_size
        is_gpu = host.machine.gpu_name is not None
        memory = _memory_bytes(case)
        throughput = batch / step_time_s
        speed = throughput * _static(case)["flops"] / host.flops_per_s
        watts = 300.0 * noise()
        found: dict[str, float | None] = {
            "throughput_samples_per_s": throughput,
            "throughput_per_device_samples_per_s": throughput
            / case.parallelism.world_size,
            "step_time_p50_s": step_time_s,
            "step_time_p50_low_s": step_time_s * 0.995,
            "step_time_p50_high_s": step_time_s * 1.005,
            "step_time_p90_s": step_time_s * 1.02 * noise(),
            "step_time_p99_s": None,
            "outlier_steps": float(self._draw.randrange(4)),
            "import_time_s": 4.0 * noise(),
            "build_time_s": 0.5 * noise(),
            "load_time_s": 0.2 * noise(),
            "first_step_time_s": 10 * step_time_s * noise(),
            "data_wait_fraction": 0.01 * noise(),
            "peak_memory_host_rss_bytes": 2**30 + memory * (0.2 if is_gpu else 1.0),
            "peak_memory_host_growth_bytes": memory * (0.1 if is_gpu else 1.0),
            "peak_memory_allocated_bytes": memory if is_gpu else None,
            "peak_memory_reserved_bytes": 1.1 * memory if is_gpu else None,
            "mfu": 0.5 * speed if is_gpu else None,
            "power_w": watts if is_gpu else None,
            "energy_j_per_sample": watts / throughput if is_gpu else None,
            "gpu_clock_hz": 1.7e9 * noise() if is_gpu else None,
            "cpu_clock_hz": 3.1e9 * noise(),
        }
        if case.mode == "infer":
            found |= {
                f"latency_p{q}_s": step_time_s / batch * noise() for q in (50, 90)
            }
        if case.mode == "fit":
            top1 = min(99.0, 96.0 * noise())
            found |= {"top1_percent": top1, "loss": 0.1 * noise()}
            found |= {"train_time_s": 40 * noise(), "time_to_accuracy_s": 20 * noise()}
        for stage in STAGES:
            found[f"stage_{stage}_time_s"] = step_time_s / len(STAGES) * noise()
            found[f"stage_{stage}_memory_bytes"] = memory / len(STAGES)
        return found

    def _series_rows(self, case: Case, step_time_s: float) -> Iterator[Row]:
        arrays = {"step_time_s": [step_time_s * self._noise() for _ in range(STEPS)]}
        if case.mode == "fit":
            arrays["loss"] = [2.3 * math.exp(-step / 10) for step in range(STEPS)]
        for name, values in arrays.items():
            yield {
                "trial_id": self._trial_id,
                "name": name,
                "rank": WHOLE_JOB,
                "values": values,
            }


def _hosts() -> Iterator[_Host]:
    """Every machine in every state, those of one release together."""
    number = 0
    for age, (version, torch, factor) in enumerate(RELEASES):
        for machine, flops_per_s in _hardware():
            number += 1
            versions = {"tlbench": version, "torch": torch, "cuda": None}
            if machine.gpu_name:
                versions["cuda"] = "12.8"
            commit = hashlib.sha1(version.encode()).hexdigest()
            state = replace(
                machine, versions=versions, commit=commit, is_dirty=age == 0
            )
            yield _Host(number, state, flops_per_s * factor)


def _hardware() -> Iterator[tuple[Machine, float]]:
    for number, (name, gib, flops_per_s) in enumerate(GPUS):
        machine = replace(
            MACHINE,
            hostname=f"gpu-{number + 1:02}",
            cpu_model=CPUS[0][0],
            cpu_cores=32,
            memory_bytes=512 * 2**30,
            gpu_name=name,
            gpu_count=8,
            gpu_memory_bytes=gib * 2**30,
            gpu_driver="570.86.15",
        )
        yield machine, flops_per_s
    for number, (name, flops_per_s) in enumerate(CPUS):
        yield (
            replace(MACHINE, hostname=f"cpu-{number + 1:02}", cpu_model=name),
            flops_per_s,
        )


def _machine_row(host: _Host) -> Row:
    content = vars(host.machine)
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    return {"id": host.id, "content_hash": digest, **content}


@cache
def _pool() -> tuple[Case, ...]:
    """All cases there can be; neighbours differ in their model."""
    names = [f"ViT-{size}/16{tail}" for size, tail in product(SIZES, REDUCTIONS)]
    timed = product(("infer", "train"), (8, 32, 128), ("fp32", "bf16"), (1, 8), names)
    cases = [
        Case.model_validate(
            {
                "model": parse_model(name),
                "mode": mode,
                "batch_size": batch,
                "precision": precision,
                "parallelism": {"world_size": ranks},
            }
        )
        for mode, batch, precision, ranks, name in timed
    ]
    fitted = [
        Case.model_validate(
            {
                "model": parse_model(f"{DIGITS}{tail}"),
                "mode": "fit",
                "data": "digits",
                "batch_size": 64,
            }
        )
        for tail in ("", "+TL8@1/4", "+TL8@1/2", "+TL8@3/4")
    ]
    return (*fitted, *cases)


@cache
def _cases_of(suite: int, count: int) -> tuple[Case, ...]:
    """The cases of one suite: a stretch of the pool, with repeats where it is short."""
    pool = _pool()
    count = min(count, len(pool))
    first = suite * count % len(pool)
    return (pool + pool)[first : first + count]


@cache
def _suite_json(name: str, cases: tuple[Case, ...], planned: int) -> Row:
    repeats = max(1, math.ceil(planned / len(cases)))
    suite = Suite(
        name=name,
        description=f"The {name} cases",
        cases=cases,
        repeats={case.mode: repeats for case in cases},
    )
    return suite.model_dump(mode="json")


def _case_row(case: Case) -> Row:
    return {
        "identity": case.identity,
        "canonical": case.canonical(),
        "mode": case.mode,
        "data": case.data,
        "image_size": case.model.image_size,
        "batch_size": case.batch_size,
        "precision": case.precision,
        "device": case.device,
        "world_size": case.parallelism.world_size,
        "zero_stage": case.parallelism.zero_stage,
    }


@cache
def _name(case: Case) -> str:
    return model_name(case.model)


@cache
def _static(case: Case) -> dict[str, float]:
    macs = cost.macs(case.model, case.num_classes)
    params = cost.params(case.model, case.num_classes)
    return {
        "params": float(params),
        "trainable_params": float(params),
        "macs": float(macs),
        "flops": 2.0 * macs,
        "train_flops": float(cost.train_flops(case.model, case.num_classes)),
    }


@cache
def _memory_bytes(case: Case) -> float:
    """Weights, their training states, and activations in proportion to the compute."""
    states = 4 if case.mode == "infer" else 16
    kept = 0.02 if case.mode == "infer" else 0.2
    per_rank = case.global_batch_size / case.parallelism.world_size
    static = _static(case)
    return states * static["params"] + kept * per_rank * static["macs"] * 0.01


def _step_time_s(case: Case, host: _Host, age: float) -> float:
    flops = _static(case)["flops" if case.mode == "infer" else "train_flops"]
    ranks = case.parallelism.world_size
    speed = host.flops_per_s * (1.8 if case.precision == "bf16" else 1.0)
    speed *= ranks * (0.93 if ranks > 1 else 1.0)
    slower = 1 + SLOWED_BY if age >= SLOWED_FROM else 1.0
    return slower * (2e-3 + case.global_batch_size * flops / speed)


def _continue_numbers(connection: Connection) -> None:
    """Let PostgreSQL number new rows after those that came with their ids."""
    if connection.dialect.name != "postgresql":
        return
    for table in (models.Run, models.Machine, models.ExperimentCase, models.Trial):
        name = table.__tablename__
        last = connection.scalar(select(func.max(table.id)))
        connection.execute(
            text("SELECT setval(pg_get_serial_sequence(:name, 'id'), :last)"),
            {"name": name, "last": last},
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("location")
    parser.add_argument("--trials", type=int, default=10_000)
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--metrics-per-trial", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    make_history(**vars(parser.parse_args()))


if __name__ == "__main__":
    main()
