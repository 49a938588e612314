"""The command line: each command parses, calls what does the work, and prints.

Heavy imports stand inside the commands, so that every `--help` is quick.
"""

import gc
import sys
from typing import Annotated

import typer

from tlbench.cli import (
    claims,
    comparing,
    database,
    history,
    machine,
    models,
    querying,
    results,
    running,
    transfer,
)
from tlbench.errors import SuiteError, TlbenchError

app = typer.Typer(
    name="tlbench",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
)
db_app = typer.Typer(help="Look after the result database.", no_args_is_help=True)

COMMANDS = (
    running.run,
    running.plan,
    models.suites,
    models.models,
    results.runs,
    results.show,
    results.report,
    querying.query,
    comparing.compare,
    claims.claims,
    history.trend,
    history.repro,
    machine.doctor,
    machine.calibrate,
)
"""In the order of `tlbench --help`."""
DB_COMMANDS = (
    database.upgrade,
    database.check,
    database.tag,
    database.note,
    database.delete,
    transfer.export,
    transfer.merge,
    transfer.import_,
)

for command in COMMANDS:
    app.command()(command)
for db_command in DB_COMMANDS:
    # `import` is a word of Python, so its function has a longer name.
    db_app.command(db_command.__name__.rstrip("_"))(db_command)
app.add_typer(db_app, name="db")


def main() -> None:
    """Run the command line; errors of the user are one line, ours keep their trace."""
    # Of the many objects that imports and queries make hardly any is garbage, and to
    # look for it as often as by default takes a quarter of the time of both.
    gc.set_threshold(100_000)
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
