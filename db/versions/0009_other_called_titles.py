"""Further AE titles of ours to which a series was sent, with the times of its first and last image there."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("series") as batch:
        batch.add_column(sa.Column("also_called", sa.JSON(), nullable=True))
