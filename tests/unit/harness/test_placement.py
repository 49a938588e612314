"""Which nodes a trial gets, held against clusters whose answer is plain to see."""

import random
from collections import Counter
from typing import Any

import pytest

from tlbench.placement import Node, Placement, Schedule
from tlbench.suites.names import parse_model
from tlbench.suites.spec import Case

MODEL = parse_model("ViT-Ti/16")
H100S = [Node(f"h{k}", f"h{k}", cpus=32, gpus=8, accelerator="H100") for k in range(3)]
A100S = [Node(f"a{k}", f"a{k}", cpus=32, gpus=8, accelerator="A100") for k in range(2)]
CPUS = [Node(f"c{k}", f"c{k}", cpus=16) for k in range(3)]


def case(world_size: int = 1, *, device: str = "cuda", **settings: Any) -> Case:
    spread = {"world_size": world_size, **settings.pop("parallelism", {})}
    settings = {"batch_size": 10_080, "device": device, **settings}
    return Case.model_validate(
        {"model": MODEL, "mode": "infer", "parallelism": spread, **settings}
    )


def everything(schedule: Schedule) -> dict[str, dict[str, float]]:
    """What is free where nobody else holds anything, and Ray tells nothing late."""
    return {n.id: {"CPU": n.cpus, "GPU": n.gpus} for n in schedule.nodes}


def place(schedule: Schedule, wanted: Case) -> Placement | None:
    return schedule.place(wanted, everything(schedule))


def ranks(placement: Placement | None) -> list[tuple[str, int]]:
    assert placement is not None
    return [(share.node.id, share.ranks) for share in placement.shares]


def test_a_cpu_trial_takes_its_node_whole() -> None:
    schedule = Schedule(CPUS[:1])
    first = place(schedule, case(3, device="cpu"))
    assert ranks(first) == [("c0", 3)]
    assert first is not None
    assert first.shares[0].cpus == 16
    assert first.threads(first.shares[0]) == 5
    assert place(schedule, case(device="cpu")) is None
    schedule.release(first)
    assert place(schedule, case(device="cpu")) is not None


def test_gpu_trials_share_a_node_until_its_gpus_are_gone() -> None:
    schedule = Schedule(H100S[:1])
    assert [ranks(place(schedule, case(2))) for _ in range(4)] == [[("h0", 2)]] * 4
    assert place(schedule, case()) is None


def test_the_fullest_node_that_will_do_is_filled_first() -> None:
    schedule = Schedule(H100S)
    assert ranks(place(schedule, case(6))) == [("h0", 6)]
    assert ranks(place(schedule, case(4))) == [("h1", 4)]
    assert ranks(place(schedule, case(2))) == [("h0", 2)]
    assert ranks(place(schedule, case(8))) == [("h2", 8)]


def test_an_exclusive_trial_shares_its_node_with_none() -> None:
    schedule = Schedule(H100S[:2])
    alone = {"exclusive": "node"}
    assert ranks(place(schedule, case(1))) == [("h0", 1)]
    assert ranks(place(schedule, case(1, parallelism=alone))) == [("h1", 1)]
    assert place(schedule, case(1, parallelism=alone)) is None
    assert ranks(place(schedule, case(7))) == [("h0", 7)]
    assert place(schedule, case(1)) is None


def test_a_trial_on_cpus_and_one_on_gpus_are_not_on_one_node_at_once() -> None:
    schedule = Schedule(H100S[:1])
    assert place(schedule, case(1)) is not None
    assert place(schedule, case(device="cpu")) is None


@pytest.mark.parametrize(
    ("spread", "expected"),
    [
        ({"nodes": 2}, [6, 6]),
        ({"nodes": 3}, [4, 4, 4]),
        ({"placement": "pack"}, [8, 4]),
        ({"placement": "spread"}, [4, 4, 4]),
    ],
)
def test_ranks_are_spread_as_the_suite_says(
    spread: dict[str, Any], expected: list[int]
) -> None:
    placement = place(Schedule(H100S), case(12, parallelism=spread))
    assert [count for _, count in ranks(placement)] == expected


def test_spreading_fills_small_nodes_and_then_the_large() -> None:
    small = Node("s", "s", cpus=8, gpus=1, accelerator="H100")
    placement = place(
        Schedule([small, *H100S[:2]]), case(8, parallelism={"placement": "spread"})
    )
    assert sorted(count for _, count in ranks(placement)) == [1, 3, 4]


def test_a_trial_has_the_same_shape_however_full_the_cluster_is() -> None:
    schedule = Schedule(H100S)
    packed = case(12, parallelism={"placement": "pack"})
    assert place(schedule, case(2)) is not None
    placement = place(schedule, packed)
    assert [count for _, count in ranks(placement)] == [8, 4]
    assert place(schedule, packed) is None  # 8, 2 + 4 are free: another shape


def test_on_cpus_ranks_pack_onto_one_node_and_spread_over_all() -> None:
    packed = case(6, device="cpu", parallelism={"placement": "pack"})
    spread = case(6, device="cpu", parallelism={"placement": "spread"})
    assert [count for _, count in ranks(place(Schedule(CPUS), packed))] == [6]
    assert [count for _, count in ranks(place(Schedule(CPUS), spread))] == [2, 2, 2]


def test_all_cases_that_leave_it_open_run_on_the_same_kind_of_gpu() -> None:
    schedule = Schedule([*A100S, *H100S])
    placements = [place(schedule, case(4)) for _ in range(6)]
    assert {p.shares[0].node.accelerator for p in placements if p} == {"H100"}
    assert place(schedule, case(4)) is None  # although there are free A100s
    schedule.update([*A100S, H100S[0]])  # and although they are more by now
    assert place(schedule, case(4)) is None


def test_a_case_may_name_its_kind_of_gpu() -> None:
    schedule = Schedule([*A100S, *H100S])
    wanted = case(4, resources={"accelerator": "A100"})
    assert ranks(place(schedule, wanted)) == [("a0", 4)]
    assert schedule.shortage(case(resources={"accelerator": "V100"})) == (
        "needs 1 x cuda on 1 node(s) with accelerator V100; the cluster has"
        " 2 nodes with 32 CPUs and 8 GPUs (A100),"
        " 3 nodes with 32 CPUs and 8 GPUs (H100)"
    )


def test_a_case_too_large_for_the_usual_kind_runs_on_another() -> None:
    large = Node("b", "b", cpus=64, gpus=16, accelerator="B200")
    placement = place(Schedule([*H100S, large]), case(16))
    assert ranks(placement) == [("b", 16)]


def test_a_case_runs_on_nodes_with_its_labels_only() -> None:
    labelled = Node("z", "z", cpus=16, labels={"zone": "a", "disk": "nvme"})
    schedule = Schedule([*CPUS, labelled])
    wanted = case(device="cpu", resources={"labels": "zone=a,disk=nvme"})
    assert ranks(place(schedule, wanted)) == [("z", 1)]
    assert schedule.candidates(wanted) == {"z"}
    other = case(device="cpu", resources={"labels": "zone=b"})
    assert "with zone=b; the cluster has" in (schedule.shortage(other) or "")


def test_what_others_hold_is_not_given_away() -> None:
    schedule = Schedule(H100S[:2])
    free = everything(schedule)
    free["h0"]["GPU"] = 3
    free["h1"]["GPU"] = 5
    assert schedule.place(case(6), free) is None
    assert schedule.is_free_of_ours(case())
    assert ranks(schedule.place(case(4), free)) == [("h1", 4)]
    free["h1"]["GPU"] = 1
    assert schedule.place(case(4), free) is None
    assert not schedule.is_free_of_ours(case())


@pytest.mark.parametrize(
    ("wanted", "reason"),
    [
        (case(9), "needs 9 x cuda on 1 node(s)"),
        (case(8, parallelism={"nodes": 4}), "needs 8 x cuda on 4 node(s)"),
        (case(32, parallelism={"placement": "pack"}), "needs 32 x cuda;"),
    ],
)
def test_what_can_never_fit_is_told(wanted: Case, reason: str) -> None:
    told = Schedule(H100S).shortage(wanted)
    assert told is not None
    assert told.startswith(reason)
    assert told.endswith("the cluster has 3 nodes with 32 CPUs and 8 GPUs (H100)")


def test_what_a_lost_node_could_hold_is_not_said_to_fit_never() -> None:
    """It may come back: a trial waits for it."""
    schedule = Schedule(H100S)
    both = case(6, parallelism={"nodes": 3})
    schedule.update(H100S[:2])
    assert schedule.shortage(both) is None
    assert place(schedule, both) is None
    assert schedule.candidates(both) == frozenset()
    assert schedule.lack(both) == (
        "needs 6 x cuda on 3 node(s); left is 2 nodes with 32 CPUs and 8 GPUs (H100)"
    )
    schedule.update(H100S)
    assert place(schedule, both) is not None


@pytest.mark.parametrize("seed", range(20))
def test_nothing_is_ever_held_twice(seed: int) -> None:
    """A random crowd on a random cluster, counted by hand."""
    chance = random.Random(seed)
    nodes = [
        Node(f"n{k}", f"n{k}", chance.randint(8, 64), chance.randint(0, 8))
        for k in range(chance.randint(1, 8))
    ]
    schedule = Schedule(nodes)
    going: list[Placement] = []
    for _ in range(300):
        wanted = case(
            chance.choice([1, 1, 1, 2, 4, 6, 12]),
            device=chance.choice(["cpu", "cuda", "cuda", "cuda"]),
            parallelism={
                "placement": chance.choice(["strict", "pack", "spread"]),
                "exclusive": chance.choice(["device", "device", "node"]),
            },
        )
        placement = place(schedule, wanted)
        if placement is not None:
            assert placement.world_size == wanted.parallelism.world_size
            going.append(placement)
        elif going and chance.random() < 0.7:
            schedule.release(going.pop(chance.randrange(len(going))))
        held: Counter[tuple[str, str]] = Counter()
        for share in (share for placed in going for share in placed.shares):
            held[share.node.id, "CPU"] += int(share.cpus)
            held[share.node.id, "GPU"] += int(share.gpus)
        for node in nodes:
            assert held[node.id, "CPU"] <= node.cpus
            assert held[node.id, "GPU"] <= node.gpus
    for placement in going:
        schedule.release(placement)
    assert schedule.is_free_of_ours(case(device="cpu"))
