"""Runs that are known in every database, tags and notes, and results of other tools."""

import hashlib
import json
from datetime import UTC, datetime

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

# What makes a run that has no uid yet the same run in two copies of one database,
# beside the moment when it began.
_CONTENT = ("suite", "source", "command", "version")
_TOLD_BY_SOME = ("data", "precision", "device")
_COUNTED_BY_SOME = ("image_size", "world_size", "zero_stage")


def upgrade() -> None:
    op.create_table(
        "run_tag",
        sa.Column("run_id", sa.Integer(), nullable=False),
        sa.Column("tag", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["run_id"], ["run.id"], name="fk_run_tag_run_id_run", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("run_id", "tag", name="pk_run_tag"),
    )
    op.create_index("ix_run_tag_tag", "run_tag", ["tag"])
    with op.batch_alter_table("experiment_case") as table:
        for name in _TOLD_BY_SOME:
            table.alter_column(name, existing_type=sa.Text(), nullable=True)
        for name in _COUNTED_BY_SOME:
            table.alter_column(name, existing_type=sa.Integer(), nullable=True)
    with op.batch_alter_table("trial") as table:
        table.alter_column("seed", existing_type=sa.BigInteger(), nullable=True)
        table.alter_column("wall_time_s", existing_type=sa.Double(), nullable=True)
    with op.batch_alter_table("run") as table:
        table.add_column(sa.Column("uid", sa.String(length=32), nullable=True))
        table.add_column(sa.Column("origin", sa.Text(), nullable=True))
        table.add_column(sa.Column("ended_by", sa.Text(), nullable=True))
        table.add_column(
            sa.Column("note", sa.Text(), nullable=False, server_default="")
        )
    _name_runs(op.get_bind())
    with op.batch_alter_table("run") as table:
        table.alter_column("uid", existing_type=sa.String(length=32), nullable=False)
        table.alter_column("note", existing_type=sa.Text(), server_default=None)
        table.create_unique_constraint("uq_run_uid", ["uid"])
    op.create_index("ix_run_origin", "run", ["origin"])
    # With all that a condition and a column of values need, so that neither reads rows.
    op.drop_index("ix_metric_name_value", "metric")
    columns = ["name", "rank", "trial_id", "value"]
    op.create_index(f"ix_metric_{'_'.join(columns)}", "metric", columns)


def _name_runs(connection: sa.Connection) -> None:
    moment = sa.column("started_at", sa.DateTime(timezone=True))
    run = sa.table("run", *map(sa.column, ("id", "uid", *_CONTENT)), moment)
    for row in connection.execute(sa.select(run)).all():
        content = [*(getattr(row, name) for name in _CONTENT), _in_utc(row.started_at)]
        uid = hashlib.sha256(json.dumps(content).encode()).hexdigest()[:32]
        connection.execute(run.update().where(run.c.id == row.id).values(uid=uid))


def _in_utc(moment: datetime) -> str:
    """The same text from every server: PostgreSQL answers in the zone of a session."""
    if moment.tzinfo is not None:
        moment = moment.astimezone(UTC).replace(tzinfo=None)
    return moment.isoformat()
