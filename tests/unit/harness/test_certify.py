"""Certificates: what is checked, and that each check can fail and says where."""

import io
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
import torch
from rich.console import Console
from torch import nn

from support import certificates_page
from tlbench import certify as module
from tlbench.certify import NAMED, Certificate, Check, certify, named_models
from tlbench.console import (
    CERTIFICATE_HEADINGS,
    certificate_parts,
    certificate_row,
)
from tlbench.measure import flops
from tlbench.models import cost, layers, reference
from tlbench.models.memory import sample_activation_bytes
from tlbench.models.publication import (
    PublishedCost,
    PublishedParams,
    published_costs,
)
from tlbench.models.tokenlearner import TokenLearnerV11
from tlbench.models.vit import build_model
from tlbench.suites.braces import expand_braces
from tlbench.suites.model_spec import ModelSpec
from tlbench.suites.names import VARIANTS, model_name, parse_model
from tlbench.suites.published import RESULTS
from tlbench.units import UNKNOWN

TINY = "ViT-d16h2m32l2/4@16"
CLIPS = "ViViT-d16h2m32l2/4x2@16x4"
KINDS = [
    *(TINY + part for part in ("", ":token", ":map", "+pool2@1", "+TL3v1@1")),
    *(TINY + part for part in ("+TL3@0", "+TL3fuse@1", "+TL3v1mean@1", "+TL3@2")),
    *(CLIPS + part for part in ("", ":encoder", ":attention", ":dotproduct")),
    *(CLIPS + part for part in (":encoder:token", "+TL3v1@1", ":encoder+TL3@1")),
]


def checked(name: str) -> Certificate:
    return certify(parse_model(name), 7, on_real_tensors=False)


def outcomes(certificate: Certificate) -> dict[str, str]:
    return {check.name: check.outcome for check in certificate.checks}


def changed(change: Callable[[Any], object]) -> Callable[..., nn.Module]:
    """`build_model`, and something done to what it builds."""

    def build_changed(*arguments: Any, **options: Any) -> nn.Module:
        model = build_model(*arguments, **options)
        change(model)
        return model

    return build_changed


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_of_model_passes(name: str) -> None:
    spec = parse_model(name)
    certificate = certify(spec, 7)
    has_formulas = "pool" not in name and "ViViT" not in name
    assert outcomes(certificate) == {
        "parameters": "ok",
        "counter": "ok",
        "tokens": "ok",
        "place": "ok" if spec.token_learner else "skipped",
        "values": "ok" if spec.token_learner or has_formulas else "skipped",
        "profiler": "ok",
        "published": "skipped",
    }
    assert certificate.params == cost.params(spec, 7)
    macs = cost.macs(spec, 7)
    assert certificate.macs == certificate.counter_macs == macs
    assert certificate.profiler_macs == macs
    assert list(certificate.tokens) == layers.tokens(spec)
    assert certificate.failed == ()


def test_a_large_model_is_checked_without_being_run() -> None:
    certificate = certify(parse_model("ViT-G/14@518"), 1000)
    assert certificate.params == 1_846_289_384
    assert certificate.counter_macs == 2_820_030_566_912
    assert certificate.profiler_macs is None
    assert certificate.check("profiler") == Check(
        "profiler",
        "skipped",
        "2,820 GMACs would have to be executed; it is run up to 60",
    )
    assert certificate.failed == ()


def test_a_model_above_the_limit_is_executed_where_that_is_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "PROFILER_MAX_MACS", 0)
    spec = parse_model(TINY)
    assert certify(spec, 7).profiler_macs is None
    assert certify(spec, 7, is_thorough=True).profiler_macs == cost.macs(spec, 7)


def test_a_model_that_does_not_fit_into_memory_is_never_executed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    activations = sample_activation_bytes(parse_model("ViT-B/16"))
    free = flops.PROFILER_BYTES_PER_PARAM * 86_566_120 + activations - 1
    monkeypatch.setattr(
        psutil, "virtual_memory", lambda: SimpleNamespace(available=free)
    )
    check = certify(parse_model("ViT-B/16"), 1000, is_thorough=True).check("profiler")
    assert check.outcome == "skipped"
    assert check.finding.startswith("it would need 420 MiB of memory")


def test_parameters_of_a_layer_that_differ_are_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def widen(model: Any) -> None:
        model.blocks[1].norm1.extra = nn.Parameter(torch.zeros(5))

    monkeypatch.setattr(module, "build_model", changed(widen))
    check = checked(TINY).check("parameters")
    assert check.outcome == "fails"
    assert check.finding == (
        "blocks.1: 2,229 parameters are built, and its closed form gives 2,224"
    )


def test_parameters_of_no_layer_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def add(model: Any) -> None:
        model.extra = nn.Linear(2, 3)

    monkeypatch.setattr(module, "build_model", changed(add))
    check = checked(TINY).check("parameters")
    assert (check.outcome, check.finding) == (
        "fails",
        "extra.weight: 6 parameters of no layer (and 1 more)",
    )


def test_operations_and_tokens_that_differ_are_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def move(model: Any) -> None:
        blocks = model.blocks._modules
        if "token_learner" in blocks:  # now it stands before both blocks
            learner = blocks.pop("token_learner")
            model.blocks._modules = {"token_learner": learner, **blocks}

    monkeypatch.setattr(module, "build_model", changed(move))
    certificate = checked(f"{TINY}+TL3@1")
    failed = [check.name for check in certificate.failed]
    assert failed == ["counter", "tokens", "values"]
    assert certificate.check("counter").finding.startswith("blocks.0: its closed form")
    assert certificate.check("tokens").finding == (
        "blocks.0: 3 tokens enter, and its closed form gives 16"
    )


@pytest.mark.parametrize("name", [f"{TINY}+TL3v1@1", f"{TINY}+TL3fuse@1"])
def test_another_eps_is_found_in_the_values(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reference, "EPS", 1e-5)
    certificate = checked(name)
    assert [check.name for check in certificate.failed] == ["values"]
    assert certificate.value_difference is not None
    assert 1e-9 < certificate.value_difference < 1e-3


@pytest.mark.parametrize("parts", ["", ":token", ":map", "+TL3@1", "+TL3fuse@1"])
def test_another_gelu_is_found_in_the_values_of_the_whole(
    parts: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def spoil(model: Any) -> None:
        block = model.blocks[-1]
        getattr(block, "block", block).mlp.act = nn.GELU()  # with the error function

    monkeypatch.setattr(module, "build_model", changed(spoil))
    certificate = checked(TINY + parts)
    assert [check.name for check in certificate.failed] == ["values"]
    assert "a whole twin of width 16" in certificate.check("values").finding


def test_values_are_those_of_the_model_s_own_sizes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen = []

    def spy(x: Any, *_: Any) -> Any:
        seen.append(x.shape)
        return x[:, :3]

    monkeypatch.setattr(reference, "token_learner", spy)
    checked(f"{CLIPS}+TL3@1")
    assert seen == [(2, 16, 16)]  # two samples of one time step


def test_a_model_that_keeps_its_last_tokenlearner_is_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def build_keeping(spec: ModelSpec, *arguments: Any, **options: Any) -> Any:
        model: Any = build_model(spec, *arguments, **options)
        learner = spec.token_learner
        if learner is not None and learner.place == spec.depth:
            model.blocks.append(TokenLearnerV11(spec.embed_dim, learner.num_tokens))
        return model

    monkeypatch.setattr(module, "build_model", build_keeping)
    check = checked(f"{TINY}+TL3@1").check("place")
    assert check.outcome == "fails"
    assert check.finding.endswith("from the plain ViT")


def test_weights_drawn_otherwise_are_no_plain_vit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def draw(*_: object) -> None:
        torch.randn(1)

    def build_late(spec: ModelSpec, *arguments: Any, **options: Any) -> nn.Module:
        if spec.token_learner is not None and spec.token_learner.place == spec.depth:
            draw()
        return build_model(spec, *arguments, **options)

    monkeypatch.setattr(module, "build_model", build_late)
    assert checked(f"{TINY}+TL3@1").check("place").outcome == "fails"


def test_certifying_draws_nothing_from_the_caller_s_generator() -> None:
    torch.manual_seed(3)
    expected = torch.randn(1)
    torch.manual_seed(3)
    certify(parse_model(f"{TINY}+TL3@1"), 7)
    assert torch.equal(torch.randn(1), expected)


def test_a_builder_s_model_is_counted_and_nothing_more() -> None:
    certificate = checked(f"{TINY}+stride(step=2,place=1)")
    assert certificate.params == cost.params(parse_model(TINY), 7)
    assert certificate.macs is None
    assert certificate.counter_macs is not None
    assert certificate.counter_macs < cost.macs(parse_model(TINY), 7)
    assert set(outcomes(certificate).values()) == {"skipped"}
    assert "has no closed form of its cost" in certificate.check("counter").finding


# ---------------------------------------------------------------- the publication


def test_published_gflops_stand_beside_ours() -> None:
    (row,) = published_costs(parse_model("ViT-B/16@384"))
    assert (row.source, row.label) == ("TokenLearner, table 1", "ViT B/16")
    assert (row.published_gflops, row.verdict) == (55.6, "agrees")
    assert row.gflops == pytest.approx(55.63, abs=0.005)  # half of what XLA counts
    assert row.ratio == pytest.approx(55.63 / 55.6, abs=1e-4)


def test_a_known_misprint_is_marked_and_fails_nothing() -> None:
    spec = parse_model("ViT-B/32@384")
    (row,) = published_costs(spec)
    assert (row.published_gflops, row.verdict) == (19.8, "misprint")
    check = certify(spec, 1000, on_real_tensors=False).check("published")
    assert check.outcome == "ok"
    assert check.finding == (
        "0 of 1 rows agree; B/32 at 384 pixels has 13.0; no usual image size gives 19.8"
    )


def test_published_parameters_are_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = parse_model("ViT-L/8[24+11]@512+TL16v1@18")  # T3 alone, without GFLOPS
    check = certify(spec, 1000, on_real_tensors=False).check("published")
    assert (check.outcome, check.finding) == ("ok", "as many parameters as printed")
    other = [PublishedParams("TokenLearner, table 3", 460, 461.2)]
    monkeypatch.setattr(module, "published_params", lambda _: other)
    check = certify(spec, 1000, on_real_tensors=False).check("published")
    assert (check.outcome, check.finding) == (
        "fails",
        "TokenLearner, table 3 prints 460 million parameters, and 461.20 million are"
        " counted",
    )


@pytest.mark.parametrize(
    ("ours", "agrees"),
    [(459.4, False), (459.5, True), (460.78, True), (460.99, True), (461.0, False)],
)
def test_printed_parameters_are_rounded_or_cut(ours: float, agrees: bool) -> None:
    assert PublishedParams("T", 460, ours).agrees == agrees


def test_a_misprinted_accuracy_marks_no_cost() -> None:
    rows = published_costs(parse_model("ViT-B/16@384+TL16v1@6"))
    assert [(row.published_gflops, row.misprint) for row in rows] == [(28.7, None)] * 2


def test_a_number_that_is_not_ours_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cost, "published_flops", lambda *_: 56e9)
    check = certify(parse_model("ViT-B/16@384"), 1000, on_real_tensors=False).check(
        "published"
    )
    assert (check.outcome, check.finding) == (
        "fails",
        "TokenLearner, table 1 prints 55.6 GFLOPS, and 56.00 are counted in its way",
    )


@pytest.mark.parametrize(
    ("gflops", "verdict"), [(1.85, "agrees"), (1.96, "differs"), (1.84, "differs")]
)
def test_a_printed_value_stands_for_its_rounding(gflops: float, verdict: str) -> None:
    row = PublishedCost("T", "x", 1.9, gflops, error_gflops=0.05, misprint=None)
    assert row.verdict == verdict


def test_every_model_of_the_publication_and_every_variant_is_named() -> None:
    named = [model_name(spec) for spec, _ in named_models()]
    assert len(named) == len(set(named))
    published = {r.model for r in RESULTS if r.source.dataset != "epic_kitchens"}
    assert published - {None} <= set(named)
    assert {n for text in NAMED for n in expand_braces(text)} <= set(named)
    for letter in VARIANTS:
        assert any(name.startswith(f"ViT-{letter}/") for name in named)


def test_models_are_named_with_the_classes_of_their_data() -> None:
    classes = {model_name(spec): count for spec, count in named_models()}
    assert classes["ViT-B/16"] == 1000
    assert classes["ViViT-L/16x2+TL16v1@12"] == 400  # of Kinetics-400 and -600
    assert classes["ViViT-L/10x2[35]+TL16v1fuse@18"] == 600
    assert classes["ViViT-B/16x2+pool2@6"] == 400


@pytest.mark.slow
def test_every_named_model_is_certified() -> None:
    for spec, num_classes in named_models():
        certificate = certify(spec, num_classes, on_real_tensors=False)
        assert certificate.failed == (), certificate.model


# ---------------------------------------------------------------- what is shown

PAGE = Path(__file__).parents[3] / "docs" / "certificates.md"


def page_rows() -> list[dict[str, str]]:
    lines = [line for line in PAGE.read_text().splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert tuple(cells[0]) == CERTIFICATE_HEADINGS
    return [dict(zip(cells[0], row, strict=True)) for row in cells[2:]]


def test_page_lists_every_named_model_with_its_cost() -> None:
    rows, named = page_rows(), named_models()
    assert [row["model"] for row in rows] == [f"`{model_name(s)}`" for s, _ in named]
    for row, (spec, num_classes) in zip(rows, named, strict=True):
        assert row["parameters"] == f"{cost.params(spec, num_classes):,}"
        macs = cost.macs(spec, num_classes) / 1e9
        assert float(row["GMACs"].replace(",", "")) == pytest.approx(macs, rel=5e-4)
        tokens = layers.tokens(spec)
        assert row["tokens"] == f"{tokens[0]:,} to {tokens[-1]:,}"
        assert (row["torch"], row["verdict"]) == ("same", "ok")
        is_image = spec.video is None and spec.grid_pool is None
        has_formulas = spec.token_learner is not None or is_image
        assert row["values"] == ("same" if has_formulas else UNKNOWN)
        assert row["DeepSpeed"] == "same"


def test_page_has_the_published_numbers_and_their_misprints() -> None:
    for row, (spec, _) in zip(page_rows(), named_models(), strict=True):
        rows = published_costs(spec)
        printed = dict.fromkeys(
            f"{r.published_gflops:,}" + ("\N{DAGGER}" if r.misprint else "")
            for r in rows
        )
        assert row["published GFLOPS"] == (", ".join(printed) or UNKNOWN)
        for r in rows:
            assert f"{r.ratio:.3f}" in row["ratio"].split(", ")
    notes = [
        line
        for line in PAGE.read_text().splitlines()
        if line.startswith("- \N{DAGGER}")
    ]
    misprints = [
        r for spec, _ in named_models() for r in published_costs(spec) if r.misprint
    ]
    assert len(notes) == len(misprints)


def test_page_is_introduced_as_its_script_does() -> None:
    assert PAGE.read_text().startswith(certificates_page.INTRODUCTION)


def test_rows_show_what_was_compared() -> None:
    row = dict(
        zip(
            CERTIFICATE_HEADINGS, certificate_row(checked(f"{TINY}+TL3@1")), strict=True
        )
    )
    assert row["torch"] == row["values"] == "same"
    assert row["DeepSpeed"] == row["published GFLOPS"] == row["ratio"] == UNKNOWN
    assert (row["tokens"], row["verdict"]) == ("16 to 3", "ok")


def test_rows_name_what_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reference, "EPS", 1e-5)
    row = certificate_row(checked(f"{TINY}+TL3@1"))
    assert row[-1] == "fails: values"
    assert row[CERTIFICATE_HEADINGS.index("values")] == "other"


def test_rows_of_a_builder_show_what_was_counted() -> None:
    certificate = checked(f"{TINY}+stride(step=2,place=1)")
    row = dict(zip(CERTIFICATE_HEADINGS, certificate_row(certificate), strict=True))
    assert row["verdict"] == "counted only"
    assert row["GMACs"] == UNKNOWN  # of the closed form, which there is none of
    assert certificate.counter_macs is not None
    assert float(row["torch"]) == pytest.approx(
        certificate.counter_macs / 1e9, rel=1e-3
    )


def test_a_builder_s_model_without_a_count_has_its_reason() -> None:
    source = "def build(model):\n    return model.no_such_layer\n"
    spec = parse_model(f"{TINY}+my.py:build")
    certificate = certify(spec, 7, sources={"my.py": source})
    row = dict(zip(CERTIFICATE_HEADINGS, certificate_row(certificate), strict=True))
    assert (row["torch"], row["verdict"]) == (UNKNOWN, "not counted")
    console = Console(file=io.StringIO(), width=200)
    for part in certificate_parts([certificate]):
        console.print(part)
    assert isinstance(console.file, io.StringIO)
    assert (
        f"{certificate.model} cannot be built on the meta device: my.py:2: Attribute"
        in console.file.getvalue()
    )
