"""Suites from documents: axes multiplied out, include and exclude, cases checked.

Any list in a grid of settings is an axis, and `_expand` multiplies the axes out. The
schema checks every point that no `exclude` drops. All that is wrong is collected and
told together, as `path:LINE: field: what is wrong and what would be right`.
"""

import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from functools import cached_property
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from tlbench.errors import SuiteError
from tlbench.suites.document import MAX_SIZE, Value, decode, located, read_yaml
from tlbench.suites.mistakes import Mistakes
from tlbench.suites.names import (
    did_you_mean,
    expand_braces,
    model_name,
    parse_model,
    parse_token_learner,
)
from tlbench.suites.spec import MODES, Case, ModelSpec, Spec, Suite, Trial

MAX_CASES = 10_000
MAX_EXCLUDED = 200
"""Most combinations of settings that `exclude` may name."""
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
        what = f"{root.text} is not a suite"
        way_out = "a mapping with models and mode would be right"
        raise SuiteError(located(source_name, root.line, "", f"{what}; {way_out}"))
    mistakes = Mistakes(source_name)
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
    """The files of the built-in suites, by name and in its order."""
    suites = {
        file.name.removesuffix(".yaml"): file
        for file in files("tlbench.suites").iterdir()
        if file.name.endswith(".yaml")
    }
    return {name: suites[name] for name in sorted(suites)}


def _first_line(root: Value) -> str:
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
    return decode(data, source)


# ---------------------------------------------------------------- axes


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


def _count(value: Value) -> int:
    """How many values `_expand` makes, known before it makes them."""
    if isinstance(value.content, list):
        return sum(_count(item) for item in value.content)
    return math.prod(_count(item) for item in value.entries.values())


# ---------------------------------------------------------------- models


class _Models:
    """Reads the models of a file; within it a name stands for one model only."""

    def __init__(self, mistakes: Mistakes) -> None:
        self.mistakes = mistakes
        self.called: dict[str, ModelSpec] = {}
        self.listed: dict[int, list[ModelSpec]] = {}
        """What was read before, by the value's id: grids may share one `models`."""

    def of(self, listed: Value) -> list[ModelSpec]:
        """Every model of a `models`; none where there are too many."""
        if id(listed) not in self.listed:
            self.listed[id(listed)] = self._read(listed)
        return self.listed[id(listed)]

    def _read(self, listed: Value) -> list[ModelSpec]:
        if _count(listed) <= MAX_CASES:
            models = itertools.chain.from_iterable(map(self._entry, _expand(listed)))
            first = list(itertools.islice(models, MAX_CASES + 1))
            if len(first) <= MAX_CASES:
                return first
        self.mistakes.add(listed, f"gives more than {MAX_CASES} models")
        return []

    def _entry(self, entry: Value) -> list[ModelSpec]:
        """The models of one entry; none where it is a mistake."""
        try:
            if isinstance(entry.content, str):
                return [parse_model(name) for name in expand_braces(entry.content)]
            if isinstance(entry.content, dict):
                return [self._spelled_out(entry)]
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

    def _spelled_out(self, entry: Value) -> ModelSpec:
        model = ModelSpec.model_validate(_model_fields(entry))
        name = model_name(model)
        unnamed = model.model_copy(update={"name": None})
        meant = self.called.setdefault(name, _published(name) or unnamed)
        if meant != unnamed:
            self.mistakes.add(
                entry.find(["name"]),
                f"{name!r} stands for a model of other sizes;"
                " another name, or none, would be right",
            )
        return model


def _published(name: str) -> ModelSpec | None:
    try:
        return parse_model(name)
    except SuiteError:
        return None


def _model_fields(entry: Value) -> dict[str, Any]:
    """The fields of a model that is spelled out, its short forms written out."""
    fields: dict[str, Any] = entry.plain()
    width, depth, learner = map(fields.get, ("embed_dim", "depth", "token_learner"))
    if type(width) is int:  # a bool is none
        fields.setdefault("mlp_dim", 4 * width)
    if isinstance(learner, str):
        if type(depth) is int and depth > 0:
            fields["token_learner"] = parse_token_learner(learner, depth)
        else:
            del fields["token_learner"]  # the depth is the mistake to tell
    return fields


# ---------------------------------------------------------------- grids of settings


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
        filled = {**_DEFAULTS, **self.settings.plain()}
        for key, group in _DEFAULTS.items():
            if isinstance(group, dict) and isinstance(filled[key], dict):
                filled[key] = {**group, **filled[key]}
        return filled


def _candidates(root: Value, mistakes: Mistakes) -> list[_Candidate]:
    """Every point of every grid, models outermost, in the order of the file."""
    candidates: list[_Candidate] = []
    models = _Models(mistakes)
    for grid in _grids(root, mistakes):
        listed = grid.entries.get("models")
        if listed is None:
            mistakes.add_missing(grid, "models", "models: ViT-B/16")
            continue
        # A stand-in lets mistakes in the settings be told beside those in the models.
        grid_models = models.of(listed) or [_STAND_IN]
        settings = grid.only(_SETTINGS)
        if len(candidates) + len(grid_models) * _count(settings) > MAX_CASES:
            mistakes.add(grid, f"the suite has more than {MAX_CASES} cases")
            return []
        pairs = itertools.product(grid_models, _expand(settings))
        candidates += itertools.starmap(_Candidate, pairs)
        if mistakes.are_many:
            break
    return candidates


def _grids(root: Value, mistakes: Mistakes) -> Iterator[Value]:
    """The settings of the top level, then those of each `include` laid over them."""
    top = root.only(_GRID)
    if "include" not in root.entries or {"models", "mode"} <= top.entries.keys():
        yield top
    for item in _mappings(root, "include", mistakes):
        mistakes.check_keys(item, _GRID)
        yield _laid_over(top, item.only(_GRID))


def _laid_over(base: Value, top: Value) -> Value:
    """`top`, and from `base` what it leaves open; inside groups likewise."""
    entries = dict(base.entries)
    for key, value in top.entries.items():
        below = base.entries.get(key)
        if below is not None and below.entries and value.entries:
            entries[key] = _laid_over(below, value)
        else:
            entries[key] = value
    return replace(top, content=entries)


def _mappings(root: Value, key: str, mistakes: Mistakes) -> Iterator[Value]:
    """The mappings of settings at `key`, where one may stand without a list."""
    value = root.entries.get(key)
    if value is None:
        return
    for item in value.content if isinstance(value.content, list) else [value]:
        if isinstance(item.content, dict):
            yield item
        else:
            mistakes.add(item, f"{item.text} is not a mapping of settings")


# ---------------------------------------------------------------- exclusions


class _Exclusion:
    """One entry of `exclude`: drops the cases that agree in all that it gives."""

    def __init__(self, value: Value, patterns: Sequence[str]) -> None:
        self.value = value
        self.settings = value.only(_SETTINGS)
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


def _exclusions(root: Value, mistakes: Mistakes) -> list[_Exclusion]:
    items = list(_mappings(root, "exclude", mistakes))
    if sum(map(_count, items)) > MAX_EXCLUDED:
        mistakes.add(root.entries["exclude"], f"has more than {MAX_EXCLUDED} entries")
        return []
    for item in items:
        mistakes.check_keys(item, _GRID)
        for point in _expand(item.only(_SETTINGS)):
            _case(_Candidate(_STAND_IN, point), mistakes, is_partial=True)
    return [_Exclusion(item, _patterns(item, mistakes)) for item in items]


def _patterns(item: Value, mistakes: Mistakes) -> list[str]:
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


# ---------------------------------------------------------------- cases and suite


def _cases(
    candidates: Iterable[_Candidate],
    exclusions: Sequence[_Exclusion],
    mistakes: Mistakes,
) -> tuple[Case, ...]:
    """The cases that are left, each once, in order."""
    cases: dict[str, Case] = {}
    for candidate in candidates:
        # Every exclusion is asked, for each is to drop something.
        dropped = [exclusion.drops(candidate) for exclusion in exclusions]
        case = None if any(dropped) else _case(candidate, mistakes)
        if case is not None:
            cases.setdefault(case.identity, case)
    for exclusion in exclusions:
        if not exclusion.has_dropped and not mistakes.found:
            mistakes.add(exclusion.value, "drops no case of this suite")
    return tuple(cases.values())


def _case(
    candidate: _Candidate, mistakes: Mistakes, is_partial: bool = False
) -> Case | None:
    fields = {**candidate.settings.plain(), "model": candidate.model}
    try:
        return Case.model_validate(fields)
    except ValidationError as error:
        mistakes.add_invalid(error, Case, candidate.settings, is_partial)
        return None


def _suite(
    root: Value, cases: tuple[Case, ...], default_name: str, mistakes: Mistakes
) -> Suite:
    own = root.only(_SUITE_FIELDS)
    # Without a case there is a mistake already; the stand-in lets the rest be told.
    stand_in = Case(model=_STAND_IN, mode="profile")
    fields = {
        "name": default_name,
        **own.plain(),
        "repeats": _repeats(own.entries.get("repeats"), mistakes),
        "cases": cases or (stand_in,),
    }
    try:
        suite = Suite.model_validate(fields)
    except ValidationError as error:
        mistakes.add_invalid(error, Suite, own)
    mistakes.stop()
    return suite


def _repeats(value: Value | None, mistakes: Mistakes) -> dict[str, Any]:
    """Repeats by mode, from a number for all or from a mapping with some."""
    repeats: dict[str, Any] = dict.fromkeys(MODES, DEFAULT_REPEATS)
    if value is not None and isinstance(value.content, dict):
        mistakes.check_keys(value, MODES)
        repeats |= value.only(MODES).plain()
        profile = value.entries.get("profile")
        if profile is not None and profile.content != 1:
            mistakes.add(
                profile, f"{profile.text} is not 1; profile always gives the same"
            )
    elif value is not None:
        repeats = dict.fromkeys(MODES, value.plain())
    return {**repeats, "profile": 1}
