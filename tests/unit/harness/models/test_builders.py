"""Builders: tlbench's own and users', what they may return, and what they cost."""

import inspect
import re
import sys
import traceback
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tlbench.errors import TrialError
from tlbench.measure.built_cost import count_built_cost
from tlbench.models import cost
from tlbench.models.builders import (
    BUILDERS,
    apply_builder,
    build_whole_model,
    load_source,
)
from tlbench.models.vit import build_model
from tlbench.suites.model_spec import OWN_BUILDERS, BuilderSpec, ModelSpec
from tlbench.suites.names import parse_model

DOCS = Path(__file__).parents[4] / "docs"

TINY = ModelSpec(
    patch_size=4, image_size=16, embed_dim=16, depth=3, num_heads=2, mlp_dim=32
)
FILE = "my_models.py"


def built_by(
    source: str, function: str = "build", **options: int | float | bool | str
) -> ModelSpec:
    builder = BuilderSpec(function=function, file=FILE, options=options)
    return TINY.model_copy(update={"builder": builder})


def own(function: str, spec: ModelSpec = TINY, **options: int) -> ModelSpec:
    builder = BuilderSpec(function=function, options=dict(options))
    return spec.model_copy(update={"builder": builder})


# ---------------------------------------------------------------- the table


def test_the_table_holds_the_builders_that_suites_know() -> None:
    assert BUILDERS.keys() == OWN_BUILDERS.keys()


@pytest.mark.parametrize("name", BUILDERS)
def test_own_builders_take_the_options_that_suites_know(name: str) -> None:
    module, _, function = BUILDERS[name].partition(":")
    __import__(module)
    parameters = list(
        inspect.signature(getattr(sys.modules[module], function)).parameters.values()
    )
    assert tuple(p.name for p in parameters[1:]) == OWN_BUILDERS[name]
    assert {p.kind for p in parameters[1:]} == {inspect.Parameter.KEYWORD_ONLY}
    assert all(p.default is inspect.Parameter.empty for p in parameters)


# ---------------------------------------------------------------- users' files

RETURNS = "def build(model, **options):\n    return {}\n"


def test_a_builder_gets_the_model_and_its_options() -> None:
    source = RETURNS.format("seen.append((model, options)) or model")
    load_source("seen = []\n" + source, FILE)
    spec = built_by(source, keep=3, name="x", is_on=True)
    assert spec.builder is not None
    model = build_model(TINY, 10)
    assert apply_builder(model, spec.builder, "seen = []\n" + source) is model
    module = load_source("seen = []\n" + source, FILE)
    assert module.seen == [(model, {"keep": 3, "name": "x", "is_on": True})]


def test_what_a_builder_returns_is_the_model() -> None:
    source = "from torch import nn\n" + RETURNS.format("nn.Sequential(model)")
    model = build_whole_model(built_by(source), 10, source)
    assert isinstance(model, nn.Sequential)
    assert model(torch.zeros(2, 3, 16, 16)).shape == (2, 10)


def test_new_layers_of_a_builder_stand_on_the_device_of_the_model() -> None:
    source = "from torch import nn\n" + RETURNS.format(
        "nn.Sequential(model, nn.Linear(10, 10))"
    )
    with torch.device("meta"):
        model = build_whole_model(built_by(source), 10, source)
    assert {parameter.device.type for parameter in model.parameters()} == {"meta"}


@pytest.mark.parametrize(("value", "kind"), [("None", "NoneType"), ("42", "int")])
def test_a_builder_that_returns_no_module_is_refused(value: str, kind: str) -> None:
    source = RETURNS.format(value)
    message = rf"my_models.py:build\(\) returned {kind}; an nn.Module would be right"
    with pytest.raises(TrialError, match=message):
        build_whole_model(built_by(source), 10, source)


def test_a_model_without_the_text_of_its_builder_is_refused() -> None:
    with pytest.raises(TrialError, match="did not come with the trial"):
        build_whole_model(built_by(""), 10)


def test_the_traceback_of_a_builder_shows_the_users_line() -> None:
    source = "def build(model):\n    answer = 41\n    raise KeyError('lost')\n"
    with pytest.raises(KeyError, match="lost") as caught:
        build_whole_model(built_by(source), 10, source)
    shown = "".join(traceback.format_exception(caught.value))
    assert 'File "my_models.py", line 3, in build\n    raise KeyError' in shown


def test_an_edited_file_is_another_module() -> None:
    first = load_source("answer = 41\n", FILE)
    second = load_source("answer = 42\n", FILE)
    assert (first.answer, second.answer) == (41, 42)
    assert load_source("answer = 41\n", FILE) is first


def test_a_users_file_hides_no_other_module() -> None:
    module = load_source("answer = 42\n", "torch.py")
    assert re.fullmatch("torch_[0-9a-f]{16}", module.__name__)
    assert sys.modules["torch"] is torch


def test_a_file_may_define_dataclasses() -> None:
    source = (
        "from __future__ import annotations\n"
        "from dataclasses import dataclass\n"
        "@dataclass\n"
        "class Options:\n"
        "    keep: int = 4\n"
    )
    assert load_source(source, FILE).Options().keep == 4


def test_a_file_that_fails_halfway_is_no_module() -> None:
    source = "answer = 42\nraise OSError('no such checkpoint')\n"
    before = set(sys.modules)
    for _ in range(2):  # the second time as well
        with pytest.raises(OSError, match="no such checkpoint"):
            load_source(source, FILE)
    assert set(sys.modules) == before


# ---------------------------------------------------------------- cost


@pytest.mark.parametrize(
    "spec",
    [
        TINY,
        TINY.model_copy(update={"global_pool": "token"}),
        parse_model("ViT-Ti/16"),
    ],
)
def test_counted_costs_are_those_of_the_closed_form(spec: ModelSpec) -> None:
    counted = count_built_cost(own("tome", spec, r=0), 10)
    assert counted.params == cost.params(spec, 10)
    assert counted.macs == cost.macs(spec, 10)
    assert counted.train_flops == cost.train_flops(spec, 10)
    assert counted.reason is None


def test_token_merging_costs_the_matching_and_saves_what_it_merges() -> None:
    spec, r = parse_model("ViT-Ti/16"), 8
    D, heads, tokens = 192, 3, 196
    blocks = 0
    for _ in range(12):
        attention = 4 * tokens * D * D + 2 * tokens**2 * D
        half = tokens // 2
        matching = (tokens - half) * half * (D // heads)
        tokens -= r
        blocks += attention + matching + 8 * tokens * D * D
    outside = 196 * (3 * 16 * 16 * D) + D * 1000
    assert count_built_cost(own("tome", spec, r=r), 1000).macs == blocks + outside


def test_a_model_that_looks_at_values_has_no_count_but_parameters() -> None:
    source = (
        "from torch import nn\n"
        "class Model(nn.Module):\n"
        "    def __init__(self, model):\n"
        "        super().__init__()\n"
        "        self.model = model\n"
        "    def forward(self, x):\n"
        "        assert x.sum() > -1\n"
        "        return self.model(x)\n" + RETURNS.format("Model(model)")
    )
    counted = count_built_cost(built_by(source), 10, source)
    assert counted.params == cost.params(TINY, 10)
    assert (counted.macs, counted.train_flops) == (None, None)
    assert counted.reason is not None
    assert counted.reason.startswith(
        "cannot be run on the meta device: my_models.py:7: RuntimeError: "
    )


def test_a_builder_that_fails_has_no_cost() -> None:
    source = "def build(model):\n    return model.no_such_layer\n"
    counted = count_built_cost(built_by(source), 10, source)
    assert (counted.params, counted.macs, counted.train_flops) == (None, None, None)
    assert counted.reason == (
        "cannot be built on the meta device: my_models.py:2: AttributeError:"
        " 'VisionTransformer' object has no attribute 'no_such_layer'"
    )


def test_frozen_layers_cost_less_to_train() -> None:
    source = (
        "def build(model):\n"
        "    model.blocks.requires_grad_(False)\n"
        "    model.patch_embed.requires_grad_(False)\n"
        "    model.pos_embed.requires_grad_(False)\n"
        "    return model\n"
    )
    counted = count_built_cost(built_by(source), 10, source)
    assert counted.train_flops is not None
    head = 16 * 10
    # Two passes of the head going back: its weight's gradient, and that of its input.
    assert counted.train_flops == 2 * (cost.macs(TINY, 10) + 2 * head)


# ---------------------------------------------------------------- documentation


def documented_builder() -> tuple[str, dict[str, Any]]:
    page = (DOCS / "models.md").read_text()
    (source,) = re.findall(r"^```python builder\n(.*?)^```$", page, re.M | re.S)
    return source, {"keep": 64}


def test_the_documented_builder_works() -> None:
    source, options = documented_builder()
    spec = parse_model("ViT-B/16+my_models.py:build(keep=64)")
    assert spec.builder is not None
    assert spec.builder.options == options
    counted = count_built_cost(spec, 1000, source)
    assert counted.reason is None
    assert counted.params == cost.params(parse_model("ViT-B/16"), 1000)
    assert counted.macs is not None
    assert counted.macs < cost.macs(parse_model("ViT-B/16"), 1000)
