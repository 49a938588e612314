"""Which nodes of a cluster trials may run on, as nodes come and go."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import pytest

from tlbench.cluster import members
from tlbench.cluster.members import Members
from tlbench.cluster.software import PACKAGES, Software, look
from tlbench.errors import ClusterError
from tlbench.placement import Node

OURS = replace(
    Software(**look()), python="3.11.7", versions=dict.fromkeys(PACKAGES, "1.0")
)
OTHER = replace(OURS, versions={**OURS.versions, "timm": "0.9"})
OLDER = replace(OURS, tlbench="of another day")


class Cluster:
    """Nodes that answer when they are told to."""

    def __init__(self) -> None:
        self.nodes: dict[str, float] = {}
        """CPUs by id."""
        self.answers: dict[str, Software | None] = {}
        self.asked: list[str] = []

    def living(self) -> list[Node]:
        return [Node(name, f"host {name}", cpus=n) for name, n in self.nodes.items()]

    def ask(self, node_ids: Iterable[str]) -> dict[str, Any]:
        asked = sorted(node_ids)
        self.asked += asked
        return dict.fromkeys(asked)

    def answer(
        self, calls: Mapping[str, Any], timeout_s: float
    ) -> dict[str, Software | None]:
        return {node: self.answers[node] for node in calls if node in self.answers}

    def join(self, name: str, has: Software | None, cpus: float = 1) -> None:
        self.nodes[name], self.answers[name] = cpus, has


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Cluster:
    cluster = Cluster()
    monkeypatch.setattr(members, "living_nodes", cluster.living)
    monkeypatch.setattr(members, "ask", cluster.ask)
    monkeypatch.setattr(members, "answers", cluster.answer)
    return cluster


def ids(members: Members) -> list[str]:
    return [node.id for node in members.now()]


def test_a_ray_of_our_own_asks_nobody(cluster: Cluster) -> None:
    cluster.join("a", None)
    assert ids(Members()) == ["a"]
    assert not cluster.asked
    assert not Members().lack_our_code


def test_nodes_that_have_the_same_are_used_and_asked_once(cluster: Cluster) -> None:
    cluster.join("a", OURS)
    cluster.join("b", OURS)
    joined = Members.of_joined()
    assert not joined.lack_our_code
    assert ids(joined) == ids(joined) == ["a", "b"]
    assert cluster.asked == ["a", "b"]


def test_one_node_with_another_tlbench_has_it_sent_to_all(cluster: Cluster) -> None:
    cluster.join("a", OURS)
    cluster.join("b", OLDER)
    joined = Members.of_joined()
    assert joined.lack_our_code
    cluster.join("c", replace(OURS, tlbench=None))
    assert ids(joined) == ["a", "b", "c"]


def test_nodes_that_differ_are_an_error(cluster: Cluster) -> None:
    cluster.join("a", OURS)
    cluster.join("b", OTHER)
    with pytest.raises(ClusterError, match=r"timm is 1.0 on host a; 0.9 on host b"):
        Members.of_joined()


def test_a_node_that_does_not_answer_is_an_error_while_it_lives(
    cluster: Cluster,
) -> None:
    cluster.join("a", OURS)
    cluster.join("b", None)
    with pytest.raises(ClusterError, match=r"^host b: Ray could not run a process"):
        Members.of_joined()


def test_a_node_that_joins_is_used_once_it_has_answered(cluster: Cluster) -> None:
    cluster.join("a", OURS)
    joined = Members.of_joined()
    cluster.nodes["b"] = 1
    assert ids(joined) == ids(joined) == ["a"]
    cluster.answers["b"] = OURS
    assert ids(joined) == ["a", "b"]
    assert cluster.asked == ["a", "b"]
    assert not joined.take_refusals()


@pytest.mark.parametrize(
    ("has", "why"),
    [
        (OTHER, "timm is 1.0 on the other nodes; 0.9 on host b"),
        (OLDER, "it has another tlbench than the driver and the other nodes, or none"),
        (None, "Ray could not run a process there; its logs on that node tell why"),
    ],
    ids=["versions", "tlbench", "silent"],
)
def test_a_node_that_joins_with_something_else_is_told_and_not_used(
    cluster: Cluster, has: Software | None, why: str
) -> None:
    cluster.join("a", OURS)
    joined = Members.of_joined()
    cluster.join("b", has)
    assert ids(joined) == ids(joined) == ["a"]
    assert joined.take_refusals() == [f"host b is not used: {why}"]
    assert not joined.take_refusals()


def test_a_node_that_is_gone_before_it_answers_is_not_told_of(cluster: Cluster) -> None:
    cluster.join("a", OURS)
    joined = Members.of_joined()
    cluster.nodes["b"] = 1
    assert ids(joined) == ["a"]
    del cluster.nodes["b"]
    cluster.answers["b"] = None
    assert ids(joined) == ["a"]
    assert not joined.take_refusals()


def test_a_head_without_cpus_is_not_asked(cluster: Cluster) -> None:
    """Nothing runs there; the first node that comes tells what others need."""
    cluster.join("head", None, cpus=0)
    joined = Members.of_joined()
    assert joined.lack_our_code
    assert ids(joined) == ["head"]
    assert not cluster.asked
    cluster.join("a", OTHER)
    assert ids(joined) == ["head", "a"]
    cluster.join("b", OURS)
    assert ids(joined) == ["head", "a"]
    assert joined.take_refusals() == [
        "host b is not used: timm is 0.9 on the other nodes; 1.0 on host b"
    ]
