"""`query`: trials by conditions, as a table or for a program."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, TextIO, get_args

import typer

from tlbench.cli.options import (
    DEFAULT_DB,
    DbOption,
    JsonOption,
    one_of,
    open_for_reading,
)
from tlbench.errors import ReportError

if TYPE_CHECKING:
    from tlbench.reports.listing import Listing

Format = Literal["table", "csv", "json", "jsonl", "parquet"]
FORMATS: tuple[Format, ...] = get_args(Format)
ROWS_OF_A_TABLE = 50


def query(
    conditions: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[CONDITION]...",
            help="`model~TL`, `'params<100M'`, `gpu=H100`, `precision=bf16`,"
            " `since=30d`, any setting or metric; all have to be met. < and > want"
            " quotes in a shell.",
        ),
    ] = None,
    columns: Annotated[
        str | None,
        typer.Option(metavar="A,B", help="Which columns; `*` stands for anything."),
    ] = None,
    sort: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[-]NAME",
            help="The smallest first, with a minus the largest; may be given again.",
        ),
    ] = None,
    group_by: Annotated[
        str | None,
        typer.Option(
            metavar="A,B", help="One row a group: medians with 95 % intervals."
        ),
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(
            min=0, help=f"Rows at most; 0: all. {ROWS_OF_A_TABLE} of a table."
        ),
    ] = None,
    file_format: Annotated[
        str | None,
        typer.Option(
            "--format",
            metavar="|".join(FORMATS),
            help="By the ending of --output if left out, or else a table.",
        ),
    ] = None,
    output: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write it into a file.")
    ] = None,
    db: DbOption = DEFAULT_DB,
    as_json: JsonOption = False,
) -> None:
    """The trials that meet conditions, with what was measured; newest first.

    CSV, JSON and Parquet have base units and full precision. The same as a pandas
    frame: `tlbench.reports.query.query_frame`.

    Example: `tlbench query model~TL 'params<100M' --group-by model,batch_size`
    """
    from tlbench.db.conditions import parse_conditions
    from tlbench.reports.files import keep_database
    from tlbench.reports.listing import list_groups, list_trials

    if as_json and file_format not in (None, "json"):
        raise typer.BadParameter(f"--format {file_format} and --json are two formats")
    chosen = _format("json" if as_json else file_format, output)
    if output is not None:
        keep_database(output)
    parsed = parse_conditions(*conditions or ())
    if limit is None and chosen == "table":
        limit = ROWS_OF_A_TABLE
    wanted = _names(columns) if columns is not None else None
    order = [name for words in sort or () for name in _names(words)]
    with open_for_reading(db) as store, store.session() as session:
        if group_by is not None:
            listing = list_groups(
                session,
                parsed,
                _names(group_by),
                columns=wanted,
                sort=order,
                limit=limit or None,
            )
        else:
            listing = list_trials(
                session, parsed, columns=wanted, sort=order, limit=limit or None
            )
    if listing.nothing:
        print(listing.nothing, file=sys.stderr)
    _write(listing, chosen, output, is_chosen=wanted is not None)


def _names(words: str) -> list[str]:
    names = [word.strip() for word in words.split(",") if word.strip()]
    if not names:
        raise typer.BadParameter(f"{words!r} names no column")
    return names


def _format(asked: str | None, output: Path | None) -> Format:
    """What to write; an error before anything is read, where it cannot be."""
    name = asked or _by_ending(output)
    if not asked and name not in FORMATS:
        raise typer.BadParameter(
            f"the ending of {str(output)!r} is no format; --format names one of"
            f" {', '.join(FORMATS)}",
            param_hint="--output",
        )
    written_as = one_of(name, FORMATS, "--format")
    if name == "parquet" and output is None:
        raise typer.BadParameter(
            "Parquet is no text; --output trials.parquet would be right",
            param_hint="--format",
        )
    return written_as


def _by_ending(output: Path | None) -> str:
    if output is None:
        return "table"
    return {".txt": "table", ".ndjson": "jsonl"}.get(
        output.suffix, output.suffix.removeprefix(".") or "table"
    )


def _write(
    listing: "Listing", chosen: Format, output: Path | None, *, is_chosen: bool
) -> None:
    if output is None:
        _print(listing, chosen, sys.stdout, is_chosen=is_chosen)
        return
    try:
        if chosen == "parquet":
            _write_parquet(listing, output)
        else:
            with output.open("w", encoding="utf-8", newline="") as file:
                _print(listing, chosen, file, is_chosen=is_chosen)
    except OSError as error:
        raise ReportError(f"{output}: {error.strerror}") from error


def _print(
    listing: "Listing", chosen: Format, file: TextIO, *, is_chosen: bool
) -> None:
    from tlbench.reports import listing_text

    match chosen:
        case "csv":
            file.write(listing_text.to_csv(listing))
        case "json":
            file.write(listing_text.to_json(listing))
        case "jsonl":
            file.write(listing_text.to_json_lines(listing))
        case _:
            _print_table(listing, file, is_chosen=is_chosen)


def _print_table(listing: "Listing", file: TextIO, *, is_chosen: bool) -> None:
    from tlbench.console import make_console, make_table
    from tlbench.reports.listing_text import table_text

    if not listing.rows:
        return
    screen = make_console(file=file)
    table = table_text(listing, screen.width, is_chosen=is_chosen)
    headings = (column.broken_heading for column in table.columns)
    screen.print(make_table(headings, table.rows))
    for note in table.notes:
        screen.print(note, markup=False)


def _write_parquet(listing: "Listing", output: Path) -> None:
    from tlbench.reports.query import frame_of, write_parquet

    write_parquet(frame_of(listing), output)
