"""`tlbench query` as a user meets it: formats, files, errors, what it imports."""

import csv
import io
import json
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from support.stored_runs import StoredRuns, case, speeds
from tlbench.cli import main
from tlbench.db.store import ResultStore
from tlbench.reports.query import query_frame


@pytest.fixture
def db(tmp_path: Path) -> str:
    file = str(tmp_path / "results.db")
    with ResultStore.open(file, create=True) as store:
        runs = StoredRuns(store)
        learned = case("ViT-Ti/16+TL8@1/2"), speeds(2000.0, 2500.5)
        runs.add((case(), speeds(1000.0, 1100.0)), learned)
    return file


def run(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.setattr(sys, "argv", ["tlbench", "query", *words])
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0)


def test_a_table_for_people(
    db: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "model~TL", "--db", db, "--limit", "1") == 0
    out = capsys.readouterr().out
    assert "2,500" in out or "2,501" in out
    assert "1 of 2; --limit 0 shows all" in out


def test_csv_has_the_rows_of_the_frame(
    db: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("throughput_samples_per_s>1K", "--sort", "trial", "--format", "csv")
    assert run(monkeypatch, *words, "--db", db) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    frame = query_frame(db, "throughput_samples_per_s>1K", sort="trial")
    assert list(rows[0]) == list(frame.columns)
    speeds = [float(row["throughput_samples_per_s"]) for row in rows]
    assert speeds == frame["throughput_samples_per_s"].tolist() == [1100, 2000, 2500.5]


@pytest.mark.parametrize("ending", ["csv", "json", "jsonl", "parquet", "txt"])
def test_the_ending_of_a_file_says_the_format(
    db: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: str
) -> None:
    file = tmp_path / f"trials.{ending}"
    assert run(monkeypatch, "--db", db, "--output", str(file)) == 0
    rows = {
        "csv": lambda: len(file.read_text().splitlines()) - 1,
        "json": lambda: len(json.loads(file.read_text())),
        "jsonl": lambda: len(file.read_text().splitlines()),
        "parquet": lambda: len(pd.read_parquet(file)),
        "txt": lambda: file.read_text().count("ViT-Ti/16"),
    }
    assert rows[ending]() == 4


def test_groups(
    db: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("--group-by", "model", "--format", "json", "--db", db)
    assert run(monkeypatch, *words) == 0
    groups = {row["model"]: row for row in json.loads(capsys.readouterr().out)}
    assert groups["ViT-Ti/16"]["throughput_samples_per_s"] == 1050.0
    assert groups["ViT-Ti/16"]["trials"] == 2


def test_nothing_found_is_said_and_is_no_failure(
    db: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "precision=bf16", "--db", db) == 0
    assert capsys.readouterr() == (
        "",
        "no stored trial has precision=bf16; there are fp32\n",
    )


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("precison=bf16",), 1, "did you mean 'precision'"),
        (("--sort", "speed"), 1, "'speed' is no setting"),
        (("--format", "xml"), 2, "'xml' is not one of table, csv, json"),
        (("--output", "a.xml"), 2, "ending of 'a.xml' is no format; --format names"),
        (("--format", "parquet"), 2, "Parquet is no text"),
        (("--output", "/nowhere/trials.csv"), 1, "/nowhere/trials.csv: No such file"),
        (("--columns", " , "), 2, "names no column"),
    ],
)
def test_wrong_usage_is_explained(
    db: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: tuple[str, ...],
    code: int,
    message: str,
) -> None:
    assert run(monkeypatch, *words, "--db", db) == code
    assert message in " ".join(capsys.readouterr().err.replace("│", " ").split())


def test_a_database_is_not_written_over(
    db: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = Path(db).read_bytes()
    assert run(monkeypatch, "--format", "csv", "--output", db, "--db", db) == 1
    assert f"{db} is a database, and stays" in capsys.readouterr().err
    assert Path(db).read_bytes() == before


def test_a_list_needs_nothing_heavy(db: str) -> None:
    heavy = ["torch", "ray", "pandas", "scipy", "numpy", "alembic", "seaborn"]
    program = (
        "import sys\nfrom tlbench.cli.querying import query\n"
        f"query(['model~TL'], db={db!r})\n"
        f"print([name for name in {heavy} if name in sys.modules], file=sys.stderr)"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True
    )
    assert ended.stderr == "[]\n"


def test_json_is_one_of_the_formats(
    db: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    told = []
    for words in (("--json",), ("--format", "json"), ("--json", "--format", "json")):
        assert run(monkeypatch, "model~TL", "--db", db, *words) == 0
        told.append(capsys.readouterr().out)
    assert len(json.loads(told[0])) == 2
    assert told[0] == told[1] == told[2]
    assert run(monkeypatch, "--json", "--format", "csv", "--db", db) == 2
