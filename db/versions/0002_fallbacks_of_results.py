"""Whose destinations get a result, and in place of what."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("results", sa.Column("profiles", sa.JSON(), nullable=True))
    op.add_column("results", sa.Column("fallback_profiles", sa.JSON(), nullable=True))
    op.add_column("results", sa.Column("replaces", sa.JSON(), nullable=True))
    op.add_column("results", sa.Column("when_refused", sa.String(), nullable=True))
