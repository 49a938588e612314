"""Published GFLOPS beside ours, row by row; nothing is built and torch not imported."""

from dataclasses import dataclass
from typing import Literal, NamedTuple

from tlbench.models import cost
from tlbench.suites.model_spec import ModelSpec
from tlbench.suites.names import model_name
from tlbench.suites.published import (
    PUBLISHED_CLASSES,
    PublishedResult,
    half_a_digit,
    published_for,
)

Verdict = Literal["agrees", "misprint", "differs"]

TOLERANCE = 5e-3
"""How far our count may lie from a published one, as a share of it: XLA, which the
publication counted with, rewrites some of what is counted here as it stands."""
MISPRINT_MARK = "\N{DAGGER}"


@dataclass(frozen=True)
class PublishedCost:
    """One published row of a model, and what we count in the publication's way."""

    source: str
    label: str
    """What the publication calls the model."""
    published_gflops: float
    gflops: float
    """Ours: multiply-adds and half of all other operations."""
    error_gflops: float
    """How far the true published value may lie from the printed or read one."""
    misprint: str | None
    """Why GFLOPS or label cannot be right as they are printed."""

    @property
    def printed_gflops(self) -> str:
        """As it is printed, marked where it is known to be wrong."""
        mark = MISPRINT_MARK if self.misprint else ""
        return f"{as_printed(self.published_gflops)}{mark}"

    @property
    def ratio(self) -> float:
        """Ours over the published one."""
        return self.gflops / self.published_gflops

    @property
    def verdict(self) -> Verdict:
        """Whether ours is the published one, but for its rounding and 0.5 %."""
        allowed = max(self.error_gflops, TOLERANCE * self.published_gflops)
        if abs(self.gflops - self.published_gflops) <= allowed:
            return "agrees"
        return "misprint" if self.misprint else "differs"


class PublishedParams(NamedTuple):
    """One published number of parameters of a model, and ours; in millions."""

    source: str
    published: float
    ours: float

    @property
    def agrees(self) -> bool:
        """Whether ours, rounded or cut, is the number as it is printed."""
        half = half_a_digit(self.published)
        return -half <= self.ours - self.published < 2 * half


def published_params(spec: ModelSpec) -> tuple[PublishedParams, ...]:
    """Every published row that has parameters of this model, as `published_costs`.

    Each is counted at the image size and with the classifier that it was printed for.
    """
    return tuple(
        PublishedParams(
            source=row.source.name,
            published=row.params_millions,
            ours=cost.params(*row.params_counted_on()) / 1e6,
        )
        for row in published_for(model_name(spec))
        if row.params_millions is not None
    )


def published_costs(spec: ModelSpec) -> tuple[PublishedCost, ...]:
    """Every published row that has GFLOPS of this model, in the order of the sources.

    Each is counted with as many classes as its data set has.
    """
    return tuple(
        PublishedCost(
            source=row.source.name,
            label=row.label,
            published_gflops=row.gflops,
            gflops=_gflops(spec, row),
            error_gflops=row.gflops_error or 0.0,
            misprint=_misprint_of_cost(row),
        )
        for row in published_for(model_name(spec))
        if row.gflops is not None
    )


def as_printed(value: float) -> str:
    """A published number with commas; of zeros at its end only the first is left."""
    return f"{value:,}"


def _gflops(spec: ModelSpec, row: PublishedResult) -> float:
    return cost.published_flops(spec, PUBLISHED_CLASSES[row.source.dataset]) / 1e9


def _misprint_of_cost(row: PublishedResult) -> str | None:
    if row.misprint is None or row.misprint.field == "top1_percent":
        return None
    return row.misprint.reason
