"""The step in optimum-benchmark: `by_optimum.py LAUNCHER SECONDS REPORT`.

Its PyTorch backend takes models of timm by name, so ours is registered there. That is
done on import: the process launcher spawns a process, which imports this file anew.
"""

import sys

from beside.bare import BATCH_SIZE, IMAGE_SIZE, build
from optimum_benchmark import (  # type: ignore[import-not-found]  # a peer's
    Benchmark,
    BenchmarkConfig,
    InferenceConfig,
    InlineConfig,
    ProcessConfig,
    PyTorchConfig,
)
from timm.models import register_model
from torch import nn

LAUNCHERS = {"process": ProcessConfig, "inline": InlineConfig}

default_cfgs = {"measured": {"input_size": (3, IMAGE_SIZE, IMAGE_SIZE)}}
"""Where timm looks for the shape of the input."""


def measured(**settings: object) -> nn.Module:
    """The model of this run; what timm's factory passes on does not apply to it."""
    return build()


register_model(measured)


def main(launcher: str, duration_s: str, report: str) -> None:
    config = BenchmarkConfig(
        name="peers",
        launcher=LAUNCHERS[launcher](),
        scenario=InferenceConfig(
            duration=int(duration_s), input_shapes={"batch_size": BATCH_SIZE}
        ),
        # All that it would otherwise ask the hub for.
        backend=PyTorchConfig(
            model="measured",
            library="timm",
            task="image-classification",
            model_type="vit",
            device="cpu",
        ),
    )
    Benchmark.launch(config).save_json(report)


if __name__ == "__main__":
    main(*sys.argv[1:])
