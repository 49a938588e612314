"""What memory a case needs on each device, in closed form; torch is not imported.

All sizes are sums and maxima over the `layers` of the model; a builder's model raises
UnknownCostError.
"""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import accumulate, groupby
from typing import Literal, NamedTuple

from tlbench.models.layers import Layer, layers
from tlbench.suites.model_spec import ModelSpec
from tlbench.suites.spec import NO_TRAINING, Case, Parallelism, Precision

BYTES_PER_ELEMENT: dict[Precision, int] = {"fp32": 4, "tf32": 4, "bf16": 2, "fp16": 2}
STATE_BYTES = 4
"""Of one element of AdamW's moments and of the master copy: both are in fp32."""
BUCKET_ELEMENTS = 500_000_000
"""DeepSpeed copies gradients into buckets of this size to average them over the ranks,
be it one rank (`MEMORY_OPT_ALLREDUCE_SIZE` of its engine)."""

ZeroStage = Literal[0, 1, 2, 3]
ZERO_STAGES: tuple[ZeroStage, ...] = (0, 1, 2, 3)
PLANNED_PRECISIONS: tuple[Precision, ...] = ("fp32", "bf16")

NO_GROWTH = (
    "predicted for fp32 without ZeRO: what DeepSpeed keeps of the gradients between"
    " steps in other settings has no closed form here"
)


@dataclass(frozen=True)
class MemoryForecast:
    """What a case holds on each device when it holds most, part by part."""

    weights_bytes: int
    gradients_bytes: int
    optimizer_bytes: int
    """AdamW's two moments, and the master copy of the weights."""
    activations_bytes: int
    """Samples, what autograd keeps of them, and the largest set alive besides."""
    host_bytes: int = 0
    """What each rank keeps in the memory of the host instead; not in the total."""

    @property
    def total_bytes(self) -> int:
        return (
            self.weights_bytes
            + self.gradients_bytes
            + self.optimizer_bytes
            + self.activations_bytes
        )


class MemorySetting(NamedTuple):
    """One way to run a case, and what it takes."""

    precision: Precision
    zero_stage: ZeroStage | None
    """None: nothing is trained, and there is nothing to shard."""
    memory: MemoryForecast


class _Unit(NamedTuple):
    """What the backward pass takes up at once: a layer, or a checkpointed block."""

    kept: int
    """Elements of one sample that are held from the forward pass on."""
    extra: int
    """Elements of one sample that going back through it takes besides."""
    params: int


def predicted_memory_bytes(case: Case) -> int:
    """Predict the memory that the case needs at its peak on each device."""
    return forecast_memory(case).total_bytes


def forecast_memory(case: Case) -> MemoryForecast:
    """Predict each part of the memory that the case needs on each device.

    infer: the weights, the samples, and the largest set of tensors alive at once.
    train and fit: weights and gradients in the case's precision, AdamW's two moments in
    fp32, a master copy of the weights in fp32 (half precision, or any ZeRO stage), each
    divided by world_size from the ZeRO stage on that shards it; under ZeRO 3 the
    weights of the largest layer once more, gathered while it runs; all that autograd
    keeps of the forward pass, and what going back through a layer takes besides. With
    gradient checkpointing autograd keeps the inputs of the blocks, and one block at a
    time is computed anew. profile runs on no device and needs none.

    With offload the optimiser's states and the gradients are on the host (ZeRO 1 still
    gathers all gradients on the device), and with `all` the weights.

    Each part is at its largest. Without accumulated gradients the peak is lower than
    their sum, as gradients come while activations go: see `predicted_growth_bytes`.

    Left out: the allocator's rounding and fragments, workspaces of kernels, buffers of
    communication, what torch.compile saves, and the memory of the process itself.
    """
    if case.mode == "profile":
        return MemoryForecast(0, 0, 0, 0)
    walk = _walk(case)
    width = BYTES_PER_ELEMENT[case.precision]
    params = sum(layer.params for layer in walk)
    if case.mode in NO_TRAINING:
        elements = _sample_elements(case.model) + _largest_going_forward(case, walk)
        activations = case.micro_batch_size * elements * width
        return MemoryForecast(params * width, 0, 0, activations)
    states = _training_states(case, walk)
    waiting = (case.accumulation - 1) * _sample_elements(case.model)
    elements = waiting + _largest_going_back(_units(case, walk))
    return replace(states, activations_bytes=case.micro_batch_size * elements * width)


def predicted_growth_bytes(case: Case) -> int | None:
    """Predict the peak of a step over what the process holds between two steps.

    That is what `tlbench.measure.memory` measures on a CPU. Weights, the optimiser's
    states and the samples are there before. infer: the largest set of tensors alive at
    once. train: gradients do not outlive a step, so the peak is the largest sum, on
    the way back, of what autograd still keeps, what the layer takes, and the gradients
    so far; or at the end all gradients and the copy in which they are averaged. profile
    has no steps, and needs nothing. None (`NO_GROWTH`): not known for these settings.
    """
    if case.mode == "profile":
        return 0
    width = BYTES_PER_ELEMENT[case.precision]
    walk = _walk(case)
    if case.mode in NO_TRAINING:
        return case.micro_batch_size * _largest_going_forward(case, walk) * width
    if case.precision != "fp32" or case.parallelism.zero_stage > 0:
        return None
    params = sum(layer.params for layer in walk)
    samples = case.micro_batch_size * _sample_elements(case.model)
    backward = _peak_of_the_way_back(case, _units(case, walk)) - samples
    return max(backward, params + min(params, BUCKET_ELEMENTS)) * width


def sample_activation_bytes(spec: ModelSpec) -> int:
    """Predict what inference of one sample in fp32 takes besides the weights."""
    case = Case(model=spec, mode="infer", batch_size=1)
    return forecast_memory(case).activations_bytes


def memory_settings(case: Case) -> Iterator[MemorySetting]:
    """Forecast the case in each precision and, where it trains, ZeRO stage.

    Of the offload that the case asks for, each stage does as much as it can.
    """
    if case.mode == "profile":
        return
    for precision in PLANNED_PRECISIONS:
        changed = case.model_copy(update={"precision": precision})
        if case.mode in NO_TRAINING:
            yield MemorySetting(precision, None, forecast_memory(changed))
            continue
        for stage in ZERO_STAGES:
            parallelism = _at_stage(case.parallelism, stage)
            staged = changed.model_copy(update={"parallelism": parallelism})
            yield MemorySetting(precision, stage, forecast_memory(staged))


def _at_stage(parallelism: Parallelism, stage: ZeroStage) -> Parallelism:
    offload = parallelism.offload
    if offload == "all" and stage < 3:
        offload = "optimizer"
    return parallelism.model_copy(
        update={"zero_stage": stage, "offload": offload if stage > 0 else "none"}
    )


# ---------------------------------------------------------------- activations


def _walk(case: Case) -> list[Layer]:
    return list(layers(case.model, case.num_classes, case.attention))


def _sample_elements(spec: ModelSpec) -> int:
    return math.prod(spec.sample_shape)


def _largest_going_forward(case: Case, walk: list[Layer]) -> int:
    """Elements of one sample alive at once without autograd.

    The tokens that enter the first block stay while the others run, since timm's
    `forward_features` holds them in a variable of its own.
    """
    first, *others = (layer for layer in walk if _block_of(layer) is not None)
    embedded = first.tokens * case.model.embed_dim
    return max(
        max(layer.live for layer in walk),
        max((embedded + layer.live for layer in others), default=0),
    )


def _units(case: Case, walk: list[Layer]) -> list[_Unit]:
    units = []
    for block, group in groupby(walk, _block_of):
        members = list(group)
        plain = [
            _Unit(layer.saved, _going_back(case.model, layer), layer.params)
            for layer in members
        ]
        if case.gradient_checkpointing and block is not None:
            units.append(_checkpointed(plain, members[0].tokens * case.model.embed_dim))
        else:
            units += plain
    return units


def _going_back(spec: ModelSpec, layer: Layer) -> int:
    """Elements of one sample that the backward pass of a layer takes for itself.

    In the MLP of a block these are the gradients of its output and of one side of
    GELU: that of the other side takes the place of what fc2 had kept, and let go of.
    Attention comes when all of the MLP is gone, and so counts only where the weights
    of its heads are stored.
    """
    if not layer.is_block:
        return layer.live
    residual, hidden = layer.tokens * spec.embed_dim, layer.tokens * spec.mlp_dim
    return max(residual + hidden, layer.live - 2 * residual - 2 * hidden)


def _block_of(layer: Layer) -> str | None:
    """The member of `blocks` that the layer is or stands in, such as `blocks.3`."""
    match = re.match(r"(?:\w+\.)?blocks\.\w+", layer.name)
    return match[0] if match else None


def _checkpointed(members: list[_Unit], input_elements: int) -> _Unit:
    """A block of which only the input is kept; the rest is there on the way back."""
    return _Unit(
        kept=input_elements,
        extra=_largest_going_back(members) - input_elements,
        params=sum(unit.params for unit in members),
    )


def _largest_going_back(units: list[_Unit]) -> int:
    """Elements of one sample at the peak: what is kept up to a unit, and its extra."""
    kept = accumulate(unit.kept for unit in units)
    return max(held + unit.extra for held, unit in zip(kept, units, strict=True))


def _peak_of_the_way_back(case: Case, units: list[_Unit]) -> int:
    """Elements at the peak, with the gradients of the units that lie behind."""
    kept = sum(unit.kept for unit in units)
    params = sum(unit.params for unit in units)
    gradients = peak = 0
    for unit in reversed(units):
        there = params if case.accumulation > 1 else gradients  # of the parts before
        peak = max(peak, case.micro_batch_size * (kept + unit.extra) + there)
        gradients += unit.params
        kept -= unit.kept
    return peak


# ---------------------------------------------------------------- states


def _training_states(case: Case, walk: list[Layer]) -> MemoryForecast:
    """Size weights, gradients and AdamW's states, on the device and on the host.

    Source: Rajbhandari et al. 2020 (ZeRO, arXiv 1910.02054), section 3.1, with the
    master copy that DeepSpeed's ZeRO also makes in fp32. What is offloaded: DeepSpeed
    0.19, `runtime/zero/stage_1_and_2.py` and `stage3.py`.
    """
    params = sum(layer.params for layer in walk)
    stage, offload = case.parallelism.zero_stage, case.parallelism.offload
    width = BYTES_PER_ELEMENT[case.precision]
    has_master = stage > 0 or width < STATE_BYTES

    def share(size: int, first_stage: ZeroStage) -> int:
        ranks = case.parallelism.world_size if stage >= first_stage else 1
        return -(-params * size // ranks)

    weights = share(width, first_stage=3)
    optimizer = share((2 + has_master) * STATE_BYTES, first_stage=1)
    is_gathered = stage == 3 and (case.parallelism.world_size > 1 or offload == "all")
    gathered = max(layer.params for layer in walk) * width if is_gathered else 0
    on_device = MemoryForecast(
        weights_bytes=weights + gathered,
        gradients_bytes=share(width, first_stage=2),
        optimizer_bytes=optimizer,
        activations_bytes=0,
    )
    if offload == "none":
        return on_device
    on_host = optimizer + share(_offloaded_gradient_bytes(case), first_stage=1)
    return replace(
        on_device,
        weights_bytes=gathered if offload == "all" else on_device.weights_bytes,
        # Stage 1 averages them on the device when the last is there.
        gradients_bytes=on_device.gradients_bytes if stage == 1 else 0,
        optimizer_bytes=0,
        host_bytes=on_host + (weights if offload == "all" else 0),
    )


def _offloaded_gradient_bytes(case: Case) -> int:
    """Bytes on the host for each parameter of a rank's share, besides its states.

    The gradients in fp32, which the optimiser steps by. In the case's precision: the
    new weights on their way to the device (ZeRO 1 and 2), and the gradients summed over
    the micro-batches (ZeRO 2, where there are several; ZeRO 3 in any case).
    """
    is_summed = case.parallelism.zero_stage == 2 and case.accumulation > 1
    return STATE_BYTES + (1 + is_summed) * BYTES_PER_ELEMENT[case.precision]
