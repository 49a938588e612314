"""Runs in a database of their own, with numbers made by hand."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from support.machine import MACHINE
from tlbench.db.store import ResultStore
from tlbench.machine import Machine
from tlbench.result import Metric, Status, TrialResult, Validity
from tlbench.suites.names import parse_model
from tlbench.suites.spec import Case, Suite, Trial

START = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
THROUGHPUT = "throughput_samples_per_s"

Values = Mapping[str, float]


def case(model: str = "ViT-Ti/16", **settings: Any) -> Case:
    return Case.model_validate(
        {"mode": "infer", **settings, "model": parse_model(model)}
    )


def speeds(*values: float) -> list[Values]:
    return [{THROUGHPUT: value} for value in values]


class StoredRuns:
    """Writes runs into a store as a driver does."""

    def __init__(self, store: ResultStore) -> None:
        self.store = store
        self._runs = 0

    def add(
        self,
        *measured: tuple[Case, Sequence[Values]],
        machine: Machine | None = MACHINE,
        validity: Mapping[int, Validity] | None = None,
        failed: Mapping[int, Status] | None = None,
        wall_time_s: float = 3.0,
        ended: Literal["finished", "interrupted", "failed"] = "finished",
        **changes: Any,
    ) -> int:
        """One run; trial number r of a case stands in block r.

        Args:
            *measured: Each case with the metrics of its trials.
            machine: Where all of them ran; None: no process of any came up.
            validity: Of the trials at these positions.
            failed: How those at these positions ended instead.
            wall_time_s: What each trial took.
            ended: How the run did.
            **changes: Fields of the suite.
        """
        suite = Suite(
            name="made",
            cases=tuple(case for case, _ in measured),
            repeats={case.mode: max(len(t), 1) for case, t in measured},
            **changes,
        )
        trials = [
            (case, repeat, metrics)
            for case, of_case in measured
            for repeat, metrics in enumerate(of_case)
        ]
        self._runs += 1
        run_id = self.store.begin_run(
            suite=suite, source="made.yaml", command="", planned=len(trials)
        )
        for position, (of_trial, repeat, metrics) in enumerate(trials):
            status = (failed or {}).get(position, "ok")
            result = TrialResult(
                status,
                None if status == "ok" else f"it was {status}",
                metrics=tuple(Metric(*item) for item in metrics.items())
                if status == "ok"
                else (),
                machine=machine,
            )
            judged = (validity or {}).get(position)
            if judged is not None:
                result = replace(result, validity=judged, doubts=("a doubt",))
            self.store.add_trial(
                run_id,
                Trial(of_trial, repeat, position, seed=suite.seed + repeat),
                result,
                started_at=START + timedelta(hours=self._runs),
                wall_time_s=wall_time_s,
                command="",
            )
        self.store.end_run(run_id, ended)
        return run_id
