"""`tlbench db tag`, `note`, `delete` and `check`, and what `runs` and `show` tell."""

import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tlbench.cli import main
from tlbench.db import query
from tlbench.db.store import ResultStore

Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "results.db"


@pytest.fixture
def made(file: Path, begin: Callable[..., int], add: Callable[..., int]) -> Path:
    """Two runs that have ended, and one that goes on."""
    with ResultStore.open(str(file), create=True) as store:
        for ended_by in (None, "its budget of 20 min was spent"):
            run_id = begin(store, planned=1)
            add(store, run_id)
            store.end_run(run_id, "finished", ended_by=ended_by)
        begin(store)
    return file


@pytest.fixture
def call(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], file: Path
) -> Call:
    def call(*arguments: str) -> tuple[int, str, str]:
        words = ["tlbench", *arguments, "--db", str(file)]
        monkeypatch.setattr(sys, "argv", words)
        code: Any = 0
        try:
            main()
        except SystemExit as stopped:
            code = stopped.code or 0
        return code, *capsys.readouterr()

    return call


@pytest.mark.parametrize("destination", ["-", "trials", "trials.xml"])
def test_export_asks_for_a_format_that_no_ending_tells(
    call: Call, destination: str
) -> None:
    code, _, told = call("db", "export", destination)
    assert code == 2
    told = " ".join(told.replace("│", " ").split())
    assert f"the ending of '{destination}' is no format; --format names" in told


def stored_runs(file: Path) -> list[int]:
    with (
        ResultStore.open(str(file), read_only=True) as store,
        store.session() as opened,
    ):
        return [run.id for run in query.runs(opened)]


def test_tags_and_notes_are_shown_and_found_by(made: Path, call: Call) -> None:
    assert call("db", "tag", "1", "nightly", "base") == (
        0,
        "run 1: base, nightly\n",
        "",
    )
    assert call("db", "tag", "2", "nightly")[0] == 0
    assert call("db", "note", "1", "new [driver]") == (0, "run 1: new [driver]\n", "")
    out = call("runs")[1]
    assert "base nightly" in out
    assert "new [driver]" in out
    found = json.loads(call("runs", "--json", "--tag", "nightly", "--tag", "base")[1])
    assert [run["id"] for run in found] == [1]
    assert call("runs", "--tag", "other")[1] == (
        "no run is tagged other; there are base, nightly\n"
    )
    shown = call("show", "1")[1].splitlines()
    assert shown[:2] == ["tags: base nightly", "note: new [driver]"]
    assert "ended by: its budget of 20 min was spent" in call("show", "2")[1]


def test_runs_without_tags_have_no_column_for_them(made: Path, call: Call) -> None:
    heading = call("runs")[1].splitlines()[0]
    assert "tags" not in heading
    assert "note" not in heading
    assert "ended by" in heading


def test_tags_are_taken_off(made: Path, call: Call) -> None:
    call("db", "tag", "1", "a", "b")
    assert call("db", "tag", "1", "a", "--remove") == (0, "run 1: b\n", "")
    assert call("db", "tag", "1", "b", "--remove") == (0, "run 1: no tags\n", "")


def test_delete_wants_a_word_where_nobody_can_be_asked(
    made: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO())
    code, _, err = call("db", "delete", "1")
    assert code == 2
    assert "there is no terminal to ask on" in err
    assert stored_runs(made) == [3, 2, 1]


@pytest.mark.parametrize(("answer", "left"), [("y\n", [3, 2]), ("\n", [3, 2, 1])])
def test_delete_asks_on_a_terminal(
    made: Path,
    call: Call,
    monkeypatch: pytest.MonkeyPatch,
    answer: str,
    left: list[int],
) -> None:
    class Terminal:
        def isatty(self) -> bool:
            return True

        def readline(self) -> str:
            return answer

    monkeypatch.setattr("sys.stdin", Terminal())
    monkeypatch.setattr("click.termui.visible_prompt_func", lambda _: answer.strip())
    _, _, err = call("db", "delete", "1")
    assert "run 1: small of " in err
    assert stored_runs(made) == left


def test_delete_leaves_a_run_that_goes_on(made: Path, call: Call) -> None:
    code, out, err = call("db", "delete", "1", "3", "--yes")
    assert (code, out) == (1, "")
    assert "run 3 is marked running" in err
    assert stored_runs(made) == [3, 2, 1]
    code, out, err = call("db", "delete", "1", "--yes")
    assert (code, out.count("deleted run 1")) == (0, 1)
    assert "keeps its size, for run 3 is marked running" in err
    assert call("db", "delete", "3", "--yes", "--force")[0] == 0
    assert stored_runs(made) == [2]


def test_check_is_for_people_and_programs(made: Path, call: Call) -> None:
    code, out, err = call("db", "check")
    assert (code, err) == (0, "")
    assert "every page and index was read" in out
    found = json.loads(call("db", "check", "--json")[1])
    assert {item["state"] for item in found} == {"sound"}


def test_check_of_a_damaged_file_ends_with_exit_code_1(made: Path, call: Call) -> None:
    content = made.read_bytes()
    made.write_bytes(content[:4096] + bytes(len(content) - 4096))
    assert call("db", "check")[0] == 1
    assert call("runs")[0] == 1
