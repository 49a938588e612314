"""`benchmark.json` of optimum-benchmark: its configuration and its report.

Source of names and units: optimum-benchmark 0.6.0, `benchmark/`, `scenarios/` and
`trackers/`. Latencies are in seconds, a value a pass; memory is in MB of 10^6 bytes.
Only what image models have is read: a forward pass, or training steps.
"""

import math
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from tlbench.db.foreign_records import ForeignCase, ForeignTrial, UnreadableError
from tlbench.machine import Machine
from tlbench.result import Metric, Series
from tlbench.suites.spec import Precision

Tree = Mapping[str, Any]

_MEGABYTE = 1e6
_MEMORY = {
    "max_ram": "peak_memory_host_rss_bytes",
    "max_global_vram": "peak_memory_device_used_bytes",
    "max_process_vram": "peak_memory_process_used_bytes",
    "max_reserved": "peak_memory_reserved_bytes",
    "max_allocated": "peak_memory_allocated_bytes",
}
_PERCENTILES = {
    "p50": "step_time_p50_s",
    "p90": "step_time_p90_s",
    "p99": "step_time_p99_s",
    "mean": "step_time_mean_s",
}
_PRECISIONS: dict[str, Precision] = {
    "float32": "fp32",
    "float16": "fp16",
    "bfloat16": "bf16",
}
_OF_BACKEND = (
    *("name", "task", "library", "attn_implementation", "torch_compile"),
    *("autocast_enabled", "autocast_dtype", "quantization_scheme"),
)
"""Settings that tlbench has no word for, or not the same."""


class _Scenario(NamedTuple):
    """Where the report of a scenario has what tlbench measures too."""

    mode: str
    steps: str
    """Of the steps that count."""
    warmup: str
    warmup_series: str


_SCENARIOS = {
    "inference": _Scenario("infer", "forward", "first_forward", ""),
    "training": _Scenario("train", "train", "warmup", "warmup_step_time_s"),
}


def is_optimum(content: object) -> bool:
    return isinstance(content, Mapping) and {"config", "report"} <= content.keys()


def is_report_alone(content: object) -> bool:
    """Whether it is a report without the configuration that says of what."""
    if not isinstance(content, Mapping):
        return False
    targets = ("forward", "train", "load_model")
    return any(isinstance(content.get(target), Mapping) for target in targets)


def version_of(content: Tree) -> str:
    environment = content["config"].get("environment") or {}
    return str(environment.get("optimum_benchmark_version") or "")


def read(content: Tree) -> tuple[ForeignTrial, ...]:
    """The one trial of a file; raises UnreadableError where it is of something else."""
    config, report = content["config"], content["report"]
    try:
        return (_trial(config, report),)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise UnreadableError(f"{type(error).__name__}: {error}") from error


def _trial(config: Tree, report: Tree) -> ForeignTrial:
    scenario, backend = config["scenario"], config["backend"]
    where = _SCENARIOS.get(scenario["name"])
    if where is None or where.steps not in report:
        raise UnreadableError(
            f"its scenario {scenario['name']} on {', '.join(report)} has no"
            " counterpart here; a forward pass or a training would be read"
        )
    measured = any(report[where.steps].get(name) for name in ("latency", "memory"))
    return ForeignTrial(
        case=_case(where.mode, config),
        metrics=tuple(_metrics(where, config, report)),
        series=tuple(_series(where, report)),
        notes=dict(_notes(config)),
        seed=backend.get("seed"),
        machine=_machine(config),
        status="ok" if measured else "error",
        reason=None if measured else f"the report has nothing of {where.steps}",
    )


def _case(mode: str, config: Tree) -> ForeignCase:
    scenario, backend = config["scenario"], config["backend"]
    shapes = scenario.get("input_shapes") or {}
    sizes = {shapes.get("height"), shapes.get("width")} - {None}
    return ForeignCase(
        tool="optimum-benchmark",
        model=backend["model"],
        mode=mode,
        image_size=sizes.pop() if len(sizes) == 1 else None,
        batch_size=_batch_size(mode, scenario),
        precision=_precision(backend),
        device=backend.get("device"),
        world_size=_world_size(config),
        more={"backend": {n: backend[n] for n in _OF_BACKEND if backend.get(n)}},
    )


def _batch_size(mode: str, scenario: Tree) -> int | None:
    """Samples of one step of one process."""
    if mode == "infer":
        size = (scenario.get("input_shapes") or {}).get("batch_size")
        return None if size is None else int(size)
    arguments = scenario["training_arguments"]
    size = arguments["per_device_train_batch_size"]
    return int(size * arguments["gradient_accumulation_steps"])


def _precision(backend: Tree) -> Precision | None:
    """Of the weights; None where they are as the checkpoint has them, or autocast."""
    if backend.get("autocast_enabled"):
        return None
    precision = _PRECISIONS.get(backend.get("torch_dtype") or "")
    return "tf32" if precision == "fp32" and backend.get("allow_tf32") else precision


def _world_size(config: Tree) -> int | None:
    launcher = config.get("launcher") or {}
    if launcher.get("name") == "torchrun":
        return launcher.get("nproc_per_node")
    return 1 if launcher.get("name") in ("process", "inline") else None


def _metrics(where: _Scenario, config: Tree, report: Tree) -> Iterator[Metric]:
    steps = report[where.steps]
    if latency := steps.get("latency"):
        _check_unit(latency, "s")
        for theirs, ours in _PERCENTILES.items():
            yield Metric(ours, _number(latency, theirs))
        yield _throughput(where, config, _number(latency, "mean"))
    if memory := steps.get("memory"):
        _check_unit(memory, "MB")
        for theirs, ours in _MEMORY.items():
            if memory.get(theirs) is not None:
                yield Metric(ours, _number(memory, theirs) * _MEGABYTE)
    first = (report.get("first_forward") or {}).get("latency")
    if first:
        yield Metric("first_step_time_s", _number(first, "mean"))
    load = (report.get("load_model") or {}).get("latency")
    if load:
        yield Metric("load_model_time_s", _number(load, "total"))


def _throughput(where: _Scenario, config: Tree, mean_s: float) -> Metric:
    """From the mean time of a step, as the tool does for a forward pass.

    Not as it stands in the report: of training that divides the samples of all steps
    by the mean time of one. Of several processes the report does not say who had what.
    """
    name = "throughput_samples_per_s"
    batch_size = _batch_size(where.mode, config["scenario"])
    if batch_size is None or _world_size(config) != 1:
        return Metric(name, None, "the report has the steps of several processes")
    return Metric(name, batch_size / mean_s)


def _number(measured: Tree, name: str) -> float:
    value = float(measured[name])
    if not math.isfinite(value):
        raise UnreadableError(f"{name} {value} is not finite")
    return value


def _check_unit(measured: Tree, unit: str) -> None:
    if measured["unit"] != unit:
        raise UnreadableError(
            f"unit {measured['unit']!r} where {unit!r} would be right"
        )


def _series(where: _Scenario, report: Tree) -> Iterator[Series]:
    if latency := report[where.steps].get("latency"):
        yield Series("step_time_s", tuple(map(float, latency["values"])))
    warmup = (report.get(where.warmup) or {}).get("latency")
    if warmup and where.warmup_series:
        yield Series(where.warmup_series, tuple(map(float, warmup["values"])))


def _notes(config: Tree) -> Iterator[tuple[str, str]]:
    yield "benchmark", str(config.get("name"))
    launcher = config.get("launcher") or {}
    yield "launcher", str(launcher.get("name"))
    for name, value in (config.get("environment") or {}).items():
        if name.endswith(("_commit", "_version")) and value:
            yield name, str(value)


def _machine(config: Tree) -> Machine | None:
    """From the environment, where that is complete; its host is never told.

    Left out: `gpu_vram_mb`, a sum in bytes under a name that says MB.
    """
    environment, backend = config.get("environment") or {}, config["backend"]
    needed = ("cpu_count", "cpu_ram_mb", "platform", "python_version")
    if any(environment.get(name) is None for name in needed):
        return None
    gpus = environment.get("gpu") or []
    torch = backend.get("version") if backend.get("name") == "pytorch" else None
    return Machine(
        hostname="unknown",
        os=environment["platform"],
        cpu_model=(environment.get("cpu") or "").strip() or None,
        cpu_cores=environment["cpu_count"],
        memory_bytes=round(environment["cpu_ram_mb"] * _MEGABYTE),
        gpu_name=" + ".join(sorted(set(gpus))) or None,
        gpu_count=len(gpus),
        gpu_memory_bytes=None,
        gpu_driver=None,
        python=environment["python_version"],
        versions={"torch": torch, "timm": environment.get("timm_version")},
        commit=None,
        is_dirty=None,
    )
