from pathlib import Path

import pytest

from support.stored_runs import StoredRuns, case, speeds
from tlbench.db import query
from tlbench.db.store import ResultStore
from tlbench.errors import ReportError, StoreError
from tlbench.reports.sources import RunReference, is_run, open_sources, parse_run


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("3", RunReference(3, "tlbench.db")),
        ("3@b.db", RunReference(3, "b.db")),
        ("@b.db", RunReference(None, "b.db")),
        ("3@postgresql://u:p@host:5432/x", RunReference(3, "postgresql://u:p@host:5432/x")),
    ],
)  # fmt: skip
def test_a_run_names_its_database_behind_an_at(
    text: str, expected: RunReference
) -> None:
    assert parse_run(text, "tlbench.db") == expected


@pytest.mark.parametrize("text", ["", "x", "3@", "-1", "model~TL"])
def test_what_is_no_run_is_refused_with_what_would_be(text: str) -> None:
    assert not is_run(text)
    with pytest.raises(ReportError, match=r"is no run; its number \(3\)"):
        parse_run(text, "tlbench.db")


def database(path: Path, *speed: float) -> str:
    with ResultStore.open(str(path), create=True) as store:
        runs = StoredRuns(store)
        for value in speed:
            runs.add((case(), speeds(value)))
    return str(path)


def test_runs_of_several_databases_are_read_as_of_one(tmp_path: Path) -> None:
    a = database(tmp_path / "a.db", 100.0, 200.0)
    b = database(tmp_path / "b.db", 300.0)
    references = [parse_run("2", a), parse_run("@" + b, a)]
    with open_sources(references) as sources, sources.store.session() as session:
        run_ids = [sources.run_ids[reference] for reference in references]
        trials = query.trials(session, run_ids)
        names = [sources.names[run_id] for run_id in run_ids]
    assert names == ["run 2 of a.db", "run 1 of b.db"]
    assert [t.metrics["throughput_samples_per_s"] for t in trials] == [200.0, 300.0]


def test_databases_of_one_file_name_are_told_by_their_folders(tmp_path: Path) -> None:
    places = []
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        places.append(database(tmp_path / folder / "r.db", 100.0))
    references = [RunReference(1, place) for place in places]
    with open_sources(references) as sources:
        assert set(sources.names.values()) == {f"run 1 of {p}" for p in places}


def test_one_database_is_read_where_it_lies(tmp_path: Path) -> None:
    a = database(tmp_path / "a.db", 100.0, 200.0)
    with open_sources([parse_run("1", a), parse_run("@" + a, a)]) as sources:
        assert sources.store.location == a
        assert dict(sources.run_ids) == {
            RunReference(1, a): 1,
            RunReference(None, a): 2,
        }
        assert not sources.names


def test_a_run_that_is_not_there_names_those_that_are(tmp_path: Path) -> None:
    a = database(tmp_path / "a.db", 100.0)
    with (
        pytest.raises(StoreError, match="there is no run 9; there are 1"),
        open_sources([parse_run("9", a)]),
    ):
        pass
