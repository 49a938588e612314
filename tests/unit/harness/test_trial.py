"""One trial on one rank: what it brings back, and that every failure is a result."""

import errno
import math
import multiprocessing
import os
import platform
import re
import resource
import socket
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from timm.utils import accuracy as timm_accuracy
from torch import nn

from tlbench import passes, trial
from tlbench.data import InMemory, open_dataset
from tlbench.measure.gpu import ENERGY, GPU_METRICS
from tlbench.measure.stages import FUSED
from tlbench.models import cost
from tlbench.models.builders import build_whole_model
from tlbench.models.memory import predicted_growth_bytes, predicted_memory_bytes
from tlbench.rank import Rank
from tlbench.result import TrialResult
from tlbench.suites.model_spec import ModelSpec
from tlbench.suites.names import parse_model
from tlbench.suites.probe import Probe
from tlbench.suites.spec import Case, Mode, Trial
from tlbench.trial import run_rank

MODEL = ModelSpec(
    name="tiny",
    image_size=8,
    patch_size=4,
    embed_dim=16,
    depth=2,
    num_heads=2,
    mlp_dim=32,
)
QUICK = {"min_steps": 6, "max_steps": 12, "max_time_s": 10.0}
COST = {"params", "trainable_params", "macs", "flops"}
TIMES = {"import_time_s", "build_time_s", "load_time_s", "measure_time_s"}
MEMORY = {
    "peak_memory_allocated_bytes",
    "peak_memory_reserved_bytes",
    "peak_memory_device_used_bytes",
    "peak_memory_host_rss_bytes",
    "peak_memory_host_growth_bytes",
}
PREDICTED = {"predicted_memory_bytes", "predicted_memory_growth_bytes"}
TELEMETRY = {
    *("foreign_cpu_fraction", "steal_fraction"),
    *("cpu_clock_hz", "involuntary_switches_per_s"),
    *(*GPU_METRICS, ENERGY, "idle_power_w"),
}
LATENCY = {"latency_p50_s", "latency_p90_s", "latency_p99_s"}
STAGES = {
    f"stage_{stage}_{quantity}"
    for stage in ("embedding", "before", "head")
    for quantity in ("time_s", "macs", "memory_bytes")
} | {"removal_ceiling_ratio"}
LITTLE_MEMORY_BYTES = 4 * 2**30
TIMEOUT_S = 120


def make_case(mode: Mode, **changes: Any) -> Case:
    settings = {"model": MODEL, "mode": mode, "data": "digits", "timing": QUICK}
    return Case.model_validate(settings | changes)


def run_alone(case: Case, seed: int = 0, *, is_traced: bool = False) -> TrialResult:
    """Run as the only rank."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    rank = Rank(0, 1, 0, 1, "127.0.0.1", port, "cpu", 1)
    planned = Trial(case, 0, 0, seed, is_traced=is_traced)
    return run_rank(planned, rank, import_time_s=0.5)


def _run_in_little_memory(case: Case) -> TrialResult:
    resource.setrlimit(resource.RLIMIT_AS, (LITTLE_MEMORY_BYTES, LITTLE_MEMORY_BYTES))
    return run_alone(case)


def _run_in_little_gpu_memory(case: Case) -> TrialResult:
    torch.cuda.set_per_process_memory_fraction(0.001)
    rank = Rank(0, 1, 0, 1, "127.0.0.1", 0, "cuda", 1)
    return run_rank(Trial(case, 0, 0, 0), rank, import_time_s=0.5)


def in_fresh_process(function: Any, *arguments: Any) -> Any:
    """Call in a process of its own, as DeepSpeed allows one process group in each."""
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=spawn) as process:
        return process.submit(function, *arguments).result(TIMEOUT_S)


def _probe(case: Case, stop_bytes: int | None = None) -> TrialResult:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    rank = Rank(0, 1, 0, 1, "127.0.0.1", port, "cpu", 1)
    return run_rank(Probe(case, 0, 0, 0, stop_bytes=stop_bytes), rank, 0.5)


def test_a_probe_measures_memory_alone() -> None:
    result = in_fresh_process(_probe, make_case("infer", batch_size=64))
    found = values(result)
    assert found.keys() >= MEMORY
    assert not found.keys() & {*LATENCY, *STAGES, "first_step_time_s"}
    assert result.series == ()


@pytest.mark.slow
def test_a_probe_of_training_finds_the_peak_of_a_trial() -> None:
    case = make_case("train", model=parse_model("ViT-Ti/16"), batch_size=4)
    case = case.model_copy(update={"data": "synthetic"})
    peak = "peak_memory_host_growth_bytes"
    probed = values(in_fresh_process(_probe, case, 2**30))[peak]
    tried = values(in_fresh_process(run_alone, case))[peak]
    assert probed == pytest.approx(tried, rel=0.05)
    assert probed == pytest.approx(predicted_growth_bytes(case), rel=0.1)


def test_a_probe_that_runs_away_is_out_of_memory() -> None:
    # 512 x 2 heads x 1024 x 1024 scores; the limit leaves 1 GiB, for threads.
    model = MODEL.model_copy(update={"image_size": 128})
    case = make_case("infer", model=model, attention="eager", batch_size=512)
    result = in_fresh_process(_probe, case, 0)
    assert result.status == "oom"


@pytest.fixture(scope="module")
def fitted() -> TrialResult:
    fit = {"epochs": 3, "target_top1_percent": 20.0}
    case = make_case("fit", batch_size=16, fit=fit, optimizer={"learning_rate": 3e-3})
    result = in_fresh_process(run_alone, case)
    assert isinstance(result, TrialResult)
    return result


@pytest.fixture(scope="module")
def inferred() -> TrialResult:
    return run_alone(make_case("infer"))


@pytest.fixture(autouse=True, scope="module")
def _process_is_left_as_it_was() -> Iterator[None]:
    environment, threads = dict(os.environ), torch.get_num_threads()
    yield
    os.environ.clear()
    os.environ.update(environment)
    torch.set_num_threads(threads)


def values(result: TrialResult) -> dict[str, float | None]:
    assert result.status == "ok", result.traceback
    found = {metric.name: metric.value for metric in result.metrics}
    assert len(found) == len(result.metrics), "a metric was measured twice"
    return found


def arrays(result: TrialResult) -> dict[str, tuple[float, ...]]:
    return {series.name: series.values for series in result.series}


def test_profile_counts_the_operations_in_three_ways() -> None:
    found = values(run_alone(make_case("profile")))
    counts = {"train_flops", "counter_macs", "profiler_macs"}
    assert found.keys() == COST | counts | {"import_time_s"}
    assert found["params"] == found["trainable_params"] == cost.params(MODEL, 10)
    assert found["macs"] == found["counter_macs"] == cost.macs(MODEL, 10)
    assert found["profiler_macs"] == cost.macs(MODEL, 10)
    assert found["flops"] == 2 * cost.macs(MODEL, 10)
    assert found["train_flops"] == cost.train_flops(MODEL, 10)


def test_profile_does_not_execute_what_takes_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("tlbench.measure.flops.PROFILER_MAX_MACS", 1000)
    result = run_alone(make_case("profile"))
    (metric,) = [m for m in result.metrics if m.name == "profiler_macs"]
    assert metric.value is None
    assert metric.reason is not None
    assert "would have to be executed" in metric.reason


def test_profile_executes_with_the_threads_of_its_rank() -> None:
    torch.set_num_threads(2)
    run_alone(make_case("profile"))
    assert torch.get_num_threads() == 1


def test_profile_of_a_builder_s_model_has_one_count_and_says_why() -> None:
    model = parse_model("ViT-d16h2m32l2/4@8+stride(step=2,place=1)")
    result = run_alone(make_case("profile", model=model))
    assert values(result)["macs"] is not None
    assert {m.name: m.reason for m in result.metrics if m.value is None} == {
        "counter_macs": "what stride builds has no closed form of its cost",
        "profiler_macs": "what stride builds has no closed form of its cost",
    }


def test_a_layer_that_is_not_its_closed_form_ends_a_profile(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(
        "tlbench.measure.flops.layer_disagreements",
        lambda *_: iter(["blocks.1: its closed form gives 1", "head: also"]),
    )
    result = run_alone(make_case("profile"))
    assert (result.status, result.reason) == (
        "error",
        "blocks.1: its closed form gives 1",
    )


def test_infer_brings_speed_latency_and_memory(inferred: TrialResult) -> None:
    found, series = values(inferred), arrays(inferred)
    passes = LATENCY | PREDICTED | MEMORY | STAGES | TELEMETRY
    assert found.keys() == COST | TIMES | passes | {"first_step_time_s"}
    assert series.keys() == {"warmup_step_time_s", "step_time_s", "latency_s"}
    assert found["import_time_s"] == 0.5
    assert found["first_step_time_s"] == series["warmup_step_time_s"][0]
    timing = {"stopped_by", "steady_state", "warmup"}
    assert inferred.notes.keys() == timing | {"device"}
    assert inferred.notes["device"] == f"{platform.node()}, 1 thread"
    assert inferred.machine is not None
    assert inferred.machine.versions["torch"] == version("torch")


INPUT = {
    "data_wait_fraction",
    "input_throughput_samples_per_s",
    "input_throughput_per_worker_samples_per_s",
    "kept_batch_step_time_s",
    "input_workers_needed",
}


@pytest.mark.parametrize("workers", [0, 1])
def test_steps_that_load_tell_what_the_input_costs(workers: int) -> None:
    source = {"kind": "loader", "workers": workers}
    case = make_case("infer", input=source, timing=QUICK | {"max_time_s": 0.2})
    found = values(run_alone(case))
    assert found.keys() >= INPUT | LATENCY | MEMORY | STAGES
    share = found["data_wait_fraction"]
    assert share is not None
    assert 0 < share < 1


def test_fixed_input_has_nothing_to_wait_for(inferred: TrialResult) -> None:
    assert not values(inferred).keys() & INPUT


@pytest.mark.slow
def test_training_steps_can_load_too() -> None:
    case = make_case("train", input={"kind": "loader"})
    result = in_fresh_process(run_alone, case)
    assert values(result).keys() >= INPUT | {"loss"}


def test_a_traced_trial_leaves_a_trace_behind() -> None:
    result = run_alone(make_case("infer"), is_traced=True)
    assert [artifact.name for artifact in result.artifacts] == ["trace.json.gz"]
    assert "trace" not in result.notes


def test_only_a_traced_trial_leaves_a_trace(inferred: TrialResult) -> None:
    assert inferred.artifacts == ()


def test_a_trace_that_is_too_large_is_not_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("tlbench.measure.trace.MAX_TRACE_BYTES", 10)
    result = run_alone(make_case("infer"), is_traced=True)
    assert result.artifacts == ()
    assert result.notes["trace"].startswith("not kept: 3 steps have")


def test_loading_takes_longer_than_importing_and_building(
    inferred: TrialResult,
) -> None:
    found = values(inferred)
    load_time_s = found["load_time_s"]
    assert load_time_s is not None
    assert load_time_s > 0.5 + (found["build_time_s"] or 0)  # 0.5 s is `run_alone`'s


def test_a_compiled_trial_tells_its_compile_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(nn.Module, "compile", lambda _: None)
    result = run_alone(make_case("infer", compile=True))
    assert {"compile_time_s", "graph_breaks"} <= {m.name for m in result.metrics}


def test_latency_is_known_to_the_99th_percentile_where_steps_are_enough(
    inferred: TrialResult,
) -> None:
    found, times = values(inferred), sorted(arrays(inferred)["latency_s"])
    assert len(times) == passes.LATENCY_STEPS
    p50, p99 = found["latency_p50_s"], found["latency_p99_s"]
    assert p50 is not None
    assert p99 is not None
    assert times[99] <= p50 <= times[100]
    assert times[197] <= p99 <= times[198]


def test_latency_has_no_99th_percentile_of_a_few_steps(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(passes, "LATENCY_STEPS", 99)
    result = run_alone(make_case("infer"))
    reasons = {m.name: m.reason for m in result.metrics if m.name in LATENCY}
    assert reasons == {
        "latency_p50_s": None,
        "latency_p90_s": None,
        "latency_p99_s": "99 steps are too few",
    }


def test_a_single_image_is_timed_once_for_throughput_and_latency() -> None:
    timing = {"min_steps": 1, "max_steps": 3, "max_time_s": 10.0}
    result = run_alone(make_case("infer", batch_size=1, timing=timing))
    series = arrays(result)
    assert len(series["step_time_s"]) == 3
    assert series["latency_s"] == series["step_time_s"]


def test_the_stages_add_up_to_the_operations_of_the_model() -> None:
    learner = {"num_tokens": 2, "place": 1}
    model = MODEL.model_dump() | {"token_learner": learner}
    found = values(run_alone(make_case("infer", model=model)))
    counted = {n: v for n, v in found.items() if re.fullmatch("stage_.*_macs", n)}
    assert len(counted) == 5
    assert sum(v or 0 for v in counted.values()) == found["macs"]
    times = [found[name.replace("_macs", "_time_s")] or 0 for name in counted]
    ceiling = sum(times) / (sum(times) - (found["stage_after_time_s"] or 0))
    assert found["removal_ceiling_ratio"] == pytest.approx(ceiling)


def test_stages_of_a_compiled_model_have_operations_and_a_reason(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(nn.Module, "compile", lambda _: None)
    result = run_alone(make_case("infer", compile=True))
    reasons = {m.name: m.reason for m in result.metrics if m.name in STAGES}
    assert reasons.keys() == STAGES
    told = {name for name, reason in reasons.items() if reason is None}
    assert told == {name for name in STAGES if name.endswith("_macs")}
    assert set(reasons.values()) == {None, FUSED}


def test_the_prediction_that_is_stored_is_that_of_the_closed_form(
    inferred: TrialResult,
) -> None:
    found, case = values(inferred), make_case("infer")
    assert found["predicted_memory_bytes"] == predicted_memory_bytes(case)
    assert found["predicted_memory_growth_bytes"] == predicted_growth_bytes(case)


@pytest.mark.parametrize("mode", ["infer", "train", "fit"])
@pytest.mark.parametrize("precision", ["tf32", "fp16"])
def test_precisions_of_a_gpu_are_skipped_on_a_cpu(mode: Mode, precision: str) -> None:
    result = run_alone(make_case(mode, precision=precision))
    assert result.status == "skipped"
    assert result.reason == f"precision {precision} needs a GPU; this is a CPU"


def test_an_attention_kernel_that_cannot_run_here_is_skipped() -> None:
    result = run_alone(make_case("infer", attention="cudnn"))
    assert result.status == "skipped"
    assert result.reason is not None
    start = "attention kernel cudnn does not run in fp32 on this cpu: "
    assert result.reason.startswith(start)


@pytest.mark.parametrize("attention", ["auto", "math", "flash", "eager"])
def test_attention_kernels_of_a_cpu_run(attention: str) -> None:
    assert run_alone(make_case("infer", attention=attention)).status == "ok"


def test_an_unknown_failure_is_an_error_with_its_traceback(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def build_badly(*_: object, **__: object) -> None:
        raise ZeroDivisionError("no tokens\nsecond line")

    monkeypatch.setattr(trial, "build_whole_model", build_badly)
    result = run_alone(make_case("infer"))
    assert result.status == "error"
    assert result.reason == "ZeroDivisionError: no tokens"
    assert result.traceback is not None
    assert "in build_badly" in result.traceback
    assert result.machine is not None


def test_a_model_that_is_not_its_closed_form_is_an_error_that_names_both(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    built = cost.params(MODEL, 10)
    monkeypatch.setattr(cost, "params", lambda *_: 7)
    result = run_alone(make_case("infer"))
    assert result.status == "error"
    assert result.reason == (
        f"the built model has {built:,} parameters, its closed form 7"
    )


def test_a_failure_without_words_is_named_by_its_kind(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def build_badly(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr(trial, "build_whole_model", build_badly)
    result = run_alone(make_case("infer"))
    assert (result.status, result.reason) == ("oom", "MemoryError")


@pytest.mark.parametrize(
    "error", [SystemExit(3), KeyboardInterrupt(), GeneratorExit("of mine")]
)
def test_code_that_ends_its_process_is_an_error_that_says_so(
    monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    def leave(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(trial, "build_whole_model", leave)
    result = run_alone(make_case("infer"))
    assert result.status == "error"
    assert result.reason == f"the model's code ended its process: {error!r}"
    assert result.traceback is not None
    assert "in leave" in result.traceback


def test_a_full_disk_is_named_with_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    def write(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/proc/scratch/mine.pt")

    monkeypatch.setattr(trial, "build_whole_model", write)
    result = run_alone(make_case("infer"))
    assert (result.status, result.reason) == (
        "error",
        "the disk at /proc is full: /proc/scratch/mine.pt takes no more",
    )


def test_a_full_disk_whose_file_was_open_is_the_fullest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def write(*_: object, **__: object) -> None:
        with Path("/dev/full").open("wb", buffering=0) as file:
            file.write(b"x")

    monkeypatch.setattr(trial, "build_whole_model", write)
    monkeypatch.setenv("TMPDIR", "/proc")  # which has no room at all
    result = run_alone(make_case("infer"))
    assert (result.status, result.reason) == (
        "error",
        "the disk at /proc is full: /proc takes no more",
    )


@pytest.mark.slow
def test_what_deepspeed_refuses_is_an_error_with_its_message() -> None:
    config = {"zero_optimization": {"reduce_bucket_size": -1}}
    result = in_fresh_process(run_alone, make_case("train", deepspeed=config))
    assert result.status == "error"
    assert "reduce_bucket_size" in result.reason + result.traceback


@pytest.mark.slow
def test_a_batch_larger_than_the_memory_is_out_of_memory() -> None:
    case = make_case("infer", data="synthetic", batch_size=1_000_000)  # 49 GB
    result = in_fresh_process(_run_in_little_memory, case)
    assert result.status == "oom"
    assert "allocate" in result.reason
    assert "\n" not in result.reason
    assert "Traceback" in result.traceback


@pytest.mark.gpu
def test_a_batch_larger_than_the_gpu_is_out_of_memory() -> None:
    if not torch.cuda.is_available():
        pytest.skip("this machine has no NVIDIA GPU")
    case = make_case("infer", data="synthetic", batch_size=500_000)  # 384 MB
    result = in_fresh_process(_run_in_little_gpu_memory, case)
    assert result.status == "oom"
    assert "\n" not in result.reason
    assert "OutOfMemoryError" in result.traceback


@pytest.mark.slow
def test_train_brings_speed_memory_and_the_last_loss() -> None:
    result = in_fresh_process(run_alone, make_case("train"))
    found, series = values(result), arrays(result)
    other = {"train_flops", "first_step_time_s", "loss"}
    passes = PREDICTED | MEMORY | TELEMETRY
    assert found.keys() == COST | TIMES | passes | other
    assert series.keys() == {"warmup_step_time_s", "step_time_s"}
    loss = found["loss"]
    assert loss is not None
    assert 0 < loss < math.log(10)  # what guessing would cost


@pytest.mark.slow
def test_fit_brings_accuracy_and_its_curves(fitted: TrialResult) -> None:
    found, series = values(fitted), arrays(fitted)
    assert found.keys() == COST | TIMES | {
        "train_flops",
        "top1_percent",
        "top5_percent",
        "n_eval",
        "train_time_s",
        "time_to_accuracy_s",
        "data_wait_fraction",
        "unreadable_samples",
        "loss",
    }
    steps = 3 * (1442 // 16)
    assert len(series["loss"]) == len(series["learning_rate"]) == steps
    assert len(series["eval_top1_percent"]) == len(series["eval_time_s"]) == 3
    assert found["loss"] == series["loss"][-1]
    assert found["top1_percent"] == series["eval_top1_percent"][-1]
    assert found["train_time_s"] == series["eval_time_s"][-1]
    assert found["n_eval"] == 355
    assert found["unreadable_samples"] == 0


@pytest.mark.slow
def test_fit_learns_the_digits_better_than_guessing(fitted: TrialResult) -> None:
    found, series = values(fitted), arrays(fitted)
    top1, top5 = found["top1_percent"], found["top5_percent"]
    assert top1 is not None
    assert top5 is not None
    assert 20 < top1 <= top5
    reached = next(
        elapsed
        for percent, elapsed in zip(
            series["eval_top1_percent"], series["eval_time_s"], strict=True
        )
        if percent >= 20
    )
    assert found["time_to_accuracy_s"] == reached


ASKED = {"n_eval", "eval_throughput_samples_per_s", "unreadable_samples"}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of the model, with a classifier that is no longer at zero."""
    torch.manual_seed(1)
    model = build_whole_model(MODEL, 10)
    nn.init.normal_(model.get_parameter("head.weight"))
    path = tmp_path_factory.mktemp("weights") / "model.safetensors"
    save_file(model.state_dict(), path)
    return path


def test_evaluate_holds_a_checkpoint_against_the_held_out_samples(
    checkpoint: Path,
) -> None:
    case = make_case("evaluate", checkpoint={"path": str(checkpoint)}, batch_size=50)
    result = run_alone(case)
    found = values(result)
    assert found.keys() == COST | TIMES | ASKED | {"top1_percent", "top5_percent"}
    model = build_whole_model(MODEL, 10).eval()
    model.load_state_dict(load_file(checkpoint))
    digits = open_dataset(case, None)
    assert isinstance(digits, InMemory)
    held_out = digits.split("eval")
    images, labels = held_out.batch(torch.arange(355), MODEL.image_size)
    with torch.no_grad():
        top1, top5 = timm_accuracy(model(images), labels, topk=(1, 5))
    assert found["n_eval"] == 355
    assert found["top1_percent"] == pytest.approx(float(top1))
    assert found["top5_percent"] == pytest.approx(float(top5))
    assert "checkpoint" in result.notes


@pytest.mark.slow
@pytest.mark.parametrize("starts_from_weights", [True, False])
def test_the_classifier_of_a_checkpoint_keeps_its_biases(
    checkpoint: Path, starts_from_weights: bool
) -> None:
    settings: dict[str, Any] = {"batch_size": 48}
    if starts_from_weights:
        settings["checkpoint"] = {"path": str(checkpoint)}
    losses = []
    for bias in (0.0, -10.0):
        fit = {"steps": 1, "loss": "sigmoid", "head_bias": bias}
        result = in_fresh_process(run_alone, make_case("fit", fit=fit, **settings))
        assert isinstance(result, TrialResult)
        losses.append(arrays(result)["loss"])
    assert (losses[0] == losses[1]) is starts_from_weights


def test_evaluation_keeps_maps_of_a_model_that_has_some() -> None:
    learner = {"num_tokens": 2, "place": 1}
    model = MODEL.model_dump() | {"token_learner": learner}
    assert len(run_alone(make_case("evaluate", model=model)).artifacts) == 1
    assert run_alone(make_case("evaluate")).artifacts == ()


def test_fewshot_brings_the_accuracy_of_each_number_of_shots(checkpoint: Path) -> None:
    case = make_case(
        "fewshot",
        checkpoint={"path": str(checkpoint)},
        fewshot={"shots": "1,5,200", "seeds": 4},
        batch_size=64,
    )
    result = run_alone(case)
    found, series = values(result), arrays(result)
    shots = {"fewshot_1_top1", "fewshot_5_top1", "fewshot_200_top1"}
    accuracies = {f"{name}_percent" for name in shots}
    deviations = {f"{name}_deviation_percent" for name in shots}
    assert found.keys() == COST | TIMES | ASKED | accuracies | deviations
    assert series.keys() == {"fewshot_1_top1_percent", "fewshot_5_top1_percent"}
    for name, draws in series.items():
        assert len(draws) == 4
        assert found[name] == pytest.approx(sum(draws) / 4)
    five = found["fewshot_5_top1_percent"]
    assert five is not None
    assert five > 40  # the first layer alone tells many digits apart
    reasons = {m.name: m.reason for m in result.metrics}
    reason = reasons["fewshot_200_top1_percent"] or ""
    assert reason.endswith("training samples that can be read, and 200 are to be drawn")


def test_a_single_draw_has_no_deviation() -> None:
    fewshot = {"shots": "5", "convention": "scenic"}
    result = run_alone(make_case("fewshot", fewshot=fewshot, batch_size=64))
    reasons = {m.name: m.reason for m in result.metrics}
    assert reasons["fewshot_5_top1_percent"] is None
    assert reasons["fewshot_5_top1_deviation_percent"] == "1 draw has no deviation"


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["evaluate", "fewshot"])
def test_two_ranks_find_the_accuracy_that_one_finds(
    mode: Mode, checkpoint: Path
) -> None:
    settings = {"checkpoint": {"path": str(checkpoint)}, "batch_size": 48}
    expected = values(run_alone(make_case(mode, **settings)))
    case = make_case(mode, parallelism={"world_size": 2}, **settings)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(2, mp_context=spawn) as processes:
        ranks = [Rank(r, 2, r, 2, "127.0.0.1", port, "cpu", 1) for r in range(2)]
        pending = [
            processes.submit(run_rank, Trial(case, 0, 0, 0), rank, 0.5)
            for rank in ranks
        ]
        results = [each.result(TIMEOUT_S) for each in pending]
    names = [n for n in expected if n.endswith("_percent")]
    assert len(names) >= 2
    for result in results:
        assert [values(result)[n] for n in names] == [expected[n] for n in names]


@pytest.mark.slow
def test_an_accuracy_that_is_never_reached_has_no_time() -> None:
    fit = {"epochs": 1, "target_top1_percent": 100.0}
    case = make_case("fit", batch_size=64, fit=fit, optimizer={"learning_rate": 1e-5})
    result = in_fresh_process(run_alone, case)
    (metric,) = [m for m in result.metrics if m.name == "time_to_accuracy_s"]
    assert (metric.value, metric.reason) == (None, "top-1 never reached 100 %")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mode", "reason"),
    [("train", "the loss is nan"), ("fit", "the loss is nan at optimiser step ")],
)
def test_training_that_leaves_the_finite_numbers_is_nan(
    mode: Mode, reason: str
) -> None:
    case = make_case(mode, optimizer={"learning_rate": 1e30}, fit={"epochs": 1})
    result = in_fresh_process(run_alone, case)
    assert result.status == "nan"
    assert result.reason.startswith(reason)
