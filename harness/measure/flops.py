"""Operations of a built model by module, as torch and as DeepSpeed count them.

Torch's counter runs on the meta device, where nothing is computed; DeepSpeed's profiler
runs the model on real tensors. Both are held against the closed form, layer by layer,
and a disagreement names the module and the operators in it.
"""

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import psutil
import torch
from torch import nn
from torch.func import functional_call
from torch.utils.flop_counter import FlopCounterMode

from tlbench.models.layers import layers
from tlbench.suites.model_spec import ModelSpec
from tlbench.units import format_bytes

ModuleMacs = dict[str, Counter[str]]
"""Multiply-adds of one forward pass of one image or clip: by path of the module that
does them itself, not in a child ("" is the model), and by torch's operator."""

PROFILER_MAX_MACS = 60 * 10**9
"""DeepSpeed's profiler executes the model: about a second on two cores up to here."""
PROFILER_BYTES_PER_PARAM = 5
"""Of a profiled model: its weights in fp32, and a quarter more for what has no form."""


def count_macs(model: nn.Module, sample_shape: Sequence[int]) -> ModuleMacs:
    """Count by torch's FlopCounterMode, with a model on the meta device.

    There torch takes attention apart into two products, which its counter sees; on CPU
    tensors fused attention would go uncounted.
    """
    sample = torch.empty(1, *sample_shape, device="meta")
    # Detached: the counter looks for the gradient function of every layer's input that
    # requires a gradient, and the query of a MAP head, itself a parameter, has none.
    weights = {name: tensor.detach() for name, tensor in model.named_parameters()}
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        functional_call(model, weights, (sample,))
    root = type(model).__name__
    counted = {
        name.removeprefix(root).removeprefix("."): Counter(
            # torch counts a multiply-add as two
            {str(operator): flops // 2 for operator, flops in operators.items()}
        )
        for name, operators in counter.get_flop_counts().items()
        if name != "Global"
    }
    return _without_children(counted)


def _without_children(inclusive: ModuleMacs) -> ModuleMacs:
    """Take from each module what the modules inside it do."""
    own = {path: Counter(operators) for path, operators in inclusive.items()}
    for path in inclusive:
        if path:
            own[_enclosing(path, inclusive)].subtract(inclusive[path])
    return {path: +operators for path, operators in own.items()}  # + drops zeros


def _enclosing(path: str, known: Mapping[str, object]) -> str:
    """The nearest known module around `path`, the model ("") if there is no other.

    A bare container is never called, and so not known.
    """
    while path:
        path = path.rpartition(".")[0]
        if path in known:
            break
    return path


def total_macs(counted: ModuleMacs) -> int:
    return sum(operators.total() for operators in counted.values())


def layer_disagreements(
    spec: ModelSpec, num_classes: int, counted: ModuleMacs
) -> Iterator[str]:
    """Say of each layer whose closed form is not what torch counted, and where else.

    Exact: both are whole numbers of the same products.
    """
    rest = dict(counted)
    for layer in layers(spec, num_classes):
        operators: Counter[str] = Counter()
        for path in [p for p in rest if _is_inside(p, layer.modules)]:
            operators += rest.pop(path)
        if operators.total() != layer.macs:
            yield (
                f"{layer.name}: its closed form gives {layer.macs:,} multiply-adds, and"
                f" torch counts {_describe(operators)}"
            )
    for path, operators in rest.items():
        if operators:
            yield (
                f"{path or 'the model itself'}: torch counts {_describe(operators)},"
                " and no layer of the closed form stands for it"
            )


def _is_inside(path: str, modules: Sequence[str]) -> bool:
    return any(path == module or path.startswith(f"{module}.") for module in modules)


def _describe(operators: Counter[str]) -> str:
    listed = " + ".join(f"{macs:,} ({name})" for name, macs in operators.most_common())
    return f"{operators.total():,}: {listed}" if len(operators) > 1 else listed or "0"


# ---------------------------------------------------------------- DeepSpeed


def why_not_profiled(
    params: int, macs: int, activation_bytes: int, max_macs: int | None = None
) -> str | None:
    """Say why DeepSpeed's profiler would take too long or too much; None if not.

    Args:
        params: Of the model, which is executed in fp32.
        macs: Of one sample.
        activation_bytes: That one sample takes at its peak.
        max_macs: Limit of the time; None leaves the memory as the only one.
    """
    if max_macs is not None and macs > max_macs:
        return (
            f"{macs / 1e9:,.0f} GMACs would have to be executed; it is run up to"
            f" {max_macs / 1e9:,.0f}"
        )
    needed = PROFILER_BYTES_PER_PARAM * params + activation_bytes
    free = psutil.virtual_memory().available
    if needed > free:
        return (
            f"it would need {format_bytes(needed)} of memory, and"
            f" {format_bytes(free)} are free"
        )
    return None


@contextmanager
def _named_accelerator() -> Iterator[None]:
    """Name one where nobody has, or DeepSpeed would look around for it."""
    is_named = "DS_ACCELERATOR" in os.environ
    os.environ.setdefault("DS_ACCELERATOR", "cpu")
    try:
        yield
    finally:
        if not is_named:
            del os.environ["DS_ACCELERATOR"]


@_named_accelerator()
def profile_macs(model: nn.Module, sample_shape: Sequence[int]) -> dict[str, int]:
    """Count by DeepSpeed's FlopsProfiler, by path of the module; the model is executed.

    The profiler puts functions of its own in the place of torch's. It is exact for
    `linear`, `conv1d` to `conv3d`, `matmul` and `@`, `mm`, `bmm`, `addmm`, `baddbmm`
    and `scaled_dot_product_attention`. `einsum` counts nothing, and so does a function
    that was imported by its name before. On the meta device nearly everything counts
    twice, since torch's own code there calls what was replaced.

    Args:
        model: On the meta device; it is moved to the CPU, its weights at zero.
        sample_shape: Of one image or clip.
    """
    # Slow to import, and only needed here.
    from deepspeed.profiling.flops_profiler import FlopsProfiler

    model.to_empty(device="cpu")
    for tensor in [*model.parameters(), *model.buffers()]:
        tensor.detach().zero_()
    profiler = FlopsProfiler(model)
    profiler.start_profile()
    try:
        with torch.inference_mode():
            model(torch.zeros(1, *sample_shape))
        return {
            path: int(module.__macs__)
            for path, module in model.named_modules()
            if module.__macs__
        }
    finally:
        profiler.end_profile()


def profiler_disagreements(
    counted: ModuleMacs, profiled: Mapping[str, int]
) -> Iterator[str]:
    """Say of each module in which torch's counter and the profiler differ."""
    for path in dict.fromkeys([*counted, *profiled]):
        operators, profiled_macs = counted.get(path, Counter()), profiled.get(path, 0)
        if operators.total() != profiled_macs:
            yield (
                f"{path or 'the model itself'}: torch counts {_describe(operators)},"
                f" and DeepSpeed {profiled_macs:,}"
            )
