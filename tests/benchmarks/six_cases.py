"""Wall time of a suite of six cases, beside one plain process for each model.

The other side is timm's way: a fresh process per model, and a plain loop over timm's
own model: ten steps of warm-up, as its benchmark.py has them (tlbench: until the speed
is steady), and as many timed steps. Both take turns within one run. The batch is 1, for
of other batches tlbench measures the latency of single images as well.

    python tests/benchmarks/six_cases.py --pairs 5
"""

import argparse
import json
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
model = timm.create_model(sys.argv[1], class_token=False, global_pool="avg").eval()
images = torch.rand(int(sys.argv[2]), 3, 224, 224)
times = []
with torch.inference_mode():
    for _ in range(int(sys.argv[3]) + int(sys.argv[4])):
        start = time.perf_counter()
        model(images)
        times.append(time.perf_counter() - start)
print(sum(times[int(sys.argv[3]):]))
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
        stdout=subprocess.DEVNULL,
    )
    return time.perf_counter() - start


def run_plainly() -> float:
    """Seconds of one process after the other."""
    start = time.perf_counter()
    for model in MODELS:
        size, patch = model.split("/")
        name = f"vit_{TIMM[size]}_patch{patch}_224"
        arguments = (name, str(BATCH), str(WARMUP), str(STEPS))
        subprocess.run(
            [sys.executable, "-c", PLAIN, *arguments], check=True, capture_output=True
        )
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=5)
    pairs = parser.parse_args().pairs
    ours: dict[int, float] = {}
    plain: dict[int, float] = {}
    with tempfile.TemporaryDirectory() as name:
        run_suite(Path(name), 0)  # files into the page cache
        run_plainly()
        for number in range(1, pairs + 1):
            if number % 2:
                plain[number] = run_plainly()
            ours[number] = run_suite(Path(name), number)
            if number not in plain:
                plain[number] = run_plainly()
            print(f"{ours[number]:.1f} s, plainly {plain[number]:.1f} s", flush=True)
    ratio = compare_ratio(plain, ours, "lower")
    low, high = ratio.interval or (float("nan"), float("nan"))
    print(
        f"{ratio.value:.3f} x the plain processes, 95 % interval {low:.3f} to"
        f" {high:.3f}; not slower: {low <= 1}"
    )


if __name__ == "__main__":
    main()
