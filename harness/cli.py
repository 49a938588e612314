"""The command line: each command parses, calls what does the work, and prints.

Heavy imports stand inside the commands, so that every `--help` is quick.
"""

import json
import re
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tlbench.errors import SuiteError, TlbenchError

if TYPE_CHECKING:
    from tlbench.db.store import ResultStore
    from tlbench.plan import Forecast
    from tlbench.result import TrialResult
    from tlbench.suites.model_spec import ModelSpec
    from tlbench.suites.spec import Suite

app = typer.Typer(
    name="tlbench",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
)
db_app = typer.Typer(help="Look after the result database.", no_args_is_help=True)
app.add_typer(db_app, name="db")

TROUBLE = 3
"""Exit code of a run that ended with a failed trial."""
INTERRUPTED = 130

SuiteArgument = Annotated[
    str,
    typer.Argument(
        metavar="SUITE",
        help="A built-in suite (`tlbench suites`), a YAML file, or `-` for stdin.",
    ),
]
ScaleOption = Annotated[
    str | None,
    typer.Option(
        metavar="NAME", help="One of the suite's scales; most built-in ones have `cpu`."
    ),
]
DbOption = Annotated[
    str,
    typer.Option(
        "--db",
        envvar="TLBENCH_DB",
        metavar="FILE|URL",
        help="The result database: a file, or the URL of PostgreSQL.",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for a program.")]
ReportOption = Annotated[
    Path | None, typer.Option("--report", metavar="FILE", help="Write an HTML report.")
]
DEFAULT_DB = "tlbench.db"


def main() -> None:
    """Run the command line; errors of the user are one line, ours keep their trace."""
    try:
        app()
    except SuiteError as error:
        _fail(error, exit_code=2)
    except TlbenchError as error:
        _fail(error, exit_code=1)
    except BrokenPipeError:  # the reader, `head` say, has seen enough
        sys.stderr.close()
        raise SystemExit(1) from None


def _fail(error: TlbenchError, exit_code: int) -> None:
    for line in str(error).splitlines():
        print(f"error: {line}", file=sys.stderr)
    raise SystemExit(exit_code)


def _version(is_asked: bool) -> None:
    if is_asked:
        from importlib.metadata import version

        print(f"tlbench {version('tlbench')}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    """What TokenLearner buys on your hardware: run suites, keep results, compare.

    Example: `tlbench run smoke --report smoke.html`
    """


@app.command()
def run(
    suite: SuiteArgument,
    scale: ScaleOption = None,
    db: DbOption = DEFAULT_DB,
    address: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT",
            help="Join the Ray cluster there (`auto`: the one on this machine)"
            " instead of starting Ray here.",
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
    import signal
    from contextlib import closing

    from tlbench.cluster import Cluster
    from tlbench.console import Pace, follow, make_console
    from tlbench.db.store import ResultStore
    from tlbench.plan import order_trials
    from tlbench.runner import run_trials

    # A polite `kill` ends a run as Ctrl-C does: what is finished stays.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    loaded = _load(suite, scale)
    if report is not None:
        from tlbench.reports.page import check_destination

        check_destination(report)
    screen, trials = make_console(stderr=True), order_trials(loaded)
    with ResultStore.open(db, create=True) as store:
        pace = Pace(trials, _forecast(loaded, store))
        screen.print(
            f"{loaded.name}: {len(trials)} trials, results go to {store.location}",
            markup=False,
            soft_wrap=True,
        )
        with (
            Cluster(address) as cluster,
            closing(
                run_trials(
                    loaded, trials, cluster, store, source=suite, command=_command()
                )
            ) as progress,
        ):
            stored, is_whole = follow(progress, trials, pace, screen)
        if stored:
            _conclude(stored[0].run_id, store, report, as_json=as_json)
    if not is_whole:
        screen.print(f"interrupted: {len(stored)} of {len(trials)} trials are kept")
        raise typer.Exit(INTERRUPTED)
    if any(_has_failed(item.finished.result) for item in stored):
        raise typer.Exit(TROUBLE)


@app.command()
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

    Times come from earlier trials in the database, else from an estimate.

    Example: `tlbench plan smoke --memory`
    """
    from tlbench.console import make_console, memory_table, plan_table
    from tlbench.plan import describe
    from tlbench.units import format_duration

    loaded = _load(suite, scale)
    forecasts = _forecast(loaded, _existing(db))
    if as_json:
        _print_json([describe(item) for item in forecasts])
        return
    console = make_console()
    console.print(plan_table(forecasts))
    if has_memory:
        console.print()
        console.print(memory_table(forecasts))
        console.print()
    total = sum(item.trial_time_s * item.repeats for item in forecasts)
    trials = sum(item.repeats for item in forecasts)
    console.print(f"{trials} trials, about {format_duration(total)}")


@app.command()
def suites(as_json: JsonOption = False) -> None:
    """The built-in suites, and the scales that `--scale` chooses from.

    Example: `tlbench suites`
    """
    from tlbench.console import make_console, make_table
    from tlbench.suites.loader import builtin_suites

    found = builtin_suites()
    if as_json:
        _print_json([{"name": name, **item._asdict()} for name, item in found.items()])
        return
    rows = [
        (name, ", ".join(item.scales), item.description) for name, item in found.items()
    ]
    make_console().print(make_table(("suite", "scales", "what it does"), rows))


@app.command()
def models(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="NAME", help="Model names; braces expand, quotes are wise."
        ),
    ] = None,
    num_classes: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Width of the classifier; 1,000 for images and 400 for clips if left"
            " out.",
        ),
    ] = None,
    is_certified: Annotated[
        bool,
        typer.Option(
            "--certify",
            help="Check them against closed forms, counters, formulas and published"
            " numbers; without NAME all that are published.",
        ),
    ] = False,
    is_thorough: Annotated[
        bool,
        typer.Option(
            "--thorough",
            help="With --certify: also execute models above 60 GMACs under DeepSpeed's"
            " profiler, as far as memory allows: minutes.",
        ),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Cost of models by name: parameters, MACs, tokens; or certificates of them.

    Exit code 1: a check of a certificate fails.

    Example: `tlbench models 'ViT-B/16+TL{8,16}@{0,1/4,1/2,3/4}'` or
    `tlbench models --certify 'ViT-B/16+TL8@1/2'`
    """
    if is_certified:
        if num_classes is not None and not names:
            raise typer.BadParameter(
                "needs NAME; the published models have the classes of their data sets",
                param_hint="--num-classes",
            )
        _certify(names, num_classes, is_thorough=is_thorough, as_json=as_json)
        return
    if is_thorough:
        raise typer.BadParameter("goes with --certify only", param_hint="--thorough")
    if not names:
        raise typer.BadParameter(
            "missing; only --certify does without", param_hint="NAME"
        )
    from tlbench.console import make_console, make_table
    from tlbench.plan import describe_model
    from tlbench.suites.published import default_num_classes
    from tlbench.units import UNKNOWN, format_metric

    specs, texts = _read_models(names)
    described = [
        describe_model(spec, num_classes or default_num_classes(spec), texts)
        for spec in specs
    ]
    if as_json:
        _print_json(described)
        return
    rows = [
        (
            item["name"],
            f"{item['params']:,}",
            format_metric("macs", item["macs"]),
            format_metric("flops", item["flops"]),
            f"{item['tokens'][0]} to {item['tokens'][-1]}"
            if item["tokens"]
            else UNKNOWN,
        )
        for item in described
    ]
    headings = ("model", "parameters", "GMACs", "GFLOPs", "tokens")
    console = make_console()
    console.print(make_table(headings, rows))
    for item in described:
        if item.get("reason"):
            console.print(f"{item['name']!r} {item['reason']}", markup=False)


@app.command()
def runs(db: DbOption = DEFAULT_DB, as_json: JsonOption = False) -> None:
    """The runs in the database, newest first.

    Example: `tlbench runs --db results.db`
    """
    from tlbench.console import make_console, make_table
    from tlbench.db import query
    from tlbench.units import format_duration

    with _reading(db) as store, store.session() as session:
        records = query.runs(session)
    if as_json:
        _print_json([_plain(record) for record in records])
        return
    rows = [
        (
            record.id,
            record.suite,
            record.status,
            f"{record.finished}/{record.planned}",
            record.failed,
            f"{record.started_at.astimezone():%Y-%m-%d %H:%M}",
            format_duration((record.ended_at - record.started_at).total_seconds())
            if record.ended_at
            else "",
        )
        for record in records
    ]
    headings = ("run", "suite", "status", "trials", "not ok", "started", "took")
    make_console().print(make_table(headings, rows))


@app.command()
def show(
    run_id: Annotated[
        int | None,
        typer.Argument(metavar="[RUN]", help="A run; the newest if left out."),
    ] = None,
    trial: Annotated[
        int | None, typer.Option(metavar="TRIAL", help="Show one trial in full.")
    ] = None,
    db: DbOption = DEFAULT_DB,
    as_json: JsonOption = False,
) -> None:
    """The results of a run, or everything about one trial.

    Example: `tlbench show` or `tlbench show --trial 7`
    """
    from tlbench.console import make_console, trial_tables
    from tlbench.db import query

    with _reading(db) as store:
        if trial is None:
            _show_run(_run_id(run_id, store), store, as_json=as_json)
            return
        with store.session() as session:
            record = query.trial(session, trial)
    if as_json:
        _print_json(_plain(record))
        return
    for table in trial_tables(record):
        make_console().print(table)


@app.command()
def report(
    destination: Annotated[
        Path, typer.Argument(metavar="FILE", help="The HTML file to write.")
    ],
    run_ids: Annotated[
        list[int] | None,
        typer.Option("--run", metavar="RUN", help="A run; may be given again."),
    ] = None,
    db: DbOption = DEFAULT_DB,
) -> None:
    """Write the HTML report on one or several runs; the newest if none is named.

    Example: `tlbench report smoke.html --run 3`
    """
    from tlbench.reports.page import write_report

    with _reading(db) as store:
        chosen = run_ids or [_run_id(None, store)]
        with store.session() as session:
            write_report(session, chosen, destination)
    print(destination)


@app.command()
def doctor(as_json: JsonOption = False) -> None:
    """What works on this machine, what does not, and why. Takes some seconds.

    Exit code 1: something that every run needs does not work.

    Example: `tlbench doctor`
    """
    from dataclasses import asdict

    from tlbench.console import make_console, make_table
    from tlbench.doctor import examine

    checks = examine()
    if as_json:
        _print_json([asdict(check) for check in checks])
    else:
        rows = [(check.state, check.subject, check.finding) for check in checks]
        make_console().print(make_table(("", "what", "found"), rows))
    if any(check.state == "fails" for check in checks):
        raise typer.Exit(1)


@db_app.command()
def upgrade(db: DbOption = DEFAULT_DB) -> None:
    """Bring an older database to the schema of this version; results stay.

    Example: `tlbench db upgrade --db results.db`
    """
    from tlbench.db.store import upgrade as upgrade_database

    before, after = upgrade_database(db)
    state = f"from {before} to {after}" if before != after else f"is at {after} already"
    print(f"{db}: schema {state}")


def _certify(
    names: list[str] | None,
    num_classes: int | None,
    *,
    is_thorough: bool,
    as_json: bool,
) -> None:
    """Certify the models, or all that are published, and show what was found."""
    from dataclasses import asdict

    from rich.progress import track

    from tlbench.certify import certify, named_models
    from tlbench.console import certificate_parts, make_console
    from tlbench.suites.published import default_num_classes

    specs, texts = _read_models(names or [])
    screen = make_console(stderr=True)
    certificates = [
        certify(spec, classes, is_thorough=is_thorough, sources=texts)
        for spec, classes in track(
            [(spec, num_classes or default_num_classes(spec)) for spec in specs]
            or named_models(),
            "certifying",
            console=screen,
            transient=True,
            disable=not screen.is_terminal,
        )
    ]
    if as_json:
        _print_json([asdict(certificate) for certificate in certificates])
    else:
        for part in certificate_parts(certificates):
            make_console().print(part)
    if any(certificate.failed for certificate in certificates):
        raise typer.Exit(1)


def _read_models(names: list[str]) -> "tuple[list[ModelSpec], dict[str, str]]":
    """The models, and the texts of the users' files that their builders stand in."""
    from tlbench.suites.braces import expand_braces
    from tlbench.suites.names import parse_model
    from tlbench.suites.sources import Sources

    sources = Sources(Path())
    specs = [
        sources.resolve(parse_model(name))
        for text in names
        for name in expand_braces(text)
    ]
    return specs, sources.texts


def _load(source: str, scale: str | None) -> "Suite":
    from tlbench.suites.loader import load_suite

    text = sys.stdin.read() if source == "-" else None
    return load_suite(source, text, scale)


def _command() -> str:
    """This command line as it may be stored: without the password of a URL."""
    words = [re.sub(r"(://[^/@]*?):[^/@]*@", r"\1:***@", word) for word in sys.argv[1:]]
    return shlex.join(["tlbench", *words])


def _existing(db: str) -> "ResultStore | None":
    """The database to read from; None where there is none yet."""
    from tlbench.db.store import ResultStore

    if "://" not in db and not Path(db).exists():
        return None
    return ResultStore.open(db, read_only=True)


def _reading(db: str) -> "ResultStore":
    from tlbench.db.store import ResultStore

    return ResultStore.open(db, read_only=True)


def _forecast(suite: "Suite", store: "ResultStore | None") -> "list[Forecast]":
    from tlbench.db.query import case_wall_times
    from tlbench.plan import forecast, matmul_flops_per_s

    identities = [case.identity for case in suite.cases]
    history: dict[str, list[float]] = {}
    if store is not None:
        with store.session() as session:
            history = case_wall_times(session, identities)
    return forecast(suite, history, matmul_flops_per_s())


def _run_id(wanted: int | None, store: "ResultStore") -> int:
    from tlbench.db import query
    from tlbench.errors import StoreError

    with store.session() as session:
        if wanted is not None:
            return query.run(session, wanted).id
        newest = query.runs(session, limit=1)
    if not newest:
        raise StoreError("the database holds no run yet: `tlbench run smoke` makes one")
    return newest[0].id


def _conclude(
    run_id: int, store: "ResultStore", destination: Path | None, *, as_json: bool
) -> None:
    """Say what a run found, and write the report that was asked for."""
    if destination is not None:
        from tlbench.reports.page import write_report

        with store.session() as session:
            write_report(session, [run_id], destination)
    _show_run(run_id, store, as_json=as_json)
    if destination is not None and not as_json:
        print(f"report: {destination}")


def _show_run(run_id: int, store: "ResultStore", *, as_json: bool) -> None:
    from tlbench.console import make_console, run_summary
    from tlbench.reports.page import read_evidence

    with store.session() as session:
        evidence = read_evidence(session, [run_id])
    if as_json:
        run_record = _plain(evidence.runs[0])
        _print_json(run_record | {"trials": [_plain(t) for t in evidence.trials]})
        return
    for part in run_summary(evidence):
        make_console().print(part)


def _has_failed(result: "TrialResult") -> bool:
    """Whether it should have run; what the machine cannot do is no failure."""
    return result.status not in ("ok", "skipped")


def _plain(record: Any) -> dict[str, Any]:
    """A record as JSON values; cases in their canonical form."""
    from dataclasses import fields

    from tlbench.suites.spec import Case

    def value(item: Any) -> Any:
        return item.canonical() if isinstance(item, Case) else item

    return {f.name: value(getattr(record, f.name)) for f in fields(record)}


def _print_json(value: Any) -> None:
    # Times are the only values that JSON has no word for.
    print(json.dumps(value, indent=2, default=lambda moment: moment.isoformat()))
