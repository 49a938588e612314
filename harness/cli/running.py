"""`run` and `plan`: what is asked for, and how it goes on."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tlbench.cli.options import (
    DEFAULT_DB,
    INTERRUPTED,
    TROUBLE,
    DataOption,
    DbOption,
    JsonOption,
    ReportOption,
    ScaleOption,
    SuiteArgument,
    command_line,
    load,
    open_existing,
    with_data,
    with_storage,
)
from tlbench.cli.output import print_json, show_run

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tlbench.budget import Budget
    from tlbench.console import Paced
    from tlbench.db.store import ResultStore
    from tlbench.plan import Forecast
    from tlbench.result import TrialResult
    from tlbench.runner import Learn, Stored
    from tlbench.suites.spec import Suite, Trial


def run(
    suite: SuiteArgument,
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
    address: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT",
            help="Join the Ray cluster there (`auto`: the one on this machine)"
            " instead of starting Ray here.",
        ),
    ] = None,
    budget: Annotated[
        str | None,
        typer.Option(
            metavar="TIME",
            help="Spend so much time, such as 90s, 20m or 1h30m, and no fixed number of"
            " repeats: they go where intervals are widest.",
        ),
    ] = None,
    report: ReportOption = None,
    as_json: JsonOption = False,
) -> None:
    """Run a suite: every finished trial is stored at once.

    Exit code 3: a trial failed; the others and the report are there. Ctrl-C ends a
    run and keeps what is finished.

    Example: `tlbench run smoke --report smoke.html`
    """
    from tlbench.console import Pace, make_console
    from tlbench.db.store import ResultStore
    from tlbench.plan import order_trials
    from tlbench.units import format_counted, format_duration

    budget_s = None if budget is None else _budget_s(budget)
    loaded = with_storage(load(suite, scale), storage)
    loaded = with_data(loaded, data, is_here=address is None)
    if report is not None:
        from tlbench.reports.files import check_destination, form_of

        form_of(report)
        check_destination(report)
    screen = make_console(stderr=True)
    with ResultStore.open(db, create=True) as store:
        forecasts = forecast_suite(loaded, store, is_here=address is None)
        spending = None
        if budget_s is not None:
            spending = _spend(loaded, forecasts, budget_s)
        trials = order_trials(loaded) if spending is None else spending
        length = (
            format_counted(len(trials), "trial")
            if budget_s is None
            else f"{format_duration(budget_s)} for"
            f" {format_counted(len(loaded.cases), 'case')}"
        )
        screen.print(
            f"{loaded.name}: {length}, results go to {store.location}",
            markup=False,
            soft_wrap=True,
        )
        stored, is_whole = execute(
            loaded,
            trials,
            Pace(trials, forecasts) if spending is None else spending,
            store,
            source=suite,
            address=address,
            learn=None if spending is None else spending.add,
            ended_by=None if spending is None else lambda: spending.ended_by,
        )
        if stored:
            _conclude(
                stored[0].run_id,
                store,
                report,
                as_json=as_json,
                about={} if spending is None else {"budget": spending.summary()},
            )
    if not is_whole:
        screen.print(f"interrupted: {len(stored)} of {len(trials)} trials are kept")
        raise typer.Exit(INTERRUPTED)
    if spending is not None:
        screen.print(spending.describe(), markup=False, soft_wrap=True)
    if any(_has_failed(item.finished.result) for item in stored):
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


def forecast_suite(
    suite: "Suite", store: "ResultStore | None", *, is_here: bool = True
) -> "list[Forecast]":
    """What each case needs; by earlier trials on such a machine if it is to run here.

    The machines of a cluster elsewhere are not known yet: those of any count.
    """
    from tlbench.db import query
    from tlbench.machine import fingerprint
    from tlbench.plan import forecast, matmul_flops_per_s

    identities, machine = [case.identity for case in suite.cases], fingerprint()
    history: dict[str, list[float]] = {}
    calibration: dict[str, float | None] = {}
    if store is not None:
        with store.session() as session:
            history = query.case_wall_times(
                session, identities, machine=machine if is_here else None
            )
            calibration = query.calibration(session, machine)
    return forecast(suite, history, matmul_flops_per_s(), calibration, machine)


def _budget_s(text: str) -> float:
    from tlbench.budget import parse_budget

    try:
        return parse_budget(text)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--budget") from error


def _spend(
    suite: "Suite", forecasts: "Sequence[Forecast]", budget_s: float
) -> "Budget":
    from tlbench.budget import Budget
    from tlbench.reports.compare import planned_pairs

    expected_s = {item.identity: item.trial_time_s for item in forecasts}
    return Budget(suite, planned_pairs(suite.cases), expected_s, budget_s)


def execute_planned(
    suite: "Suite",
    trials: "Sequence[Trial]",
    store: "ResultStore",
    *,
    source: str,
    data: list[str] | None,
    address: str | None = None,
) -> "tuple[list[Stored], bool]":
    """The same for trials that a command has planned by itself; it says how many."""
    from dataclasses import replace

    from tlbench.console import Pace, make_console
    from tlbench.suites.paths import data_path
    from tlbench.units import format_counted, format_duration

    suite = with_data(suite, data, is_here=address is None)
    trials = [replace(t, data_path=data_path(t.case, suite.paths)) for t in trials]
    pace = Pace(trials, forecast_suite(suite, store, is_here=address is None))
    screen = make_console(stderr=True)
    screen.print(
        f"{suite.description}: {format_counted(len(trials), 'trial')}, about"
        f" {format_duration(pace.left_s(0))}",
        markup=False,
    )
    stored, is_whole = execute(
        suite, trials, pace, store, source=source, address=address
    )
    if not is_whole:
        screen.print(f"interrupted: {len(stored)} of {len(trials)} trials are kept")
    return stored, is_whole


def execute(
    suite: "Suite",
    trials: "Sequence[Trial]",
    pace: "Paced",
    store: "ResultStore",
    *,
    source: str,
    address: str | None = None,
    learn: "Learn | None" = None,
    ended_by: "Callable[[], str] | None" = None,
) -> "tuple[list[Stored], bool]":
    """Run the trials, and show how they go on; whether those are all, too."""
    import signal
    from contextlib import closing

    from tlbench.cluster import Cluster
    from tlbench.console import follow, make_console
    from tlbench.runner import run_trials

    with (
        Cluster(address) as cluster,
        closing(
            run_trials(
                suite,
                trials,
                cluster,
                store,
                source=source,
                command=command_line(),
                learn=learn,
                ended_by=ended_by,
            )
        ) as progress,
    ):
        # A polite `kill` ends a run as Ctrl-C does: what is finished stays. Ray has set
        # a handler of its own meanwhile, which would end this process on the spot.
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        return follow(progress, trials, pace, make_console(stderr=True))


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
