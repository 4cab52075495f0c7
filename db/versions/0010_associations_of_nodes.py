"""To which of the nodes that share the rows an association came: the restart of one ends none of the others'."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("associations") as batch:
        batch.add_column(sa.Column("node", sa.String(), nullable=True))
