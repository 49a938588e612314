"""The conditions by which people choose trials: `model~TL`, `params<100M`, `since=30d`.

A condition is a name, an operator and a value. Several of them all have to be met, but
of several `name=` any one. `!=` and `!~` hold where `=` and `~` do not. What a name
stands for is known to `tlbench.db.fields`.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from fnmatch import fnmatchcase

from tlbench.errors import ReportError, SuiteError
from tlbench.suites.model_spec import read_option
from tlbench.suites.names import model_name, parse_model

WAYS_TO_SELECT = (
    "a run (3), a case (case=1a2b3c4d) or conditions"
    " (model=ViT-B/16,mode=infer,batch_size=8) would be right"
)
ORDERS: dict[str, Callable[[float, float], bool]] = {
    "<": lambda actual, wanted: actual < wanted,
    "<=": lambda actual, wanted: actual <= wanted,
    ">": lambda actual, wanted: actual > wanted,
    ">=": lambda actual, wanted: actual >= wanted,
}
OPERATORS = ("!=", "!~", "<=", ">=", "=", "~", "<", ">")
"""The longer ones first, as the pattern has to try them."""
NOTHING = ("none", "null")
"""Words for a value that is not there; messages use the first."""
_CONDITION = re.compile(rf"\s*([\w.]+)\s*({'|'.join(OPERATORS)})(.*)", re.DOTALL)


@dataclass(frozen=True)
class Condition:
    """What one field of a trial has to be."""

    name: str
    operator: str
    value: str

    def __str__(self) -> str:
        return f"{self.name}{self.operator}{self.value}"

    @property
    def is_negative(self) -> bool:
        return self.operator.startswith("!")

    def is_met(self, actual: object) -> bool:
        """Whether a value that was set, not measured, is as it has to be."""
        if self.operator in ORDERS:
            wanted = self.number()
            if isinstance(actual, bool) or not isinstance(actual, int | float):
                return False
            return ORDERS[self.operator](actual, wanted)
        tests = _ALIKE if self.operator.endswith("=") else _PARTLY
        found = tests.get(self.name, tests[""])(actual, self.value)
        return found != self.is_negative

    def number(self) -> float:
        """The value as a number in the base unit that the end of the name tells."""
        if self.operator in ("~", "!~"):
            raise ReportError(f"{self}: a number has no parts; < and > compare it")
        return _read_quantity(self)


def parse_conditions(*texts: str) -> tuple[Condition, ...]:
    """Read texts such as `3`, `case=1a2b3c4d` or `model~TL,mode=infer,run=3`."""
    return tuple(condition for text in texts for condition in _parse(text))


def _parse(text: str) -> Iterator[Condition]:
    words = list(_split(text))
    if len(words) == 1 and words[0].strip().isdecimal():
        words = [f"run={words[0].strip()}"]
    return (_condition(word, text) for word in words)


def alternatives(conditions: Iterable[Condition]) -> list[list[Condition]]:
    """The conditions, those together of which one has to be met."""
    groups: dict[str, list[Condition]] = {}
    for condition in conditions:
        is_one_of = condition.operator == "="
        key = condition.name if is_one_of else str(condition)
        groups.setdefault(key, []).append(condition)
    return list(groups.values())


def _split(text: str) -> Iterator[str]:
    """The parts between commas; one in parentheses, or before no condition, is none."""
    start = depth = 0
    for place, character in enumerate(text):
        depth += (character == "(") - (character == ")")
        rest = text[place + 1 :]
        if character == "," and depth <= 0 and _CONDITION.match(rest.partition(",")[0]):
            yield text[start:place]
            start = place + 1
    yield text[start:]


def _condition(word: str, text: str) -> Condition:
    match = _CONDITION.fullmatch(word)
    if match is None or not match[3].strip():
        what = "names nothing" if not word.strip() else "is not understood"
        raise ReportError(f"{text!r}: {word.strip()!r} {what}; {WAYS_TO_SELECT}")
    name, operator, value = match[1], match[2], match[3].strip()
    if name == "run" and ("~" in operator or not value.isdecimal()):
        raise ReportError(
            f"{text!r}: {word.strip()!r} is no run; its number, such as run=3, would"
            " be right"
        )
    if name == "model" and operator in ("=", "!="):
        value = _printed(value)
    return Condition(name, operator, value)


def _printed(name: str) -> str:
    """A model's name as it is stored: fractions are blocks, the order is one."""
    try:
        return model_name(parse_model(name))
    except SuiteError:
        return name  # a suite may call its models as it likes


# ---------------------------------------------------------------- what = and ~ mean


def _is(actual: object, wanted: str) -> bool:
    if actual is None:
        return wanted in NOTHING
    value = read_option(wanted)
    if isinstance(actual, bool) or isinstance(value, bool):
        return actual is value
    return actual == value or str(actual) == wanted


def _begins(actual: object, wanted: str) -> bool:
    if actual is None:
        return wanted in NOTHING
    return str(actual).startswith(wanted)


def _is_called(actual: object, wanted: str) -> bool:
    """As people name a device: H100 is an NVIDIA H100 80GB HBM3."""
    if actual is None:
        return wanted in NOTHING
    return wanted.casefold() in str(actual).casefold()


def _is_among(actual: object, wanted: str) -> bool:
    assert isinstance(actual, tuple)
    return wanted in actual or (not actual and wanted in NOTHING)


def _holds(actual: object, part: str) -> bool:
    """Whether the value has the part anywhere; * and ? stand for what is not known."""
    pattern = f"*{part.replace('[', '[[]')}*"
    return actual is not None and fnmatchcase(str(actual), pattern)


def _holds_in_any_case(actual: object, part: str) -> bool:
    return actual is not None and _holds(str(actual).casefold(), part.casefold())


def _any_holds(actual: object, part: str) -> bool:
    assert isinstance(actual, tuple)
    return any(_holds(item, part) for item in actual)


_Test = Callable[[object, str], bool]
_ALIKE: dict[str, _Test] = {
    "": _is,
    "case": _begins,
    "commit": _begins,
    "gpu": _is_called,
    "cpu": _is_called,
    "tag": _is_among,
}
"""What `=` means, by name; the first for all others."""
_PARTLY: dict[str, _Test] = {
    "": _holds,
    "gpu": _holds_in_any_case,
    "cpu": _holds_in_any_case,
    "tag": _any_holds,
}
"""What `~` means."""


# ---------------------------------------------------------------- numbers and moments

_DECIMAL = {"": 1.0, "k": 1e3, "K": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15}
_BINARY = {
    f"{prefix}i": 2.0**power
    for prefix, power in zip("KMGT", (10, 20, 30, 40), strict=True)
}
_BYTES = {
    prefix + unit: factor
    for prefix, factor in (_DECIMAL | _BINARY).items()
    for unit in ("", "B")
}
_SECONDS = {
    "": 1.0,
    "ns": 1e-9,
    "us": 1e-6,
    "\N{MICRO SIGN}s": 1e-6,
    "ms": 1e-3,
    "s": 1.0,
    "min": 60.0,
    "h": 3600.0,
    "d": 86_400.0,
}
_NUMBER = re.compile(
    r"(?P<number>[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)\s*(?P<unit>[^\s\d]*)"
)
_SPAN = re.compile(r"(\d+(?:\.\d+)?)\s*(min|h|d|w)")
_SPAN_UNITS = {"min": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def _units_of(name: str) -> tuple[dict[str, float], str]:
    """The units in which people give values of this name, and an example."""
    if name.endswith("_bytes"):
        return _BYTES, "2GiB or 500MB"
    if name.endswith("_s") and not name.endswith("_per_s"):
        return _SECONDS, "50ms, 1.5s or 2h"
    if name.endswith(("_fraction", "mfu")):
        return {"": 1.0, "%": 0.01}, "0.4 or 40%"
    if name.endswith("_percent"):
        return {"": 1.0, "%": 1.0}, "90 or 90%"
    return _DECIMAL, "100, 1.5e6 or 100M"


def _read_quantity(condition: Condition) -> float:
    units, example = _units_of(condition.name)
    match = _NUMBER.fullmatch(condition.value)
    if match is None or match["unit"] not in units:
        raise ReportError(
            f"{condition}: {condition.value!r} is not understood as a value of"
            f" {condition.name}; {example} would be right"
        )
    return float(match["number"]) * units[match["unit"]]


def read_moment(condition: Condition, now: datetime | None = None) -> datetime:
    """The moment that `since=` or `until=` names; a day ends with its last second.

    A time without a zone is the local one, as in the tables.
    """
    text = condition.value
    if span := _SPAN.fullmatch(text):
        length = timedelta(**{_SPAN_UNITS[span[2]]: float(span[1])})
        return (now or datetime.now(UTC)) - length
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ReportError(
            f"{condition}: {text!r} is not understood as a time; 30d, 12h, 2026-01-31"
            " or 2026-01-31T18:00 would be right"
        ) from None
    is_day = re.fullmatch(r"[\dW-]+", text) is not None
    if condition.name == "until" and is_day:
        moment += timedelta(days=1)
    return moment.astimezone(UTC)
