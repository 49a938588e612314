"""timm's VisionTransformer, without the rest of timm.

A plain `import timm.models.vision_transformer` first runs the `__init__` of timm, of
timm.models and of timm.data, and those import every model there is, torchvision and
the Hugging Face client: seconds that each fresh process would pay. Here these three
`__init__` wait until somebody asks for what they define. Nothing of timm is changed,
and `import timm` later in the process finds everything, with the same classes.
"""

import importlib.util
import sys
from importlib import import_module
from types import ModuleType
from typing import Any

DEFERRED = ("timm", "timm.models", "timm.data")
"""Packages whose `__init__` waits, parents first."""

FORWARDED = (
    "timm.models._hub",
    "torchvision.models.feature_extraction",
    "torchvision.ops.misc",
)
"""Expensive modules of which timm's layers take a few functions and a class, none of
them for a ViT: downloads, tracing, frozen batch norm."""

PRELOADED = {
    "timm": ("timm.version", ("__version__",)),
    "timm.data": (
        "timm.data.constants",
        (
            "IMAGENET_DEFAULT_MEAN",
            "IMAGENET_DEFAULT_STD",
            "IMAGENET_INCEPTION_MEAN",
            "IMAGENET_INCEPTION_STD",
            "OPENAI_CLIP_MEAN",
            "OPENAI_CLIP_STD",
        ),
    ),
}
"""What is asked of a waiting package right away, and which light module has it."""


class DeferredPackage(ModuleType):
    """A package that runs its `__init__` when asked for a name it does not have."""

    def __getattr__(self, name: str) -> Any:
        # Tools that walk over sys.modules look for names like __warningregistry__.
        if name.startswith("__") and name != "__all__":
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        # An ordinary module from here on: its __init__ may look into it half-way.
        object.__setattr__(self, "__class__", ModuleType)
        assert self.__spec__ is not None
        assert self.__spec__.loader is not None
        self.__spec__.loader.exec_module(self)
        return getattr(self, name)


class ForwardedName:
    """A function or class that is imported once it is called or asked for instances."""

    def __init__(self, module: str, name: str) -> None:
        self._module, self._name = module, name

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._import()(*args, **kwargs)

    def __instancecheck__(self, instance: object) -> bool:
        return isinstance(instance, self._import())

    def _import(self) -> Any:
        return getattr(import_module(self._module), self._name)


class ForwardingModule(ModuleType):
    """Stands for an expensive module as long as timm only imports names from it."""

    def __getattr__(self, name: str) -> ForwardedName:
        if name.startswith("__"):
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        return ForwardedName(self.__name__, name)


def vision_transformer_class() -> type[Any]:
    """Import and return timm's VisionTransformer class."""
    if "timm" not in sys.modules:
        try:
            _import_lean()
        except Exception:
            # Whatever another version of timm trips over, its plain import decides.
            for name in [name for name in sys.modules if name.split(".")[0] == "timm"]:
                del sys.modules[name]
    module = import_module("timm.models.vision_transformer")
    return module.VisionTransformer  # type: ignore[no-any-return]  # timm is untyped


def _import_lean() -> None:
    forwarded = {
        name: ForwardingModule(name) for name in FORWARDED if name not in sys.modules
    }
    sys.modules.update(forwarded)
    try:
        for name in DEFERRED:
            _defer(name)
        import_module("timm.models.vision_transformer")
    finally:
        for name in forwarded:
            del sys.modules[name]


def _defer(name: str) -> None:
    """Put the package `name` into sys.modules without running its `__init__`."""
    spec = importlib.util.find_spec(name)
    if spec is None:
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)
    package = importlib.util.module_from_spec(spec)
    package.__class__ = DeferredPackage
    sys.modules[name] = package
    parent, _, child = name.rpartition(".")
    if parent:
        setattr(sys.modules[parent], child, package)
    source, attributes = PRELOADED.get(name, ("", ()))
    for attribute in attributes:
        setattr(package, attribute, getattr(import_module(source), attribute))
