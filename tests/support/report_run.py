"""A small run in memory: three models, timed and trained, with numbers made by hand."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from support.machine import MACHINE
from tlbench.db.query import MachineRecord, RunRecord, TrialRecord
from tlbench.reports.evidence import Evidence
from tlbench.result import Status
from tlbench.suites.model_spec import ModelSpec, TokenLearnerSpec
from tlbench.suites.names import model_name
from tlbench.suites.spec import Case, Suite

START = datetime(2025, 3, 1, 12, 0, tzinfo=UTC)

Values = Mapping[str, float | None]


def model(place: int | None = None, name: str = "ViT-tiny", **sizes: int) -> ModelSpec:
    """A tiny ViT, with TokenLearner before block `place` if that is given."""
    learner = None if place is None else TokenLearnerSpec(num_tokens=8, place=place)
    tiny: dict[str, Any] = {
        "patch_size": 4,
        "image_size": 32,
        "embed_dim": 64,
        "depth": 4,
        **sizes,
    }
    return ModelSpec(name=name, num_heads=4, mlp_dim=128, token_learner=learner, **tiny)


@dataclass
class RunBuilder:
    """Collects trials as a run stores them."""

    run_id: int = 1
    suite: str = "smoke"
    cases: list[Case] = field(default_factory=list)
    trials: list[TrialRecord] = field(default_factory=list)
    curves: dict[tuple[int, str], tuple[float, ...]] = field(default_factory=dict)
    machine_id: int | None = 1
    planned: int | None = None

    def add(
        self,
        case: Case,
        trials: Iterable[Values],
        curves: Mapping[str, tuple[float, ...]] | None = None,
        **changes: Any,
    ) -> None:
        """One trial for each mapping of metrics, in the blocks 0, 1, ..."""
        if case not in self.cases:
            self.cases.append(case)
        for repeat, metrics in enumerate(trials):
            trial_id = 100 * self.run_id + len(self.trials)
            trial = TrialRecord(
                id=trial_id,
                run_id=self.run_id,
                case=case,
                identity=case.identity,
                model=model_name(case.model),
                repeat=repeat,
                position=len(self.trials),
                seed=repeat,
                status="ok",
                reason=None,
                traceback=None,
                started_at=START + timedelta(seconds=len(self.trials)),
                wall_time_s=3.0,
                command=f"tlbench run again --position {len(self.trials)}",
                machine_id=self.machine_id,
                notes={"stopped_by": "interval", "steady_state": "flat"},
                validity="valid",
                doubts=(),
                metrics=dict(metrics),
                reasons={k: "not on a CPU" for k, v in metrics.items() if v is None},
            )
            self.trials.append(replace(trial, **changes))
            for name, values in (curves or {}).items():
                self.curves[trial_id, name] = values

    def fail(
        self,
        case: Case,
        status: Status = "oom",
        reason: str = "out of memory",
        traceback: str | None = None,
    ) -> None:
        self.add(
            case,
            [{}],
            status=status,
            reason=reason,
            traceback=traceback,
            validity=None,
            notes={},
        )

    @property
    def record(self) -> RunRecord:
        suite = Suite(
            name=self.suite,
            cases=tuple(self.cases) or (Case(model=model(), mode="infer"),),
            repeats={"infer": 3},
        )
        return RunRecord(
            id=self.run_id,
            uid=f"{self.run_id:032x}",
            origin=None,
            suite=self.suite,
            description="A small ViT with and without TokenLearner.",
            source="smoke.yaml",
            status="finished",
            ended_by=None,
            command="tlbench run smoke",
            started_at=START,
            ended_at=START + timedelta(seconds=95),
            planned=len(self.trials) if self.planned is None else self.planned,
            finished=len(self.trials),
            failed=sum(trial.status != "ok" for trial in self.trials),
            version="0.1.0",
            suite_json=suite.model_dump(mode="json"),
            tags=(),
            note="",
        )

    @property
    def evidence(self) -> Evidence:
        machines = [MachineRecord(1, MACHINE)] if self.trials else []
        return Evidence([self.record], machines, self.trials, self.curves)


def timed(
    throughputs: Iterable[float], macs: float, memory: float = 2**30
) -> list[Values]:
    return [
        {
            "macs": macs,
            "train_flops": 6 * macs,
            "params": 1e6,
            "throughput_samples_per_s": value,
            "latency_p50_s": 1 / value,
            "peak_memory_allocated_bytes": None,
            "peak_memory_host_growth_bytes": memory,
            "predicted_memory_growth_bytes": memory / 1.1,
        }
        for value in throughputs
    ]


def staged(**after: float) -> Values:
    """Embedding, blocks and head of 1, 2 and 1 ms, and what else is given in s."""
    times = {"embedding": 0.001, "before": 0.002, "head": 0.001} | after
    total, removable = sum(times.values()), after.get("after")
    ceiling = None if removable is None else total / (total - removable)
    return {
        **{f"stage_{stage}_time_s": time for stage, time in times.items()},
        **{f"stage_{stage}_macs": 1e12 * time for stage, time in times.items()},
        **{f"stage_{stage}_memory_bytes": 2.0**20 for stage in times},
        "removal_ceiling_ratio": ceiling,
    }


def trained(top1: Iterable[float], macs: float) -> list[Values]:
    return [{"macs": macs, "top1_percent": value, "n_eval": 360} for value in top1]


def smoke_run() -> RunBuilder:
    """Three models in modes infer, train and fit.

    TL8@1 needs half the MACs and is exactly 1.9 times as fast in every block; TL8@2
    needs 0.625 of them.
    """
    run = RunBuilder()
    costs = {None: 4e8, 1: 2e8, 2: 2.5e8}
    speeds = {
        None: (100.0, 110.0, 105.0),
        1: (190.0, 209.0, 199.5),
        2: (150.0, 163.0, 158.0),
    }
    accuracies = {
        None: (97.0, 97.5, 96.8),
        1: (96.0, 96.4, 95.9),
        2: (97.2, 97.1, 97.0),
    }
    for place, macs in costs.items():
        spec = model(place)
        memory = macs * 2
        infer = Case(model=spec, mode="infer", batch_size=8)
        stages = staged() if place is None else staged(tokenizer=0.001, after=0.005)
        timings = timed(speeds[place], macs, memory)
        run.add(infer, [{**values, **stages} for values in timings])
        train = Case(model=spec, mode="train", batch_size=8)
        slower = [speed / 4 for speed in speeds[place]]
        run.add(train, timed(slower, macs, 2 * memory))
        loss = tuple(2.3 / (1 + 0.05 * step) for step in range(400))
        top1 = tuple(accuracies[place][0] * (1 - 0.8**e) for e in range(1, 11))
        run.add(
            Case(model=spec, mode="fit", data="digits", batch_size=32),
            trained(accuracies[place], macs),
            {"loss": loss, "eval_top1_percent": top1},
        )
    return run
