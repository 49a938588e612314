"""Lists of trials and of groups: columns, order, medians with intervals, their text."""

import csv
import io
import json
import math
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
from scipy import stats
from sqlalchemy.orm import Session

from support.stored_runs import THROUGHPUT, StoredRuns, case, speeds
from tlbench.db.conditions import parse_conditions
from tlbench.db.store import ResultStore
from tlbench.errors import ReportError
from tlbench.reports.listing import Listing, list_groups, list_trials
from tlbench.reports.listing_text import (
    table_text,
    to_csv,
    to_json,
    to_json_lines,
)
from tlbench.reports.query import query_frame, write_parquet

PLAIN, LEARNED = case(), case("ViT-Ti/16+TL8@1/2")
LARGEST = case(batch_size="max")
SPEEDS = (10.0, 11.0, 12.5)


@pytest.fixture(scope="module")
def db(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Trials 1 to 3 of a plain ViT, 4 of a largest batch, 5 to 8 with TokenLearner.

    Of the last four one is invalid, and one failed.
    """
    file = tmp_path_factory.mktemp("listing") / "results.db"
    with ResultStore.open(str(file), create=True) as store:
        runs = StoredRuns(store)
        runs.add((PLAIN, speeds(*SPEEDS)), (LARGEST, speeds(50.0)))
        learned = [
            {THROUGHPUT: v, "top1_percent": 90.0} for v in (20.0, 21.0, 99.0, 0.0)
        ]
        runs.add((LEARNED, learned), validity={2: "invalid"}, failed={3: "oom"})
    return str(file)


@pytest.fixture
def session(db: str) -> Iterator[Session]:
    with ResultStore.open(db, read_only=True) as store, store.session() as session:
        yield session


def column(listing: Listing, name: str) -> list[object]:
    return [record[name] for record in listing.records()]


def test_columns_that_say_nothing_are_left_out(session: Session) -> None:
    listing = list_trials(session, ())
    assert listing.columns == (
        *("trial", "run", "started_at", "model", "mode", "batch_size", "precision"),
        *("machine", "status", THROUGHPUT, "top1_percent"),
    )
    assert listing.total == len(listing.rows) == 8


def test_chosen_columns_stay_and_patterns_are_spelled_out(session: Session) -> None:
    wanted = ["trial", "mfu*", "gpu", "top1_*", "zero_stage"]
    with pytest.raises(ReportError, match=r"no column is called 'mfu\*'"):
        list_trials(session, (), columns=wanted)
    del wanted[1]
    listing = list_trials(session, (), columns=wanted)
    assert listing.columns == ("trial", "gpu", "top1_percent", "zero_stage")


@pytest.mark.parametrize(
    ("sort", "trials"),
    [
        ([], [8, 7, 6, 5, 4, 3, 2, 1]),
        (["trial"], [1, 2, 3, 4, 5, 6, 7, 8]),
        ([f"-{THROUGHPUT}"], [7, 4, 6, 5, 3, 2, 1, 8]),
        ([THROUGHPUT], [1, 2, 3, 5, 6, 4, 7, 8]),
        (["batch_size", "-trial"], [8, 7, 6, 5, 3, 2, 1, 4]),
    ],
)
def test_rows_are_sorted_and_unknown_values_last(
    session: Session, sort: list[str], trials: list[int]
) -> None:
    assert column(list_trials(session, (), sort=sort), "trial") == trials


def test_a_limit_keeps_the_first_and_knows_how_many_there_are(session: Session) -> None:
    listing = list_trials(session, (), sort=[f"-{THROUGHPUT}"], limit=2)
    assert column(listing, "trial") == [7, 4]
    assert listing.total == 8


def test_groups_have_medians_and_intervals_of_good_trials(session: Session) -> None:
    listing = list_groups(session, (), ["model", "batch_size"])
    rows = {(r["model"], r["batch_size"]): r for r in listing.records()}
    plain = rows["ViT-Ti/16", 8]
    assert (plain["trials"], plain[THROUGHPUT], plain[f"{THROUGHPUT}.n"]) == (
        3,
        11.0,
        3,
    )
    logs = [math.log(v) for v in SPEEDS]
    low, high = stats.t.interval(0.95, 2, sum(logs) / 3, stats.sem(logs))
    assert plain[f"{THROUGHPUT}.low"] == pytest.approx(math.exp(low))
    assert plain[f"{THROUGHPUT}.high"] == pytest.approx(math.exp(high))
    learned = rows["ViT-Ti/16+TL8@6", 8]
    assert (learned["trials"], learned[THROUGHPUT]) == (2, 20.5)
    assert listing.left_out == {"not ok": 1, "invalid": 1}


def test_one_trial_and_equal_values_have_no_interval(session: Session) -> None:
    listing = list_groups(session, (), ["model", "batch_size"])
    rows = {(r["model"], r["batch_size"]): r for r in listing.records()}
    assert rows["ViT-Ti/16", "max"][f"{THROUGHPUT}.low"] is None
    assert rows["ViT-Ti/16+TL8@6", 8]["top1_percent"] == 90.0
    assert rows["ViT-Ti/16+TL8@6", 8]["top1_percent.low"] is None


def test_groups_are_sorted_by_their_own_columns(session: Session) -> None:
    listing = list_groups(session, (), ["model"], sort=["-trials"], limit=1)
    assert (column(listing, "model"), listing.total) == (["ViT-Ti/16"], 2)
    with pytest.raises(ReportError, match="'run' is no column of these groups"):
        list_groups(session, (), ["model"], sort=["run"])


def test_a_group_refuses_what_its_trials_may_differ_in(session: Session) -> None:
    with pytest.raises(ReportError, match="--group-by model,run would tell them apart"):
        list_groups(session, (), ["model"], columns=["run"])


def test_settings_that_differ_within_a_group_are_named(session: Session) -> None:
    assert list_groups(session, (), ["model"]).mixed == ("batch_size",)
    assert list_groups(session, (), ["model", "batch_size"]).mixed == ()


def test_nothing_says_why(session: Session) -> None:
    listing = list_trials(session, parse_conditions("precision=bf16"))
    assert (listing.rows, listing.total) == ((), 0)
    assert "no stored trial has precision=bf16; there are fp32" in listing.nothing
    listing = list_groups(session, parse_conditions("status=oom"), ["model"])
    assert listing.nothing == "none of the trials can be used: 1 not ok"


def test_csv_and_json_keep_every_digit(session: Session) -> None:
    listing = list_trials(session, (), columns=["trial", "batch_size", THROUGHPUT])
    rows = list(csv.DictReader(io.StringIO(to_csv(listing))))
    assert [float(r[THROUGHPUT]) if r[THROUGHPUT] else None for r in rows] == column(
        listing, THROUGHPUT
    )
    assert json.loads(to_json(listing)) == list(listing.records())
    lines = to_json_lines(listing).splitlines()
    assert [json.loads(line) for line in lines] == list(listing.records())


def test_a_frame_has_the_rows_of_the_csv(session: Session, db: str) -> None:
    listing = list_trials(session, parse_conditions("mode=infer"), sort=["trial"])
    frame = query_frame(db, "mode=infer", sort="trial")
    read = pd.read_csv(io.StringIO(to_csv(listing)), parse_dates=["started_at"])
    read["batch_size"] = [int(b) if b != "max" else b for b in read["batch_size"]]
    pd.testing.assert_frame_equal(frame, read, check_dtype=False)


def test_a_frame_of_groups(db: str) -> None:
    frame = query_frame(
        db, "status=ok", group_by="model", columns=[THROUGHPUT], limit=1
    )
    assert list(frame.columns)[:3] == ["model", "trials", THROUGHPUT]
    assert frame["model"].tolist() == ["ViT-Ti/16+TL8@6"]


def test_parquet_takes_a_column_of_numbers_and_words(db: str, tmp_path: Path) -> None:
    frame = query_frame(db, sort="trial")
    write_parquet(frame, tmp_path / "trials.parquet")
    read = pd.read_parquet(tmp_path / "trials.parquet")
    assert read["batch_size"].tolist() == ["8"] * 3 + ["max"] + ["8"] * 4
    assert read[THROUGHPUT].tolist()[:4] == [*SPEEDS, 50.0]


def test_a_table_names_once_what_all_rows_have(session: Session) -> None:
    listing = list_trials(session, (), limit=3)
    table = table_text(listing, 160, is_chosen=False)
    headings = [column.heading for column in table.columns]
    assert headings == ["trial", "status", "throughput [samples/s]", "top-1 [%]"]
    assert "model ViT-Ti/16+TL8@6" in table.notes[0]
    assert table.notes[-1] == "3 of 8; --limit 0 shows all"


def test_a_table_is_no_wider_than_the_screen(session: Session) -> None:
    table = table_text(list_trials(session, ()), 50, is_chosen=False)
    width = sum(column.width for column in table.columns) + 2 * (len(table.columns) - 1)
    assert width <= 50
    assert any(note.startswith("too wide: ") for note in table.notes)
    for column in table.columns:
        assert max(map(len, column.broken_heading.splitlines())) <= column.width
