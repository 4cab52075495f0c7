"""What may be purged and when, since when a delivery is tried, jobs ranked by priority and age, what a rejection note named."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("studies") as batch:
        batch.add_column(sa.Column("purged_at", sa.DateTime(timezone=True), nullable=True))
        batch.create_index(op.f("ix_studies_purged_at_last_arrival_at"), ["purged_at", "last_arrival_at"], unique=False)
    with op.batch_alter_table("instances") as batch:
        batch.add_column(sa.Column("keep_until", sa.DateTime(timezone=True), nullable=True))
        batch.add_column(sa.Column("purged_at", sa.DateTime(timezone=True), nullable=True))
        batch.add_column(sa.Column("rejected", sa.String(), nullable=True))
    with op.batch_alter_table("jobs") as batch:
        batch.add_column(sa.Column("rank_at", sa.DateTime(timezone=True), nullable=True))
    with op.batch_alter_table("results") as batch:
        batch.add_column(sa.Column("purged_at", sa.DateTime(timezone=True), nullable=True))
        batch.add_column(sa.Column("stale", sa.String(), nullable=True))
    with op.batch_alter_table("deliveries") as batch:
        batch.add_column(sa.Column("tried_since", sa.DateTime(timezone=True), nullable=True))
    with op.batch_alter_table("audit") as batch:
        batch.create_index(op.f("ix_audit_at"), ["at"], unique=False)
