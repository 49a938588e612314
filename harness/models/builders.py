"""Builders: functions that change a model, or make another one of it.

A builder is called as `function(model, **options)` with the model that the rest of its
name describes, and returns the module that maps images [B, 3, S, S] or clips
[B, 3, F, S, S] to logits [B, classes].
"""

import hashlib
import linecache
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import PurePath
from types import ModuleType
from typing import Any

from torch import nn

from tlbench.errors import TrialError
from tlbench.models.vit import build_model
from tlbench.suites.model_spec import BuilderSpec, ModelSpec

BUILDERS = {
    "tome": "tlbench.models.opponents:merge_tokens",
    "random": "tlbench.models.opponents:drop_random_tokens",
    "stride": "tlbench.models.opponents:drop_tokens_between_strides",
    "fixed": "tlbench.models.opponents:pool_by_fixed_maps",
}
"""tlbench's own builders, by the names that suites call them."""


def build_whole_model(
    spec: ModelSpec, num_classes: int, source: str | None = None, **settings: Any
) -> nn.Module:
    """Build the model on torch's default device, changed by its builder if it has one.

    Args:
        spec: The model.
        num_classes: Width of the classifier.
        source: The text of the user's file that the builder stands in.
        settings: Those of `build_model`.
    """
    model = build_model(spec, num_classes, **settings)
    if spec.builder is None:
        return model
    return apply_builder(model, spec.builder, source)


def apply_builder(
    model: nn.Module, builder: BuilderSpec, source: str | None = None
) -> nn.Module:
    """Let the builder make its model of `model`; what its code raises is passed on."""
    built = _load(builder, source)(model, **builder.options)
    if not isinstance(built, nn.Module):
        place = f"{builder.file}:" if builder.file else ""
        raise TrialError(
            f"{place}{builder.function}() returned {type(built).__name__};"
            " an nn.Module would be right"
        )
    return built


def _load(builder: BuilderSpec, source: str | None) -> Callable[..., object]:
    if builder.file is None:
        module_name, _, function = BUILDERS[builder.function].partition(":")
        return _function(import_module(module_name), function)
    if source is None:
        raise TrialError(f"the text of {builder.file} did not come with the trial")
    return _function(load_source(source, builder.file), builder.function)


def _function(module: ModuleType, name: str) -> Callable[..., object]:
    function: Callable[..., object] = getattr(module, name)
    return function


def load_source(text: str, file: str) -> ModuleType:
    """Run a user's file as a module, and find it again when it is asked for once more.

    The module's name carries the digest of the text, so that it hides no other module,
    and tracebacks show its lines although the file itself is not here.
    """
    digest = hashlib.sha256(text.encode()).hexdigest()
    name = f"{PurePath(file).stem}_{digest[:16]}"
    if name in sys.modules:
        return sys.modules[name]
    code = compile(text, file, "exec", dont_inherit=True)
    lines = text.splitlines(keepends=True)
    linecache.cache[file] = (len(text), None, lines, file)  # None: it never gets old
    module = ModuleType(name)
    module.__file__ = file
    sys.modules[name] = module  # where dataclasses and pickle look for it
    try:
        exec(code, vars(module))
    except BaseException:
        del sys.modules[name]
        raise
    return module
