"""Suites from documents: axes multiplied out, include and exclude, cases checked.

Any list in a grid of settings is an axis, and `_expand` multiplies the axes out. The
schema checks every point that no `exclude` drops. All that is wrong is collected and
told together, as `path:LINE: field: what is wrong and what would be right`. The same
holds for each scale of a file: a second reading of it, with other settings laid over.
"""

import itertools
import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from functools import cached_property
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError

from tlbench.errors import SuiteError
from tlbench.suites.braces import expand_braces
from tlbench.suites.checkpoints import resolve_checkpoint
from tlbench.suites.deepspeed import read_config
from tlbench.suites.document import (
    MAX_SIZE,
    Value,
    decode,
    located,
    read_start,
    read_yaml,
)
from tlbench.suites.mistakes import Mistakes
from tlbench.suites.model_spec import ModelSpec
from tlbench.suites.names import (
    did_you_mean,
    grid_pool_name,
    model_name,
    parse_grid_pool,
    parse_model,
    parse_token_learner,
)
from tlbench.suites.paths import resolve_path
from tlbench.suites.recipes import RECIPES, settings_under
from tlbench.suites.schema import Spec
from tlbench.suites.sources import Sources
from tlbench.suites.spec import (
    DEFAULT_RETRY,
    FAILURES,
    MODES,
    Case,
    Suite,
    Trial,
)

MAX_CASES = 10_000
MAX_WRONG_CASES = 200
"""Once so many have a mistake, no others are looked at."""
MAX_TRIALS = 1_000_000
MAX_NAME = 200
"""Most characters of a file's name that its suite is called by."""
MAX_EXCLUDED = 200
"""Most combinations of settings that `exclude` may name, and most models."""
MAX_SCALES = 20
"""Most scales of a suite: each is checked whenever its file is read."""
MAX_SCALED_CASES = 50_000
"""Most cases of a suite and of all its scales."""
DEFAULT_REPEATS: dict[str, int] = {
    **dict.fromkeys(MODES, 5),
    **dict.fromkeys(("profile", "fewshot", "evaluate"), 1),
}

_SETTINGS = frozenset(Case.model_fields) - {"model"}
_GRID = _SETTINGS | {"models"}
_RECIPE = "recipe"
"""The setting that stands for others."""
_CONFIG = "deepspeed"
"""The setting that may name a file in place of what stands in it."""
_SUITE_FIELDS = frozenset(Suite.model_fields) - {"cases", "sources"}
_TOP_LEVEL = _GRID | _SUITE_FIELDS | {_RECIPE, "include", "exclude"}
_SCALED = _TOP_LEVEL - {"name"}
"""What a scale may set."""
_DEFAULTS: dict[str, Any] = {
    name: field.default.model_dump()
    if isinstance(field.default, Spec)
    else field.default
    for name, field in Case.model_fields.items()
    if not field.is_required()
}
_GROUPS = frozenset(key for key, value in _DEFAULTS.items() if isinstance(value, dict))
# Checks settings that come without a model of their own, or with a wrong one.
_STAND_IN = parse_model("ViT-Ti/16")


class BuiltIn(NamedTuple):
    """What a list of the built-in suites tells of each."""

    description: str
    """The first line of it."""
    scales: tuple[str, ...]


def load_suite(
    source: str, stdin_text: str | None = None, scale: str | None = None
) -> Suite:
    """The suite called `source`: a built-in one, a path, or `-` for `stdin_text`.

    It is read at one of its scales, or at none. A suite in a file names other files
    relative to its own folder.
    """
    if source == "-":
        if stdin_text is None:
            raise SuiteError("-: there is no suite on standard input")
        return parse_suite(stdin_text, "stdin", scale=scale)
    built_in = _built_in_files().get(source)
    if built_in is not None:
        return parse_suite(built_in.read_text("utf-8"), built_in.name, scale=scale)
    shown = _shown(source)
    text = decode(_read_file(source), shown)
    return parse_suite(text, shown, Path(source).parent, scale)


def parse_suite(
    text: str, source_name: str, folder: Path = Path(), scale: str | None = None
) -> Suite:
    """The suite that `text` spells out; errors call the text `source_name`.

    The settings of `scale` are laid over the others, and the suite's name tells it;
    every scale is checked, whichever is asked for. Builders, data sets and storage are
    named relative to `folder`.
    """
    root = read_yaml(text, source_name)
    if not isinstance(root.content, dict):
        what = f"{root.text} is not a suite"
        way_out = "a mapping with models and mode would be right"
        raise SuiteError(located(source_name, root.line, "", f"{what}; {way_out}"))
    mistakes = Mistakes(source_name)
    mistakes.check_keys(root, _TOP_LEVEL | {"scales"})
    suites = _scaled_suites(root, folder, mistakes)
    mistakes.stop()
    if scale is not None and scale not in suites:
        known = [name for name in suites if name is not None]
        raise SuiteError(
            f"{source_name}: {scale!r} is not one of its scales"
            f" ({', '.join(known) or 'it has none'}){did_you_mean(scale, known)}"
        )
    return suites[scale]


def builtin_suites() -> dict[str, BuiltIn]:
    """The built-in suites by name."""
    return {name: _built_in(file) for name, file in _built_in_files().items()}


def repeat_suite(trial: Trial, trial_timeout_s: float) -> dict[str, Any]:
    """A suite of one trial that repeats `trial`, as `parse_suite` reads it.

    It trains anew: with the storage of the trial it would find that trained already.
    """
    settings = trial.case.canonical()
    del settings["model"]
    if trial.case.deepspeed is not None:  # its lists, in a mapping, would be axes
        settings[_CONFIG] = json.dumps(trial.case.deepspeed)
    if trial.data_path is not None:
        settings["paths"] = {trial.case.data: trial.data_path}
    return {
        "name": "repeat",
        "models": _as_entry(trial.case.model),
        "repeats": 1,
        "seed": trial.seed,
        "trial_timeout_s": trial_timeout_s,
        **settings,
    }


def _as_entry(model: ModelSpec) -> str | dict[str, Any]:
    """An entry of `models` that reads back as `model`: its name where that says all."""
    if _sayable(model) == model:
        return model_name(model)
    fields = model.model_dump(mode="json", exclude_defaults=True)
    if model.grid_pool is not None:  # its places, as a list, would be an axis
        fields["grid_pool"] = grid_pool_name(model.grid_pool)
    return fields


def _built_in_files() -> dict[str, Traversable]:
    """The files of the built-in suites, by name and in its order."""
    suites = {
        file.name.removesuffix(".yaml"): file
        for file in files("tlbench.suites").iterdir()
        if file.name.endswith(".yaml")
    }
    return {name: suites[name] for name in sorted(suites)}


def _built_in(file: Traversable) -> BuiltIn:
    entries = read_yaml(file.read_text("utf-8"), file.name).entries
    text = str(entries["description"].content) if "description" in entries else ""
    scales = entries["scales"].entries if "scales" in entries else {}
    return BuiltIn(text.strip().partition("\n")[0], tuple(scales))


def _shown(source: str) -> str:
    """A path as a message shows it, on one line whatever it is called."""
    return source if source and source.isprintable() else repr(source)


def _read_file(source: str) -> bytes:
    try:
        return read_start(Path(source), MAX_SIZE)
    except FileNotFoundError as error:
        names = list(_built_in_files())
        raise SuiteError(
            f"{source!r} is neither a file nor a built-in suite"
            f" ({', '.join(names)}){did_you_mean(source, names)}"
        ) from error
    except (OSError, ValueError) as error:  # ValueError: a path with a null character
        reason = getattr(error, "strerror", None) or error
        raise SuiteError(f"{_shown(source)}: cannot be read: {reason}") from error


# ---------------------------------------------------------------- scales


def _scaled_suites(
    root: Value, folder: Path, mistakes: Mistakes
) -> dict[str | None, Suite]:
    """The suite as it stands (None) and at each of its scales, where nothing is wrong.

    What is wrong at a scale only is told with the scale.
    """
    plain = _suite(root, folder, mistakes)
    suites: dict[str | None, Suite] = {} if plain is None else {None: plain}
    for scale, settings in _scales(root, mistakes).items():
        own = Mistakes(mistakes.source)
        suite = _suite(_at_scale(root, settings), folder, own)
        mistakes.found |= {
            (line, f"{message} (at scale {scale})")
            for line, message in own.found - mistakes.found
        }
        if suite is not None:
            name = f"{suite.name} ({scale})"
            suites[scale] = suite.model_copy(update={"name": name})
        if sum(len(suite.cases) for suite in suites.values()) > MAX_SCALED_CASES:
            what = f"have more than {MAX_SCALED_CASES} cases in all"
            mistakes.add(root.entries["scales"], what)
            break
    return suites


def _scales(root: Value, mistakes: Mistakes) -> dict[str, Value]:
    """The settings of each scale; none where `scales` itself is a mistake."""
    value = root.entries.get("scales")
    if value is None:
        return {}
    if not isinstance(value.content, dict):
        mistakes.add(value, f"{value.text} is not a mapping from scales to settings")
    if len(value.entries) > MAX_SCALES:
        mistakes.add(value, f"has more than {MAX_SCALES} scales")
        return {}
    scales: dict[str, Value] = {}
    for scale, settings in value.entries.items():
        mistakes.check_keys(settings, _SCALED)
        if not isinstance(settings.content, dict):
            mistakes.add(settings, f"{settings.text} is not a mapping of settings")
        elif not re.fullmatch(r"[\w-]{1,40}", scale):
            mistakes.add(settings, "is not called by one word, such as cpu")
        else:
            scales[scale] = settings
    return scales


def _at_scale(root: Value, settings: Value) -> Value:
    """The top level with a scale's settings laid over it; only groups are merged."""
    groups = _laid_over(root.only(_GROUPS), settings.only(_GROUPS))
    top, over = root.only(_TOP_LEVEL), settings.only(_SCALED)
    entries = top.entries | over.entries | groups.entries  # the order of the axes stays
    return replace(settings, content=entries)


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

    def __init__(self, sources: Sources, mistakes: Mistakes) -> None:
        self.sources = sources
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
                models = map(parse_model, expand_braces(entry.content))
                return [self._resolved(model, entry) for model in models]
            if isinstance(entry.content, dict):
                return [self._resolved(self._spelled_out(entry), entry)]
        except SuiteError as error:  # in a mapping, from a short form such as TL8@1/4
            short = [entry.entries[key] for key in _SHORT_FORMS if key in entry.entries]
            self.mistakes.add(short[0] if short else entry, str(error))
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
        sayable = _sayable(model)
        meant = self.called.setdefault(name, _published(name) or sayable)
        if meant != sayable:
            self.mistakes.add(
                entry.find(["name"]),
                f"{name!r} stands for a model of other sizes;"
                " another name, or none, would be right",
            )
        return model

    def _resolved(self, model: ModelSpec, entry: Value) -> ModelSpec:
        """The model, with the digest of its builder's file."""
        try:
            return self.sources.resolve(model)
        except SuiteError as error:
            self.mistakes.add(entry.find(["builder"]), str(error))
            return model


def _sayable(model: ModelSpec) -> ModelSpec:
    """What a name can say of the model: neither its label nor a digest."""
    builder = model.builder and model.builder.model_copy(update={"sha256": None})
    return model.model_copy(update={"name": None, "builder": builder})


def _published(name: str) -> ModelSpec | None:
    try:
        return parse_model(name)
    except SuiteError:
        return None


_SHORT_FORMS: dict[str, Callable[[str, int], Spec]] = {
    "token_learner": parse_token_learner,
    "grid_pool": parse_grid_pool,
}
"""Fields of a model that may be written as in a name, and what reads them."""


def _model_fields(entry: Value) -> dict[str, Any]:
    """The fields of a model that is spelled out, its short forms written out."""
    fields: dict[str, Any] = entry.plain()
    width, depth = fields.get("embed_dim"), fields.get("depth")
    if type(width) is int:  # a bool is none
        fields.setdefault("mlp_dim", 4 * width)
    for key, parse in _SHORT_FORMS.items():
        if isinstance(fields.get(key), str):
            if type(depth) is int and depth > 0:
                fields[key] = parse(fields[key], depth)
            else:
                del fields[key]  # the depth is the mistake to tell
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


def _candidates(root: Value, sources: Sources, mistakes: Mistakes) -> list[_Candidate]:
    """Every point of every grid, models outermost, in the order of the file."""
    candidates: list[_Candidate] = []
    models = _Models(sources, mistakes)
    for grid in _grids(root, mistakes):
        listed = grid.entries.get("models")
        if listed is None:
            mistakes.add_missing(grid, "models", "models: ViT-B/16")
            continue
        # A stand-in lets mistakes in the settings be told beside those in the models.
        grid_models = models.of(listed) or [_STAND_IN]
        settings = grid.only(_SETTINGS | {_RECIPE})
        if len(candidates) + len(grid_models) * _count(settings) > MAX_CASES:
            mistakes.add(grid, f"the suite has more than {MAX_CASES} cases")
            return []
        points = [_cooked(point, mistakes) for point in _expand(settings)]
        pairs = itertools.product(grid_models, points)
        candidates += itertools.starmap(_Candidate, pairs)
        if mistakes.are_many:
            break
    return candidates


def _grids(root: Value, mistakes: Mistakes) -> Iterator[Value]:
    """The settings of the top level, then those of each `include` laid over them."""
    top = root.only(_GRID | {_RECIPE})
    if "include" not in root.entries or {"models", "mode"} <= top.entries.keys():
        yield top
    for item in _mappings(root, "include", mistakes):
        _check_grid(item, mistakes)
        yield _laid_over(top, item.only(_GRID | {_RECIPE}))


def _check_grid(item: Value, mistakes: Mistakes) -> None:
    """Tell the keys that are unknown, or belong to the suite as a whole."""
    for key in sorted(item.entries.keys() & _SUITE_FIELDS):
        mistakes.add(item.entries[key], "holds for the suite: it stands at its top")
    mistakes.check_keys(item, _GRID | _SUITE_FIELDS | {_RECIPE})


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


def _cooked(point: Value, mistakes: Mistakes) -> Value:
    """One choice of settings, laid over those of the recipe that it names."""
    given = point.only(_SETTINGS)
    named = point.entries.get(_RECIPE)
    if named is None:
        return given
    recipe = str(named.plain())
    if recipe not in RECIPES:
        known = did_you_mean(recipe, RECIPES) or f"; known are {', '.join(RECIPES)}"
        mistakes.add(named, f"{named.text} is not a recipe{known}")
        return given
    return _laid_over(_value_of(settings_under(recipe, given.plain()), named), given)


def _value_of(settings: Any, named: Value) -> Value:
    """Settings as if they stood where a recipe is named."""
    content = settings
    if isinstance(settings, dict):
        content = {key: _value_of(item, named) for key, item in settings.items()}
    return replace(named, content=content)


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


def _exclusions(root: Value, folder: Path, mistakes: Mistakes) -> list[_Exclusion]:
    items = list(_mappings(root, "exclude", mistakes))
    if sum(map(_count, items)) > MAX_EXCLUDED:
        mistakes.add(root.entries["exclude"], f"has more than {MAX_EXCLUDED} entries")
        return []
    for item in items:
        mistakes.check_keys(item, _GRID)
        for point in _expand(item.only(_SETTINGS)):
            _case(_Candidate(_STAND_IN, point), folder, mistakes, is_partial=True)
    found = [_Exclusion(item, _patterns(item, mistakes)) for item in items]
    if sum(len(exclusion.patterns) for exclusion in found) > MAX_EXCLUDED:
        mistakes.add(root.entries["exclude"], f"names more than {MAX_EXCLUDED} models")
        return []
    return found


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
        if len(patterns) > MAX_EXCLUDED:
            break
    return patterns


def _pattern(name: str) -> str:
    """The name as it is printed; * and ? stay, and [ is no more than itself."""
    model = _published(name)
    return (name if model is None else model_name(model)).replace("[", "[[]")


# ---------------------------------------------------------------- cases and suite


def _cases(
    candidates: Iterable[_Candidate],
    exclusions: Sequence[_Exclusion],
    folder: Path,
    mistakes: Mistakes,
) -> tuple[Case, ...]:
    """The cases that are left, each once, in order."""
    cases: dict[str, Case] = {}
    wrong = 0
    for candidate in candidates:
        if wrong == MAX_WRONG_CASES:
            break
        # Every exclusion is asked, for each is to drop something.
        dropped = [exclusion.drops(candidate) for exclusion in exclusions]
        if any(dropped):
            continue
        case = _case(candidate, folder, mistakes)
        if case is None:
            wrong += 1
        else:
            case = _with_digest(case, candidate, folder, mistakes)
            cases.setdefault(case.identity, case)
    for exclusion in exclusions:
        if not exclusion.has_dropped and not mistakes.found:
            mistakes.add(exclusion.value, "drops no case of this suite")
    return tuple(cases.values())


def _case(
    candidate: _Candidate, folder: Path, mistakes: Mistakes, is_partial: bool = False
) -> Case | None:
    fields = {**candidate.settings.plain(), "model": candidate.model}
    try:
        if isinstance(fields.get(_CONFIG), str):
            fields[_CONFIG] = read_config(fields[_CONFIG], folder)
        return Case.model_validate(fields)
    except SuiteError as error:
        mistakes.add(candidate.settings.find([_CONFIG]), str(error))
    except ValidationError as error:
        mistakes.add_invalid(error, Case, candidate.settings, is_partial)
    return None


def _with_digest(
    case: Case, candidate: _Candidate, folder: Path, mistakes: Mistakes
) -> Case:
    """The case, with the whole path and the digest of its checkpoint."""
    if case.checkpoint is None:
        return case
    try:
        resolved = resolve_checkpoint(case.checkpoint, folder)
    except SuiteError as error:
        mistakes.add(candidate.settings.find(["checkpoint", "path"]), str(error))
        return case
    return case.model_copy(update={"checkpoint": resolved})


def _suite(root: Value, folder: Path, mistakes: Mistakes) -> Suite | None:
    """The suite of one top level; None where anything is wrong with it."""
    exclusions, sources = _exclusions(root, folder, mistakes), Sources(folder)
    candidates = _candidates(root, sources, mistakes)
    cases = _cases(candidates, exclusions, folder, mistakes)
    if not cases and not mistakes.found:
        mistakes.add(root.entries["exclude"], "leaves no case in the suite")
    own = root.only(_SUITE_FIELDS)
    # Without a case there is a mistake already; the stand-in lets the rest be told.
    stand_in = Case(model=_STAND_IN, mode="profile")
    fields = {
        "name": _name_after(mistakes.source),
        **own.plain(),
        **_whole_paths(own, folder, mistakes),
        "repeats": _repeats(own.entries.get("repeats"), mistakes),
        **_retry(own.entries.get("retry"), mistakes),
        "cases": cases or (stand_in,),
        "sources": sources.texts,
    }
    try:
        suite = Suite.model_validate(fields)
    except ValidationError as error:
        mistakes.add_invalid(error, Suite, own)
    else:
        _check_trials(suite, own, mistakes)
    return None if mistakes.found else suite


def _name_after(source: str) -> str:
    """What a suite without a name is called: as its file, as far as that is a name."""
    return Path(source).stem.strip()[:MAX_NAME].strip() or "suite"


def _check_trials(suite: Suite, own: Value, mistakes: Mistakes) -> None:
    trials = sum(suite.repeats[case.mode] for case in suite.cases)
    if trials > MAX_TRIALS:
        mistakes.add(
            own.find(["repeats"]),
            f"gives {trials:,} trials, more than {MAX_TRIALS:,}",
        )


def _whole_paths(own: Value, folder: Path, mistakes: Mistakes) -> dict[str, Any]:
    """`paths` and `storage` as far as they are texts; the schema tells the others."""

    def whole(value: Value) -> Any:
        if not isinstance(value.content, str):
            return value.plain()
        try:
            return resolve_path(value.content, folder)
        except SuiteError as error:
            mistakes.add(value, str(error))
            return value.content

    given = own.only({"paths", "storage"}).entries
    return {
        key: {name: whole(item) for name, item in value.entries.items()}
        if isinstance(value.content, dict)
        else whole(value)
        for key, value in given.items()
    }


def _retry(value: Value | None, mistakes: Mistakes) -> dict[str, Any]:
    """`retry` as it is given, over what holds by default; nothing where it is not."""
    if value is None or not isinstance(value.content, dict):
        return {}  # the schema tells what is no mapping
    mistakes.check_keys(value, FAILURES)
    return {"retry": DEFAULT_RETRY | value.only(FAILURES).plain()}


def _repeats(value: Value | None, mistakes: Mistakes) -> dict[str, Any]:
    """Repeats by mode, from a number for all or from a mapping with some."""
    repeats: dict[str, Any] = dict(DEFAULT_REPEATS)
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
