"""The trials of each case, gathered, labelled and summarised."""

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import PurePath
from statistics import median
from types import MappingProxyType
from typing import Any, NamedTuple

from tlbench.db import query
from tlbench.db.connection import ById
from tlbench.db.query import RunRecord, TrialRecord
from tlbench.db.settings import flatten
from tlbench.result import STATUSES, Validity
from tlbench.statistics import (
    NOISE_FLOOR,
    Interval,
    interval_of_percentages,
    interval_of_trials,
)
from tlbench.suites.deepspeed import FrozenConfig
from tlbench.suites.spec import MODES, Case, Mode, Suite
from tlbench.suites.training import Checkpoint

ACCURACY_METRICS = frozenset(
    {"top1_percent", "top5_percent", "map_percent", "n_eval", "time_to_accuracy_s"}
)
"""Metrics that mean something only of trained weights; few-shot probes are trained."""

CHECKPOINT = "checkpoint"
DEEPSPEED = "deepspeed"
SAID_KEYS = 2
"""Of a user's configuration of DeepSpeed: of so many, each is said by itself."""
SHOWN_DIGEST = 12
"""Digits of a digest."""

NOT_VALID: tuple[Validity, ...] = ("suspect", "invalid")

DEVICE_MEMORY = "peak_memory_allocated_bytes"
HOST_MEMORY = "peak_memory_host_growth_bytes"
PREDICTED_MEMORY = {
    DEVICE_MEMORY: "predicted_memory_bytes",
    HOST_MEMORY: "predicted_memory_growth_bytes",
}
"""The prediction of each: of all that a device holds, or of what the steps add."""

Floors = Mapping[tuple[int | None, str], float]
"""Noise floors, by the id of the machine and the `device` that a case asks for."""


@dataclass(frozen=True)
class Names:
    """What runs and machines are called, where their numbers would not do."""

    runs: Mapping[int, str] = field(default_factory=dict)
    machines: Mapping[int, str] = field(default_factory=dict)

    def run(self, run_id: int) -> str:
        return self.runs.get(run_id, f"run {run_id}")

    def machine(self, machine_id: int | None) -> str:
        if machine_id is None:
            return "no machine"
        return self.machines.get(machine_id, f"machine {machine_id}")


@dataclass(frozen=True)
class Summary:
    """One metric of one case, over its trials."""

    value: float | None
    """Median over the trials; None where no trial has it, and `reason` says why."""
    interval: Interval | None
    n: int
    """Trials that have it."""
    reason: str | None = None


@dataclass(frozen=True)
class CaseTrials:
    """The trials of one case on one machine in one run."""

    run_id: int
    machine_id: int | None
    """None: no worker of it ever came up."""
    case: Case
    model: str
    label: str
    """The model, and those settings in which the cases of its mode differ."""
    trials: tuple[TrialRecord, ...]
    run_name: str
    """Such as `run 3`, or `run 3 of a.db` where there are several databases."""
    machine_name: str
    floor: float = NOISE_FLOOR
    """By how much two equal cases may differ on the machine."""

    @property
    def mode(self) -> Mode:
        return self.case.mode

    @property
    def finished(self) -> tuple[TrialRecord, ...]:
        return tuple(trial for trial in self.trials if trial.status == "ok")

    @property
    def statuses(self) -> dict[str, int]:
        """How many trials ended with each status, in the order of `STATUSES`."""
        counts = Counter(trial.status for trial in self.trials)
        return {status: counts[status] for status in STATUSES if counts[status]}

    @property
    def doubtful(self) -> dict[str, int]:
        """How many finished trials are suspect and invalid, where some are."""
        counts = Counter(str(trial.validity) for trial in self.finished)
        return {name: counts[name] for name in NOT_VALID if counts[name]}

    @property
    def doubts(self) -> tuple[str, ...]:
        """Each reason to doubt a finished trial, once."""
        reasons = (reason for trial in self.finished for reason in trial.doubts)
        return tuple(dict.fromkeys(reasons))

    @property
    def memory_metric(self) -> str:
        """Peak memory of the device where it was measured, of the host otherwise."""
        return DEVICE_MEMORY if self.values(DEVICE_MEMORY) else HOST_MEMORY

    def values(self, metric: str) -> dict[int, float]:
        """The metric in each shuffled block, from finished trials that have it."""
        if metric in ACCURACY_METRICS and not has_accuracy(self.case):
            return {}
        measured = {trial.repeat: trial.metrics.get(metric) for trial in self.finished}
        return {block: v for block, v in measured.items() if v is not None}

    @property
    def accuracies(self) -> dict[int, float]:
        """What says how good the model is, in each block; empty where nothing does."""
        metric = self.case.accuracy_metric
        return {} if metric is None else self.values(metric)

    def all_but(self, *names: str) -> tuple[Hashable, ...]:
        """What this has in common with a case that may differ in these settings alone.

        The name of a group, such as `input`, stands for all that is in it.
        """
        kept = [
            value
            for name, value in settings(self.case).items()
            if name not in names and name.partition(".")[0] not in names
        ]
        model = json.dumps(self.case.canonical()["model"], sort_keys=True)
        return (self.run_id, self.machine_id, model, *kept)

    def summary(self, metric: str) -> Summary:
        """Of one metric; many tables and charts ask for the same."""
        if metric not in self._summaries:
            self._summaries[metric] = self._summarise(metric)
        return self._summaries[metric]

    @cached_property
    def _summaries(self) -> dict[str, Summary]:
        return {}

    def _summarise(self, metric: str) -> Summary:
        values = list(self.values(metric).values())
        if not values:
            return Summary(None, None, 0, self._why_missing(metric))
        return Summary(median(values), interval_of(metric, values), len(values))

    def _why_missing(self, metric: str) -> str:
        if not self.finished:
            return f"no trial ended well: {describe_statuses(self.statuses)}"
        if metric in ACCURACY_METRICS and not has_accuracy(self.case):
            return f"mode {self.mode} runs random weights, which have no accuracy"
        for trial in self.finished:
            if metric in trial.reasons:
                return trial.reasons[metric]
        return f"not measured in mode {self.mode}"


def has_accuracy(case: Case) -> bool:
    """Whether anything was trained, be it a probe."""
    if case.mode == "evaluate":
        return has_trained_weights(case)
    return case.accuracy_metric is not None


def has_trained_weights(case: Case) -> bool:
    """Whether the model was trained: a user's builder may bring weights of its own."""
    if case.mode == "fit" or case.checkpoint is not None:
        return True
    builder = case.model.builder
    return builder is not None and builder.file is not None


def interval_of(metric: str, values: Sequence[float]) -> Interval | None:
    """Of the typical value over the trials; None of one that is counted."""
    if len(set(values)) == 1:  # counted, not measured
        return None
    if metric.endswith("_percent"):
        return interval_of_percentages(values)
    return interval_of_trials(values)


def describe_statuses(statuses: Mapping[str, int]) -> str:
    """Counts in words, such as `2 ok, 1 oom`."""
    return ", ".join(f"{count} {status}" for status, count in statuses.items())


NUMBERS = Names()


def gather(
    runs: Sequence[RunRecord],
    records: Sequence[TrialRecord],
    floors: Floors = MappingProxyType({}),
    names: Names = NUMBERS,
) -> list[CaseTrials]:
    """Group the trials by run, case and machine: by mode, then as the suites list them.

    A trial that never reached a machine counts to the machine on which the case's other
    trials ran, if that is only one.
    """
    places = ById(
        {
            (run.id, identity): place
            for run in runs
            for place, identity in enumerate(_identities(run))
        }
    )
    ordered = sorted(
        _by_machine(records).items(),
        key=lambda item: (
            item[0].run_id,
            MODES.index(item[1][0].case.mode),
            places[item[0].run_id, item[0].identity],
            item[0].machine_id or 0,
        ),
    )
    labels = _labels(ordered, names)
    return [
        CaseTrials(
            run_id=key.run_id,
            machine_id=key.machine_id,
            case=trials[0].case,
            model=trials[0].model,
            label=label,
            trials=trials,
            run_name=names.run(key.run_id),
            machine_name=names.machine(key.machine_id),
            floor=floors.get((key.machine_id, trials[0].case.device), NOISE_FLOOR),
        )
        for (key, trials), label in zip(ordered, labels, strict=True)
    ]


def settings(case: Case) -> dict[str, Any]:
    """Everything of a case but its model, by dotted field name.

    Every case has the same names, be there a checkpoint or not.
    """
    told = case.model_dump(mode="json", exclude={"model", DEEPSPEED})
    configured = deepspeed_of(case)
    told[DEEPSPEED] = json.dumps(configured, sort_keys=True) if configured else None
    told[CHECKPOINT] = told[CHECKPOINT] or dict.fromkeys(Checkpoint.model_fields)
    return dict(flatten(told))


def circumstances(case: Case) -> dict[str, Any]:
    """The settings as they are told: what the model starts from is one of them."""
    others = case.model_dump(mode="json", exclude={"model", CHECKPOINT, DEEPSPEED})
    own = {CHECKPOINT: weights_of(case), DEEPSPEED: deepspeed_of(case)}
    return dict(flatten(others)) | own


def deepspeed_of(case: Case) -> FrozenConfig:
    """The user's configuration of DeepSpeed by dotted keys; empty: there is none."""
    return FrozenConfig(flatten(case.deepspeed or {}))


def differing(
    ours: Mapping[str, Any], theirs: Mapping[str, Any], shown: Callable[[Any], str]
) -> dict[str, str]:
    """What differs, by name: the name with both values as they are shown."""
    return {
        name: f"{name} ({shown(ours.get(name))}, {shown(theirs.get(name))})"
        for name in {**ours, **theirs}
        if ours.get(name) != theirs.get(name)
    }


def all_but_model(case: Case) -> tuple[Hashable, ...]:
    """What cases have in common that differ in their models alone.

    Weights belong to their model, but models with weights are not held against models
    without.
    """
    told = circumstances(case)
    told[CHECKPOINT] = told[CHECKPOINT] is not None
    return tuple(told.values())


@dataclass(frozen=True)
class Weights:
    """What a model starts from; of one digest, the same wherever the file lies."""

    source: str
    """The digest, or else the path."""
    tubelets: str
    words: str = field(compare=False)

    def __str__(self) -> str:
        return self.words


def weights_of(case: Case) -> Weights | None:
    """What the model of a case starts from; None: random weights."""
    checkpoint = case.checkpoint
    if checkpoint is None:
        return None
    path, digest = checkpoint.path, checkpoint.sha256
    words = path
    if digest is not None:
        words = f"{PurePath(path).name} with SHA-256 {digest[:SHOWN_DIGEST]}"
    if checkpoint.tubelets != Checkpoint.model_fields["tubelets"].default:
        words += f" by {checkpoint.tubelets}"
    return Weights(digest or path, checkpoint.tubelets, words)


def describe_setting(name: str, value: object) -> str:
    """A setting as people say it, such as `batch 8` or `2 ranks`."""
    match name, value:
        case "run" | "machine" | "mode" | "data" | "precision", _:
            return str(value)
        case "batch_size", _:
            return f"batch {value}"
        case "attention", _:
            return f"{value} attention"
        case "compile", _:
            return "compiled" if value else "not compiled"
        case "device", "auto":
            return "any device"
        case "device", _:
            return f"on {value}"
        case "checkpoint", None:
            return "from random weights"
        case "checkpoint", _:
            return f"from {value}"
        case "deepspeed", FrozenConfig():
            return _describe_deepspeed(value)
        case "parallelism.world_size", _:
            return "1 rank" if value == 1 else f"{value} ranks"
        case "parallelism.zero_stage", _:
            return f"ZeRO {value}"
        case _:
            return f"{name.rpartition('.')[2].replace('_', ' ')} {value}"


def _describe_deepspeed(config: FrozenConfig) -> str:
    if not config:
        return "DeepSpeed by default"
    if len(config) <= SAID_KEYS:
        return ", ".join(describe_setting(key, value) for key, value in config.items())
    text = json.dumps(config, sort_keys=True).encode()
    return f"DeepSpeed by {hashlib.sha256(text).hexdigest()[:SHOWN_DIGEST]}"


def stored_suite(run: RunRecord) -> Suite:
    """What the run was asked for."""
    return query.read_stored(Suite, run.suite_json, f"the suite of run {run.id}")


def _identities(run: RunRecord) -> list[str]:
    return [case.identity for case in stored_suite(run).cases]


class _Key(NamedTuple):
    """What tells one `CaseTrials` from another."""

    run_id: int
    machine_id: int | None
    identity: str


_Grouped = tuple[_Key, tuple[TrialRecord, ...]]


def _by_machine(records: Sequence[TrialRecord]) -> dict[_Key, tuple[TrialRecord, ...]]:
    of_case: dict[tuple[int, str], list[TrialRecord]] = defaultdict(list)
    for record in records:
        of_case[record.run_id, record.identity].append(record)
    grouped: dict[_Key, list[TrialRecord]] = defaultdict(list)
    for (run_id, identity), trials in of_case.items():
        known = {t.machine_id for t in trials if t.machine_id is not None}
        only = next(iter(known)) if len(known) == 1 else None
        for trial in trials:
            machine_id = only if trial.machine_id is None else trial.machine_id
            grouped[_Key(run_id, machine_id, identity)].append(trial)
    return {key: tuple(trials) for key, trials in grouped.items()}


def _labels(grouped: Sequence[_Grouped], names: Names) -> list[str]:
    """Name each group by its model and by what tells it from others of its mode.

    Runs are told apart by their names; settings are named that vary within a run.
    """
    where = [
        {"run": names.run(key.run_id), "machine": names.machine(key.machine_id)}
        for key, _ in grouped
    ]
    how = [circumstances(trials[0].case) for _, trials in grouped]
    of_mode: dict[Mode, list[dict[str, Any]]] = defaultdict(list)
    of_run: dict[tuple[Mode, str], list[dict[str, Any]]] = defaultdict(list)
    for place, setting in zip(where, how, strict=True):
        of_mode[setting["mode"]].append(place)
        of_run[setting["mode"], place["run"]].append(setting)
    where_varies = {mode: _varying(rows) for mode, rows in of_mode.items()}
    how_varies = {run: _varying(rows) for run, rows in of_run.items()}
    labels = []
    for (_, trials), place, setting in zip(grouped, where, how, strict=True):
        told = [(n, place[n]) for n in where_varies[setting["mode"]]]
        told += [(n, setting[n]) for n in how_varies[setting["mode"], place["run"]]]
        labels.append(
            ", ".join([trials[0].model, *(describe_setting(n, v) for n, v in told)])
        )
    return labels


def _varying(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The fields, in order, that do not have the same value in every row."""
    return [name for name in rows[0] if any(r[name] != rows[0][name] for r in rows)]
