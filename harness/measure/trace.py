"""A trace of torch's profiler over a few steps, for Perfetto or chrome://tracing.

The profiler slows the steps down, so the trace has a pass of its own: it shows where
the time goes, and no time is taken from it.
"""

import tempfile
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile, schedule

from tlbench.measure.timing import Step
from tlbench.result import Artifact

TRACE_NAME = "trace.json.gz"
MEDIA_TYPE = "application/gzip"
WARMUP_STEPS = 1
"""The profiler sets itself up during the first."""
TRACED_STEPS = 3
MAX_TRACE_BYTES = 20 * 2**20
"""Compressed; a larger one would swell the database, and no browser opens it."""


def run_traced_steps(step: Step) -> None:
    """Run as many steps as a trace has, for a rank that keeps none: others may wait."""
    for _ in range(WARMUP_STEPS + TRACED_STEPS):
        step()


def trace_steps(step: Step, device: torch.device) -> Artifact:
    """Run a few steps under torch's profiler; a gzipped Chrome trace of them."""
    activities = [ProfilerActivity.CPU]
    if device.type == "cuda":
        activities.append(ProfilerActivity.CUDA)
    few = schedule(wait=0, warmup=WARMUP_STEPS, active=TRACED_STEPS, repeat=1)
    with profile(activities=activities, schedule=few) as profiler:
        for _ in range(WARMUP_STEPS + TRACED_STEPS):
            step()
            profiler.step()
    with tempfile.TemporaryDirectory(prefix="tlbench-") as folder:
        file = Path(folder, TRACE_NAME)
        profiler.export_chrome_trace(str(file))
        return Artifact(TRACE_NAME, MEDIA_TYPE, file.read_bytes())


def why_not_kept(trace: Artifact) -> str | None:
    """Why a trace is too large to keep; None if it is not."""
    size = len(trace.content)
    if size <= MAX_TRACE_BYTES:
        return None
    return (
        f"not kept: {TRACED_STEPS} steps have {size / 2**20:.0f} MiB of events,"
        f" compressed, and {MAX_TRACE_BYTES / 2**20:.0f} MiB is the limit"
    )
