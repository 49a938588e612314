"""Mistakes in a suite: collected, and told together by file, line and field."""

import re
from collections.abc import Iterable

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from tlbench.errors import SuiteError
from tlbench.suites.document import Value, join_path, located
from tlbench.suites.names import did_you_mean
from tlbench.suites.schema import Spec, choices, schema_at, wording

MAX_MISTAKES = 20
"""Most mistakes that one error lists."""


class Mistakes:
    """What is wrong in one file: each mistake once, however often it is met."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.found: set[tuple[int, str]] = set()
        """The line of each, and the whole message."""

    @property
    def are_many(self) -> bool:
        """Whether there are enough to stop looking for more."""
        return len(self.found) >= MAX_MISTAKES

    def stop(self) -> None:
        """Raise what was found, in the order of the file."""
        messages = [message for _, message in sorted(self.found)]
        lines, rest = messages[:MAX_MISTAKES], messages[MAX_MISTAKES:]
        if rest:
            lines.append(f"{self.source}: {len(rest)} more of the kind")
        if lines:
            raise SuiteError("\n".join(lines))

    def add(self, value: Value, message: str) -> None:
        """Tell what is wrong with `value`; the message may name it by its text."""
        self._add(value.line, value.path, message)

    def add_missing(self, record: Value, key: str, right: str = "") -> None:
        """Tell that `record` lacks `key`, and what would be right if that is known."""
        way_out = f"; {right} would be right" if right else ""
        self._add(record.line, join_path(record.path, key), f"is missing{way_out}")

    def check_keys(self, mapping: Value, known: Iterable[str]) -> None:
        """Tell each key of a mapping that is not a known one."""
        for key, value in mapping.entries.items():
            if key not in known:
                self._add_unknown(key, value, known)

    def add_invalid(
        self,
        error: ValidationError,
        schema: type[Spec],
        record: Value,
        is_partial: bool = False,
    ) -> None:
        """Tell what `schema` has against `record`.

        A partial record is spared what lies in the fields that it does not give.
        """
        for details in error.errors(include_url=False):
            if not (is_partial and details["type"] in {"missing", "value_error"}):
                self._add_detail(details, schema, record)

    def _add(self, line: int, path: str, message: str) -> None:
        self.found.add((line, located(self.source, line, path, message)))

    def _add_unknown(self, key: str, value: Value, known: Iterable[str]) -> None:
        way_out = f"; known are {', '.join(sorted(known))}"
        if not self.are_many:  # to look for a near one takes time
            way_out = did_you_mean(key, known) or way_out
        self._add(value.key_line, value.path, f"is not a known key{way_out}")

    def _add_detail(
        self, details: ErrorDetails, schema: type[Spec], record: Value
    ) -> None:
        kind, path = details["type"], details["loc"]
        value = record.find(path)
        if kind == "extra_forbidden":
            known = schema_at(schema, path[:-1]).model_fields
            self._add_unknown(str(path[-1]), value, known)
        elif kind == "missing":
            options = ", ".join(choices(schema, path))
            right = f"one of {options}" if options else ""
            self.add_missing(value, str(path[-1]), right)
        elif kind == "value_error":
            message = str(details["ctx"]["error"])
            self.add(_first_mentioned(value, message), message)
        else:
            given = value.text
            if value is record:  # what follows from others, such as mlp_dim
                given = f"{'.'.join(map(str, path))}={details['input']}"
            self.add(value, f"{given} {wording(details, schema)}")


def _first_mentioned(record: Value, message: str) -> Value:
    """The first given field that a validator's message names as `field=value`."""
    for field in re.findall(r"([\w.]+)=", message):
        value = record.find(field.split("."))
        if value is not record:
            return value
    return record
