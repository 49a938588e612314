from typing import Any

import pytest

from support.report_run import RunBuilder, model, timed
from tlbench.errors import ReportError
from tlbench.reports.cases import CaseTrials, gather
from tlbench.reports.compare import Comparison, comparisons, differences
from tlbench.suites.model_spec import BuilderSpec, GridPoolSpec
from tlbench.suites.spec import Case


def compared(*runs: RunBuilder) -> list[Comparison]:
    records = [run.record for run in runs]
    return comparisons(gather(records, [trial for run in runs for trial in run.trials]))


def test_token_learner_is_compared_with_the_same_model_without_it(
    smoke: RunBuilder,
) -> None:
    pairs = compared(smoke)
    assert len(pairs) == 6  # two models in three modes
    assert all(pair.base.model == "ViT-tiny" for pair in pairs)
    assert all(pair.has_own_baseline for pair in pairs)
    assert not any(pair.has_baseline_of_another_depth for pair in pairs)
    assert all(pair.base.mode == pair.other.mode for pair in pairs)


def test_speedup_is_measured_over_predicted(smoke: RunBuilder) -> None:
    pair = compared(smoke)[0]
    assert pair.speedup.value == pytest.approx(1.9)
    assert pair.speedup.verdict == "better"
    assert pair.predicted_speedup == pytest.approx(4e8 / 2e8)
    assert pair.realised_speedup_fraction == pytest.approx(1.9 / 2)
    assert pair.realised_interval == pytest.approx((0.95, 0.95))


def test_training_is_predicted_by_training_flops(run: RunBuilder) -> None:
    for place, train_flops in ((None, 9e9), (1, 3e9)):
        case = Case(model=model(place), mode="train")
        run.add(case, [{"macs": 1e9, "train_flops": train_flops}])
    (pair,) = compared(run)
    assert pair.predicted_speedup == 3.0


def test_a_model_without_its_own_baseline_is_compared_with_the_first(
    run: RunBuilder,
) -> None:
    for spec in (model(name="first"), model(1, name="wide", embed_dim=128)):
        run.add(Case(model=spec, mode="infer"), timed([100.0, 101.0], 1e9))
    (pair,) = compared(run)
    assert pair.base.model == "first"
    assert not pair.has_own_baseline
    assert not pair.has_baseline_of_another_depth


def test_a_deepened_model_is_compared_with_what_was_deepened(run: RunBuilder) -> None:
    for spec in (model(embed_dim=128), model(), model(2, depth=6)):
        run.add(Case(model=spec, mode="infer"), timed([100.0, 101.0], 1e9))
    (pair,) = compared(run)
    assert pair.base.case.model == model()
    assert not pair.has_own_baseline
    assert pair.has_baseline_of_another_depth


def test_of_several_depths_the_nearest_is_the_baseline(run: RunBuilder) -> None:
    for spec in (model(depth=2), model(depth=12), model(depth=9), model(2, depth=10)):
        run.add(Case(model=spec, mode="infer"), timed([100.0, 101.0], 1e9))
    (pair,) = compared(run)
    assert pair.base.case.model.depth == 9
    assert pair.has_baseline_of_another_depth


@pytest.mark.parametrize(
    "reduction",
    [
        {"grid_pool": GridPoolSpec(window=2, places=(1,))},
        {"builder": BuilderSpec(function="tome", options={"r": 1})},
    ],
)
def test_other_reductions_are_compared_as_token_learner_is(
    run: RunBuilder, reduction: dict[str, Any]
) -> None:
    for spec in (model(), model().model_copy(update=reduction)):
        run.add(Case(model=spec, mode="infer"), timed([100.0, 101.0], 1e9))
    (pair,) = compared(run)
    assert pair.has_own_baseline


def test_the_name_of_a_model_does_not_hide_its_baseline(run: RunBuilder) -> None:
    for spec in (model(name="plain"), model(1, name="fancy")):
        run.add(Case(model=spec, mode="infer"), timed([100.0, 101.0], 1e9))
    (pair,) = compared(run)
    assert pair.has_own_baseline


def test_runs_are_not_compared_with_each_other(run: RunBuilder) -> None:
    run.add(Case(model=model(), mode="infer"), timed([100.0], 1e9))
    other = RunBuilder(run_id=2)
    other.add(Case(model=model(1), mode="infer"), timed([100.0], 1e9))
    assert compared(run, other) == []


def test_models_without_token_learner_are_not_compared(run: RunBuilder) -> None:
    for name, width in (("narrow", 64), ("wide", 128)):
        spec = model(name=name, embed_dim=width)
        run.add(Case(model=spec, mode="infer"), timed([100.0], 1e9))
    assert compared(run) == []


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"batch_size": 16}, r"batch_size \(8, 16\)"),
        ({"precision": "bf16"}, r"precision \(fp32, bf16\)"),
        ({"compile": True, "attention": "math"}, r"attention .*, compile"),
    ],
)
def test_comparison_refuses_what_else_differs_and_names_it(
    run: RunBuilder, changes: dict[str, object], named: str
) -> None:
    run.add(Case(model=model(), mode="infer"), timed([100.0], 1e9))
    changed = Case.model_validate({"model": model(1), "mode": "infer", **changes})
    run.add(changed, timed([100.0], 1e9))
    base, other = gather([run.record], run.trials)
    with pytest.raises(ReportError, match=named):
        Comparison(base, other)


@pytest.mark.parametrize(
    ("base", "other", "named"),
    [
        (
            {"path": "/a/vit.npz", "sha256": "1" * 64},
            {"path": "/b/vit.npz", "sha256": "2" * 64},
            "(vit.npz with SHA-256 111111111111, vit.npz with SHA-256 222222222222)",
        ),
        (
            {"path": "s3://a/vit.npz"},
            {"path": "s3://b/vit.npz"},
            "(s3://a/vit.npz, s3://b/vit.npz)",
        ),
        (
            {"path": "s3://a/vit.npz"},
            {"path": "s3://a/vit.npz", "tubelets": "inflation"},
            "(s3://a/vit.npz, s3://a/vit.npz by inflation)",
        ),
        (None, {"path": "s3://a/vit.npz"}, "(None, s3://a/vit.npz)"),
        ({"path": "s3://a/vit.npz"}, None, "(s3://a/vit.npz, None)"),
    ],
)
def test_another_checkpoint_is_one_difference(
    run: RunBuilder,
    base: dict[str, str] | None,
    other: dict[str, str] | None,
    named: str,
) -> None:
    first, second = from_checkpoints(run, (None, base), (None, other))
    assert differences(first, second) == [f"checkpoint {named}"]


def test_the_same_weights_at_two_places_are_compared(run: RunBuilder) -> None:
    digest = "1" * 64
    first, second = from_checkpoints(
        run,
        (None, {"path": "/a/vit.npz", "sha256": digest}),
        (None, {"path": "/b/copy.npz", "sha256": digest}),
    )
    assert differences(first, second) == []


def test_weights_belong_to_their_model(run: RunBuilder) -> None:
    plain, learned = from_checkpoints(
        run, (None, {"path": "/vit.npz"}), (1, {"path": "/learned.safetensors"})
    )
    (pair,) = comparisons([plain, learned])
    assert (pair.base, pair.other) == (plain, learned)


def test_trained_weights_are_not_held_against_random_ones(run: RunBuilder) -> None:
    cases = from_checkpoints(run, (None, {"path": "/vit.npz"}), (1, None))
    assert comparisons(cases) == []
    assert differences(*cases) == ["checkpoint (/vit.npz, None)"]


def test_the_baseline_is_that_of_the_same_checkpoint_where_there_is_one(
    run: RunBuilder,
) -> None:
    early, late = {"path": "/early.npz"}, {"path": "/late.npz"}
    cases = from_checkpoints(run, (None, early), (None, late), (1, early), (1, late))
    pairs = [(pair.base, pair.other) for pair in comparisons(cases)]
    assert pairs == [(cases[0], cases[2]), (cases[1], cases[3])]


def test_other_configurations_of_deepspeed_differ_in_their_keys(
    run: RunBuilder,
) -> None:
    for reduce_bucket_size in (None, 1000):
        zero = {"reduce_bucket_size": reduce_bucket_size}
        config = {"zero_optimization": zero, "overlap_comm": False}
        settings = {"model": model(), "mode": "train"}
        if reduce_bucket_size is not None:
            settings["deepspeed"] = config
        run.add(Case.model_validate(settings), timed([100.0], 1e9))
    plain, configured = gather([run.record], run.trials)
    assert differences(plain, configured) == [
        "deepspeed.zero_optimization.reduce_bucket_size (None, 1000)",
        "deepspeed.overlap_comm (None, False)",
    ]
    assert [case.label for case in (plain, configured)] == [
        "ViT-tiny, DeepSpeed by default",
        "ViT-tiny, reduce bucket size 1000, overlap comm False",
    ]


def from_checkpoints(
    run: RunBuilder, *started: tuple[int | None, dict[str, str] | None]
) -> list[CaseTrials]:
    """Models, with TokenLearner before that block, started from these weights."""
    for place, checkpoint in started:
        settings = {"model": model(place), "mode": "infer", "checkpoint": checkpoint}
        run.add(Case.model_validate(settings), timed([100.0], 1e9))
    return [case for trial in run.trials for case in gather([run.record], [trial])]


def test_comparison_refuses_another_machine(run: RunBuilder) -> None:
    run.add(Case(model=model(), mode="infer"), timed([100.0], 1e9))
    run.add(Case(model=model(1), mode="infer"), timed([100.0], 1e9), machine_id=2)
    base, other = gather([run.record], run.trials)
    with pytest.raises(ReportError, match=r"machine \(1, 2\)"):
        Comparison(base, other)
