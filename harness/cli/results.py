"""`runs`, `show` and `report`: what is stored."""

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from tlbench.cli.options import (
    DEFAULT_DB,
    DbOption,
    JsonOption,
    open_for_reading,
    run_id_of,
)
from tlbench.cli.output import plain, print_json, show_run
from tlbench.errors import ReportError, StoreError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tlbench.db.query import TrialRecord
    from tlbench.result import Artifact
    from tlbench.watch import Sight

Form = Literal["html", "markdown"]
ChartFormat = Literal["svg", "png"]
STDOUT = Path("-")
SHORTEST_WATCH_S = 2.0
"""A look costs little, but trials may be measured on the same machine."""


def runs(
    tags: Annotated[
        list[str] | None,
        typer.Option(
            "--tag", metavar="TAG", help="Only runs with it; may be given again."
        ),
    ] = None,
    is_watched: Annotated[
        bool,
        typer.Option(
            "--watch",
            help="Show how far the newest runs are, again and again until Ctrl-C; once"
            " where there is no terminal.",
        ),
    ] = False,
    every_s: Annotated[
        float,
        typer.Option(
            "--every",
            metavar="SECONDS",
            min=SHORTEST_WATCH_S,
            help="How often --watch looks.",
        ),
    ] = SHORTEST_WATCH_S,
    db: DbOption = DEFAULT_DB,
    as_json: JsonOption = False,
) -> None:
    """The runs in the database, newest first.

    Example: `tlbench runs --tag nightly` or `tlbench runs --watch`
    """
    from tlbench.console import make_console, runs_table
    from tlbench.db import query

    if is_watched:
        if as_json or tags:
            raise typer.BadParameter(
                "goes with neither --json nor --tag", param_hint="--watch"
            )
        from tlbench.watch import watch

        watch(lambda: _look(db), every_s, make_console())
        return
    with open_for_reading(db) as store, store.session() as session:
        stored = query.runs(session)
    wanted = set(tags or ())
    records = [record for record in stored if wanted <= set(record.tags)]
    if as_json:
        print_json([plain(record) for record in records])
    elif records:
        make_console().print(runs_table(records))
    elif stored:
        known = sorted({tag for record in stored for tag in record.tags})
        there_are = f"there are {', '.join(known)}" if known else "no run has a tag"
        print(f"no run is tagged {' '.join(sorted(wanted))}; {there_are}")
    else:
        print(query.NO_RUN_YET)


def _look(db: str) -> "Sight":
    """Read what those who watch need; opened anew, for a file may be replaced."""
    from tlbench.db import query
    from tlbench.db.recent import recent_trials
    from tlbench.watch import MAX_RUNS, Sight

    with open_for_reading(db) as store, store.session() as session:
        runs = query.runs(session, limit=MAX_RUNS)
        going_on = [run.id for run in runs if run.status == "running"]
        return Sight(runs, recent_trials(session, going_on), datetime.now(UTC))


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
    log: Annotated[
        int | None,
        typer.Option(
            metavar="RANK", min=0, help="Print what a rank of the failed trial printed."
        ),
    ] = None,
    db: DbOption = DEFAULT_DB,
    as_json: JsonOption = False,
) -> None:
    """The results of a run, or everything about one trial.

    Example: `tlbench show --trial 7`, `tlbench show --trial 7 --log 0` or
    `tlbench show --trial 7 --save traces`
    """
    from tlbench.console import make_console, trial_tables
    from tlbench.db import query
    from tlbench.kept_logs import kept_logs

    _check_options(trial, save=save, log=log, as_json=as_json)
    with open_for_reading(db) as store:
        if trial is None:
            show_run(run_id_of(run_id, store), store, as_json=as_json)
            return
        with store.session() as session:
            record = query.trial(session, trial)
            artifacts = query.artifacts(session, trial)
            attempts = query.attempts(session, record.run_id, record.position)
    if log is not None:
        _print_log(kept_logs(artifacts), log, record)
        return
    if save is not None:
        _save(artifacts, save, record.id)
    if as_json:
        print_json(plain(record))
        return
    logs = kept_logs(artifacts) if record.status != "ok" else {}
    for part in trial_tables(record, attempts, logs):
        make_console().print(part)


def _check_options(
    trial: int | None, *, save: Path | None, log: int | None, as_json: bool
) -> None:
    for option, value in (("--save", save), ("--log", log)):
        if value is not None and trial is None:
            raise typer.BadParameter("goes with --trial only", param_hint=option)
    if log is not None and (as_json or save is not None):
        raise typer.BadParameter(
            "goes with neither --json nor --save", param_hint="--log"
        )


def _print_log(logs: "Mapping[int, str]", rank: int, trial: "TrialRecord") -> None:
    """Print a log as it is; onto a terminal without power over it."""
    from tlbench.console import harmless

    if rank not in logs:
        there_are = "; there are those of " + ", ".join(map(str, logs)) if logs else ""
        raise StoreError(
            f"trial {trial.id} ({trial.status}) has no log of rank {rank}{there_are}"
        )
    log = harmless(logs[rank]) if sys.stdout.isatty() else logs[rank]
    sys.stdout.write(log if log.endswith("\n") else f"{log}\n")


def report(
    destination: Annotated[
        Path,
        typer.Argument(
            metavar="FILE",
            help="The file to write; Markdown if it ends in .md, `-`: standard output.",
        ),
    ],
    runs: Annotated[
        list[str] | None,
        typer.Option(
            "--run",
            metavar="RUN[@DB]",
            help="A run, such as `3`; of another database `3@other.db`, or `@other.db`"
            " for the newest there. May be given again.",
        ),
    ] = None,
    base: Annotated[
        str | None,
        typer.Option(
            "--compare",
            metavar="BASE",
            help="Hold the runs against this one (`2`, `2@other.db`) or against cases"
            " (`model=ViT-B/16,run=2`).",
        ),
    ] = None,
    form: Annotated[
        Form | None,
        typer.Option("--format", help="What to write, if FILE's name does not say."),
    ] = None,
    charts: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER", help="Write each chart into a file of its own too."
        ),
    ] = None,
    chart_format: Annotated[
        ChartFormat, typer.Option(help="Of the files of `--charts`.")
    ] = "svg",
    is_forced: Annotated[
        bool, typer.Option("--force", help="Let `--charts` write over other files.")
    ] = False,
    db: DbOption = DEFAULT_DB,
) -> None:
    """Write the report on one or several runs; the newest if none is named.

    Example: `tlbench report smoke.html --run 3 --run 7@other.db --compare 2` or
    `tlbench report smoke.md --charts figures`
    """
    from tlbench.reports.chart_files import ChartFolder
    from tlbench.reports.page import write_report
    from tlbench.reports.sources import is_run, open_sources, parse_run

    chosen = [parse_run(run, db) for run in runs or [f"@{db}"]]
    base_run = parse_run(base, db) if base is not None and is_run(base) else None
    references = [*chosen, *([base_run] if base_run else [])]
    with open_sources(references) as sources, sources.store.session() as session:
        if base_run is not None:
            base = str(sources.run_ids[base_run])
        elif base is not None and sources.names:
            raise ReportError(
                f"--compare {base}: conditions are of one database, and these are"
                " several; a run, such as 2@other.db, would be right"
            )
        write_report(
            session,
            [sources.run_ids[run] for run in chosen],
            destination,
            run_names=sources.names,
            base=base,
            form=form,
            charts=ChartFolder(charts, chart_format, is_forced) if charts else None,
        )
    if destination != STDOUT:
        print(destination)


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
