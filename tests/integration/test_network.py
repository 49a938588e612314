"""Ranks on nodes that have addresses of their own, and the network between them."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.nodes import (
    MODEL,
    QUICK_DETECTION,
    TWO_NODES_THEN_ONE,
    Run,
    namespaces,
)
from tlbench.db.query import TrialRecord

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

TOLERANCE = 1e-5
STEPS = 20
STAGES = (0, 1, 2, 3)
DETECTION_S = 30
"""How long a node may be silent, by `QUICK_DETECTION` and on a busy machine, until
Ray has called it dead and it has heard of that."""


@pytest.fixture(scope="module")
def fits(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """The same training on one rank, and on two nodes at every ZeRO stage."""
    suite = {
        "models": [MODEL],
        "data": "digits",
        "batch_size": 64,
        "repeats": 1,
        "seed": 40,
        "mode": "fit",
        "fit": {"steps": STEPS, "warmup_steps": 2},
        "include": [
            {"parallelism": {"world_size": 1}},
            {
                "parallelism": [
                    {"world_size": ranks, "nodes": 2, "zero_stage": stage}
                    for ranks in (2, 4)
                    for stage in STAGES
                ]
            },
        ],
    }
    with namespaces(2) as cluster:
        run = cluster.begin_run(tmp_path_factory.mktemp("fits"), suite)
        assert run.wait() == 0
        yield run


def find(run: Run, world_size: int, zero_stage: int = 0) -> TrialRecord:
    (trial,) = (
        trial
        for trial in run.trials
        if trial.case.parallelism.world_size == world_size
        and trial.case.parallelism.zero_stage == zero_stage
    )
    return trial


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("ranks", [2, 4])
def test_ranks_on_two_nodes_train_as_one_rank_does(
    fits: Run, ranks: int, stage: int
) -> None:
    alone, spread = find(fits, 1), find(fits, ranks, stage)
    assert len(set(spread.nodes)) == 2
    losses = fits.series(spread, "loss")
    assert len(losses) == STEPS
    assert losses[-1] < losses[0]
    assert losses == pytest.approx(fits.series(alone, "loss"), rel=0, abs=TOLERANCE)
    assert spread.metrics["top1_percent"] == alone.metrics["top1_percent"]


def test_a_run_goes_on_without_the_node_that_a_cut_network_took(
    tmp_path: Path,
) -> None:
    with namespaces(2, environment=QUICK_DETECTION) as cluster:
        run = cluster.begin_run(tmp_path, TWO_NODES_THEN_ONE)
        cluster.wait_until_ranks_have_met(0, 1)
        cluster.cut(1)
        assert run.wait() == 3
        cluster.mend(1)
        # Ray takes no node back that it has called dead; it is to be started anew.
        cluster[1].wait_for_end(DETECTION_S)
    cut, after = run.trials
    assert (cut.status, after.status) == ("lost", "ok")
    assert cut.reason is not None
    assert "its node vanished, killed or cut off" in cut.reason
    assert len(cut.nodes) == 2
    assert set(after.nodes) < set(cut.nodes)
