"""Wall time of a suite of six cases, beside one process of timm's for each model.

Both do as many timed steps, after ten steps of warm-up in timm's benchmark.py, and
until the speed is steady in tlbench. The batch is 1, for of other batches tlbench
measures the latency of single images as well. The other side is there twice:

- as benchmark.py is where DeepSpeed is installed: the operations of each model are
  counted by DeepSpeed's profiler, after ten more steps. (The script does so two times
  over; here it is once.) tlbench takes memory and stages instead, in eight more steps.
- the same without, so a bare loop that finds nothing but the speed.

All take turns within one run.

    python tests/benchmarks/six_cases.py --pairs 5
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tlbench.statistics import compare_ratio

MODELS = ("Ti/16", "S/32", "S/16", "S/8", "B/32", "B/16")
TIMM = {"Ti": "tiny", "S": "small", "B": "base"}
BATCH, WARMUP, STEPS = 1, 10, 100
SUITE = {
    "models": [f"ViT-{name}" for name in MODELS],
    "mode": "infer",
    "device": "cpu",
    "batch_size": BATCH,
    "repeats": 1,
    "timing": {"min_steps": STEPS, "max_steps": STEPS, "max_time_s": 600},
}
PLAIN = """
import sys, time
import timm, torch
if sys.argv[5] == "counted":
    from deepspeed.profiling.flops_profiler import get_model_profile
model = timm.create_model(sys.argv[1], class_token=False, global_pool="avg").eval()
images = torch.rand(int(sys.argv[2]), 3, 224, 224)
times = []
with torch.inference_mode():
    for _ in range(int(sys.argv[3]) + int(sys.argv[4])):
        start = time.perf_counter()
        model(images)
        times.append(time.perf_counter() - start)
print(sum(times[int(sys.argv[3]):]))
if sys.argv[5] == "counted":
    _, macs, _ = get_model_profile(
        model, (1, 3, 224, 224), print_profile=False, detailed=False, warm_up=10,
        as_string=False,
    )
    print(macs)
"""


def run_suite(folder: Path, number: int) -> float:
    """Seconds of one `tlbench run`, which ends with its table."""
    (folder / "six.json").write_text(json.dumps(SUITE))
    command = [sys.executable, "-m", "tlbench", "run", "six.json"]
    start = time.perf_counter()
    subprocess.run(
        [*command, "--db", f"{number}.db"],
        cwd=folder,
        check=True,
        capture_output=True,
    )
    return time.perf_counter() - start


def run_timm(kind: str) -> float:
    """Seconds of one process after the other; `counted` with operations, or `bare`."""
    start = time.perf_counter()
    for model in MODELS:
        size, patch = model.split("/")
        name = f"vit_{TIMM[size]}_patch{patch}_224"
        arguments = (name, str(BATCH), str(WARMUP), str(STEPS), kind)
        subprocess.run(
            [sys.executable, "-c", PLAIN, *arguments],
            env=os.environ | {"DS_ACCELERATOR": "cpu"},
            check=True,
            capture_output=True,
        )
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=5)
    pairs = parser.parse_args().pairs
    times: dict[str, dict[int, float]] = {"tlbench": {}, "counted": {}, "bare": {}}
    with tempfile.TemporaryDirectory() as name:
        for number in range(pairs + 1):
            order = list(times) if number % 2 else list(times)[::-1]
            for side in order:
                is_ours = side == "tlbench"
                times[side][number] = (
                    run_suite(Path(name), number) if is_ours else run_timm(side)
                )
            told = ", ".join(f"{side} {times[side][number]:.1f} s" for side in times)
            print(f"{number}: {told}", flush=True)
    for side in times:
        del times[side][0]  # it brought files into the page cache
    for side in ("counted", "bare"):
        ratio = compare_ratio(times[side], times["tlbench"], "lower")
        low, high = ratio.interval or (float("nan"), float("nan"))
        print(
            f"{ratio.value:.3f} x {side}, 95 % interval {low:.3f} to {high:.3f};"
            f" not slower: {low <= 1}"
        )


if __name__ == "__main__":
    main()
