"""Alembic's entry: the connection comes from `dicomnode.registry`, which also opens the transaction and minds foreign keys."""

from alembic import context

from dicomnode.registry.tables import Base

connection = context.config.attributes.get("connection")
if connection is None:
    raise SystemExit("error: migrations are run by dicomnode itself — dicomnode db upgrade")

# Batch mode: SQLite cannot alter most of a table, so Alembic copies it. The caller has switched foreign keys off for that
# (with them on, ON DELETE CASCADE deletes all child rows) and checks them before the commit.
context.configure(
    connection=connection,
    target_metadata=Base.metadata,
    render_as_batch=connection.dialect.name == "sqlite",
    compare_type=True,
)
with context.begin_transaction():
    context.run_migrations()
