"""How much of the speed-up that MACs predict does TokenLearner realise on this CPU?

ViT-B/16 with 8 tokens at 1/4, 1/2 and 3/4 of its blocks against ViT-B/16, in inference.
Two virtual cores drift by a tenth within seconds, so the models live in one process and
take turns step by step, in a shuffled order; the ratio is that of the steps of a round.
The cost of the tokenizer is the time of its stage over a step of the plain model.

    python tests/benchmarks/realised_speedup.py --rounds 100
"""

import argparse
import os
from functools import partial
from statistics import median

import torch
from torch import Tensor, nn

from tlbench.measure.memory import keep_freed_memory
from tlbench.measure.stages import HostTimes, stage_times
from tlbench.measure.timing import host_clock
from tlbench.models import cost
from tlbench.models.layers import layers
from tlbench.models.vit import build_model
from tlbench.statistics import compare_ratio
from tlbench.suites.names import parse_model
from turns import take_turns

BASE = "ViT-B/16"
TARGETS = {
    "ViT-B/16+TL8@1/4": 0.92,
    "ViT-B/16+TL8@1/2": 0.95,
    "ViT-B/16+TL8@3/4": 0.97,
}
"""Least share of the predicted speed-up."""
MAX_TOKENIZER_SHARE = 0.02
BATCH_SIZE = 8
NUM_CLASSES = 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=100)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    keep_freed_memory()
    models = {
        name: build_model(parse_model(name), NUM_CLASSES).eval()
        for name in (BASE, *TARGETS)
    }
    images = torch.rand(BATCH_SIZE, 3, 224, 224) * 2 - 1
    sides = {name: partial(step_time_s, models[name], images) for name in models}
    with torch.inference_mode():
        rates = take_turns(sides, rounds, BATCH_SIZE)
        for name, target in TARGETS.items():
            report(name, target, rates)
            report_tokenizer(name, models[name], rates[BASE])


def step_time_s(model: nn.Module, images: Tensor) -> float:
    return host_clock(lambda: model(images), 1)[0]


def report(name: str, target: float, rates: dict[str, dict[int, float]]) -> None:
    base, other = (cost.macs(parse_model(m), NUM_CLASSES) for m in (BASE, name))
    predicted = base / other
    ratio = compare_ratio(rates[BASE], rates[name], "higher")
    assert ratio.value is not None
    assert ratio.interval is not None
    share, low, high = (x / predicted for x in (ratio.value, *ratio.interval))
    print(
        f"{name}: {ratio.value:.3f} x of {predicted:.3f} x predicted: share"
        f" {share:.3f}, 95 % interval {low:.3f} to {high:.3f} ({ratio.n} rounds);"
        f" target {target}: {'reached' if share >= target else 'missed'}"
    )


def report_tokenizer(name: str, model: nn.Module, base: dict[int, float]) -> None:
    walk = layers(parse_model(name), NUM_CLASSES)
    stage_of = {path: layer.stage for layer in walk for path in layer.modules}
    images = torch.rand(BATCH_SIZE, 3, 224, 224)
    times = stage_times(model, lambda: model(images), stage_of, HostTimes(), 10.0)
    share = times["tokenizer"] / (BATCH_SIZE / median(base.values()))
    verdict = "reached" if share < MAX_TOKENIZER_SHARE else "missed"
    print(f"  its tokenizer: {share:.2%} of a step of {BASE}: {verdict}")


if __name__ == "__main__":
    main()
