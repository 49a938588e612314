"""Every setting of a stored case by its dotted name, without building the case."""

from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any, get_args

from tlbench.db.connection import damaged_value
from tlbench.suites.schema import Spec
from tlbench.suites.spec import Case

NAME = "model.name"
"""What a run calls the model stands with the trial, and is no setting of the case."""


def settings(canonical: Mapping[str, Any]) -> dict[str, Any]:
    """What the canonical JSON says, and the defaults where it says nothing."""
    if not isinstance(canonical.get("model"), Mapping):
        raise damaged_value(canonical)
    found = _filled(Case, canonical)
    del found[NAME]
    return found


def flatten(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The leaves of nested mappings, by dotted name."""
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield from flatten(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def _filled(record: type[Spec], given: Mapping[str, Any]) -> dict[str, Any]:
    """The leaves of a record, of which `given` says what is not the default."""
    found = dict(_defaults(record))
    inner = _records(record)
    for name, value in given.items():
        found.pop(name, None)  # a record that is there stands in place of its None
        if not isinstance(value, Mapping):
            found[name] = value
        elif name in inner:
            leaves = _filled(inner[name], value)
            found |= {f"{name}.{leaf}": of_leaf for leaf, of_leaf in leaves.items()}
        else:
            found |= flatten(value, f"{name}.")
    return found


@cache
def _defaults(record: type[Spec]) -> Mapping[str, Any]:
    defaults = {
        name: field.get_default(call_default_factory=True)
        for name, field in record.model_fields.items()
        if not field.is_required()
    }
    return dict(
        flatten(
            {
                name: _defaults(type(value)) if isinstance(value, Spec) else value
                for name, value in defaults.items()
            }
        )
    )


@cache
def _records(record: type[Spec]) -> Mapping[str, type[Spec]]:
    """The fields that are records themselves, or may be."""
    return {
        name: kind
        for name, field in record.model_fields.items()
        for kind in (field.annotation, *get_args(field.annotation))  # X, or X | None
        if isinstance(kind, type) and issubclass(kind, Spec)
    }
