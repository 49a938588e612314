"""`db export`, `db merge` and `db import`: results that leave and that come in."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tlbench.cli.options import (
    DEFAULT_DB,
    DbOption,
    command_line,
    one_of,
    open_existing,
    open_for_reading,
)
from tlbench.errors import StoreError

if TYPE_CHECKING:
    from tlbench.db.conditions import Condition
    from tlbench.db.store import ResultStore

STDOUT = "-"


def export(
    destination: Annotated[
        str,
        typer.Argument(
            metavar="DESTINATION", help="The file to write, or `-` for stdout."
        ),
    ],
    conditions: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[CONDITION]...",
            help="Only trials that meet all of them, as of `tlbench query`.",
        ),
    ] = None,
    table: Annotated[
        str,
        typer.Option(
            metavar="trials|metrics|steps|runs|machines",
            help="One row a trial, a value, a step of a series, a run or a machine.",
        ),
    ] = "trials",
    file_format: Annotated[
        str | None,
        typer.Option(
            "--format",
            metavar="parquet|csv|jsonl",
            help="By the ending of DESTINATION if left out.",
        ),
    ] = None,
    run_ids: Annotated[
        list[int] | None,
        typer.Option("--run", metavar="RUN", help="A run; may be given again."),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Write over a file that is there.")
    ] = False,
    db: DbOption = DEFAULT_DB,
) -> None:
    """Write results into a Parquet, CSV or JSON Lines file, in base units.

    Example: `tlbench db export steps.parquet --table steps --run 3`
    """
    from tlbench.db.export import FORMATS, TABLES, export, export_file

    chosen = one_of(table, TABLES, "--table")
    ending = Path(destination).suffix.removeprefix(".").lower()
    if not file_format and ending not in FORMATS:
        raise typer.BadParameter(
            f"the ending of {destination!r} is no format; --format names one of"
            f" {', '.join(FORMATS)}",
            param_hint="DESTINATION",
        )
    written_as = one_of(file_format or ending, FORMATS, "--format")
    if destination == STDOUT and written_as == "parquet":
        raise typer.BadParameter(
            "Parquet is no text; a file such as trials.parquet would be right"
        )
    with open_for_reading(db) as store, store.session() as session:
        asked: Any = {
            "table": chosen,
            "file_format": written_as,
            "conditions": _conditions(store, conditions or [], run_ids or []),
        }
        if destination == STDOUT:
            rows = export(session, sys.stdout.buffer, **asked)
        else:
            path = Path(destination).expanduser()
            rows = export_file(session, path, **asked, overwrite=force)
    if rows == 0:
        print(f"there are no {chosen} of this in {db}", file=sys.stderr)
    if destination != STDOUT:
        print(f"{destination}: {rows} {chosen if chosen != 'steps' else 'values'}")


def merge(
    sources: Annotated[
        list[str],
        typer.Argument(metavar="SOURCE...", help="Databases; they are only read."),
    ],
    db: DbOption = DEFAULT_DB,
) -> None:
    """Copy the runs of other databases into one, which is made where it is missing.

    As often as one likes: what is there already stays, and runs that went on bring
    what is new.

    Example: `tlbench db merge cluster-a.db cluster-b.db --db all.db`
    """
    from tlbench.db.merge import merge
    from tlbench.db.store import ResultStore
    from tlbench.units import format_counted

    for source in sources:
        store = open_existing(source)  # before anything is written
        if store is None:
            raise StoreError(f"{source}: there is no database, or an empty one")
        store.close()
    with ResultStore.open(db, create=True) as target:
        for source in sources:
            with open_for_reading(source) as store:
                merged = merge(store, target)
            where = store.location
            print(
                f"{where}: {format_counted(len(merged.runs), 'run')},"
                f" {merged.new_runs} of them new;"
                f" {format_counted(merged.trials, 'new trial')},"
                f" {format_counted(merged.calibrations, 'new calibration')}"
            )


def import_(
    files: Annotated[
        list[Path],
        typer.Argument(
            metavar="FILE...",
            help="Results of timm's benchmark.py (CSV or JSON) or of optimum-benchmark"
            " (benchmark.json).",
        ),
    ],
    tool: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="timm|optimum-benchmark",
            help="Which tool wrote it; told by the content if left out.",
        ),
    ] = None,
    tags: Annotated[
        list[str] | None,
        typer.Option(
            "--tag",
            metavar="TAG",
            help="A word to find it by, such as the GPU; may be given again.",
        ),
    ] = None,
    db: DbOption = DEFAULT_DB,
) -> None:
    """Import what other tools have measured, as history marked as theirs.

    `tlbench query` and `tlbench trend` read it; reports and comparisons do not.

    Example: `tlbench db import results.csv --tag rtx4090`
    """
    from tlbench.db.foreign import TOOLS, read_foreign, store_foreign
    from tlbench.db.store import ResultStore
    from tlbench.units import format_counted

    known = one_of(tool, TOOLS, "--from") if tool is not None else None
    foreign = [read_foreign(file, known) for file in files]
    with ResultStore.open(db, create=True) as store:
        for file, run in zip(files, foreign, strict=True):
            run_id, is_new = store_foreign(
                store, run, command=command_line(), tags=tags or ()
            )
            trials = f"{format_counted(len(run.trials), 'trial')} of {run.tool}"
            state = f"run {run_id}, {trials}" if is_new else f"is in run {run_id}"
            print(f"{file}: {state}{'' if is_new else ' already'}")


def _conditions(
    store: "ResultStore", texts: list[str], run_ids: list[int]
) -> "tuple[Condition, ...]":
    from tlbench.db import query
    from tlbench.db.conditions import parse_conditions

    with store.session() as session:
        for run_id in run_ids:
            query.run(session, run_id)  # an error that names those there are
    words = [*texts, *(f"run={run_id}" for run_id in run_ids)]
    return parse_conditions(*words)
