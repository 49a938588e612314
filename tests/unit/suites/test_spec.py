"""The schema: identities of cases, and values that it refuses."""

from typing import Any

import pytest
from pydantic import ValidationError

from tlbench.suites.model_spec import ModelSpec
from tlbench.suites.names import parse_model
from tlbench.suites.spec import Case, Parallelism, Suite
from tlbench.suites.training import Optimizer

B16 = {
    "patch_size": 16,
    "embed_dim": 768,
    "depth": 12,
    "num_heads": 12,
    "mlp_dim": 3072,
}


def case(**fields: Any) -> Case:
    return Case.model_validate({"model": parse_model("ViT-B/16"), **fields})


def test_identity_of_a_known_case_is_frozen() -> None:
    # Stored results are found by it: if this fails, an old database has lost its past.
    known = case(
        model=parse_model("ViT-B/16+TL8@1/4"), mode="train", optimizer=Optimizer()
    )
    assert known.canonical() == {
        "mode": "train",
        "model": {**B16, "token_learner": {"num_tokens": 8, "place": 3}},
    }
    assert (
        known.identity
        == "d9c82661a6f4d97130e2c23093a370c15d20a15eaa5ee98a2e1e6d7457a93efb"
    )


def test_defaults_spelled_out_do_not_change_the_identity() -> None:
    written_out = case(
        mode="train",
        **{
            name: field.default
            for name, field in Case.model_fields.items()
            if not field.is_required()
        },
    )
    assert written_out.identity == case(mode="train").identity


def test_spelled_out_model_is_the_published_one() -> None:
    spelled_out = ModelSpec.model_validate({**B16, "image_size": 224})
    assert case(mode="infer", model=spelled_out) == case(mode="infer")


def test_name_of_a_model_does_not_change_the_identity() -> None:
    named = ModelSpec.model_validate({**B16, "name": "mine"})
    assert case(mode="infer", model=named).identity == case(mode="infer").identity


def test_order_of_fields_does_not_change_the_identity() -> None:
    fields = {"mode": "train", "batch_size": 32, "precision": "bf16", "data": "digits"}
    backwards = dict(reversed(fields.items()))
    assert case(**fields).identity == case(**backwards).identity


def test_whole_number_and_its_float_are_the_same_setting() -> None:
    whole, real = (
        case(mode="infer", timing={"max_time_s": limit}) for limit in (3, 3.0)
    )
    assert whole.identity == real.identity


@pytest.mark.parametrize(
    ("mode", "change"),
    [
        ("profile", {"batch_size": 32}),
        ("profile", {"precision": "bf16"}),
        ("profile", {"parallelism": {"world_size": 2}}),
        ("infer", {"optimizer": {"learning_rate": 0.5}}),
        ("infer", {"fit": {"epochs": 3}}),
        ("infer", {"parallelism": {"zero_stage": 3}}),
        ("infer", {"parallelism": {"zero_stage": 3, "offload": "all"}}),
        ("infer", {"drop_path_rate": 0.1}),
        ("infer", {"gradient_checkpointing": True}),
        ("profile", {"gradient_checkpointing": True}),
        ("train", {"fit": {"epochs": 3}}),
        ("fit", {"data": "digits", "timing": {"max_steps": 20}}),
        ("fit", {"data": "digits", "stack": "torch"}),
        ("fit", {"data": "digits", "input": {"kind": "loader"}}),
        ("profile", {"batch_size": "max"}),
        ("infer", {"stack": "ray"}),
        ("infer", {"memory_limit_gib": 2}),
    ],
)
def test_setting_that_the_mode_does_not_read_makes_no_new_case(
    mode: str, change: dict[str, Any]
) -> None:
    data = {"data": "digits"} if mode == "fit" else {}
    assert case(mode=mode, **change).identity == case(mode=mode, **data).identity


@pytest.mark.parametrize(
    ("mode", "change"),
    [
        ("profile", {"data": "digits"}),
        ("infer", {"batch_size": 32}),
        ("infer", {"timing": {"max_steps": 20}}),
        ("infer", {"parallelism": {"world_size": 2}}),
        ("train", {"optimizer": {"learning_rate": 0.5}}),
        ("train", {"parallelism": {"zero_stage": 3}}),
        ("train", {"parallelism": {"zero_stage": 1, "offload": "optimizer"}}),
        ("train", {"compile": True}),
        ("train", {"drop_path_rate": 0.1}),
        ("train", {"gradient_checkpointing": True}),
        ("train", {"stack": "ray"}),
        ("infer", {"stack": "torch"}),
        ("infer", {"input": {"kind": "loader"}}),
        ("infer", {"batch_size": "max"}),
    ],
)
def test_setting_that_the_mode_reads_makes_a_new_case(
    mode: str, change: dict[str, Any]
) -> None:
    assert case(mode=mode, **change).identity != case(mode=mode).identity


def test_setting_is_checked_even_where_the_mode_does_not_read_it() -> None:
    with pytest.raises(ValidationError, match="learning_rate"):
        case(mode="infer", optimizer={"learning_rate": -1.0})


def test_batch_is_shared_by_ranks_and_accumulated_parts() -> None:
    shared = case(
        mode="train",
        batch_size=24,
        parallelism={"world_size": 2},
        optimizer={"gradient_accumulation_steps": 3},
    )
    assert shared.micro_batch_size == 4


def test_memory_limit_of_a_batch_to_be_found_makes_a_new_case() -> None:
    unlimited = case(mode="infer", batch_size="max")
    limited = case(mode="infer", batch_size="max", memory_limit_gib=2)
    assert limited.identity != unlimited.identity


@pytest.mark.parametrize(
    ("mode", "fields", "metric"),
    [
        ("infer", {}, "throughput_samples_per_s"),
        ("profile", {}, "macs"),
        ("evaluate", {}, "top1_percent"),
        ("fewshot", {}, "fewshot_5_top1_percent"),
        ("fewshot", {"fewshot": {"shots": "1,10"}}, "fewshot_10_top1_percent"),
    ],
)
def test_main_metric_is_what_a_mode_is_run_for(
    mode: str, fields: dict[str, Any], metric: str
) -> None:
    assert case(mode=mode, data="digits", **fields).main_metric == metric


def test_clips_of_several_labels_are_for_mean_average_precision() -> None:
    clips = {"model": parse_model("ViViT-B/16x2"), "data": "charades"}
    assert case(mode="evaluate", **clips).main_metric == "map_percent"
    with pytest.raises(ValidationError, match="learns one label of each sample"):
        case(mode="fewshot", **clips)


def test_batch_to_be_found_has_no_size_yet() -> None:
    with pytest.raises(ValueError, match="has to be found first"):
        _ = case(mode="train", batch_size="max").micro_batch_size


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"batch_size": 7, "parallelism": {"world_size": 2}}, "batch_size=7 does not"),
        ({"optimizer": {"learning_rate": float("inf")}}, "finite number"),
        ({"optimizer": {"weight_decay": float("nan")}}, "finite number"),
        ({"parallelism": {"zero_stage": True}}, "zero_stage"),
        ({"parallelism": {"zero_stage": 1.0}}, "zero_stage"),
        ({"batch_size": True}, "valid integer"),
        ({"batch_size": "most"}, "neither a whole number nor max"),
        ({"mode": "fit", "data": "digits", "batch_size": "max"}, "a number would do"),
        ({"input": {"workers": 2}}, "have nothing to load with kind=fixed"),
        ({"stack": "torch", "parallelism": {"world_size": 2}}, "is one process"),
        ({"stack": "ray", "parallelism": {"zero_stage": 1}}, "has no ZeRO"),
        (
            {"stack": "torchrun", "parallelism": {"world_size": 2, "nodes": 2}},
            "stays on one node",
        ),
        ({"timing": {"min_steps": 50, "max_steps": 20}}, "min_steps=50 exceeds"),
        ({"drop_path_rate": 1.0}, "less than 1"),
        (
            {"mode": "fit", "data": "digits", "fit": {"steps": 5, "warmup_steps": 6}},
            "warmup_steps=6 exceeds steps=5",
        ),
        (
            {"mode": "fit", "data": "digits", "augment": {"min_scale": 2}},
            "min_scale=2.0 exceeds max_scale=1.0",
        ),
        ({"parallelism": {"offload": "optimizer"}}, "needs ZeRO stage 1 at least"),
        (
            {"parallelism": {"zero_stage": 2, "offload": "all"}},
            "offload=all needs ZeRO stage 3 at least, and zero_stage=2",
        ),
        ({"model": {**B16, "num_heads": 5}}, "does not divide over num_heads=5"),
        (
            {
                "model": {
                    **B16,
                    "token_learner": {"num_tokens": 8, "place": 6},
                    "grid_pool": {"window": 2, "places": (6,)},
                }
            },
            "cannot both stand in one model",
        ),
        ({"model": {**B16, "name": "two\nlines"}}, "is not a name"),
        ({"model": {**B16, "name": ""}}, "at least 1 character"),
    ],
)
def test_case_refuses(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        case(**{"mode": "train", **fields})


@pytest.mark.parametrize("nodes", [2, 4])
def test_parallelism_refuses_ranks_that_do_not_fill_the_nodes(nodes: int) -> None:
    with pytest.raises(ValidationError, match="does not divide over nodes"):
        Parallelism(world_size=3, nodes=nodes)


def test_suite_without_a_case_is_refused() -> None:
    with pytest.raises(ValidationError, match="at least 1 item"):
        Suite(name="empty", cases=(), repeats={})


@pytest.mark.parametrize(
    ("name", "sample_shape", "time_steps", "num_patches", "num_classes"),
    [
        ("ViT-B/16@390", (3, 390, 390), 1, 24 * 24, 1000),
        ("ViViT-B/16x2", (3, 32, 224, 224), 16, 16 * 14 * 14, 400),
        ("ViViT-B/16x3@230x32:encoder", (3, 32, 230, 230), 10, 10 * 14 * 14, 400),
    ],
)
def test_sample_and_classes_follow_from_the_model(
    name: str,
    sample_shape: tuple[int, ...],
    time_steps: int,
    num_patches: int,
    num_classes: int,
) -> None:
    model = parse_model(name)
    assert model.sample_shape == sample_shape
    assert (model.time_steps, model.num_patches) == (time_steps, num_patches)
    assert case(mode="infer", model=model).num_classes == num_classes


def test_clips_are_not_asked_of_a_data_set_of_images() -> None:
    message = "data=digits has no clips, which the model reads; synthetic, "
    with pytest.raises(ValidationError, match=message):
        case(mode="infer", model=parse_model("ViViT-B/16x2"), data="digits")


def test_settings_of_video_spelled_out_do_not_change_the_identity() -> None:
    written_out = ModelSpec.model_validate(
        {
            **B16,
            "global_pool": "avg",
            "video": {
                "num_frames": 32,
                "tubelet_size": 2,
                "factorisation": "joint",
                "temporal_depth": 0,
            },
        }
    )
    named = case(mode="infer", model=parse_model("ViViT-B/16x2"))
    assert case(mode="infer", model=written_out).identity == named.identity
