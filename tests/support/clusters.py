"""A cluster without Ray: nodes that are declared, and trials whose end is told."""

from collections.abc import Callable, Iterable
from datetime import UTC, datetime

from tlbench.events import Finished
from tlbench.placement import Node, Placement, Schedule
from tlbench.result import TrialResult
from tlbench.suites.spec import Case, Trial

NOW = datetime(2026, 1, 1, tzinfo=UTC)
LAPTOP = Node("laptop", "laptop", cpus=2)
OK = TrialResult("ok")

Ends = Callable[[Trial, Placement], TrialResult]


class SimulatedCluster:
    """What `tlbench.cluster.Cluster` is to the driver, with the scheduling of it."""

    def __init__(
        self,
        nodes: Iterable[Node] = (LAPTOP,),
        ends: Ends = lambda trial, placement: OK,
    ) -> None:
        self.schedule = Schedule(nodes)
        self.others: dict[str, dict[str, float]] = {}
        """CPUs and GPUs that others hold."""
        self._ends = ends
        self.checks = 0
        self.refusals: list[str] = []
        """Of nodes that trials may not run on."""
        self.shortage = self.schedule.shortage
        self.lack = self.schedule.lack
        self.candidates = self.schedule.candidates
        self.is_held_by_others = self.schedule.is_free_of_ours
        self.release = self.schedule.release
        self.device_of = self.schedule.device_of

    @property
    def node_ids(self) -> frozenset[str]:
        return frozenset(node.id for node in self.schedule.nodes)

    def place(self, case: Case) -> Placement | None:
        free = {}
        for node in self.schedule.nodes:
            held = self.others.get(node.id, {})
            free[node.id] = {
                "CPU": node.cpus - held.get("CPU", 0),
                "GPU": node.gpus - held.get("GPU", 0),
            }
        return self.schedule.place(case, free)

    def run(
        self, trial: Trial, timeout_s: float, placement: Placement | None = None
    ) -> Finished:
        assert placement is not None
        result = self._ends(trial, placement)
        return Finished(trial, result, NOW, wall_time_s=1.0, nodes=placement.nodes)

    joining_s = 0.0

    def look(self) -> None:
        """Nodes come and go by `schedule.update`."""

    def take_refusals(self) -> list[str]:
        taken, self.refusals = self.refusals, []
        return taken

    def check(self) -> None:
        self.checks += 1

    def end_trials(self) -> None:
        """Those of this cluster end by themselves."""
