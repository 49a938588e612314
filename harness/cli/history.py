"""`trend` and `repro`: what came of a case over the runs, and one trial again."""

from typing import Annotated

import typer

from tlbench.cli.options import (
    DEFAULT_DB,
    INTERRUPTED,
    STOPPED_BY_GATE,
    TROUBLE,
    AddressOption,
    DataOption,
    DbOption,
    JsonOption,
    one_of,
    open_for_reading,
)
from tlbench.cli.output import print_json


def trend(
    wanted: Annotated[
        str,
        typer.Argument(
            metavar="CASE|MODEL|CONDITIONS",
            help="A model, a case (`1a2b3c4d`), a run (`3`: the cases that it has), or"
            " conditions (`model~TL,mode=infer`).",
        ),
    ],
    metric: Annotated[
        str, typer.Option(metavar="NAME", help="The metric that is followed.")
    ] = "throughput_samples_per_s",
    since: Annotated[
        str | None,
        typer.Option(
            metavar="TIME", help="Only runs since then: `90d`, `12h`, `2026-01-31`."
        ),
    ] = None,
    ignore: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="What may change without a break, such as `hostname` or `timm`; may be"
            " given again.",
        ),
    ] = None,
    fail_on: Annotated[
        str | None,
        typer.Option(
            "--fail-on",
            metavar="VERDICT",
            help="Exit code 4 where the newest level stands `worse`, or the newest run"
            " has no value any more.",
        ),
    ] = None,
    db: DbOption = DEFAULT_DB,
    as_json: JsonOption = False,
) -> None:
    """A metric over the runs: its changes, and where the machine was another one.

    The series breaks where hardware, driver or a library changed; changes of level are
    looked for between the breaks.

    Example: `tlbench trend ViT-B/16 --since 90d --fail-on worse`
    """
    from tlbench.console import make_console, trend_parts
    from tlbench.reports.history import read_histories
    from tlbench.reports.history_cases import find_cases, moment_of
    from tlbench.reports.trend import check_histories, describe

    gate = fail_on and one_of(fail_on, ("worse",), "--fail-on")
    moment = None if since is None else moment_of(since)
    with open_for_reading(db) as store, store.session() as session:
        cases = find_cases(session, wanted)
        found = read_histories(
            session, cases, (metric,), since=moment, ignored=frozenset(ignore or ())
        )
    histories = check_histories(found, metric, ignore or (), is_gate=gate is not None)
    if as_json:
        print_json([describe(history) for history in histories])
    else:
        console = make_console()
        for part in trend_parts(histories, console.width):
            console.print(part)
    if gate and any(history.has_worsened for history in histories):
        raise typer.Exit(STOPPED_BY_GATE)


def repro(
    trial_id: Annotated[
        int, typer.Argument(metavar="TRIAL", help="A trial, as `tlbench show` lists.")
    ],
    repeats: Annotated[
        int, typer.Option(min=1, max=1000, help="New trials, the first with its seed.")
    ] = 1,
    metric: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="What is judged; throughput, accuracy or MACs if left out.",
        ),
    ] = None,
    fail_on: Annotated[
        str | None,
        typer.Option(
            "--fail-on",
            metavar="VERDICT",
            help="Exit code 4 at this verdict: `differs`, or `inconclusive`, which"
            " means either.",
        ),
    ] = None,
    address: AddressOption = None,
    data: DataOption = None,
    db: DbOption = DEFAULT_DB,
    as_json: JsonOption = False,
) -> None:
    """Run a stored trial's case again, and say whether it comes out the same.

    The trials of its run say how far a new one may lie from them. The new ones are
    stored as a run of their own. Exit code 3: they failed, where the old one did not.

    Example: `tlbench repro 7 --repeats 3 --fail-on differs`
    """
    from tlbench.cli.execution import execute, planned_job, say
    from tlbench.console import make_console, repro_parts
    from tlbench.db.store import ResultStore
    from tlbench.reports.repro import describe, judge, plan_repro, read_original
    from tlbench.statistics import GATE_LEVEL, LEVEL

    gate = fail_on and one_of(fail_on, ("differs", "inconclusive"), "--fail-on")
    with ResultStore.open(db) as store:
        with store.session() as session:
            original = read_original(session, trial_id, metric)
        suite, trials = plan_repro(original, repeats)
        job = planned_job(store, suite, trials, "repro", address, data)
        say(f"{suite.description}: {job.length}")
        done = execute(job, store)
        if not done.is_whole or done.run_id is None:
            say(done.interruption)
            raise typer.Exit(INTERRUPTED)
        with store.session() as session:
            level = LEVEL if gate is None else GATE_LEVEL
            answer = judge(session, original, done.run_id, level)
    if as_json:
        print_json(describe(answer))
    else:
        for part in repro_parts(answer):
            make_console().print(part)
    if gate and answer.verdict in {"differs", gate}:
        raise typer.Exit(STOPPED_BY_GATE)
    if answer.has_new_failure:
        raise typer.Exit(TROUBLE)
