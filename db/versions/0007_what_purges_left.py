"""Purges are found without a look at every image. Partial: an image on its way in writes to none of these indexes."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

PURGED = sa.text("purged_at IS NOT NULL")
TO_REMOVE = sa.text("purged_at IS NOT NULL AND path != ''")


def upgrade() -> None:
    for table in ("instances", "results"):
        op.create_index(f"ix_{table}_purged", table, ["purged_at"], sqlite_where=PURGED, postgresql_where=PURGED)
        op.create_index(f"ix_{table}_to_remove", table, ["path"], sqlite_where=TO_REMOVE, postgresql_where=TO_REMOVE)
