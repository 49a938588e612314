"""From a suite to ordered trials and what they are expected to cost."""

import json
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest

from support.machine import MACHINE
from tlbench.console import plan_table
from tlbench.errors import TrialError
from tlbench.frontier import at_batch, predict_largest
from tlbench.models import cost
from tlbench.models.layers import layers
from tlbench.models.memory import predicted_memory_bytes
from tlbench.plan import (
    PHASES,
    Forecast,
    describe,
    describe_model,
    forecast,
    matmul_flops_per_s,
    order_trials,
)
from tlbench.suites.names import model_name, parse_model
from tlbench.suites.spec import MODES, Case, Mode, Suite, Timing

SPEED = 1e12
"""FLOP per second of an imaginary device."""


REPEATS = {"profile": 1, "infer": 5, "train": 3, "fit": 2, "fewshot": 1, "evaluate": 1}


def make_suite(**changes: Any) -> Suite:
    """Six models in every mode, with unlike numbers of repeats."""
    models = [parse_model(f"ViT-Ti/16+TL8@{place}") for place in range(1, 7)]
    cases = [
        Case(model=model, mode=mode, data="digits")
        for model in models
        for mode in MODES
    ]
    settings: dict[str, Any] = {
        "name": "six",
        "cases": tuple(cases),
        "repeats": REPEATS,
    }
    return Suite.model_validate(settings | changes)


def order(seed: int) -> list[tuple[str, int]]:
    trials = order_trials(make_suite(seed=seed))
    return [(trial.case.identity, trial.repeat) for trial in trials]


def phase_of(mode: Mode) -> int:
    return next(number for number, phase in enumerate(PHASES) if mode in phase)


def test_every_case_has_as_many_trials_as_its_mode_has_repeats() -> None:
    suite = make_suite()
    planned = Counter(trial.case for trial in order_trials(suite))
    assert planned == {case: suite.repeats[case.mode] for case in suite.cases}


def test_every_case_stands_once_in_every_block() -> None:
    suite = make_suite()
    planned = Counter((t.case.identity, t.repeat) for t in order_trials(suite))
    assert planned == {
        (case.identity, repeat): 1
        for case in suite.cases
        for repeat in range(suite.repeats[case.mode])
    }


def test_a_block_ends_before_the_next_begins() -> None:
    for number in range(len(PHASES)):
        blocks = [
            trial.repeat
            for trial in order_trials(make_suite())
            if phase_of(trial.case.mode) == number
        ]
        assert blocks == sorted(blocks)


def test_phases_come_in_their_order() -> None:
    phases = [phase_of(trial.case.mode) for trial in order_trials(make_suite())]
    assert phases == sorted(phases)


def test_every_mode_belongs_to_one_phase() -> None:
    assert sorted(mode for phase in PHASES for mode in phase) == sorted(MODES)


def test_the_same_seed_gives_the_same_order() -> None:
    assert order(4) == order(4)


def test_another_seed_gives_another_order() -> None:
    assert order(4) != order(5)


def test_the_blocks_of_a_run_are_shuffled_each_in_its_own_way() -> None:
    trials = [t for t in order_trials(make_suite()) if t.case.mode == "infer"]
    blocks = [
        tuple(t.case.identity for t in trials if t.repeat == repeat)
        for repeat in range(5)
    ]
    assert len(set(blocks)) > 1


def test_positions_count_up_and_seeds_follow_the_repeat() -> None:
    trials = order_trials(make_suite(seed=30))
    assert [trial.position for trial in trials] == list(range(len(trials)))
    assert all(trial.seed == 30 + trial.repeat for trial in trials)


def test_a_forecast_takes_the_median_of_earlier_trials() -> None:
    suite = make_suite()
    known = suite.cases[3].identity
    forecasts = forecast(suite, {known: [9.0, 2.0, 3.0]}, SPEED)
    for item, case in zip(forecasts, suite.cases, strict=True):
        assert item.identity == case.identity
        if item.identity == known:
            assert (item.trial_time_s, item.time_source) == (3.0, "history")
        else:
            assert item.time_source == "estimate"


def test_a_forecast_has_the_closed_form_cost_of_the_model() -> None:
    suite = make_suite()
    for item in forecast(suite, {}, SPEED):
        assert item.params == cost.params(item.case.model, 10)
        assert item.macs == cost.macs(item.case.model, 10)
        assert item.memory_bytes == predicted_memory_bytes(item.case)
        assert item.repeats == suite.repeats[item.case.mode]


def test_a_forecast_has_training_macs_where_the_case_trains() -> None:
    for item in forecast(make_suite(), {}, SPEED):
        flops = cost.train_flops(item.case.model, 10)
        trains = item.case.mode in ("train", "fit")
        assert item.train_macs == (flops / 2 if trains else None)


def test_memory_as_json_has_the_parts_of_every_setting() -> None:
    (item,) = forecast(make_suite(cases=(make_suite().cases[2],)), {}, SPEED)
    assert item.case.mode == "train"
    described = describe(item)["memory"]
    assert [(d["precision"], d["zero_stage"]) for d in described] == [
        (precision, stage) for precision in ("fp32", "bf16") for stage in range(4)
    ]
    assert described[0]["total_bytes"] == item.memory_bytes
    assert described[0]["total_bytes"] == sum(
        described[0][f"{part}_bytes"]
        for part in ("weights", "gradients", "optimizer", "activations")
    )
    assert json.loads(json.dumps(described)) == described


def estimate(speed: float, **settings: Any) -> float:
    model = parse_model("ViT-B/16")
    case = Case.model_validate({"model": model, "data": "digits"} | settings)
    suite = Suite(name="one", cases=(case,), repeats={case.mode: 1})
    return forecast(suite, {}, speed)[0].trial_time_s


def test_an_estimate_of_training_to_accuracy_grows_with_the_epochs() -> None:
    flops = cost.train_flops(parse_model("ViT-B/16"), 10)
    short = estimate(SPEED, mode="fit", fit={"epochs": 2})
    long = estimate(SPEED, mode="fit", fit={"epochs": 5})
    assert long - short == pytest.approx(3 * 1442 * flops / SPEED)


def test_an_estimate_of_evaluation_grows_with_the_views() -> None:
    flops = 2 * cost.macs(parse_model("ViT-B/16"), 10)
    one = estimate(SPEED, mode="evaluate")
    three = estimate(SPEED, mode="evaluate", view={"spatial_crops": 3})
    assert three - one == pytest.approx(2 * 355 * flops / SPEED)


def test_an_estimate_of_few_shot_probes_counts_what_they_learn_from() -> None:
    flops = 2 * cost.macs(parse_model("ViT-B/16"), 10)
    asked = estimate(SPEED, mode="evaluate")
    few = estimate(SPEED, mode="fewshot", fewshot={"shots": "1,5", "seeds": 4})
    many = estimate(SPEED, mode="fewshot", fewshot={"shots": "100", "seeds": 4})
    assert few - asked == pytest.approx(4 * 5 * 10 * flops / SPEED)
    assert many - asked == pytest.approx(1442 * flops / SPEED)  # all that there are


def test_an_estimate_holds_at_least_the_time_that_is_asked_for() -> None:
    timing = {"max_time_s": 100.0, "max_steps": 1_000_000}
    assert 100 < estimate(1e15, mode="train", timing=timing) < 110


def test_an_estimate_ends_with_the_last_step_that_is_asked_for() -> None:
    timing = {"max_time_s": 0.1, "min_steps": 2, "max_steps": 2}
    flops = 2 * cost.macs(parse_model("ViT-B/16"), 10)
    taken = estimate(flops, mode="infer", batch_size=1, timing=timing)
    assert taken == pytest.approx(3 + (1 + 0.1) + 2 + 4)  # start, warm-up, timed, rest


def test_more_ranks_make_a_step_shorter() -> None:
    alone = estimate(1e9, mode="train", batch_size=64)
    shared = estimate(1e9, mode="train", batch_size=64, parallelism={"world_size": 4})
    assert alone / shared == pytest.approx(4, rel=0.01)


def test_a_profile_needs_no_device() -> None:
    assert estimate(1.0, mode="profile") == estimate(SPEED, mode="profile") < 10


def test_a_forecast_as_json_has_the_canonical_case() -> None:
    (item, *_) = forecast(make_suite(), {}, SPEED)
    described = describe(item)
    assert described["case"] == item.case.canonical()
    assert described["identity"] == item.identity
    assert described["trial_time_s"] == item.trial_time_s


def built_suite() -> Suite:
    """A model before and after a user's builder and one of tlbench's own."""
    names = ("ViT-B/16", "my.py:build", "ViT-B/16+tome(r=8)")
    cases = tuple(Case(model=parse_model(name), mode="infer") for name in names)
    return Suite(
        name="built",
        cases=cases,
        repeats={"infer": 2},
        sources={"my.py": "def build(model): ..."},
    )


def test_the_text_of_a_users_file_goes_with_the_trials_of_its_builder() -> None:
    sources = {model_name(t.case.model): t.source for t in order_trials(built_suite())}
    assert sources == {
        "ViT-B/16": None,
        "ViT-B/16+my.py:build": "def build(model): ...",
        "ViT-B/16+tome(r=8)": None,
    }


def test_a_forecast_of_a_builder_knows_its_time_alone() -> None:
    plain, users, own = forecast(built_suite(), {}, SPEED)
    for item in (users, own):
        assert (item.params, item.macs, item.memory_bytes) == (None, None, None)
        assert item.memory == ()
        assert item.trial_time_s == plain.trial_time_s
        assert json.loads(json.dumps(describe(item)))["macs"] is None


def test_a_builders_model_is_described_by_counting() -> None:
    described = describe_model(parse_model("ViT-Ti/16+stride(step=2,place=0)"), 1000)
    assert described["params"] == cost.params(parse_model("ViT-Ti/16"), 1000)
    # 49 tokens in all blocks, 196 in the embedding.
    small, large = parse_model("ViT-Ti/32"), parse_model("ViT-Ti/16")
    embeddings = [next(layers(spec, 1000)).macs for spec in (small, large)]
    assert described["macs"] == cost.macs(small, 1000) - embeddings[0] + embeddings[1]
    assert described["flops"] == 2 * described["macs"]
    assert (described["tokens"], described["reason"]) == (None, None)


def test_a_users_model_is_described_by_counting() -> None:
    source = "def build(model):\n    del model.blocks[1:]\n    return model\n"
    described = describe_model(parse_model("my.py:build"), 1000, {"my.py": source})
    shallow = parse_model("ViT-B/16[1]")
    assert described["macs"] == cost.macs(shallow, 1000)
    assert described["train_flops"] == cost.train_flops(shallow, 1000)


def test_a_model_that_cannot_be_built_is_an_error_with_the_users_line() -> None:
    source = "def build(model):\n    return model.no_such_layer\n"
    with pytest.raises(TrialError) as caught:
        describe_model(parse_model("my.py:build"), 1000, {"my.py": source})
    assert str(caught.value) == (
        "'ViT-B/16+my.py:build' cannot be built on the meta device: my.py:2:"
        " AttributeError: 'VisionTransformer' object has no attribute 'no_such_layer'"
    )


def test_a_model_is_described_by_its_name_cost_and_sizes() -> None:
    spec = parse_model("ViT-B/16+TL8@1/4")
    described = describe_model(spec, 1000)
    assert described["name"] == "ViT-B/16+TL8@3"  # a quarter of 12 blocks
    assert described["params"] == cost.params(spec, 1000)
    assert described["flops"] == 2 * described["macs"] == 2 * cost.macs(spec, 1000)
    assert described["tokens"] == [196] * 3 + [8] * 9
    assert (described["embed_dim"], described["num_classes"]) == (768, 1000)


def largest(**settings: Any) -> Forecast:
    """The forecast of a case that asks for the largest batch."""
    changes = {"model": parse_model("ViT-Ti/16"), "mode": "infer", "batch_size": "max"}
    case = Case.model_validate(changes | settings)
    suite = Suite(name="one", cases=(case,), repeats={case.mode: 2})
    return forecast(suite, {}, SPEED)[0]


def test_the_largest_batch_is_predicted_with_its_memory() -> None:
    item = largest(memory_limit_gib=1.0)
    predicted = predict_largest(item.case, "cpu", 2**30)
    assert item.batch_size == predicted
    known = at_batch(item.case, predicted or 0)
    assert item.memory_bytes == predicted_memory_bytes(known)
    assert json.loads(json.dumps(describe(item)))["batch_size"] == predicted


@pytest.mark.parametrize(
    ("settings", "shown"),
    [
        ({"memory_limit_gib": 1.0}, "max, about {}"),
        ({}, "max"),
        ({"batch_size": 48}, "48"),
    ],
)
def test_the_table_says_that_a_largest_batch_is_a_prediction(
    settings: dict[str, Any], shown: str
) -> None:
    item = largest(**settings)
    (cell,) = plan_table([item]).columns[3].cells
    assert str(cell) == shown.format(item.batch_size)


def test_a_search_costs_its_probes_once_for_all_repeats() -> None:
    item = largest(memory_limit_gib=1.0)
    known = at_batch(item.case, item.batch_size or 0)
    suite = Suite(name="one", cases=(known,), repeats={"infer": 2})
    without = forecast(suite, {}, SPEED)[0].trial_time_s
    flops = 2 * cost.macs(known.model, 1000) * known.global_batch_size
    probes_s = 5 * (3 + 3 * flops / SPEED)  # start, and three steps
    assert item.trial_time_s == pytest.approx(without + probes_s / 2)


def test_without_a_limit_the_batch_is_not_known_before_the_run() -> None:
    item = largest()
    assert (item.batch_size, item.memory_bytes, item.memory) == (None, None, ())
    assert json.loads(json.dumps(describe(item)))["batch_size"] is None


def test_all_of_a_gpu_is_the_limit_where_the_suite_sets_none() -> None:
    case = largest().case
    suite = Suite(name="one", cases=(case,), repeats={"infer": 1})
    gpu = replace(MACHINE, gpu_count=1, gpu_memory_bytes=2**34)
    (item,) = forecast(suite, {}, SPEED, machine=gpu)
    assert item.batch_size == predict_largest(case, "cuda", 2**34)


def test_a_calibrated_speed_comes_before_the_guessed_one() -> None:
    flops = 2 * cost.macs(parse_model("ViT-B/16"), 1000)
    timing = Timing(max_time_s=0.1, min_steps=2, max_steps=2)
    case = Case(
        model=parse_model("ViT-B/16"), mode="infer", batch_size=1, timing=timing
    )
    suite = Suite(name="one", cases=(case,), repeats={"infer": 1})
    measured = {"matmul_fp32_flops_per_s": flops, "matmul_bf16_flops_per_s": 1.0}
    (item,) = forecast(suite, {}, SPEED, measured)
    assert item.trial_time_s == pytest.approx(3 + (1 + 0.1) + 2 + 4)


def test_the_speed_of_a_gpu_is_not_that_of_a_case_on_the_cpu_beside_it() -> None:
    cases = tuple(
        Case(model=parse_model("ViT-B/16"), mode="infer", device=device)
        for device in ("cpu", "auto")
    )
    suite = Suite(name="two", cases=cases, repeats={"infer": 1})
    gpu = replace(MACHINE, gpu_name="NVIDIA L4", gpu_count=1)
    measured = {"matmul_fp32_flops_per_s": 100 * SPEED}
    on_cpu, on_gpu = forecast(suite, {}, SPEED, measured, gpu)
    assert on_cpu.trial_time_s == forecast(suite, {}, SPEED)[0].trial_time_s
    assert on_gpu.trial_time_s < on_cpu.trial_time_s


def test_a_precision_that_was_not_calibrated_is_as_fast_as_fp32() -> None:
    case = Case(model=parse_model("ViT-B/16"), mode="infer", precision="bf16")
    suite = Suite(name="one", cases=(case,), repeats={"infer": 1})
    measured = {"matmul_fp32_flops_per_s": 3 * SPEED, "matmul_bf16_flops_per_s": None}
    assert forecast(suite, {}, SPEED, measured) == forecast(suite, {}, 3 * SPEED)


def test_the_speed_of_a_matmul_is_one() -> None:
    assert 1e8 < matmul_flops_per_s() < 1e14
