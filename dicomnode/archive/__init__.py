"""Query/Retrieve as SCP over what we hold (PS3.4 C).

Enters: C-FIND, C-MOVE and C-GET requests of peers that may "query" or "retrieve" (`network.dimse`). Leaves: matches, page by
page; stored instances, their data sets byte for byte, to the peer that asked or to a peer of the settings. Promises: offered is
what was received and stands: nothing that is quarantined, held for an operator, purged or rejected, and no results, which leave
by the outbox alone; what we committed ourselves to is offered whatever is held. Bytes are checked before they leave. Memory is
bounded, no request holds a database transaction while a peer reads, and images on their way in do not wait.
"""

from dicomnode.archive.service import Archive, ArchiveLimits

__all__ = ["Archive", "ArchiveLimits"]
