"""Every command that reads, on databases that cannot be written, are empty or damaged.

A new command with --db needs an entry in `READING` or `WRITING`.
"""

import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import typer

from support import unprivileged
from support.stored_runs import StoredRuns, case
from tlbench.cli import app, main
from tlbench.db.store import ResultStore

READING = {
    "plan": ("smoke",),
    "runs": (),
    "show": (),
    "report": ("{folder}/report.html",),
    "query": ("status=ok", "--columns", "*"),
    "compare": ("model=ViT-Ti/16", "model=ViT-Ti/16+TL8@1/2"),
    "claims": ("--run", "1"),
    "trend": ("ViT-Ti/16",),
    "db check": (),
    "db export": ("-", "--format", "csv"),
}
"""Arguments that go with each command that only reads; {folder} can be written."""
WRITING = {
    *("run", "repro", "calibrate"),
    *("db upgrade", "db tag", "db note", "db delete", "db merge", "db import"),
}
WORK_WITHOUT_RESULTS = {"plan", "runs", "query", "db check", "db export"}
"""For the others there is nothing to do without a run, and they say so."""


def commands_with_a_database(
    command: Any = None, words: tuple[str, ...] = ()
) -> Iterator[str]:
    found = command or typer.main.get_command(app)
    for name, inner in getattr(found, "commands", {}).items():
        yield from commands_with_a_database(inner, (*words, name))
    if any("--db" in parameter.opts for parameter in found.params):
        yield " ".join(words)


class Ended(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """A database with two runs, closed as a run closes it."""
    file = tmp_path / "results.db"
    with ResultStore.open(str(file), create=True) as store:
        runs = StoredRuns(store)
        for speed in (100.0, 101.0):
            values = {"throughput_samples_per_s": speed}
            faster = {"throughput_samples_per_s": 2 * speed}
            runs.add((case(), [values] * 3), (case("ViT-Ti/16+TL8@1/2"), [faster] * 3))
    return file


@pytest.fixture
def call(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Callable[[str, Path], Ended]:
    """Call a command of `READING` in this process."""

    def call(name: str, db: Path) -> Ended:
        monkeypatch.setattr(sys, "argv", ["tlbench", *words_of(name, db, tmp_path)])
        code: Any = 0
        try:
            main()
        except SystemExit as stopped:
            code = stopped.code or 0
        return Ended(code, *capsys.readouterr())

    return call


def words_of(name: str, db: Path, folder: Path) -> list[str]:
    arguments = (word.format(folder=folder) for word in READING[name])
    return [*name.split(), *arguments, "--db", str(db)]


def test_every_command_with_a_database_is_known_to_read_or_to_write() -> None:
    assert set(commands_with_a_database()) == READING.keys() | WRITING


@pytest.mark.slow
@pytest.mark.parametrize("name", READING)
def test_reads_a_read_only_file_in_a_read_only_folder_as_any_other(
    name: str, made: Path, call: Callable[[str, Path], Ended], tmp_path: Path
) -> None:
    elsewhere = call(name, made)
    assert elsewhere.code == 0, elsewhere.err
    folder = tmp_path / "archive"
    folder.mkdir()
    file = Path(shutil.copy(made, folder))
    file.chmod(0o444)
    folder.chmod(0o555)
    command = (sys.executable, unprivileged.__file__)
    ended = subprocess.run(
        (*command, *words_of(name, file, tmp_path)),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    folder.chmod(0o755)
    assert (ended.returncode, ended.stderr) == (0, elsewhere.err)
    assert shape(ended.stdout) == shape(elsewhere.out)
    assert list(folder.iterdir()) == [file]


def shape(text: str) -> list[str]:
    """The lines but for their numbers: times that are predicted differ."""
    return ["".join(c for c in line if c.isalpha()) for line in text.splitlines()]


def test_the_read_only_file_could_not_have_been_written(
    made: Path, tmp_path: Path
) -> None:
    made.chmod(0o444)
    tmp_path.chmod(0o555)
    command = (sys.executable, unprivileged.__file__, "db", "note", "1", "text")
    ended = subprocess.run(
        (*command, "--db", made), capture_output=True, text=True, check=False
    )
    tmp_path.chmod(0o755)
    assert ended.returncode == 1
    assert "read-only" in ended.stderr


@pytest.mark.parametrize("name", READING)
def test_says_that_a_file_of_no_bytes_is_empty(
    name: str, call: Callable[[str, Path], Ended], tmp_path: Path
) -> None:
    empty = tmp_path / "empty.db"
    empty.touch()
    ended = call(name, empty)
    if name == "plan":  # it only lacks the times of earlier trials
        assert (ended.code, ended.err) == (0, "")
        return
    assert ended.code == 1
    assert ended.err == f"error: {empty} is empty; `tlbench run` fills it\n"
    assert empty.stat().st_size == 0


@pytest.mark.parametrize("name", READING)
def test_says_something_useful_where_there_is_no_run_yet(
    name: str, call: Callable[[str, Path], Ended], tmp_path: Path
) -> None:
    file = tmp_path / "no_runs.db"
    ResultStore.open(str(file), create=True).close()
    ended = call(name, file)
    if name in WORK_WITHOUT_RESULTS:
        assert ended.code == 0, ended.err
        assert ended.out + ended.err
    else:
        assert (ended.code, ended.err.count("\n")) == (1, 1)
        assert ended.err.startswith("error: ")
        assert "no " in ended.err


def flipped(content: bytes) -> bytes:
    """Every bit of all pages but the first, as a disk might return them."""
    return content[:4096] + bytes(255 - byte for byte in content[4096:])


def torn(content: bytes) -> bytes:
    """Half of the file, as a copy that was broken off."""
    return content[: len(content) // 2]


def headless(content: bytes) -> bytes:
    """The mark of SQLite, and no sense after it."""
    return content[:16] + b"\xff" * 84 + content[100:]


def misspelt(content: bytes) -> bytes:
    """A schema that SQLite quotes in its complaint, and that is no text any more."""
    return content.replace(b"CREATE TABLE metric (", b"CREATE TABL\xd4 metric (")


@pytest.mark.parametrize("damage", [flipped, torn, headless, misspelt])
@pytest.mark.parametrize("name", READING)
def test_tells_a_damaged_file_in_one_sentence_and_leaves_it_as_it_is(
    name: str,
    damage: Callable[[bytes], bytes],
    made: Path,
    call: Callable[[str, Path], Ended],
) -> None:
    content = damage(made.read_bytes())
    made.write_bytes(content)
    ended = call(name, made)
    assert ended.code == 1
    if name == "db check" and not ended.err:
        assert "damaged" in ended.out
        assert ".recover" in ended.out
    else:
        assert ended.err.startswith("error: ")
        assert ended.err.count("\n") == 1
        assert "damaged" in ended.err or "not an SQLite database" in ended.err
    assert made.read_bytes() == content


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE metric SET value = 'x'",
        "UPDATE metric SET value = NULL",
        "UPDATE metric SET value = 0",
        "UPDATE metric SET value = 9e999",
        "UPDATE metric SET value = 1e99 WHERE id % 2",
        "UPDATE metric SET name = x'ff'",
        "UPDATE experiment_case SET identity = x'ff' WHERE id = 1",
        "UPDATE tlbench_revision SET version_num = char(7)",
        "UPDATE machine SET gpu_count = 'x'",
        "UPDATE trial SET machine_id = 99",
        "UPDATE machine SET versions = '0.5'",
        "UPDATE trial SET doubts = '1'",
        "UPDATE experiment_case SET canonical = '[1]'",
        """UPDATE experiment_case SET canonical = '{"model": 1}'""",
        f"UPDATE experiment_case SET canonical = '{'[' * 5000}'",
        "UPDATE run SET uid = CAST(x'ff' || uid AS TEXT)",
    ],
)
@pytest.mark.parametrize("name", READING)
def test_a_value_of_another_type_is_no_traceback(
    name: str, damage: str, made: Path, call: Callable[[str, Path], Ended]
) -> None:
    with closing(sqlite3.connect(made)) as connection:
        connection.execute(damage)
        connection.commit()
    ended = call(name, made)
    assert ended.err.count("\n") <= 1
    assert ended.code == 0 or ended.err.startswith("error: ") or name == "db check"


@pytest.mark.parametrize("name", READING.keys() - {"plan"})
def test_a_run_that_trials_name_and_that_is_not_there_is_damage(
    name: str, made: Path, call: Callable[[str, Path], Ended]
) -> None:
    connection = sqlite3.connect(made)
    connection.execute("DELETE FROM run")
    connection.execute("DELETE FROM experiment_case")
    connection.execute("DELETE FROM machine")
    connection.commit()
    connection.close()
    ended = call(name, made)
    assert "Traceback" not in ended.err
    assert ended.err.count("\n") <= 1
