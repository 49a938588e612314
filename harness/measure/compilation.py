"""What torch.compile did: how long it compiled, and where it could not go on.

Dynamo keeps count of both by itself; its own reports are made from the same counters.
"""

from tlbench.result import Metric

NOT_COMPILED = "nothing was compiled: torch ran the model as it is"


def measure_compilation() -> list[Metric]:
    """Ask Dynamo about everything that this process has compiled so far."""
    from torch._dynamo.utils import calculate_time_spent, counters  # slow to import

    # Forward and backward graphs, tracing and code generation included.
    compile_time_s = calculate_time_spent().get("total_wall_time")
    if not compile_time_s:
        names = "compile_time_s", "graph_breaks"
        return [Metric(name, None, NOT_COMPILED) for name in names]
    return [
        Metric("compile_time_s", compile_time_s),
        Metric("graph_breaks", sum(counters["graph_break"].values())),
    ]
