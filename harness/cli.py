"""The command line: each command parses, calls what does the work, and prints.

Heavy imports stand inside the commands, so that every `--help` is quick.
"""

import json
import re
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer

from tlbench.errors import StoreError, SuiteError, TlbenchError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tlbench.budget import Budget
    from tlbench.console import Paced
    from tlbench.db.store import ResultStore
    from tlbench.plan import Forecast
    from tlbench.reports.gate import Answer, Question
    from tlbench.reports.selection import Selection
    from tlbench.result import Artifact, TrialResult
    from tlbench.runner import Learn, Stored
    from tlbench.suites.model_spec import ModelSpec
    from tlbench.suites.spec import Suite, Trial

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
STOPPED_BY_GATE = 4
"""Exit code of a comparison with a verdict that `--fail-on` names."""
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
    from tlbench.units import format_duration

    budget_s = None if budget is None else _budget_s(budget)
    loaded = _load(suite, scale)
    if report is not None:
        from tlbench.reports.page import check_destination

        check_destination(report)
    screen = make_console(stderr=True)
    with ResultStore.open(db, create=True) as store:
        forecasts = _forecast(loaded, store, is_here=address is None)
        spending = None
        if budget_s is not None:
            spending = _spend(loaded, forecasts, budget_s)
        trials = order_trials(loaded) if spending is None else spending
        length = (
            f"{len(trials)} trials"
            if budget_s is None
            else f"{format_duration(budget_s)} for {len(loaded.cases)} cases"
        )
        screen.print(
            f"{loaded.name}: {length}, results go to {store.location}",
            markup=False,
            soft_wrap=True,
        )
        stored, is_whole = _execute(
            loaded,
            trials,
            Pace(trials, forecasts) if spending is None else spending,
            store,
            source=suite,
            address=address,
            learn=None if spending is None else spending.add,
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

    Times come from earlier trials on such hardware, else from an estimate.

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
    save: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Write what the trial left behind, such as its trace, into a folder.",
        ),
    ] = None,
    db: DbOption = DEFAULT_DB,
    as_json: JsonOption = False,
) -> None:
    """The results of a run, or everything about one trial.

    Example: `tlbench show --trial 7` or `tlbench show --trial 7 --save traces`
    """
    from tlbench.console import make_console, trial_tables
    from tlbench.db import query

    if save is not None and trial is None:
        raise typer.BadParameter("goes with --trial only", param_hint="--save")
    with _reading(db) as store:
        if trial is None:
            _show_run(_run_id(run_id, store), store, as_json=as_json)
            return
        with store.session() as session:
            record = query.trial(session, trial)
            artifacts = query.artifacts(session, trial)
    if save is not None:
        _save(artifacts, save, record.id)
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
def compare(
    a: Annotated[
        str,
        typer.Argument(
            metavar="A",
            help="What to compare with: a run (`3`), a case (`case=1a2b3c4d`), or a"
            " query (`model=ViT-B/16,mode=infer,run=3`; `model~TL`: the name has it).",
        ),
    ],
    b: Annotated[str, typer.Argument(metavar="B", help="What is compared with A.")],
    metric: Annotated[
        str, typer.Option(metavar="NAME", help="The metric that decides.")
    ] = "throughput_samples_per_s",
    iso: Annotated[
        str,
        typer.Option(
            metavar="RULE",
            help="What is alike: `batch`; `memory` (each side at its largest batch) or"
            " `memory=2GiB`; `latency=50ms`; `accuracy=90`.",
        ),
    ] = "batch",
    over: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="What may differ: a setting, `model`, `machine` or `software`; may be"
            " given again. Any one thing if left out.",
        ),
    ] = None,
    level: Annotated[
        float | None,
        typer.Option(
            min=0.5,
            max=0.9999,
            help="Confidence of the verdicts; 0.95, and 0.99 with --fail-on.",
        ),
    ] = None,
    band: Annotated[
        float, typer.Option(min=0, max=1, help="Within this share is equivalent.")
    ] = 0.02,
    fail_on: Annotated[
        list[str] | None,
        typer.Option(
            "--fail-on",
            metavar="VERDICT",
            help="Exit code 4 at this verdict (`worse`, `inconclusive`, `better`,"
            " `equivalent`), or where A has a value and B none; may be given again.",
        ),
    ] = None,
    markdown: Annotated[
        str | None,
        typer.Option(metavar="FILE|-", help="Write Markdown for a pull request."),
    ] = None,
    junit: Annotated[
        str | None, typer.Option(metavar="FILE|-", help="Write JUnit XML for CI.")
    ] = None,
    is_extended: Annotated[
        bool,
        typer.Option(
            "--extend", help="Run the repeats that should settle what is inconclusive."
        ),
    ] = False,
    db: DbOption = DEFAULT_DB,
    as_json: JsonOption = False,
) -> None:
    """Compare two runs, cases or queries: ratio, interval, verdict, case by case.

    They may differ in one thing, which is what is compared. Exit code 4: a verdict
    that --fail-on names, or with it a case that B has no value of.

    Example: `tlbench compare model=ViT-B/16 'model~TL' --fail-on worse`
    """
    from tlbench.db.store import ResultStore
    from tlbench.reports.gate import Question
    from tlbench.reports.iso import parse_iso
    from tlbench.reports.selection import parse_selection
    from tlbench.statistics import GATE_LEVEL, LEVEL

    gate = _verdicts(fail_on or [])
    question = Question(
        metric=metric,
        level=level or (GATE_LEVEL if gate else LEVEL),
        band=band,
        iso=parse_iso(iso),
        over=frozenset(over or ()),
    )
    selections = parse_selection(a), parse_selection(b)
    files = _destinations(markdown, junit, as_json=as_json)
    with ResultStore.open(db, read_only=not is_extended) as store:
        answer = _compare(store, *selections, question)
        if is_extended and any(j.proposal for j in answer.judgements):
            options = {
                "metric": metric,
                "iso": iso,
                "over": over,
                "level": level,
                "band": band,
                "fail-on": fail_on,
                "markdown": markdown,
                "junit": junit,
                "db": _without_password(db),
                "json": as_json,
            }
            _tell(answer, gate, files, as_json=as_json, is_final=False)
            answer = _extend(store, answer, options)
    _tell(answer, gate, files, as_json=as_json)
    if answer.failing(gate) or answer.missing(gate):
        raise typer.Exit(STOPPED_BY_GATE)


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


@app.command()
def calibrate(
    db: DbOption = DEFAULT_DB,
    is_quick: Annotated[
        bool,
        typer.Option(
            "--quick", help="One minute instead of three; the floor is vaguer."
        ),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Measure this machine: its noise, and the best of matrix products and copies.

    The values are stored with the machine. Comparisons give no verdict below its
    noise floor, and plans and utilisation go by its matrix products. Nothing else
    should run meanwhile.

    Example: `tlbench calibrate --quick`
    """
    from tlbench.calibrate import FULL, QUICK, calibrate, describe
    from tlbench.cluster import Cluster
    from tlbench.console import calibration_parts, make_console
    from tlbench.db.store import ResultStore

    screen = make_console(stderr=True)
    with ResultStore.open(db, create=True) as store, Cluster() as cluster:
        found = calibrate(cluster, QUICK if is_quick else FULL, screen.print)
        store.add_calibration(found.machine, found.values, found.measured_at)
        screen.print(f"stored in {store.location}", markup=False, soft_wrap=True)
    if as_json:
        _print_json(describe(found))
        return
    for part in calibration_parts(found):
        make_console().print(part)


@db_app.command()
def upgrade(db: DbOption = DEFAULT_DB) -> None:
    """Bring an older database to the schema of this version; results stay.

    Example: `tlbench db upgrade --db results.db`
    """
    from tlbench.db.store import upgrade as upgrade_database

    before, after = upgrade_database(db)
    state = f"from {before} to {after}" if before != after else f"is at {after} already"
    print(f"{db}: schema {state}")


def _save(artifacts: "list[Artifact]", folder: Path, trial_id: int) -> None:
    """Write the files of a trial into a folder, all or none, and never over others."""
    if not artifacts:
        raise StoreError(
            f"trial {trial_id} has left no files; `trace: true` in a suite makes the"
            " first trial of each timed case leave a trace"
        )
    files = {folder / artifact.name: artifact.content for artifact in artifacts}
    for file in files:
        if file.exists():
            raise StoreError(f"{file} is there already; --save names another folder")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for file, content in files.items():
            file.write_bytes(content)
            print(f"saved {file}", file=sys.stderr)
    except OSError as error:
        raise StoreError(f"cannot write into {folder}: {error.strerror}") from error


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
    return shlex.join(["tlbench", *map(_without_password, sys.argv[1:])])


def _without_password(word: str) -> str:
    return re.sub(r"(://[^/@]*?):[^/@]*@", r"\1:***@", word)


def _existing(db: str) -> "ResultStore | None":
    """The database to read from; None where there is none yet."""
    from tlbench.db.store import ResultStore

    if "://" not in db and not Path(db).exists():
        return None
    return ResultStore.open(db, read_only=True)


def _reading(db: str) -> "ResultStore":
    from tlbench.db.store import ResultStore

    return ResultStore.open(db, read_only=True)


def _forecast(
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


def _execute(
    suite: "Suite",
    trials: "Sequence[Trial]",
    pace: "Paced",
    store: "ResultStore",
    *,
    source: str,
    address: str | None = None,
    learn: "Learn | None" = None,
) -> "tuple[list[Stored], bool]":
    """Run the trials, and show how they go on; whether those are all, too."""
    import signal
    from contextlib import closing

    from tlbench.cluster import Cluster
    from tlbench.console import follow, make_console
    from tlbench.runner import run_trials

    # A polite `kill` ends a run as Ctrl-C does: what is finished stays.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with (
        Cluster(address) as cluster,
        closing(
            run_trials(
                suite,
                trials,
                cluster,
                store,
                source=source,
                command=_command(),
                learn=learn,
            )
        ) as progress,
    ):
        return follow(progress, trials, pace, make_console(stderr=True))


def _verdicts(wanted: list[str]) -> frozenset[str]:
    """The verdicts that end a comparison with an exit code of its own."""
    from tlbench.statistics import Verdict
    from tlbench.suites.names import did_you_mean

    known = get_args(Verdict)
    for verdict in wanted:
        if verdict not in known:
            raise typer.BadParameter(
                f"{verdict!r} is not one of {', '.join(known)}"
                f"{did_you_mean(verdict, known)}",
                param_hint="--fail-on",
            )
    return frozenset(wanted)


def _destinations(
    markdown: str | None, junit: str | None, *, as_json: bool
) -> dict[str, str]:
    """Where each format goes; one of them at most to stdout, before anything runs."""
    files = {"markdown": markdown, "junit": junit}
    chosen = {name: file for name, file in files.items() if file is not None}
    on_stdout = [f"--{name} -" for name, file in chosen.items() if file == "-"]
    if len(on_stdout) + as_json > 1:
        both = " and ".join([*on_stdout, *(["--json"] if as_json else [])])
        raise typer.BadParameter(
            "cannot both go to stdout; a file for one would be right", param_hint=both
        )
    from tlbench.reports.page import check_destination

    for file in chosen.values():
        if file != "-":
            check_destination(Path(file))
    return chosen


def _compare(
    store: "ResultStore", a: "Selection", b: "Selection", question: "Question"
) -> "Answer":
    from tlbench.reports.gate import compare

    with store.session() as session:
        return compare(session, a, b, question)


def _extend(
    store: "ResultStore", answer: "Answer", options: dict[str, Any]
) -> "Answer":
    """Run what should settle the open comparisons, and compare again with that."""
    from importlib.metadata import version

    from tlbench.console import Pace, make_console
    from tlbench.machine import fingerprint
    from tlbench.reports.extension import plan_extension
    from tlbench.units import format_duration

    plan = plan_extension(answer, fingerprint(), version("tlbench"))
    suite, trials = plan.suite, plan.trials
    pace = Pace(trials, _forecast(suite, store))
    screen = make_console(stderr=True)
    for why in plan.refused:
        screen.print(f"not extended: {why}", markup=False)
    screen.print(
        f"{suite.description}: {len(trials)} trials, about"
        f" {format_duration(pace.left_s(0))}",
        markup=False,
    )
    stored, is_whole = _execute(suite, trials, pace, store, source="compare --extend")
    if not is_whole:
        screen.print(f"interrupted: {len(stored)} of {len(trials)} trials are kept")
        if not stored:
            raise typer.Exit(INTERRUPTED)
    run_id = stored[0].run_id
    a, b = (side.with_run(run_id) for side in (answer.a, answer.b))
    screen.print(
        f"over old and new trials again: {_comparison(a, b, options)}",
        markup=False,
        soft_wrap=True,
    )
    if not is_whole:
        raise typer.Exit(INTERRUPTED)
    return _compare(store, a, b, answer.question)


def _comparison(a: "Selection", b: "Selection", options: dict[str, Any]) -> str:
    """The command that compares these with the options that were given."""
    words = ["tlbench", "compare", str(a), str(b)]
    for name, given in options.items():
        for value in given if isinstance(given, list) else [given]:
            if value is True:
                words.append(f"--{name}")
            elif value is not None and value is not False:
                words += [f"--{name}", str(value)]
    return shlex.join(words)


def _tell(
    answer: "Answer",
    gate: frozenset[str],
    files: dict[str, str],
    *,
    as_json: bool,
    is_final: bool = True,
) -> None:
    """Write what was asked for, and print the rest for people.

    An answer that is not final goes to stderr, and nothing of it to stdout.
    """
    from tlbench.console import comparison_parts, make_console
    from tlbench.reports import verdicts

    texts = {
        "markdown": lambda: verdicts.markdown(answer),
        "junit": lambda: verdicts.junit(answer, gate),
    }
    for name, file in files.items():
        text = texts[name]()
        if file != "-":
            verdicts.write(text, Path(file))
        elif is_final:
            print(text, end="")
    if as_json and is_final:
        _print_json(verdicts.describe(answer, gate))
    elif "-" not in files.values() or not is_final:
        console = make_console(stderr=not is_final)
        for part in comparison_parts(answer, console.width):
            console.print(part)


def _run_id(wanted: int | None, store: "ResultStore") -> int:
    from tlbench.db import query

    with store.session() as session:
        if wanted is not None:
            return query.run(session, wanted).id
        newest = query.runs(session, limit=1)
    if not newest:
        raise StoreError("the database holds no run yet: `tlbench run smoke` makes one")
    return newest[0].id


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
    _show_run(run_id, store, as_json=as_json, about=about)
    if destination is not None and not as_json:
        print(f"report: {destination}")


def _show_run(
    run_id: int,
    store: "ResultStore",
    *,
    as_json: bool,
    about: dict[str, Any] | None = None,
) -> None:
    from tlbench.console import make_console, run_summary
    from tlbench.reports.page import read_evidence

    with store.session() as session:
        evidence = read_evidence(session, [run_id])
    if as_json:
        run_record = _plain(evidence.runs[0]) | (about or {})
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
