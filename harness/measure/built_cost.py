"""What a builder's model costs, counted by torch: no closed form knows it.

The model is built and run on the meta device, where nothing is computed. Code that
looks at the values of tensors cannot run there.
"""

import traceback
from dataclasses import dataclass

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from tlbench.errors import name_error
from tlbench.measure.flops import count_macs, total_macs
from tlbench.models.builders import build_whole_model
from tlbench.suites.model_spec import ModelSpec


@dataclass(frozen=True)
class BuiltCost:
    """Cost of a model for one image or clip; None is explained by `reason`."""

    params: int | None
    macs: int | None
    train_flops: int | None
    reason: str | None = None


def count_built_cost(
    spec: ModelSpec, num_classes: int, source: str | None = None
) -> BuiltCost:
    """Count parameters, multiply-adds, and operations forward and backward.

    Never raises for what the builder's code does. `source` is the text of its file.
    """
    params = macs = None
    try:
        with torch.device("meta"):
            model = build_whole_model(spec, num_classes, source)
        params = sum(parameter.numel() for parameter in model.parameters())
        macs = total_macs(count_macs(model.eval(), spec.sample_shape))
        train_flops = _count_train_flops(model, spec.sample_shape)
    except Exception as error:  # a user's code may raise anything
        task = "built" if params is None else "run"
        reason = f"cannot be {task} on the meta device: {_explain(error, spec)}"
        return BuiltCost(params, macs, None, reason)
    return BuiltCost(params, macs, train_flops)


def _explain(error: Exception, spec: ModelSpec) -> str:
    """The error, behind the last line of the user's file that took part in it."""
    file = spec.builder and spec.builder.file
    lines = [
        frame.lineno
        for frame in traceback.extract_tb(error.__traceback__)
        if frame.filename == file
    ]
    place = f"{file}:{lines[-1]}: " if lines else ""
    return f"{place}{name_error(error)}"


def _count_train_flops(model: nn.Module, sample_shape: tuple[int, ...]) -> int:
    """Count those of two samples, since batch norms do not train on one."""
    samples = torch.empty(2, *sample_shape, device="meta")
    with FlopCounterMode(display=False) as counter:
        model.train()(samples).sum().backward()
    return int(counter.get_total_flops()) // 2
