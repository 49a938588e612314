"""Where a database stands, found without Alembic, is where Alembic says it stands."""

import subprocess
import sys

from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

from tlbench.db import migrations
from tlbench.db.store import ResultStore


def test_the_revisions_are_those_that_alembic_finds() -> None:
    scripts = ScriptDirectory(str(migrations.SCRIPTS))
    assert migrations.head() == scripts.get_current_head()
    assert migrations.known() == {s.revision for s in scripts.walk_revisions()}


def test_a_database_stands_where_alembic_finds_it(store: ResultStore) -> None:
    with store.session() as session:
        connection = session.connection()
        context = MigrationContext.configure(
            connection, opts={"version_table": migrations.VERSION_TABLE}
        )
        assert migrations.current(connection) == context.get_current_revision()


def test_reading_does_without_alembic() -> None:
    program = "import sys, tlbench.db.store; sys.exit('alembic' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0
