"""Operations of a model as torch counts them, held against the closed form."""

from typing import NamedTuple

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from tlbench.errors import TrialError
from tlbench.models import cost
from tlbench.models.vit import build_vit
from tlbench.suites.spec import ModelSpec

TOLERANCE = 1e-3
"""How far the two counts may lie apart, over the larger one."""


class MacsCheck(NamedTuple):
    """Multiply-adds of one forward pass for one image, counted in two ways."""

    closed_form: int
    counted: int


def count_macs(model: nn.Module, image_size: int) -> int:
    """Count the multiply-adds of one forward pass of a model on the meta device.

    There torch takes attention apart into two products, which its counter sees; on CPU
    tensors fused attention would go uncounted.
    """
    image = torch.empty(1, cost.CHANNELS, image_size, image_size, device="meta")
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(image)
    return int(counter.get_total_flops()) // 2  # torch counts a multiply-add as two


def check_cost(spec: ModelSpec, num_classes: int) -> MacsCheck:
    """Count both ways; a TrialError names both counts if they lie too far apart."""
    with torch.device("meta"):
        model = build_vit(spec, num_classes)
    check = MacsCheck(
        closed_form=cost.macs(spec, num_classes),
        counted=count_macs(model, spec.image_size),
    )
    if abs(check.closed_form - check.counted) > TOLERANCE * max(check):
        raise TrialError(
            f"the closed form gives {check.closed_form} multiply-adds, but torch counts"
            f" {check.counted}: more than {TOLERANCE:.1%} apart"
        )
    return check
