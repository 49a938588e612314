"""Which process of a trial this is."""

from dataclasses import dataclass
from typing import Literal

DeviceKind = Literal["cpu", "cuda"]


@dataclass(frozen=True)
class Rank:
    """One process of a trial: its number, and where it meets the others."""

    rank: int
    world_size: int
    local_rank: int
    """Its number among the ranks of the same machine."""
    local_world_size: int
    master_address: str
    master_port: int
    device: DeviceKind
    threads: int
    """Threads that compute on a CPU; this rank's share of its machine's cores."""

    @property
    def is_met_on_loopback(self) -> bool:
        """Whether all ranks are on one machine, and meet there."""
        return self.master_address == "127.0.0.1"
