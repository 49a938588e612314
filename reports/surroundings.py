"""What a run ran in: the hardware, the driver and the libraries of a machine."""

from collections.abc import Collection, Hashable, Iterable, Iterator, Mapping

from tlbench.db.settings import flatten
from tlbench.machine import Machine
from tlbench.reports.sides import HARDWARE_FIELDS, SOFTWARE_FIELDS

OWN_CODE = frozenset({"commit", "is_dirty", "tlbench"})
"""Software that is not counted among it: a history is to judge it."""
SHOWN_COMMIT = 7
"""Digits of a commit."""


def surroundings(
    machine: Machine,
    ignored: Collection[str] = (),
    names: Iterable[str] = (*HARDWARE_FIELDS, *SOFTWARE_FIELDS),
) -> dict[str, object]:
    """What has to stay the same, by name: hardware, driver and libraries."""
    told = dict(flatten({name: getattr(machine, name) for name in names}))
    plain = {name.removeprefix("versions."): value for name, value in told.items()}
    return {k: v for k, v in plain.items() if k not in OWN_CODE and k not in ignored}


def place_of(machine: Machine, ignored: Collection[str] = ()) -> Hashable:
    """All of it; a library that is not there is one that was not looked for."""
    told = surroundings(machine, ignored)
    return tuple((name, value) for name, value in told.items() if value is not None)


def hardware_of(machine: Machine, ignored: Collection[str] = ()) -> Hashable:
    return tuple(surroundings(machine, ignored, HARDWARE_FIELDS).values())


def code_of(version: str, machine: Machine | None) -> str:
    """Release and commit of tlbench, with a plus where the source had changes."""
    if machine is None or machine.commit is None:
        return version
    release, dirty = version.partition("+")[0], "+" if machine.is_dirty else ""
    return f"{release} {machine.commit[:SHOWN_COMMIT]}{dirty}"


def differences(
    before: Mapping[str, object], after: Mapping[str, object]
) -> Iterator[str]:
    """Such as `torch 2.4.0 -> 2.5.1`."""
    for name in {**before, **after}:
        old, new = before.get(name), after.get(name)
        if old != new:
            yield f"{name} {_shown(old)} -> {_shown(new)}"


def _shown(value: object) -> str:
    return "none" if value is None else str(value)
