"""Metrics as people read them: title, unit, and as many digits as mean something."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tlbench.models.layers import Stage
from tlbench.suites.training import fewshot_metric
from tlbench.units import format_number

if TYPE_CHECKING:  # NumPy: a list of trials does without it
    from tlbench.statistics import Direction, Interval

DIGITS = 4
"""Significant digits of a measured value."""
BASE_UNITS = {
    "ms": "s",
    "MHz": "Hz",
    "MiB": "bytes",
    "GiB": "bytes",
    "M": "",
    "GMACs": "MACs",
    "GFLOPs": "FLOPs",
}
"""Units of values that are stored in another one."""


@dataclass(frozen=True)
class Quantity:
    """How one metric is shown."""

    title: str
    unit: str
    scale: float = 1.0
    """Stored value times this is the shown value."""
    is_count: bool = False
    """Whether it is counted, and so shown without decimals."""

    @property
    def heading(self) -> str:
        return f"{self.title} [{self.unit}]" if self.unit else self.title

    @property
    def base_unit(self) -> str:
        """The unit in which values are stored."""
        if self.unit.startswith("%") and self.scale != 1:
            return self.unit.replace("%", "fraction")
        return BASE_UNITS.get(self.unit, self.unit)

    def text(self, value: float) -> str:
        shown = value * self.scale
        return f"{shown:,.0f}" if self.is_count else format_number(shown, DIGITS)

    def interval_text(self, interval: "Interval | None") -> str:
        """Both ends; empty where there is no interval, or a count without spread."""
        if interval is None or interval[0] == interval[1]:
            return ""
        return " to ".join(format_number(end * self.scale) for end in interval)


LARGEST_BATCH = "max_batch_size"
SHOTS = (1, 2, 3, 4, 5, 8, 10, 16, 20, 25, 32, 50, 64, 100)
"""Numbers of labelled samples of a class that reports know of; others are stored."""
FEWSHOT = {fewshot_metric(shots): shots for shots in SHOTS}
QUANTITIES = {
    "params": Quantity("parameters", "M", 1e-6),
    "macs": Quantity("compute", "GMACs", 1e-9),
    "flops": Quantity("compute", "GFLOPs", 1e-9),
    "throughput_samples_per_s": Quantity("throughput", "samples/s"),
    "throughput_per_device_samples_per_s": Quantity("per device", "samples/s"),
    "step_time_p50_s": Quantity("step, median", "ms", 1e3),
    "communication_fraction": Quantity("communication", "% of step", 1e2),
    "rank_step_time_spread_fraction": Quantity("spread of ranks", "%", 1e2),
    "mfu": Quantity("MFU", "%", 1e2),
    "energy_j_per_sample": Quantity("energy", "J/sample"),
    "latency_p50_s": Quantity("latency p50", "ms", 1e3),
    "latency_p90_s": Quantity("latency p90", "ms", 1e3),
    "latency_p99_s": Quantity("latency p99", "ms", 1e3),
    "peak_memory_allocated_bytes": Quantity("peak memory, allocated", "GiB", 2**-30),
    "peak_memory_reserved_bytes": Quantity("peak memory, reserved", "GiB", 2**-30),
    "peak_memory_device_used_bytes": Quantity("peak memory, device", "GiB", 2**-30),
    "peak_memory_host_rss_bytes": Quantity("peak memory, host", "GiB", 2**-30),
    "peak_memory_host_growth_bytes": Quantity("memory of the steps", "MiB", 2**-20),
    LARGEST_BATCH: Quantity("largest batch", "samples", is_count=True),
    "top1_percent": Quantity("top-1", "%"),
    "top5_percent": Quantity("top-5", "%"),
    "map_percent": Quantity("mAP", "%"),
    **{name: Quantity(f"{shots}-shot", "%") for name, shots in FEWSHOT.items()},
    "eval_throughput_samples_per_s": Quantity("evaluation", "samples/s"),
    "loss": Quantity("last loss", ""),
    "train_time_s": Quantity("training", "s"),
    "time_to_accuracy_s": Quantity("time to accuracy", "s"),
    "import_time_s": Quantity("imports", "s"),
    "build_time_s": Quantity("build", "s"),
    "load_time_s": Quantity("load", "s"),
    "first_step_time_s": Quantity("first step", "s"),
    "compile_time_s": Quantity("compilation", "s"),
    "graph_breaks": Quantity("graph breaks", ""),
}
"""What the report shows, in the order of its table's columns."""

MACHINE = {
    "power_w": Quantity("power", "W"),
    "idle_power_w": Quantity("idle power", "W"),
    "gpu_utilization_fraction": Quantity("GPU busy", "%", 1e2),
    "gpu_clock_hz": Quantity("GPU clock", "MHz", 1e-6),
    "gpu_temperature_celsius": Quantity("GPU", "\N{DEGREE SIGN}C"),
    "throttled_fraction": Quantity("throttled", "% of samples", 1e2),
    "cpu_clock_hz": Quantity("CPU clock", "MHz", 1e-6),
    "foreign_cpu_fraction": Quantity("others' CPU time", "%", 1e2),
    "steal_fraction": Quantity("stolen CPU time", "%", 1e2),
    "involuntary_switches_per_s": Quantity("involuntary switches", "1/s"),
}
"""What the machine did while steps were timed, in the order of their table."""

MAPS = {
    "map_entropy": Quantity("entropy", ""),
    "map_variation": Quantity("variation", ""),
    "map_distance_best": Quantity("distance, nearest map", "of the side"),
    "map_distance_mean": Quantity("distance, mean map", "of the side"),
    "map_distance_middle": Quantity("distance, the middle", "of the side"),
    "map_correlation_best": Quantity("correlation over time", ""),
    "map_gain_best": Quantity("gain", ""),
}
"""What the report tells of attention maps, in the order of their table."""

STAGES: dict[Stage, str] = {
    "embedding": "embedding",
    "before": "blocks before",
    "tokenizer": "tokenizer",
    "after": "blocks after",
    "temporal": "blocks over time",
    "head": "head",
}
"""The stages of a model as they are called in words, in their order."""
STAGE_TIME = Quantity("time", "ms", 1e3)
STAGE_MACS = Quantity("compute", "GMACs", 1e-9)
CEILING = Quantity("at best, blocks after free", "\N{MULTIPLICATION SIGN}")
MEMORY = Quantity("memory", "MiB", 2**-20)

DIRECTIONS: dict[str, "Direction"] = {
    "params": "lower",
    "trainable_params": "lower",
    "macs": "lower",
    "flops": "lower",
    "train_flops": "lower",
    "import_time_s": "lower",
    "build_time_s": "lower",
    "load_time_s": "lower",
    "first_step_time_s": "lower",
    "compile_time_s": "lower",
    "graph_breaks": "lower",
    "throughput_samples_per_s": "higher",
    "throughput_per_device_samples_per_s": "higher",
    "step_time_p50_s": "lower",
    "step_time_p90_s": "lower",
    "step_time_p99_s": "lower",
    "outlier_steps": "lower",
    "data_wait_fraction": "lower",
    "input_throughput_samples_per_s": "higher",
    "input_throughput_per_worker_samples_per_s": "higher",
    "kept_batch_step_time_s": "lower",
    "input_workers_needed": "lower",
    "compute_time_s": "lower",
    "communication_fraction": "lower",
    "rank_step_time_spread_fraction": "lower",
    "mfu": "higher",
    "energy_j_per_sample": "lower",
    "latency_p50_s": "lower",
    "latency_p90_s": "lower",
    "latency_p99_s": "lower",
    "peak_memory_allocated_bytes": "lower",
    "peak_memory_reserved_bytes": "lower",
    "peak_memory_device_used_bytes": "lower",
    "peak_memory_host_rss_bytes": "lower",
    "peak_memory_host_growth_bytes": "lower",
    "max_batch_size": "higher",
    "smallest_failing_batch_size": "higher",
    **{
        f"stage_{stage}_{quantity}": "lower"
        for stage in STAGES
        for quantity in ("time_s", "macs", "memory_bytes")
    },
    "loss": "lower",
    "top1_percent": "higher",
    "top5_percent": "higher",
    "map_percent": "higher",
    **dict.fromkeys(FEWSHOT, "higher"),
    "eval_throughput_samples_per_s": "higher",
    "unreadable_samples": "lower",
    "time_to_accuracy_s": "lower",
    "train_time_s": "lower",
}
"""Which way each metric gets better; one that is not here cannot be better."""
