"""Attempts of trials, where trials ran, and what it takes to resume a run."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.create_table(
        "attempt",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("run_id", sa.Integer(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("traceback", sa.Text(), nullable=True),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("wall_time_s", sa.Double(), nullable=False),
        sa.Column("nodes", sa.JSON(), nullable=False),
        sa.ForeignKeyConstraint(
            ["run_id"], ["run.id"], name="fk_attempt_run_id_run", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_attempt"),
        sa.UniqueConstraint(
            "run_id", "position", "number", name="uq_attempt_run_id_position_number"
        ),
    )
    with op.batch_alter_table("trial") as table:
        table.add_column(
            sa.Column("attempts", sa.Integer(), nullable=False, server_default="1")
        )
        table.add_column(
            sa.Column("nodes", sa.JSON(), nullable=False, server_default="[]")
        )
    with op.batch_alter_table("trial") as table:
        table.alter_column("attempts", existing_type=sa.Integer(), server_default=None)
        table.alter_column("nodes", existing_type=sa.JSON(), server_default=None)
    with op.batch_alter_table("run") as table:
        table.add_column(sa.Column("plan", sa.JSON(), nullable=True))
        table.add_column(sa.Column("driver", sa.JSON(), nullable=True))
        table.add_column(
            sa.Column("beat_at", sa.DateTime(timezone=True), nullable=True)
        )
