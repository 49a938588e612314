"""Certificates: a model is what its name, its closed form and the publication say.

Every check holds two things against each other that were made apart: the built model
against the closed form, torch's counter against DeepSpeed's, the torch modules against
the formulas in NumPy, our operations against the published ones. What disagrees is
named down to the module.
"""

import copy
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from tlbench.errors import UnknownCostError
from tlbench.measure.built_cost import count_built_cost
from tlbench.measure.flops import (
    PROFILER_MAX_MACS,
    ModuleMacs,
    count_macs,
    layer_disagreements,
    profile_macs,
    profiler_disagreements,
    total_macs,
    why_not_profiled,
)
from tlbench.models import cost, reference
from tlbench.models.layers import layers
from tlbench.models.memory import sample_activation_bytes
from tlbench.models.publication import (
    PublishedCost,
    PublishedParams,
    published_costs,
    published_params,
)
from tlbench.models.tokenlearner import MapPooling, TokenFuser
from tlbench.models.vit import build_model
from tlbench.suites.braces import expand_braces
from tlbench.suites.model_spec import BuilderSpec, ModelSpec, TokenLearnerSpec
from tlbench.suites.names import model_name, parse_model
from tlbench.suites.published import (
    PUBLISHED_CLASSES,
    RESULTS,
    default_num_classes,
)

Outcome = Literal["ok", "fails", "skipped"]

CHECKS = (
    "parameters",
    "counter",
    "tokens",
    "place",
    "values",
    "profiler",
    "published",
)

VALUE_TOLERANCE = 1e-12
"""Largest difference of two float64 results over the largest value. Each of the 10^2
to 10^4 terms of a sum is rounded by 1e-16 of it; another eps, another GELU or a border
filled otherwise moves the fourth to seventh digit."""

POSITIONS = {
    "": "patch_embed",
    "spatial": "spatial.patch_embed",
    "temporal": "spatial.norm",
}
"""Which layer of the closed form counts what stands in no module of its own, position
embedding and class token, of which transformer."""

NAMED = (
    "ViT-Ti/16",
    "ViT-{S,B}/{32,16}",
    "ViT-L/{16,14}",
    "ViT-{H,g,G}/14",
    "ViT-G/14@518",
    "ViT-{B/16,G/14}{:token,:map}",
    "ViT-B/16+TL8{,fuse,v1,v1mean,v1fuse}@6",
    "ViT-B/16+TL16@{3,6,9}",
    "ViT-B/16+pool2@6",
    "ViViT-{B,L,H}/16x2",
    "ViViT-H/14x2",
    "ViViT-B/16x2:{encoder,attention,dotproduct}",
    "ViViT-B/16x2:{encoder,attention,dotproduct}+TL8@6",
    "ViViT-B/16x2+TL8{,v1,fuse}@6",
    "ViViT-B/16x2+pool2@6",
)
"""What is certified besides the rows of the publication: every variant, head, way to
few tokens and kind of video model."""

TWIN = {"name": None, "embed_dim": 16, "num_heads": 2, "mlp_dim": 32}
"""Widths of the model that is run in the place of one too large to run."""
TWIN_GRID_SIZE = 4
TWIN_TIME_STEPS = 2
TWIN_CLASSES = 10
BATCH_SIZE = 2
"""Samples whose values are compared, so that none leaks into another."""
SEED = 0


@dataclass(frozen=True)
class Check:
    """One comparison and how it ended."""

    name: str
    outcome: Outcome
    finding: str
    """What agrees or what does not; the reason where nothing was compared."""


@dataclass(frozen=True)
class Certificate:
    """A model, its numbers, and what they were held against."""

    model: str
    num_classes: int
    params: int | None
    """Of the built model; None where a builder's code does not run without values."""
    macs: int | None
    """In closed form, for one image or clip; None for a builder's model."""
    counter_macs: int | None
    profiler_macs: int | None
    tokens: tuple[int, ...]
    """That entered each block of the built model, all time steps together."""
    value_difference: float | None
    """Of all that `values` compares from the formulas, over the largest value."""
    published: tuple[PublishedCost, ...]
    checks: tuple[Check, ...]

    @property
    def failed(self) -> tuple[Check, ...]:
        return tuple(check for check in self.checks if check.outcome == "fails")

    def check(self, name: str) -> Check:
        return next(check for check in self.checks if check.name == name)


def certify(
    spec: ModelSpec,
    num_classes: int,
    *,
    on_real_tensors: bool = True,
    is_thorough: bool = False,
    sources: Mapping[str, str] = MappingProxyType({}),
) -> Certificate:
    """Check a model in every way that it allows; a model is never trained or timed.

    Args:
        spec: The model. One of a builder is counted only.
        num_classes: Width of its classifier.
        on_real_tensors: Also execute the model under DeepSpeed's profiler, where that
            ends within seconds.
        is_thorough: Execute it there however long that takes, if it fits into memory.
        sources: The texts of the users' files, by the names that builders have for
            them.
    """
    if spec.builder is not None:
        return _counted_only(spec, spec.builder, num_classes, sources)
    with torch.device("meta"):
        model = build_model(spec, num_classes)
    with _entering_tokens(model, spec) as entered:
        counted = count_macs(model, spec.sample_shape)
    checks = [
        _parameters(spec, num_classes, model),
        _compare(
            "counter",
            layer_disagreements(spec, num_classes, counted),
            "every layer does as many multiply-adds as its closed form says",
        ),
        _compare(
            "tokens",
            _token_disagreements(spec, entered),
            "as many tokens enter every block as the closed form says",
        ),
        _place_at_depth(spec, num_classes),
    ]
    values, difference = _values(spec, model)
    published = published_costs(spec)
    params = sum(p.numel() for p in model.parameters())
    reason = _why_not_executed(
        spec, params, counted, on_real_tensors=on_real_tensors, is_thorough=is_thorough
    )
    profiler, profiled = _profiler(model, spec, counted, reason)
    return Certificate(
        model=model_name(spec),
        num_classes=num_classes,
        params=params,
        macs=cost.macs(spec, num_classes),
        counter_macs=total_macs(counted),
        profiler_macs=profiled,
        tokens=tuple(entered.values()),
        value_difference=difference,
        published=published,
        checks=(*checks, values, profiler, _published(spec, published)),
    )


def _counted_only(
    spec: ModelSpec,
    builder: BuilderSpec,
    num_classes: int,
    sources: Mapping[str, str],
) -> Certificate:
    """What torch counts of a builder's model: nothing else is known of it."""
    counted = count_built_cost(spec, num_classes, spec.source(sources))
    unknown = counted.reason or str(UnknownCostError(builder.function))
    return Certificate(
        model=model_name(spec),
        num_classes=num_classes,
        params=counted.params,
        macs=None,
        counter_macs=counted.macs,
        profiler_macs=None,
        tokens=(),
        value_difference=None,
        published=(),
        checks=tuple(Check(name, "skipped", unknown) for name in CHECKS),
    )


def named_models() -> list[tuple[ModelSpec, int]]:
    """Every model of the publication, and of `NAMED`; with its number of classes."""
    classes = {
        row.model: PUBLISHED_CLASSES[row.source.dataset]
        for row in reversed(RESULTS)  # so that the first row of a model decides
        if row.model is not None and row.source.dataset in PUBLISHED_CLASSES
    }
    names = dict.fromkeys(row.model for row in RESULTS if row.model in classes)
    specs = [parse_model(name) for name in names if name is not None]
    specs += [parse_model(name) for text in NAMED for name in expand_braces(text)]
    return [
        (spec, classes.get(model_name(spec)) or default_num_classes(spec))
        for spec in dict.fromkeys(specs)
    ]


def _compare(name: str, disagreements: Iterable[str], agreement: str) -> Check:
    """Fail with the first disagreement, and say how many there are."""
    found = list(disagreements)
    if not found:
        return Check(name, "ok", agreement)
    others = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
    return Check(name, "fails", found[0] + others)


# ---------------------------------------------------------------- parameters, tokens


def _parameters(spec: ModelSpec, num_classes: int, model: nn.Module) -> Check:
    return _compare(
        "parameters",
        _parameter_disagreements(spec, num_classes, model),
        "every layer has as many as its closed form says",
    )


def _parameter_disagreements(
    spec: ModelSpec, num_classes: int, model: nn.Module
) -> Iterator[str]:
    walk = list(layers(spec, num_classes))
    layer_of = {module: layer.name for layer in walk for module in layer.modules}
    built = dict.fromkeys((layer.name for layer in walk), 0)
    for name, parameter in model.named_parameters():
        owner = _layer_of(name, layer_of)
        if owner is None:
            yield f"{name}: {parameter.numel():,} parameters of no layer"
        else:
            built[owner] += parameter.numel()
    for layer in walk:
        if built[layer.name] != layer.params:
            yield (
                f"{layer.name}: {built[layer.name]:,} parameters are built, and its"
                f" closed form gives {layer.params:,}"
            )


def _layer_of(parameter: str, layer_of: Mapping[str, str]) -> str | None:
    """The layer that counts a parameter: that of the module around it."""
    path = around = parameter.rpartition(".")[0]
    while path and path not in layer_of:
        path = path.rpartition(".")[0]
    return layer_of[path] if path else POSITIONS.get(around)


@contextmanager
def _entering_tokens(model: nn.Module, spec: ModelSpec) -> Iterator[dict[str, int]]:
    """Note how many tokens enter each block while the model runs on one sample."""
    entered: dict[str, int] = {}

    def note(path: str, _: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        entered[path] = arguments[0].shape[:-1].numel()

    hooks = [
        model.get_submodule(layer.name).register_forward_pre_hook(
            partial(note, layer.name)
        )
        for layer in layers(spec, 1)
        if layer.is_block
    ]
    try:
        yield entered
    finally:
        for hook in hooks:
            hook.remove()


def _token_disagreements(spec: ModelSpec, entered: Mapping[str, int]) -> Iterator[str]:
    for layer in layers(spec, 1):
        if layer.is_block and entered.get(layer.name) != layer.tokens:
            yield (
                f"{layer.name}: {entered.get(layer.name, 0):,} tokens enter, and its"
                f" closed form gives {layer.tokens:,}"
            )


# ---------------------------------------------------------------- values


def _values(spec: ModelSpec, model: nn.Module) -> tuple[Check, float | None]:
    """The model's own TokenLearner and TokenFuser, and a twin, against the formulas."""
    name = "values"
    differences = dict(_differences(spec, model))
    if not differences:
        return Check(name, "skipped", _NO_FORMULAS), None
    largest = max(differences.values())
    finding = (
        f"{', '.join(differences)} in float64 and the formulas in NumPy are"
        f" {largest:.0e} of the largest value apart; up to {VALUE_TOLERANCE:.0e} is"
        " rounding"
    )
    outcome: Outcome = "ok" if largest <= VALUE_TOLERANCE else "fails"
    return Check(name, outcome, finding), largest


_NO_FORMULAS = (
    "no TokenLearner is in it, and the formulas of whole models are of images, without"
    " pooling between the blocks"
)


def _differences(spec: ModelSpec, model: nn.Module) -> Iterator[tuple[str, float]]:
    """What is compared, and how far it is from its formulas."""
    learner = spec.token_learner
    own = next((m for m in model.modules() if isinstance(m, MapPooling)), None)
    if learner is not None and own is not None:
        yield "TokenLearner", _learner_difference(own, spec, learner)
    fuser = next((m for m in model.modules() if isinstance(m, TokenFuser)), None)
    if learner is not None and fuser is not None:
        yield "TokenFuser", _fuser_difference(fuser, spec, learner)
    if spec.video is None and spec.grid_pool is None:
        yield f"a whole twin of width {TWIN['embed_dim']}", _twin_difference(spec)


def _learner_difference(
    module: nn.Module, spec: ModelSpec, learner: TokenLearnerSpec
) -> float:
    random = np.random.default_rng(SEED)
    real, weights = _redrawn(module, random)
    x = random.standard_normal((BATCH_SIZE, spec.grid_size**2, spec.embed_dim))
    grid_size = (spec.grid_size, spec.grid_size)
    expected = reference.token_learner(x, weights, learner, grid_size)
    return _apart(_run(real, x), expected)


def _fuser_difference(
    module: nn.Module, spec: ModelSpec, learner: TokenLearnerSpec
) -> float:
    random = np.random.default_rng(SEED)
    real, weights = _redrawn(module, random)
    x = random.standard_normal((BATCH_SIZE, spec.grid_size**2, spec.embed_dim))
    tokens = random.standard_normal((BATCH_SIZE, learner.num_tokens, spec.embed_dim))
    expected = reference.token_fuser(tokens, x, weights)
    return _apart(_run(real, tokens, x), expected)


def _twin_difference(spec: ModelSpec) -> float:
    twin, random = _twin(spec), np.random.default_rng(SEED)
    with torch.device("meta"):
        model = build_model(twin, TWIN_CLASSES)
    real, weights = _redrawn(model, random)
    images = random.standard_normal((BATCH_SIZE, *twin.sample_shape))
    return _apart(_run(real, images), reference.vit(images, weights, twin))


def _redrawn(
    module: nn.Module, random: np.random.Generator
) -> tuple[nn.Module, reference.Weights]:
    """The module in float64 with weights drawn anew, and these as arrays."""
    weights = {
        # As many terms as a sum has: so neither sigmoid nor softmax is saturated.
        name: random.standard_normal(tensor.shape) / tensor[0].numel() ** 0.5
        for name, tensor in module.state_dict().items()
    }
    real = copy.deepcopy(module).to_empty(device="cpu").double().eval()
    real.load_state_dict({name: torch.from_numpy(w) for name, w in weights.items()})
    return real, weights


def _run(module: nn.Module, *inputs: reference.Array) -> reference.Array:
    with torch.inference_mode():
        return module(*map(torch.from_numpy, inputs)).numpy()


def _apart(actual: reference.Array, expected: reference.Array) -> float:
    """The largest difference over the largest value."""
    return float(np.abs(actual - expected).max() / np.abs(expected).max())


def _place_at_depth(spec: ModelSpec, num_classes: int) -> Check:
    """A TokenLearner behind the last block is left out: the values are a plain ViT's.

    On a narrow twin with a small grid, since the path through the code is the same.
    """
    name, learner = "place", spec.token_learner
    if learner is None:
        return Check(name, "skipped", "no TokenLearner is in it")
    twin = _twin(spec)
    behind = learner.model_copy(update={"place": spec.depth})
    plain = _output(twin.model_copy(update={"token_learner": None}), num_classes)
    left_out = _output(twin.model_copy(update={"token_learner": behind}), num_classes)
    if torch.equal(plain, left_out):
        return Check(name, "ok", f"{_TWIN_WORDS} gives the bits of the plain ViT")
    apart = (plain - left_out).abs().max().item()
    return Check(name, "fails", f"{_TWIN_WORDS} is {apart:.0e} from the plain ViT")


_TWIN_WORDS = (
    f"a twin of width {TWIN['embed_dim']} on a {TWIN_GRID_SIZE} x {TWIN_GRID_SIZE} grid"
    " with TokenLearner behind its last block"
)


def _twin(spec: ModelSpec) -> ModelSpec:
    """The same depth and kind of model, small enough to run in a moment."""
    small: dict[str, object] = {
        **TWIN,
        "image_size": TWIN_GRID_SIZE * spec.patch_size,
    }
    if spec.video is not None:
        num_frames = TWIN_TIME_STEPS * spec.video.tubelet_size
        small["video"] = spec.video.model_copy(update={"num_frames": num_frames})
    return spec.model_copy(update=small)


def _output(spec: ModelSpec, num_classes: int) -> Tensor:
    """What a model of a fixed seed makes of a fixed image or clip."""
    with torch.random.fork_rng(devices=[]), torch.inference_mode():
        torch.manual_seed(SEED)
        model = build_model(spec, num_classes).eval()
        torch.manual_seed(SEED)
        # The classifier starts at zero, and would hide everything before it.
        nn.init.normal_(model.get_parameter("head.weight"))
        output: Tensor = model(torch.randn(1, *spec.sample_shape))
    return output


# ---------------------------------------------------------------- DeepSpeed


def _why_not_executed(
    spec: ModelSpec,
    params: int,
    counted: ModuleMacs,
    *,
    on_real_tensors: bool,
    is_thorough: bool,
) -> str | None:
    if not on_real_tensors:
        return "real tensors were not asked for"
    max_macs = None if is_thorough else PROFILER_MAX_MACS
    memory = sample_activation_bytes(spec)
    return why_not_profiled(params, total_macs(counted), memory, max_macs)


def _profiler(
    model: nn.Module, spec: ModelSpec, counted: ModuleMacs, reason: str | None
) -> tuple[Check, int | None]:
    """Execute the model under DeepSpeed's profiler; afterwards it has storage."""
    if reason is not None:
        return Check("profiler", "skipped", reason), None
    profiled = profile_macs(model, spec.sample_shape)
    check = _compare(
        "profiler",
        profiler_disagreements(counted, profiled),
        "DeepSpeed counts as torch does in every module",
    )
    return check, sum(profiled.values())


# ---------------------------------------------------------------- the publication


def _published(spec: ModelSpec, costs: Sequence[PublishedCost]) -> Check:
    """Our count of operations and parameters against every published one."""
    name, params = "published", published_params(spec)
    if not costs and not params:
        return Check(name, "skipped", "the publication gives no cost of it")
    agreeing = sum(row.verdict == "agrees" for row in costs)
    findings = [f"{agreeing} of {len(costs)} rows agree"] if costs else []
    findings += dict.fromkeys(row.misprint for row in costs if row.misprint)
    findings += ["as many parameters as printed"] if params else []
    return _compare(name, _other_numbers(costs, params), "; ".join(findings))


def _other_numbers(
    costs: Iterable[PublishedCost], params: Iterable[PublishedParams]
) -> Iterator[str]:
    for cost_row in costs:
        if cost_row.verdict == "differs":
            yield (
                f"{cost_row.source} prints {cost_row.printed_gflops} GFLOPS, and"
                f" {cost_row.gflops:.2f} are counted in its way"
            )
    for row in params:
        if not row.agrees:
            yield (
                f"{row.source} prints {row.published} million parameters, and"
                f" {row.ours:.2f} million are counted"
            )
