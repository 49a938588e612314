"""Which nodes each trial gets: what it asks for, who holds what. Knows no Ray.

A trial has the same shape every time: so many ranks on each of so many nodes, found
from what the whole cluster has, not from what happens to be free. So repeats of a case,
and the cases that it is compared with, run on as many nodes, all of one kind.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from tlbench.rank import DeviceKind
from tlbench.suites.spec import Case, Resources
from tlbench.units import format_counted

Free = Mapping[str, Mapping[str, float]]
"""CPUs and GPUs that nobody holds, as Ray tells them: by node, then by name."""
OUTSIDE_RAY = frozenset({"torch", "torchrun"})
"""Stacks whose ranks are no workers of Ray, but children of one."""


@dataclass(frozen=True)
class Node:
    """One machine of the cluster, as Ray counts it."""

    id: str
    name: str
    """What people know it by: its host name and address."""
    cpus: float
    gpus: float = 0
    address: str = "127.0.0.1"
    """Where other nodes reach it."""
    accelerator: str | None = None
    """Ray's type of its GPUs; None: Ray does not know it."""
    labels: Mapping[str, str] = field(default_factory=dict)

    def kind(self, device: DeviceKind) -> str:
        """What makes a measurement on this node another one than on others."""
        if device == "cuda":
            return self.accelerator or "GPUs of an unknown type"
        return f"{self.cpus:g} cores"

    def matches(self, wanted: Resources) -> bool:
        """Whether it is one of the nodes that a case may run on."""
        if wanted.accelerator not in (None, self.accelerator):
            return False
        return wanted.label_values.items() <= self.labels.items()


@dataclass(frozen=True)
class Share:
    """What one trial holds of one node."""

    node: Node
    ranks: int
    cpus: float
    gpus: float


@dataclass(frozen=True)
class Placement:
    """Where the ranks of one trial run, in the order of the ranks."""

    device: DeviceKind
    shares: tuple[Share, ...]
    is_outside_ray: bool = False
    """Whether one worker a node starts its ranks."""

    @property
    def world_size(self) -> int:
        return sum(share.ranks for share in self.shares)

    @property
    def nodes(self) -> tuple[str, ...]:
        """Their names."""
        return tuple(share.node.name for share in self.shares)

    def threads(self, share: Share) -> int:
        """Threads that each rank of a share computes with."""
        if self.device == "cuda":
            return 1
        return max(int(share.cpus / share.ranks), 1)


class Schedule:
    """The nodes of a cluster, and what trials of ours hold of them."""

    def __init__(self, nodes: Iterable[Node] = ()) -> None:
        self._nodes: dict[str, Node] = {}
        self._seen: dict[str, Node] = {}
        """All nodes that there ever were."""
        self._held: defaultdict[tuple[str, str], float] = defaultdict(float)
        """CPUs and GPUs that trials of ours hold, by node and name."""
        self._kinds: dict[DeviceKind, str] = {}
        self.update(nodes)

    def update(self, nodes: Iterable[Node]) -> None:
        """Learn which nodes there are now; what is held of them stays held."""
        self._nodes = {node.id: node for node in nodes}
        self._seen |= self._nodes

    @property
    def nodes(self) -> list[Node]:
        return list(self._nodes.values())

    def device_of(self, case: Case) -> DeviceKind:
        """Where the trials of this case run: on GPUs where there are any."""
        if case.device != "auto":
            return case.device
        return self.device

    @property
    def device(self) -> DeviceKind:
        """Where trials run that leave it open."""
        return "cuda" if any(node.gpus for node in self._seen.values()) else "cpu"

    def shortage(self, case: Case) -> str | None:
        """Why the case could never be placed, while all nodes were there; else None."""
        nodes = list(self._seen.values())
        if self._fitting(case, nodes):
            return None
        return f"{self._needs(case)}; the cluster has {describe_nodes(nodes)}"

    def lack(self, case: Case) -> str:
        """What the case waits for, whether others hold it or it has vanished."""
        here = describe_nodes(self._nodes.values())
        why = f"others hold it, of {here}" if self._fitting(case) else f"left is {here}"
        return f"{self._needs(case)}; {why}"

    def _needs(self, case: Case) -> str:
        spread, wanted = case.parallelism, case.resources
        where = f" on {spread.nodes} node(s)" if spread.placement == "strict" else ""
        asked = [f"accelerator {wanted.accelerator}"] if wanted.accelerator else []
        asked += [wanted.labels] if wanted.labels else []
        kind = f" with {', '.join(asked)}" if asked else ""
        return f"needs {spread.world_size} x {self.device_of(case)}{where}{kind}"

    def candidates(self, case: Case) -> frozenset[str]:
        """Ids of the nodes that trials of the case run on, whoever holds them now."""
        return frozenset(node.id for node in self._fitting(case))

    def place(self, case: Case, free: Free) -> Placement | None:
        """Take what a trial of the case needs; None: it is not free now."""
        placement = self.find(case, free)
        for share in placement.shares if placement is not None else ():
            self._held[share.node.id, "CPU"] += share.cpus
            self._held[share.node.id, "GPU"] += share.gpus
        return placement

    def find(self, case: Case, free: Free | None = None) -> Placement | None:
        """Where a trial of the case could run now; None: nowhere.

        Args:
            case: What is to run.
            free: What nobody at all holds, which may lag behind what trials of ours
                have taken; None: count trials of ours alone.
        """
        device, fitting = self.device_of(case), self._fitting(case)
        shape = _shape(case, device, fitting)
        if shape is None:
            return None
        shares: list[Share] = []
        # The fullest node that will do: others stay whole for those that need them so.
        nodes = sorted(fitting, key=lambda node: self._spare(node, device))
        for ranks in shape:
            share = self._first_share(case, ranks, nodes, free)
            if share is None:
                return None
            shares.append(share)
            nodes.remove(share.node)
        return Placement(device, tuple(shares), case.stack in OUTSIDE_RAY)

    def release(self, placement: Placement) -> None:
        """Give back what `place` took."""
        for share in placement.shares:
            self._held[share.node.id, "CPU"] -= share.cpus
            self._held[share.node.id, "GPU"] -= share.gpus

    def is_free_of_ours(self, case: Case) -> bool:
        """Whether no trial of ours holds anything that the case could run on."""
        return not any(
            self._held[node, name]
            for node in self.candidates(case)
            for name in ("CPU", "GPU")
        )

    def whole_node(self, device: DeviceKind) -> Placement:
        """One rank alone on the first node of the kind that trials run on."""
        node = next(n for n in self.nodes if _capacity(n, device))
        share = Share(node, 1, node.cpus, 1 if device == "cuda" else 0)
        return Placement(device, (share,))

    def _first_share(
        self, case: Case, ranks: int, nodes: Sequence[Node], free: Free | None
    ) -> Share | None:
        for node in nodes:
            share = self._share(case, node, ranks)
            cpus, gpus = self._left(node, "CPU"), self._left(node, "GPU")
            if free is not None:
                there = free.get(node.id, {})
                cpus = min(cpus, there.get("CPU", 0))
                gpus = min(gpus, there.get("GPU", 0))
            if share.cpus <= cpus and share.gpus <= gpus:
                return share
        return None

    def _share(self, case: Case, node: Node, ranks: int) -> Share:
        if self.device_of(case) == "cpu":
            return Share(node, ranks, node.cpus, 0)
        if case.parallelism.exclusive == "node":
            return Share(node, ranks, node.cpus, node.gpus)
        return Share(node, ranks, ranks, ranks)

    def _left(self, node: Node, name: str) -> float:
        whole = node.cpus if name == "CPU" else node.gpus
        return whole - self._held[node.id, name]

    def _spare(self, node: Node, device: DeviceKind) -> tuple[float, str]:
        return self._left(node, "GPU" if device == "cuda" else "CPU"), node.name

    def _fitting(self, case: Case, nodes: Iterable[Node] | None = None) -> list[Node]:
        """The nodes, of those that there are, that the case may run on; often none.

        All are of one kind, the same for all cases: the kind with most devices, unless
        it cannot hold the case.
        """
        device = self.device_of(case)
        by_kind: dict[str, list[Node]] = {}
        for node in self._nodes.values() if nodes is None else nodes:
            if node.matches(case.resources) and _capacity(node, device):
                by_kind.setdefault(node.kind(device), []).append(node)
        able = {k: found for k, found in by_kind.items() if _shape(case, device, found)}
        preferred = self._preferred_kind(device)
        if preferred in able or not able:
            return able.get(preferred, [])
        return able[max(sorted(able), key=lambda kind: _devices(able[kind], device))]

    def _preferred_kind(self, device: DeviceKind) -> str:
        """The kind that had most devices when it was first asked for."""
        if device not in self._kinds:
            kinds = Counter[str]()
            for node in self._seen.values():
                kinds[node.kind(device)] += int(_capacity(node, device))
            self._kinds[device] = max(sorted(kinds), key=kinds.__getitem__)
        return self._kinds[device]


def _capacity(node: Node, device: DeviceKind) -> float:
    """Devices of a node that ranks can have; on CPUs ranks may share cores."""
    if device == "cpu":
        return node.cpus
    return min(node.gpus, node.cpus)  # a rank on a GPU takes a core as well


def _devices(nodes: Iterable[Node], device: DeviceKind) -> float:
    return sum(_capacity(node, device) for node in nodes)


def _shape(
    case: Case, device: DeviceKind, nodes: Sequence[Node]
) -> tuple[int, ...] | None:
    ranks = case.parallelism.world_size
    most = sorted((_most_ranks(n, device, ranks) for n in nodes), reverse=True)
    shape = _SHAPES[case.parallelism.placement](case, most)
    # The largest parts on the largest nodes.
    fits = len(shape) <= len(most) and all(map(int.__le__, shape, most))
    return shape if fits and sum(shape) == ranks else None


def _most_ranks(node: Node, device: DeviceKind, ranks: int) -> int:
    return ranks if device == "cpu" else int(_capacity(node, device))


def _strict(case: Case, most: Sequence[int]) -> tuple[int, ...]:
    nodes = case.parallelism.nodes
    return (case.parallelism.world_size // nodes,) * nodes


def _pack(case: Case, most: Sequence[int]) -> tuple[int, ...]:
    left, shape = case.parallelism.world_size, []
    for ranks in most:
        if left:
            shape.append(min(ranks, left))
            left -= shape[-1]
    return tuple(shape)


def _spread(case: Case, most: Sequence[int]) -> tuple[int, ...]:
    left, counts = case.parallelism.world_size, [0] * len(most)
    while left and (open_ := [k for k in range(len(most)) if counts[k] < most[k]]):
        each = max(left // len(open_), 1)
        for k in open_:
            more = min(each, most[k] - counts[k], left)
            counts[k] += more
            left -= more
    return tuple(sorted((count for count in counts if count), reverse=True))


_SHAPES: dict[str, Callable[[Case, Sequence[int]], tuple[int, ...]]] = {
    "strict": _strict,
    "pack": _pack,
    "spread": _spread,
}


def describe_nodes(nodes: Iterable[Node]) -> str:
    """How many nodes of which kind there are, for people to read."""
    kinds = Counter(
        f"{node.cpus:g} CPUs and {node.gpus:g} GPUs"
        + (f" ({node.accelerator})" if node.accelerator else "")
        for node in nodes
    )
    told = [
        f"{format_counted(count, 'node')} with {kind}"
        if count > 1
        else f"a node with {kind}"
        for kind, count in kinds.items()
    ]
    return ", ".join(told) or "no nodes"
