"""Result databases, and what can happen to them.

A database is what lies in files: its own, and those that SQLite keeps beside it. Each
way to damage one takes a random generator, so that its seed tells what comes out.
"""

import os
import sqlite3
import tempfile
from collections.abc import Callable
from contextlib import closing
from functools import cache
from pathlib import Path
from random import Random

from tlbench.db.migrations import VERSION_TABLE

ROOT = Path(__file__).parents[2]
GALLERY = ROOT / "docs" / "gallery"
OLDER = ROOT / "tests" / "unit" / "db" / "revisions" / "0001.sql"
SIDE_FILES = ("-wal", "-shm", "-journal")
PAGE = 4096

Files = dict[str, bytes]
"""Contents by what stands behind the name of the database: "" is the database."""
HOSTILE_VALUES = (
    *(None, 0, -1, 2**31, 2**63 - 1, -(2**63), 0.5, 1e308, float("inf"), -1e-320),
    *("", "x", "nan", "1", "\0", "\x1b[31m", "\u202e", "[red]", "[/]", "é" * 1000),
    *(b"", b"\xff\xfe", b"\0" * 9, b"x" * 100_000, "9" * 400, "2026-99-99", "12:00"),
    *("{", "{}", "[]", "null", "1", '"x"', "[1, 2]", '{"a": {}}', "[" * 5000, "NaN"),
    *('{"model": 1}', '{"model": {}}', '{"foreign": {}}', '["a", {"b": 1}]', "true"),
)


def sound(rng: Random) -> Files:
    """A database with results as tlbench has left it."""
    makers = (*[_gallery] * 6, _accuracy, _older, *[_with_a_log] * 3)
    return dict(rng.choice(makers)())


@cache
def _gallery() -> Files:
    return {"": (GALLERY / "gallery.db").read_bytes()}


@cache
def _accuracy() -> Files:
    return {"": (GALLERY / "accuracy.db").read_bytes()}


@cache
def _older() -> Files:
    def fill(connection: sqlite3.Connection) -> None:
        connection.executescript(OLDER.read_text("utf-8"))

    return _changed({}, fill)


@cache
def _with_a_log() -> Files:
    """As a driver leaves it that was killed: the last transactions are in the log."""
    with tempfile.TemporaryDirectory() as name:
        file = Path(name, "db")
        _lay(_gallery(), file)
        with closing(sqlite3.connect(file)) as connection:
            connection.executescript(
                "PRAGMA journal_mode = WAL; PRAGMA wal_autocheckpoint = 0;"
                "UPDATE run SET note = 'read again'; UPDATE trial SET seed = seed + 1;"
            )
            return _picked_up(file)


def _lay(files: Files, file: Path) -> None:
    for ending, content in files.items():
        file.with_name(file.name + ending).write_bytes(content)


def _picked_up(file: Path) -> Files:
    beside = {e: file.with_name(file.name + e) for e in ("", *SIDE_FILES)}
    return {e: path.read_bytes() for e, path in beside.items() if path.is_file()}


def _changed(files: Files, change: Callable[[sqlite3.Connection], object]) -> Files:
    """The same database after SQLite has changed it."""
    with tempfile.TemporaryDirectory() as name:
        file = Path(name, "db")
        _lay(files, file)
        with closing(sqlite3.connect(file, isolation_level=None)) as connection:
            connection.execute("PRAGMA foreign_keys = OFF")
            connection.execute("PRAGMA writable_schema = ON")
            change(connection)
        return _picked_up(file)


def opened_and_closed(files: Files) -> bytes:
    """What SQLite itself makes of the file of a database by looking at it once."""
    with tempfile.TemporaryDirectory() as name:
        file = Path(name, "db")
        _lay(files, file)
        try:
            with closing(sqlite3.connect(file)) as connection:
                connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        except (sqlite3.DatabaseError, UnicodeDecodeError):
            pass  # it says so, and leaves the file
        return file.read_bytes()


# ---------------------------------------------------------------- bytes and pages


def _flip_bytes(rng: Random, files: Files) -> Files:
    content = bytearray(files[""])
    begin, end = rng.choice(((0, 100), (100, PAGE), (0, len(content))))
    for _ in range(rng.choice((1, 3, 30, 1000))):
        content[rng.randrange(begin, end)] = rng.randrange(256)
    return files | {"": bytes(content)}


def _cut_off(rng: Random, files: Files) -> Files:
    pages = len(files[""]) // PAGE
    ends = (
        rng.randrange(200),
        rng.randrange(pages) * PAGE,
        rng.randrange(len(files[""])),
    )
    return files | {"": files[""][: rng.choice(ends)]}


def _spoil_pages(rng: Random, files: Files) -> Files:
    content = files[""]
    pages = [content[n : n + PAGE] for n in range(0, len(content), PAGE)]
    for _ in range(rng.choice((1, 2, 10))):
        one, other = rng.randrange(len(pages)), rng.randrange(len(pages))
        match rng.randint(0, 3):
            case 0:
                pages[one] = bytes(PAGE)
            case 1:
                pages[one], pages[other] = pages[other], pages[one]
            case 2:
                pages[one] = pages[other]
            case _:
                pages[one] = rng.randbytes(PAGE)
    return files | {"": b"".join(pages)}


def _spoil_schema_text(rng: Random, files: Files) -> Files:
    """The text of a table's definition, as a disk may return it."""
    content = bytearray(files[""])
    place = content.find(
        rng.choice((b"CREATE TABLE", b"PRIMARY KEY", b"trial", b"UNIQUE"))
    )
    for offset in range(rng.choice((1, 5, 40))):
        content[place + rng.randrange(200) + offset] = rng.choice((0, 32, 40, 200, 255))
    return files | {"": bytes(content)}


def _spoil_free_list(rng: Random, files: Files) -> Files:
    """Bytes 32 to 40 of the header: https://www.sqlite.org/fileformat2.html."""
    content = bytearray(files[""])
    content[32:40] = rng.choice((rng.randbytes(8), b"\0\0\0\2\0\0\xff\xff"))
    return files | {"": bytes(content)}


# ---------------------------------------------------------------- what SQLite lets pass


def _spoil_values(rng: Random, files: Files) -> Files:
    """Values of another type than the column's, or of none that makes sense."""

    def change(connection: sqlite3.Connection) -> None:
        _lift_constraints(connection)
        for _ in range(rng.choice((1, 1, 2, 5))):
            table, columns = _a_table(rng, connection)
            # A quarter of the time in all rows, which no choice of rows can miss.
            rows = "1" if rng.random() < 0.25 else f"rowid % 7 = {rng.randrange(7)}"
            connection.execute(
                f'UPDATE OR IGNORE "{table}" SET "{rng.choice(columns)}" = ?'
                f" WHERE {rows}",
                (rng.choice(HOSTILE_VALUES),),
            )

    return _changed(files, change)


def _lift_constraints(connection: sqlite3.Connection) -> None:
    """NOT NULL does not hold what the disk spoils."""
    connection.execute("UPDATE sqlite_master SET sql = replace(sql, ' NOT NULL', '')")
    version = connection.execute("PRAGMA schema_version").fetchone()[0]
    connection.execute(f"PRAGMA schema_version = {version + 1}")


def _a_table(rng: Random, connection: sqlite3.Connection) -> tuple[str, list[str]]:
    names = connection.execute(
        "SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name"
    ).fetchall()
    table = rng.choice([name for (name,) in names if not name.startswith("sqlite_")])
    columns = connection.execute(f'PRAGMA table_info("{table}")').fetchall()
    # A row's own number is what SQLite finds it by, and so always one.
    return table, [name for _, name, *_ in columns if name != "id"]


def _break_references(rng: Random, files: Files) -> Files:
    def change(connection: sqlite3.Connection) -> None:
        table, columns = _a_table(rng, connection)
        keys = [column for column in columns if column.endswith("_id")]
        rows = f"rowid % 3 = {rng.randrange(3)}"
        if keys and rng.random() < 0.5:
            key = rng.choice(keys)
            connection.execute(
                f'UPDATE OR IGNORE "{table}" SET "{key}" = 99999 WHERE {rows}'
            )
        else:
            connection.execute(f'DELETE FROM "{table}" WHERE {rng.choice((rows, "1"))}')

    return _changed(files, change)


def _change_schema(rng: Random, files: Files) -> Files:
    def change(connection: sqlite3.Connection) -> None:
        table, columns = _a_table(rng, connection)
        column = rng.choice(columns)
        statements = (
            f'DROP TABLE "{table}"',
            f'ALTER TABLE "{table}" RENAME TO other',
            f'ALTER TABLE "{table}" RENAME COLUMN "{column}" TO other',
            f"DELETE FROM sqlite_master WHERE name = '{table}'",
            "UPDATE sqlite_master SET rootpage = 3 WHERE type = 'table'",
            "DELETE FROM sqlite_master WHERE type = 'index'",
            f'CREATE VIEW more AS SELECT * FROM "{table}" AS a, "{table}" AS b',
            f"UPDATE {VERSION_TABLE} SET version_num = '9999'",
            f"UPDATE {VERSION_TABLE} SET version_num = x'ff'",
            f"DELETE FROM {VERSION_TABLE}",
            f"INSERT INTO {VERSION_TABLE} VALUES ('0100'), ('0200')",
        )
        connection.execute(rng.choice(statements))

    return _changed(files, change)


# ---------------------------------------------------------------- side files


def _spoil_side_files(rng: Random, files: Files) -> Files:
    other = _with_a_log()
    log, index = bytearray(files.get("-wal", other["-wal"])), files.get("-shm", b"")
    log[rng.randrange(len(log))] ^= 0xFF
    choices: tuple[Files, ...] = (
        {"-wal": other["-wal"]},
        {"-wal": other["-wal"], "-shm": other["-shm"]},
        {"-wal": bytes(log), "-shm": index},
        {"-wal": bytes(log[: rng.randrange(len(log))])},
        {"-wal": rng.randbytes(5000)},
        {"-shm": rng.randbytes(32_768)},
        {"-journal": rng.randbytes(3000)},
        {"-journal": b"\xd9\xd5\x05\xf9\x20\xa1\x63\xd7" + rng.randbytes(4000)},
    )
    return files | rng.choice(choices)


# ---------------------------------------------------------------- something else


def _another_file(rng: Random, files: Files) -> Files:
    def of_another_program(connection: sqlite3.Connection) -> None:
        tables = ("notes", "run", "trial", VERSION_TABLE)
        for table in rng.sample(tables, rng.randint(1, 4)):
            connection.execute(f"CREATE TABLE {table} (id INTEGER, body)")
            connection.execute(f"INSERT INTO {table} VALUES (1, 'x')")

    contents = (
        *(
            b"",
            b"\0",
            b"SQLite format 3\0",
            b"SQLite format 3",
            b"PK\3\4",
            b"\n" * 5000,
        ),
        *(
            rng.randbytes(1),
            rng.randbytes(10_000),
            b"SQLite format 3\0" + rng.randbytes(9000),
        ),
    )
    if rng.random() < 0.4:
        return _changed({}, of_another_program)
    return {"": rng.choice(contents)}


DAMAGES: dict[str, tuple[Callable[[Random, Files], Files], ...]] = {
    "bytes": (_flip_bytes, _flip_bytes, _cut_off, _spoil_schema_text, _spoil_free_list),
    "pages": (_spoil_pages,),
    "values": (_spoil_values,),
    "references": (_break_references,),
    "schema": (_change_schema,),
    "side files": (_spoil_side_files,),
    "another file": (_another_file,),
}
KINDS = (
    *["bytes"] * 5,
    *["pages"] * 2,
    *["values"] * 8,
    *("references", "schema", "schema", "side files", "side files", "another file"),
)


def lay_no_file(rng: Random, file: Path) -> None:
    """Something in the database's place that is no file."""
    match rng.randint(0, 4):
        case 0:
            file.mkdir()
        case 1:
            os.mkfifo(file)
        case 2:
            file.symlink_to("/dev/zero")
        case 3:
            file.symlink_to(file.name)
        case _:
            file.symlink_to("nothing/at/all")


def lay_damaged(rng: Random, kind: str, file: Path) -> Files:
    """Put a damaged database there; returns its files."""
    files = rng.choice(DAMAGES[kind])(rng, sound(rng))
    _lay(files, file)
    return files
