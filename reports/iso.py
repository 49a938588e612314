"""What two sides have in common where their batch sizes differ.

Iso-batch compares at the same batch. In the other ways each side chooses its batch, or
its model, as far as both keep within the same limit.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, NoReturn, get_args

from tlbench.errors import ReportError
from tlbench.reports.quantities import DIRECTIONS
from tlbench.reports.sides import BATCH, MODEL, Side
from tlbench.suites.names import did_you_mean

Kind = Literal["batch", "memory", "latency", "accuracy"]
KINDS: tuple[Kind, ...] = get_args(Kind)
STEP_TIME = "step_time_p50_s"

UNITS: dict[Kind, dict[str, float]] = {
    "batch": {},
    "memory": {"B": 1, "MiB": 2**20, "GiB": 2**30},
    "latency": {"us": 1e-6, "ms": 1e-3, "s": 1.0},
    "accuracy": {"": 1.0, "%": 1.0},
}
"""What the limit of each may be given in, in base units."""
EXAMPLES: dict[Kind, str] = {
    "batch": "batch",
    "memory": "memory or memory=2GiB",
    "latency": "latency=50ms",
    "accuracy": "accuracy=90",
}
_LIMIT = re.compile(r"(\d+(?:\.\d+)?)\s*([A-Za-z%]*)")


@dataclass(frozen=True)
class Iso:
    """What is alike on both sides."""

    kind: Kind
    limit: float | None
    """In base units; None: there is none, or the cases themselves have it."""
    text: str

    @property
    def is_free_of_batch(self) -> bool:
        """Whether the sides are measured at a batch of their own."""
        return self.limit is not None


ISO_BATCH = Iso("batch", None, "batch")


def parse_iso(text: str) -> Iso:
    """Read `batch`, `memory`, `memory=2GiB`, `latency=50ms` or `accuracy=90`."""
    name, is_limited, limit = (part.strip() for part in text.partition("="))
    kind = next((known for known in KINDS if known == name), None)
    if kind is None:
        raise ReportError(
            f"--iso {text}: {name!r} is not one of {', '.join(KINDS)}"
            f"{did_you_mean(name, KINDS)}"
        )
    if not is_limited and kind in ("batch", "memory"):
        return Iso(kind, None, kind)
    match = _LIMIT.fullmatch(limit)
    if match is None or match[2] not in UNITS[kind]:
        raise ReportError(f"--iso {text}: {EXAMPLES[kind]} would be right")
    return Iso(kind, float(match[1]) * UNITS[kind][match[2]], f"{kind}={limit}")


def choose(
    sides: Sequence[Side], iso: Iso, metric: str, neighbours: Sequence[Side]
) -> list[Side]:
    """Of each group of alternatives that keep within the limit, the best.

    Args:
        sides: What one selection has found.
        iso: The limit.
        metric: What makes one the best; for the memory it is the larger batch.
        neighbours: All cases of their runs: they tell the accuracy of a model.
    """
    if iso.kind == "batch":
        return list(sides)
    if iso.kind == "memory" and iso.limit is None:
        largest = [side for side in sides if side.case.batch_size == "max"]
        return largest or _refuse(
            iso, "no case has batch_size: max; a limit, such as memory=2GiB, would do"
        )
    limit = iso.limit or 0.0
    match iso.kind:
        case "memory":
            return _best_of(
                [s for s in sides if _is_at_most(s, s.memory_metric, limit)],
                {BATCH},
                lambda side: side.batch_size or 0,
                iso,
            )
        case "latency":
            inside = [s for s in sides if _is_at_most(s, STEP_TIME, limit)]
            return _best_of(inside, {BATCH}, _goodness(metric), iso)
        case _:
            accurate = {
                side.circumstances[MODEL]
                for side in neighbours
                if (side.accuracy or 0.0) >= limit
            }
            inside = [
                side
                for side in sides
                if side.circumstances[MODEL] in accurate and side.values(metric)
            ]
            return _best_of(inside, {BATCH, MODEL}, _goodness(metric), iso)


def _is_at_most(side: Side, metric: str, limit: float) -> bool:
    value = side.typical(metric)
    return value is not None and value <= limit


def _goodness(metric: str) -> Callable[[Side], float]:
    sign = 1 if DIRECTIONS[metric] == "higher" else -1

    def goodness(side: Side) -> float:
        value = side.typical(metric)
        return float("-inf") if value is None else sign * value

    return goodness


def _best_of(
    sides: Iterable[Side], free: set[str], goodness: Callable[[Side], float], iso: Iso
) -> list[Side]:
    """The best of each group that is alike in all but what is free."""
    best: dict[tuple[str, ...], Side] = {}
    for side in sides:
        key = side.key(free)
        best[key] = max(best.get(key, side), side, key=goodness)
    return list(best.values()) or _refuse(iso, "no measured case keeps within it")


def _refuse(iso: Iso, why: str) -> NoReturn:
    raise ReportError(f"--iso {iso.text}: {why}")
