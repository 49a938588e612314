"""Arguments and options that commands share, and what is read from them."""

import os
import re
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tlbench.db.store import ResultStore
    from tlbench.suites.spec import Suite

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
AddressOption = Annotated[
    str | None,
    typer.Option(
        metavar="HOST:PORT",
        help="Join the Ray cluster there (`auto`: the one on this machine)"
        " instead of starting Ray here.",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for a program.")]
ReportOption = Annotated[
    Path | None, typer.Option("--report", metavar="FILE", help="Write an HTML report.")
]
DataOption = Annotated[
    list[str] | None,
    typer.Option(
        "--data",
        metavar="NAME=PATH",
        help="Where a data set lies, ahead of the suite's `paths`; may be given again."
        " Others are looked for as NAME/ in the folder TLBENCH_DATA.",
    ),
]
DEFAULT_DB = "tlbench.db"
SECRET = "(?i:password|passwd|secret|token|key|sig)"
"""How the names of options in a URL sound that nobody else may know."""
Word = TypeVar("Word", bound=str)


def load(source: str, scale: str | None) -> "Suite":
    from tlbench.suites.loader import load_suite

    text = sys.stdin.read() if source == "-" else None
    return load_suite(source, text, scale)


def with_data(suite: "Suite", words: list[str] | None, *, is_here: bool) -> "Suite":
    """The suite with a path for each data set that it reads.

    An error, before anything runs, where nobody says which; and where there is nothing
    at one of them, if it is to run here.
    """
    from tlbench.suites.paths import DATA_FOLDER, locate_data, parse_paths

    try:
        given = parse_paths(words or ())
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--data") from error
    folder = os.environ.get(DATA_FOLDER)
    return locate_data(suite, given, Path(folder) if folder else None, is_here=is_here)


def with_storage(suite: "Suite", storage: str | None) -> "Suite":
    """The suite with the folder that is given for its checkpoints, or its own one."""
    chosen = storage or suite.storage
    if chosen is None:
        return suite
    from tlbench.errors import SuiteError
    from tlbench.storage import check_storage
    from tlbench.suites.paths import resolve_path

    try:
        whole = resolve_path(chosen)
        check_storage(whole)
    except (SuiteError, ValueError) as error:
        raise typer.BadParameter(str(error), param_hint="--storage") from error
    return suite.model_copy(update={"storage": whole})


def command_line() -> str:
    """This command line as it may be stored: without the password of a URL."""
    return shlex.join(["tlbench", *map(without_password, sys.argv[1:])])


def without_password(word: str) -> str:
    """The word without what a URL in it tells only those who may know it.

    SQLAlchemy takes everything up to the last @ for the password, a slash as well.
    """
    shown = re.sub(r"(://[^:/?@]*):.*@", r"\1:***@", word)
    return re.sub(rf"([?&][^=&]*(?:{SECRET})[^=&]*=)[^&]*", r"\1***", shown)


def open_existing(db: str) -> "ResultStore | None":
    """The database to read from; None where there is none yet, or an empty file."""
    is_file = "://" not in db
    return None if is_file and _is_unwritten(Path(db)) else open_for_reading(db)


def _is_unwritten(file: Path) -> bool:
    try:
        return file.expanduser().stat().st_size == 0
    except FileNotFoundError:
        return True
    except OSError:  # opening it says what is wrong
        return False


def open_for_reading(db: str) -> "ResultStore":
    from tlbench.db.store import ResultStore

    return ResultStore.open(db, read_only=True)


def run_id_of(wanted: int | None, store: "ResultStore") -> int:
    from tlbench.db import query

    with store.session() as session:
        return query.run_or_newest(session, wanted).id


def one_of(value: str, known: "Sequence[Word]", option: str) -> Word:
    """The word that was given to an option; an error where it is not a known one."""
    from tlbench.suites.names import did_you_mean

    for word in known:
        if word == value:
            return word
    raise typer.BadParameter(
        f"{value!r} is not one of {', '.join(known)}{did_you_mean(value, known)}",
        param_hint=option,
    )
