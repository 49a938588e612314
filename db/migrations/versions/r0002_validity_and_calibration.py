"""Validity of trials, calibrations of machines, and batches that a run finds out."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.create_table(
        "calibration",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("machine_id", sa.Integer(), nullable=False),
        sa.Column("measured_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("value", sa.Double(), nullable=True),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(
            ["machine_id"], ["machine.id"], name="fk_calibration_machine_id_machine"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_calibration"),
        sa.UniqueConstraint(
            "machine_id",
            "name",
            "measured_at",
            name="uq_calibration_machine_id_name_measured_at",
        ),
    )
    with op.batch_alter_table("experiment_case") as table:
        table.alter_column("batch_size", existing_type=sa.Integer(), nullable=True)
    with op.batch_alter_table("trial") as table:
        table.add_column(sa.Column("validity", sa.String(length=16), nullable=True))
        table.add_column(
            sa.Column("doubts", sa.JSON(), nullable=False, server_default="[]")
        )
    with op.batch_alter_table("trial") as table:
        table.alter_column("doubts", existing_type=sa.JSON(), server_default=None)
