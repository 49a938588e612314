"""What the passes of a trial share."""

import os

import pytest
import torch
from torch import Tensor

from tlbench import passes
from tlbench.rank import Rank


def rank_of(number: int, world_size: int, local_world_size: int) -> Rank:
    local = number % local_world_size
    return Rank(
        number, world_size, local, local_world_size, "127.0.0.1", 0, "cpu", threads=1
    )


def test_a_rank_alone_is_the_only_process_of_its_trial() -> None:
    assert passes._local_pids(rank_of(0, 1, 1)) == [os.getpid()]


@pytest.mark.parametrize(("number", "place"), [(2, 0), (3, 1)])
def test_local_processes_are_those_of_the_ranks_on_the_same_machine(
    monkeypatch: pytest.MonkeyPatch, number: int, place: int
) -> None:
    others = torch.tensor([101, 102, 103, 104, 105, 106])
    others[number] = 0

    def sum_over_ranks(pids: Tensor) -> Tensor:
        return pids + others

    monkeypatch.setattr(passes, "sum_over_ranks", sum_over_ranks)
    expected = [103, 104]
    expected[place] = os.getpid()
    assert passes._local_pids(rank_of(number, 6, 2)) == expected
