"""What is kept, for how long and under whose name: identities, retention, what the node remembers of itself."""

from dicomnode.domain.clock import type_clock
from dicomnode.domain.errors import UsageError
from dicomnode.registry import conflicts, keys
from dicomnode.registry.engine import Database
from dicomnode.registry.tables import Study


class Keeping:
    """The registry's part for what is kept. Each call is one short transaction, committed on return."""

    def __init__(self, database: Database, clock: type_clock) -> None:
        self._database, self._clock = database, clock

    def identity(self, study_key: str) -> tuple[str, dict[str, str]]:
        """Study Instance UID, and who the newest header says that the patient is (keyword → text, only what it states)."""
        study_id = keys.row_id(study_key, "S")
        with self._database.read() as session:
            study = session.get(Study, study_id)
            if study is None:
                raise UsageError(f"no study is known as {study_key!r}", "`dicomnode studies` shows keys")
            return study.study_instance_uid, conflicts.newest_identity(session, study_id)
