from support.report_run import RunBuilder
from tlbench.reports.cases import gather
from tlbench.reports.frames import case_frame, trial_frame


def test_trial_frame_has_one_row_a_trial_with_its_metrics(smoke: RunBuilder) -> None:
    frame = trial_frame(gather([smoke.record], smoke.trials)).set_index("trial_id")
    assert len(frame) == len(smoke.trials) == 27
    for trial in smoke.trials:
        row = frame.loc[trial.id]
        assert row["model"] == trial.model
        assert row["batch_size"] == trial.case.batch_size
        assert row["parallelism.world_size"] == 1
        for name, value in trial.metrics.items():
            if value is not None:
                assert row[name] == value


def test_case_frame_has_the_median_its_interval_and_n(smoke: RunBuilder) -> None:
    frame = case_frame(gather([smoke.record], smoke.trials))
    assert len(frame) == 9
    row = frame[(frame["mode"] == "infer") & (frame["model"] == "ViT-tiny+TL8@1")].iloc[
        0
    ]
    metric = "throughput_samples_per_s"
    assert row[metric] == 199.5
    assert row[f"{metric}.low"] < 199.5 < row[f"{metric}.high"]
    assert (row[f"{metric}.n"], row["statuses"]) == (3, "3 ok")


def test_frames_of_no_trials_are_empty() -> None:
    assert trial_frame([]).empty
    assert case_frame([]).empty
