"""The history of the schema, by Alembic: where a database stands, and the way up.

Every command asks where a database stands, and so that is found without Alembic, which
takes as long to import as a query takes.
"""

import re
from pathlib import Path

from sqlalchemy import ColumnClause, Connection, column, select, table

from tlbench.db import views

SCRIPTS = Path(__file__).parent
"""Folder of `env.py` and `versions/`."""

VERSION_TABLE = "tlbench_revision"
"""A name of our own, not Alembic's: it tells our databases from those of others."""

_IDENTIFIER = re.compile(r'^(revision|down_revision) = "(\w+)"$', re.MULTILINE)


def _down_revisions() -> dict[str, str | None]:
    """Each revision with the one before it, as the files say; None: the first."""
    found = {}
    for file in (SCRIPTS / "versions").glob("*.py"):
        said = dict(_IDENTIFIER.findall(file.read_text(encoding="utf-8")))
        if "revision" in said:
            found[said["revision"]] = said.get("down_revision")
    return found


def head() -> str:
    """The newest revision that this tlbench knows."""
    revisions = _down_revisions()
    (newest,) = set(revisions) - set(revisions.values())
    return newest


def known() -> frozenset[str]:
    """All revisions that this tlbench knows, the newest included."""
    return frozenset(_down_revisions())


def current(connection: Connection) -> str | None:
    """The revision of the database; None: no revision has been applied yet."""
    version: ColumnClause[str] = column("version_num")
    return connection.scalar(select(version).select_from(table(VERSION_TABLE)))


def upgrade(connection: Connection) -> None:
    """Apply what is missing, within the transaction of the connection."""
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(SCRIPTS).replace("%", "%%"))
    config.attributes["connection"] = connection  # env.py takes it from here
    views.drop(connection)
    command.upgrade(config, "head")
    views.create(connection)
