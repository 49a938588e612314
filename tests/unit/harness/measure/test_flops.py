"""Operations by module, as torch and DeepSpeed count them, against the closed form."""

import os
from collections import Counter
from types import SimpleNamespace

import psutil
import pytest
import torch
from torch import Tensor, nn

from tlbench.measure import flops
from tlbench.measure.flops import (
    count_macs,
    layer_disagreements,
    profile_macs,
    profiler_disagreements,
    total_macs,
    why_not_profiled,
)
from tlbench.models import cost, layers
from tlbench.models.vit import build_model
from tlbench.suites.model_spec import ModelSpec
from tlbench.suites.names import parse_model
from tlbench.suites.spec import Attention

TINY = "ViT-d16h2m32l2/4@16"
CLIPS = "ViViT-d16h2m32l2/4x2@16x4"
KINDS = [
    *(TINY + part for part in ("", ":token", ":map", "+pool2@1", "+TL3v1@1")),
    *(TINY + part for part in ("+TL3@0", "+TL3fuse@1", "+TL3@2")),
    *(CLIPS + part for part in ("", ":encoder", ":attention", ":dotproduct")),
    *(CLIPS + part for part in (":encoder:token", "+TL3@1", ":attention+TL3fuse@1")),
]


def built(spec: ModelSpec, attention: Attention = "auto") -> nn.Module:
    with torch.device("meta"):
        return build_model(spec, 7, attention=attention)


def test_b16_has_the_published_number_of_multiply_adds() -> None:
    spec = parse_model("ViT-B/16")
    with torch.device("meta"):
        counted = count_macs(build_model(spec, 1000), spec.sample_shape)
    assert total_macs(counted) == 17_471_649_792


@pytest.mark.parametrize("attention", ["auto", "eager"])
def test_attention_is_counted_fused_or_not(attention: Attention) -> None:
    spec = parse_model("ViT-B/16")
    counted = count_macs(built(spec, attention), spec.sample_shape)
    products = 2 * 196**2 * 768
    assert counted["blocks.3.attn"] == {"aten.bmm": products}
    projections = 12 * 196 * (4 * 768**2 + 2 * 768 * 3072)
    embedding, classifier = 196 * 768**2, 768 * 7
    expected = projections + 12 * products + embedding + classifier
    assert total_macs(counted) == expected


@pytest.mark.parametrize("name", KINDS)
def test_every_layer_is_what_its_closed_form_says(name: str) -> None:
    spec = parse_model(name)
    counted = count_macs(built(spec), spec.sample_shape)
    assert list(layer_disagreements(spec, 7, counted)) == []
    assert total_macs(counted) == cost.macs(spec, 7)


@pytest.mark.parametrize("attention", ["auto", "eager"])
@pytest.mark.parametrize("name", KINDS)
def test_profiler_counts_as_torch_does(name: str, attention: Attention) -> None:
    spec = parse_model(name)
    counted = count_macs(built(spec), spec.sample_shape)
    profiled = profile_macs(built(spec, attention), spec.sample_shape)
    assert list(profiler_disagreements(counted, profiled)) == []
    assert sum(profiled.values()) == cost.macs(spec, 7)


def test_profiler_leaves_torch_as_it_was() -> None:
    before = (nn.functional.linear, torch.Tensor.matmul, nn.functional.gelu)
    profile_macs(built(parse_model(TINY)), (3, 16, 16))
    after = (nn.functional.linear, torch.Tensor.matmul, nn.functional.gelu)
    assert after == before


def test_profiler_leaves_the_environment_as_it_was(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("DS_ACCELERATOR", raising=False)
    profile_macs(built(parse_model(TINY)), (3, 16, 16))
    assert "DS_ACCELERATOR" not in os.environ
    monkeypatch.setenv("DS_ACCELERATOR", "cpu")
    profile_macs(built(parse_model(TINY)), (3, 16, 16))
    assert os.environ["DS_ACCELERATOR"] == "cpu"


class Einsum(nn.Module):
    """An operator of which the profiler counts no multiply-adds."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(16, 3))

    def forward(self, images: Tensor) -> Tensor:
        return torch.einsum("bchw,wo->bcho", images, self.weight)


def test_an_operator_that_the_profiler_misses_is_named_with_its_module() -> None:
    with torch.device("meta"):
        model = nn.Sequential(Einsum())
    counted = count_macs(model, (3, 16, 16))
    profiled = profile_macs(model, (3, 16, 16))
    assert list(profiler_disagreements(counted, profiled)) == [
        "0: torch counts 2,304 (aten.bmm), and DeepSpeed 0"
    ]


def test_a_layer_that_differs_is_named_with_its_operators(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    spec = parse_model(f"{TINY}+TL3@1")
    counted = count_macs(built(spec), spec.sample_shape)
    monkeypatch.setattr(layers, "MASKING_HIDDEN_DIM", 65)
    (disagreement,) = layer_disagreements(spec, 7, counted)
    masking, pooling = 16 * (16 + 3) * 64, 16 * 3 * 16
    assert disagreement == (
        f"blocks.token_learner: its closed form gives {16 * 19 * 65 + pooling:,}"
        f" multiply-adds, and torch counts {masking + pooling:,}:"
        f" {masking:,} (aten.addmm) + {pooling:,} (aten.bmm)"
    )


def test_work_that_no_layer_stands_for_is_named() -> None:
    spec = parse_model(TINY)
    counted = count_macs(built(spec), spec.sample_shape)
    counted["extra"] = Counter({"aten.mm": 12_345})
    assert list(layer_disagreements(spec, 7, counted)) == [
        "extra: torch counts 12,345 (aten.mm), and no layer of the closed form stands"
        " for it"
    ]


@pytest.mark.parametrize(
    ("path", "enclosing"), [("a.b.c", "a"), ("a.x", "a"), ("x.y", ""), ("x", "")]
)
def test_work_of_a_module_belongs_to_the_nearest_one_that_was_called(
    path: str, enclosing: str
) -> None:
    assert flops._enclosing(path, {"": None, "a": None, "a.b.c": None}) == enclosing
    assert flops._enclosing(path, {}) == ""


def test_too_much_work_is_not_profiled() -> None:
    limit, macs = flops.PROFILER_MAX_MACS, 481_825_350_656
    assert why_not_profiled(10**6, limit, 10**6, limit) is None
    reason = why_not_profiled(10**6, macs, 10**6, limit)
    assert reason == "482 GMACs would have to be executed; it is run up to 60"
    assert why_not_profiled(10**6, macs, 10**6) is None


def test_what_does_not_fit_is_not_profiled(monkeypatch: pytest.MonkeyPatch) -> None:
    memory = SimpleNamespace(available=6 * 2**20)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: memory)
    params, activation_bytes = 2**20, 2**20  # five bytes a parameter
    assert why_not_profiled(params, 10**9, activation_bytes) is None
    memory.available = 3 * 2**20
    assert why_not_profiled(params, 10**9, activation_bytes) == (
        "it would need 6.00 MiB of memory, and 3.00 MiB are free"
    )
