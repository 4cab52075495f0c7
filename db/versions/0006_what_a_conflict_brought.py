"""A conflict keeps what its instance's row would need, for an operator may decide that it is the right one."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("conflicts") as batch:
        batch.add_column(sa.Column("transfer_syntax_uid", sa.String(), nullable=True))
        batch.add_column(sa.Column("attributes", sa.JSON(), nullable=True))
