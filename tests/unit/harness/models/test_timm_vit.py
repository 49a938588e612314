"""The lean import, each time in a process that has not seen timm yet."""

import subprocess
import sys

import pytest

LEAN = """
import sys
from tlbench.models.timm_vit import vision_transformer_class
lean = vision_transformer_class()
"""


def run_python(code: str) -> None:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_lean_import_leaves_the_rest_of_timm_and_torchvision_alone() -> None:
    run_python(
        LEAN
        + """
assert lean.__module__ == "timm.models.vision_transformer", lean
for heavy in "torchvision", "huggingface_hub", "timm.models.resnet", "timm.data.loader":
    assert heavy not in sys.modules, heavy
assert not hasattr(sys.modules["timm"], "__warningregistry__")
assert "timm.models.resnet" not in sys.modules
"""
    )


def test_a_model_with_storage_needs_no_sympy() -> None:
    run_python(
        """
import sys
from tlbench.models.vit import build_model
from tlbench.suites.names import parse_model
model = build_model(parse_model("ViT-Ti/16+TL8@6"), 10)
assert all(p.device.type == "cpu" for p in model.parameters())
assert "sympy" not in sys.modules
"""
    )


@pytest.mark.slow
def test_plain_import_afterwards_works_in_full() -> None:
    run_python(
        LEAN
        + """
import torch, timm, timm.data
assert type(timm.create_model("vit_tiny_patch16_224")) is lean
assert timm.models.vision_transformer.VisionTransformer is lean
assert "resnet18" in timm.list_models()
assert callable(timm.data.create_transform)
assert timm.models._builder.has_hf_hub() in (True, False)
tracer = timm.create_model("resnet18", features_only=True, feature_cls="fx")
assert len(tracer(torch.zeros(1, 3, 64, 64))) == 5
from timm.layers import freeze_batch_norm_2d, unfreeze_batch_norm_2d
frozen = freeze_batch_norm_2d(torch.nn.BatchNorm2d(3))
assert type(frozen).__module__ == "torchvision.ops.misc"
assert type(unfreeze_batch_norm_2d(frozen)) is torch.nn.BatchNorm2d
"""
    )


@pytest.mark.slow
def test_plain_import_beforehand_is_kept() -> None:
    run_python(
        """
import timm.models.vision_transformer as plain
from tlbench.models.timm_vit import vision_transformer_class
assert vision_transformer_class() is plain.VisionTransformer
"""
    )


@pytest.mark.slow
def test_where_the_lean_way_fails_the_plain_import_decides() -> None:
    run_python(
        """
import sys
from tlbench.models import timm_vit
timm_vit.PRELOADED = {"timm.data": ("timm.data.constants", ("NOT_THERE",))}
lean = timm_vit.vision_transformer_class()
import timm
assert type(timm.create_model("vit_tiny_patch16_224")) is lean
"""
    )
