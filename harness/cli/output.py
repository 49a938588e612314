"""What commands print: JSON for programs, and the summary of a run."""

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tlbench.db.store import ResultStore


def show_run(
    run_id: int,
    store: "ResultStore",
    *,
    as_json: bool,
    about: dict[str, Any] | None = None,
) -> None:
    from tlbench.console import make_console, run_heading, run_summary
    from tlbench.reports.evidence import read_evidence

    with store.session() as session:
        evidence = read_evidence(session, [run_id])
    if as_json:
        run_record = plain(evidence.runs[0]) | (about or {})
        print_json(run_record | {"trials": [plain(t) for t in evidence.trials]})
        return
    for part in (*run_heading(evidence.runs[0]), *run_summary(evidence)):
        make_console().print(part)


def plain(record: Any) -> dict[str, Any]:
    """A record as JSON values; cases in their canonical form."""
    from dataclasses import fields

    from tlbench.suites.spec import Case

    def value(item: Any) -> Any:
        return item.canonical() if isinstance(item, Case) else item

    return {f.name: value(getattr(record, f.name)) for f in fields(record)}


def print_json(value: Any) -> None:
    print(json.dumps(value, indent=2, default=_json))


def _json(value: Any) -> Any:
    """What JSON has no word for: the driver of a run, and times."""
    from tlbench.driver import Driver

    return asdict(value) if isinstance(value, Driver) else value.isoformat()
