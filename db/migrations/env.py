"""Run by Alembic: applies the revisions on the connection that it is handed."""

from alembic import context

from tlbench.db.migrations import VERSION_TABLE
from tlbench.db.models import Base

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    version_table=VERSION_TABLE,
    render_as_batch=True,  # SQLite alters a table by copying it
)
with context.begin_transaction():
    context.run_migrations()
