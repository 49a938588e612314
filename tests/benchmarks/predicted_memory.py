"""Memory of ViT-B/16 as it is predicted, and as a trial on this CPU measures it.

Compared is the growth of the peak resident set over what the built process holds
between two steps. For inference that is the largest set of tensors alive at once; for
training what autograd keeps, what going back takes, and the gradients: see
`tlbench.models.memory.predicted_growth_bytes`. Each trial runs in a fresh process, as
in every run.

    python tests/benchmarks/predicted_memory.py
"""

import argparse

from tlbench.cluster import Cluster
from tlbench.suites.names import model_name, parse_model
from tlbench.suites.spec import Case, Mode, Timing, Trial
from tlbench.units import format_bytes

TARGET = 0.15
TIMING = Timing(min_steps=1, max_steps=1, max_time_s=1)
MODES: tuple[Mode, ...] = ("infer", "train")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="ViT-B/16")
    parser.add_argument("--batch-size", type=int, default=8)
    arguments = parser.parse_args()
    with Cluster() as cluster:
        for position, mode in enumerate(MODES):
            case = Case(
                model=parse_model(arguments.model),
                mode=mode,
                batch_size=arguments.batch_size,
                timing=TIMING,
                device="cpu",
            )
            report(case, cluster, position)


def report(case: Case, cluster: Cluster, position: int) -> None:
    result = cluster.run(Trial(case, 0, position, seed=0), 600).result
    if result.status != "ok":
        raise SystemExit(f"the trial failed: {result.reason}")
    values = {metric.name: metric.value for metric in result.metrics}
    predicted = values["predicted_memory_growth_bytes"]
    measured = values["peak_memory_host_growth_bytes"]
    if predicted is None or measured is None:
        raise SystemExit("this kernel does not reset its peak resident set")
    ratio = measured / predicted
    verdict = "within" if abs(ratio - 1) <= TARGET else "NOT within"
    print(
        f"{case.mode} {model_name(case.model)}, batch {case.batch_size}:"
        f" predicted {format_bytes(predicted)}, measured {format_bytes(measured)},"
        f" ratio {ratio:.3f}: {verdict} {TARGET:.0%}"
    )


if __name__ == "__main__":
    main()
