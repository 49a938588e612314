"""The history of the schema, by Alembic: where a database stands, and the way up."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection

SCRIPTS = Path(__file__).parent
"""Folder of `env.py` and `versions/`."""

VERSION_TABLE = "tlbench_revision"
"""A name of our own, not Alembic's: it tells our databases from those of others."""


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(SCRIPTS).replace("%", "%%"))
    return config


def head() -> str:
    """The newest revision that this tlbench knows."""
    revision = ScriptDirectory.from_config(_config()).get_current_head()
    assert revision is not None, f"no revisions in {SCRIPTS}"
    return revision


def known() -> frozenset[str]:
    """All revisions that this tlbench knows, the newest included."""
    scripts = ScriptDirectory.from_config(_config())
    return frozenset(script.revision for script in scripts.walk_revisions())


def current(connection: Connection) -> str | None:
    """The revision of the database; None: no revision has been applied yet."""
    options = {"version_table": VERSION_TABLE}
    return MigrationContext.configure(connection, opts=options).get_current_revision()


def upgrade(connection: Connection) -> None:
    """Apply what is missing, within the transaction of the connection."""
    config = _config()
    config.attributes["connection"] = connection  # env.py takes it from here
    command.upgrade(config, "head")
