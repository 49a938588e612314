"""`run` and `plan`: what is asked for, and how it goes on."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tlbench.cli.options import (
    DEFAULT_DB,
    INTERRUPTED,
    TROUBLE,
    AddressOption,
    DataOption,
    DbOption,
    JsonOption,
    ReportOption,
    ScaleOption,
    SuiteArgument,
    load,
    open_existing,
    with_data,
    with_storage,
)
from tlbench.cli.output import print_json, show_run

if TYPE_CHECKING:
    from tlbench.cli.execution import Job
    from tlbench.db.store import ResultStore
    from tlbench.result import TrialResult


def run(
    suite: Annotated[
        str | None,
        typer.Argument(
            metavar="SUITE|RUN",
            help="A built-in suite (`tlbench suites`), a YAML file, or `-` for stdin;"
            " with --resume a run.",
        ),
    ] = None,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            help="Go on with a run that was ended or killed, as it was asked for: only"
            " what is missing, `lost` or `skipped` runs. Without its number the newest"
            " that lacks something.",
        ),
    ] = False,
    scale: ScaleOption = None,
    data: DataOption = None,
    storage: Annotated[
        str | None,
        typer.Option(
            metavar="FOLDER|URL",
            help="Keep the checkpoints of training there, and go on from those that"
            " a run which was ended has left.",
        ),
    ] = None,
    db: DbOption = DEFAULT_DB,
    address: AddressOption = None,
    budget: Annotated[
        str | None,
        typer.Option(
            metavar="TIME",
            help="Spend so much time, such as 90s, 20m or 1h30m, and no fixed number of"
            " repeats: they go where intervals are widest.",
        ),
    ] = None,
    rehearse: Annotated[
        float | None,
        typer.Option(
            metavar="SECONDS",
            min=0,
            max=86_400,
            help="Measure nothing: each trial gets its nodes and devices, holds them so"
            " long (0 will do), and is stored as `skipped`.",
        ),
    ] = None,
    report: ReportOption = None,
    as_json: JsonOption = False,
) -> None:
    """Run a suite: every finished trial is stored at once.

    Exit code 3: a trial failed; the others and the report are there. Ctrl-C ends a
    run and keeps what is finished; `--resume` goes on with it.

    Example: `tlbench run smoke --report smoke.html`
    """
    from tlbench.cli.execution import new_job, resumed_job
    from tlbench.db.store import ResultStore

    if report is not None:
        from tlbench.reports.files import check_destination, form_of

        form_of(report)
        check_destination(report)
    if resume:
        _refuse_with_resume(
            scale=scale, storage=storage, budget=budget, rehearse=rehearse
        )
        with ResultStore.open(db) as store:
            job = resumed_job(store, _run_number(suite), data, address)
            _carry_out(job, store, report, as_json=as_json)
        return
    if suite is None:
        raise typer.BadParameter(
            "a suite is missing; smoke would do", param_hint="SUITE"
        )
    budget_s = None if budget is None else _budget_s(budget)
    if budget is not None and rehearse is not None:
        raise typer.BadParameter(
            f"{budget} would buy measurements, and a rehearsal has none",
            param_hint="--budget",
        )
    loaded = with_storage(load(suite, scale), storage)
    loaded = with_data(loaded, data, is_here=address is None)
    with ResultStore.open(db, create=True) as store:
        job = new_job(store, loaded, suite, address, budget_s, rehearse)
        _carry_out(job, store, report, as_json=as_json)


def _refuse_with_resume(**given: object) -> None:
    for name, value in given.items():
        if value is not None:
            raise typer.BadParameter(
                f"{value} is for a new run; --resume goes on as the run was asked for",
                param_hint=f"--{name}",
            )


def _run_number(text: str | None) -> int | None:
    if text is None:
        return None
    if not text.isdecimal():
        raise typer.BadParameter(
            f"{text} is not the number of a run; `tlbench runs` lists them",
            param_hint="RUN",
        )
    return int(text)


def _carry_out(
    job: "Job", store: "ResultStore", report: Path | None, *, as_json: bool
) -> None:
    """Run what there is to run, and say what was found."""
    from tlbench.cli.execution import execute, say

    say(f"{job.suite.name}: {job.length}, results go to {store.location}")
    done = execute(job, store)
    if done.run_id is not None:
        about = {} if job.budget is None else {"budget": job.budget.summary()}
        _conclude(done.run_id, store, report, as_json=as_json, about=about)
    if not done.is_whole:
        say(done.interruption)
        raise typer.Exit(INTERRUPTED)
    if job.budget is not None:
        say(job.budget.describe())
    if any(_has_failed(item.finished.result) for item in done.stored):
        raise typer.Exit(TROUBLE)


def plan(
    suite: SuiteArgument,
    scale: ScaleOption = None,
    db: DbOption = DEFAULT_DB,
    has_memory: Annotated[
        bool,
        typer.Option(
            "--memory",
            help="Show what fills a device, in each precision and ZeRO stage.",
        ),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """What a run would do: cases, parameters, GMACs, memory, time. Starts nothing.

    Times come from earlier trials on such hardware, else from an estimate.

    Example: `tlbench plan smoke --memory`
    """
    from tlbench.cli.forecasting import forecast_suite
    from tlbench.console import make_console, memory_table, plan_table
    from tlbench.plan import describe
    from tlbench.units import format_counted, format_duration

    loaded = load(suite, scale)
    forecasts = forecast_suite(loaded, open_existing(db))
    if as_json:
        print_json([describe(item) for item in forecasts])
        return
    console = make_console()
    console.print(plan_table(forecasts))
    if has_memory:
        console.print()
        console.print(memory_table(forecasts))
        console.print()
    total = sum(item.trial_time_s * item.repeats for item in forecasts)
    trials = sum(item.repeats for item in forecasts)
    counted = format_counted(trials, "trial")
    console.print(f"{counted}, about {format_duration(total)}")


def _budget_s(text: str) -> float:
    from tlbench.budget import parse_budget

    try:
        return parse_budget(text)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--budget") from error


def _conclude(
    run_id: int,
    store: "ResultStore",
    destination: Path | None,
    *,
    as_json: bool,
    about: dict[str, Any],
) -> None:
    """Say what a run found, and write the report that was asked for.

    What else there is to say `about` the run is for programs.
    """
    if destination is not None:
        from tlbench.reports.page import write_report

        with store.session() as session:
            write_report(session, [run_id], destination)
    show_run(run_id, store, as_json=as_json, about=about)
    if destination is not None and not as_json:
        print(f"report: {destination}")


def _has_failed(result: "TrialResult") -> bool:
    """Whether it should have run; what the machine cannot do is no failure."""
    return result.status not in ("ok", "skipped")
