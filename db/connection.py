"""How to reach a database: where it lies, how it is opened, what its errors mean."""

import json
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self, TypeVar
from urllib.parse import quote

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, OperationalError

from tlbench.errors import StoreAwayError, StoreError, first_line

Value = TypeVar("Value")

Mode = Literal["read", "write", "create"]

BUSY_TIMEOUT_S = 30.0
"""How long one process waits for the lock that another one holds."""

SQLITE_MAGIC = b"SQLite format 3\0"

SQLITE_CAUSES = {
    sqlite3.SQLITE_FULL: "the disk is full",
    sqlite3.SQLITE_BUSY: "another process keeps it locked",
    sqlite3.SQLITE_READONLY: "the file or its folder is read-only",
    sqlite3.SQLITE_CANTOPEN: "the file cannot be opened, or its folder not written",
    sqlite3.SQLITE_PERM: "the file may not be opened by this user",
    sqlite3.SQLITE_CORRUPT: "the file is damaged; `tlbench db check` tells where, and"
    " how to save the rest",
    sqlite3.SQLITE_NOTADB: "the file is not an SQLite database",
    sqlite3.SQLITE_IOERR: "reading or writing the disk failed",
}
"""By SQLite's primary result code; https://www.sqlite.org/rescode.html."""

SQLITE_PASSING = frozenset(
    {
        *(sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_FULL),
        *(sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN),
    }
)
"""Of these, what others or a person may put right while a run waits."""
POSTGRESQL_PASSING = ("08", "40", "53", "57P")
"""How the SQLSTATE of the same begins: no connection, rolled back for others' sake, out
of a resource, shut down; https://www.postgresql.org/docs/current/errcodes-appendix.html."""

POSTGRESQL = "postgresql+psycopg"

DRIVERS = {
    "sqlite": "sqlite",
    "sqlite+pysqlite": "sqlite",
    "postgresql": POSTGRESQL,
    "postgresql+psycopg": POSTGRESQL,
}
"""What a URL may begin with, and the SQLAlchemy driver that serves it."""


@dataclass(frozen=True)
class Location:
    """Where a database lies: a file of SQLite, or the URL of a PostgreSQL server."""

    url: URL

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a path or an SQLAlchemy URL."""
        if "://" not in text:
            return cls._file(text)
        try:
            url = make_url(text)
        except (ArgumentError, ValueError):
            # Neither shown nor chained: what cannot be parsed may hold a password.
            raise StoreError(
                "the database URL cannot be parsed;"
                " postgresql+psycopg://user:password@host:5432/name would be right"
            ) from None
        if url.drivername not in DRIVERS:
            raise StoreError(
                f"{_shown(url)}: {url.drivername!r} is not one of {', '.join(DRIVERS)}"
            )
        url = url.set(drivername=DRIVERS[url.drivername])
        if url.drivername == POSTGRESQL:
            return cls(url)
        if url.database in (None, "", ":memory:") or url.query:
            raise StoreError(
                f"{_shown(url)}: results need a plain file; sqlite:///results.db"
                " would be right"
            )
        return cls._file(str(url.database))

    @classmethod
    def _file(cls, text: str) -> Self:
        return cls(URL.create("sqlite", database=str(Path(text).expanduser())))

    @property
    def path(self) -> Path | None:
        """The file; None: on a server."""
        if self.url.drivername == POSTGRESQL:
            return None
        return Path(str(self.url.database))

    def __str__(self) -> str:
        """As a user may see it: without password and options."""
        return _shown(self.url) if self.path is None else str(self.path)

    def check(self, mode: Mode) -> None:
        """Refuse what can be told from outside to be no database of SQLite."""
        if self.path is None:
            return
        try:
            self._check_file(self.path, mode)
        except OSError as error:
            raise StoreError(f"{self}: {error.strerror}") from error

    def _check_file(self, path: Path, mode: Mode) -> None:
        if path.is_dir():
            raise StoreError(f"{self} is a folder; a database is a file")
        if not path.exists():
            if not path.parent.is_dir():
                raise StoreError(f"{self}: there is no folder {path.parent}")
            if mode != "create":
                raise StoreError(
                    f"there is no database {self}; `tlbench run` makes one, and --db"
                    " names another"
                )
            return
        if not path.is_file():  # to open a pipe would wait for its writer
            raise StoreError(f"{self} is a pipe or a device; a database is a file")
        start = _start_of(path)
        if not start and mode != "create":
            raise self.empty()
        if start not in (b"", SQLITE_MAGIC):
            raise StoreError(
                f"{self} is not an SQLite database; it was left as it is, and --db"
                " names another file"
            )

    def empty(self) -> StoreError:
        """The error that there are no tables."""
        return StoreError(f"{self} is empty; `tlbench run` fills it")

    def engine(self, mode: Mode, *, foreign_keys: bool = True) -> Engine:
        """Open the database, lazily; the caller disposes of the engine."""
        if self.path is not None:
            return _sqlite_engine(self.path.absolute(), mode, foreign_keys)
        try:
            # A server or firewall may end a connection that rests for a long trial.
            engine = create_engine(
                self.url, pool_pre_ping=True, json_deserializer=read_json
            )
        except ModuleNotFoundError as error:
            raise StoreError(
                f"{self}: the driver {error.name} is missing;"
                " `pip install 'psycopg[binary]'` brings it"
            ) from error
        return engine.execution_options(postgresql_readonly=mode == "read")

    @contextmanager
    def explained(self) -> Iterator[None]:
        """Turn what the database throws into one sentence with the cause."""
        try:
            yield
        except DBAPIError as error:
            kind = StoreAwayError if _may_pass(error) else StoreError
            raise kind(f"{self}: {_cause(error.orig)}") from error
        except UnicodeDecodeError as error:  # SQLite quotes a damaged schema
            cause = SQLITE_CAUSES[sqlite3.SQLITE_CORRUPT]
            raise StoreError(f"{self}: {cause}") from error


def is_database(path: Path) -> bool:
    """Whether a file is a database of SQLite, which nothing is written over."""
    return path.is_file() and _start_of(path) == SQLITE_MAGIC


def _start_of(path: Path) -> bytes:
    """The first bytes, read without closing the file.

    To close any descriptor of a file takes away all locks that the process has on it,
    those of SQLite's connections too: others may then take the log away under them.
    So one stays open for each file; https://www.sqlite.org/howtocorrupt.html, 2.2.
    """
    found = path.stat()
    key = (os.getpid(), found.st_dev, found.st_ino)  # a fork may be of another user
    if key not in _KEPT_OPEN:
        _KEPT_OPEN[key] = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    return os.pread(_KEPT_OPEN[key], len(SQLITE_MAGIC), 0)


_KEPT_OPEN: dict[tuple[int, int, int], int] = {}
"""Descriptors by process, device, and inode, which is no other file's meanwhile."""


def _shown(url: URL) -> str:
    return url.set(query={}).render_as_string(hide_password=True)


def _may_pass(error: DBAPIError) -> bool:
    """Whether the same may go well a little later."""
    code = getattr(error.orig, "sqlite_errorcode", None)
    if code is not None:
        return code & 0xFF in SQLITE_PASSING
    state = getattr(error.orig, "sqlstate", None)
    if state is None:  # no server has answered
        return isinstance(error, OperationalError) or error.connection_invalidated
    return str(state).startswith(POSTGRESQL_PASSING)


def _cause(error: BaseException | None) -> str:
    code = getattr(error, "sqlite_errorcode", None)  # the low byte is the primary one
    if code is None and isinstance(error, sqlite3.OperationalError):
        code = sqlite3.SQLITE_CORRUPT  # Python's driver found a text that is no UTF-8
    if code is not None and code & 0xFF in SQLITE_CAUSES:
        return SQLITE_CAUSES[code & 0xFF]
    return first_line(error)


def _sqlite_engine(path: Path, mode: Mode, foreign_keys: bool) -> Engine:
    # A URI, so that nothing comes into being by mistake, and that any path will do.
    url = URL.create(
        "sqlite",
        database=f"file:{quote(str(path))}",
        query={"uri": "true", **_access(path, mode)},
    )
    engine = create_engine(
        url, connect_args={"timeout": BUSY_TIMEOUT_S}, json_deserializer=read_json
    )

    @event.listens_for(engine, "connect")
    def prepare(connection: Any, record: object) -> None:
        # Python's driver would begin transactions late, and never for reading.
        connection.isolation_level = None
        connection.execute(f"PRAGMA foreign_keys = {foreign_keys:d}")
        connection.execute(f"PRAGMA query_only = {mode == 'read':d}")

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        options = connection.get_execution_options()
        if statement := options.get("sqlite_begin", "BEGIN"):
            connection.exec_driver_sql(statement)

    return engine


def read_json(text: str) -> Any:
    """Read a stored value; one that is no JSON any more is told as damage."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise damaged_value(text) from error


def damaged_value(value: object) -> StoreError:
    """The error that a value is not what was stored."""
    return StoreError(
        f"the database is damaged: {str(value)[:40]!r} stands where a value should;"
        " `tlbench db check` tells where, and how to save the rest"
    )


class ById(dict[Any, Value]):
    """What is stored, by what refers to it; what is not there is told as damage."""

    def __missing__(self, key: object) -> Value:
        raise damaged_value(key)


def writer(engine: Engine) -> Engine:
    """The same engine, whose transactions take SQLite's write lock at once.

    A transaction that reads first and asks for the lock later can lose it to another
    process, and then fails without waiting.
    """
    return engine.execution_options(sqlite_begin="BEGIN IMMEDIATE")


def sqlite_statements(engine: Engine, *statements: str) -> None:
    """Run what works only outside a transaction; nothing on another database."""
    if engine.dialect.name != "sqlite":
        return
    with engine.execution_options(sqlite_begin=None).connect() as connection:
        for statement in statements:
            connection.exec_driver_sql(statement).close()


def _access(path: Path, mode: Mode) -> dict[str, str]:
    """SQLite's URI parameters; https://www.sqlite.org/uri.html.

    In WAL mode even a reader needs the side files. Where it may write them, it opens
    the file like a writer, since only then are they taken away again. Where it may
    not, the file must be declared immutable, unless a writer has left them there.
    """
    if mode == "create":
        return {"mode": "rwc"}
    if mode == "write" or os.access(path.parent, os.W_OK):
        return {"mode": "rw"}
    wal = path.with_name(path.name + "-wal")
    if wal.exists():
        return {"mode": "ro"}
    return {"mode": "ro", "immutable": "1"}
