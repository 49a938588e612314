"""The sentences of the answer, in the usual case and in every corner."""

from typing import Any

import pytest

from support.report_run import RunBuilder, model, timed, trained
from tlbench.reports.cases import gather
from tlbench.reports.compare import comparisons
from tlbench.reports.findings import find
from tlbench.suites.model_spec import BuilderSpec
from tlbench.suites.spec import Case


def sentences(*runs: RunBuilder) -> list[str]:
    trials = [trial for run in runs for trial in run.trials]
    cases = gather([run.record for run in runs], trials)
    return [finding.text for finding in find(cases, comparisons(cases))]


def infer(place: int | None, **changes: object) -> Case:
    return Case.model_validate({"model": model(place), "mode": "infer", **changes})


def test_the_usual_run_is_answered_in_three_sentences(run: RunBuilder) -> None:
    run.add(infer(None), timed([100.0, 110.0, 105.0], 4e8, 2e9))
    run.add(infer(1), timed([200.0, 209.0, 195.0], 2e8, 1e9))
    for place, top1 in ((None, (97.0, 97.5, 96.8)), (1, (96.0, 96.4, 95.9))):
        fit = Case(model=model(place), mode="fit", data="digits")
        run.add(fit, trained(top1, 1e9))

    speed, accuracy, cost = sentences(run)

    # Geometric mean of 2, 1.9 and 1.857; t with 2 degrees of freedom.
    assert speed == (
        "In inference at batch 8 in fp32, ViT-tiny+TL8@1 runs at 1.92 times the speed"
        " of ViT-tiny (95 % interval 1.75 to 2.11, 3 paired trials): faster."
    )
    # Differences -1.0, -1.1, -0.9.
    assert accuracy == (
        "Trained on digits, ViT-tiny+TL8@1 reaches a median top-1 of 96.0 % and"
        " ViT-tiny 97.0 %: a loss of 1.0 points"
        " (95 % interval \N{MINUS SIGN}1.2 to \N{MINUS SIGN}0.75, 3 paired trials)."
    )
    assert cost.startswith(
        "For ViT-tiny+TL8@1, the count of multiply-adds predicts 2.00 times the speed,"
        " of which 95.9 % is realised (95 % interval 87.3 to 105 %), and the memory"
        " that its steps take is 0.500 times that of ViT-tiny"
    )


@pytest.mark.parametrize(
    ("speeds", "words"),
    [
        ([50.0, 52.0, 51.0], "slower"),
        ([100.0, 102.0, 101.0], "no difference beyond 2 %"),
        ([80.0, 130.0, 105.0], "not settled"),
    ],
)
def test_speed_says_so_where_nothing_is_won(
    run: RunBuilder, speeds: list[float], words: str
) -> None:
    run.add(infer(None), timed([100.0, 102.0, 101.0], 4e8))
    run.add(infer(1), timed(speeds, 2e8))
    speed = sentences(run)[0]
    assert words in speed
    assert "faster" not in speed


def test_the_largest_settled_speedup_is_named(smoke: RunBuilder) -> None:
    speed = sentences(smoke)[0]
    assert "ViT-tiny+TL8@1 runs at 1.90 times" in speed
    assert speed.endswith("it is the largest of 4 speed-ups.")


def test_a_wide_interval_does_not_beat_a_settled_speedup(run: RunBuilder) -> None:
    run.add(infer(None), timed([100.0, 101.0, 102.0], 4e8))
    run.add(infer(1), timed([50.0, 900.0, 400.0], 2e8))
    run.add(infer(2), timed([150.0, 151.0, 153.0], 2e8))
    speed = sentences(run)[0]
    assert "ViT-tiny+TL8@2" in speed
    assert speed.endswith("faster; it is one of 2 speed-ups.")


def test_one_trial_settles_nothing(run: RunBuilder) -> None:
    for place, throughput, top1 in ((None, 100.0, 97.0), (1, 200.0, 96.0)):
        run.add(infer(place), timed([throughput], 1e9))
        fit = Case(model=model(place), mode="fit", data="digits")
        run.add(fit, trained([top1], 1e9))
    speed, accuracy, _ = sentences(run)
    assert speed.endswith("(a side of one trial gives no interval): not settled.")
    assert "apart, not settled (a side of one trial gives no interval)" in accuracy


@pytest.mark.parametrize(
    ("top1", "said"),
    [
        ((97.2, 97.0, 96.9), "apart, not settled (95 % interval"),
        ((97.1, 97.4, 96.9), "no difference beyond 0.5 points (+"),
        ((99.1, 99.4, 98.9), "a gain of 2.1 points"),
        ((95.1, 95.4, 94.9), "a loss of 1.9 points"),
    ],
)
def test_accuracy_is_judged_by_the_whole_interval(
    run: RunBuilder, top1: tuple[float, ...], said: str
) -> None:
    for place, values in ((None, (97.0, 97.4, 96.8)), (1, top1)):
        fit = Case(model=model(place), mode="fit", data="digits")
        run.add(fit, trained(values, 1e9))
    assert said in sentences(run)[1]


def test_outcomes_of_several_comparisons_are_counted(run: RunBuilder) -> None:
    for place, values in (
        (None, (95.0, 95.4)),
        (1, (97.0, 97.5)),
        (2, (90.0, 90.5)),
        (3, (99.0, 91.0)),
    ):
        fit = Case(model=model(place), mode="fit", data="digits")
        run.add(fit, trained(values, 1e9))
    told = "; of 3 comparisons, accuracy is gained in 1, lost in 1, not settled in 1."
    assert sentences(run)[1].endswith(told)


def test_a_gain_in_accuracy_is_called_a_gain(run: RunBuilder) -> None:
    for place, top1 in ((None, (95.0, 95.4)), (1, (97.0, 97.5))):
        fit = Case(model=model(place), mode="fit", data="digits")
        run.add(fit, trained(top1, 1e9))
    assert "a gain of" in sentences(run)[1]


def test_no_trials_say_that_there_are_none(run: RunBuilder) -> None:
    speed, accuracy, cost = sentences(run)
    assert speed == "Speed could not be compared: no trial is stored."
    assert accuracy == "Accuracy could not be compared: no trial is stored."
    assert cost == "Compute and memory could not be compared in this run."


def test_a_run_without_token_learner_says_so(run: RunBuilder) -> None:
    run.add(infer(None), timed([100.0], 1e9))
    speed, accuracy, _ = sentences(run)
    assert speed.endswith("no model with TokenLearner was measured.")
    assert accuracy.endswith("no case of mode evaluate, fewshot or fit was run.")


def test_a_run_of_one_model_has_nothing_to_compare_with(run: RunBuilder) -> None:
    run.add(infer(1), timed([100.0], 1e9))
    assert sentences(run)[0].endswith(
        "no other model was measured at the same settings."
    )


def test_failed_trials_are_counted_by_status(run: RunBuilder) -> None:
    run.add(infer(None), timed([100.0], 1e9))
    run.fail(infer(1), "oom")
    run.fail(infer(1), "timeout")
    assert sentences(run)[0] == (
        "Speed could not be compared: too few trials ended well"
        " (1 ok, 1 oom, 1 timeout)."
    )


def test_another_baseline_is_named_as_such(run: RunBuilder) -> None:
    for spec in (model(name="first"), model(1, name="wide", embed_dim=128)):
        run.add(Case(model=spec, mode="infer"), timed([100.0, 101.0], 1e9))
    assert "of first (the first model of the run: the same" in sentences(run)[0]


def test_a_baseline_of_another_depth_is_named_as_such(run: RunBuilder) -> None:
    for spec in (model(), model(2, depth=6, name="deep")):
        run.add(Case(model=spec, mode="infer"), timed([100.0, 101.0], 1e9))
    assert "of ViT-tiny (of another depth: the same model" in sentences(run)[0]


def add_opponent(run: RunBuilder, speeds: list[float], r: int, **changes: Any) -> None:
    builder = BuilderSpec(function="tome", options={"r": r})
    spec = model().model_copy(update={"builder": builder})
    run.add(
        infer(None, **changes).model_copy(update={"model": spec}), timed(speeds, 3e8)
    )


def test_token_learner_is_held_against_its_fastest_opponent(run: RunBuilder) -> None:
    run.add(infer(None), timed([100.0, 110.0, 105.0], 4e8))
    run.add(infer(1), timed([240.0, 264.0, 252.0], 2e8))
    add_opponent(run, [120.0, 132.0, 126.0], r=1)
    add_opponent(run, [160.0, 176.0, 168.0], r=2)
    # Faster, but at other settings.
    run.add(infer(None, batch_size=16), timed([100.0, 110.0, 105.0], 4e8))
    add_opponent(run, [900.0, 990.0, 945.0], r=3, batch_size=16)
    assert sentences(run)[3:] == [
        "The fastest other way to few tokens at these settings is ViT-tiny+tome(r=2),"
        " at 1.60 times the speed of ViT-tiny; ViT-tiny+TL8@1 runs at 1.50 times its"
        " speed (95 % interval 1.50 to 1.50, 3 paired trials): faster."
    ]


def test_without_token_learner_its_opponents_are_the_answer(run: RunBuilder) -> None:
    run.add(infer(None), timed([100.0, 110.0, 105.0], 4e8))
    add_opponent(run, [160.0, 176.0, 168.0], r=2)
    told = sentences(run)
    assert "ViT-tiny+tome(r=2) runs at 1.60 times the speed of ViT-tiny" in told[0]
    assert len(told) == 3


def test_random_weights_are_never_accuracy(run: RunBuilder) -> None:
    for place in (None, 1):
        run.add(infer(place), trained([10.0, 11.0], 1e9))
    assert sentences(run)[1] == (
        "Accuracy could not be compared: no case of mode evaluate, fewshot or fit was"
        " run."
    )


def test_accuracy_that_was_not_evaluated_has_its_reason(run: RunBuilder) -> None:
    for place in (None, 1):
        fit = Case(model=model(place), mode="fit", data="digits")
        run.add(fit, [{"macs": 1e9, "top1_percent": None}])
    assert sentences(run)[1] == "Accuracy could not be compared: not on a CPU."


def test_a_report_on_several_runs_says_which_one_is_meant(run: RunBuilder) -> None:
    other = RunBuilder(run_id=2)
    for each, speed in ((run, 150.0), (other, 180.0)):
        each.add(infer(None), timed([100.0, 101.0], 4e8))
        each.add(infer(1), timed([speed, speed + 1], 2e8))
    assert sentences(run, other)[0].startswith(
        "In inference at batch 8 in fp32 in run 2, ViT-tiny+TL8@1 runs at 1.8"
    )
