"""What one listener lets peers do. Each number bounds a way in which a peer could hold or fill the node."""

import resource
from contextlib import suppress
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """max_associations: established at once; over it see `places`: who finds none gets A-ASSOCIATE-RJ (local limit exceeded).
    max_giving: associations that answer a query or give instances back, which count among these only when there are more.
    max_waiting: connections that have not yet sent a whole A-ASSOCIATE-RQ; over it the oldest is closed.
    association_deadline_s: from the connection to the whole A-ASSOCIATE-RQ. network_timeout_s: of silence afterwards.
    place_wait_s: how long a whole A-ASSOCIATE-RQ waits for a place before it is rejected.
    announced_pdu_bytes: what we ask senders to keep to; max_pdu_bytes: what we read all the same, longer ones end the link.
    max_object_bytes: of one data set. max_inflated_bytes: of a deflated one.
    """

    max_associations: int = 25
    max_giving: int = 12
    max_waiting: int = 512
    association_deadline_s: float = 10.0
    network_timeout_s: float = 60.0
    place_wait_s: float = 4.0
    announced_pdu_bytes: int = 131_072
    max_pdu_bytes: int = 16 << 20
    max_object_bytes: int = 4 << 30
    max_inflated_bytes: int = 512 << 20


DEFAULT_LIMITS = Limits()


def share_of_one_address(most: int) -> int:
    """How many of `most` places one address may hold: the last quarter is for others, so that none can lock out all."""
    return most - most // 4


def raise_descriptor_limit() -> int:
    """Let this process open as many descriptors as the system lets it; how many that is."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with suppress(OSError, ValueError):  # a hard limit beyond fs.nr_open, in a container
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]
