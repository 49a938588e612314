"""A user's own configuration of DeepSpeed: read from JSON, and held against its case.

What other settings of the case decide stays theirs. All else is DeepSpeed's own to
check, when it is built.
"""

import json
import math
import re
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, NoReturn

from pydantic import AfterValidator

from tlbench.errors import SuiteError
from tlbench.suites.document import join_path

MAX_SIZE = 2**16
"""Most bytes of a configuration."""
MAX_DEPTH = 20
MAX_DIGITS = 100
"""Of a whole number, as in a suite."""
AUTO = "auto"
"""What a configuration says of a key that others decide."""

Decisions = Mapping[str, tuple[Any, str]]
"""By the dotted key: its value, and the setting of a case that decides it. The value is
None where no value of the configuration would be right."""
SECTIONS = ("optimizer", "scheduler")
"""What is decided with all that is in it."""
_SECRET = re.compile(r"(api_?key|token|password|secret)$", re.IGNORECASE)


class FrozenConfig(dict[str, Any]):
    """A configuration that nobody changes, so that a case that holds it has a hash."""

    def __hash__(self) -> int:  # type: ignore[override]  # a dict has none
        return hash(json.dumps(self, sort_keys=True))


def _frozen(config: dict[str, Any]) -> FrozenConfig:
    _check(config, "", 0)
    return FrozenConfig(config)


Config = Annotated[dict[str, Any], AfterValidator(_frozen)]


def _check(value: Any, path: str, depth: int) -> None:
    """Refuse what is no JSON, and what should not be stored."""
    if depth > MAX_DEPTH:
        raise ValueError(f"{path} is nested deeper than {MAX_DEPTH}")
    match value:
        case dict():
            for key, item in value.items():
                if not isinstance(key, str):
                    raise ValueError(f"the key {key!r} in {path} is not a text")
                _check_text(key, path)
                _check(item, join_path(path, key), depth + 1)
        case list():
            for item in value:
                _check(item, path, depth + 1)
        case str():
            _check_text(value, path)
            if _SECRET.search(path):
                raise ValueError(
                    f"{path} would be stored with the results; the environment of the"
                    " workers is the place of a secret"
                )
        case float() if not math.isfinite(value):
            raise ValueError(f"{path}={value} is not a finite number")
        case None | bool() | int() | float():
            pass
        case _:
            raise ValueError(f"{path} holds {value!r:.60}, which is no JSON")


def _check_text(text: str, path: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"{path} holds characters that no text can") from error


# ---------------------------------------------------------------- reading


def read_config(named: str, folder: Path) -> dict[str, Any]:
    """The configuration in a JSON file, which is named relative to `folder`.

    A text that begins with a brace is the JSON itself: so lists can be told in a suite,
    where a list in a mapping is an axis.

    Raises:
        SuiteError: There is no such file, or it holds no JSON object.
    """
    if named.lstrip().startswith("{"):
        return _parsed(named, "the text")
    path = (folder / Path(named).expanduser()).absolute()
    try:
        if not path.is_file():
            raise SuiteError(f"there is no file {path}")
        with path.open("rb") as file:
            data = file.read(MAX_SIZE + 1)
    except OSError as error:
        raise SuiteError(f"{path} cannot be read: {error.strerror}") from error
    try:
        return _parsed(data.decode("utf-8-sig"), named)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise SuiteError(f"{named}:{line} is not UTF-8 text") from error


@lru_cache(maxsize=64)  # many cases name the same
def _parsed(text: str, source: str) -> dict[str, Any]:
    if len(text) > MAX_SIZE:
        raise SuiteError(
            f"{source} is larger than 64 KiB, which no configuration needs"
        )
    try:
        config = json.loads(
            text,
            object_pairs_hook=_unique,
            parse_int=_whole,
            parse_float=_real,
            parse_constant=_refuse_constant,
        )
    except json.JSONDecodeError as error:
        raise SuiteError(f"{source}:{error.lineno} is not JSON: {error.msg}") from error
    except ValueError as error:
        raise SuiteError(f"{source}: {error}") from error
    except RecursionError as error:
        raise SuiteError(f"{source} is nested deeper than {MAX_DEPTH}") from error
    if not isinstance(config, dict):
        raise SuiteError(f"{source} is not a JSON object of DeepSpeed's keys")
    return config


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"the key {key!r:.60} stands twice in one object")
        found[key] = value
    return found


def _whole(digits: str) -> int:
    if len(digits) > MAX_DIGITS:
        raise ValueError(f"the number {digits[:20]}... has more than 100 digits")
    return int(digits)


def _real(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise ValueError(f"{digits:.60} is not a finite number")
    return number + 0.0  # -0.0 is 0.0, and so is its identity


def _refuse_constant(word: str) -> NoReturn:
    raise ValueError(f"{word} is not a finite number")


# ---------------------------------------------------------------- what a case decides


def undecided(config: Mapping[str, Any], decisions: Decisions) -> FrozenConfig | None:
    """What the configuration says beyond the decisions; None where that is nothing.

    Raises:
        ValueError: A key says neither `auto` nor what was decided.
    """
    return FrozenConfig(_undecided(config, decisions, "")) or None


def _undecided(
    config: Mapping[str, Any], decisions: Decisions, path: str
) -> dict[str, Any]:
    kept = {}
    for key, value in config.items():
        place = join_path(path, key)
        if isinstance(value, dict):
            inner = _undecided(value, decisions, place)
            if inner:
                kept[key] = inner
        elif not _is_decided(place, value, decisions):
            kept[key] = value
    return kept


def _is_decided(place: str, value: Any, decisions: Decisions) -> bool:
    """Whether the case decides the key; an error where it decides otherwise."""
    section = place.partition(".")[0]
    decision = decisions.get(place)
    if decision is None and section in SECTIONS:
        decision = decisions[section]
    if decision is None:
        decision = next(
            (
                (None, by)
                for k, (_, by) in decisions.items()
                if k.startswith(f"{place}.")
            ),
            None,
        )
    if decision is None:
        return False
    decided, setting = decision
    if value is None or value == AUTO or _is_same(value, decided):
        return True
    instead = "" if decided is None else f" is not {json.dumps(decided)}, and"
    raise ValueError(
        f"{place}={json.dumps(value)[:60]}{instead} is for {setting} to decide; that is"
        f' the setting to change, and "{AUTO}" would be right here'
    )


def _is_same(value: Any, decided: Any) -> bool:
    if isinstance(value, str) and isinstance(decided, str):
        return value.lower() == decided.lower()  # optimizer.type is AdamW or adamw
    return bool(decided is not None and value == decided)
