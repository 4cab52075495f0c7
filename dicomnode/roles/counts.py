"""C-FIND for routing: how many images a peer lists. One that gives no answer is left alone for a while; others go on."""

import time
from collections.abc import Mapping, Sequence

import structlog

from dicomnode.domain.errors import PeerUnreachable
from dicomnode.domain.routes import Peer

AGAIN_AFTER_S = 60.0
_log = structlog.get_logger()


class Counts:
    """`routing.type_count` over the network."""

    def __init__(self, peers: Mapping[str, Peer], our_ae_title: str) -> None:
        self._peers, self._our_ae_title = peers, our_ae_title
        self._silent_until: dict[str, float] = {}

    def __call__(self, peer: str, study_instance_uid: str, series_instance_uids: Sequence[str]) -> Mapping[str, int]:
        """Series → count; nothing where the peer gives no answer."""
        from dicomnode.network.counts import count_instances

        if time.monotonic() < self._silent_until.get(peer, 0.0):
            return {}
        try:
            return count_instances(self._peers[peer], self._our_ae_title, study_instance_uid, series_instance_uids)
        except PeerUnreachable as error:
            self._silent_until[peer] = time.monotonic() + AGAIN_AFTER_S
            _log.warning("a peer gives no counts", peer=peer, exc_info=error)
            return {}
