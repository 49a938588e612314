"""`claims`: what the publication says, and what of it holds here."""

from typing import TYPE_CHECKING, Annotated

import typer

from tlbench.cli.options import DEFAULT_DB, DbOption, JsonOption, open_for_reading
from tlbench.cli.output import print_json

if TYPE_CHECKING:
    from tlbench.reports.claims.records import JudgedClaim


def claims(
    run_ids: Annotated[
        list[int] | None,
        typer.Option("--run", metavar="RUN", help="A run; may be given again."),
    ] = None,
    db: DbOption = DEFAULT_DB,
    as_json: JsonOption = False,
) -> None:
    """The 21 claims of the publication: published, found here, and a verdict on each.

    Without --run no database is read, and only what can be counted has a verdict.

    Example: `tlbench claims --run 3`
    """
    from tlbench.console import claim_parts, make_console
    from tlbench.reports.claims.tables import describe

    judged = _judge(db, run_ids or [])
    if as_json:
        print_json(describe(judged))
        return
    for part in claim_parts(judged):
        make_console().print(part)


def _judge(db: str, run_ids: list[int]) -> "tuple[JudgedClaim, ...]":
    from tlbench.reports.cases import gather
    from tlbench.reports.claims.judge import judge
    from tlbench.reports.compare import comparisons
    from tlbench.reports.evidence import read_evidence

    if not run_ids:
        return judge()
    with open_for_reading(db) as store, store.session() as session:
        evidence = read_evidence(session, run_ids)
    cases = gather(evidence.runs, evidence.trials, evidence.floors)
    return judge(cases, comparisons(cases))
