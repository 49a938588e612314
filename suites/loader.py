"""Suites from YAML: located values, axes multiplied out, errors by file and line.

A file is read in three steps. `read_yaml` turns its text into values that know their
line and their path. Any list among them is an axis, and `_expand` multiplies the axes
out. The schema checks every point, and what it finds is told as
`path:LINE: field: what is wrong and what would be right`, one line each.

Plain words are read by the rules of YAML 1.2, not by PyYAML's older ones: `1e-3` is a
number; `on`, `off`, `yes`, `no` and dates are texts.
"""

import itertools
import math
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from functools import cached_property
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, NoReturn

import yaml
from pydantic import ValidationError
from pydantic_core import ErrorDetails
from yaml.reader import ReaderError

from tlbench.errors import SuiteError
from tlbench.suites.names import (
    did_you_mean,
    expand_braces,
    model_name,
    parse_model,
    parse_token_learner,
)
from tlbench.suites.spec import (
    MODES,
    Case,
    ModelSpec,
    Spec,
    Suite,
    Trial,
    choices,
    schema_at,
    wording,
)

MAX_SIZE = 2**20
"""Most bytes of a file."""
MAX_DEPTH = 20
MAX_VALUES = 50_000
"""Most values in a file, its aliases written out."""
MAX_CASES = 10_000
MAX_EXCLUDED = 200
"""Most combinations of settings that `exclude` may name."""
MAX_MISTAKES = 20
"""Most mistakes that one error lists."""
DEFAULT_REPEATS = 5

_SETTINGS = frozenset(Case.model_fields) - {"model"}
_GRID = _SETTINGS | {"models"}
_SUITE_FIELDS = frozenset(Suite.model_fields) - {"cases"}
_TOP_LEVEL = _GRID | _SUITE_FIELDS | {"include", "exclude"}
_DEFAULTS: dict[str, Any] = {
    name: field.default.model_dump()
    if isinstance(field.default, Spec)
    else field.default
    for name, field in Case.model_fields.items()
    if not field.is_required()
}
# Checks settings that come without a model of their own, or with a wrong one.
_STAND_IN = parse_model("ViT-Ti/16")


def load_suite(source: str, stdin_text: str | None = None) -> Suite:
    """The suite called `source`: a built-in one, a path, or `-` for `stdin_text`."""
    if source == "-":
        if stdin_text is None:
            raise SuiteError("-: there is no suite on standard input")
        return parse_suite(stdin_text, "stdin")
    built_in = _built_in_files().get(source)
    if built_in is not None:
        return parse_suite(built_in.read_text("utf-8"), built_in.name)
    return parse_suite(_read_file(source), source)


def parse_suite(text: str, source_name: str) -> Suite:
    """The suite that `text` spells out; errors call the text `source_name`."""
    root = read_yaml(text, source_name)
    if not isinstance(root.content, dict):
        raise SuiteError(
            f"{source_name}:{root.line}: {root.text} is not a suite;"
            " a mapping with models and mode would be right"
        )
    mistakes = _Mistakes(source_name)
    mistakes.check_keys(root, _TOP_LEVEL)
    exclusions = _exclusions(root, mistakes)
    cases = _cases(_candidates(root, mistakes), exclusions, mistakes)
    if not cases and not mistakes.found:
        mistakes.add(root.entries["exclude"], "leaves no case in the suite")
    return _suite(root, cases, Path(source_name).stem, mistakes)


def builtin_suites() -> dict[str, str]:
    """Names of the built-in suites, each with its description in one line."""
    return {
        name: _first_line(read_yaml(file.read_text("utf-8"), file.name))
        for name, file in _built_in_files().items()
    }


def repeat_suite(trial: Trial, trial_timeout_s: float) -> dict[str, Any]:
    """A suite of one trial that repeats `trial`, as `parse_suite` reads it."""
    settings = trial.case.canonical()
    del settings["model"]
    return {
        "name": "repeat",
        "models": _as_entry(trial.case.model),
        "repeats": 1,
        "seed": trial.seed,
        "trial_timeout_s": trial_timeout_s,
        **settings,
    }


def _as_entry(model: ModelSpec) -> str | dict[str, Any]:
    """An entry of `models` that reads back as `model`, by its name where it has one."""
    if model.name is None:
        return model_name(model)
    return model.model_dump(mode="json", exclude_defaults=True)


def _built_in_files() -> dict[str, Traversable]:
    found = (file for file in files("tlbench.suites").iterdir())
    suites = {file.name: file for file in found if file.name.endswith(".yaml")}
    return {name.removesuffix(".yaml"): suites[name] for name in sorted(suites)}


def _first_line(root: "Value") -> str:
    description = root.entries.get("description")
    text = str(description.content).strip() if description else ""
    return text.partition("\n")[0]


def _read_file(source: str) -> str:
    try:
        with Path(source).open("rb") as file:
            data = file.read(MAX_SIZE + 1)
    except FileNotFoundError as error:
        names = list(_built_in_files())
        raise SuiteError(
            f"{source!r} is neither a file nor a built-in suite"
            f" ({', '.join(names)}){did_you_mean(source, names)}"
        ) from error
    except (OSError, ValueError) as error:  # ValueError: a path with a null character
        reason = getattr(error, "strerror", None) or error
        raise SuiteError(f"{source}: cannot be read: {reason}") from error
    if len(data) > MAX_SIZE:
        raise SuiteError(f"{source}: is larger than 1 MiB, which no suite needs")
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise SuiteError(f"{source}:{line}: is not UTF-8 text") from error


# ---------------------------------------------------------------- located values


@dataclass(frozen=True)
class Value:
    """One value of a file, and where it stands."""

    content: "str | int | float | bool | list[Value] | dict[str, Value] | None"
    line: int
    key_line: int
    """Line of its key; that of the value itself in a list."""
    path: str
    """Its keys from the top, with dots; an item of a list has the path of the list."""
    text: str
    """The value as a message shows it."""

    @property
    def entries(self) -> "dict[str, Value]":
        """What a mapping holds; nothing for any other value."""
        return self.content if isinstance(self.content, dict) else {}


_WORDS = {
    "": None,
    **dict.fromkeys(("~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_WHOLE = re.compile(r"[-+]?[0-9]+")
_NUMBER = re.compile(
    r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?"
    r"|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)"
)
_MAX_DIGITS = 100  # a longer row of digits is a text, and so never the right value
_UNQUOTED_NAME = re.compile(r"ViT-[\w/@+]*[\[{,]")


def read_yaml(text: str, source: str) -> Value:
    """The values of one YAML document; nothing in it is ever constructed or run."""
    if len(text) > MAX_SIZE:
        raise SuiteError(f"{source}: is larger than 1 MiB, which no suite needs")
    node = _compose(text, source)
    if node is None:
        raise SuiteError(
            f"{source}:1: is empty; a mapping with models and mode would be right"
        )
    return _Tree(source).value(node, "", node.start_mark.line + 1)


class _Loader(yaml.SafeLoader):
    """Composes nodes; refuses tags and absurd sizes before they cost anything."""

    depth = 0
    nodes = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call]  # stubs: bare
        self.nodes += 1
        problem = None
        if getattr(event, "tag", None) is not None:
            problem = f"the tag {event.tag!r} has no meaning in a suite"
        elif self.depth > MAX_DEPTH:
            problem = f"it is nested deeper than {MAX_DEPTH}"
        elif self.nodes > MAX_VALUES:
            problem = f"it has more than {MAX_VALUES} keys and values"
        if problem:
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=event.start_mark)
        self.depth += 1
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


def _compose(text: str, source: str) -> yaml.Node | None:
    try:
        loader = _Loader(text)
    except ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise SuiteError(
            f"{source}:{line}: is not a text file:"
            f" it holds the character {error.character:#x}"
        ) from error
    try:
        return loader.get_single_node()
    except yaml.MarkedYAMLError as error:
        raise SuiteError(_syntax_message(error, text, source)) from error
    except (ValueError, OverflowError) as error:  # PyYAML on "\UFFFFFFFF"
        raise SuiteError(
            f"{source}:{loader.line + 1}: cannot be read as YAML:"
            " an escape in a quoted text stands for no character"
        ) from error


def _syntax_message(error: yaml.MarkedYAMLError, text: str, source: str) -> str:
    mark = error.problem_mark or error.context_mark
    line = mark.line if mark else 0
    message = f"{source}:{line + 1}: cannot be read as YAML: {error.problem}"
    if error.context and error.context_mark:
        message += f" {error.context} from line {error.context_mark.line + 1}"
    lines = text.splitlines()
    if line < len(lines) and _UNQUOTED_NAME.search(lines[line]):
        message += "; a model name with brackets, braces or commas wants quotes here"
    return message


class _Tree:
    """Turns nodes into values; aliases are written out, as far as there is room."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.room = MAX_VALUES

    def value(self, node: yaml.Node, path: str, key_line: int, depth: int = 0) -> Value:
        self._enter(node, path, depth)
        content: Any
        if isinstance(node, yaml.ScalarNode):
            content = _scalar(node)
            text = _shown(content, node.value)
        elif isinstance(node, yaml.SequenceNode):
            content, text = self._items(node, path, depth), "a list"
        else:
            content, text = self._entries(node, path, depth), "a mapping"
        return Value(content, _line(node), key_line, path, text)

    def _enter(self, node: yaml.Node, path: str, depth: int) -> None:
        self.room -= 1
        if self.room < 0:
            self._refuse(
                _line(node), path, f"more than {MAX_VALUES} values in the file"
            )
        if depth > MAX_DEPTH:  # only an alias inside its own anchor comes so far
            self._refuse(_line(node), path, f"is nested deeper than {MAX_DEPTH}")

    def _items(self, node: yaml.SequenceNode, path: str, depth: int) -> list[Value]:
        if not node.value:
            self._refuse(
                _line(node), path, "is an empty list; leave the key out instead"
            )
        return [self.value(item, path, _line(item), depth + 1) for item in node.value]

    def _entries(self, node: yaml.Node, path: str, depth: int) -> dict[str, Value]:
        entries: dict[str, Value] = {}
        merged: dict[str, Value] = {}
        for key_node, value_node in node.value:
            if _is_merge(key_node):
                merged |= self._merged(value_node, path, depth + 1)
                continue
            line, key = _line(key_node), self._key(key_node, path)
            key_path = _join(path, key)
            if key in entries:
                first = entries[key].key_line
                self._refuse(line, key_path, f"is given twice, first in line {first}")
            entries[key] = self.value(value_node, key_path, line, depth + 1)
        return merged | entries

    def _merged(self, node: yaml.Node, path: str, depth: int) -> dict[str, Value]:
        """What `<<: *anchor` brings in; of several, the first one wins."""
        self._enter(node, path, depth)
        if isinstance(node, yaml.MappingNode):
            return self._entries(node, path, depth)
        if not isinstance(node, yaml.SequenceNode):
            self._refuse(_line(node), _join(path, "<<"), "merges a mapping only")
        merged: dict[str, Value] = {}
        for item in reversed(node.value):
            merged |= self._merged(item, path, depth + 1)
        return merged

    def _key(self, node: yaml.Node, path: str) -> str:
        key = _scalar(node) if isinstance(node, yaml.ScalarNode) else None
        if not isinstance(key, str):
            shown = node.value if isinstance(node, yaml.ScalarNode) else "a collection"
            self._refuse(_line(node), path, f"the key {shown or 'null'} is not a text")
        return key

    def _refuse(self, line: int, path: str, message: str) -> NoReturn:
        raise SuiteError(_located(self.source, line, path, message))


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1


def _is_merge(node: yaml.Node) -> bool:
    return isinstance(node, yaml.ScalarNode) and not node.style and node.value == "<<"


def _scalar(node: yaml.ScalarNode) -> str | int | float | bool | None:
    text: str = node.value
    if node.style or len(text) > _MAX_DIGITS:  # quoted or a block: a text
        return text
    if text in _WORDS:
        return _WORDS[text]
    if _WHOLE.fullmatch(text):
        return int(text)
    if _NUMBER.fullmatch(text):
        number = float(re.sub(r"\.(inf|nan)", r"\1", text.lower()))
        return number + 0.0  # -0.0 is 0.0, and so is its identity
    return text


def _shown(content: object, text: str) -> str:
    if isinstance(content, str):
        return repr(content if len(content) <= 60 else content[:57] + "...")
    return text or "null"


def _join(path: str, key: str) -> str:
    step = key if re.fullmatch(r"[\w-]{1,40}", key) else repr(key[:40])
    return f"{path}.{step}" if path else step


def _located(source: str, line: int, path: str, message: str) -> str:
    return (
        f"{source}:{line}: {path}: {message}" if path else f"{source}:{line}: {message}"
    )


def _plain(value: Value) -> Any:
    """The value as plain Python."""
    if isinstance(value.content, list):
        return [_plain(item) for item in value.content]
    if isinstance(value.content, dict):
        return {key: _plain(item) for key, item in value.content.items()}
    return value.content


def _find(value: Value, path: Iterable[int | str]) -> Value:
    """The value at `path`, or the last one there is on the way to it."""
    for key in path:
        if key not in value.entries:
            break
        value = value.entries[str(key)]
    return value


def _count(value: Value) -> int:
    """How many values `_expand` makes."""
    if isinstance(value.content, list):
        return sum(_count(item) for item in value.content)
    return math.prod(_count(item) for item in value.entries.values())


def _expand(value: Value) -> Iterator[Value]:
    """Each choice of one item from every list; the first key varies slowest."""
    if isinstance(value.content, list):
        for item in value.content:
            yield from _expand(item)
    elif isinstance(value.content, dict):
        axes = [list(_expand(item)) for item in value.content.values()]
        for point in itertools.product(*axes):
            yield replace(value, content=dict(zip(value.content, point, strict=True)))
    else:
        yield value


# ---------------------------------------------------------------- mistakes


class _Mistakes:
    """What is wrong in one file, collected to be told together."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.found: set[tuple[int, str]] = set()

    def add(self, value: Value, message: str) -> None:
        self._add(value.line, value.path, message)

    def _add(self, line: int, path: str, message: str) -> None:
        self.found.add((line, _located(self.source, line, path, message)))

    @property
    def are_many(self) -> bool:
        return len(self.found) >= MAX_MISTAKES

    def check_keys(self, mapping: Value, known: Iterable[str]) -> None:
        for key, value in mapping.entries.items():
            if key not in known:
                self._add_unknown(key, value, known)

    def _add_unknown(self, key: str, value: Value, known: Iterable[str]) -> None:
        way_out = did_you_mean(key, known) or f"; known are {', '.join(sorted(known))}"
        self._add(value.key_line, value.path, f"is not a known key{way_out}")

    def add_missing(self, record: Value, key: str, way_out: str) -> None:
        self._add(record.line, _join(record.path, key), f"is missing{way_out}")

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

    def _add_detail(
        self, details: ErrorDetails, schema: type[Spec], record: Value
    ) -> None:
        kind, path = details["type"], details["loc"]
        value = _find(record, path)
        if kind == "extra_forbidden":
            known = schema_at(schema, path[:-1]).model_fields
            self._add_unknown(str(path[-1]), value, known)
        elif kind == "missing":
            options = ", ".join(choices(schema, path))
            way_out = f"; one of {options} would be right" if options else ""
            self.add_missing(value, str(path[-1]), way_out)
        elif kind == "value_error":
            message = str(details["ctx"]["error"])
            self.add(_first_mentioned(value, message), message)
        else:
            self.add(value, f"{value.text} {wording(details, schema)}")

    def stop(self) -> None:
        """Raise what was found, in the order of the file."""
        lines = [message for _, message in sorted(self.found)]
        if len(lines) > MAX_MISTAKES:
            rest = len(lines) - MAX_MISTAKES
            lines[MAX_MISTAKES:] = [f"{self.source}: {rest} more of the kind"]
        if lines:
            raise SuiteError("\n".join(lines))


def _first_mentioned(record: Value, message: str) -> Value:
    """The first given field that a validator's message names as `field=value`."""
    for field in re.findall(r"([\w.]+)=", message):
        value = _find(record, field.split("."))
        if value is not record:
            return value
    return record


# ---------------------------------------------------------------- models


class _Models:
    """Reads the models of a file; within it a name stands for one model only."""

    def __init__(self, mistakes: _Mistakes) -> None:
        self.mistakes = mistakes
        self.called: dict[str, ModelSpec] = {}

    def read(self, value: Value) -> list[ModelSpec]:
        models: list[ModelSpec] = []
        if _count(value) <= MAX_CASES:
            for entry in _expand(value):
                models += self._entry(entry)
                if len(models) > MAX_CASES:
                    break
            else:
                return models
        self.mistakes.add(value, f"gives more than {MAX_CASES} models")
        return []

    def _entry(self, entry: Value) -> list[ModelSpec]:
        try:
            if isinstance(entry.content, str):
                return [parse_model(name) for name in expand_braces(entry.content)]
            if isinstance(entry.content, dict):
                model = ModelSpec.model_validate(_model_fields(entry))
                self._check_name(model, entry)
                return [model]
        except SuiteError as error:  # in a mapping, from the short form TL8@1/4
            self.mistakes.add(entry.entries.get("token_learner", entry), str(error))
        except ValidationError as error:
            self.mistakes.add_invalid(error, ModelSpec, entry)
        else:
            self.mistakes.add(
                entry,
                f"{entry.text} is not a model;"
                " a name with brackets or commas wants quotes here",
            )
        return []

    def _check_name(self, model: ModelSpec, entry: Value) -> None:
        name = model_name(model)
        unnamed = model.model_copy(update={"name": None})
        meant = self.called.setdefault(name, _published(name) or unnamed)
        if meant != unnamed:
            self.mistakes.add(
                _find(entry, ["name"]),
                f"{name!r} stands for a model of other sizes;"
                " another name, or none, would be right",
            )


def _published(name: str) -> ModelSpec | None:
    try:
        return parse_model(name)
    except SuiteError:
        return None


def _model_fields(entry: Value) -> dict[str, Any]:
    """The fields of a model that is spelled out, its short forms written out."""
    fields: dict[str, Any] = _plain(entry)
    width, depth, learner = map(fields.get, ("embed_dim", "depth", "token_learner"))
    if type(width) is int:  # a bool is none
        fields.setdefault("mlp_dim", 4 * width)
    if isinstance(learner, str):
        if type(depth) is int and depth > 0:
            fields["token_learner"] = parse_token_learner(learner, depth)
        else:
            del fields["token_learner"]  # the depth is the mistake to tell
    return fields


# ---------------------------------------------------------------- cases


@dataclass(frozen=True)
class _Candidate:
    """A point of the suite that the schema has not seen yet."""

    model: ModelSpec
    settings: Value

    @cached_property
    def name(self) -> str:
        return model_name(self.model)

    @cached_property
    def filled(self) -> dict[str, Any]:
        """The settings with their groups, and the defaults for those not given."""
        filled = {**_DEFAULTS, **_plain(self.settings)}
        for key, group in _DEFAULTS.items():
            if isinstance(group, dict) and isinstance(filled[key], dict):
                filled[key] = {**group, **filled[key]}
        return filled


def _candidates(root: Value, mistakes: _Mistakes) -> list[_Candidate]:
    """Every point of every grid, models outermost, in the order of the file."""
    candidates: list[_Candidate] = []
    reader = _Models(mistakes)
    models_at: dict[int, list[ModelSpec]] = {}  # grids may share one `models`
    for grid in _grids(root, mistakes):
        listed = grid.entries.get("models")
        if listed is None:
            mistakes.add_missing(grid, "models", "; models: ViT-B/16 would be right")
            continue
        if id(listed) not in models_at:
            models_at[id(listed)] = reader.read(listed)
        # A stand-in lets mistakes in the settings be told beside those in the models.
        models = models_at[id(listed)] or [_STAND_IN]
        settings = _only(grid, _SETTINGS)
        if len(candidates) + len(models) * _count(settings) > MAX_CASES:
            mistakes.add(grid, f"the suite has more than {MAX_CASES} cases")
            return []
        points = list(_expand(settings))
        candidates += [_Candidate(model, point) for model in models for point in points]
        if mistakes.are_many:
            break
    return candidates


def _grids(root: Value, mistakes: _Mistakes) -> Iterator[Value]:
    """The settings of the top level, then those of each `include` laid over them."""
    top = _only(root, _GRID)
    included = _items(root, "include")
    if not included or {"models", "mode"} <= top.entries.keys():
        yield top
    for item in included:
        if _is_mapping(item, mistakes):
            mistakes.check_keys(item, _GRID)
            yield _laid_over(top, _only(item, _GRID))


def _laid_over(base: Value, top: Value) -> Value:
    """`top`, and from `base` what it leaves open; inside groups likewise."""
    entries = dict(base.entries)
    for key, value in top.entries.items():
        below = entries.get(key)
        is_group = below is not None and below.entries and value.entries
        entries[key] = _laid_over(below, value) if below and is_group else value
    return replace(top, content=entries)


def _only(value: Value, keys: Collection[str]) -> Value:
    return replace(
        value, content={key: item for key, item in value.entries.items() if key in keys}
    )


def _items(root: Value, key: str) -> list[Value]:
    value = root.entries.get(key)
    if value is None:
        return []
    return value.content if isinstance(value.content, list) else [value]


def _is_mapping(value: Value, mistakes: _Mistakes) -> bool:
    if isinstance(value.content, dict):
        return True
    mistakes.add(value, f"{value.text} is not a mapping of settings")
    return False


class _Exclusion:
    """One entry of `exclude`: drops the cases that agree in all that it gives."""

    def __init__(self, value: Value, patterns: Sequence[str]) -> None:
        self.value = value
        self.settings = _only(value, _SETTINGS)
        self.patterns = patterns
        """Names of models, with * and ?; none: any model."""
        self.has_dropped = False

    def drops(self, candidate: _Candidate) -> bool:
        has_model = not self.patterns or any(
            fnmatchcase(candidate.name, pattern) for pattern in self.patterns
        )
        drops = has_model and _agrees(self.settings, candidate.filled)
        self.has_dropped |= drops
        return drops


def _agrees(wanted: Value, actual: Any) -> bool:
    """Whether a setting is what an exclusion wants; a list wants any of its items."""
    if isinstance(wanted.content, list):
        return any(_agrees(item, actual) for item in wanted.content)
    if isinstance(wanted.content, dict):
        return isinstance(actual, dict) and all(
            _agrees(value, actual.get(key)) for key, value in wanted.content.items()
        )
    return bool(wanted.content == actual)


def _exclusions(root: Value, mistakes: _Mistakes) -> list[_Exclusion]:
    items = [item for item in _items(root, "exclude") if _is_mapping(item, mistakes)]
    if sum(map(_count, items)) > MAX_EXCLUDED:
        mistakes.add(root.entries["exclude"], f"has more than {MAX_EXCLUDED} entries")
        return []
    for item in items:
        mistakes.check_keys(item, _GRID)
        for point in _expand(_only(item, _SETTINGS)):
            _case(_Candidate(_STAND_IN, point), mistakes, is_partial=True)
    return [_Exclusion(item, _patterns(item, mistakes)) for item in items]


def _patterns(item: Value, mistakes: _Mistakes) -> list[str]:
    listed = item.entries.get("models")
    patterns: list[str] = []
    for entry in _expand(listed) if listed else ():
        if not isinstance(entry.content, str):
            mistakes.add(entry, f"{entry.text} is not a name or a pattern of names")
            continue
        try:
            patterns += map(_pattern, expand_braces(entry.content))
        except SuiteError as error:
            mistakes.add(entry, str(error))
    return patterns


def _pattern(name: str) -> str:
    """The name as it is printed; * and ? stay, and [ is no more than itself."""
    model = _published(name)
    return (name if model is None else model_name(model)).replace("[", "[[]")


def _cases(
    candidates: Iterable[_Candidate],
    exclusions: Sequence[_Exclusion],
    mistakes: _Mistakes,
) -> tuple[Case, ...]:
    """The cases that are left, each once, in order."""
    cases: dict[str, Case] = {}
    for candidate in candidates:
        dropped = [exclusion.drops(candidate) for exclusion in exclusions]
        case = None if any(dropped) else _case(candidate, mistakes)
        if case is not None:
            cases.setdefault(case.identity, case)
    for exclusion in exclusions:
        if not exclusion.has_dropped and not mistakes.found:
            mistakes.add(exclusion.value, "drops no case of this suite")
    return tuple(cases.values())


def _case(
    candidate: _Candidate, mistakes: _Mistakes, is_partial: bool = False
) -> Case | None:
    fields = {**_plain(candidate.settings), "model": candidate.model}
    try:
        return Case.model_validate(fields)
    except ValidationError as error:
        mistakes.add_invalid(error, Case, candidate.settings, is_partial)
        return None


# ---------------------------------------------------------------- the suite


def _suite(
    root: Value, cases: tuple[Case, ...], default_name: str, mistakes: _Mistakes
) -> Suite:
    own = _only(root, _SUITE_FIELDS)
    # Without a case there is a mistake already; the stand-in lets the rest be told.
    stand_in = Case(model=_STAND_IN, mode="profile")
    fields = {
        "name": default_name,
        **_plain(own),
        "repeats": _repeats(own.entries.get("repeats"), mistakes),
        "cases": cases or (stand_in,),
    }
    try:
        suite = Suite.model_validate(fields)
    except ValidationError as error:
        mistakes.add_invalid(error, Suite, own)
    mistakes.stop()
    return suite


def _repeats(value: Value | None, mistakes: _Mistakes) -> dict[str, Any]:
    """Repeats by mode, from a number for all or from a mapping with some."""
    repeats: dict[str, Any] = dict.fromkeys(MODES, DEFAULT_REPEATS)
    if value is not None and isinstance(value.content, dict):
        mistakes.check_keys(value, MODES)
        repeats |= _plain(_only(value, MODES))
        profile = value.entries.get("profile")
        if profile is not None and profile.content != 1:
            mistakes.add(
                profile, f"{profile.text} is not 1; profile always gives the same"
            )
    elif value is not None:
        repeats = dict.fromkeys(MODES, _plain(value))
    return {**repeats, "profile": 1}
