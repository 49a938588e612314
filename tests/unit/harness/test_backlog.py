"""Which trial begins next, on simulated clusters."""

from collections.abc import Iterable, Sequence
from typing import Any, cast

import pytest

from support.clusters import SimulatedCluster
from tlbench.backlog import Backlog, Ready
from tlbench.cluster import Cluster
from tlbench.placement import Node
from tlbench.plan import FixedPlan
from tlbench.suites.names import parse_model
from tlbench.suites.spec import Case, Trial

MODEL = parse_model("ViT-Ti/16")


def gpus(name: str, kind: str = "H100", count: int = 4) -> Node:
    return Node(name, name, cpus=32, gpus=count, accelerator=kind)


def trial(position: int, world_size: int = 1, **settings: Any) -> Trial:
    spread = {"world_size": world_size, **settings.pop("parallelism", {})}
    fields = {"batch_size": 48, "device": "cuda", "parallelism": spread, **settings}
    case = Case.model_validate({"model": MODEL, "mode": "infer", **fields})
    return Trial(case, repeat=0, position=position, seed=position)


def make_backlog(
    trials: Sequence[Trial], *nodes: Node, attempts: dict[int, int] | None = None
) -> tuple[Backlog, SimulatedCluster]:
    cluster = SimulatedCluster(nodes)
    plan = FixedPlan(trials)
    return Backlog(plan, cast(Cluster, cluster), attempts or {}), cluster


def begin_all(backlog: Backlog) -> list[Ready]:
    begun = []
    while (ready := backlog.next_ready()) is not None:
        begun.append(ready)
    return begun


def positions(begun: Iterable[Ready]) -> list[int]:
    return [ready.trial.position for ready in begun]


def test_trials_begin_in_the_order_of_the_plan_as_nodes_become_free() -> None:
    backlog, cluster = make_backlog([trial(k) for k in range(6)], gpus("a"))
    begun = begin_all(backlog)
    assert positions(begun) == [0, 1, 2, 3]
    assert begin_all(backlog) == []
    cluster.release(begun[2].placement)
    assert positions(begin_all(backlog)) == [4]
    assert [ready.attempt for ready in begun] == [1, 1, 1, 1]


def test_a_large_trial_is_not_overtaken_by_small_ones_that_need_its_nodes() -> None:
    trials = [trial(0), trial(1, 4), *(trial(k) for k in range(2, 5))]
    backlog, cluster = make_backlog(trials, gpus("a"))
    (first,) = begin_all(backlog)
    cluster.release(first.placement)
    assert positions(begin_all(backlog)) == [1]


def test_a_trial_for_other_nodes_overtakes() -> None:
    on_a100 = {"resources": {"accelerator": "A100"}}
    trials = [trial(0, 4), trial(1, 4), trial(2, 4), trial(3, 2, **on_a100), trial(4)]
    backlog, _ = make_backlog(trials, gpus("a"), gpus("b"), gpus("c", "A100"))
    assert positions(begin_all(backlog)) == [0, 1, 3]
    assert len(backlog) == 2


def test_what_never_fits_is_set_aside_at_once() -> None:
    backlog, _ = make_backlog([trial(0, 8), trial(1), trial(2, 12)], gpus("a"))
    assert positions(begin_all(backlog)) == [1]
    aside = backlog.take_impossible()
    assert [(p.trial.position, reason[:16]) for p, reason in aside] == [
        (0, "needs 8 x cuda o"),
        (2, "needs 12 x cuda "),
    ]
    assert backlog.take_impossible() == []
    assert len(backlog) == 0


def test_a_trial_that_runs_again_does_so_at_its_place_in_the_order() -> None:
    trials = [trial(k, 4) for k in range(3)]
    backlog, cluster = make_backlog(trials, gpus("a"))
    (first,) = begin_all(backlog)
    cluster.release(first.placement)
    backlog.add(first.trial, attempts=1)
    (again,) = begin_all(backlog)
    assert (again.trial.position, again.attempt) == (0, 2)


def test_attempts_of_an_earlier_driver_count() -> None:
    backlog, _ = make_backlog([trial(0), trial(1)], gpus("a"), attempts={1: 3})
    assert [ready.attempt for ready in begin_all(backlog)] == [1, 4]


def test_the_largest_batch_of_a_case_is_sought_once() -> None:
    """Other cases go on meanwhile; its second trial waits for what the first finds."""
    sought: dict[str, Any] = {"batch_size": "max", "memory_limit_gib": 1.0}
    trials = [trial(0, **sought), trial(1, **sought), trial(2)]
    backlog, _ = make_backlog(trials, gpus("a"))
    begun = begin_all(backlog)
    assert positions(begun) == [0, 2]
    backlog.end(begun[0].trial)
    assert positions(begin_all(backlog)) == [1]


def test_what_waits_for_others_is_told_from_what_waits_for_us() -> None:
    trials = [trial(0, 2), trial(1, 6, parallelism={"nodes": 2})]
    backlog, cluster = make_backlog(trials, gpus("a"), gpus("b"))
    assert positions(begin_all(backlog)) == [0]
    assert backlog.held_by_others() == []
    cluster.schedule.update([gpus("a")])  # a node vanished
    begin_all(backlog)
    (held,) = backlog.held_by_others()
    assert held.trial.position == 1
    backlog.drop(held)
    assert len(backlog) == 0


@pytest.mark.parametrize("nodes", [1, 4])
def test_a_long_plan_is_looked_at_only_as_far_as_there_is_room(nodes: int) -> None:
    class Counted(FixedPlan):
        taken = 0

        def take(self) -> Trial | None:
            self.taken += 1
            return super().take()

    plan = Counted(trial(k) for k in range(10_000))
    cluster = SimulatedCluster(gpus(f"n{k}") for k in range(nodes))
    backlog = Backlog(plan, cast(Cluster, cluster), {})
    assert len(begin_all(backlog)) == 4 * nodes
    assert plan.taken == 4 * nodes + 1
