"""What the ranks of a trial have printed, as far as the database keeps it."""

import re
from collections.abc import Iterable

from tlbench.result import Artifact

_NAME = re.compile(r"log-rank-(\d+)\.txt")
_RANK = re.compile(r"rank (\d+): ")


def kept_logs(artifacts: Iterable[Artifact]) -> dict[int, str]:
    """The logs among the files of a trial, by rank."""
    named = ((_NAME.fullmatch(file.name), file.content) for file in artifacts)
    found = {
        int(match[1]): content.decode("utf-8", errors="replace")
        for match, content in named
        if match is not None
    }
    return dict(sorted(found.items()))


def failed_rank(reason: str | None) -> int | None:
    """The rank that a trial failed on, if its reason names one."""
    match = _RANK.match(reason or "")
    return None if match is None else int(match[1])
