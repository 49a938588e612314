"""One side of a comparison: the trials of one case, over the runs that have it."""

import json
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from statistics import median

from tlbench.db.query import MachineRecord, TrialRecord
from tlbench.db.settings import flatten
from tlbench.machine import Machine
from tlbench.reports.cases import (
    CHECKPOINT,
    DEEPSPEED,
    CaseTrials,
    Weights,
    circumstances,
    differing,
    weights_of,
)
from tlbench.reports.quantities import LARGEST_BATCH
from tlbench.suites.spec import Case

BATCH = "batch_size"
MODEL = "model"
MACHINE = "machine"
SOFTWARE = "software"
PLACE = frozenset({MACHINE, SOFTWARE})
"""What is known of a trial only if a process of it came up."""

# memory_bytes is neither: a few MiB more after a reboot make no other machine.
HARDWARE_FIELDS = (
    *("hostname", "cpu_model", "cpu_cores"),
    *("gpu_name", "gpu_count", "gpu_memory_bytes"),
)
SOFTWARE_FIELDS = ("os", "gpu_driver", "python", "versions", "commit", "is_dirty")


@dataclass(frozen=True)
class Side:
    """The trials of one case on one machine with one state of software."""

    parts: tuple[CaseTrials, ...]
    """Of each run apart, without the trials that are invalid."""
    machine: Machine | None
    """None: no worker of it ever came up."""
    invalid: int = 0
    """Trials that are left out, as nothing may be concluded from them."""

    @property
    def case(self) -> Case:
        return self.parts[0].case

    @property
    def model(self) -> str:
        return self.parts[0].model

    @property
    def label(self) -> str:
        """The model, and the settings in which the cases of its run differ."""
        return self.parts[0].label

    @property
    def memory_metric(self) -> str:
        return self.parts[0].memory_metric

    @property
    def trials(self) -> tuple[TrialRecord, ...]:
        return tuple(trial for part in self.parts for trial in part.trials)

    @property
    def ended_well(self) -> bool:
        """Whether some trial did."""
        return any(part.finished for part in self.parts)

    @property
    def run_ids(self) -> tuple[int, ...]:
        return tuple(part.run_id for part in self.parts)

    @property
    def failures(self) -> dict[str, int]:
        """How many trials ended in each way but well."""
        return Counter(str(t.status) for t in self.trials if t.status != "ok")

    @property
    def suspect(self) -> int:
        """Finished trials that are used, but with doubts."""
        return sum(part.doubtful.get("suspect", 0) for part in self.parts)

    @property
    def batch_size(self) -> int | None:
        """Samples in a step; what was found where the case asks for the most."""
        if self.case.batch_size != "max":
            return self.case.batch_size
        found = self.typical(LARGEST_BATCH)
        return None if found is None else round(found)

    @property
    def batch_sizes(self) -> tuple[int, ...]:
        """Of all its trials, each once: runs may find different largest ones."""
        if self.case.batch_size != "max":
            return (self.case.batch_size,)
        return tuple(sorted({round(n) for n in self.values(LARGEST_BATCH).values()}))

    @property
    def wall_time_s(self) -> float:
        """Seconds that a trial takes, in its process and around it."""
        return median(trial.wall_time_s for trial in self.trials)

    def values(self, metric: str) -> dict[tuple[int, int], float]:
        """The metric in each shuffled block: each run has blocks of its own."""
        return {
            (part.run_id, repeat): value
            for part in self.parts
            for repeat, value in part.values(metric).items()
        }

    def typical(self, metric: str) -> float | None:
        """Median over the trials; None where none has it."""
        values = self.values(metric)
        return median(values.values()) if values else None

    @property
    def accuracy(self) -> float | None:
        """In percent, by what says how good the model is; None where nothing does."""
        metric = self.case.accuracy_metric
        return None if metric is None else self.typical(metric)

    def why_missing(self, metric: str) -> str:
        if self.invalid and not self.trials:
            return "every trial is invalid"
        return self.parts[0].summary(metric).reason or "not measured"

    def is_same(self, other: "Side") -> bool:
        """Whether they have trials in common."""
        is_in_the_same_run = not {*self.run_ids}.isdisjoint(other.run_ids)
        return is_in_the_same_run and not self.differences(other)

    @cached_property
    def circumstances(self) -> dict[str, str]:
        """All that tells it from other sides: the model, each setting, the place."""
        model = self.case.canonical()["model"]
        told = {MODEL: model} | circumstances(self.case)
        told |= {
            CHECKPOINT: self._weights
            and [self._weights.source, self._weights.tubelets],
            MACHINE: self._of_machine(HARDWARE_FIELDS),
            SOFTWARE: self._of_machine(SOFTWARE_FIELDS),
        }
        return {name: json.dumps(value, sort_keys=True) for name, value in told.items()}

    @property
    def _weights(self) -> Weights | None:
        return weights_of(self.case)

    def _of_machine(self, names: Iterable[str]) -> dict[str, object]:
        if self.machine is None:
            return {}
        return dict(flatten({name: getattr(self.machine, name) for name in names}))

    def key(self, free: Collection[str]) -> tuple[str, ...]:
        """What it has to have in common with another, but for what is free."""
        return tuple(v for k, v in self.circumstances.items() if k not in free)

    def differences(self, other: "Side") -> dict[str, str]:
        """Each name in which two sides are known to differ, in words with both values.

        Of a side that no worker came up for, the place is not known. Weights belong to
        their model: other ones of another model are no difference of their own.
        """
        unknown = PLACE if None in (self.machine, other.machine) else frozenset()
        found = {
            name: self._words(name, other)
            for name, value in self.circumstances.items()
            if value != other.circumstances[name] and name not in unknown
        }
        if MODEL in found and None not in (self._weights, other._weights):
            found.pop(CHECKPOINT, None)
        return found

    def _words(self, name: str, other: "Side") -> str:
        if name == MODEL:
            return f"{MODEL} ({self.model}, {other.model})"
        if name == CHECKPOINT:
            return f"{CHECKPOINT} ({self._weights}, {other._weights})"
        ours, theirs = (json.loads(side.circumstances[name]) for side in (self, other))
        if not isinstance(ours, dict):
            return f"{name} ({_shown(ours)}, {_shown(theirs)})"
        words = differing(ours, theirs, _shown).values()
        if name == DEEPSPEED:
            return ", ".join(f"{DEEPSPEED}.{told}" for told in words)
        return f"{name}: {', '.join(words)}"


def _shown(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def make_sides(
    cases: Iterable[CaseTrials], machines: Mapping[int, MachineRecord]
) -> list[Side]:
    """Put together what the runs have of each case; invalid trials are left out.

    What never came up on a machine joins the trials of the case that did, if those
    are of one place only.
    """
    alike: dict[tuple[str, ...], list[Side]] = defaultdict(list)
    for case in cases:
        place = None if case.machine_id is None else machines[case.machine_id].machine
        part = Side((case,), place)
        alike[part.key(PLACE)].append(part)
    return [_joined(sides) for group in alike.values() for sides in _by_place(group)]


def _by_place(sides: Sequence[Side]) -> list[list[Side]]:
    groups: dict[tuple[str, ...], list[Side]] = defaultdict(list)
    known = {side.key(()) for side in sides if side.machine is not None}
    for side in sides:
        is_homeless = side.machine is None and len(known) == 1
        groups[next(iter(known)) if is_homeless else side.key(())].append(side)
    return list(groups.values())


def _joined(sides: Sequence[Side]) -> Side:
    parts = [part for side in sides for part in side.parts]
    valid = [
        replace(p, trials=tuple(t for t in p.trials if t.validity != "invalid"))
        for p in parts
    ]
    return Side(
        parts=tuple(valid),
        machine=next((s.machine for s in sides if s.machine is not None), None),
        invalid=sum(p.doubtful.get("invalid", 0) for p in parts),
    )
