"""The nodes of a cluster that trials may run on: those that run what all others run."""

from collections.abc import Iterable
from typing import Any, Self

import ray

from tlbench.cluster.software import Software, answers, ask, differences, look
from tlbench.errors import ClusterError
from tlbench.placement import Node

ACCELERATOR = "accelerator_type:"
"""How the name of the resource begins by which Ray tells the type of a node's GPUs."""
ANSWER_TIMEOUT_S = 120.0


class Members:
    """The nodes of a cluster, without those whose software is another one."""

    def __init__(self, *, are_asked: bool = False, lack_our_code: bool = False) -> None:
        """Begin; who is not asked runs what this machine does, as a Ray of our own."""
        self._are_asked = are_asked
        self.lack_our_code = lack_our_code
        """Whether the driver's tlbench is to be sent to the nodes."""
        self._software: Software | None = None
        """What every node has to have; None: none has answered."""
        self._fits: dict[str, bool] = {}
        """Whether nodes that have answered may be used, by their ids."""
        self._calls: dict[str, Any] = {}
        """To nodes that were asked and have not answered."""
        self._refusals: list[str] = []

    @classmethod
    def of_joined(cls) -> Self:
        """Those of a cluster that this process has joined.

        Raises:
            ClusterError: The nodes differ in what a measurement depends on, or one of
                them does not answer.
        """
        names = {node.id: node.name for node in living_nodes() if node.cpus}
        told = answers(ask(names), ANSWER_TIMEOUT_S)
        found = {node: has for node, has in told.items() if has is not None}
        # Ray takes its time to see that a node is dead: it was on the list and is not.
        living = {node.id for node in living_nodes()}
        if silent := living & (names.keys() - found.keys()):
            raise ClusterError(
                f"{', '.join(sorted(names[node] for node in silent))}: Ray could not"
                " run a process there; its logs on that node tell why"
                " (/tmp/ray/session_latest)"
            )
        if told_apart := differences(
            [(names[node], has) for node, has in found.items()]
        ):
            raise ClusterError(
                f"the nodes have different software: {'. '.join(told_apart)}. What they"
                " measure could not be compared; the same environment on all of them"
                " would do"
            )
        has_ours = {has.tlbench for has in found.values()} == {look()["tlbench"]}
        members = cls(are_asked=True, lack_our_code=not has_ours)
        members._software = next(iter(found.values()), None)
        members._fits = dict.fromkeys(found, True)
        return members

    def now(self) -> list[Node]:
        """The nodes that there are; one that has just joined once it has answered."""
        nodes = living_nodes()
        if not self._are_asked:
            return nodes
        self._learn([node for node in nodes if node.cpus])
        return [node for node in nodes if self._fits.get(node.id, not node.cpus)]

    def take_refusals(self) -> list[str]:
        """Which nodes are not used, and why; each is told once."""
        taken, self._refusals = self._refusals, []
        return taken

    def _learn(self, nodes: Iterable[Node]) -> None:
        """Ask nodes that are new, and hear those that were asked."""
        names = {node.id: node.name for node in nodes}
        new = names.keys() - self._fits.keys() - self._calls.keys()
        if new:
            self._calls |= ask(new)
        if not self._calls:
            return
        for node, has in answers(self._calls, timeout_s=0).items():
            del self._calls[node]
            name = names.get(node)
            if name is None:  # it is gone again
                continue
            why = self._why_not(name, has)
            self._fits[node] = why is None
            if why is not None:
                self._refusals.append(f"{name} is not used: {why}")

    def _why_not(self, name: str, has: Software | None) -> str | None:
        """Why trials may not run on a node that has joined; None: they may."""
        if has is None:
            return "Ray could not run a process there; its logs on that node tell why"
        wanted = self._software = self._software or has
        if told := differences([("the other nodes", wanted), (name, has)]):
            return ". ".join(told)
        if not self.lack_our_code and has.tlbench != wanted.tlbench:
            return "it has another tlbench than the driver and the other nodes, or none"
        return None


def living_nodes() -> list[Node]:
    """The nodes of the cluster as they are now."""
    return [
        Node(
            id=node["NodeID"],
            name=f"{node['NodeManagerHostname']} ({node['NodeManagerAddress']})",
            cpus=node["Resources"].get("CPU", 0),
            gpus=node["Resources"].get("GPU", 0),
            address=node["NodeManagerAddress"],
            accelerator=next(
                (
                    name.removeprefix(ACCELERATOR)
                    for name in sorted(node["Resources"])
                    if name.startswith(ACCELERATOR)
                ),
                None,
            ),
            labels=node["Labels"],
        )
        for node in ray.nodes()
        if node["Alive"]
    ]
