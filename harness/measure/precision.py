"""The precisions that cases compute in: torch's types, and which devices have them."""

import torch

from tlbench.suites.spec import Precision

DTYPES: dict[Precision, torch.dtype] = {
    "fp32": torch.float32,
    "tf32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
}


def why_unsupported(precision: Precision, device: torch.device) -> str | None:
    """Why the device does not compute in the precision; None where it does."""
    if device.type == "cpu":
        is_known = precision in ("fp32", "bf16")
        return None if is_known else f"precision {precision} needs a GPU; this is a CPU"
    is_old = torch.cuda.get_device_capability() < (8, 0)
    if is_old and precision in ("tf32", "bf16"):
        name = torch.cuda.get_device_name()
        return f"precision {precision} is not supported by {name}"
    return None
