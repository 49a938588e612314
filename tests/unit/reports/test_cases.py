import statistics

import pytest

from support.report_run import RunBuilder, model, timed, trained
from tlbench.db import query
from tlbench.errors import StoreError
from tlbench.reports.cases import Floors, describe_setting, gather, settings
from tlbench.statistics import NOISE_FLOOR
from tlbench.suites.spec import Case, Parallelism, Suite


def test_a_case_is_summarised_by_the_median_of_its_trials(smoke: RunBuilder) -> None:
    (base,) = (
        case
        for case in gather([smoke.record], smoke.trials)
        if case.mode == "infer" and case.model == "ViT-tiny"
    )
    summary = base.summary("throughput_samples_per_s")
    assert (summary.value, summary.n) == (105.0, 3)
    assert summary.interval is not None
    low, high = summary.interval
    assert low * high == pytest.approx(
        statistics.geometric_mean([100, 110, 105]) ** 2
    )  # about the geometric mean


def test_cases_come_by_mode_and_as_the_suite_lists_them(smoke: RunBuilder) -> None:
    shuffled = smoke.trials[::-1]
    assert [(c.mode, c.model) for c in gather([smoke.record], shuffled)] == [
        (mode, name)
        for mode in ("infer", "train", "fit")
        for name in ("ViT-tiny", "ViT-tiny+TL8@1", "ViT-tiny+TL8@2")
    ]


def test_failed_trials_count_in_the_status_and_in_no_number(run: RunBuilder) -> None:
    case = Case(model=model(), mode="infer")
    run.add(case, timed([100.0], 1e9))
    run.add(case, timed([1.0], 1e9), status="timeout", reason="too slow")
    run.fail(case, "oom")
    (gathered,) = gather([run.record], run.trials)
    assert gathered.statuses == {"ok": 1, "oom": 1, "timeout": 1}
    assert gathered.summary("throughput_samples_per_s").value == 100.0


def test_a_trial_without_a_machine_counts_to_the_only_machine(run: RunBuilder) -> None:
    case = Case(model=model(), mode="infer")
    run.add(case, timed([100.0], 1e9))
    run.add(case, [{}], status="error", reason="no worker came up", machine_id=None)
    (gathered,) = gather([run.record], run.trials)
    assert (gathered.machine_id, len(gathered.trials)) == (1, 2)


def test_the_same_case_on_two_machines_is_told_apart(run: RunBuilder) -> None:
    case = Case(model=model(), mode="infer")
    run.add(case, timed([100.0], 1e9))
    run.add(case, timed([50.0], 1e9), machine_id=2)
    labels = [case.label for case in gather([run.record], run.trials)]
    assert labels == ["ViT-tiny, machine 1", "ViT-tiny, machine 2"]


def test_a_noise_floor_is_that_of_the_device_that_the_case_asks_for(
    run: RunBuilder,
) -> None:
    for device in ("auto", "cpu"):
        asked = Case.model_validate(
            {"model": model(), "mode": "infer", "device": device}
        )
        run.add(asked, timed([100.0], 1e9))
    floors: Floors = {(1, "auto"): 0.03, (2, "cpu"): 0.04}
    found = gather([run.record], run.trials, floors)
    assert [case.floor for case in found] == [0.03, NOISE_FLOOR]


def test_settings_that_differ_between_runs_only_are_not_in_a_label(
    run: RunBuilder,
) -> None:
    other = RunBuilder(run_id=2)
    for builder, size in ((run, 1), (other, 8)):
        case = Case(model=model(), mode="infer", batch_size=size)
        builder.add(case, timed([100.0], 1e9))
    trials = [*run.trials, *other.trials]
    labels = [case.label for case in gather([run.record, other.record], trials)]
    assert labels == ["ViT-tiny, run 1", "ViT-tiny, run 2"]


def test_a_label_names_the_settings_that_differ_in_its_mode(run: RunBuilder) -> None:
    for batch_size in (1, 8):
        case = Case(model=model(), mode="infer", batch_size=batch_size)
        run.add(case, timed([100.0], 1e9))
    run.add(Case(model=model(), mode="train", batch_size=2), timed([10.0], 1e9))
    labels = [case.label for case in gather([run.record], run.trials)]
    assert labels == ["ViT-tiny, batch 1", "ViT-tiny, batch 8", "ViT-tiny"]


def test_a_label_says_what_a_model_starts_from(run: RunBuilder) -> None:
    for checkpoint in (None, {"path": "/a/b.npz", "sha256": "1" * 64}):
        case = {"model": model(), "mode": "infer", "checkpoint": checkpoint}
        run.add(Case.model_validate(case), timed([100.0], 1e9))
    cases = gather([run.record], run.trials)
    assert [case.label for case in cases] == [
        "ViT-tiny, from random weights",
        "ViT-tiny, from b.npz with SHA-256 111111111111",
    ]
    # Rows of a table have the same columns whatever a case has.
    names = [list(settings(case.case)) for case in cases]
    assert names[0] == names[1]
    assert "checkpoint.sha256" in names[0]


@pytest.mark.parametrize(
    ("metric", "reason"),
    [
        ("peak_memory_allocated_bytes", "not on a CPU"),
        ("loss", "not measured in mode infer"),
    ],
)
def test_a_missing_metric_has_its_reason(
    run: RunBuilder, metric: str, reason: str
) -> None:
    run.add(Case(model=model(), mode="infer"), timed([100.0], 1e9))
    (gathered,) = gather([run.record], run.trials)
    assert gathered.summary(metric).reason == reason


def test_random_weights_have_no_accuracy(run: RunBuilder) -> None:
    run.add(Case(model=model(), mode="infer"), trained([12.0], 1e9))
    (gathered,) = gather([run.record], run.trials)
    summary = gathered.summary("top1_percent")
    assert summary.value is None
    assert summary.reason is not None
    assert "random weights" in summary.reason


def test_settings_are_said_as_people_say_them() -> None:
    ranks = Parallelism(world_size=2, zero_stage=3)
    assert describe_setting("batch_size", 8) == "batch 8"
    assert describe_setting("parallelism.world_size", ranks.world_size) == "2 ranks"
    assert describe_setting("parallelism.zero_stage", ranks.zero_stage) == "ZeRO 3"
    assert describe_setting("optimizer.learning_rate", 0.1) == "learning rate 0.1"


def test_a_suite_that_cannot_be_read_is_told_in_one_sentence() -> None:
    told = "the suite of run 3 cannot be read by this tlbench: name: Field required"
    with pytest.raises(StoreError, match=told):
        query.read_stored(Suite, {"cases": []}, "the suite of run 3")
