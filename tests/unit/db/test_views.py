"""The views for people who bring SQL, on both databases."""

import pytest
from sqlalchemy import inspect, text

from support.stored_runs import StoredRuns, case
from tlbench.db import views
from tlbench.db.store import ResultStore, upgrade


@pytest.fixture
def filled(store: ResultStore) -> ResultStore:
    """One run of two cases, the second of which failed."""
    StoredRuns(store).add(
        (case(batch_size=16), [{"params": 5.7e6, "throughput_samples_per_s": 12.5}]),
        (case("ViT-Ti/16+TL8@1/2"), [{}]),
        failed={1: "oom"},
    )
    return store


def test_trial_view_has_a_row_a_trial_with_its_main_metrics(
    filled: ResultStore,
) -> None:
    columns = "trial, suite, model, mode, batch_size, machine, status, params, mfu"
    with filled.session() as session:
        rows = session.execute(text(f"SELECT {columns} FROM trial_view ORDER BY trial"))
        assert [tuple(row) for row in rows] == [
            (1, "made", "ViT-Ti/16", "infer", 16, "bench-01", "ok", 5.7e6, None),
            (2, "made", "ViT-Ti/16+TL8@6", "infer", 8, "bench-01", "oom", None, None),
        ]


def test_metric_view_has_a_row_a_value(filled: ResultStore) -> None:
    statement = "SELECT trial, model, metric, value FROM metric_view ORDER BY metric"
    with filled.session() as session:
        assert [tuple(row) for row in session.execute(text(statement))] == [
            (1, "ViT-Ti/16", "params", 5.7e6),
            (1, "ViT-Ti/16", "throughput_samples_per_s", 12.5),
        ]


def test_views_group_as_tables_do(filled: ResultStore) -> None:
    statement = (
        "SELECT batch_size, count(*), avg(throughput_samples_per_s) FROM trial_view"
        " WHERE status = 'ok' GROUP BY batch_size"
    )
    with filled.session() as session:
        assert tuple(session.execute(text(statement)).one()) == (16, 1, 12.5)


def test_an_upgrade_makes_the_views_anew(
    location: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where an older tlbench has left others, and where there are none."""
    ResultStore.open(location, create=True).close()
    newer = {**views.VIEWS, "trial_view": "CREATE VIEW trial_view AS SELECT 1 AS one"}
    monkeypatch.setattr(views, "VIEWS", newer)
    upgrade(location)
    assert columns_of(location, "trial_view") == ["one"]
    monkeypatch.undo()
    upgrade(location)
    assert "throughput_samples_per_s" in columns_of(location, "trial_view")


def columns_of(location: str, view: str) -> list[str]:
    with ResultStore.open(location) as store, store.session() as session:
        found = inspect(session.connection()).get_columns(view)
        return [str(column["name"]) for column in found]
