"""The registry's answers to `status`, `studies` and `explain`. Each is one consistent view."""

from dicomnode.domain.clock import type_clock
from dicomnode.registry import explain as explanation
from dicomnode.registry import queries
from dicomnode.registry.alarms import Alarms
from dicomnode.registry.announcements import Announcements
from dicomnode.registry.engine import Database
from dicomnode.registry.records import Transition


class Answers:
    """What people ask."""

    _database: Database
    _clock: type_clock

    @property
    def announcements(self) -> Announcements:
        """What others announce of studies."""
        return Announcements(self._database, self._clock)

    @property
    def alarms(self) -> Alarms:
        """What waits for an administrator."""
        return Alarms(self._database, self._clock)

    def status_counts(self) -> dict[str, object]:
        """{"counts": {studies, series, instances, jobs:{state:n}, deliveries:{state:n}}, "oldest_queued_s": float | None}."""
        with self._database.read() as session:
            return queries.status_counts(session, self._clock())

    def studies(self, query: str = "", limit: int = 100) -> list[dict[str, object]]:
        """The `studies` of the contract, newest first; `query`: UID, key, patient, accession number, * as wildcard."""
        with self._database.read() as session:
            return queries.studies(session, query, limit)

    def explain(self, study: str) -> dict[str, object]:
        """The contract's `explain`: paragraph, series with routes, jobs, results, deliveries. UsageError if unknown."""
        with self._database.read() as session:
            return explanation.explain(session, study, self._clock())

    def find_study(self, text: str) -> int | None:
        """The id of the study with this UID, key ("S12") or accession number."""
        with self._database.read() as session:
            return queries.find_study(session, text)

    def audit(self, key: str) -> list[Transition]:
        """Every transition of one row ("E34", "J56", "D78"), oldest first."""
        with self._database.read() as session:
            return queries.audit(session, key)
