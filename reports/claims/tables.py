"""The claims as people read them: the table, the sentence, and JSON."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from tlbench.models.publication import as_printed
from tlbench.reports.cells import Cell, Row, Table, missing
from tlbench.reports.claims.records import JudgedClaim, Number, Part, count_verdicts
from tlbench.reports.findings import MINUS
from tlbench.suites.published import CLAIMS_SOURCE, Claim
from tlbench.units import UNKNOWN

SHOWN_NUMBERS = 3
"""Of one ground in a cell; the others are behind it."""
EXPLAINED_NUMBERS = 10
"""Behind a cell; all are in the data."""

METHOD = (
    f"The claims are those of the {CLAIMS_SOURCE}. Exact: counted here from the"
    " models, or tried by their formulas; equal is to the digits given, or within 0.5"
    " %. Measured: by times and memory of these runs. Proxy: by training on small data"
    " in the place of JFT-300M and Kinetics. That can show whether learned tokens do"
    " better than others at equal cost, and where in a network they stand best, for"
    " this task and these models; it cannot show the publication's accuracies, nor"
    " what pre-training on much data changes, and where all models solve the task,"
    " their order says nothing. Reproduced or contradicted is only what the whole 95 %"
    " interval supports or excludes; what it leaves open counts as not measured, and"
    " is called not settled. Of all comparisons that the claim covers, those count"
    " whose models are nearest to the publication's, each of them, whatever came out."
    " A claim with several grounds has the verdict of its weakest: one that"
    " contradicts it decides, then one that is not measured, then one that is quoted"
    " only; reproduced is a claim whose grounds all are."
)


def summary_sentence(judged: Sequence[JudgedClaim]) -> str:
    """How many claims have which verdict."""
    parts = []
    for verdict, number in count_verdicts(judged).items():
        by_proxy = sum(j.verdict == verdict and bool(j.proxy) for j in judged)
        note = f" ({by_proxy} by proxy)" if by_proxy else ""
        parts.append(f"{number} {verdict}{note}")
    return f"Of {len(judged)} claims: {', '.join(parts)}."


def claims_table(judged: Sequence[JudgedClaim]) -> Table:
    """A row for each ground of each claim, and the verdict on the claim in each."""
    return Table(
        headings=(
            "claim",
            "verdict",
            "ground",
            "published",
            "here",
            "why",
        ),
        rows=tuple(
            Row(_cells(item, place))
            for item in judged
            for place in range(len(item.parts))
        ),
    )


def describe(judged: Sequence[JudgedClaim]) -> list[dict[str, Any]]:
    """All of it as JSON values."""
    return [
        {
            "claim": item.claim.id,
            "statement": item.claim.statement,
            "check": item.claim.check,
            "sources": [source.name for source in item.claim.sources],
            "caveat": item.claim.caveat,
            "verdict": item.verdict,
            "proxy": item.proxy,
            "grounds": [_described(part) for part in item.parts],
        }
        for item in judged
    ]


def _described(part: Part) -> dict[str, Any]:
    return {
        "ground": part.ground,
        "verdict": part.verdict,
        "proxy": part.proxy,
        "why": part.why,
        "numbers": [
            {
                "what": number.what,
                "published": number.published,
                "here": number.own,
                "interval": number.interval,
                "unit": number.unit or None,
                "stand": number.stand,
                "note": number.note,
            }
            for number in part.numbers
        ],
    }


def describe_part(part: Part) -> str:
    """What one ground says, in a line without a table."""
    texts = {"published": published_text(part), "here": own_text(part)}
    known = [f"{name} {text}" for name, text in texts.items() if text != UNKNOWN]
    found = "; ".join([part.verdict_words, *known])
    return f"{part.ground}: {found}: {part.why}."


def published_text(part: Part) -> str:
    return _joined(
        [published_value(n) for n in part.numbers if n.published is not None]
    )


def own_text(part: Part) -> str:
    return _joined([_own(n) for n in part.numbers if n.own is not None])


def published_value(number: Number) -> str:
    """As it is printed; points with their sign."""
    if number.published is None:
        return ""
    if number.unit == "":
        return as_printed(number.published)
    sign = "+" if number.published > 0 else MINUS if number.published < 0 else ""
    return sign + as_printed(abs(number.published))


def _own(number: Number) -> str:
    """The value found here with its interval."""
    if number.interval is None:
        return number.text(number.own)
    low, high = (number.text(end) for end in number.interval)
    return f"{number.text(number.own)} ({low} to {high})"


def _joined(values: Sequence[str]) -> str:
    """The first values, and how many more there are."""
    if not values:
        return UNKNOWN
    shown = "; ".join(values[:SHOWN_NUMBERS])
    more = len(values) - SHOWN_NUMBERS
    return f"{shown}; and {more} more" if more > 0 else shown


def _cells(item: JudgedClaim, place: int) -> tuple[Cell, ...]:
    part, is_first = item.parts[place], place == 0
    claim = item.claim
    return (
        _claim_cell(claim, is_first=is_first),
        Cell(
            item.verdict,
            f"by proxy on {item.proxy}" if item.proxy else "",
            "on the whole claim",
            item.verdict,
            is_number=False,
        ),
        Cell(
            part.ground,
            part.verdict_words,
            claim.check,
            part.ground,
            is_number=False,
        ),
        _numbers_cell(part, published_text(part), _NONE_PUBLISHED),
        _numbers_cell(part, own_text(part), _NONE_HERE),
        Cell(
            f"{part.why[0].upper()}{part.why[1:]}.",
            f"Caveat: {claim.caveat}" if claim.caveat and is_first else "",
            key=part.why,
            is_number=False,
            is_long=True,
        ),
    )


_NONE_PUBLISHED = "the claim gives no number for it"
_NONE_HERE = "there is none here; the last column says why"


def _claim_cell(claim: Claim, *, is_first: bool) -> Cell:
    """Its statement stands in its first row only; what it rests on is behind it."""
    sources = ", ".join(source.name for source in claim.sources)
    return Cell(
        claim.id,
        claim.statement if is_first else "",
        f"{claim.statement} Sources: {sources or CLAIMS_SOURCE}",
        int(claim.id.removeprefix("C")),
        is_number=False,
    )


def _numbers_cell(part: Part, text: str, why_none: str) -> Cell:
    """What each number is, one after the other, behind the numbers."""
    if text == UNKNOWN:
        return replace(missing(why_none), is_number=False)
    lines = [_line(number) for number in part.numbers[:EXPLAINED_NUMBERS]]
    more = len(part.numbers) - len(lines)
    hint = "; ".join([*lines, f"and {more} more in the data"] if more else lines)
    return Cell(text, hint=hint, key=text, is_number=False, is_long=True)


def _line(number: Number) -> str:
    """One number in words: what, published, here, and how it is known."""
    published = published_value(number)
    told = [f"published {published}" if published else "", f"here {_own(number)}"]
    if number.own is None:
        told[1] = ""
    values = ", ".join(part for part in told if part)
    note = f" ({number.note})" if number.note else ""
    return f"{number.what}: {values or 'not known'}{note}"
