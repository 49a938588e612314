"""From a suite to ordered trials and what they are expected to cost."""

from collections import Counter
from typing import Any

import pytest

from tlbench.models import cost
from tlbench.plan import (
    PHASES,
    describe,
    describe_model,
    forecast,
    matmul_flops_per_s,
    order_trials,
)
from tlbench.suites.names import parse_model
from tlbench.suites.spec import MODES, Case, Mode, Suite

SPEED = 1e12
"""FLOP per second of an imaginary device."""


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
        "repeats": {"profile": 1, "infer": 5, "train": 3, "fit": 2},
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
        assert item.memory_bytes == cost.predicted_memory_bytes(item.case)
        assert item.repeats == suite.repeats[item.case.mode]


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


def test_an_estimate_holds_at_least_the_time_that_is_asked_for() -> None:
    timing = {"max_time_s": 100.0}
    assert 100 < estimate(1e18, mode="train", timing=timing) < 110


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


def test_a_model_is_described_by_its_name_cost_and_sizes() -> None:
    spec = parse_model("ViT-B/16+TL8@1/4")
    described = describe_model(spec, 1000)
    assert described["name"] == "ViT-B/16+TL8@3"  # a quarter of 12 blocks
    assert described["params"] == cost.params(spec, 1000)
    assert described["flops"] == 2 * described["macs"] == 2 * cost.macs(spec, 1000)
    assert described["tokens"] == [196] * 3 + [8] * 9
    assert (described["embed_dim"], described["num_classes"]) == (768, 1000)


def test_the_speed_of_a_matmul_is_one() -> None:
    assert 1e8 < matmul_flops_per_s() < 1e14
