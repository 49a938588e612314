"""The page `docs/publication.md`, made from the published numbers and the closed forms.

python tests/support/publication_page.py > docs/publication.md
"""

import sys
from collections.abc import Callable, Iterable, Sequence
from functools import partial

from tlbench.models import cost
from tlbench.models.publication import MISPRINT_MARK, as_printed
from tlbench.suites.model_spec import ModelSpec
from tlbench.suites.names import model_name, parse_model
from tlbench.suites.published import (
    CLAIMS,
    CLAIMS_SOURCE,
    PUBLISHED_CLASSES,
    RESULTS,
    SCORES,
    Claim,
    ClaimedNumber,
    PublishedResult,
    Source,
    published_in,
)

COMMAND = "python tests/support/publication_page.py > docs/publication.md"

INTRODUCTION = f"""\
<!-- Made by `{COMMAND}`; the data are in `suites/published.py`. -->

# The publication

What the papers on TokenLearner (arXiv 2106.11297) and ViViT (arXiv 2103.15691) print,
beside what tlbench counts for the same model. In Python the data are those of
`tlbench.suites.published`: `published_for("ViT-B/16@384")` gives the rows of a model,
`published_in(T1)` those of a table.

## How they count

The papers' GFLOPS are **multiply-adds plus half of all other operations**, for one
image or one view of a clip: half of what XLA counts in the compiled model. tlbench
shows **GMACs**, the multiply-adds alone, and **GFLOPs**, twice as many. Published
GFLOPS therefore stand up to 1.5 % above our GMACs, and near half of our GFLOPs.

In the tables, *counted so* is tlbench's closed form in the papers' own way, and *ratio*
is that over the published number. A TokenFuser counts there as the one of 2021, which
the tables are of. GMACs and GFLOPs are of today's, which tlbench builds: its masks cost
more, so that they may stand above the published GFLOPS.

TokenLearner is v1. Resolutions, depths, tokens and windows that the papers leave out
were found by their GFLOPS. A row without a model is quoted from others, or its code was
never published. What was *read* was read off a figure, to the error given; zeros at the
end of a number are not shown.
"""

SCORE_HEADINGS = {
    "top1_percent": "top-1 [%]",
    "top5_percent": "top-5 [%]",
    "real_percent": "ReaL [%]",
    "five_shot_percent": "5-shot [%]",
    "mean_five_shot_percent": "5-shot, 9 sets [%]",
    "map_percent": "mAP [%]",
    "mean_accuracy_percent": "mean accuracy [%]",
    "action_percent": "action [%]",
}
METRIC_WORDS = {
    "tokens": "tokens of {}",
    "tokens_after": "tokens in the last block of {}",
    "gflops": "published GFLOPS of {}",
    "gflops_ratio": "GFLOPS of {}",
    "params_ratio": "parameters of {}",
    "block_macs_ratio": "MACs of the first block over the last of {}",
    "later_blocks_share": "share of the later blocks in {}",
    "five_shot_points": "5-shot points of {}",
    "top1_points": "top-1 points of {}",
    "real_points": "ReaL points of {}",
    "top1_percent": "top-1 % of {}",
    "map_percent": "mAP % on {}",
    "mean_accuracy_percent": "mean accuracy % on {}",
}

CLAIM_HEADINGS = (
    "claim",
    "statement",
    "check",
    "decided by",
    "numbers",
    "sources",
    "caveat",
)

Cell = Callable[[PublishedResult], str]
Count = Callable[[ModelSpec, int], float]


def page() -> str:
    sources = dict.fromkeys(result.source for result in RESULTS)
    return "\n".join(
        [
            INTRODUCTION,
            "## Misprints, contradictions and misreadings\n",
            f"Marked {MISPRINT_MARK} in the tables.\n",
            *_table(("where", "as published", "what is wrong"), _misprints()),
            "\n## Tables and figures\n",
            *(line for source in sources for line in _section(source)),
            "## Parameters\n",
            "Published counts, beside the closed form at the image size and with the"
            " classifier they were counted with.\n",
            *_table(
                ("row", "counted on", "classes", "published", "tlbench"),
                _params(),
            ),
            "\n## Claims\n",
            f"Of the {CLAIMS_SOURCE}. *Exact* claims are decided by arithmetic and\n"
            "tests, *measured* ones on a machine, *proxy* ones by training on small\n"
            "data in the place of JFT-300M; *quoted* ones cannot be decided here.\n"
            "[claims.md](claims.md) tells how each gets its verdict.\n",
            *_table(
                CLAIM_HEADINGS,
                map(_claim, CLAIMS),
            ),
            "",
        ]
    )


def _misprints() -> Iterable[tuple[str, ...]]:
    for result in RESULTS:
        if result.misprint is not None:
            printed = _shown(getattr(result, result.misprint.field))
            about = printed if printed == result.label else f"{result.label}: {printed}"
            yield result.source.name, about, result.misprint.reason


def _section(source: Source) -> list[str]:
    results = published_in(source)
    columns = {
        heading: cells
        for heading, cell in _columns().items()
        if any(cells := [cell(result) for result in results])
    }
    reading = source.reading
    read = (
        f"; read to {reading.gflops} GFLOPS and {reading.percent} points"
        if reading
        else ""
    )
    rows = zip(*columns.values(), strict=True)
    return [
        f"### {source.name}\n",
        f"{source.about}{read}.\n",
        *_table(tuple(columns), rows),
        "",
    ]


def _columns() -> dict[str, Cell]:
    scores: dict[str, Cell] = {
        SCORE_HEADINGS[score]: partial(_marked, field=score) for score in SCORES
    }
    return {
        "as published": partial(_marked, field="label"),
        "model": lambda result: f"`{result.model}`" if result.model else "",
        "GFLOPS": partial(_marked, field="gflops"),
        "counted so": lambda result: _ours(result, cost.published_flops),
        "ratio": _ratio,
        "GMACs": lambda result: _ours(result, cost.macs),
        "GFLOPs": lambda result: _ours(result, _flops),
        "views": lambda result: _shown(result.views),
        "parameters [M]": lambda result: _shown(result.params_millions),
        "run time [ms]": lambda result: _shown(result.run_time_ms),
        **scores,
    }


def _marked(result: PublishedResult, field: str) -> str:
    """The value as printed, with a sign where it is known to be wrong."""
    is_wrong = result.misprint is not None and result.misprint.field == field
    return _shown(getattr(result, field)) + (f" {MISPRINT_MARK}" if is_wrong else "")


def _shown(value: float | str | None) -> str:
    if value is None or isinstance(value, str):
        return value or ""
    return as_printed(value)


def _ours(result: PublishedResult, count: Count) -> str:
    counted = _giga(result, count)
    return "" if counted is None else f"{counted:#.5g}"


def _ratio(result: PublishedResult) -> str:
    counted = _giga(result, cost.published_flops)
    if counted is None or result.gflops is None:
        return ""
    return f"{counted / result.gflops:.3f}"


def _giga(result: PublishedResult, count: Count) -> float | None:
    """What tlbench counts for the model, where there are GFLOPS to hold it against."""
    if result.model is None or result.gflops is None:
        return None
    num_classes = PUBLISHED_CLASSES[result.source.dataset]
    return count(parse_model(result.model), num_classes) / 1e9


def _flops(spec: ModelSpec, num_classes: int) -> int:
    return 2 * cost.macs(spec, num_classes)


def _params() -> Iterable[tuple[str, ...]]:
    for result in RESULTS:
        if result.model is not None and result.params_millions is not None:
            spec, num_classes = result.params_counted_on()
            yield (
                f"{result.source.name}: {result.label}",
                f"`{model_name(spec)}`",
                f"{num_classes:,}",
                f"{as_printed(result.params_millions)} M",
                f"{cost.params(spec, num_classes) / 1e6:,.2f} M",
            )


def _claim(claim: Claim) -> Sequence[str]:
    return (
        claim.id,
        claim.statement,
        claim.check,
        ", ".join(claim.grounds),
        "; ".join(map(_claimed, claim.numbers)),
        "; ".join(source.name for source in claim.sources),
        claim.caveat or "",
    )


def _claimed(number: ClaimedNumber) -> str:
    of = f"`{number.model}`" if number.model else str(number.dataset)
    over = f" against `{number.baseline}`" if number.baseline else ""
    on = f" on {number.dataset}" if number.model and number.dataset else ""
    words = METRIC_WORDS[number.metric].format(of)
    return f"{words}{on}{over}: {as_printed(number.value)}"


def _table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterable[str]:
    yield f"| {' | '.join(headings)} |"
    yield "|" + "---|" * len(headings)
    for row in rows:
        yield f"| {' | '.join(row)} |"


if __name__ == "__main__":
    sys.stdout.write(page())
