"""`db`: care of the result database."""

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from tlbench.cli.options import DEFAULT_DB, DbOption, JsonOption
from tlbench.cli.output import print_json
from tlbench.errors import StoreError
from tlbench.units import format_counted

if TYPE_CHECKING:
    from tlbench.db.query import RunRecord

RunArgument = Annotated[int, typer.Argument(metavar="RUN", help="`tlbench runs`.")]


def upgrade(db: DbOption = DEFAULT_DB) -> None:
    """Bring an older database to the schema of this version; results stay.

    Example: `tlbench db upgrade --db results.db`
    """
    from tlbench.db.store import upgrade as upgrade_database

    before, after = upgrade_database(db)
    state = f"from {before} to {after}" if before != after else f"is at {after} already"
    print(f"{db}: schema {state}")


def check(db: DbOption = DEFAULT_DB, as_json: JsonOption = False) -> None:
    """See whether the database is sound: its file, references and values.

    Nothing is changed. Exit code 1: something is damaged; how to save the rest is said.

    Example: `tlbench db check --db results.db`
    """
    from dataclasses import asdict

    from tlbench.console import make_console, make_table
    from tlbench.db.check import check as check_database

    found = check_database(db)
    if as_json:
        print_json([asdict(item) for item in found])
    else:
        rows = [(item.state, item.subject, item.finding) for item in found]
        make_console().print(make_table(("", "what", "found"), rows))
    if any(item.state == "damaged" for item in found):
        raise typer.Exit(1)


def tag(
    run_id: RunArgument,
    tags: Annotated[list[str], typer.Argument(metavar="TAG...", help="One word each.")],
    is_removed: Annotated[
        bool, typer.Option("--remove", help="Take the tags off the run.")
    ] = False,
    db: DbOption = DEFAULT_DB,
) -> None:
    """Give a run tags, by which `runs` and `query` find it again.

    Example: `tlbench db tag 3 nightly baseline`
    """
    from tlbench.db import upkeep
    from tlbench.db.store import ResultStore

    change = upkeep.remove_tags if is_removed else upkeep.add_tags
    with ResultStore.open(db) as store, store.transaction() as session:
        left = change(session, run_id, tags)
    print(f"run {run_id}: {', '.join(left) or 'no tags'}")


def note(
    run_id: RunArgument,
    text: Annotated[
        str, typer.Argument(metavar="TEXT", help="In quotes; '' takes the note away.")
    ],
    db: DbOption = DEFAULT_DB,
) -> None:
    """Write a note on a run, in place of the one it had.

    Example: `tlbench db note 3 'new driver, fans at full speed'`
    """
    from tlbench.db import upkeep
    from tlbench.db.store import ResultStore

    with ResultStore.open(db) as store, store.transaction() as session:
        upkeep.set_note(session, run_id, text)
    print(f"run {run_id}: {text or 'no note'}")


def delete(
    run_ids: Annotated[
        list[int], typer.Argument(metavar="RUN...", help="`tlbench runs`.")
    ],
    is_confirmed: Annotated[
        bool, typer.Option("--yes", help="Delete without asking, as a script must.")
    ] = False,
    is_forced: Annotated[
        bool,
        typer.Option(
            "--force", help="Also a run that is marked running: its driver was killed."
        ),
    ] = False,
    db: DbOption = DEFAULT_DB,
) -> None:
    """Delete runs with all their trials, for good, and give the space back.

    Example: `tlbench db delete 3 4 --yes`
    """
    from tlbench.db import upkeep
    from tlbench.db.store import ResultStore

    with ResultStore.open(db) as store:
        with store.session() as session:
            records = upkeep.deletable(session, run_ids, is_forced=is_forced)
        if not is_confirmed:
            _confirm(records, store.location)
        with store.transaction() as session:
            upkeep.delete_runs(session, run_ids, is_forced=is_forced)
        for record in records:
            print(f"deleted {_title(record)}")
        try:
            store.give_space_back()
        except StoreError as error:  # what was asked for is done
            print(error, file=sys.stderr)


def _confirm(records: "Sequence[RunRecord]", location: str) -> None:
    if not sys.stdin.isatty():
        raise typer.BadParameter(
            "there is no terminal to ask on; --yes deletes without asking",
            param_hint="--yes",
        )
    for record in records:
        print(_title(record), file=sys.stderr)
    typer.confirm(f"delete for good from {location}?", abort=True, err=True)


def _title(record: "RunRecord") -> str:
    return (
        f"run {record.id}: {record.suite} of {record.started_at:%Y-%m-%d %H:%M} UTC,"
        f" {format_counted(record.finished, 'trial')}"
    )
