"""What a report is made from, read from the database at once."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from sqlalchemy.orm import Session

from tlbench.calibrate import noise_floor
from tlbench.db import query
from tlbench.db.connection import ById
from tlbench.db.query import MachineRecord, RunRecord, TrialRecord
from tlbench.measure.map_file import MAPS_NAME
from tlbench.reports.cases import Floors, Names
from tlbench.reports.gate import Answer
from tlbench.reports.history import History, histories_of

LOSS = "loss"
SCORES = {"top1_percent": "eval_top1_percent", "map_percent": "eval_map_percent"}
"""Series of what each accuracy was after epochs of training."""
EVALUATED_AT = "eval_epoch"
"""Series of the epochs after which that was."""

MAX_MAPS = 3
"""Trials whose attention maps a report shows."""

Curves = Mapping[tuple[int, str], Sequence[float]]
"""Series by trial id and name."""


@dataclass(frozen=True)
class Against:
    """The base that a report holds its runs against."""

    name: str
    """Such as `run 3`."""
    answers: tuple[Answer, ...]
    """One for each metric that both sides have."""


@dataclass(frozen=True)
class Evidence:
    """All that a report is made from."""

    runs: Sequence[RunRecord]
    machines: Sequence[MachineRecord]
    trials: Sequence[TrialRecord]
    curves: Curves
    floors: Floors = field(default_factory=dict)
    maps: Mapping[int, bytes] = field(default_factory=dict)
    """Files of attention maps, by trial id."""
    history: Sequence[History] = ()
    """Of those of its cases that other runs have measured too."""
    names: Names = field(default_factory=Names)
    against: Against | None = None


def read_evidence(
    session: Session,
    run_ids: Sequence[int],
    run_names: Mapping[int, str] | None = None,
) -> Evidence:
    """Read the runs; `run_names` has those that are not called by their number."""
    runs = [query.run(session, run_id) for run_id in dict.fromkeys(run_ids)]
    trials = query.trials(session, run_ids)
    machines = query.machines(session, run_ids)
    trained = [trial.id for trial in trials if trial.case.mode == "fit"]
    hosts = ById({record.id: record.machine for record in machines})
    used = {(t.machine_id, t.case.device): t.case for t in trials if t.machine_id}
    return Evidence(
        runs=runs,
        machines=machines,
        trials=trials,
        curves=query.series(session, trained, (LOSS, EVALUATED_AT, *SCORES.values())),
        floors={
            (machine_id, device): noise_floor(session, hosts[machine_id], case)
            for (machine_id, device), case in used.items()
        },
        maps=_read_maps(session, trials),
        history=histories_of(session, trials),
        names=Names(run_names or {}, _machine_names(machines)),
    )


def _read_maps(session: Session, trials: Sequence[TrialRecord]) -> dict[int, bytes]:
    """Of the first trial of a few cases: of each data set in turn."""
    learned = [trial for trial in trials if trial.case.model.token_learner]
    have = query.trials_with_artifact(session, [t.id for t in learned], MAPS_NAME)
    first: dict[tuple[int, str], TrialRecord] = {}
    for trial in learned:
        if trial.id in have:
            first.setdefault((trial.run_id, trial.identity), trial)
    of_data: Counter[str] = Counter()
    turns = []
    for trial in first.values():
        turns.append((of_data[trial.case.data], trial.id))
        of_data[trial.case.data] += 1
    chosen = [trial_id for _, trial_id in sorted(turns)[:MAX_MAPS]]
    return query.named_artifacts(session, chosen, MAPS_NAME)


def _machine_names(machines: Sequence[MachineRecord]) -> dict[int, str]:
    """The host names; with a number where a machine was in several states."""
    states = Counter(record.machine.hostname for record in machines)
    return {
        record.id: record.machine.hostname
        if states[record.machine.hostname] == 1
        else f"{record.machine.hostname} (machine {record.id})"
        for record in machines
    }
