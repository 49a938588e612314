"""Builders before anything runs: the users' files, and whether a call of one can work.

A file is read and searched with `ast`; its code runs on the workers only.
"""

import ast
import hashlib
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple, NoReturn

from tlbench.errors import SuiteError
from tlbench.suites.document import read_start
from tlbench.suites.model_spec import OWN_BUILDERS, BuilderSpec, ModelSpec
from tlbench.suites.names import did_you_mean, model_name, option_text

MAX_SIZE = 2**20
"""Most bytes of a user's file."""
MAX_VALUE = 65_536
"""Of options of tlbench's own builders that have no other bound: to catch slips."""


class Sources:
    """The users' files that models name, each read once."""

    def __init__(self, folder: Path) -> None:
        """Files are named relative to `folder`."""
        self._folder = folder
        self._files: dict[str, _UserFile] = {}

    @property
    def texts(self) -> dict[str, str]:
        """The text of each file by its name, so far."""
        return {name: file.text for name, file in self._files.items()}

    def resolve(self, model: ModelSpec) -> ModelSpec:
        """Give the builder's file its digest, once it is sure that it can be called.

        Raises:
            SuiteError: There is no such file or function, or not with these options.
        """
        builder = model.builder
        if builder is None:
            return model
        try:
            resolved = self._resolve(model, builder)
        except _ProblemError as problem:
            raise SuiteError(
                f"{model_name(model)!r} cannot be built: {problem}"
            ) from problem
        return model.model_copy(update={"builder": resolved})

    def _resolve(self, model: ModelSpec, builder: BuilderSpec) -> BuilderSpec:
        if builder.file is None:
            _check_options(builder, _own_options(builder.function))
            _check_own_call(model, builder)
            return builder
        if builder.file not in self._files:
            self._files[builder.file] = _read(self._folder / builder.file, builder.file)
        file = self._files[builder.file]
        if builder.sha256 not in (None, file.sha256):
            raise _ProblemError(
                f"{builder.file} has changed: its SHA-256 is {file.sha256}, and the"
                f" suite was made for {builder.sha256}"
            )
        _check_options(builder, file.options(builder.function))
        return builder.model_copy(update={"sha256": file.sha256})


class _ProblemError(Exception):
    """Why a builder cannot be called."""


class _Options(NamedTuple):
    """What a function may be called with, besides the model."""

    known: tuple[str, ...]
    required: tuple[str, ...]
    are_open: bool = False
    """Whether it takes others too."""


class _UserFile:
    """A Python file, and the functions at its top level."""

    def __init__(self, name: str, data: bytes) -> None:
        # The mark that some editors begin a file with is no Python.
        self.text = data.decode("utf-8-sig")
        self.sha256 = hashlib.sha256(data).hexdigest()
        self._name = name
        self._functions = {
            statement.name: statement
            for statement in _parse(self.text, name).body
            if isinstance(statement, ast.FunctionDef)
        }

    def options(self, function: str) -> _Options:
        definition = self._definition(function)
        if definition.decorator_list:  # it may take other options than it says
            return _Options((), (), are_open=True)
        parameters = definition.args
        nameless, named = parameters.posonlyargs, parameters.args
        positional = [*nameless, *named]
        where = f"{self._name}:{definition.lineno}: {function}()"
        if not positional and parameters.vararg is None:
            _refuse(f"{where} does not take the model, which comes first")
        needed = positional[1 : len(positional) - len(parameters.defaults)]
        out_of_reach = [parameter for parameter in needed if parameter in nameless]
        if out_of_reach:
            _refuse(
                f"{where} takes {', '.join(_names(out_of_reach))} by position only,"
                " and options are given by name"
            )
        keyword_only = dict(
            zip(parameters.kwonlyargs, parameters.kw_defaults, strict=True)
        )
        return _Options(
            known=_names([*(named if nameless else named[1:]), *keyword_only]),
            required=_names(
                [*needed]
                + [key for key, default in keyword_only.items() if default is None]
            ),
            are_open=parameters.kwarg is not None,
        )

    def _definition(self, function: str) -> ast.FunctionDef:
        if function not in self._functions:
            _refuse(
                f"{self._name} defines no function {function!r} at its top level"
                + did_you_mean(function, self._functions)
            )
        return self._functions[function]


def _names(parameters: Iterable[ast.arg]) -> tuple[str, ...]:
    return tuple(parameter.arg for parameter in parameters)


def _read(path: Path, name: str) -> _UserFile:
    try:
        data = read_start(path, MAX_SIZE)
    except FileNotFoundError:
        _refuse(f"there is no file {path.absolute()}")
    except OSError as error:
        _refuse(f"{path.absolute()} cannot be read: {error.strerror}")
    if len(data) > MAX_SIZE:
        _refuse(f"{name} is larger than 1 MiB, which no builder needs")
    try:
        return _UserFile(name, data)
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        _refuse(f"{name}:{line} is not UTF-8 text")


def _parse(text: str, name: str) -> ast.Module:
    try:
        with warnings.catch_warnings(action="ignore"):  # nothing has run yet
            return ast.parse(text, name)
    except SyntaxError as error:
        _refuse(f"{name}:{error.lineno or 1} is not Python: {error.msg}")
    except (ValueError, RecursionError, MemoryError) as error:
        _refuse(f"{name} is not Python: {error or 'it is nested too deep'}")


def _refuse(problem: str) -> NoReturn:
    raise _ProblemError(problem) from None


# ---------------------------------------------------------------- calls


def _own_options(function: str) -> _Options:
    if function not in OWN_BUILDERS:
        way_out = f"; one of yours names its file, as in +my_models.py:{function}"
        _refuse(
            f"{function!r} is not one of tlbench's builders, {', '.join(OWN_BUILDERS)}"
            + (did_you_mean(function, OWN_BUILDERS) or way_out)
        )
    return _Options(OWN_BUILDERS[function], OWN_BUILDERS[function])


def _check_options(builder: BuilderSpec, options: _Options) -> None:
    for name in builder.options:
        if name not in options.known and not options.are_open:
            way_out = did_you_mean(name, options.known)
            _refuse(f"{builder.function}() takes no option {name!r}{way_out}")
    missing = [name for name in options.required if name not in builder.options]
    if missing:
        given = ", ".join(f"{name}=..." for name in missing)
        _refuse(f"{builder.function}() needs {given}")


def _check_own_call(model: ModelSpec, builder: BuilderSpec) -> None:
    """Refuse what tlbench's own builders would refuse, or could not do, on a worker."""
    if model.token_learner or model.grid_pool or model.factorisation != "joint":
        _refuse(
            f"{builder.function}() takes a plain ViT or joint ViViT: one without"
            " TokenLearner, pooling or a factorisation"
        )
    right = {
        "r": ("a whole number", 0, MAX_VALUE),
        "keep": ("a whole number", 1, model.num_patches),
        "step": ("a whole number", 1, MAX_VALUE),
        "tokens": ("a whole number", 1, MAX_VALUE),
        "place": ("the index of a block", 0, model.depth - 1),
    }
    for name, value in builder.options.items():
        what, least, most = right[name]
        if type(value) is not int or not least <= value <= most:  # a bool is none
            _refuse(
                f"{builder.function}({name}={option_text(value)}) makes no sense:"
                f" {what} from {least} to {most} would be right"
            )
