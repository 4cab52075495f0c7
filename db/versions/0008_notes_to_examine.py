"""Key object selections that came in are found without a look at every image."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

UNEXAMINED = sa.text("sop_class_uid = '1.2.840.10008.5.1.4.1.1.88.59' AND rejected IS NULL")


def upgrade() -> None:
    op.create_index("ix_instances_notes", "instances", ["id"], sqlite_where=UNEXAMINED, postgresql_where=UNEXAMINED)
