"""What commands print: tables that fit, and text that has no power over a terminal."""

import io
from pathlib import Path

import pytest
from rich.console import Console

from support import stored_runs
from tlbench.console import (
    comparison_parts,
    harmless,
    make_console,
    make_table,
    one_line,
)
from tlbench.db.store import ResultStore
from tlbench.reports.gate import Answer, Question, compare
from tlbench.reports.selection import parse_selection
from tlbench.reports.verdicts import TIMES


def shown(console: Console) -> list[str]:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


def pipe() -> Console:
    return Console(file=io.StringIO(), highlight=False)


def comparison_answer(tmp_path: Path) -> Answer:
    with ResultStore.open(str(tmp_path / "results.db"), create=True) as store:
        stored_runs.StoredRuns(store).add(
            (stored_runs.case(), stored_runs.speeds(100, 101, 99)),
            (stored_runs.case("ViT-Ti/16+TL8@6"), stored_runs.speeds(200, 202, 198)),
        )
        with store.session() as session:
            plain, learned = map(parse_selection, ("model=ViT-Ti/16", "model~TL"))
            return compare(session, plain, learned, Question())


@pytest.mark.parametrize("width", [40, 80, 120])
def test_a_comparison_keeps_its_words_whole_at_any_width(
    tmp_path: Path, width: int
) -> None:
    console = Console(file=io.StringIO(), width=width, highlight=False)
    for part in comparison_parts(comparison_answer(tmp_path), width):
        console.print(part)
    lines = shown(console)
    assert max(map(len, lines)) <= width
    (verdict,) = [line for line in lines if f"2.00{TIMES}" in line]
    assert "2.00 to 2.00" in verdict
    assert "better" in verdict


def test_a_pipe_is_wide_enough_for_whole_lines(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    make_console().print("word " * 30)
    assert len(capsys.readouterr().out.splitlines()) == 1


def test_a_narrow_table_breaks_words_and_leaves_none_out() -> None:
    console = Console(file=io.StringIO(), width=16, highlight=False)
    row = ("overhead", "2026-11-23 05:41")
    console.print(make_table(("suite", "started"), [row]))
    lines = shown(console)
    assert max(map(len, lines)) <= 16
    told = sorted("".join(lines).replace(" ", ""))
    assert told == sorted("".join(("suite", "started", *row)).replace(" ", ""))


def test_numbers_stand_to_the_right_and_words_to_the_left() -> None:
    console = pipe()
    console.print(make_table(("name", "count"), [("a[b]c", "7"), ("d", "1,000")]))
    lines = [line.rstrip() for line in shown(console)]
    assert lines == ["name   count", "a[b]c      7", "d      1,000"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain [b]words[/b] of £ and 模型\n", "plain [b]words[/b] of £ and 模型\n"),
        ("\x1b[31mred\x1b[0m", "red"),
        ("\x1b]0;a title\x07rest", "rest"),
        ("\x1b]8;;http://x\x1b\\link", "link"),
        ("10 %\r20 %\r\nend", "10 %\n20 %\nend"),
        ("bell\x07 \x1bc reset \x9b2J", "bell\\x07 \\x1bc reset \\x9b2J"),
        ("turned \u202e round", "turned \\u202e round"),
    ],
)
def test_text_of_others_has_no_power_over_a_terminal(text: str, expected: str) -> None:
    assert harmless(text) == expected


def test_a_reason_of_many_lines_is_told_in_one() -> None:
    assert one_line("a\n  b\x1b[1m\tc ") == "a b c"
