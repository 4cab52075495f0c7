"""What modalities and archives announce of studies (MPPS, IAN), standing alarms, and commitments that were asked for before."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "announcements",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("kind", sa.String(8), nullable=False),
        sa.Column("sop_instance_uid", sa.String(), nullable=False),
        sa.Column("study_instance_uid", sa.String(), nullable=False),
        sa.Column("peer", sa.String(), nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("reason", sa.String(), nullable=False),
        sa.Column("shared", sa.Boolean(), nullable=False),
        sa.Column("references", sa.JSON(), nullable=False),
        sa.Column("received_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("changed_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_announcements"),
        sa.UniqueConstraint(
            "sop_instance_uid", "study_instance_uid", name="uq_announcements_sop_instance_uid_study_instance_uid"
        ),
    )
    op.create_index("ix_announcements_study_instance_uid", "announcements", ["study_instance_uid"])
    op.create_index("ix_announcements_changed_at", "announcements", ["changed_at"])
    op.create_table(
        "alarms",
        sa.Column("kind", sa.String(32), nullable=False),
        sa.Column("subject", sa.String(), nullable=False),
        sa.Column("since", sa.DateTime(timezone=True), nullable=False),
        sa.Column("count", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("kind", "subject", name="pk_alarms"),
    )
    held = sa.text("held != ''")
    for table in ("studies", "series"):
        op.create_index(f"ix_{table}_held", table, ["id"], sqlite_where=held, postgresql_where=held)
    with op.batch_alter_table("deliveries") as batch:
        batch.add_column(sa.Column("earlier_commitment_uid", sa.String(), nullable=True))
        batch.create_index("ix_deliveries_earlier_commitment_uid", ["earlier_commitment_uid"])
