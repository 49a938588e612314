"""`compare`: two sides of what is stored, and a verdict for CI."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer

from tlbench.cli.options import (
    DEFAULT_DB,
    INTERRUPTED,
    STOPPED_BY_GATE,
    DataOption,
    DbOption,
    JsonOption,
    one_of,
    without_password,
)
from tlbench.cli.output import print_json

if TYPE_CHECKING:
    from tlbench.db.store import ResultStore
    from tlbench.reports.gate import Answer, Question
    from tlbench.reports.selection import Selection


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
    data: DataOption = None,
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

    if data and not is_extended:
        raise typer.BadParameter("goes with --extend only", param_hint="--data")
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
                "db": without_password(db),
                "json": as_json,
            }
            _tell(answer, gate, files, as_json=as_json, is_final=False)
            answer = _extend(store, answer, options, data)
    _tell(answer, gate, files, as_json=as_json)
    if answer.failing(gate) or answer.missing(gate):
        raise typer.Exit(STOPPED_BY_GATE)


def _verdicts(wanted: list[str]) -> frozenset[str]:
    """The verdicts that end a comparison with an exit code of its own."""
    from tlbench.statistics import Verdict

    known = get_args(Verdict)
    return frozenset(one_of(verdict, known, "--fail-on") for verdict in wanted)


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
    from tlbench.reports.files import check_destination

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
    store: "ResultStore",
    answer: "Answer",
    options: dict[str, Any],
    data: list[str] | None,
) -> "Answer":
    """Run what should settle the open comparisons, and compare again with that."""
    from importlib.metadata import version

    from tlbench.cli.execution import execute, planned_job, say
    from tlbench.console import make_console
    from tlbench.machine import fingerprint
    from tlbench.reports.extension import plan_extension

    plan = plan_extension(answer, fingerprint(), version("tlbench"))
    screen = make_console(stderr=True)
    for why in plan.refused:
        screen.print(f"not extended: {why}", markup=False)
    source = "compare --extend"
    job = planned_job(store, plan.suite, plan.trials, source, None, data)
    say(f"{plan.suite.description}: {job.length}")
    done = execute(job, store)
    if not done.is_whole:
        say(done.interruption)
    if not done.stored:
        raise typer.Exit(INTERRUPTED)
    run_id = done.stored[0].run_id
    a, b = (side.with_run(run_id) for side in (answer.a, answer.b))
    screen.print(
        f"over old and new trials again: {_comparison(a, b, options)}",
        markup=False,
        soft_wrap=True,
    )
    if not done.is_whole:
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
        print_json(verdicts.describe(answer, gate))
    elif "-" not in files.values() or not is_final:
        console = make_console(stderr=not is_final)
        for part in comparison_parts(answer, console.width):
            console.print(part)
