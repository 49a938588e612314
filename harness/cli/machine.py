"""`doctor` and `calibrate`: what this machine can do."""

from typing import Annotated

import typer

from tlbench.cli.options import DEFAULT_DB, DbOption, JsonOption
from tlbench.cli.output import print_json


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
        print_json([asdict(check) for check in checks])
    else:
        rows = [(check.state, check.subject, check.finding) for check in checks]
        make_console().print(make_table(("", "what", "found"), rows))
    if any(check.state == "fails" for check in checks):
        raise typer.Exit(1)


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
        print_json(describe(found))
        return
    for part in calibration_parts(found):
        make_console().print(part)
