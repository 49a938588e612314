"""What is found out about a claim, and how that makes a verdict."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from tlbench.reports.findings import signed
from tlbench.statistics import Interval
from tlbench.suites.published import Claim, Ground
from tlbench.units import format_number

Verdict = Literal["contradicted", "not measured", "quoted only", "reproduced"]
VERDICTS: tuple[Verdict, ...] = get_args(Verdict)
"""The first of them that any ground has is the verdict on the claim."""

Stand = Literal["for", "against", "open"]
"""What a number says of the statement: open where its interval allows either."""

Unit = Literal["", "points"]


@dataclass(frozen=True)
class Number:
    """One number that a claim stands on: as published, and as it is found here."""

    what: str
    """Of which models, and under which circumstances."""
    published: float | None = None
    """None: the claim gives no number for it."""
    own: float | None = None
    """None: it is not known here."""
    interval: Interval | None = None
    stand: Stand | None = None
    """None: it is shown, and decides nothing."""
    note: str = ""
    """How it is known and, of an open number, what would settle it."""
    unit: Unit = ""

    def text(self, value: float | None) -> str:
        if value is None:
            return ""
        if self.unit == "points":
            return signed(value)
        is_whole = isinstance(value, int)
        return f"{value:,}" if is_whole else format_number(value, digits=4)


@dataclass(frozen=True)
class Part:
    """What one ground says of a claim."""

    ground: Ground
    verdict: Verdict
    why: str
    numbers: tuple[Number, ...] = ()
    proxy: str | None = None
    """The data that stand in the place of the publication's."""

    @property
    def verdict_words(self) -> str:
        return _in_words(self.verdict, self.proxy)


@dataclass(frozen=True)
class JudgedClaim:
    """A claim with what each of its grounds says."""

    claim: Claim
    parts: tuple[Part, ...]

    @property
    def verdict(self) -> Verdict:
        """Of the weakest ground: a claim is reproduced if all of it is."""
        return min((part.verdict for part in self.parts), key=VERDICTS.index)

    @property
    def proxy(self) -> str | None:
        """The data in the publication's place, where the verdict rests on such."""
        if self.verdict == "reproduced":
            return next((p.proxy for p in self.parts if p.proxy), None)
        deciding = [p for p in self.parts if p.verdict == "contradicted"]
        proxies = [p.proxy for p in deciding]
        return proxies[0] if proxies and all(proxies) else None

    @property
    def verdict_words(self) -> str:
        """The verdict, and that it is one by proxy where it is."""
        return _in_words(self.verdict, self.proxy)


def _in_words(verdict: Verdict, proxy: str | None) -> str:
    return f"{verdict}, by proxy on {proxy}" if proxy else verdict


def conclude(
    ground: Ground,
    numbers: Sequence[Number],
    *,
    agreed: str,
    missing: str = "",
    proxy: str | None = None,
) -> Part:
    """Make one verdict of the numbers of a ground.

    Args:
        ground: What decides.
        numbers: Those that decide, and those that are only shown.
        agreed: Why the statement holds, where every number speaks for it.
        missing: What of the ground cannot be known here, and the way to know it.
        proxy: The data in the place of the publication's.
    """
    against = [n for n in numbers if n.stand == "against"]
    still_open = [n for n in numbers if n.stand == "open"]
    verdict: Verdict
    if against:
        verdict, why = "contradicted", _listed("against it", against, numbers)
    elif still_open:
        verdict, why = "not measured", _listed("not settled", still_open, numbers)
    elif missing:
        verdict, why = "not measured", missing
    else:
        verdict, why = "reproduced", agreed
    if missing and why != missing:
        why = f"{why}. {missing}"
    return Part(ground, verdict, why, tuple(numbers), proxy)


def _listed(heading: str, chosen: Sequence[Number], of: Sequence[Number]) -> str:
    """The first of the chosen numbers in words, and how many decide like it."""
    first, deciding = chosen[0], [n for n in of if n.stand is not None]
    share = f", {len(chosen)} of {len(deciding)}" if len(deciding) > 1 else ""
    note = f": {first.note}" if first.note else ""
    return f"{heading}{share}: {first.what}{note}"


def above(interval: Interval | None, bound: float) -> Stand:
    """Whether a value lies above a bound, as far as its interval tells."""
    if interval is None:
        return "open"
    if interval[0] > bound:
        return "for"
    return "against" if interval[1] < bound else "open"


def below(interval: Interval | None, bound: float) -> Stand:
    if interval is None:
        return "open"
    return above((-interval[1], -interval[0]), -bound)


def count_verdicts(judged: Iterable[JudgedClaim]) -> dict[Verdict, int]:
    """How many claims have each verdict, the best first."""
    verdicts = [item.verdict for item in judged]
    order: tuple[Verdict, ...] = (
        "reproduced",
        "contradicted",
        "not measured",
        "quoted only",
    )
    return {verdict: verdicts.count(verdict) for verdict in order}
